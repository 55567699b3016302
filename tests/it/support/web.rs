//! Requests of the web protocols, over HTTP/1.1 or HTTP/2, with any header.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::raw::GET_TREEMAP;

/// A request.
#[derive(Debug, Clone)]
pub struct Web {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Web {
    pub fn new(method: &str, path: &str) -> Self {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Self { method, path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// A call by POST.
    pub fn post(content_type: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new("POST", GET_TREEMAP).header("content-type", content_type).body(body)
    }

    /// A Connect call in JSON.
    pub fn json(body: &str) -> Self {
        Self::post("application/json", body)
    }

    /// A Connect call by GET; with the query as it stands.
    pub fn get(query: &str) -> Self {
        Self::new("GET", &format!("{GET_TREEMAP}?{query}"))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().into();
        self
    }

    fn request(&self, addr: &str, version: Version) -> Request<Full<Bytes>> {
        let uri = if version == Version::HTTP_2 { format!("http://{addr}{}", self.path) } else { self.path.clone() };
        let mut request = Request::builder().method(self.method.clone()).uri(uri).version(version);
        if version != Version::HTTP_2 {
            request = request.header("host", addr);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body.clone().into())).unwrap()
    }

    /// Sends it over HTTP/1.1, on a connection of its own.
    pub async fn http1(&self, addr: &str) -> Answer {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Answer::of(sender.send_request(self.request(addr, Version::HTTP_11)).await.unwrap()).await
    }

    /// Sends it over HTTP/2 with prior knowledge, on a connection of its own.
    pub async fn http2(&self, addr: &str) -> Answer {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Answer::of(sender.send_request(self.request(addr, Version::HTTP_2)).await.unwrap()).await
    }
}

impl Answer {
    async fn of(response: http::Response<hyper::body::Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        Self { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers }
    }

    /// A header; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The code of a refusal by Connect.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The body, decompressed if it is compressed.
    pub fn decompressed(&self) -> Vec<u8> {
        if self.header("content-encoding") == "gzip" { gunzip(&self.body) } else { self.body.to_vec() }
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut read = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut read).unwrap();
    read
}
