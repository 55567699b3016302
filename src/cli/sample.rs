use std::{path::PathBuf, process::ExitCode};

use jiff::{Zoned, civil::Date};

use crate::{sample, telemetry::redacted};

/// Write synthetic reports and a company list in the real formats into a new folder
#[derive(Debug, clap::Args)]
pub struct Sample {
    /// The folder to write to; must be new or empty
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// How many companies to list
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    companies: u32,
    /// The first day; reports before 2022-06-03 are in the older format
    #[arg(long, default_value = "2020-01-01", value_name = "YYYY-MM-DD")]
    from: Date,
    /// The last day [default: today]
    #[arg(long, value_name = "YYYY-MM-DD")]
    to: Option<Date>,
    /// Seed of the random figures; the same arguments give the same files
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Do nothing if the folder already holds a sample; for scripts that may run again
    #[arg(long)]
    keep: bool,
}

impl Sample {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let folder = self.folder.display().to_string();
        let folder = redacted(&folder);
        if self.keep && self.folder.join("companies.csv").exists() {
            out_line!("there is a sample in {folder} already; it is left as it is");
            return Ok(ExitCode::SUCCESS);
        }
        let to = self.to.unwrap_or_else(|| Zoned::now().date());
        let Self { companies, from, seed, .. } = self;
        let written = sample::Sample { companies, from, to, seed }.write(&self.folder)?;
        out_line!(
            "{} synthetic reports with {} rows, and a list of {companies} companies, in {folder}",
            written.reports,
            written.rows
        );
        out_line!("next: treemap load companies {folder}/companies.csv, treemap load shorts {folder}/reports");
        Ok(ExitCode::SUCCESS)
    }
}
