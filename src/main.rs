//! The `treemap` binary: parse, run, exit code.

use std::process::ExitCode;

use industry_treemap::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::read().run().await
}
