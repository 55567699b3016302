use std::process::ExitCode;

use super::{
    status::{print_log, summary},
    table,
};
use crate::{
    config::DatabaseArgs,
    postgres::Session,
    refresh::{Outcome, Reason, refresh_once},
    view::contents::{Refresh as Logged, View},
};

/// Refresh the view now, and show its state before and after
///
/// The exit code is 0 when the view was refreshed, 1 when it was not, and 2 when the command line is wrong.
#[derive(Debug, clap::Args)]
pub struct Refresh {
    #[command(flatten)]
    database: DatabaseArgs,
}

impl Refresh {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let session = Session::connect(&self.database.check()?).await?;
        let before = View::read(&session).await?;
        let outcome = refresh_once(&session, Reason::ByHand, None).await?;
        let after = View::read(&session).await?;
        let mut rows = vec![vec![String::new(), "before".into(), "after".into()]];
        for ((name, before), (_, after)) in summary(&before).into_iter().zip(summary(&after)) {
            rows.push(vec![name.into(), before, after]);
        }
        table::print(&rows);
        print_log(&Logged::newest(&session).await?);
        if let Outcome::Refreshed { rows, seconds, .. } = outcome {
            out_line!("\nrefreshed {rows} rows in {seconds:.2} s");
        }
        Ok(ExitCode::SUCCESS)
    }
}
