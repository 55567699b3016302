//! HTTP/1.1 over one connection, by hyper.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    server::conn::http1::{Builder, Connection},
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Http;
use crate::api::{body::Body, request::RequestBody};

/// How long a connection may be idle between two requests.
const IDLE: Duration = Duration::from_secs(75);
/// Bytes of the head of a request: what hyper reads at the least.
const HEAD: usize = 8 * 1024;

/// Begins; `answer` answers calls.
pub fn serve<A, F>(io: impl AsyncRead + AsyncWrite + Unpin + 'static, answer: A) -> impl Http
where
    A: Fn(Request<RequestBody>) -> F + Unpin,
    F: Future<Output = Response<Body>>,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.map(RequestBody::Http1));
        async { Ok::<_, Infallible>(answer.await) }
    });
    Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(io), answer)
}

impl<I, S> Http for Connection<I, S>
where
    I: Read + Write + Unpin,
    S: HttpService<Incoming, ResBody = Body> + Unpin,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // hyper answers what it cannot read; of the rest we could say nothing.
        Future::poll(Pin::new(self), context).map(drop)
    }

    fn graceful_shutdown(&mut self) {
        Pin::new(self).graceful_shutdown();
    }

    fn ping(&mut self) {}
}
