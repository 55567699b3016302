//! Every setting: flag, environment variable, default and meaning, read once. Nothing here touches the network.
//! All mistakes are found together and named by their setting; a secret is never printed, not even a wrong one.

use std::{fmt, fs, net::SocketAddr, path::PathBuf, time::Duration};

use jiff::{Span, SpanRelativeTo};

use crate::read_model::Tolerance;

/// Where Postgres is: shared by every command that talks to it.
#[derive(Debug, clap::Args)]
pub struct DatabaseArgs {
    /// Postgres, as `postgres://user:password@host:5432/database` or `host=... user=... dbname=...`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<Secret>,
    /// A file that holds the database URL, instead of `DATABASE_URL`
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
}

/// How old is too old: shared by `serve`, which marks answers, and `status`, which fails.
#[derive(Debug, clap::Args)]
pub struct ToleranceArgs {
    /// The view is stale when its last refresh is longer ago than this
    #[arg(long, env = "TREEMAP_MAX_AGE", default_value = "26h", value_name = "DURATION")]
    max_age: String,
    /// The data is stale when the newest report is older than this. ASIC publishes four trading days late; holidays add to it
    #[arg(long, env = "TREEMAP_MAX_DATA_AGE", default_value = "14d", value_name = "DURATION")]
    max_data_age: String,
}

/// What `treemap serve` can be told.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// A direct or session connection for LISTEN, where `DATABASE_URL` goes through a transaction pooler
    #[arg(long, env = "LISTEN_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    listen_database_url: Option<Secret>,
    /// A file that holds the URL for LISTEN, instead of `LISTEN_DATABASE_URL`
    #[arg(long, env = "LISTEN_DATABASE_URL_FILE", value_name = "FILE")]
    listen_database_url_file: Option<PathBuf>,
    /// Address and port to serve gRPC on; port 0 takes a free one and logs it
    #[arg(long, env = "TREEMAP_LISTEN_ADDR", default_value = "127.0.0.1:50051", value_name = "ADDRESS")]
    listen_addr: String,
    /// How often to look whether the view was refreshed, beside being notified
    #[arg(long, env = "TREEMAP_POLL_INTERVAL", default_value = "10s", value_name = "DURATION")]
    poll_interval: String,
    #[command(flatten)]
    tolerance: ToleranceArgs,
}

/// Checked settings of `treemap serve`.
#[derive(Debug)]
pub struct Config {
    /// Where queries go.
    pub database: DatabaseUrl,
    /// Where LISTEN goes.
    pub listen_database: DatabaseUrl,
    /// Where gRPC is served.
    pub listen_addr: SocketAddr,
    /// The time between two looks at the view.
    pub poll_interval: Duration,
    /// How old an answer may be before it is marked stale.
    pub tolerance: Tolerance,
}

/// Settings that were refused: every one of them, by name.
#[derive(Debug, thiserror::Error)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.join("\n       "))
    }
}

impl Problems {
    /// The value, or a default-shaped gap and one more problem.
    fn note<T>(&mut self, checked: Result<T, String>) -> Option<T> {
        checked.map_err(|problem| self.0.push(problem)).ok()
    }
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

/// A parsed connection string with our bounds on connecting. Prints the target, never the password.
#[derive(Clone)]
pub struct DatabaseUrl(tokio_postgres::Config);

impl DatabaseUrl {
    /// Reads a URL or a `key=value` string; white space around it is ignored.
    ///
    /// # Errors
    /// What is wrong with it, without quoting it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut config: tokio_postgres::Config = text.trim().parse().map_err(|error: tokio_postgres::Error| {
            // The parser's words may hold a piece of a password that was cut at the wrong place: only an unknown
            // option's name is worth the risk, and it stands before any value.
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let option = cause.strip_prefix("unknown option ").map(|name| format!(" (unknown option {name})"));
            format!(
                "is not a connection string{}; expected postgres://user:password@host:5432/database, \
                 with the special characters of a password percent-encoded",
                option.unwrap_or_default()
            )
        })?;
        if config.get_hosts().is_empty() {
            return Err("names no host; expected postgres://user:password@host:5432/database".into());
        }
        // A dead network is noticed after some 30 s at the most, whatever the statement; see also `db`'s own clocks.
        if config.get_application_name().is_none() {
            config.application_name("treemap");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        config
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(15));
        Ok(Self(config))
    }

    /// What the driver connects with.
    #[must_use]
    pub const fn config(&self) -> &tokio_postgres::Config {
        &self.0
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use tokio_postgres::config::Host;
        let ports = self.0.get_ports();
        for (place, host) in self.0.get_hosts().iter().enumerate() {
            let port = ports.get(place).or(ports.first()).unwrap_or(&5432);
            let comma = if place == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}:{port}")?,
                Host::Unix(folder) => write!(f, "{comma}{}:{port}", folder.display())?,
            }
        }
        write!(f, "/{}", self.0.get_dbname().or(self.0.get_user()).unwrap_or_default())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl DatabaseArgs {
    /// The database to talk to.
    ///
    /// # Errors
    /// It is missing, given twice, or not a connection string.
    pub fn check(&self) -> Result<DatabaseUrl, Problems> {
        self.read().map_err(|problem| Problems(vec![problem]))
    }

    fn read(&self) -> Result<DatabaseUrl, String> {
        url_of("DATABASE_URL", self.database_url.as_ref(), self.database_url_file.as_ref())?.ok_or_else(|| {
            "DATABASE_URL is not set; expected postgres://user:password@host:5432/database, \
             in the environment, with --database-url, or in a file named by DATABASE_URL_FILE"
                .into()
        })
    }
}

