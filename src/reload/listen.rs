//! Hears `NOTIFY treemap_refreshed` on a connection of its own, and says that the view may have changed.
//!
//! LISTEN is believed only once a notification of our own has come back: through a transaction pooler it succeeds and
//! never delivers. Until then, and whenever the connection is lost, the poll of `reload` does the same work, later.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_postgres::{AsyncMessage, Client, types::Type};

use crate::{
    metrics::Metrics,
    postgres::{
        Db,
        connect::{Wire, connect},
        error::{DbError, Kind},
        url::DatabaseUrl,
    },
    retry::{Ended, Trouble, backoff::Backoff},
};

/// The channel that `refresh_treemap_data()` notifies.
const CHANNEL: &str = "treemap_refreshed";
const DOING: &str = "listen for refreshes";
/// How long LISTEN, our own notification and a heartbeat may take each.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the session is asked whether it still listens: a half-open connection shows no other way.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a LISTEN that does not deliver is left alone: only a new configuration mends it, and each try leaves its mark on a
/// connection of the pooler.
const NOT_DELIVERING: Duration = Duration::from_secs(600);

/// Listens for ever, and tells `changed` after each notification, after each new beginning, and when the connection is
/// lost: what happens in between is not heard. `url` has to be that of a primary: a standby has no notifications.
/// `primary` is where our own are sent.
pub async fn listen(url: DatabaseUrl, primary: Db, changed: Arc<Notify>, mut trouble: Trouble, metrics: Arc<Metrics>) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
    loop {
        let end = session(&url, &primary, &changed, || {
            metrics.listener_up.set(1);
            backoff.reset();
            trouble.over()
        })
        .await;
        metrics.listener_up.set(0);
        if let Some(words) = trouble.met(&end).await {
            tracing::warn!("refreshes are noticed by polling only: {words}");
        }
        let pause = match end.kind {
            // It passes.
            Kind::Unreachable | Kind::TimedOut => backoff.pause().min(Duration::from_secs(10)),
            Kind::NotDelivered => NOT_DELIVERING,
            _ => backoff.pause(),
        };
        tokio::time::sleep(pause).await;
    }
}

/// One connection, from its beginning to its end; and why that came. `delivers` is told once it does.
async fn session(
    url: &DatabaseUrl,
    primary: &Db,
    changed: &Notify,
    delivers: impl FnOnce() -> Option<Ended>,
) -> DbError {
    let (client, connection) = match connect(url, DOING).await {
        Ok(connected) => connected,
        Err(error) => return error,
    };
    let proof = format!("proof {:016x}", fastrand::u64(..));
    let (heard_proof, mut proof_heard) = mpsc::channel(1);
    // The connection is polled by nobody else and waits for nothing: a listener that lags behind holds back vacuum.
    let hearing = hear(connection, changed, &proof, &heard_proof);
    let asking = async {
        ask(url, client.batch_execute(&format!("LISTEN {CHANNEL}"))).await?;
        // Sent over another connection: on this one a pooler could hand it back by the way.
        notify(primary, &proof).await?;
        if timeout(PATIENCE, proof_heard.recv()).await.is_err() {
            return Err(not_delivered(url));
        }
        let silent_seconds = delivers().map(|ended| ended.seconds);
        tracing::info!(silent_seconds, "listening for refreshes");
        changed.notify_one();
        heartbeat(&client, url).await
    };
    let end = tokio::select! {
        Err(end) = asking => end,
        error = hearing => match error {
            Some(error) => DbError::new(DOING, &error).at(url),
            None => DbError::of_kind(Kind::Unreachable, DOING, "the connection was closed").at(url),
        },
    };
    changed.notify_one();
    end
}

fn not_delivered(url: &DatabaseUrl) -> DbError {
    DbError::of_kind(Kind::NotDelivered, DOING, "LISTEN succeeds and delivers nothing, as through a transaction pooler")
        .at(url)
}

/// A statement of ours, within our patience.
async fn ask<T>(
    url: &DatabaseUrl,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, DbError> {
    match timeout(PATIENCE, statement).await {
        Ok(answer) => answer.map_err(|error| DbError::new(DOING, &error).at(url)),
        Err(_) => Err(DbError::of_kind(Kind::Unreachable, DOING, "no answer in time").at(url)),
    }
}

/// Reads the connection until it ends; `None` when the server closed it without a word.
async fn hear(
    mut connection: Wire,
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

async fn heartbeat(client: &Client, url: &DatabaseUrl) -> Result<(), DbError> {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let channels = ask(url, client.query_typed("SELECT pg_listening_channels()", &[])).await?;
        if channels.is_empty() {
            // The session is another one than the one that said LISTEN.
            return Err(not_delivered(url));
        }
    }
}

async fn notify(primary: &Db, payload: &str) -> Result<(), DbError> {
    const STATEMENT: &str = "SELECT pg_notify($1, $2)";
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&CHANNEL, Type::TEXT), (&payload, Type::TEXT)];
    primary.rows("notify", PATIENCE, STATEMENT, &parameters, |_| Ok(())).await
}
