//! One connection, from its first byte to its end. Whatever a client does or does not do, the limits here end it.

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
    api::{calls::Calls, in_flight::StallClock},
    metrics::{Closed, Metrics},
    tls::listener::Tls,
};

/// How long the TLS handshake may take, and after it the preface of HTTP/2.
const PREFACE_WITHIN: Duration = Duration::from_secs(5);
/// The length of that preface.
const PREFACE: usize = 24;
/// A silent connection is sent a PING this often, and has this long to answer it.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Calls at a time over one connection.
const STREAMS: u32 = 100;
/// Bytes of the headers of a call; ours are some 300.
const HEADERS: u32 = 8 * 1024;
/// Bytes that wait per call until the client takes them; the longest answer is some 40 KB.
const UNSENT: usize = 64 * 1024;
/// A call that is not over after one to two of these holds up its connection, which is closed: its client neither finishes the
/// request nor takes the answer.
const STALLED: Duration = Duration::from_secs(20);
/// How long a connection lives that arrived when all places were taken: enough for a refusal, and for a health check.
const CROWDED_AGE: Duration = Duration::from_secs(2);
/// How long the calls on a connection may take to end once it is too old.
const GRACE: Duration = Duration::from_secs(30);

/// A place among the connections.
#[derive(Debug)]
pub struct Place {
    /// All places were taken: calls of the treemap are refused here.
    pub crowded: bool,
    /// Released with the place.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// A client that has connected.
#[derive(Debug)]
pub struct Client {
    pub peer: SocketAddr,
    pub place: Place,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
    /// Present when the connection is to be encrypted.
    pub tls: Option<Arc<Tls>>,
    /// How long the connection lives, give or take a tenth.
    pub age: Option<Duration>,
    pub calls: Calls,
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
            None => self.serve_http(stream).await,
            Some(tls) => {
                let mut stop = self.stop.clone();
                let handshake = tokio::select! {
                    handshake = timeout(PREFACE_WITHIN, tls.acceptor().accept(stream)) => Some(handshake),
                    _ = stop.wait_for(|stop| *stop) => None,
                };
                match handshake {
                    Some(Ok(Ok(stream))) => self.serve_http(stream).await,
                    Some(Ok(Err(error))) => {
                        tracing::debug!(%peer, "TLS handshake failed: {error}");
                        Closed::Client
                    }
                    Some(Err(_)) => Closed::Silent,
                    None => Closed::Stopped,
                }
            }
        };
        metrics.closed(why);
        tracing::debug!(%peer, why = why.name(), "connection closed");
    }

    /// Serves HTTP/2 until either side ends it; gives the reason.
    async fn serve_http(mut self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Closed {
        let preface_read = Arc::new(AtomicBool::new(false));
        let io = PrefaceWatch { io, left: PREFACE, read: preface_read.clone() };
        let stalls = Arc::new(StallClock::default());
        let service = self.calls.over_connection(stalls.clone(), self.place.crowded);
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADERS)
            .max_send_buf_size(UNSENT)
            .auto_date_header(false);
        let mut http = pin!(http.serve_connection(TokioIo::new(io), service));

        let preface_due = sleep(PREFACE_WITHIN);
        // Connections that were opened together, after a restart say, must not all be closed together.
        let age = self.age.map(|age| age.mul_f64(0.9 + fastrand::f64() / 5.0));
        let age = if self.place.crowded { Some(CROWDED_AGE) } else { age };
        let too_old = async move {
            match age {
                Some(age) => sleep(age).await,
                None => std::future::pending().await,
            }
        };
        let (mut preface_due, mut too_old) = (pin!(preface_due), pin!(too_old));
        let mut grace = pin!(sleep(Duration::MAX));
        let mut rounds = interval_at(Instant::now() + STALLED, STALLED);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Why we are closing it, once we are.
        let mut closing: Option<Closed> = None;
        let mut preface_pending = true;
        loop {
            tokio::select! {
                _ = &mut http => return closing.unwrap_or(Closed::Client),
                _ = self.stop.wait_for(|stop| *stop), if closing.is_none() => {
                    if !preface_read.load(Ordering::Relaxed) {
                        // hyper would wait for a preface that may never come.
                        return Closed::Stopped;
                    }
                    closing = Some(Closed::Stopped);
                    http.as_mut().graceful_shutdown();
                }
                () = &mut too_old, if closing.is_none() => {
                    closing = Some(if self.place.crowded { Closed::Crowded } else { Closed::Age });
                    grace.as_mut().reset(Instant::now() + GRACE);
                    http.as_mut().graceful_shutdown();
                }
                () = &mut grace, if closing.is_some() => return Closed::Stalled,
                () = &mut preface_due, if preface_pending => {
                    if !preface_read.load(Ordering::Relaxed) {
                        return Closed::Silent;
                    }
                    preface_pending = false;
                }
                _ = rounds.tick() => if stalls.has_stalled() {
                    return Closed::Stalled;
                },
            }
        }
    }
}

/// Counts a connection for as long as it is open, also when its task is aborted.
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

/// A stream that notes when as many bytes were read as the preface has.
struct PrefaceWatch<I> {
    io: I,
    left: usize,
    read: Arc<AtomicBool>,
}

impl<I: AsyncRead + Unpin> AsyncRead for PrefaceWatch<I> {
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
                self.read.store(true, Ordering::Relaxed);
            }
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for PrefaceWatch<I> {
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
