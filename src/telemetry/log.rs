//! The log of a server, written by a thread of its own. Whoever reads standard error may stop reading: the server does not wait for them.
//! Lines that do not fit the queue are dropped then, and counted.

use std::{
    borrow::Cow,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::redacted::{may_hold_secret, redacted};

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

/// Takes whole lines, each with one write, and passes them on without what may be a secret.
#[derive(Debug)]
pub struct Redacting<W>(pub W);

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(redacted_line(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A line of the log. In JSON each value is redacted by itself, so that the line stays JSON.
fn redacted_line(line: &str) -> Cow<'_, str> {
    if !may_hold_secret(line) {
        return line.into();
    }
    if let Ok(event @ Value::Object(_)) = serde_json::from_str::<Value>(line) {
        let mut shown = event.clone();
        redact(&mut shown);
        // Written anew, its fields have another order.
        return if shown == event { line.into() } else { format!("{shown}\n").into() };
    }
    // The colons of the time are not those of a password.
    let (time, rest) = line.split_at(line.find(' ').unwrap_or_default());
    format!("{time}{}", redacted(rest)).into()
}

fn redact(value: &mut Value) {
    match value {
        Value::String(text) => *text = redacted(text).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(redact),
        Value::Object(fields) => fields.values_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_secret_in_a_line_is_not_shown_and_the_rest_is() {
        for (line, shown) in [
            ("09:50:00Z  INFO serving /data/me@x\n", "09:50:00Z  INFO serving /data/me@x\n"),
            (
                "09:50:00Z  INFO renew: no file postgres://u:p w@h/d yet n=1\n",
                "09:50:00Z  INFO renew: no file postgres://***@h/d yet n=1\n",
            ),
            ("09:50:00Z  INFO no file password = p\n", "09:50:00Z  INFO no file password =***\n"),
            ("{\"time\":\"09:50\",\"at\":\"http://h:1/\"}\n", "{\"time\":\"09:50\",\"at\":\"http://h:1/\"}\n"),
            (
                "{\"time\":\"09:50\",\"message\":\"no file password='p\\\"q'\",\"spans\":[{\"name\":\"u:p@h\"}]}\n",
                "{\"message\":\"no file password=***\",\"spans\":[{\"name\":\"u:***@h\"}],\"time\":\"09:50\"}\n",
            ),
        ] {
            let mut written = Vec::new();
            Redacting(&mut written).write_all(line.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), shown);
        }
    }

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
