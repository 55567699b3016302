//! A model in a file. A server writes one after each load, and begins with it: so one that starts while Postgres is away has answers. A
//! server can also live from such a file alone.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

use crate::{
    files,
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

/// Reads the model of a file. `None` when there is no file.
///
/// Fails with what is wrong with the file, or when it cannot be read in time.
pub async fn read(path: &Path, tolerance: Tolerance) -> Result<Option<Model>, String> {
    let path = path.to_owned();
    let read = move || {
        if fs::metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        snapshot::decode(&files::read(&path, LARGEST)?, tolerance).map(Some)
    };
    let late = || Err(format!("no answer within {} s", READ_WITHIN.as_secs()));
    in_a_thread(READ_WITHIN, read).await.unwrap_or_else(late)
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
    let mut failing = false;
    loop {
        if failing {
            let _ = timeout(AGAIN, published.changed()).await;
        } else if published.changed().await.is_err() {
            return;
        }
        let Some(model) = read_model.current() else { continue };
        let to = path.clone();
        let written = in_a_thread(WRITTEN_WITHIN, move || write(&to, &model)).await;
        let problem = match written {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some(format!("no answer within {} s", WRITTEN_WITHIN.as_secs())),
        };
        metrics.model_file(if problem.is_none() { FileWrite::Written } else { FileWrite::Failed });
        match &problem {
            Some(problem) if !failing => {
                tracing::warn!("cannot write the model file {}; trying again: {problem}", path.display());
            }
            None if failing => tracing::info!("the model file {} is written again", path.display()),
            _ => {}
        }
        failing = problem.is_some();
    }
}

/// Serves a file alone: takes it into use whenever it changes, for ever. One that cannot be used is logged once.
pub async fn keep_read(path: PathBuf, tolerance: Tolerance, every: Duration, read_model: Arc<ReadModel>) {
    let changed = |path: &Path| fs::metadata(path).and_then(|file| Ok((file.modified()?, file.len()))).ok();
    let mut seen: Option<(SystemTime, u64)> = changed(&path);
    loop {
        sleep(every).await;
        let now = changed(&path);
        if now == seen {
            continue;
        }
        seen = now;
        match read(&path, tolerance).await {
            Ok(Some(model)) => {
                tracing::info!(version = model.version.to_str().unwrap_or_default(), "serving what the file has now");
                read_model.publish_of_file(model);
            }
            Ok(None) => tracing::warn!("{} is gone; serving what it had", path.display()),
            Err(problem) => tracing::warn!("{} cannot be used; serving what it had: {problem}", path.display()),
        }
    }
}

/// Runs `work` in a thread that nobody waits for at the end of the process: a disk that does not answer holds up nothing. `None` when it
/// takes longer than `within`.
async fn in_a_thread<T: Send + 'static>(within: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("model-file".into());
    thread.spawn(move || drop(done.send(work()))).ok()?;
    timeout(within, result).await.ok()?.ok()
}
