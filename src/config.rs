//! Every setting: flag, environment variable, default and meaning. Only connection strings are read again later, by `renew`.
//! All mistakes are reported together, each with the name of its setting; a secret is never printed, not even a wrong one.

mod database;
mod origins;
mod refresh;
mod server;

use std::{fmt, path::PathBuf, time::Duration};

use clap::builder::{OsStringValueParser, TypedValueParser};
use jiff::{Span, SpanRelativeTo};

pub use self::{
    database::{DatabaseArgs, DatabasesArgs},
    origins::Origins,
    refresh::{Clock, RefreshConfig, ScheduleArgs, SourceConfig, ToleranceArgs},
    server::{AdminAddress, CallLimits, Limits, ListenAddress, ServerConfig, Share},
};
use self::{refresh::SourceArgs, server::ServerArgs};
use crate::{postgres::current::Databases, treemap::freshness::Tolerance};

/// The settings of `treemap serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    databases: DatabasesArgs,
    /// A file that keeps the newest model: written after each load, and served at the start until the database answers
    #[arg(long, env = "TREEMAP_MODEL_FILE", value_name = "FILE", value_parser = file())]
    model_file: Option<PathBuf>,
    /// Serve the model in FILE without a database, also if one is set, and reload it when it changes; `treemap snapshot` writes such a file
    #[arg(long, env = "TREEMAP_FROM", value_name = "FILE", value_parser = file())]
    from: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    /// How often to check whether the view was refreshed, in addition to notifications
    #[arg(long, env = "TREEMAP_POLL_INTERVAL", default_value = "10s", value_name = "DURATION")]
    poll_interval: String,
    #[command(flatten)]
    tolerance: ToleranceArgs,
    #[command(flatten)]
    schedule: ScheduleArgs,
    #[command(flatten)]
    sources: SourceArgs,
}

/// Checked settings of `treemap serve`.
#[derive(Debug)]
pub struct Config {
    /// How clients are served.
    pub server: ServerConfig,
    /// How old an answer may be before it is marked stale.
    pub tolerance: Tolerance,
    /// The time between two looks at where answers come from.
    pub poll_interval: Duration,
    /// Where answers come from.
    pub source: Source,
}

/// Where answers come from.
#[derive(Debug)]
pub enum Source {
    /// The view.
    Database(Box<DataConfig>),
    /// A file, and no database.
    File(PathBuf),
}

/// Checked settings of the read model and of what keeps it and its view fresh.
#[derive(Debug)]
pub struct DataConfig {
    /// Where queries and LISTEN go.
    pub databases: Databases,
    /// Where their connection strings come from.
    pub databases_from: DatabasesArgs,
    /// Keeps the newest model; `None` when none is to be kept.
    pub model_file: Option<PathBuf>,
    /// When to refresh the view.
    pub refresh: RefreshConfig,
}

/// Settings that were refused: every one of them, by name.
#[derive(Debug, Default, thiserror::Error)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.join("\n       "))
    }
}

impl Problems {
    /// The value, or nothing and one more problem.
    fn note<T>(&mut self, checked: Result<T, String>) -> Option<T> {
        checked.map_err(|problem| self.0.push(problem)).ok()
    }

    /// What `read` gives, or all the problems that it noted.
    fn or<T>(read: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, Self> {
        let mut problems = Self::default();
        read(&mut problems).ok_or(problems)
    }
}

impl ServeArgs {
    /// Checks everything; fails with all that is wrong, together.
    pub fn check(&self) -> Result<Config, Problems> {
        Problems::or(|problems| self.read(problems))
    }

    fn read(&self, problems: &mut Problems) -> Option<Config> {
        let from = given(self.from.as_ref());
        let databases = if from.is_none() { self.databases.note(problems).map(Some) } else { Some(None) };
        let server = self.server.read(problems);
        let poll_interval = problems.note(duration("TREEMAP_POLL_INTERVAL", &self.poll_interval, INTERVALS));
        let tolerance = self.tolerance.read(problems);
        let clock = self.schedule.read(problems);
        let sources = self.sources.read(problems);
        let refresh = RefreshConfig { schedule: clock?.schedule, sources: sources? };
        let source = match (databases?, from) {
            (Some(databases), _) => {
                databases.warn_unverified();
                let (databases_from, model_file) = (self.databases.clone(), given(self.model_file.as_ref()));
                Source::Database(Box::new(DataConfig { databases, databases_from, model_file, refresh }))
            }
            (None, from) => Source::File(from?),
        };
        Some(Config { server: server?, tolerance: tolerance?, poll_interval: poll_interval?, source })
    }
}

/// Reads the name of a file. clap's own reader refuses a variable that is set to nothing.
fn file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A file that is named: a variable that is set to nothing is not set.
fn given(file: Option<&PathBuf>) -> Option<PathBuf> {
    file.filter(|file| !file.as_os_str().is_empty()).cloned()
}

/// The text of a setting that can be switched off.
fn unless_off(text: &str) -> Option<&str> {
    (!text.trim().eq_ignore_ascii_case("off")).then_some(text)
}

/// How often something may be looked at: a loop without a pause only keeps Postgres busy.
const INTERVALS: [&str; 2] = ["10ms", "1d"];

/// The duration of a setting, from the shorter to the longer end.
fn duration(setting: &str, text: &str, [shortest, longest]: [&str; 2]) -> Result<Duration, String> {
    let ends = words_to_duration(shortest).zip(words_to_duration(longest));
    words_to_duration(text)
        .filter(|duration| ends.is_some_and(|(shortest, longest)| (shortest..=longest).contains(duration)))
        .ok_or_else(|| format!("{setting} is {text:?}; expected a duration from {shortest} to {longest}"))
}

/// A duration in words: `90s`, `26h`, `14d`. A day has 24 hours.
fn words_to_duration(text: &str) -> Option<Duration> {
    let span: Span = text.trim().parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_words_and_nonsense_is_refused_by_name() {
        let ends = ["500ms", "14d"];
        assert_eq!(duration("X", "26h", ends).unwrap(), Duration::from_secs(26 * 3600));
        assert_eq!(duration("X", " 14d ", ends).unwrap(), Duration::from_secs(14 * 86400));
        assert_eq!(duration("X", "500ms", ends).unwrap(), Duration::from_millis(500));
        for nonsense in ["", "0s", "-1h", "soon", "26", "1y", "1ns", "499ms", "15d"] {
            let refused = format!("X is {nonsense:?}; expected a duration from 500ms to 14d");
            assert_eq!(duration("X", nonsense, ends).unwrap_err(), refused);
        }
    }
}
