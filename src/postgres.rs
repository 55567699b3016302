//! The one door to Postgres: a pooled connection for each loop of the server, a session for a command, and the limit on every
//! wait.
//!
//! Everything here works through a transaction pooler: statements are unnamed or sent as plain text, settings are local
//! to their transaction, and no statement is ever cancelled from outside (that alone can crash PgBouncer 1.18).

pub mod connect;
pub mod current;
pub mod error;
mod tls;
pub mod url;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType, Timeouts,
};
use futures_util::StreamExt;
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use self::{
    connect::{CONNECT_WITHIN, connect, drive},
    current::Current,
    error::{DbError, Kind},
    url::DatabaseUrl,
};

/// How long a connection is used: at the latest then the name of a primary that moved is resolved again.
const LIFETIME: Duration = Duration::from_secs(1800);
/// How long an idle connection may take to answer before it is replaced by a new one.
const ALIVE_WITHIN: Duration = Duration::from_millis(500);
/// How long to wait for a connection that another loop uses. Longer than any use of it except a refresh.
const FREE_WITHIN: Duration = Duration::from_secs(10);
/// How long a refresh may use a connection, with all that belongs to it.
const REFRESHED_WITHIN: Duration = Duration::from_secs(600);
/// How much longer than the server we wait: an error of its own says more than ours.
const GRACE: Duration = Duration::from_secs(2);

/// A pool of one connection: made when it is needed, kept while it works, replaced when it does not. The loop that reads and
/// the loop that refreshes have one each, so that neither waits for the other; with the listener's a replica holds three.
#[derive(Debug, Clone)]
pub struct Db {
    pool: Pool,
    current: Current,
    /// Connections that were made before are not used any more.
    renewed: Arc<Mutex<Option<Instant>>>,
}

impl Db {
    /// Connects when it is first used.
    pub fn new(current: Current) -> Self {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        // The pool wants a driver's configuration; connections are made by `connect`.
        let pool = Pool::builder(Manager::from_connect(current.url().hosts()[0].clone(), current.clone(), recycling))
            .max_size(1)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(FREE_WITHIN))
            .create_timeout(Some(CONNECT_WITHIN))
            .recycle_timeout(Some(ALIVE_WITHIN))
            .build()
            .expect("a pool with timeouts has its runtime");
        Self { pool, current, renewed: Arc::default() }
    }

    /// The connection, for as long as the session lives.
    ///
    /// Fails when it stays in use or cannot be made in time.
    pub async fn session(&self, doing: &'static str) -> Result<Session, DbError> {
        self.take(doing, self.pool.timeouts()).await
    }

    /// The same, but waits as long as a refresh may take.
    pub async fn session_when_free(&self, doing: &'static str) -> Result<Session, DbError> {
        self.take(doing, Timeouts { wait: Some(REFRESHED_WITHIN), ..self.pool.timeouts() }).await
    }

    async fn take(&self, doing: &'static str, timeouts: Timeouts) -> Result<Session, DbError> {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was being made then may have the old connection string.
        let after = |created| renewed.is_none_or(|renewed| created > renewed + CONNECT_WITHIN);
        self.pool.retain(|_, metrics| metrics.age() < LIFETIME && after(metrics.created));
        let connection = self.pool.timeout_get(&timeouts).await.map_err(|error| pool_error(doing, &error))?;
        Ok(Session { connection: Connection::Pooled(Some(connection)), broken: AtomicBool::new(false) })
    }

    /// The connection string is another: each connection is replaced by a new one, now or when its user is done with it.
    pub fn renew(&self) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.pool.retain(|_, _| false);
    }

    /// Waits for `pause`, or until the connection string is another; true if it is.
    pub async fn pause(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = self.current.changed() => true,
        }
    }

    /// Connections that are open, and of these the idle ones.
    pub fn connections(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.available)
    }

    /// Runs one statement that only reads, in a transaction of its own, and hands each row to `each`.
    ///
    /// Fails without a connection, without an answer in time, or with what Postgres reports.
    pub async fn rows(
        &self,
        doing: &'static str,
        within: Duration,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        each: impl FnMut(Row) -> Result<(), tokio_postgres::Error> + Send,
    ) -> Result<(), DbError> {
        self.session(doing).await?.rows(doing, within, statement, parameters, each).await
    }
}

/// A connection for one transaction after another: from the pool, or a command's own.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// Set while a transaction runs, and left so when it failed or was abandoned: the connection may still be busy, or in
    /// the transaction, and is thrown away.
    broken: AtomicBool,
}

#[derive(Debug)]
enum Connection {
    /// `None` only while the session is dropped.
    Pooled(Option<Object>),
    Own {
        client: Client,
        driver: JoinHandle<()>,
    },
}

impl Session {
    /// Connects, for a command that does its work and ends.
    ///
    /// Fails when no host answers in time, or the server refuses.
    pub async fn connect(url: &DatabaseUrl) -> Result<Self, DbError> {
        let (client, connection) = connect(url, "connect to Postgres").await?;
        let driver = drive(connection);
        Ok(Self { connection: Connection::Own { client, driver }, broken: AtomicBool::new(false) })
    }

