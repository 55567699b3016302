use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;

use crate::{
    config::DatabaseArgs, model_file, postgres::Session, telemetry::redacted, treemap::freshness::Tolerance, view,
};

/// Write what the server would answer into a file, for `treemap serve --from FILE`
#[derive(Debug, clap::Args)]
pub struct Snapshot {
    #[command(flatten)]
    database: DatabaseArgs,
    /// The file to write; one that is there is replaced
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Snapshot {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let session = Session::connect(&self.database.check()?).await?;
        // How old is too old is a matter of who serves it.
        let model = view::load(&session, Tolerance { view: Duration::ZERO, data: Duration::ZERO }).await?;
        let file = self.file.display().to_string();
        let file = redacted(&file);
        model_file::write(&self.file, &model).with_context(|| format!("cannot write {file}"))?;
        let date = model.freshness.data_date.map_or_else(|| "no reports".into(), |date| format!("data of {date}"));
        let version = model.version.to_str().unwrap_or_default();
        out_line!("wrote {file}: version {version}, {date}; serve it with: treemap serve --from {file}");
        Ok(ExitCode::SUCCESS)
    }
}
