//! Connection strings: from a setting, or from the file that the `_FILE` variant of the setting names.

use std::{fmt, fs, path::PathBuf};

use super::{Problems, file, given};
use crate::postgres::{current::Databases, url::DatabaseUrl};

/// The database: shared by every command that connects to Postgres.
#[derive(Debug, Clone, clap::Args)]
pub struct DatabaseArgs {
    /// The connection string: `postgres://user:password@host:5432/database` or `host=... user=... dbname=...`
    #[arg(long, env = "DATABASE_URL", value_name = "URL")]
    database_url: Option<Secret>,
    /// A file that contains the connection string, instead of `DATABASE_URL`
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", value_parser = file())]
    database_url_file: Option<PathBuf>,
}

/// The databases of `treemap serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct DatabasesArgs {
    #[command(flatten)]
    queries: DatabaseArgs,
    #[command(flatten)]
    listen: ListenArgs,
}

/// The connection for LISTEN.
#[derive(Debug, Clone, clap::Args)]
struct ListenArgs {
    /// A direct or session-mode connection for LISTEN, needed when `DATABASE_URL` uses a transaction pooler
    #[arg(long, env = "LISTEN_DATABASE_URL", value_name = "URL")]
    listen_database_url: Option<Secret>,
    /// A file that contains the connection string for LISTEN, instead of `LISTEN_DATABASE_URL`
    #[arg(long, env = "LISTEN_DATABASE_URL_FILE", value_name = "FILE", value_parser = file())]
    listen_database_url_file: Option<PathBuf>,
}

/// A connection string that `Debug` does not show.
#[derive(Clone)]
struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl DatabaseArgs {
    /// The database. Fails when the connection string is missing, set twice, or invalid.
    pub fn check(&self) -> Result<DatabaseUrl, Problems> {
        let url = Problems::or(|problems| problems.note(self.read()))?;
        warn_unverified("DATABASE_URL", &url);
        Ok(url)
    }

    fn read(&self) -> Result<DatabaseUrl, String> {
        url_of("DATABASE_URL", self.database_url.as_ref(), self.database_url_file.as_ref())?.ok_or_else(|| {
            "DATABASE_URL is not set; expected postgres://user:password@host:5432/database, \
             in the environment, with --database-url, or in a file named by DATABASE_URL_FILE"
                .into()
        })
    }
}

impl DatabasesArgs {
    /// Reads both, now. Fails with all that is wrong.
    pub fn read(&self) -> Result<Databases, Problems> {
        Problems::or(|problems| self.note(problems))
    }

    pub(super) fn note(&self, problems: &mut Problems) -> Option<Databases> {
        let ListenArgs { listen_database_url, listen_database_url_file } = &self.listen;
        let queries = problems.note(self.queries.read());
        let listen = url_of("LISTEN_DATABASE_URL", listen_database_url.as_ref(), listen_database_url_file.as_ref());
        let (listen, queries) = (problems.note(listen)?, queries?);
        Some(Databases { listen: listen.unwrap_or_else(|| queries.clone()), queries })
    }
}

impl Databases {
    /// Says it when any server that answers would be trusted.
    pub fn warn_unverified(&self) {
        warn_unverified("DATABASE_URL", &self.queries);
        if !self.listen.same(&self.queries) {
            warn_unverified("LISTEN_DATABASE_URL", &self.listen);
        }
    }
}

fn warn_unverified(setting: &str, url: &DatabaseUrl) {
    if url.is_unverified() {
        tracing::warn!(
            "{setting} says sslmode=require: the connection is encrypted, but any server is trusted; sslmode=verify-full \
             verifies it, with sslrootcert=FILE for a CA of your own"
        );
    }
}

fn url_of(setting: &str, text: Option<&Secret>, file: Option<&PathBuf>) -> Result<Option<DatabaseUrl>, String> {
    let text = text.map(|secret| secret.0.clone()).filter(|text| !text.trim().is_empty());
    let text = match (text, given(file)) {
        (Some(_), Some(_)) => return Err(format!("{setting} and {setting}_FILE are both set; set one of them")),
        (Some(text), None) => text,
        (None, None) => return Ok(None),
        (None, Some(file)) => fs::read_to_string(&file)
            .map_err(|error| format!("{setting}_FILE names {}, which cannot be read: {error}", file.display()))?,
    };
    DatabaseUrl::parse(&text).map(Some).map_err(|problem| format!("{setting} {problem}"))
}
