use std::process::ExitCode;

use clap_complete::Shell;

use super::definition;

/// Print the completions for a shell, to be stored where that shell looks for them
///
/// For bash: `treemap completions bash > ~/.local/share/bash-completion/completions/treemap`
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> ExitCode {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut definition(), "treemap", &mut script);
        out!("{}", String::from_utf8_lossy(&script));
        ExitCode::SUCCESS
    }
}
