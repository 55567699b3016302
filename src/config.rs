//! Every setting: flag, environment variable, default and meaning, read once. Nothing here touches the network.
//! All mistakes are found together and named by their setting; a secret is never printed, not even a wrong one.

use std::{fmt, path::PathBuf, time::Duration};

use jiff::{Span, SpanRelativeTo, tz::TimeZone};

mod server;

use self::server::ServerArgs;
pub use self::server::{Limits, ServerConfig, address};
use crate::{
    postgres::url::{DatabaseUrl, Secret, url_of},
    schedule::Schedule,
};

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
    #[command(flatten)]
    server: ServerArgs,
    /// How often to look whether the view was refreshed, beside being notified
    #[arg(long, env = "TREEMAP_POLL_INTERVAL", default_value = "10s", value_name = "DURATION")]
    poll_interval: String,
    #[command(flatten)]
    tolerance: ToleranceArgs,
    #[command(flatten)]
    schedule: ScheduleArgs,
    /// How often to look whether the source tables have changed; off: never
    #[arg(long, env = "TREEMAP_SOURCE_INTERVAL", default_value = "30s", value_name = "DURATION")]
    source_interval: String,
    /// Refresh once the changed source has been quiet for this long
    #[arg(long, env = "TREEMAP_SOURCE_QUIET", default_value = "60s", value_name = "DURATION")]
    source_quiet: String,
    /// Refresh at last when it has not been quiet for this long
    #[arg(long, env = "TREEMAP_SOURCE_LONGEST_WAIT", default_value = "30m", value_name = "DURATION")]
    source_longest_wait: String,
}

/// When refreshes are due: shared by `serve`, which does them, and `status`, which tells the next.
#[derive(Debug, clap::Args)]
pub struct ScheduleArgs {
    /// When to refresh, as a cron pattern (minute hour day month weekday); off: never by the clock
    #[arg(long, env = "TREEMAP_REFRESH_SCHEDULE", default_value = "0 3 * * *", value_name = "CRON")]
    refresh_schedule: String,
    /// The time zone of the schedule, and of trading days
    #[arg(long, env = "TREEMAP_REFRESH_TIMEZONE", default_value = "Australia/Sydney", value_name = "ZONE")]
    refresh_timezone: String,
}

/// The clock that the service goes by.
#[derive(Debug)]
pub struct Clock {
    /// When refreshes are due; `None` when switched off.
    pub schedule: Option<Schedule>,
    /// The zone whose days are trading days.
    pub zone: TimeZone,
}

/// Checked settings of `treemap serve`.
#[derive(Debug)]
pub struct Config {
    /// How clients are met.
    pub server: ServerConfig,
    /// Where answers come from.
    pub data: DataConfig,
}

/// Checked settings of the read model and of what keeps it and its view fresh.
#[derive(Debug)]
pub struct DataConfig {
    /// Where queries go.
    pub database: DatabaseUrl,
    /// Where LISTEN goes.
    pub listen_database: DatabaseUrl,
    /// The time between two looks at the view.
    pub poll_interval: Duration,
    /// How old an answer may be before it is marked stale.
    pub tolerance: Tolerance,
    /// When to refresh the view.
    pub refresh: Policy,
}

/// How old an answer may be before it is called stale.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Since the view was refreshed.
    pub view: Duration,
    /// Since the newest report in the view, counted from the start of its day in UTC.
    pub data: Duration,
}

/// When to refresh.
#[derive(Debug, Clone)]
pub struct Policy {
    /// At which ticks; `None` when switched off.
    pub schedule: Option<Schedule>,
    /// How changes of the source are waited for; `None` when switched off.
    pub sources: Option<Sources>,
}

/// How changes of the source tables lead to a refresh.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    /// The time between two looks at Postgres' counters.
    pub interval: Duration,
    /// How long nothing more may change before the view is refreshed: a loader is not done yet.
    pub quiet: Duration,
    /// How long a change may wait for quiet.
    pub longest_wait: Duration,
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

impl ScheduleArgs {
    /// The schedule and its zone.
    ///
    /// # Errors
    /// One of them is not what it should be.
    pub fn check(&self) -> Result<Clock, Problems> {
        let mut problems = Problems(Vec::new());
        self.read(&mut problems).ok_or(problems)
    }

    fn read(&self, problems: &mut Problems) -> Option<Clock> {
        let zone = problems.note(TimeZone::get(self.refresh_timezone.trim()).map_err(|_| {
            format!(
                "TREEMAP_REFRESH_TIMEZONE is {:?}; expected a name of the time zone database, as Australia/Sydney",
                self.refresh_timezone
            )
        }));
        let schedule = unless_off(&self.refresh_schedule).map(|pattern| {
            Schedule::parse(pattern, zone.clone().unwrap_or(TimeZone::UTC)).map_err(|reason| {
                format!(
                    "TREEMAP_REFRESH_SCHEDULE is {pattern:?}: {reason}; expected minute, hour, day, month and weekday, \
                     as 0 3 * * *, or off"
                )
            })
        });
        let schedule = schedule.map_or(Some(None), |schedule| problems.note(schedule).map(Some));
        Some(Clock { schedule: schedule?, zone: zone? })
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
        let server = self.server.read(problems);
        let poll_interval = problems.note(duration("TREEMAP_POLL_INTERVAL", &self.poll_interval));
        let tolerance = self.tolerance.read(problems);
        let clock = self.schedule.read(problems);
        let quiet = problems.note(duration("TREEMAP_SOURCE_QUIET", &self.source_quiet));
        let longest_wait = problems.note(duration("TREEMAP_SOURCE_LONGEST_WAIT", &self.source_longest_wait));
        let sources = match unless_off(&self.source_interval) {
            None => Some(None),
            Some(text) => problems.note(duration("TREEMAP_SOURCE_INTERVAL", text)).map(Some),
        };
        let (quiet, longest_wait) = (quiet?, longest_wait?);
        let sources = sources?.map(|interval| Sources { interval, quiet, longest_wait });
        let (database, listen_database) = (database?, listen_database?);
        let data = DataConfig {
            listen_database: listen_database.unwrap_or_else(|| database.clone()),
            database,
            poll_interval: poll_interval?,
            tolerance: tolerance?,
            refresh: Policy { schedule: clock?.schedule, sources },
        };
        Some(Config { server: server?, data })
    }
}

/// The text of a setting that can be switched off.
fn unless_off(text: &str) -> Option<&str> {
    (!text.trim().eq_ignore_ascii_case("off")).then_some(text)
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
    fn durations_are_read_in_words_and_nonsense_is_refused_by_name() {
        assert_eq!(duration("X", "26h").unwrap(), Duration::from_secs(26 * 3600));
        assert_eq!(duration("X", " 14d ").unwrap(), Duration::from_secs(14 * 86400));
        assert_eq!(duration("X", "500ms").unwrap(), Duration::from_millis(500));
        for nonsense in ["", "0s", "-1h", "soon", "26", "1y"] {
            assert!(duration("X", nonsense).unwrap_err().starts_with("X is "), "{nonsense}");
        }
    }
}
