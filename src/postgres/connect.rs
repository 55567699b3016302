//! Makes a connection, host by host: a host that accepts and never answers does not keep us from the next.

use std::time::Duration;

use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Connection, Error, Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    error::{DbError, Kind},
    url::DatabaseUrl,
};

/// How long a connection may take to be made, with everything that the server asks before it is ready.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(4);

/// The driver's half of a connection: its owner has to poll it.
pub type Wire = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Connects to the first host that answers and is what the URL asks for.
///
/// Fails with the last host's reason when none does in time.
pub async fn connect(url: &DatabaseUrl, doing: &'static str) -> Result<(Client, Wire), DbError> {
    match timeout(CONNECT_WITHIN, first_of(url)).await {
        Ok(connected) => connected.map_err(|error| DbError::new(doing, &error)),
        Err(_) => Err(DbError::of_kind(Kind::Unreachable, doing, super::no_answer(CONNECT_WITHIN))),
    }
    .map_err(|error| error.at(url))
}

/// The same without a time limit on the last host: the caller sets it.
pub async fn first_of(url: &DatabaseUrl) -> Result<(Client, Wire), Error> {
    let hosts = url.hosts();
    let share = CONNECT_WITHIN / u32::try_from(hosts.len()).unwrap_or(u32::MAX);
    let (last, others) = hosts.split_last().expect("a connection string without a host is refused");
    for host in others {
        match timeout(share, host.connect(url.tls().clone())).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => tracing::debug!("{}", DbError::new("connect to one of the hosts", &error)),
            Err(_) => tracing::debug!("one of the hosts of {url} does not answer"),
        }
    }
    last.connect(url.tls().clone()).await
}

/// Polls a connection for as long as its client lives. When it breaks, the statement that runs on it fails.
pub fn drive(connection: Wire) -> JoinHandle<()> {
    tokio::spawn(async { drop(connection.await) })
}
