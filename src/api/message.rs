//! A message in its envelope: one byte of flags, four of length, then its bytes. gRPC, gRPC-Web and Connect's streams send it whole,
//! Connect's unary calls send what is in it; both by reference.

use std::io::{Read, Write};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use tonic::Status;

use super::refusal::Refusal;

/// The length of an envelope's head.
pub const HEAD: usize = 5;
/// The flag of a message that is compressed.
pub const COMPRESSED: u8 = 1;
/// Shorter messages gain nothing from compression.
const WORTH_COMPRESSING: usize = 512;

/// An encoded message.
#[derive(Debug, Clone)]
pub struct Message(Bytes);

impl Default for Message {
    fn default() -> Self {
        Self::of_slices(0, std::iter::empty())
    }
}

impl Message {
    /// A message that is not compressed.
    pub fn new(bytes: &[u8]) -> Self {
        Self::of_slices(bytes.len(), std::iter::once(bytes))
    }

    /// A message that is not compressed, of slices with `length` bytes together.
    pub fn of_slices<'a>(length: usize, slices: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut envelope = BytesMut::with_capacity(HEAD + length);
        envelope.put_u8(0);
        envelope.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        for slice in slices {
            envelope.extend_from_slice(slice);
        }
        Self(envelope.freeze())
    }

    /// A message in its envelope, as [`Message::envelope`] gives it.
    pub const fn of_envelope(envelope: Bytes) -> Self {
        Self(envelope)
    }

    /// The same with gzip, if it is not compressed yet and long enough to gain from it.
    pub fn gzip(self) -> Self {
        if self.is_compressed() || self.0.len() - HEAD < WORTH_COMPRESSING {
            return self;
        }
        let mut encoder = GzEncoder::new(vec![COMPRESSED, 0, 0, 0, 0], Compression::default());
        // Writing into memory does not fail.
        let Ok(mut envelope) = encoder.write_all(&self.0[HEAD..]).and_then(|()| encoder.finish()) else { return self };
        let length = u32::try_from(envelope.len() - HEAD).unwrap_or(u32::MAX);
        envelope[1..HEAD].copy_from_slice(&length.to_be_bytes());
        Self(envelope.into())
    }

    /// Whether it is compressed.
    pub fn is_compressed(&self) -> bool {
        self.0[0] & COMPRESSED != 0
    }

    /// The message in its envelope.
    pub fn envelope(&self) -> Bytes {
        self.0.clone()
    }

    /// The message without its envelope.
    pub fn bytes(&self) -> Bytes {
        self.0.slice(HEAD..)
    }
}

/// An envelope with other flags, as the last of a stream has.
pub fn envelope(flags: u8, bytes: &[u8]) -> Bytes {
    let mut envelope = BytesMut::with_capacity(HEAD + bytes.len());
    envelope.put_u8(flags);
    envelope.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    envelope.extend_from_slice(bytes);
    envelope.freeze()
}

/// The message that a body of envelopes holds, decompressed: exactly one.
///
/// `gzip` says whether the request named gzip. Fails with the words of the published server.
pub fn only_message(body: &Bytes, gzip: bool, limit: usize) -> Result<Bytes, Status> {
    let cut = |promised: usize, got: usize| {
        Status::invalid_argument(format!(
            "protocol error: promised {promised} bytes in enveloped message, got {got} bytes"
        ))
    };
    if body.is_empty() {
        return Err(Status::unimplemented("unary request has zero messages"));
    }
    if body.len() < HEAD {
        return Err(cut(HEAD, body.len()));
    }
    let flags = body[0];
    let length = u32::from_be_bytes([body[1], body[2], body[3], body[4]]) as usize;
    let rest = body.len() - HEAD;
    if length > limit {
        return Err(Refusal::TooLarge.status());
    }
    if length > rest {
        return Err(cut(length, rest));
    }
    if length < rest {
        return Err(Status::unimplemented("unary request has multiple messages"));
    }
    let message = body.slice(HEAD..);
    match flags {
        0 => Ok(message),
        COMPRESSED if gzip => decompress(&message, limit),
        COMPRESSED => Err(Status::internal("protocol error: sent compressed message without compression support")),
        _ => Err(Status::invalid_argument(format!("protocol error: unknown flags {flags} of an enveloped message"))),
    }
}

