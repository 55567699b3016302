use std::process::ExitCode;

use super::{status::summary, table};
use crate::{config::DatabaseArgs, db::Session, refresh::refresh_now, status::View};

/// Refresh the view now, and show it before and after
#[derive(Debug, clap::Args)]
pub struct Refresh {
    #[command(flatten)]
    database: DatabaseArgs,
}

impl Refresh {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let session = Session::connect(&self.database.check()?).await?;
        let before = View::read(&session).await?;
        let refreshed = refresh_now(&session).await?;
        let after = View::read(&session).await?;
        let mut rows = vec![vec![String::new(), "before".into(), "after".into()]];
        for ((name, before), (_, after)) in summary(&before).into_iter().zip(summary(&after)) {
            rows.push(vec![name.into(), before, after]);
        }
        table::print(&rows);
        println!("refreshed {} rows in {:.2} s", refreshed.rows, refreshed.seconds);
        Ok(ExitCode::SUCCESS)
    }
}
