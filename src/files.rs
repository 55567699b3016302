//! Files that others wrote, within bounds: a pipe or a device has no end, and a network disk may not answer.

use std::{
    fs,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// Reads a file whole.
///
/// Fails when it cannot be read, is no regular file, or has more than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| error.to_string();
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err("this is no regular file".into());
    }
    read_to_end(&mut fs::File::open(path).map_err(failed)?, limit)
}

/// Reads all that comes.
///
/// Fails when that fails, or when more than `limit` bytes come.
pub fn read_to_end(from: &mut dyn Read, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("the file has more than {} MiB", limit >> 20));
    }
    Ok(bytes)
}

/// Does work with files in threads that nobody waits for at the end of the process, one at a time.
#[derive(Debug, Default)]
pub struct InThread {
    /// Work that took too long; dropped when it ends.
    late: Option<oneshot::Receiver<()>>,
}

impl InThread {
    /// What `work` gives. `None` when that takes longer than `within`, or when earlier work still runs then.
    pub async fn run<T: Send + 'static>(
        &mut self,
        within: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let until = Instant::now() + within;
        if let Some(late) = &mut self.late {
            let _ = timeout_at(until, late).await.ok()?;
            self.late = None;
        }
        let (send, result) = oneshot::channel();
        let (running, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("files".into()).spawn(move || {
            let _running: oneshot::Sender<()> = running;
            let _ = send.send(work());
        });
        thread.ok()?;
        self.late = Some(ended);
        let result = timeout_at(until, result).await.ok()?.ok();
        self.late = None;
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_that_is_late_is_not_joined_by_more_and_the_next_waits_for_its_end() {
        const SHORT: Duration = Duration::from_millis(50);
        let mut threads = InThread::default();
        let (go_on, wait) = mpsc::channel::<()>();
        assert_eq!(threads.run(SHORT, move || wait.recv().is_ok()).await, None);
        let begun = Instant::now();
        assert_eq!(threads.run(SHORT, || 1).await, None, "the first still runs");
        assert!(begun.elapsed() >= SHORT);
        go_on.send(()).unwrap();
        assert_eq!(threads.run(Duration::from_secs(5), || 2).await, Some(2));
        assert_eq!(threads.run(SHORT, || 3).await, Some(3));
    }
}
