//! The body of a response, in whatever protocol, with the call that it ends.

use std::{
    cell::RefCell,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use bytes::{Buf, Bytes};
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use tonic::{Code, Status};

use super::{
    call::{Call, code_of},
    in_flight::{Counts, InFlight, Unsent},
    service::MessageStream,
};

/// A body.
#[derive(Debug)]
pub struct Body {
    frames: Frames,
    /// The call that is over with it, and its code then.
    call: Option<(Call, Code)>,
    untaken: Untaken,
}

/// How bytes are counted that the client has not taken yet.
#[derive(Debug)]
enum Untaken {
    Not,
    /// They have the place of their call.
    InFlight(#[expect(dead_code, reason = "held to be counted")] InFlight),
    /// Those of each frame, over this connection.
    Each(Arc<Counts>),
    Unsent(#[expect(dead_code, reason = "held to be counted")] Unsent),
}

enum Frames {
    /// Bytes that exist already, then trailers.
    Whole { bytes: Bytes, trailers: Option<Arc<HeaderMap>> },
    /// Frames that come one by one.
    Stream(BoxStream<'static, Sent>),
    /// A body of tonic's.
    Tonic(tonic::body::Body),
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole { .. } => "Whole",
            Self::Stream(_) => "Stream",
            Self::Tonic(_) => "Tonic",
        })
    }
}

/// A frame of a stream; with the last one, the code that the call ends with. gRPC has it in the trailers, the others in the bytes.
pub type Sent = (Frame<Bytes>, Option<Code>);

/// A response with status 200.
pub fn response(headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

/// A response of a sentence or two, for people. It is not to be kept.
pub fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::whole(text.to_owned().into()));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(header::DATE, date());
    response
}

/// Says how long the body is, if it has one and that is known.
pub fn say_length(response: &mut Response<Body>) {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

/// Leaves out the body, as HEAD has it, and says how long it would be.
pub fn leave_out_body(response: &mut Response<Body>) {
    say_length(response);
    let body = response.body_mut();
    body.frames = Body::empty().frames;
    body.call_ended(None);
}

/// Now, as HTTP has it: made once a second and thread.
pub fn date() -> HeaderValue {
    thread_local! {
        static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, date)| {
        if *last != second
            && let Ok(new) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            (*last, *date) = (second, new);
        }
        date.clone()
    })
}

/// The messages of a stream as frames, then what `end` makes of how it ended: `None` when it went well.
pub fn frames(
    messages: MessageStream,
    gzip: bool,
    end: impl FnOnce(Option<Status>) -> Frame<Bytes> + Send + 'static,
) -> impl Stream<Item = Sent> + Send + 'static {
    stream::unfold(Some((messages, end)), move |state| async move {
        let (mut messages, end) = state?;
        match messages.next().await {
            Some(Ok(message)) => {
                let message = if gzip { message.gzip() } else { message };
                Some(((Frame::data(message.envelope()), None), Some((messages, end))))
            }
            ended => {
                let status = ended.and_then(Result::err);
                let code = status.as_ref().map_or(Code::Ok, Status::code);
                Some(((end(status), Some(code)), None))
            }
        }
    })
}

/// Bytes of an answer, counted until the client has made room for them.
#[derive(Debug)]
pub struct AnswerBytes {
    bytes: Bytes,
    _untaken: Untaken,
}

impl Default for AnswerBytes {
    fn default() -> Self {
        Self { bytes: Bytes::new(), _untaken: Untaken::Not }
    }
}

impl Buf for AnswerBytes {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Body {
    const fn of(frames: Frames) -> Self {
        Self { frames, call: None, untaken: Untaken::Not }
    }

    /// Nothing.
    pub const fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// Bytes that exist already.
    pub const fn whole(bytes: Bytes) -> Self {
        Self::of(Frames::Whole { bytes, trailers: None })
    }

    /// Bytes that exist already, and trailers.
    pub const fn with_trailers(bytes: Bytes, trailers: Arc<HeaderMap>) -> Self {
        Self::of(Frames::Whole { bytes, trailers: Some(trailers) })
    }

