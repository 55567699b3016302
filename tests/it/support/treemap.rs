//! The real binary, run to its end.

use std::process::{Command, Output};

use super::{cluster::PASSWORD, database::Database};

/// The binary, with no setting but those that a test gives it.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_treemap"));
    command.args(arguments);
    // Whatever a developer's shell might carry into a test.
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

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let run = Run { said: format!("{command:?}"), output };
    assert!(!(run.stdout() + &run.stderr()).contains(PASSWORD), "{} gives a secret away", run.said);
    run
}

/// What a run came to.
pub struct Run {
    said: String,
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
        assert_eq!(self.output.status.code(), Some(code), "{}\n{}{}", self.said, self.stdout(), self.stderr());
        self
    }

    /// Asserts that one of the two outputs has every one of `words`.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        let all = self.stdout() + &self.stderr();
        for word in words {
            assert!(all.contains(word), "{} does not say {word:?}:\n{all}", self.said);
        }
        self
    }
}
