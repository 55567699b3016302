//! The connection strings of a server, which may change while it runs.

use deadpool_postgres::Connect;
use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::JoinHandle};
use tokio_postgres::{Client, Config, Error};

use super::{
    connect::{drive, first_of},
    url::DatabaseUrl,
};

/// The databases of a server.
#[derive(Debug, Clone)]
pub struct Databases {
    /// Where queries go.
    pub queries: DatabaseUrl,
    /// Where LISTEN goes.
    pub listen: DatabaseUrl,
}

impl Databases {
    /// Whether the strings and the files that they name have the same content.
    pub fn same(&self, other: &Self) -> bool {
        self.queries.same(&other.queries) && self.listen.same(&other.listen)
    }
}

/// One of the connection strings, as it is now.
#[derive(Debug, Clone)]
pub struct Current {
    databases: watch::Receiver<Databases>,
    which: fn(&Databases) -> DatabaseUrl,
}

impl Current {
    /// That which `which` takes of `databases`.
    pub const fn new(databases: watch::Receiver<Databases>, which: fn(&Databases) -> DatabaseUrl) -> Self {
        Self { databases, which }
    }

    /// As it is now.
    pub fn url(&self) -> DatabaseUrl {
        (self.which)(&self.databases.borrow())
    }

    /// Waits until it is another than at the last call.
    pub async fn changed(&mut self) {
        if self.databases.changed().await.is_err() {
            // Nobody changes it any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Connect for Current {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        Box::pin(async {
            let (client, connection) = first_of(&self.url()).await?;
            Ok((client, drive(connection)))
        })
    }
}
