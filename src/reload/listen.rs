//! Receives `NOTIFY treemap_refreshed` on a connection of its own, and wakes the loop that reloads.
//!
//! LISTEN counts as working only once a notification has arrived: through a transaction pooler it succeeds and never delivers.
//! Until then, and whenever the connection is lost, the poll of `reload` does the same work, later.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_postgres::{
    AsyncMessage, Client,
    types::{ToSql, Type},
};

use crate::{
    metrics::Metrics,
    postgres::{
        Db, Session,
        connect::{Wire, connect},
        current::Current,
        error::{DbError, Kind},
        url::DatabaseUrl,
    },
    retry::{Ended, FailureLog, backoff::Backoff},
};

/// The channel that `refresh_treemap_data()` notifies.
const CHANNEL: &str = "treemap_refreshed";
/// The payload of a notification that only proves that LISTEN works.
const PROOF: &str = "proof";
const DOING: &str = "listen for refreshes";
/// How long LISTEN, our own notification and a heartbeat may take each.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often the session is asked whether it still listens: nothing else reveals a half-open connection.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The pause after a LISTEN that does not deliver: only a new configuration mends it, and each try leaves its mark on a
/// connection of the pooler.
const NOT_DELIVERING: Duration = Duration::from_secs(600);
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Listens for ever, and wakes `changed` after each notification, at each new start, and when the connection is
/// lost: what happens in between is not received. `database` has to be a primary: a standby has no notifications.
/// `primary` is where our own are sent.
pub async fn listen(
    mut database: Current,
    primary: Db,
    changed: Arc<Notify>,
    mut failures: FailureLog,
    metrics: Arc<Metrics>,
) {
    let mut backoff = Backoff::new(FIRST_PAUSE);
    let log = |words: &str| tracing::warn!("LISTEN does not work; polling for refreshes: {words}");
    loop {
        failures.attempt(log);
        let url = database.url();
        let session = session(&url, &primary, &changed, || {
            metrics.listener_up.set(1);
            backoff.reset();
            failures.succeeded()
        });
        let end = tokio::select! {
            end = session => end,
            // Another session begins at once, and looks for what was missed.
            () = database.changed() => {
                metrics.listener_up.set(0);
                continue;
            }
        };
        metrics.listener_up.set(0);
        failures.failed(&end, log);
        let pause = match end.kind {
            Kind::NotDelivered => NOT_DELIVERING,
            // It passes by itself.
            Kind::TimedOut => backoff.pause(Kind::Unreachable.longest_pause()),
            kind => backoff.pause(kind.longest_pause()),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = database.changed() => backoff.reset(),
        }
    }
}

/// One connection, from its start to its end; gives the reason of the end. Calls `delivers` once LISTEN has proven to work.
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
    let (proven, mut proof) = mpsc::channel(1);
    // The connection is polled by nobody else and waits for nothing: a listener that lags behind holds back vacuum.
    let receiving = receive(connection, changed, &proven);
    let asking = async {
        ask(url, client.batch_execute(&format!("LISTEN {CHANNEL}"))).await?;
        tokio::select! {
            // Any notification is a proof; that of a running refresh comes while its connection is not free for ours.
            biased;
            Some(()) = proof.recv() => {}
            session = primary.session_when_free("notify") => {
                notify(&session?).await?;
                if timeout(ANSWER_WITHIN, proof.recv()).await.is_err() {
                    return Err(not_delivered(url));
                }
            }
        }
        let down_seconds = delivers().map(|ended| ended.seconds);
        tracing::info!(down_seconds, "listening for refreshes");
        changed.notify_one();
        heartbeat(&client, url).await
    };
    let end = tokio::select! {
        Err(end) = asking => end,
        error = receiving => match error {
            Some(error) => DbError::new(DOING, &error).at(url),
            None => DbError::of_kind(Kind::Unreachable, DOING, "the connection was closed").at(url),
        },
    };
    changed.notify_one();
    end
}

/// Sends a notification over the connection that refreshes: over the listener's own a pooler could deliver it by chance.
async fn notify(session: &Session) -> Result<(), DbError> {
    const STATEMENT: &str = "SELECT pg_notify($1, $2)";
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&CHANNEL, Type::TEXT), (&PROOF, Type::TEXT)];
    session.rows("notify", ANSWER_WITHIN, STATEMENT, &parameters, |_| Ok(())).await
}

fn not_delivered(url: &DatabaseUrl) -> DbError {
    DbError::of_kind(Kind::NotDelivered, DOING, "LISTEN succeeds and delivers nothing, as through a transaction pooler")
        .at(url)
}

/// A statement of ours, within its time.
async fn ask<T>(
    url: &DatabaseUrl,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, DbError> {
    match timeout(ANSWER_WITHIN, statement).await {
        Ok(answer) => answer.map_err(|error| DbError::new(DOING, &error).at(url)),
        Err(_) => Err(DbError::of_kind(Kind::Unreachable, DOING, "no answer in time").at(url)),
    }
}

/// Reads the connection until it ends; `None` when the server closed it without an error.
async fn receive(mut connection: Wire, changed: &Notify, proven: &mpsc::Sender<()>) -> Option<tokio_postgres::Error> {
    loop {
        match std::future::poll_fn(|context| connection.poll_message(context)).await? {
            Ok(AsyncMessage::Notification(notification)) => {
                let _ = proven.try_send(());
                // A proof, ours or another replica's, says nothing of the view.
                if !notification.payload().starts_with(PROOF) {
                    // Many at once are one: `changed` remembers that there was any.
                    changed.notify_one();
                }
            }
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
