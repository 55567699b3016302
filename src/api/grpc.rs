//! gRPC and gRPC-Web: what their headers say, and how a reply is framed.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::Frame;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tonic::Status;

use super::{
    body::{Body, frames, response},
    in_flight::Counts,
    message::{envelope, only_message},
    protocol::Asked,
    refusal::Refusal,
    request::Head,
    service::{Failure, Messages, Reply},
};

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
static GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static GZIP: HeaderValue = HeaderValue::from_static("gzip");
static ALL_WENT_WELL: LazyLock<Arc<HeaderMap>> =
    LazyLock::new(|| Arc::new(HeaderMap::from_iter([(GRPC_STATUS.clone(), OK.clone())])));
static OK: HeaderValue = HeaderValue::from_static("0");
/// The flag of the envelope that holds the trailers of gRPC-Web.
const TRAILERS: u8 = 0x80;

/// Reads what the headers of a request say.
pub fn head(headers: &HeaderMap) -> Result<Head, Status> {
    let timeout = headers.get(&GRPC_TIMEOUT).filter(|value| !value.is_empty()).map(timeout).transpose()?;
    let (gzip_in, gzip_out) = Head::compression(headers, &GRPC_ENCODING, &GRPC_ACCEPT_ENCODING)?;
    Ok(Head { timeout, gzip_in, gzip_out: gzip_out || gzip_in })
}

/// A `grpc-timeout`: up to eight digits and a unit.
fn timeout(value: &HeaderValue) -> Result<Duration, Status> {
    let invalid = || Status::invalid_argument(format!("protocol error: invalid timeout {value:?}"));
    let text = value.to_str().map_err(|_| invalid())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(invalid)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(invalid());
    }
    let count: u32 = digits.parse().map_err(|_| invalid())?;
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return Err(invalid()),
    };
    Ok(unit.saturating_mul(count))
}

/// The message of a request in base64, which may be several pieces with their own padding.
pub fn message_of_text(body: &[u8], gzip: bool, limit: usize) -> Result<Bytes, Status> {
    let mut message = Vec::with_capacity(body.len());
    // Padding ends a group of four, and stands nowhere else.
    for group in body.chunks(4) {
        let group = BASE64.decode(group);
        message.extend(group.map_err(|_| Status::invalid_argument("protocol error: the body is not base64"))?);
    }
    only_message(&message.into(), gzip, limit)
}

/// What `grpc-message` cannot hold as it is.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Writes a status as headers or trailers.
fn add_status(status: &Status, headers: &mut HeaderMap) {
    // What cannot be a header, in details or metadata, is left out with the rest.
    if status.add_header(headers).is_err() {
        headers.insert(&GRPC_STATUS, HeaderValue::from_static("13"));
    }
    // tonic encodes blanks too, which the protocol does not ask for and the published server does not do.
    let message = utf8_percent_encode(status.message(), ENCODED).to_string();
    if let (false, Ok(message)) = (message.is_empty(), HeaderValue::try_from(message)) {
        headers.insert(&GRPC_MESSAGE, message);
    }
}

/// The reply of a gRPC call.
pub fn render(asked: &Asked, result: Result<Reply, Failure>) -> Response<Body> {
    let (mut headers, body) = match result {
        Err(failure) => return render_failure(asked, failure),
        Ok(Reply { mut headers, trailers, messages, .. }) => {
            if asked.http1 {
                // HTTP/1.1 sends only trailers that were announced.
                headers.insert(
                    header::TRAILER,
                    HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin"),
                );
            }
            match messages {
                Messages::One(message) => {
                    let message = asked.compressed(message);
                    name_compression(message.is_compressed(), &mut headers);
                    (headers, Body::with_trailers(message.envelope(), ended(None, trailers)))
                }
                Messages::Stream(messages) => {
                    name_compression(asked.gzip, &mut headers);
                    let end = |status: Option<Status>| {
                        Frame::trailers(Arc::unwrap_or_clone(ended(status.as_ref(), trailers)))
                    };
                    (headers, Body::stream(frames(messages, asked.gzip, end)))
                }
            }
        }
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asked.content_type));
    response(headers, body)
}

/// A failure of either: headers alone.
pub fn render_failure(asked: &Asked, Failure { status, mut headers, trailers }: Failure) -> Response<Body> {
    headers.extend(trailers.into_iter().flat_map(|trailers| *trailers));
    add_status(&status, &mut headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asked.content_type));
    // Who has used another compression learns of ours.
    headers.insert(&GRPC_ACCEPT_ENCODING, GZIP.clone());
    response(headers, Body::empty())
}

