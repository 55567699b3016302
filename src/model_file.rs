//! A model in a file. A server writes one after each load, and begins with it: so one that starts while Postgres is away has answers. A
//! server can also live from such a file alone.

use std::{
    fmt, fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    files::{self, InThread},
    metrics::{FileWrite, Metrics},
    treemap::{freshness::Tolerance, model::Model, read_model::ReadModel, snapshot},
};

/// Bytes of a file. One of 1,000 stocks has some 100 KB.
const LARGEST: u64 = 64 << 20;
/// How long a start waits for the file; longer ones are those of a disk or of a network that does not answer.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long a write may take until it counts as failed.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);
/// The pause before a write that failed is tried again, if no other load comes before.
const AGAIN: Duration = Duration::from_secs(60);

/// Takes the model of a file into use, so that there are answers before the database is reached. A file that cannot be used is logged.
pub async fn begin(path: &Path, tolerance: Tolerance, read_model: &ReadModel) {
    match read(&mut InThread::default(), path, tolerance).await {
        Ok(Some(model)) => serve(model, read_model, format_args!("{} until the database answers", path.display())),
        Ok(None) => tracing::info!("there is no model file {} yet; the first load writes it", path.display()),
        Err(problem) => {
            tracing::warn!("ignoring the model file {}, until a load replaces it: {problem}", path.display());
        }
    }
}

/// The same for a file that is all that there is.
///
/// Fails when it cannot be used.
pub async fn begin_alone(path: &Path, tolerance: Tolerance, read_model: &ReadModel) -> anyhow::Result<()> {
    let file = path.display();
    match read(&mut InThread::default(), path, tolerance).await {
        Ok(Some(model)) => serve(model, read_model, format_args!("{file}")),
        Ok(None) => bail!("TREEMAP_FROM names {file}, which does not exist; write it with: treemap snapshot FILE"),
        Err(problem) => bail!("TREEMAP_FROM names {file}, which cannot be used: {problem}"),
    }
    Ok(())
}

fn serve(model: Model, read_model: &ReadModel, what: fmt::Arguments<'_>) {
    let version = model.version.to_str().unwrap_or_default();
    let data_date = model.freshness.data_date.map(tracing::field::display);
    tracing::info!(version, data_date, "serving {what}");
    read_model.publish_of_file(model);
}

/// Reads the model of a file. `None` when there is no file.
///
/// Fails with what is wrong with the file, or when it cannot be read in time.
async fn read(thread: &mut InThread, path: &Path, tolerance: Tolerance) -> Result<Option<Model>, String> {
    let path = path.to_owned();
    let read = move || {
        if fs::metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        snapshot::decode(&files::read(&path, LARGEST)?, tolerance).map(Some)
    };
    let late = || Err(format!("no answer within {} s", READ_WITHIN.as_secs()));
    thread.run(READ_WITHIN, read).await.unwrap_or_else(late)
}

/// Writes a model, in place of what was there. Whoever reads sees the old file or the new one.
///
/// Fails with what the system says; then the old file is as it was.
pub fn write(path: &Path, model: &Model) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let write = || {
        let mut file = fs::File::create(&beside)?;
        file.write_all(&snapshot::encode(model))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Writes each model that is `published`, for ever. A write that fails is logged once, and tried again.
pub async fn keep_written(
    path: PathBuf,
    read_model: Arc<ReadModel>,
    mut published: watch::Receiver<()>,
    metrics: Arc<Metrics>,
) {
    let mut thread = InThread::default();
    let mut failing = false;
    loop {
        if failing {
            let _ = timeout(AGAIN, published.changed()).await;
        } else if published.changed().await.is_err() {
            return;
        }
        let Some(model) = read_model.current() else { continue };
        let to = path.clone();
        let written = thread.run(WRITTEN_WITHIN, move || write(&to, &model)).await;
        let problem = match written {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some(format!("no answer within {} s", WRITTEN_WITHIN.as_secs())),
        };
        metrics.model_file(if problem.is_none() { FileWrite::Written } else { FileWrite::Failed });
        match &problem {
            Some(problem) if !failing => {
                tracing::warn!("cannot write the model file {}; retrying: {problem}", path.display());
            }
            None if failing => tracing::info!("the model file {} is written again", path.display()),
            _ => {}
        }
        failing = problem.is_some();
    }
}

/// Serves a file alone: takes it into use whenever it changes, for ever. Each reason why it cannot be used is logged once.
pub async fn keep_read(path: PathBuf, tolerance: Tolerance, every: Duration, read_model: Arc<ReadModel>) {
    let mut thread = InThread::default();
    let mut seen: Option<(SystemTime, u64)> = None;
    let mut known_problem = None;
    loop {
        sleep(every).await;
        let of = path.clone();
        let look = move || fs::metadata(of).and_then(|file| Ok((file.modified()?, file.len()))).ok();
        let now = thread.run(READ_WITHIN, look).await.flatten();
        if now.is_some() && now == seen {
            continue;
        }
        let problem = match read(&mut thread, &path, tolerance).await {
            Ok(Some(model)) => {
                seen = now;
                if read_model
                    .current()
                    .is_none_or(|current| (&current.version, &current.freshness) != (&model.version, &model.freshness))
                {
                    serve(model, &read_model, format_args!("what {} has now", path.display()));
                }
                None
            }
            Ok(None) => Some("it is gone".to_owned()),
            Err(problem) => Some(problem),
        };
        if let Some(problem) = problem.as_ref().filter(|problem| known_problem.as_ref() != Some(*problem)) {
            tracing::warn!("{} cannot be used; serving what it had: {problem}", path.display());
        }
        known_problem = problem;
    }
}
