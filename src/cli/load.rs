use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    config::DatabaseArgs,
    load::{companies::Companies, plan::Plan, shorts},
    postgres::Session,
};

/// Load the published files of ASIC and the ASX into the source tables
#[derive(Debug, clap::Args)]
pub struct Load {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Load ASIC's daily reports; the highest revision of a date replaces all its rows
    Shorts {
        #[command(flatten)]
        database: DatabaseArgs,
        /// Reports (RRyyyymmdd-vvv-SSDailyAggShortPos.csv), or folders that contain them
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Load the ASX list of companies: code, name and industry group
    Companies {
        #[command(flatten)]
        database: DatabaseArgs,
        /// The list as CSV, in any of the published layouts
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

impl Load {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Shorts { database, paths } => load_shorts(&database, &paths).await,
            What::Companies { database, file } => {
                let session = Session::connect(&database.check()?).await?;
                let loaded = Companies::read(&file)?.load(&session).await?;
                println!("{} companies: {} added, {} updated", loaded.listed, loaded.added, loaded.updated);
                println!("next: treemap refresh");
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

async fn load_shorts(database: &DatabaseArgs, paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let session = Session::connect(&database.check()?).await?;
    let plan = Plan::of(paths);
    let files = plan.files();
    let bar = ProgressBar::new(files as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} files, {msg}, {eta} left")?);
    let terminal = std::io::stderr().is_terminal();
    let mut last_line = std::time::Instant::now();
    let loaded = shorts::load(&session, plan, |done, loaded| {
        if terminal {
            bar.set_message(format!("{} rows", loaded.rows));
            bar.set_position(done as u64);
        } else if last_line.elapsed() >= Duration::from_secs(5) {
            last_line = std::time::Instant::now();
            eprintln!("{done}/{files} files, {} rows", loaded.rows);
        }
    })
    .await;
    bar.finish_and_clear();
    let loaded = loaded?;

    for refused in &loaded.refused {
        println!("refused {refused}");
    }
    print!("{} reports loaded, {} rows", loaded.files, loaded.rows);
    if let Some((first, last)) = loaded.span {
        print!(", {first} to {last}");
    }
    println!("; {} older revisions passed over; {} refused", loaded.superseded, loaded.refused.len());
    if loaded.files == 0 {
        bail!("nothing was loaded");
    }
    println!("next: treemap refresh");
    Ok(if loaded.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
