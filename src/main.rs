//! The `treemap` binary: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use industry_treemap::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
