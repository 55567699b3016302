//! Values in the query of a URL.

use std::borrow::Cow;

use bytes::Bytes;
use http::Uri;
use percent_encoding::percent_decode_str;

/// The query of a URL. It has few values: each is searched for when it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// That of `uri`.
    pub fn of(uri: &'a Uri) -> Self {
        Self(uri.query().unwrap_or_default())
    }

    fn raw(self, name: &str) -> Option<&'a str> {
        let value = |pair: &'a str| match pair.strip_prefix(name)? {
            "" => Some(""),
            rest => rest.strip_prefix('='),
        };
        self.0.split('&').find_map(value)
    }

    /// The first value of a name, decoded.
    pub fn bytes(self, name: &str) -> Option<Bytes> {
        let plus_is_space =
            |value: &'a str| if value.contains('+') { value.replace('+', " ").into() } else { Cow::from(value) };
        self.raw(name).map(|value| {
            let mut bytes = Vec::with_capacity(value.len());
            bytes.extend(percent_decode_str(&plus_is_space(value)));
            bytes.into()
        })
    }

    /// The same as text.
    pub fn value(self, name: &str) -> Option<Cow<'a, str>> {
        let raw = self.raw(name)?;
        if raw.contains(['%', '+']) {
            return self.bytes(name).map(|value| String::from_utf8_lossy(&value).into_owned().into());
        }
        Some(raw.into())
    }
}