    /// Frames that come one by one.
    pub fn stream(frames: impl Stream<Item = Sent> + Send + 'static) -> Self {
        Self::of(Frames::Stream(frames.boxed()))
    }

    /// A body of tonic's.
    pub const fn tonic(body: tonic::body::Body) -> Self {
        Self::of(Frames::Tonic(body))
    }

    /// `call` is over with its last frame, and has `code` then, unless that frame has another.
    pub fn ends(&mut self, call: Call, code: Code) {
        self.call = Some((call, code));
        if self.is_end_stream() {
            self.call_ended(None);
        }
    }

    /// Its bytes have a place among the calls until the client has taken them.
    pub fn in_flight(&mut self, place: InFlight) {
        self.untaken = Untaken::InFlight(place);
    }

    /// It is sent over a connection, which has stalled when the client does not take the bytes of a frame.
    pub fn sent_over(&mut self, connection: &Arc<Counts>) {
        if !matches!(self.untaken, Untaken::InFlight(_)) {
            self.untaken = Untaken::Each(connection.clone());
        }
    }

    /// All of it and its trailers, if they exist already: the bytes are shared, and to hand them on costs no memory.
    pub fn take_whole(&mut self) -> Option<(AnswerBytes, Option<HeaderMap>)> {
        let Frames::Whole { bytes, trailers } = &mut self.frames else { return None };
        let (bytes, trailers) = (std::mem::take(bytes), trailers.take());
        self.call_ended(None);
        Some((self.bytes(bytes), trailers.map(Arc::unwrap_or_clone)))
    }

    fn call_ended(&mut self, last: Option<Code>) {
        if let Some((call, code)) = self.call.take() {
            call.ended(last.unwrap_or(code));
        }
    }

    fn bytes(&mut self, bytes: Bytes) -> AnswerBytes {
        let untaken = match &self.untaken {
            Untaken::Each(connection) => Untaken::Unsent(Unsent::begin(connection)),
            _ => std::mem::replace(&mut self.untaken, Untaken::Not),
        };
        AnswerBytes { bytes, _untaken: untaken }
    }
}

impl http_body::Body for Body {
    type Data = AnswerBytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut self.frames {
            Frames::Whole { bytes, trailers } => {
                let frame = if bytes.is_empty() {
                    trailers.take().map(|trailers| Frame::trailers(Arc::unwrap_or_clone(trailers)))
                } else {
                    let bytes = std::mem::take(bytes);
                    Some(Frame::data(self.bytes(bytes)))
                };
                if self.is_end_stream() {
                    self.call_ended(None);
                }
                Poll::Ready(frame.map(Ok))
            }
            Frames::Stream(frames) => {
                let sent = ready!(frames.poll_next_unpin(context));
                Poll::Ready(sent.map(|(frame, code)| {
                    if code.is_some() {
                        self.call_ended(code);
                    }
                    Ok(frame.map_data(|bytes| self.bytes(bytes)))
                }))
            }
            Frames::Tonic(body) => {
                let polled = Pin::new(body).poll_frame(context);
                match &polled {
                    Poll::Ready(None) => self.call_ended(None),
                    Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                        self.call_ended(frame.trailers_ref().and_then(code_of));
                    }
                    _ => {}
                }
                polled.map_ok(|frame| frame.map_data(|bytes| self.bytes(bytes)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.frames {
            Frames::Whole { bytes, trailers } => bytes.is_empty() && trailers.is_none(),
            // Known only with the last frame.
            Frames::Stream(_) => false,
            Frames::Tonic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.frames {
            Frames::Whole { bytes, trailers: None } => SizeHint::with_exact(bytes.len() as u64),
            // A length before trailers is allowed, and wanted by nobody.
            Frames::Whole { .. } | Frames::Stream(_) => SizeHint::default(),
            Frames::Tonic(body) => body.size_hint(),
        }
    }
}
