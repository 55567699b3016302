//! Cross-origin requests of browsers: which origins may call, and what they may send and read. By connectrpc.com/docs/cors.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::body::Body;
use crate::config::Origins;

/// Chrome keeps a preflight no longer than this, in seconds.
const MAX_AGE: &str = "7200";
const METHODS: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];
const ALLOWED_METHODS: &str = "GET, POST";
const ALLOWED_HEADERS: &str = "Authorization, Connect-Protocol-Version, Connect-Timeout-Ms, Content-Type, Grpc-Timeout, \
    If-None-Match, X-Grpc-Web, X-User-Agent";
const EXPOSED: &str = "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, ETag, treemap-period, treemap-version, \
    treemap-data-date, treemap-last-refreshed, treemap-stale";

/// The answer to a preflight; `None` when the request is none.
pub fn preflight<B>(origins: &Origins, request: &Request<B>) -> Option<Response<Body>> {
    if request.method() != Method::OPTIONS {
        return None;
    }
    let given = request.headers();
    let origin = given.get(header::ORIGIN)?;
    let method = given.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    headers.insert(header::VARY, HeaderValue::from_static(vary));
    let asked = given.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let asked = asked.map(|asked| asked.to_str().unwrap_or("?")).unwrap_or_default();
    let mut asked = asked.split(',').map(str::trim).filter(|name| !name.is_empty());
    let allowed = |name: &str| ALLOWED_HEADERS.split(", ").any(|allowed| allowed.eq_ignore_ascii_case(name));
    if origins.allow(origin) && METHODS.iter().any(|allowed| method == allowed.as_str()) && asked.all(allowed) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    Some(response)
}

/// Lets the script of an allowed origin read a response.
pub fn expose(origins: &Origins, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    if !headers.contains_key(header::VARY) {
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(origin) = origin.filter(|origin| origins.allow(origin)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}
