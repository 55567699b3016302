//! The `treemap` binary: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use industry_treemap::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            // One line with the whole chain of causes; what mends it is part of the message.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
