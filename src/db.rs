//! The one door to Postgres: a pool for the serving path, a session for a command, and the bound on every wait.
//!
//! Everything here works through a transaction pooler: statements are unnamed or sent as plain text, settings are local
//! to their transaction, and no statement is ever cancelled from outside (that alone can bring PgBouncer 1.18 down).

use std::{future::Future, pin::pin, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType};
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{
    Client, NoTls, Row,
    types::{ToSql, Type},
};
use tokio_stream::StreamExt;

use crate::{
    config::DatabaseUrl,
    error::{DbError, Kind},
};

/// Connections of the pool. With the listener's own a replica holds three.
const POOL_SIZE: usize = 2;
/// How long a connection may take to be made, with everything the server asks before it is ready.
const CONNECT: Duration = Duration::from_secs(8);
/// How much longer than the server we wait: a timeout of its own tells us more than ours.
const GRACE: Duration = Duration::from_secs(2);

/// The pool of the serving path.
#[derive(Debug, Clone)]
pub struct Db {
    pool: Pool,
}

impl Db {
    /// A pool that connects when it is first asked to.
    ///
    /// # Panics
    /// Never: a pool with timeouts wants a runtime, and is given one.
    #[must_use]
    pub fn new(url: &DatabaseUrl) -> Self {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let pool = Pool::builder(Manager::from_config(url.config().clone(), NoTls, recycling))
            .max_size(POOL_SIZE)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT))
            .create_timeout(Some(CONNECT))
            .recycle_timeout(Some(Duration::from_secs(1)))
            .build()
            .expect("a pool with timeouts has its runtime");
        Self { pool }
    }

    /// Runs one statement in a transaction of its own and hands each row to `each`. The server gives up after `bound`, we
    /// a little later. After any failure the connection is thrown away: it may still be busy.
    ///
    /// # Errors
    /// No connection, no time, or what Postgres says.
    pub async fn rows(
        &self,
        doing: &'static str,
        bound: Duration,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        mut each: impl FnMut(Row) -> Result<(), tokio_postgres::Error> + Send,
    ) -> Result<(), DbError> {
        let connection = self.pool.get().await.map_err(|error| pool_error(doing, &error))?;
        let run = async {
            connection.batch_execute(&begin("READ ONLY", bound)).await?;
            let parameters = parameters.iter().map(|(value, kind)| (*value, kind.clone()));
            let mut rows = pin!(connection.query_typed_raw(statement, parameters).await?);
            while let Some(row) = rows.next().await {
                each(row?)?;
            }
            connection.batch_execute("COMMIT").await
        };
        let done = bounded(doing, bound, run).await;
        if done.is_err() {
            drop(Object::take(connection));
        }
        done
    }
}

/// One connection, for a command that does its work and ends.
#[derive(Debug)]
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// Nobody answers in time, or the server refuses.
    pub async fn connect(url: &DatabaseUrl) -> Result<Self, DbError> {
        const DOING: &str = "connect to Postgres";
        let name = |error: DbError| error.at(url);
        let connect = url.config().connect(NoTls);
        let (client, connection) = match timeout(CONNECT, connect).await {
            Ok(connected) => connected.map_err(|error| name(DbError::new(DOING, &error)))?,
            Err(_) => return Err(name(DbError::of_kind(Kind::Unreachable, DOING, silent(CONNECT)))),
        };
        // A connection that breaks shows in the statement that runs on it; here there is nobody to tell.
        let driver = tokio::spawn(async { drop(connection.await) });
        Ok(Self { client, driver })
    }

    /// The connection, for statements that take no lock and little time.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs `work` in a transaction, commits it, and rolls it back when it fails. Statements and locks are bounded by
    /// `bound` on the server, the whole a little later here.
    ///
    /// # Errors
    /// What Postgres says, or no time.
    pub async fn transaction<T>(
        &self,
        doing: &'static str,
        bound: Duration,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DbError> {
        let done = bounded(doing, bound, async {
            self.client.batch_execute(&begin("READ WRITE", bound)).await?;
            let value = work.await?;
            self.client.batch_execute("COMMIT").await?;
            Ok(value)
        })
        .await;
        if done.is_err() {
            // Best effort: a session that cannot roll back is about to end, and the server then does it.
            let _ = timeout(GRACE, self.client.batch_execute("ROLLBACK")).await;
        }
        done
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// BEGIN with the bounds of the transaction, in one round trip. A setting outside of it would leak to others through a
/// transaction pooler. Compiling a statement of ours would take longer than running it.
fn begin(access: &str, bound: Duration) -> String {
    let bound = bound.as_millis();
    format!(
        "BEGIN {access}; SET LOCAL statement_timeout = {bound}; SET LOCAL lock_timeout = {bound}; \
         SET LOCAL idle_in_transaction_session_timeout = 60000; SET LOCAL jit = off"
    )
}

async fn bounded<T>(
    doing: &'static str,
    bound: Duration,
    run: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, DbError> {
    match timeout(bound + GRACE, run).await {
        Ok(done) => done.map_err(|error| DbError::new(doing, &error)),
        Err(_) => Err(DbError::of_kind(Kind::TimedOut, doing, silent(bound + GRACE))),
    }
}

fn silent(waited: Duration) -> String {
    format!("no answer within {} s", waited.as_secs())
}

fn pool_error(doing: &'static str, error: &PoolError) -> DbError {
    match error {
        PoolError::Backend(error) => DbError::new(doing, error),
        PoolError::Timeout(TimeoutType::Wait) => {
            DbError::of_kind(Kind::TimedOut, doing, "all connections of the pool are busy")
        }
        PoolError::Timeout(_) => DbError::of_kind(Kind::Unreachable, doing, silent(CONNECT)),
        PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            DbError::of_kind(Kind::Other, doing, error.to_string())
        }
    }
}