/// The reply of a gRPC-Web call, whose trailers are the last envelope of its body; or its headers, where there is no message. Fails when
/// too many bytes wait for clients: its answer is made for this one alone.
pub fn render_web(
    asked: &Asked,
    text: bool,
    result: Result<Reply, Failure>,
    connection: &Arc<Counts>,
) -> Result<Response<Body>, Refusal> {
    let encode = move |bytes: Bytes| if text { BASE64.encode(&bytes).into() } else { bytes };
    let (mut headers, body) = match result {
        Err(failure) => return Ok(render_failure(asked, failure)),
        Ok(Reply { mut headers, trailers, messages, .. }) => match messages {
            Messages::One(message) => {
                let message = asked.compressed(message);
                let ended = trailers_envelope(&ended(None, trailers));
                let whole = connection.make(|| [encode(message.envelope()), encode(ended)].concat().into())?;
                name_compression(message.is_compressed(), &mut headers);
                (headers, Body::whole(whole))
            }
            Messages::Stream(messages) => {
                name_compression(asked.gzip, &mut headers);
                let end = |status: Option<Status>| Frame::data(trailers_envelope(&ended(status.as_ref(), trailers)));
                let frames = frames(messages, asked.gzip, end);
                (headers, Body::stream(frames.map(move |(frame, code)| (frame.map_data(encode), code))))
            }
        },
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asked.content_type));
    headers.insert(&GRPC_ACCEPT_ENCODING, GZIP.clone());
    Ok(response(headers, body))
}

fn name_compression(gzip: bool, headers: &mut HeaderMap) {
    if gzip {
        headers.insert(&GRPC_ENCODING, GZIP.clone());
    }
}

/// The trailers of a call that has ended; `None` when it went well.
fn ended(status: Option<&Status>, trailers: Option<Box<HeaderMap>>) -> Arc<HeaderMap> {
    if status.is_none() && trailers.is_none() {
        return ALL_WENT_WELL.clone();
    }
    let mut trailers = trailers.map(|trailers| *trailers).unwrap_or_default();
    match status {
        Some(status) => add_status(status, &mut trailers),
        None => drop(trailers.insert(&GRPC_STATUS, OK.clone())),
    }
    trailers.into()
}

/// Trailers as gRPC-Web has them: an envelope of lines as in HTTP/1.
fn trailers_envelope(trailers: &HeaderMap) -> Bytes {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    envelope(TRAILERS, &lines)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::api::message::{
        Message,
        tests::{damage, is_read_or_refused},
    };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn every_body_in_base64_is_a_message_or_is_refused(
            content in vec(any::<u8>(), 0..200),
            pieces in 1..8_usize,
            gzip: bool,
            damage in damage(),
            random in vec(any::<u8>(), 0..64),
        ) {
            let envelope = Message::new(&content).envelope();
            let text: String =
                envelope.chunks(envelope.len().div_ceil(pieces)).map(|piece| BASE64.encode(piece)).collect();
            let read = message_of_text(text.as_bytes(), gzip, 200).unwrap();
            prop_assert_eq!(&read[..], &content[..]);
            for body in [damage.of(text.into_bytes()), random] {
                is_read_or_refused(message_of_text(&body, gzip, 200), 200)?;
            }
        }

        #[test]
        fn every_timeout_is_read_or_refused(text in "[0-9]{0,10}[HMSmunx]?|[ -~]{0,12}", bytes in vec(32_u8.., 0..12)) {
            for value in [text.as_bytes(), &bytes] {
                if let Ok(value) = HeaderValue::from_bytes(value)
                    && let Err(status) = timeout(&value)
                {
                    prop_assert_eq!(status.code(), tonic::Code::InvalidArgument);
                }
            }
        }
    }

    #[test]
    fn a_timeout_is_read_in_every_unit_and_nonsense_is_refused() {
        let read = |text: &str| timeout(&HeaderValue::from_str(text).unwrap());
        for (text, time) in [
            ("10S", Duration::from_secs(10)),
            ("100m", Duration::from_millis(100)),
            ("50000u", Duration::from_millis(50)),
            ("10n", Duration::from_nanos(10)),
            ("1M", Duration::from_secs(60)),
            ("1H", Duration::from_secs(3600)),
            ("0m", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(read(text).unwrap(), time, "{text}");
        }
        for nonsense in ["", "S", "10", "10x", "-1S", "+1S", "soon", "123456789m", "\u{e9}"] {
            assert_eq!(read(nonsense).unwrap_err().code(), tonic::Code::InvalidArgument, "{nonsense:?}");
        }
    }

    #[test]
    fn text_may_come_in_pieces_with_padding_of_their_own() {
        let message = [&[0, 0, 0, 0, 4][..], b"abcd"].concat();
        for pieces in [vec![&message[..]], vec![&message[..4], &message[4..]], message.chunks(1).collect()] {
            let text: String = pieces.iter().map(|piece| BASE64.encode(piece)).collect();
            assert_eq!(message_of_text(text.as_bytes(), false, 100).unwrap(), "abcd", "{text}");
        }
        assert!(message_of_text(b"!", false, 100).is_err());
    }
}
