//! Values in the query of a URL.

use std::borrow::Cow;

use bytes::Bytes;
use http::Uri;
use percent_encoding::percent_decode_str;

/// The query of a URL.
#[derive(Debug)]
pub struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    /// That of `uri`.
    pub fn of(uri: &'a Uri) -> Self {
        let pairs = uri.query().into_iter().flat_map(|query| query.split('&'));
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect())
    }

    fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// The first value of a name, decoded.
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        let plus_is_space =
            |value: &'a str| if value.contains('+') { value.replace('+', " ").into() } else { Cow::from(value) };
        self.raw(name).map(|value| percent_decode_str(&plus_is_space(value)).collect::<Vec<u8>>().into())
    }

    /// The same as text.
    pub fn value(&self, name: &str) -> Option<Cow<'a, str>> {
        let raw = self.raw(name)?;
        if raw.contains(['%', '+']) {
            return self.bytes(name).map(|value| String::from_utf8_lossy(&value).into_owned().into());
        }
        Some(raw.into())
    }
}
