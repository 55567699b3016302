//! The one door to Postgres: a pooled connection for each loop of the server, a session for a command, and the bound on
//! every wait.
//!
//! Everything here works through a transaction pooler: statements are unnamed or sent as plain text, settings are local
//! to their transaction, and no statement is ever cancelled from outside (that alone can bring PgBouncer 1.18 down).

pub mod connect;
pub mod error;
mod tls;
pub mod url;

use std::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType};
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};
use tokio_stream::StreamExt;

use self::{
    connect::{CONNECT, connect, drive},
    error::{DbError, Kind},
    url::DatabaseUrl,
};

/// How long a connection is used: the name of a primary that moved is looked up again at the latest then.
const LIFETIME: Duration = Duration::from_secs(1800);
/// How long a connection may take to show that it is alive, before it is replaced by a new one.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// How much longer than the server we wait: a timeout of its own tells us more than ours.
const GRACE: Duration = Duration::from_secs(2);

/// A connection that is made when it is needed, kept while it works, and replaced when it does not: a pool of one. Each
/// loop that reads or refreshes has its own, so that neither waits for the other; with the listener's a replica holds three.
#[derive(Debug, Clone)]
pub struct Db {
    pool: Pool,
}

impl Db {
    /// Connects when it is first asked to.
    ///
    /// # Panics
    /// Never: a pool with timeouts wants a runtime, and is given one.
    #[must_use]
    pub fn new(url: &DatabaseUrl) -> Self {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        // The configuration is the manager's to hold and ours to use: see `connect`.
        let pool = Pool::builder(Manager::from_connect(url.hosts()[0].clone(), url.clone(), recycling))
            .max_size(1)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT))
            .create_timeout(Some(CONNECT))
            .recycle_timeout(Some(SIGN_OF_LIFE))
            .build()
            .expect("a pool with timeouts has its runtime");
        Self { pool }
    }

    /// The connection, for as long as the session lives.
    ///
    /// # Errors
    /// It is in use or cannot be made in time.
    pub async fn session(&self, doing: &'static str) -> Result<Session, DbError> {
        self.pool.retain(|_, metrics| metrics.age() < LIFETIME);
        let connection = self.pool.get().await.map_err(|error| pool_error(doing, &error))?;
        Ok(Session { connection: Connection::Pooled(Some(connection)), broken: AtomicBool::new(false) })
    }

    /// Connections that are open, and of these the idle ones.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.available)
    }

    /// Runs one statement that only reads, in a transaction of its own, and hands each row to `each`.
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
        let session = self.session(doing).await?;
        let read = async {
            let parameters = parameters.iter().map(|(value, kind)| (*value, kind.clone()));
            let mut rows = pin!(session.client().query_typed_raw(statement, parameters).await?);
            while let Some(row) = rows.next().await {
                each(row?)?;
            }
            Ok(())
        };
        session.run(doing, bound, "READ ONLY", read).await
    }
}

/// A connection for one transaction after another: of the pool, or of a command's own.
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
    /// # Errors
    /// Nobody answers in time, or the server refuses.
    pub async fn connect(url: &DatabaseUrl) -> Result<Self, DbError> {
        let (client, connection) = connect(url, "connect to Postgres").await?;
        let driver = drive(connection);
        Ok(Self { connection: Connection::Own { client, driver }, broken: AtomicBool::new(false) })
    }

    /// What statements are sent with, within a transaction.
    ///
    /// # Panics
    /// Never: a pooled connection is given back only when the session is dropped.
    #[must_use]
    pub fn client(&self) -> &Client {
        match &self.connection {
            Connection::Pooled(connection) => connection.as_ref().expect("held until the session is dropped"),
            Connection::Own { client, .. } => client,
        }
    }

    /// Runs `work` in a transaction and commits it. Statements and locks are bounded by `bound` on the server, the whole
    /// a little later here. After a failure the session is done with; the server rolls back when the connection goes.
    ///
    /// # Errors
    /// What Postgres says, or no time.
    pub async fn transaction<T>(
        &self,
        doing: &'static str,
        bound: Duration,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DbError> {
        self.run(doing, bound, "", work).await
    }

    /// Runs a statement that Postgres allows in no transaction, as VACUUM.
    ///
    /// # Errors
    /// What Postgres says, or no time.
    pub async fn alone(&self, doing: &'static str, bound: Duration, statement: &str) -> Result<(), DbError> {
        self.broken.store(true, Ordering::Relaxed);
        timeout(bound, self.client().batch_execute(statement))
            .await
            .map_err(|_| DbError::of_kind(Kind::TimedOut, doing, silent(bound)))?
            .map_err(|error| DbError::new(doing, &error))?;
        self.broken.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn run<T>(
        &self,
        doing: &'static str,
        bound: Duration,
        access: &str,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, DbError> {
        self.broken.store(true, Ordering::Relaxed);
        let all = async {
            self.client().batch_execute(&begin(access, bound)).await?;
            let value = work.await?;
            self.client().batch_execute("COMMIT").await?;
            Ok(value)
        };
        let value = timeout(bound + GRACE, all)
            .await
            // The server would have ended it itself, had it heard us.
            .map_err(|_| DbError::of_kind(Kind::Unreachable, doing, silent(bound + GRACE)))?
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

/// BEGIN with the bounds of the transaction, in one round trip. A setting outside of it would leak to others through a
/// transaction pooler. Work for a client that has died is given up, so that its locks go to the
/// next. Compiling a statement of ours would take longer than running it.
fn begin(access: &str, bound: Duration) -> String {
    let bound = bound.as_millis();
    format!(
        "BEGIN {access}; SET LOCAL statement_timeout = {bound}; SET LOCAL lock_timeout = {bound}; \
         SET LOCAL idle_in_transaction_session_timeout = 60000; SET LOCAL client_connection_check_interval = 5000; \
         SET LOCAL jit = off"
    )
}

fn silent(waited: Duration) -> String {
    format!("no answer within {} s", waited.as_secs())
}

fn pool_error(doing: &'static str, error: &PoolError) -> DbError {
    match error {
        PoolError::Backend(error) => DbError::new(doing, error),
        PoolError::Timeout(TimeoutType::Wait) => {
            DbError::of_kind(Kind::TimedOut, doing, "the connection is busy with something that takes long")
        }
        PoolError::Timeout(_) => DbError::of_kind(Kind::Unreachable, doing, silent(CONNECT)),
        PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            DbError::of_kind(Kind::Other, doing, error.to_string())
        }
    }
}