    /// Sends statements, within a transaction.
    pub fn client(&self) -> &Client {
        match &self.connection {
            Connection::Pooled(connection) => connection.as_ref().expect("held until the session is dropped"),
            Connection::Own { client, .. } => client,
        }
    }

    /// Runs `work` in a transaction and commits it. Postgres limits statements and locks to `within`, we limit the whole to a
    /// little more. After a failure the session is unusable; the server rolls back when the connection closes.
    ///
    /// Fails with what Postgres reports, or without an answer in time.
    pub async fn transaction<T>(
        &self,
        doing: &'static str,
        within: Duration,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DbError> {
        self.run(doing, within, "READ WRITE", work).await
    }

    /// The same for work that only reads: a standby takes it too.
    pub async fn read<T>(
        &self,
        doing: &'static str,
        within: Duration,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DbError> {
        self.run(doing, within, READ_ONLY, work).await
    }

    /// Runs one statement that only reads, in a transaction of its own, and hands each row to `each`.
    pub async fn rows(
        &self,
        doing: &'static str,
        within: Duration,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        mut each: impl FnMut(Row) -> Result<(), tokio_postgres::Error> + Send,
    ) -> Result<(), DbError> {
        let read = async {
            let parameters = parameters.iter().map(|(value, kind)| (*value, kind.clone()));
            let mut rows = pin!(self.client().query_typed_raw(statement, parameters).await?);
            while let Some(row) = rows.next().await {
                each(row?)?;
            }
            Ok(())
        };
        self.read(doing, within, read).await
    }

    /// Runs a statement that Postgres allows in no transaction, as VACUUM.
    ///
    /// Fails with what Postgres reports, or without an answer in time.
    pub async fn alone(&self, doing: &'static str, within: Duration, statement: &str) -> Result<(), DbError> {
        self.broken.store(true, Ordering::Relaxed);
        timeout(within, self.client().batch_execute(statement))
            .await
            .map_err(|_| DbError::of_kind(Kind::TimedOut, doing, no_answer(within)))?
            .map_err(|error| DbError::new(doing, &error))?;
        self.broken.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn run<T>(
        &self,
        doing: &'static str,
        within: Duration,
        access: &str,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DbError> {
        self.broken.store(true, Ordering::Relaxed);
        let all = async {
            self.client().batch_execute(&begin(access, within)).await?;
            let value = work.await?;
            self.client().batch_execute("COMMIT").await?;
            Ok(value)
        };
        let value = timeout(within + GRACE, all)
            .await
            // The server would have ended it itself, had it received our statements.
            .map_err(|_| DbError::of_kind(Kind::Unreachable, doing, no_answer(within + GRACE)))?
            .map_err(|error: tokio_postgres::Error| DbError::new(doing, &error))?;
        self.broken.store(false, Ordering::Relaxed);
        Ok(value)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        match &mut self.connection {
            Connection::Pooled(connection) if *self.broken.get_mut() => drop(connection.take().map(Object::take)),
            Connection::Pooled(_) => {}
            Connection::Own { driver, .. } => driver.abort(),
        }
    }
}

/// The transaction of a statement that only reads. Postgres takes a random page to be as dear as on a turning disk. What we read most, the
/// view, is small and in memory: it is faster to read it in the order of an index than to sort it (measured: two thirds of the time).
const READ_ONLY: &str = "READ ONLY; SET LOCAL random_page_cost = 1.1";

/// BEGIN with the limits of the transaction, in one round trip. A setting outside of a transaction would leak to other clients
/// of a transaction pooler. READ COMMITTED because a refresh has to see what was committed while it waited for another. Postgres gives up
/// work for a client that has died, so that its locks are free again. JIT compilation of a statement of ours would take longer than
/// running it. From 17 on a database may have a `transaction_timeout`: the limits here take its place.
fn begin(access: &str, within: Duration) -> String {
    let within = within.as_millis();
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED {access}; SET LOCAL statement_timeout = {within}; \
         SET LOCAL lock_timeout = {within}; SET LOCAL idle_in_transaction_session_timeout = 60000; \
         SET LOCAL client_connection_check_interval = 5000; SET LOCAL jit = off; \
         SELECT set_config('transaction_timeout', '0', true) WHERE current_setting('transaction_timeout', true) IS NOT NULL"
    )
}

fn no_answer(within: Duration) -> String {
    format!("no answer within {} s", within.as_secs())
}

fn pool_error(doing: &'static str, error: &PoolError) -> DbError {
    match error {
        PoolError::Backend(error) => DbError::new(doing, error),
        PoolError::Timeout(TimeoutType::Wait) => {
            DbError::of_kind(Kind::TimedOut, doing, "the connection is in use by work that takes long")
        }
        PoolError::Timeout(_) => DbError::of_kind(Kind::Unreachable, doing, no_answer(CONNECT_WITHIN)),
        PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            DbError::of_kind(Kind::Other, doing, error.to_string())
        }
    }
}
