//! One connection, from its first byte to its end. Whatever a client does or does not do, the limits here end it.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::StreamExt;
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::{
    OfClient,
    events::{Event, Events, Keepalive, after},
    gather::Gathered,
    head_clock::HeadClock,
    http1,
    http2::Http2,
};
use crate::{
    api::{body::Body, calls::Calls, in_flight::Counts, request::RequestBody},
    metrics::{Closed, Metrics},
    tls::listener::Tls,
};

/// How long the TLS handshake may take, and after it the first bytes: the preface of HTTP/2, or as many of a request.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// A call that is not over after one to two of these holds up its connection, which is closed: its client neither finishes the
/// request nor takes the answer.
const STALLED: Duration = Duration::from_secs(20);
/// How long a connection lives that arrived when all places were taken: enough for a refusal, and for a health check.
const CROWDED_AGE: Duration = Duration::from_secs(2);
/// How long the calls on a connection may take to end once it is too old. Over HTTP/1.1 it waits as long before that, for a last call.
const GRACE: Duration = Duration::from_secs(30);
/// How long the client may take for the last frames of a connection that has ended.
const LAST_FRAMES_WITHIN: Duration = Duration::from_secs(2);

/// With TLS or without. One type for both, so that the code of HTTP/2 exists once: what is called from one place is inlined (measured: 7 %
/// more calls).
type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What a version of HTTP does with a connection.
pub trait Http {
    /// Reads, answers and writes, until the connection is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Takes no more calls, and ends with the last of those that it has.
    fn graceful_shutdown(&mut self);

    /// Asks the client for a sign of life, where the protocol can.
    fn ping(&mut self);
}

/// Serves a connection without the limits of [`Client::serve`]: for the conformance suite, which checks the protocols.
pub async fn serve_http<A, F>(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, answer: A)
where
    A: Fn(Request<RequestBody>) -> F + Unpin,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let io = Gathered::new(io);
    match io.is_http2().await {
        Ok(true) => {
            if let Ok(http) = Http2::new(io.clone(), Arc::default(), answer).await {
                serve_to_end(http, io).await;
            }
        }
        Ok(false) => serve_to_end(http1::serve(io.clone(), answer), io).await,
        Err(_) => {}
    }
}

async fn serve_to_end(mut http: impl Http, io: Gathered<impl AsyncRead + AsyncWrite + Unpin>) {
    poll_fn(|context| {
        let polled = http.poll(context);
        // A drain that has to wait leaves its waker, and is tried again with the next poll.
        let _ = io.poll_drain(context);
        polled
    })
    .await;
    let _ = timeout(LAST_FRAMES_WITHIN, poll_fn(|context| io.poll_drain(context))).await;
}