/// What gzip holds, as far as `limit`.
pub fn decompress(bytes: &[u8], limit: usize) -> Result<Bytes, Status> {
    if bytes.is_empty() {
        return Ok(Bytes::new());
    }
    let mut message = Vec::new();
    let read = MultiGzDecoder::new(bytes).take(limit as u64 + 1).read_to_end(&mut message);
    read.map_err(|error| Status::invalid_argument(format!("get decompressor: gzip: {error}")))?;
    if message.len() > limit {
        return Err(Refusal::TooLarge.status());
    }
    Ok(message.into())
}

#[cfg(test)]
pub mod tests {
    use proptest::{collection::vec, option, prelude::*, sample::Index};
    use tonic::Code;

    use super::*;

    /// What goes wrong on the way: bytes that are replaced, and an end that is lost.
    #[derive(Debug, Clone)]
    pub struct Damage {
        replaced: Vec<(Index, u8)>,
        cut: Option<Index>,
    }

    pub fn damage() -> impl Strategy<Value = Damage> {
        let parts = (vec((any::<Index>(), any::<u8>()), 0..6), option::of(any::<Index>()));
        parts.prop_map(|(replaced, cut)| Damage { replaced, cut })
    }

    impl Damage {
        pub fn of(&self, mut body: Vec<u8>) -> Vec<u8> {
            if body.is_empty() {
                return body;
            }
            for (place, byte) in &self.replaced {
                let place = place.index(body.len());
                body[place] = *byte;
            }
            if let Some(cut) = &self.cut {
                body.truncate(cut.index(body.len()));
            }
            body
        }
    }

    /// Asserts that a message was read within the limit, or refused with a reason.
    pub fn is_read_or_refused(read: Result<Bytes, Status>, limit: usize) -> Result<(), TestCaseError> {
        match read {
            Ok(message) => prop_assert!(message.len() <= limit, "{} bytes", message.len()),
            Err(status) => prop_assert!(status.code() != Code::Ok && !status.message().is_empty(), "{:?}", status),
        }
        Ok(())
    }

    #[test]
    fn a_message_may_be_several_members_of_gzip_and_nothing_follows_them() {
        let member = |bytes: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let whole = [member(b"a member, "), member(b"and another")].concat();
        assert_eq!(decompress(&whole, 100).unwrap(), "a member, and another");
        let followed = [&whole[..], b"x"].concat();
        assert_eq!(decompress(&followed, 100).unwrap_err().code(), Code::InvalidArgument);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn every_body_is_one_message_within_the_limit_or_is_refused(
            content in vec(any::<u8>(), 0..2_000),
            compressed: bool,
            named: bool,
            damage in damage(),
            random in vec(any::<u8>(), 0..64),
        ) {
            const LIMIT: usize = 1_000;
            let message = Message::new(&content);
            let message = if compressed { message.gzip() } else { message };
            match only_message(&message.envelope(), true, LIMIT) {
                Ok(read) => prop_assert_eq!(&read[..], &content[..]),
                Err(_) => prop_assert!(content.len().max(message.bytes().len()) > LIMIT),
            }
            for body in [damage.of(message.envelope().to_vec()), random] {
                is_read_or_refused(only_message(&body.clone().into(), named, LIMIT), LIMIT)?;
                is_read_or_refused(decompress(&body, LIMIT), LIMIT)?;
            }
        }
    }

    #[test]
    fn a_compressed_message_is_the_same_message() {
        let text = "short positions, ".repeat(100);
        let compressed = Message::new(text.as_bytes()).gzip();
        assert!(compressed.is_compressed() && compressed.bytes().len() < text.len());
        assert_eq!(decompress(&compressed.bytes(), 1 << 20).unwrap(), text);
        assert_eq!(only_message(&compressed.envelope(), true, 1 << 20).unwrap(), text);
        assert!(!Message::new(b"short").gzip().is_compressed());
    }

    #[test]
    fn what_is_compressed_cannot_be_larger_than_what_is_not() {
        let compressed = Message::new(&vec![0; 100_000]).gzip();
        assert!(compressed.bytes().len() < 1000);
        let refused = decompress(&compressed.bytes(), 4096).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }
}
