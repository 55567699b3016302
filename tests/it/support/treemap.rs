//! Runs the real binary until it exits.

use std::process::{Command, Output};

use super::{cluster::PASSWORD, database::Database};

/// A command for the binary, without any settings from the environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_treemap"));
    command.args(arguments);
    // Settings in the developer's shell must not reach a test.
    for (setting, _) in std::env::vars().filter(|(name, _)| {
        ["TREEMAP_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix)) || name.contains("DATABASE_URL")
    }) {
        command.env_remove(setting);
    }
    command.env("TREEMAP_LOG_FORMAT", "text");
    command
}

/// Runs the binary against a database.
pub fn treemap(database: &Database, arguments: &[&str]) -> Run {
    run(command(arguments).env("DATABASE_URL", database.url()))
}

/// Runs a command until it exits.
pub fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let run = Run { command: format!("{command:?}"), output };
    assert!(!(run.stdout() + &run.stderr()).contains(PASSWORD), "{} leaks a secret", run.command);
    run
}

/// The result of a run.
pub struct Run {
    command: String,
    output: Output,
}

impl Run {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    #[track_caller]
    pub fn succeeds(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.output.status.code(), Some(code), "{}\n{}{}", self.command, self.stdout(), self.stderr());
        self
    }

    /// Asserts that the output (stdout and stderr) contains each of `words`.
    #[track_caller]
    pub fn prints(self, words: &[&str]) -> Self {
        let all = self.stdout() + &self.stderr();
        for word in words {
            assert!(all.contains(word), "{} does not print {word:?}:\n{all}", self.command);
        }
        self
    }
}
