//! What is read again while the server runs: certificates, and connection strings with the files that they name.

use std::{sync::Arc, time::Duration};

use tokio::{signal::unix::Signal, sync::watch, time::sleep};

use crate::{
    config::DatabasesArgs,
    files::InThread,
    postgres::{Db, current::Databases},
    tls::listener::Tls,
};

/// How often certificates are looked at. They are renewed weeks before they expire.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);
/// How often connection strings are looked at: every so many looks at the certificates. Kubernetes takes a minute to change a secret.
const DATABASES_EVERY: u32 = 12;

/// How long a look at files may take: a network disk may not answer.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// What is read again, and what uses it.
#[derive(Debug)]
pub struct Renewal {
    /// SIGHUP: look now.
    pub hangup: Signal,
    /// Certificate, key and CA for clients.
    pub tls: Option<Arc<Tls>>,
    /// Connection strings; `None` for a server without a database.
    pub databases: Option<RenewedDatabases>,
}

/// Connection strings that are read again.
#[derive(Debug)]
pub struct RenewedDatabases {
    /// Where they come from.
    pub settings: DatabasesArgs,
    /// Those in use.
    pub current: watch::Sender<Databases>,
    /// The connections that were made with them.
    pub pools: [Db; 2],
}

/// Looks for ever, and at once after SIGHUP. What cannot be used is logged once, and the old stays in use.
pub async fn keep_current(mut renewal: Renewal) {
    let mut thread = InThread::default();
    let mut looks = 0;
    let mut known_problem = None;
    loop {
        let asked = tokio::select! {
            Some(()) = renewal.hangup.recv() => true,
            () = sleep(CERTIFICATES_EVERY) => false,
        };
        looks += 1;
        if let Some(tls) = renewal.tls.clone() {
            // What is late is looked at again.
            let _ = thread.run(READ_WITHIN, move || tls.look()).await;
        }
        if let Some(databases) = &renewal.databases
            && (asked || looks % DATABASES_EVERY == 0)
        {
            let problem = databases.look(&mut thread, asked).await.err();
            if let Some(problem) = problem.as_ref().filter(|problem| asked || known_problem.as_ref() != Some(*problem))
            {
                tracing::error!("keeping the old connection string: {problem}");
            }
            known_problem = problem;
        }
    }
}

impl RenewedDatabases {
    /// Takes the connection strings as they are now into use. When somebody `asked`, says so also if they are the same.
    async fn look(&self, thread: &mut InThread, asked: bool) -> Result<(), String> {
        let settings = self.settings.clone();
        let read = thread.run(READ_WITHIN, move || settings.read()).await;
        let late = || format!("its file was not read within {} s", READ_WITHIN.as_secs());
        let now = read.ok_or_else(late)?.map_err(|problems| problems.to_string())?;
        if !now.same(&self.current.borrow()) {
            now.warn_unverified();
            self.current.send_replace(now);
            for pool in &self.pools {
                pool.renew();
            }
            tracing::info!("the connection string has changed; new connections use it");
        } else if asked {
            tracing::info!("the connection string is the same as before");
        }
        Ok(())
    }
}
