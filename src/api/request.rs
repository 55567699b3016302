//! Reading a request: what its headers say of time and compression, and its body, within bounds.

use std::{
    error::Error,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::poll;
use h2::RecvStream;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tonic::Status;

use super::{
    in_flight::{Counts, Incomplete},
    message::HEAD,
    refusal::Refusal,
};

/// How long a request may take until it is complete.
pub const COMPLETE_WITHIN: Duration = Duration::from_secs(5);
/// How long a stream of requests may be silent.
const SILENT: Duration = Duration::from_secs(60);
/// Bytes of a request that is refused which are read all the same: over HTTP/1.1 a client that is still sending would see a broken
/// pipe in place of the refusal.
const DISCARD: usize = 16 * 1024 * 1024;

/// The body of a request, over either version of HTTP.
#[derive(Debug)]
pub enum RequestBody {
    /// Over HTTP/1.1.
    Http1(Incoming),
    /// Over HTTP/2.
    Http2 {
        /// What h2 has received.
        stream: RecvStream,
        /// Counts it while it is not complete.
        connection: Arc<Counts>,
        /// Present from the first wait to the last byte.
        incomplete: Option<Incomplete>,
        /// Whether it is over, as far as was seen: h2 has to look that up.
        ended: bool,
    },
    /// A stream of requests: it is never complete, and must not be silent for long.
    Stream(RecvStream, Pin<Box<Sleep>>),
}

impl RequestBody {
    /// Over HTTP/2; `connection` counts it while it is not complete.
    pub const fn http2(stream: RecvStream, connection: Arc<Counts>) -> Self {
        Self::Http2 { stream, connection, incomplete: None, ended: false }
    }

    /// The same as a stream of requests.
    pub fn of_stream(self) -> Self {
        match self {
            Self::Http2 { stream, .. } => Self::Stream(stream, Box::pin(sleep(SILENT))),
            other => other,
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Http2 { stream, connection, incomplete, ended } => {
                let polled = poll_stream(stream, context);
                *ended = matches!(polled, Poll::Ready(None | Some(Err(_)))) || stream.is_end_stream();
                if *ended {
                    *incomplete = None;
                } else if polled.is_pending() && incomplete.is_none() {
                    *incomplete = Incomplete::begin(connection);
                    if incomplete.is_none() {
                        return Poll::Ready(Some(Err(Refusal::TooManyIncomplete.status().into())));
                    }
                }
                polled
            }
            Self::Stream(stream, silent) => {
                let polled = poll_stream(stream, context);
                if polled.is_ready() {
                    silent.as_mut().reset(Instant::now() + SILENT);
                } else if silent.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Some(Err(Refusal::Incomplete.status().into())));
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2 { ended, .. } => *ended,
            Self::Stream(stream, _) => stream.is_end_stream(),
        }
    }
}

type PolledFrame = Poll<Option<Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>>>;

fn poll_stream(stream: &mut RecvStream, context: &mut Context<'_>) -> PolledFrame {
    Poll::Ready(match ready!(stream.poll_data(context)).transpose()? {
        Some(data) => {
            // Fails only for more than was received.
            let _ = stream.flow_control().release_capacity(data.len());
            Some(Ok(Frame::data(data)))
        }
        None => ready!(stream.poll_trailers(context))?.map(|trailers| Ok(Frame::trailers(trailers))),
    })
}

/// What the headers of a request say beside its protocol.
#[derive(Debug)]
pub struct Head {
    /// How long the client waits.
    pub timeout: Option<Duration>,
    /// Whether the request is compressed with gzip.
    pub gzip_in: bool,
    /// Whether the client takes gzip.
    pub gzip_out: bool,
}

impl Head {
    /// Reads the two headers for compression, of whatever protocol.
    pub fn compression(
        headers: &HeaderMap,
        encoding: &HeaderName,
        accept: &HeaderName,
    ) -> Result<(bool, bool), Status> {
        let gzip_in = match headers.get(encoding).map(HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => false,
            Some(b"gzip") => true,
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                let words = format!("unknown compression {other:?}: supported encodings are gzip");
                return Err(Status::unimplemented(words));
            }
        };
        Ok((gzip_in, accepts_gzip(headers, accept)))
    }
}

/// Whether a header, which may be there more than once, accepts gzip.
pub fn accepts_gzip(headers: &HeaderMap, accept: &HeaderName) -> bool {
    // Many send just that.
    headers.get_all(accept).into_iter().any(|value| value == "gzip" || value.to_str().is_ok_and(takes_gzip))
}

/// Whether a list of entity tags names one, by weak comparison (RFC 9110, 13.1.2).
pub fn names(list: &HeaderValue, tag: &HeaderValue) -> bool {
    fn opaque(tag: &[u8]) -> &[u8] {
        let tag = tag.trim_ascii();
        tag.strip_prefix(b"W/").unwrap_or(tag)
    }
    list == tag
        || list == "*"
        || list.as_bytes().split(|byte| *byte == b',').any(|known| opaque(known) == opaque(tag.as_bytes()))
}

/// Whether a list of encodings holds gzip, with a weight above 0 if it has one.
fn takes_gzip(list: &str) -> bool {
    list.split(',').any(|encoding| {
        let (name, weight) = encoding.split_once(';').unwrap_or((encoding, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|weight| weight > 0.0)
    })
}

/// The whole body of a request, in its envelope if it has one. Of one that is too large, the rest is left unread.
pub async fn read(body: &mut RequestBody, limit: usize) -> Result<Bytes, Refusal> {
    let mut whole = BytesMut::new();
    let mut first = Bytes::new();
    loop {
        if body.is_end_stream() {
            break;
        }
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame.map_err(|error| why_unread(&*error))?.into_data() else { continue };
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
        // Base64 needs a third more, and decompression is bounded later.
        if first.len().max(whole.len()) > (limit + HEAD) * 3 / 2 {
            return Err(Refusal::TooLarge);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

fn why_unread(error: &(dyn Error + Send + Sync + 'static)) -> Refusal {
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        _ if error.is::<Status>() => Refusal::TooManyIncomplete,
        // So hyper names what is wrong with the chunks of HTTP/1.1.
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Refusal::Malformed,
        _ => Refusal::ClientGone,
    }
}

/// Reads what is left of a request that is refused, within bounds.
pub async fn discard_in_time(body: &mut RequestBody) {
    let _ = in_time(COMPLETE_WITHIN, pin!(discard(body))).await;
}

/// What a future gives within a time limit; `None` after it. Nearly all are ready at once, and need no timer. The wait for the others is
/// boxed: a future is as large as its largest wait, and each call has the memory for it.
pub async fn in_time<F: Future>(limit: Duration, mut future: Pin<&mut F>) -> Option<F::Output> {
    if let Poll::Ready(output) = poll!(future.as_mut()) {
        return Some(output);
    }
    Box::pin(timeout(limit, future)).await.ok()
}

async fn discard(body: &mut RequestBody) {
    let mut left = DISCARD;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { break };
        left = rest;
    }
}
