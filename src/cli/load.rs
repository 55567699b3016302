use std::{
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Subcommand;

use crate::{
    config::DatabaseArgs,
    load::{Refused, companies::Companies, plan::Plan, shorts},
    postgres::Session,
    telemetry::redacted,
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
                out_line!("{} companies: {} added, {} updated", loaded.listed, loaded.added, loaded.updated);
                out_line!("next: treemap refresh");
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// How many unlikely values are named.
const NOTES: usize = 20;

async fn load_shorts(database: &DatabaseArgs, paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let session = Session::connect(&database.check()?).await?;
    let plan = Plan::of(paths);
    let (files, others) = (plan.files(), plan.others);
    // On a terminal, one line that is written over; otherwise a line now and then.
    let terminal = std::io::stderr().is_terminal();
    let (every, begin, end) =
        if terminal { (Duration::from_millis(100), "\r", "\x1b[K") } else { (Duration::from_secs(5), "", "\n") };
    let mut last_line = Instant::now();
    let loaded = shorts::load(&session, plan, |done, loaded| {
        if last_line.elapsed() >= every {
            last_line = Instant::now();
            eprint!("{begin}{done}/{files} files, {} rows{end}", loaded.rows);
        }
    })
    .await;
    if terminal {
        eprint!("\r\x1b[K");
    }
    let loaded = loaded?;

    // A connection string that the shell has cut at its spaces can only be recognized as a whole.
    let all = paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let shows_names = redacted(&all) == all;
    for Refused { path, reason } in &loaded.refused {
        let name = if shows_names { path.to_string_lossy() } else { "***".into() };
        out_line!("{}", redacted(&format!("refused {name}: {reason}")));
    }
    for note in loaded.notes.iter().take(NOTES) {
        out_line!("look at {}", redacted(note));
    }
    if let Some(more) = loaded.notes.len().checked_sub(NOTES).filter(|more| *more > 0) {
        out_line!("look at {more} more of this kind");
    }
    if others > 0 {
        out_line!("{others} other files lie in the folders");
    }
    out!("{} reports loaded, {} rows", loaded.files, loaded.rows);
    if let Some((first, last)) = loaded.span {
        out!(", {first} to {last}");
    }
    out_line!("; {} older revisions passed over; {} refused", loaded.superseded, loaded.refused.len());
    if loaded.files == 0 {
        bail!("nothing was loaded");
    }
    out_line!("next: treemap refresh");
    Ok(if loaded.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
