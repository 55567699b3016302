//! The log of a server, written by a thread of its own. Whoever reads standard error may stop reading: the server does not wait for them.
//! Lines that do not fit the queue are dropped then, and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Lines that may wait to be written.
const LINES: usize = 4096;
/// How long the process waits at its end until its last lines are written.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);
/// How often it looks whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Where lines wait for the thread that writes them. Cloned, it is the same queue.
#[derive(Debug, Clone)]
pub struct Queue {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    dropped: AtomicUsize,
}

impl Queue {
    /// Starts the thread, which writes to `out` until the process ends.
    pub fn start(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queued) = sync_channel::<Vec<u8>>(LINES);
        let queue = Self { lines, counts: Arc::default() };
        let counts = queue.counts.clone();
        let write = move || {
            for line in queued {
                // Where nobody reads any more, there is nobody to report it to.
                let _ = out.write_all(&line).and_then(|()| out.flush());
                counts.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        };
        thread::Builder::new().name("log".into()).spawn(write)?;
        Ok(queue)
    }

    /// How many lines were dropped so far.
    pub fn dropped(&self) -> usize {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Whether its lines are read: they would fill it otherwise.
    pub fn is_read(&self) -> bool {
        self.counts.waiting.load(Ordering::Relaxed) < LINES / 2
    }

    /// Waits until all lines are written, for a limited time.
    pub fn finish(&self) {
        let begun = Instant::now();
        while self.counts.waiting.load(Ordering::Relaxed) > 0 && begun.elapsed() < LAST_LINES_WITHIN {
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Takes whole lines, each with one write.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        if self.lines.try_send(line.to_vec()).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn lines_that_nobody_reads_are_dropped_and_counted_and_those_that_fit_arrive_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut queue = Queue::start(writer).unwrap();
        let line = |number: usize| format!("{number:0>1023}\n");
        for number in 0..2 * LINES {
            queue.write_all(line(number).as_bytes()).unwrap();
        }
        let dropped = queue.dropped();
        assert!((1..=LINES).contains(&dropped), "{dropped}");
        assert!(!queue.is_read());
        let begun = Instant::now();
        queue.finish();
        assert!(begun.elapsed() < 3 * LAST_LINES_WITHIN, "nobody reads: {:?}", begun.elapsed());
        let mut read = vec![0; (2 * LINES - dropped) * 1024];
        reader.read_exact(&mut read).unwrap();
        let read = String::from_utf8(read).unwrap();
        let numbers: Vec<usize> = read.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.is_sorted() && numbers[0] == 0);
        queue.finish();
        assert!(queue.is_read());
        assert_eq!(queue.dropped(), dropped);
    }
}
