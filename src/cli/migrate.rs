use std::process::ExitCode;

use crate::{config::DatabaseArgs, migrate, postgres::Session};

/// Create or update the tables, the view and its functions; safe to repeat, and to run several times at once
#[derive(Debug, clap::Args)]
pub struct Migrate {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Change nothing; list what is missing or different, and exit with 1 if anything is
    #[arg(long, conflicts_with = "down")]
    check: bool,
    /// Drop the view, its refresh log and its functions; keep the source tables
    #[arg(long)]
    down: bool,
}

impl Migrate {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let session = Session::connect(&self.database.check()?).await?;
        if self.down {
            migrate::down(&session).await?;
            out_line!(
                "rolled back: the view, its refresh log and its functions are gone; the source tables are untouched"
            );
            return Ok(ExitCode::SUCCESS);
        }
        let differences = migrate::differences(&session).await?;
        for difference in &differences {
            out_line!("- {difference}");
        }
        if differences.is_empty() {
            out_line!("up to date: nothing to do");
        } else if self.check {
            out_line!("not up to date; repair it with: treemap migrate");
            return Ok(ExitCode::FAILURE);
        } else {
            migrate::up(&session).await?;
            out_line!("migrated: {}", migrate::names().join(", "));
        }
        Ok(ExitCode::SUCCESS)
    }
}
