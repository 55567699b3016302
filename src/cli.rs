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

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ErrorKind as Kind},
};

use crate::telemetry::{LogFormat, Telemetry, may_hold_secret, redacted};

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
        let read = definition()
            .try_get_matches()
            .and_then(|matches| Self::from_arg_matches(&matches).map_err(|error| error.format(&mut definition())));
        read.unwrap_or_else(|error| {
            if !error.use_stderr() {
                error.exit();
            }
            eprint!("{}", for_people(&error));
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
                tracing::error!("{error:#}");
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

/// The command line. Its help shows no value of a variable: any of them may hold a secret by mistake.
fn definition() -> clap::Command {
    without_values(Cli::command())
}

fn without_values(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| argument.hide_env_values(true)).mut_subcommands(without_values)
}

/// What is wrong with the command line. clap quotes arguments, and the shell may have cut a secret in pieces: where there may be one,
/// nothing is quoted.
fn for_people(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let may_quote = std::env::args_os().skip(1).all(|argument| !may_hold_secret(&argument.to_string_lossy()));
    if error.kind() == Kind::DisplayHelpOnMissingArgumentOrSubcommand || (may_quote && !may_hold_secret(&text)) {
        return text;
    }
    let usage = error.get(ContextKind::Usage).map_or_else(|| "Usage: treemap --help".into(), ToString::to_string);
    format!("error: {} (not quoted, as there may be a secret in it)\n\n{usage}\n", error.kind())
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
    use super::*;

    #[test]
    fn the_command_line_is_soundly_defined() {
        definition().debug_assert();
    }

    #[test]
    fn no_help_shows_the_value_of_a_variable() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                assert!(argument.is_hide_env_values_set(), "{}: {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&definition());
    }
}
