//! The `treemap` command: one file per subcommand.

/// Prints to standard output. A reader that has gone away ends the process quietly, as it ends other commands.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::write_out(format_args!($($text)*)) };
}
/// The same, with the end of the line.
macro_rules! out_line {
    ($($text:tt)*) => { $crate::cli::write_out(format_args!("{}\n", format_args!($($text)*))) };
}

mod completions;
mod healthcheck;
mod load;
mod man;
mod migrate;
mod query;
mod refresh;
mod sample;
mod serve;
mod snapshot;
mod status;
mod table;
mod version;

use std::{
    fmt::Arguments,
    io::{ErrorKind, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::telemetry::{LogFormat, Telemetry};

/// The industry treemap of ASX short positions: loads the reports, keeps the view, serves the answers
#[derive(Debug, Parser)]
#[command(name = "treemap", version = version::version(), propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log to standard error: error, warn, info, debug or trace, also per module
    #[arg(long, env = "TREEMAP_LOG", default_value = "info", global = true, value_name = "FILTER")]
    log: String,
    /// How to write logs: text on a terminal and JSON otherwise, or always one of them
    #[arg(long, env = "TREEMAP_LOG_FORMAT", default_value = "auto", global = true, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Migrate(migrate::Migrate),
    Load(load::Load),
    Refresh(refresh::Refresh),
    Status(status::Status),
    Query(query::Query),
    Snapshot(snapshot::Snapshot),
    Sample(sample::Sample),
    Healthcheck(healthcheck::Healthcheck),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Cli {
    /// Parses the command line. A wrong one ends the process, with exit code 2.
    pub fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            if !error.use_stderr() {
                error.exit();
            }
            eprint!("{}", redacted(&error.render().to_string()));
            std::process::exit(error.exit_code());
        })
    }

    /// Runs the subcommand. The exit code is 0 when all was done and well, 1 otherwise; a wrong command line ends with 2
    /// before this is reached.
    /// What went wrong is printed as one line for a person, with the whole chain of causes; by a server that logs JSON, as JSON.
    pub async fn run(self) -> ExitCode {
        let serves = matches!(self.command, Command::Serve(_));
        let mut logs_json = false;
        let mut telemetry = None;
        let ran = match Telemetry::start(&self.log, self.log_format, serves) {
            Ok(started) => {
                logs_json = started.logs_json();
                let ran = self.command.run(&started).await;
                started.end();
                telemetry = Some(started);
                ran
            }
            Err(error) => Err(error),
        };
        ran.unwrap_or_else(|error| {
            if serves && logs_json {
                tracing::error!("{}", redacted(&format!("{error:#}")));
            } else {
                let line = format!("error: {}", redacted(&format!("{error:#}")));
                telemetry.unwrap_or_default().print(&line);
            }
            ExitCode::FAILURE
        })
    }
}

impl Command {
    async fn run(self, telemetry: &Telemetry) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(command) => command.run(telemetry).await,
            Self::Migrate(command) => command.run().await,
            Self::Load(command) => command.run().await,
            Self::Refresh(command) => command.run().await,
            Self::Status(command) => command.run().await,
            Self::Query(command) => command.run().await,
            Self::Snapshot(command) => command.run().await,
            Self::Sample(command) => command.run(),
            Self::Healthcheck(command) => command.run(),
            Self::Completions(command) => Ok(command.run()),
            Self::Man(_) => man::Man::run(),
        }
    }
}

/// A text for people without what may be a secret in it: a connection string reaches us in places that are meant for others, as an
/// argument or as the name of a file.
pub fn redacted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        // The user and the password of a URL end at the last @.
        if let (Some(scheme), Some(at)) = (rest.find("://"), rest.rfind('@'))
            && scheme + 3 < at
            // Our own examples say it like that.
            && &rest[scheme + 3..at] != "user:password"
        {
            shown += &rest[..scheme + 3];
            shown += "***";
            rest = &rest[at..];
        }
        while let Some(begin) =
            ["password=", "pwd="].iter().find_map(|word| Some(rest.to_ascii_lowercase().find(word)? + word.len()))
        {
            shown += &rest[..begin];
            shown += if rest[begin..].starts_with("...") { "..." } else { "***" };
            let end = rest[begin..].find([' ', '&', ';', '\'', '"', '\n']).map_or(rest.len(), |end| begin + end);
            rest = &rest[end..];
        }
        shown += rest;
    }
    shown
}

/// The exit code of a command whose reader went away: that of SIGPIPE in a shell.
const NOBODY_READS: i32 = 141;

fn write_out(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(NOBODY_READS);
        }
        eprintln!("error: cannot write to standard output: {error}");
        std::process::exit(1);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown_wherever_it_stands() {
        for text in [
            "unexpected argument 'postgres://u:hunter2@h/db' found",
            "\"postgres://u:hunter2#x@y hunter2@h/db\" is no level",
            "names jdbc:postgresql://h/db?user=u&password=hunter2, which",
            "names host=h Password=hunter2 x",
            "Host=h;PWD=hunter2;x pwd=hunter2",
        ] {
            assert!(!redacted(text).contains("hunter2"), "{}", redacted(text));
        }
        for text in [
            "expected http://host:4317",
            "expected postgres://host/db, or user@host",
            "expected postgres://user:password@host or password=... x",
            "two\nlines",
        ] {
            assert_eq!(redacted(text).matches("***").count(), usize::from(text.contains("or user@")), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_soundly_defined() {
        Cli::command().debug_assert();
    }
}
