//! What stands between a protocol and a service: a call with one message, and a reply of one message or a stream of them. The protocols
//! are generic over the service, so that the conformance suite can put its own behind them.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue};
use tokio::sync::watch;
use tonic::Status;

use super::{in_flight::Counts, message::Message};

/// How messages are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Binary protobuf.
    Proto,
    /// Protobuf's JSON mapping.
    Json,
}

/// What a protocol has to know of a method.
#[derive(Debug, Clone, Copy)]
pub struct MethodKind {
    /// Whether a reply is a stream of messages.
    pub server_stream: bool,
    /// Whether it has no side effects, so that GET may be used.
    pub no_side_effects: bool,
}

/// A service that every protocol can serve.
pub trait Service: Clone + Send + Sync + 'static {
    /// One of its methods.
    type Method: Copy + Send + 'static;

    /// The method of a path, as `/package.Service/Method`.
    fn method(&self, path: &str) -> Option<(Self::Method, MethodKind)>;

    /// Answers a call.
    fn call(&self, method: Self::Method, call: Call<'_>) -> impl Future<Output = Result<Reply, Failure>> + Send;
}

/// A call, apart from its protocol.
#[derive(Debug)]
pub struct Call<'a> {
    /// How its message is encoded, and the reply is to be.
    pub codec: Codec,
    /// The message, not compressed.
    pub message: Bytes,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// How long the client waits. The caller of the service ends the call then.
    pub timeout: Option<Duration>,
    /// Whether the client takes a message that is compressed with gzip.
    pub gzip: bool,
    /// The query, where the message came by GET.
    pub query: Option<&'a str>,
    /// What is open over its connection.
    pub connection: &'a Arc<Counts>,
    /// Turns true when the connection is about to end: streams end then. `None` where nobody ends it.
    pub closing: Option<watch::Receiver<bool>>,
}

/// What a service answers.
#[derive(Debug, Default)]
pub struct Reply {
    /// Metadata before the messages.
    pub headers: HeaderMap,
    /// Metadata after the messages; `None` when there are none. Few have any, and a reply is moved often.
    pub trailers: Option<Box<HeaderMap>>,
    /// The messages.
    pub messages: Messages,
    /// Of a reply to GET: changes whenever the answer to the same request may.
    pub entity_tag: Option<HeaderValue>,
}

/// Messages that come one by one.
pub type MessageStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

/// The messages of a reply.
pub enum Messages {
    /// Of a unary method.
    One(Message),
    /// Of a method with a stream. An error ends it.
    Stream(MessageStream),
}

impl Default for Messages {
    fn default() -> Self {
        Self::One(Message::default())
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(message) => f.debug_tuple("One").field(message).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// Why a call fails, with metadata.
#[derive(Debug)]
pub struct Failure {
    /// Code, message and details.
    pub status: Status,
    /// Metadata before the failure.
    pub headers: HeaderMap,
    /// Metadata with the failure; `None` when there are none.
    pub trailers: Option<Box<HeaderMap>>,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { status, headers: HeaderMap::new(), trailers: None }
    }
}