/// A place among the connections.
#[derive(Debug)]
pub struct Place {
    /// All places were taken: calls of the treemap are refused here.
    pub crowded: bool,
    /// Released with the place.
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) of_client: OfClient,
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
        let stream = match self.tls.take() {
            None => Ok(Either::Left(stream)),
            // Boxed, like HTTP/1.1 below: the memory of a connection would be that of the largest kind.
            Some(tls) => Box::pin(self.handshake(tls, stream)).await.map(|stream| Either::Right(Box::new(stream))),
        };
        let why = match stream {
            Ok(stream) => self.serve_http(stream).await,
            Err(why) => why,
        };
        metrics.closed(why);
        tracing::debug!(%peer, why = why.name(), "connection closed");
    }

    async fn handshake(&self, tls: Arc<Tls>, stream: TcpStream) -> Result<TlsStream<TcpStream>, Closed> {
        let mut stop = self.stop.clone();
        let handshake = tokio::select! {
            handshake = timeout(FIRST_REQUEST_WITHIN, tls.acceptor().accept(stream)) => Some(handshake),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        match handshake {
            Some(Ok(Ok(stream))) => Ok(stream),
            Some(Ok(Err(error))) => {
                tracing::debug!(peer = %self.peer, "TLS handshake failed: {error}");
                Err(Closed::Client)
            }
            Some(Err(_)) => Err(Closed::Silent),
            None => Err(Closed::Stopped),
        }
    }

    /// Serves HTTP/1.1 or HTTP/2, as the client speaks, until either side ends it; gives the reason.
    async fn serve_http(self, io: Socket) -> Closed {
        let io = Gathered::new(io);
        let mut stop = self.stop.clone();
        let http2 = tokio::select! {
            http2 = timeout(FIRST_REQUEST_WITHIN, io.is_http2()) => http2,
            _ = stop.wait_for(|stop| *stop) => return Closed::Stopped,
        };
        let calls = self.calls.over_connection(self.place.of_client.open.clone(), self.place.crowded);
        let counts = calls.connection().clone();
        match http2 {
            Err(_) => Closed::Silent,
            Ok(Err(_)) => Closed::Client,
            Ok(Ok(false)) => {
                let mut http = Box::new(http1::serve(io.clone(), move |request| calls.answer(request)));
                self.serve_calls(&mut *http, &io, &counts).await
            }
            Ok(Ok(true)) => match Http2::new(io.clone(), counts.clone(), move |request| calls.answer(request)).await {
                Ok(mut http) => self.serve_calls(&mut http, &io, &counts).await,
                Err(_) => Closed::Client,
            },
        }
    }

    /// Serves the calls of a connection.
    async fn serve_calls(&self, http: &mut impl Http, io: &Gathered<Socket>, counts: &Counts) -> Closed {
        let mut head = HeadClock::default();
        let mut head_due = pin!(sleep(Duration::MAX));
        let mut events = self.events();
        // HTTP/1.1 has no such question; a limit on its pauses does the same.
        if io.received().http2 {
            events.push(after(Keepalive::BEGIN, Event::Keepalive));
        }
        let mut written_before = None;
        let mut keepalive = Keepalive::default();
        // Why we are closing it, once we are.
        let mut closing: Option<Closed> = None;
        loop {
            let next = poll_fn(|context| {
                if http.poll(context).is_ready() {
                    return Poll::Ready(Next::Ended);
                }
                // What was gathered goes out once nothing more can be done.
                if let Poll::Ready(Err(_)) = io.poll_drain(context) {
                    return Poll::Ready(Next::Ended);
                }
                if let Some(due) = head.due(io.received(), counts) {
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
                    return closing.unwrap_or(if counts.is_closing() { Closed::Age } else { Closed::Client });
                }
                Next::HeadIsLate => return Closed::Silent,
                // HTTP/1.1 says so with its next answer. To close it while it is idle might cross a request.
                Next::Event(Event::TooOld) if !io.received().http2 && !self.place.crowded && !counts.is_closing() => {
                    counts.close();
                    events.push(after(GRACE, Event::TooOld));
                }
                Next::Event(event @ (Event::Stop | Event::TooOld)) if closing.is_none() => {
                    closing = Some(match event {
                        Event::Stop => Closed::Stopped,
                        _ if self.place.crowded => Closed::Crowded,
                        _ => Closed::Age,
                    });
                    if closing != Some(Closed::Stopped) {
                        events.push(after(GRACE, Event::GraceOver));
                    }
                    http.graceful_shutdown();
                    counts.close();
                }
                Next::Event(Event::GraceOver) => return Closed::Stalled,
                Next::Event(Event::Round) => {
                    let (written, waiting) = io.progress();
                    // A client that takes nothing of what waits for it, or whose calls do not end.
                    let unread = waiting && written_before.replace(written) == Some(written);
                    if unread || counts.has_stalled() {
                        return Closed::Stalled;
                    }
                    events.push(after(STALLED, Event::Round));
                }
                Next::Event(Event::Keepalive) => match keepalive.next(io.received().bytes) {
                    Some(wait) => {
                        if keepalive.asked {
                            http.ping();
                        }
                        events.push(after(wait, Event::Keepalive));
                    }
                    None => return Closed::Silent,
                },
                Next::Event(Event::Stop | Event::TooOld) => {}
            }
        }
    }

    /// What happens to the connection from outside.
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
        events.push(after(STALLED, Event::Round));
        if let Some(age) = age {
            events.push(after(age, Event::TooOld));
        }
        events
    }
}

/// What ends a wait.
enum Next {
    /// The connection has ended.
    Ended,
    /// The head of a request takes too long.
    HeadIsLate,
    Event(Event),
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
