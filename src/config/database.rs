//! Connection strings: as people have them, with our bounds, and never printed whole.

use std::{fmt, fs, path::PathBuf, time::Duration};

/// A connection string that `Debug` does not show.
#[derive(Clone)]
pub struct Secret(String);

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

/// A connection string from a setting or from the file that its twin names.
pub fn url_of(setting: &str, text: Option<&Secret>, file: Option<&PathBuf>) -> Result<Option<DatabaseUrl>, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_string_is_never_quoted() {
        for text in [
            "postgres://user:hunter2@host:port/db",
            "postgres://user:hunter2@host/db?sslmode=hunter2",
            "host=h password=hunter2 port=hunter2",
            "host=h hunter2",
            "hunter2",
        ] {
            let problem = DatabaseUrl::parse(text).expect_err(text);
            assert!(!problem.contains("hunter2"), "{text}: {problem}");
        }
        assert!(DatabaseUrl::parse("postgres://h/db?colour=red").unwrap_err().contains("`colour`"));
    }

    #[test]
    fn a_connection_string_prints_its_target_without_user_and_password() {
        let url = DatabaseUrl::parse(" postgres://user:hunter2@one:6543,two/shorts\n").unwrap();
        assert_eq!(format!("{url} {url:?}"), "one:6543,two:5432/shorts one:6543,two:5432/shorts");
    }
}
