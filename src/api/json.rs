//! A request in protobuf's JSON mapping, as the published server takes it.

use std::fmt;

use serde_json::value::RawValue;

/// The fields that the requests of all methods have among them.
#[derive(Debug, Default, PartialEq)]
pub struct Fields {
    /// `period`.
    pub period: String,
    /// `limit`.
    pub limit: i32,
    /// `view_mode`, by its number.
    pub view_mode: i32,
    /// `version`.
    pub version: String,
}

/// Reads a request whose view modes `number` knows by name, and which may be `versioned`: have a field of that name. Unknown fields are
/// ignored, numbers may stand in quotes, and an unknown name of a view mode is the default, as the published server has it.
pub fn read_request(bytes: &[u8], number: fn(&str) -> Option<i32>, versioned: bool) -> Result<Fields, String> {
    if bytes.is_empty() {
        return Err("zero-length payload is not a valid JSON object".into());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let fields = serde::de::Deserializer::deserialize_map(&mut deserializer, Visitor { number, versioned });
    fields.and_then(|fields| deserializer.end().map(|()| fields)).map_err(|error| error.to_string())
}

struct Visitor {
    number: fn(&str) -> Option<i32>,
    versioned: bool,
}

impl<'de> serde::de::Visitor<'de> for Visitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        use serde::de::Error;
        let mut request = Fields::default();
        let mut seen: Vec<&str> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value: &RawValue = map.next_value()?;
            let value = value.get();
            let field = match name.as_str() {
                "period" => "period",
                "limit" => "limit",
                "viewMode" | "view_mode" => "viewMode",
                "version" if self.versioned => "version",
                _ => continue,
            };
            if seen.contains(&field) {
                return Err(A::Error::custom(format!("duplicate field {name:?}")));
            }
            seen.push(field);
            if value == "null" {
                continue;
            }
            let invalid = || A::Error::custom(format!("invalid value for field {field}: {value}"));
            // An attempt that fails would make an error for nothing.
            let text = value.starts_with('"').then(|| serde_json::from_str::<String>(value).map_err(|_| invalid()));
            let text = text.transpose()?;
            match (field, text) {
                ("period", text) => request.period = text.ok_or_else(invalid)?,
                ("version", text) => request.version = text.ok_or_else(invalid)?,
                ("limit", text) => request.limit = integer(text.as_deref().unwrap_or(value)).ok_or_else(invalid)?,
                (_, Some(name)) => request.view_mode = (self.number)(&name).unwrap_or_default(),
                (_, None) => request.view_mode = integer(value).ok_or_else(invalid)?,
            }
        }
        Ok(request)
    }
}

/// A JSON number that is an int32: `10`, `10.0`, `1e1`, `-0`.
fn integer(text: &str) -> Option<i32> {
    // serde_json would take space around it.
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) || text.ends_with(char::is_whitespace) {
        return None;
    }
    let number: f64 = serde_json::from_str(text).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "checked")]
    let integer = number as i32;
    #[expect(clippy::float_cmp, reason = "exactly an integer")]
    (f64::from(integer) == number).then_some(integer)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{api::message::tests::damage, proto::shorts::v1alpha1::ViewMode};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn every_text_is_a_request_or_is_refused_with_a_reason(
            period in "[ -~]{0,20}",
            limit: i32,
            damage in damage(),
            random in vec(any::<u8>(), 0..64),
        ) {
            let request = serde_json::json!({"period": period, "limit": limit, "viewMode": "PERCENTAGE_CHANGE"});
            let read = read_request(request.to_string().as_bytes()).unwrap();
            prop_assert_eq!((read.period, read.limit, read.view_mode), (period, limit, 1));
            for text in [damage.of(request.to_string().into_bytes()), random] {
                if let Err(reason) = read_request(&text) {
                    prop_assert!(!reason.is_empty());
                }
            }
        }
    }

    fn read_request(bytes: &[u8]) -> Result<Fields, String> {
        super::read_request(bytes, |name| ViewMode::from_str_name(name).map(Into::into), false)
    }

    #[test]
    fn a_request_is_read_as_the_published_server_reads_it() {
        let read = |json: &str| read_request(json.as_bytes()).map(|read| (read.period, read.limit, read.view_mode));
        let is = |period: &str, limit, view_mode| Ok((period.to_owned(), limit, view_mode));
        assert_eq!(read("{}"), is("", 0, 0));
        assert_eq!(read(r#" {"period":"3m","limit":10,"viewMode":"PERCENTAGE_CHANGE"} "#), is("3m", 10, 1));
        assert_eq!(read(r#"{"view_mode":1.0,"other":{"limit":[1,{}]},"PERIOD":7}"#), is("", 0, 1));
        assert_eq!(read(r#"{"period":null,"limit":null,"viewMode":null}"#), is("", 0, 0));
        for ten in ["10", "10.0", "1e1", r#""10""#, r#""1e1""#] {
            assert_eq!(read(&format!(r#"{{"limit":{ten}}}"#)), is("", 10, 0), "{ten}");
        }
        assert_eq!(read(r#"{"limit":-0}"#), is("", 0, 0));
        for default in [r#""CURRENT_VALUE""#, r#""percentage_change""#, r#""1""#] {
            assert_eq!(read(&format!(r#"{{"viewMode":{default}}}"#)), is("", 0, 0), "{default}");
        }
        for refused in [
            "",
            " ",
            "null",
            "[]",
            r#"{"limit""#,
            "{}{}",
            "\u{feff}{}",
            r#"{"period":"\ud800"}"#,
            r#"{"limit":1,"limit":1}"#,
            r#"{"viewMode":1,"view_mode":1}"#,
            r#"{"limit":10.5}"#,
            r#"{"limit":" 10"}"#,
            r#"{"limit":""}"#,
            r#"{"limit":true}"#,
            r#"{"limit":2147483648}"#,
            r#"{"period":3}"#,
            r#"{"viewMode":true}"#,
        ] {
            assert!(read(refused).is_err(), "{refused}");
        }
        assert!(read_request(b"{\"period\":\"\xff\"}").is_err());
    }
}
