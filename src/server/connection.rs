//! One connection, from its first byte to its end. Whatever a client does or does not do, the limits here end it.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::rt::Executor;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
    time::{sleep, timeout},
};

use super::{gather::Gathered, head_clock::HeadClock};
use crate::{
    api::{calls::Calls, in_flight::StallClock},
    metrics::{Closed, Metrics},
    tls::listener::Tls,
};

/// How long the TLS handshake may take, and after it the first bytes: the preface of HTTP/2, or as many of a request.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// The length of that preface. The shortest request of HTTP/1.1 is longer.
const PREFACE: u64 = 24;
/// How long a connection over HTTP/1.1 may be idle between two requests.
const IDLE: Duration = Duration::from_secs(75);
/// A silent connection over HTTP/2 is sent a PING this often, and has this long to answer it.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Calls at a time over one connection.
const STREAMS: u32 = 100;
/// Bytes of the headers of a call; ours are some 300.
const HEADERS: u32 = 8 * 1024;
/// Bytes of the head of a request over HTTP/1.1: what hyper reads at the least.
const HTTP1_HEAD: usize = 8 * 1024;
/// Bytes that wait per call until the client takes them; the longest answer is some 80 KB.
const UNSENT: usize = 64 * 1024;
/// A call that is not over after one to two of these holds up its connection, which is closed: its client neither finishes the
/// request nor takes the answer.
const STALLED: Duration = Duration::from_secs(20);
/// How long a connection lives that arrived when all places were taken: enough for a refusal, and for a health check.
const CROWDED_AGE: Duration = Duration::from_secs(2);
/// How long the calls on a connection may take to end once it is too old.
const GRACE: Duration = Duration::from_secs(30);
/// How long the client may take for the last frames of a connection that has ended.
const LAST_FRAMES_WITHIN: Duration = Duration::from_secs(2);

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
    pub async fn serve(mut self, stream: io::Result<std::net::TcpStream>) {
        let metrics = self.metrics.clone();
        let _open = Open::new(&metrics);
        let peer = self.peer;
        // It was accepted on another thread.
        let stream = match stream.and_then(TcpStream::from_std) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%peer, "the connection cannot be used: {error}");
                return metrics.closed(Closed::Client);
            }
        };
        // Answers are written whole: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let why = match self.tls.take() {
            None => self.serve_http(stream).await,
            Some(tls) => {
                let mut stop = self.stop.clone();
                let handshake = tokio::select! {
                    handshake = timeout(FIRST_REQUEST_WITHIN, tls.acceptor().accept(stream)) => Some(handshake),
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

    /// Serves HTTP/1.1 or HTTP/2, as the client speaks, until either side ends it; gives the reason.
    async fn serve_http(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Closed {
        let io = Gathered::new(io);
        let stalls = Arc::new(StallClock::default());
        let service = self.calls.over_connection(stalls.clone(), self.place.crowded);
        let http = builder();
        let mut http = pin!(http.serve_connection(TokioIo::new(io.clone()), service));
        let mut head = HeadClock::default();
        let mut head_due = pin!(sleep(Duration::MAX));
        let mut events = self.events();
        let mut written_before = None;
        // Why we are closing it, once we are.
        let mut closing: Option<Closed> = None;
        loop {
            let next = poll_fn(|context| {
                if http.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Next::Ended);
                }
                // What was gathered goes out once nothing more can be done.
                if let Poll::Ready(Err(_)) = io.poll_drain(context) {
                    return Poll::Ready(Next::Ended);
                }
                if let Some(due) = head.due(io.received(), &stalls) {
                    if head_due.deadline() != due {
                        head_due.as_mut().reset(due);
                    }
                    if head_due.as_mut().poll(context).is_ready() {
                        return Poll::Ready(Next::HeadIsLate);
                    }
                }
                match events.poll_next_unpin(context) {
                    Poll::Ready(Some(event)) => Poll::Ready(Next::Event(event)),
                    _ => Poll::Pending,
                }
            });
            match next.await {
                Next::Ended => {
                    // The last frames, a GOAWAY say, are still here.
                    let _ = timeout(LAST_FRAMES_WITHIN, poll_fn(|context| io.poll_drain(context))).await;
                    return closing.unwrap_or(Closed::Client);
                }
                Next::HeadIsLate => return Closed::Silent,
                Next::Event(Event::FirstRequestDue) if io.received().bytes < PREFACE => return Closed::Silent,
                // hyper would wait for a preface that may never come.
                Next::Event(Event::Stop) if io.received().bytes < PREFACE => return Closed::Stopped,
                Next::Event(event @ (Event::Stop | Event::TooOld)) if closing.is_none() => {
                    closing = Some(match event {
                        Event::Stop => Closed::Stopped,
                        _ if self.place.crowded => Closed::Crowded,
                        _ => Closed::Age,
                    });
                    if closing != Some(Closed::Stopped) {
                        events.push(after(GRACE, Event::GraceOver));
                    }
                    http.as_mut().graceful_shutdown();
                }
                Next::Event(Event::GraceOver) => return Closed::Stalled,
                Next::Event(Event::Round) => {
                    let (written, waiting) = io.progress();
                    // A client that takes nothing of what waits for it, or whose calls do not end.
                    let unread = waiting && written_before.replace(written) == Some(written);
                    if unread || stalls.has_stalled() {
                        return Closed::Stalled;
                    }
                    events.push(after(STALLED, Event::Round));
                }
                Next::Event(Event::FirstRequestDue | Event::Stop | Event::TooOld) => {}
            }
        }
    }

    /// What happens to the connection from outside. Only what has happened is polled: a call costs none of it.
    fn events(&self) -> Events {
        // Connections that were opened together, after a restart say, must not all be closed together.
        let age = self.age.map(|age| age.mul_f64(0.9 + fastrand::f64() / 5.0));
        let age = if self.place.crowded { Some(CROWDED_AGE) } else { age };
        let mut stop = self.stop.clone();
        let events = Events::new();
        events.push(Box::pin(async move {
            // The sender lives as long as the server.
            let _ = stop.wait_for(|stop| *stop).await;
            Event::Stop
        }));
        events.push(after(FIRST_REQUEST_WITHIN, Event::FirstRequestDue));
        events.push(after(STALLED, Event::Round));
        if let Some(age) = age {
            events.push(after(age, Event::TooOld));
        }
        events
    }
}

/// What may happen to a connection from outside.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The server stops.
    Stop,
    /// The connection is too old.
    TooOld,
    /// The first bytes should be here.
    FirstRequestDue,
    /// It is time to see whether calls end.
    Round,
    /// A connection that was told to go should be gone.
    GraceOver,
}

type Events = FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send>>>;

/// What ends a wait.
enum Next {
    /// The connection has ended.
    Ended,
    /// The head of a request takes too long.
    HeadIsLate,
    Event(Event),
}

fn after(time: Duration, event: Event) -> Pin<Box<dyn Future<Output = Event> + Send>> {
    Box::pin(async move {
        sleep(time).await;
        event
    })
}

/// The limits of both versions of HTTP.
fn builder() -> auto::Builder<InPlace> {
    let mut http = auto::Builder::new(InPlace);
    http.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(HTTP1_HEAD);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .max_send_buf_size(UNSENT)
        .auto_date_header(false);
    http
}

/// Runs a call where it arrives: nearly all are answered without waiting. One that waits becomes a task of its own.
#[derive(Debug, Clone, Copy)]
struct InPlace;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for InPlace {
    fn execute(&self, call: F) {
        let mut call = Box::pin(call);
        // Its task polls it again, with a waker.
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(call);
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
