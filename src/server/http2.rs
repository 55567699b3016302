//! HTTP/2 over one connection, by the `h2` crate itself. hyper's layer over it would cost a tenth more CPU per call (measured).

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Buf as _;
use futures_util::{StreamExt, future::OptionFuture, stream::FuturesUnordered};
use h2::{
    Ping, PingPong, Reason, SendStream,
    server::{Builder, Connection, SendResponse},
};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Http;
use crate::api::{
    body::{AnswerBytes, Body, say_length},
    in_flight::Counts,
    request::RequestBody,
};

/// Calls at a time over one connection.
const STREAMS: u32 = 100;
/// Bytes of the headers of a call; ours are some 300.
const HEADERS: u32 = 8 * 1024;
/// Bytes that a client may send before we have read them: of one call, whose request has 4 KiB, and of all over one connection.
const WINDOWS: (u32, u32) = (16 * 1024, 64 * 1024);
/// Bytes of a stream of messages that wait for its client.
const UNSENT: usize = 64 * 1024;

/// A connection, and what answers its calls.
pub struct Http2<I, A, F> {
    connection: Connection<I, AnswerBytes>,
    ping: Option<PingPong>,
    answer: A,
    /// Where one call after another is answered: 1.7 KB. Kept, since the allocator takes long for so much (measured: 2 % more calls).
    memory: Option<Pin<Box<OptionFuture<F>>>>,
    /// Calls that could not be answered at once.
    waiting: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>>,
    counts: Arc<Counts>,
}

impl<I: AsyncRead + AsyncWrite + Unpin, A, F> Http2<I, A, F> {
    /// Begins, with a client that has sent its preface.
    pub async fn new(io: I, counts: Arc<Counts>, answer: A) -> Result<Self, h2::Error> {
        let mut builder = Builder::new();
        builder
            .initial_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADERS)
            .max_send_buffer_size(UNSENT);
        let mut connection = builder.handshake(io).await?;
        let ping = connection.ping_pong();
        Ok(Self { connection, ping, answer, memory: None, waiting: FuturesUnordered::new(), counts })
    }
}

impl<I, A, F> Http for Http2<I, A, F>
where
    I: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<RequestBody>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let request = request.map(|body| RequestBody::http2(body, self.counts.clone()));
                    let mut answer = self.memory.take().unwrap_or_else(|| Box::pin(OptionFuture::from(None)));
                    answer.set(Some((self.answer)(request)).into());
                    // Nearly all are answered without waiting. One that waits is polled again below, with a waker.
                    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(response) => {
                            if let Some((body, stream)) = response.and_then(|response| begin(response, respond)) {
                                self.waiting.push(Box::pin(send(body, stream)));
                            }
                            answer.set(None.into());
                            self.memory = Some(answer);
                        }
                        Poll::Pending => self.waiting.push(Box::pin(respond_to(answer, respond))),
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let mut ended = false;
                    while let Poll::Ready(Some(())) = self.waiting.poll_next_unpin(context) {
                        ended = true;
                    }
                    // The frames of those that have ended are to be written.
                    if !ended {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn graceful_shutdown(&mut self) {
        self.connection.graceful_shutdown();
    }

    fn ping(&mut self) {
        if let Some(ping) = &mut self.ping {
            // The answer to the last one was seen among the bytes that were received.
            let _ = ping.poll_pong(&mut Context::from_waker(Waker::noop()));
            let _ = ping.send_ping(Ping::opaque());
        }
    }
}

/// Sends what `answer` comes to. Ends when the client goes away.
async fn respond_to(
    mut answer: impl Future<Output = Option<Response<Body>>> + Unpin,
    mut respond: SendResponse<AnswerBytes>,
) {
    let response = poll_fn(|context| match Pin::new(&mut answer).poll(context) {
        Poll::Ready(response) => Poll::Ready(response),
        Poll::Pending => respond.poll_reset(context).map(|_| None),
    });
    let Some(response) = response.await else { return };
    if let Some((body, stream)) = begin(response, respond) {
        send(body, stream).await;
    }
}

/// Sends a response, as far as that needs no waiting: all of it, unless its body is a stream.
fn begin(
    mut response: Response<Body>,
    mut respond: SendResponse<AnswerBytes>,
) -> Option<(Body, SendStream<AnswerBytes>)> {
    say_length(&mut response);
    let (head, mut body) = response.into_parts();
    let is_end = body.is_end_stream();
    // Fails only when the client has gone away.
    let mut stream = respond.send_response(Response::from_parts(head, ()), is_end).ok()?;
    if is_end {
        return None;
    }
    let Some((bytes, trailers)) = body.take_whole() else { return Some((body, stream)) };
    // These bytes are shared and need no room here: HTTP/2 keeps them until the client has room.
    if bytes.has_remaining() {
        stream.send_data(bytes, trailers.is_none()).ok()?;
    }
    if let Some(trailers) = trailers {
        stream.send_trailers(trailers).ok()?;
    }
    None
}

/// Sends a stream of messages, each when the client has room for it. Ends when the client goes away.
async fn send(mut body: Body, mut stream: SendStream<AnswerBytes>) {
    loop {
        stream.reserve_capacity(1);
        let room = poll_fn(|context| match stream.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending if stream.capacity() > 0 => Poll::Ready(Some(Ok(0))),
            Poll::Pending => stream.poll_capacity(context),
        });
        let Some(Ok(_)) = room.await else { return };
        let frame = poll_fn(|context| match Pin::new(&mut body).poll_frame(context) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => stream.poll_reset(context).map(|_| None),
        });
        let Some(frame) = frame.await else { return };
        let last = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                let is_last = body.is_end_stream();
                match stream.send_data(data, is_last) {
                    Ok(()) if !is_last => continue,
                    sent => sent,
                }
            }
            Some(Ok(Err(frame))) => stream.send_trailers(frame.into_trailers().unwrap_or_default()),
            Some(Err(_)) => return stream.send_reset(Reason::INTERNAL_ERROR),
            None => stream.send_data(AnswerBytes::default(), true),
        };
        // Fails only when the client has gone away.
        return drop(last);
    }
}