impl ToleranceArgs {
    /// Both durations.
    ///
    /// # Errors
    /// One is not a duration.
    pub fn check(&self) -> Result<Tolerance, Problems> {
        let mut problems = Problems(Vec::new());
        self.read(&mut problems).ok_or(problems)
    }

    fn read(&self, problems: &mut Problems) -> Option<Tolerance> {
        let view = problems.note(duration("TREEMAP_MAX_AGE", &self.max_age));
        let data = problems.note(duration("TREEMAP_MAX_DATA_AGE", &self.max_data_age));
        Some(Tolerance { view: view?, data: data? })
    }
}

impl ServeArgs {
    /// Checks everything.
    ///
    /// # Errors
    /// All that is wrong, together.
    pub fn check(&self) -> Result<Config, Problems> {
        let mut problems = Problems(Vec::new());
        self.read(&mut problems).ok_or(problems)
    }

    fn read(&self, problems: &mut Problems) -> Option<Config> {
        let database = problems.note(self.database.read());
        let listen_database = problems.note(url_of(
            "LISTEN_DATABASE_URL",
            self.listen_database_url.as_ref(),
            self.listen_database_url_file.as_ref(),
        ));
        let listen_addr = problems.note(self.listen_addr.trim().parse().map_err(|_| {
            format!("TREEMAP_LISTEN_ADDR is {:?}; expected an address and a port, as 127.0.0.1:50051", self.listen_addr)
        }));
        let poll_interval = problems.note(duration("TREEMAP_POLL_INTERVAL", &self.poll_interval));
        let tolerance = self.tolerance.read(problems);
        let (database, listen_database) = (database?, listen_database?);
        Some(Config {
            listen_database: listen_database.unwrap_or_else(|| database.clone()),
            database,
            listen_addr: listen_addr?,
            poll_interval: poll_interval?,
            tolerance: tolerance?,
        })
    }
}

/// A connection string from a setting or from the file that its twin names.
fn url_of(setting: &str, text: Option<&Secret>, file: Option<&PathBuf>) -> Result<Option<DatabaseUrl>, String> {
    let text = text.map(|secret| secret.0.clone()).filter(|text| !text.trim().is_empty());
    let text = match (text, file) {
        (Some(_), Some(_)) => return Err(format!("{setting} and {setting}_FILE are both set; set one of them")),
        (Some(text), None) => text,
        (None, None) => return Ok(None),
        (None, Some(file)) => fs::read_to_string(file)
            .map_err(|error| format!("{setting}_FILE names {}, which cannot be read: {error}", file.display()))?,
    };
    DatabaseUrl::parse(&text).map(Some).map_err(|problem| format!("{setting} {problem}"))
}

/// A positive duration in words: `90s`, `26h`, `14d`. A day has 24 hours.
fn duration(setting: &str, text: &str) -> Result<Duration, String> {
    text.trim()
        .parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("{setting} is {text:?}; expected a duration, as 90s, 26h or 14d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_string_is_never_quoted() {
        for text in [
            "postgres://user:hunter2@host:port/db",
            "postgres://user:hun/ter2@host:5432/db",
            "postgres://user:hunter2@host/db?sslmode=hunter2",
            "host=h password=hunter2 port=hunter2",
            "host=h hunter2",
            "hunter2",
        ] {
            let problem = DatabaseUrl::parse(text).expect_err(text);
            assert!(!problem.contains("hunter2") && !problem.contains("ter2"), "{text}: {problem}");
        }
        assert!(DatabaseUrl::parse("postgres://h/db?colour=red").unwrap_err().contains("`colour`"));
    }

    #[test]
    fn a_connection_string_prints_its_target_without_user_and_password() {
        let url = DatabaseUrl::parse(" postgres://user:hunter2@one:6543,two/shorts\n").unwrap();
        assert_eq!(format!("{url} {url:?}"), "one:6543,two:6543/shorts one:6543,two:6543/shorts");
    }

    #[test]
    fn durations_are_read_in_words_and_nonsense_is_refused_by_name() {
        assert_eq!(duration("X", "26h").unwrap(), Duration::from_secs(26 * 3600));
        assert_eq!(duration("X", " 14d ").unwrap(), Duration::from_secs(14 * 86400));
        assert_eq!(duration("X", "500ms").unwrap(), Duration::from_millis(500));
        for nonsense in ["", "0s", "-1h", "soon", "26", "1y"] {
            assert!(duration("X", nonsense).unwrap_err().starts_with("X is "), "{nonsense}");
        }
    }
}
