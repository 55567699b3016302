//! HTTP/2 that no client library would send: frames built by hand, and single calls with any headers.

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const GET_TREEMAP: &str = "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap";

/// Kinds of frames.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const ACK: u8 = 1;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a request in the simplest form of HPACK: literals without indexing.
pub fn request_headers(more: &[(&str, &str)]) -> Vec<u8> {
    headers_of(GET_TREEMAP, more)
}

/// The same for any method.
pub fn headers_of(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in usual.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            literal(&mut block, text.as_bytes());
        }
    }
    block
}

/// The headers of a GET.
pub fn headers_of_get(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "test")] {
        block.push(0);
        literal(&mut block, name.as_bytes());
        literal(&mut block, value.as_bytes());
    }
    block
}

/// A text as HPACK has it, not compressed.
pub fn literal(block: &mut Vec<u8>, text: &[u8]) {
    // A length with a seven-bit prefix.
    if text.len() < 127 {
        block.push(u8::try_from(text.len()).unwrap());
    } else {
        block.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap());
    }
    block.extend_from_slice(text);
}

/// A gRPC message: the flag for no compression, the length, the bytes.
pub fn message(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes].concat()
}

/// A TCP connection that sends exactly the given bytes.
pub struct Raw {
    stream: TcpStream,
    read: BytesMut,
}

/// A received frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Bytes,
}

impl Raw {
    /// Connects and sends nothing.
    pub async fn connect(addr: &str) -> Self {
        Self { stream: TcpStream::connect(addr).await.unwrap(), read: BytesMut::new() }
    }

    /// Connects and sends the preface with these settings.
    pub async fn handshake(addr: &str, settings: &[u8]) -> Self {
        Self::over(TcpStream::connect(addr).await.unwrap(), settings).await
    }

    /// The same over a connection.
    pub async fn over(stream: TcpStream, settings: &[u8]) -> Self {
        let mut raw = Self { stream, read: BytesMut::new() };
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await;
        raw
    }

    /// Sends bytes. `false` if the server does not take them within two seconds, or has closed the connection.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(tokio::time::timeout(Duration::from_secs(2), self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Sends a whole call on a stream.
    pub async fn call(&mut self, stream: u32, request: &impl Message) -> bool {
        let headers = frame(HEADERS, END_HEADERS, stream, &request_headers(&[]));
        let data = frame(DATA, END_STREAM, stream, &message(request));
        self.send(&[headers, data].concat()).await
    }

    /// The next frame; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if self.read.len() >= 9 {
                let length =
                    usize::from(self.read[0]) << 16 | usize::from(self.read[1]) << 8 | usize::from(self.read[2]);
                if self.read.len() >= 9 + length {
                    let head = self.read.split_to(9);
                    let payload = self.read.split_to(length).freeze();
                    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
                    return Some(Frame { kind: head[3], flags: head[4], stream, payload });
                }
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Reads until a frame of a kind arrives, and answers no frame; `None` when the connection has ended.
    pub async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind && (kind != SETTINGS || frame.flags & ACK == 0) {
                return Some(frame);
            }
        }
    }

    /// Reads until the connection ends; returns the error codes of all GOAWAY frames.
    pub async fn read_to_end(&mut self) -> Vec<u32> {
        let mut codes = Vec::new();
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                codes.push(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
            }
        }
        codes
    }
}

/// Makes one call with any headers over a new connection; returns the code and the message of its gRPC status.
pub async fn status(addr: &str, headers: &[(&str, &str)], message: Vec<u8>) -> (u32, String) {
    let response = call(addr, headers, message).await;
    let first = response.headers().clone();
    let body = response.into_body().collect().await.unwrap();
    let last = body.trailers().unwrap_or(&first);
    let text = |name| last.get(name).map(|value| value.to_str().unwrap().to_owned());
    (text("grpc-status").unwrap().parse().unwrap(), text("grpc-message").unwrap_or_default())
}

/// Makes the same call; returns the HTTP response.
pub async fn call(addr: &str, headers: &[(&str, &str)], message: Vec<u8>) -> http::Response<hyper::body::Incoming> {
    let addr: SocketAddr = addr.parse().unwrap();
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{addr}{GET_TREEMAP}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.send_request(request.body(Full::new(Bytes::from(message))).unwrap()).await.unwrap()
}
