//! The `treemap` binary: parse, run, exit code.

use std::process::ExitCode;

use anyhow::Context;
use industry_treemap::Cli;
use tokio::runtime::Runtime;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::read();
    let runtime = Runtime::new().context("cannot start the threads of the runtime")?;
    let code = runtime.block_on(cli.run());
    // A thread may still look up a name that no server answers, for minutes: nobody waits for that.
    runtime.shutdown_background();
    Ok(code)
}
