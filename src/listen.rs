//! Hears `NOTIFY treemap_refreshed` on a connection of its own, and says that the view may have changed.
//!
//! LISTEN is believed only once a notification of our own has come back: through a transaction pooler it succeeds and
//! never delivers. Until then, and whenever the connection is lost, the poll of `reload` does the same work, later.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket, tls::NoTlsStream, types::Type};

use crate::{
    backoff::Backoff,
    config::DatabaseUrl,
    db::Db,
    error::{DbError, Kind},
};

/// The channel that `refresh_treemap_data()` notifies.
const CHANNEL: &str = "treemap_refreshed";
/// How long the connection, LISTEN and our own notification may take each.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the session is asked whether it still listens: a half-open connection shows no other way.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a LISTEN that does not deliver is left alone: only a new configuration mends it.
const NOT_DELIVERING: Duration = Duration::from_secs(600);

/// Why a session of listening ended.
enum End {
    Lost(DbError),
    DoesNotDeliver,
}

/// Listens for ever, and tells `changed` after each notification and after each new beginning: what happened in between
/// was not heard. `db` is where our own notifications are sent.
pub async fn listen(url: DatabaseUrl, db: Db, changed: Arc<Notify>) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    let mut told = String::new();
    loop {
        let (end, delivered) = session(&url, &db, &changed).await;
        if delivered {
            backoff.reset();
            told.clear();
        }
        let (words, pause) = match end {
            End::Lost(error) => (error.to_string(), backoff.pause()),
            End::DoesNotDeliver => (
                format!(
                    "LISTEN on {url} delivers nothing, as through a transaction pooler; \
                     set LISTEN_DATABASE_URL to a direct or session connection"
                ),
                NOT_DELIVERING,
            ),
        };
        if words != told {
            tracing::warn!("refreshes are noticed by polling only: {words}");
            told = words;
        }
        tokio::time::sleep(pause).await;
    }
}

/// One connection, from its beginning to its end; and whether it ever delivered.
async fn session(url: &DatabaseUrl, db: &Db, changed: &Arc<Notify>) -> (End, bool) {
    const DOING: &str = "listen for refreshes";
    let silent = || End::Lost(DbError::of_kind(Kind::Unreachable, DOING, "no answer in time").at(url));
    let lost = |error: tokio_postgres::Error| End::Lost(DbError::new(DOING, &error).at(url));

    let (client, connection) = match timeout(PATIENCE, url.config().connect(NoTls)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return (lost(error), false),
        Err(_) => return (silent(), false),
    };
    let proof = format!("proof {:016x}", fastrand::u64(..));
    let (heard_proof, mut proof_heard) = mpsc::channel(1);
    // The connection is polled by nobody else and waits for nothing: a listener that lags behind holds back vacuum.
    let hearing = hear(connection, changed, &proof, &heard_proof);
    let mut delivered = false;
    let asking = async {
        match timeout(PATIENCE, client.batch_execute(&format!("LISTEN {CHANNEL}"))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return lost(error),
            Err(_) => return silent(),
        }
        // Sent over another connection: on this one a pooler could hand it back by the way.
        if let Err(error) = notify(db, &proof).await {
            return End::Lost(error);
        }
        if timeout(PATIENCE, proof_heard.recv()).await.is_err() {
            return End::DoesNotDeliver;
        }
        delivered = true;
        tracing::info!("listening for refreshes");
        changed.notify_one();
        heartbeat(&client, &lost, &silent).await
    };
    let end = tokio::select! {
        end = asking => end,
        error = hearing => error.map_or_else(silent, lost),
    };
    (end, delivered)
}

/// Reads the connection until it ends; `None` when the server closed it without a word.
async fn hear(
    mut connection: Connection<Socket, NoTlsStream>,
    changed: &Notify,
    proof: &str,
    heard_proof: &mpsc::Sender<()>,
) -> Option<tokio_postgres::Error> {
    loop {
        match std::future::poll_fn(|context| connection.poll_message(context)).await? {
            Ok(AsyncMessage::Notification(notification)) => match notification.payload() {
                own if own == proof => drop(heard_proof.try_send(())),
                // Another replica's: it wanted to know whether it is heard.
                other if other.starts_with("proof ") => {}
                // Many at once are one: `changed` remembers that there was any.
                _ => changed.notify_one(),
            },
            Ok(_) => {}
            Err(error) => return Some(error),
        }
    }
}

async fn heartbeat(client: &Client, lost: &impl Fn(tokio_postgres::Error) -> End, silent: &impl Fn() -> End) -> End {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        match timeout(PATIENCE, client.query_typed("SELECT pg_listening_channels()", &[])).await {
            Ok(Ok(channels)) if !channels.is_empty() => {}
            // The session is another one than the one that said LISTEN.
            Ok(Ok(_)) => return End::DoesNotDeliver,
            Ok(Err(error)) => return lost(error),
            Err(_) => return silent(),
        }
    }
}

async fn notify(db: &Db, payload: &str) -> Result<(), DbError> {
    const STATEMENT: &str = "SELECT pg_notify($1, $2)";
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&CHANNEL, Type::TEXT), (&payload, Type::TEXT)];
    db.rows("notify", PATIENCE, STATEMENT, &parameters, |_| Ok(())).await
}
