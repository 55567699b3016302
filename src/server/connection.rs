//! One connection, from its first byte to its end. Nothing that a client does or leaves undone keeps it open for longer than
//! the bounds here.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use crate::{
    api::{calls::Calls, in_flight::Pace},
    metrics::Metrics,
    tls::listener::Tls,
};

/// How long the TLS handshake may take, and after it the preface of HTTP/2.
const FIRST_WORDS: Duration = Duration::from_secs(5);
/// The length of that preface.
const PREFACE: usize = 24;
/// A connection without a sign of life is asked for one this often, and has this long to give it.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Calls at a time over one connection.
const STREAMS: u32 = 100;
/// Bytes of the headers of a call; ours are some 300.
const HEADERS: u32 = 8 * 1024;
/// Bytes that wait per call for a client to take them; the longest answer is some 40 KB.
const UNSENT: usize = 64 * 1024;
/// A call that is not over after one to two of these holds up its connection, which is closed: the client neither finishes its
/// request nor takes the answer.
const STALLED: Duration = Duration::from_secs(20);
/// How long a connection lives that came when all places were taken: enough to be told so, and for a health check.
const CROWDED_AGE: Duration = Duration::from_secs(2);
/// How long the calls on a connection may take to end once it is too old.
const GRACE: Duration = Duration::from_secs(30);

/// A place among the connections.
#[derive(Debug)]
pub struct Room {
    /// All places were taken: calls of the treemap are refused here.
    pub crowded: bool,
    /// Given back with the room.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// A client that has connected.
#[derive(Debug)]
pub struct Client {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Its place.
    pub room: Room,
    /// Says when the server stops.
    pub stop: watch::Receiver<bool>,
    /// Present when the connection is to be private.
    pub tls: Option<Arc<Tls>>,
    /// How long the connection lives, more or less.
    pub age: Option<Duration>,
    /// What answers.
    pub calls: Calls,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

impl Client {
    /// Serves it to its end.
    pub async fn serve(mut self, stream: TcpStream) {
        let metrics = self.metrics.clone();
        let _open = Open::new(&metrics);
        let peer = self.peer;
        // Answers are written whole: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let why = match self.tls.take() {
            None => self.speak(stream).await,
            Some(tls) => {
                let mut stop = self.stop.clone();
                let handshake = tokio::select! {
                    handshake = timeout(FIRST_WORDS, tls.acceptor().accept(stream)) => Some(handshake),
                    _ = stop.wait_for(|stop| *stop) => None,
                };
                match handshake {
                    Some(Ok(Ok(stream))) => self.speak(stream).await,
                    Some(Ok(Err(error))) => {
                        tracing::debug!(%peer, "no TLS: {error}");
                        "client"
                    }
                    Some(Err(_)) => "silent",
                    None => "stopped",
                }
            }
        };
        metrics.closed(why);
        tracing::debug!(%peer, why, "connection closed");
    }

    /// Speaks HTTP/2 until either side has enough; says why.
    async fn speak(mut self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> &'static str {
        let heard = Arc::new(AtomicBool::new(false));
        let io = Listening { io, left: PREFACE, heard: heard.clone() };
        let pace = Arc::new(Pace::default());
        let service = self.calls.over(pace.clone(), self.room.crowded);
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADERS)
            .max_send_buf_size(UNSENT)
            .auto_date_header(false);
        let mut http = pin!(http.serve_connection(TokioIo::new(io), service));

        let first_words = sleep(FIRST_WORDS);
        // Connections that came together, after a restart say, must not all go together.
        let age = self.age.map(|age| age.mul_f64(0.9 + fastrand::f64() / 5.0));
        let age = if self.room.crowded { Some(CROWDED_AGE) } else { age };
        let old = async move {
            match age {
                Some(age) => sleep(age).await,
                None => std::future::pending().await,
            }
        };
        let (mut first_words, mut old) = (pin!(first_words), pin!(old));
        let mut grace = pin!(sleep(Duration::MAX));
        let mut ticks = interval_at(Instant::now() + STALLED, STALLED);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut why = "client";
        let mut listening = true;
        loop {
            let ending = why != "client";
            tokio::select! {
                _ = &mut http => return why,
                _ = self.stop.wait_for(|stop| *stop), if !ending => {
                    if !heard.load(Ordering::Relaxed) {
                        // hyper would wait for a preface that may never come.
                        return "stopped";
                    }
                    why = "stopped";
                    http.as_mut().graceful_shutdown();
                }
                () = &mut old, if !ending => {
                    why = if self.room.crowded { "crowded" } else { "age" };
                    grace.as_mut().reset(Instant::now() + GRACE);
                    http.as_mut().graceful_shutdown();
                }
                () = &mut grace, if ending => return "stalled",
                () = &mut first_words, if listening => {
                    if !heard.load(Ordering::Relaxed) {
                        return "silent";
                    }
                    listening = false;
                }
                _ = ticks.tick() => if pace.has_stalled() {
                    return "stalled";
                },
            }
        }
    }
}

/// Counts a connection for as long as it is there, also when it is cut off in mid-air.
struct Open<'a>(&'a Metrics);

impl<'a> Open<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// A stream that tells when a preface's worth of bytes has come.
struct Listening<I> {
    io: I,
    left: usize,
    heard: Arc<AtomicBool>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Listening<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if self.left > 0 {
            self.left = self.left.saturating_sub(buffer.filled().len() - before);
            if self.left == 0 {
                self.heard.store(true, Ordering::Relaxed);
            }
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Listening<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
