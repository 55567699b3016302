//! The origins whose browsers may call.

use http::HeaderValue;

/// The origins that may call from a browser.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<Origin>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Any,
    Exactly(String),
    /// `https://*.example.com`: what stands before the star, and after it.
    Between(String, String),
}

impl Origins {
    /// Reads a list with commas: exact origins, `https://*.example.com`, or `*`. Fails with the entry that is none of these.
    pub fn parse(list: &str) -> Result<Self, String> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(Origin::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a browser at `origin` may call. Letter case does not matter.
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| {
            let origin = origin.to_ascii_lowercase();
            self.0.iter().any(|allowed| allowed.is(&origin))
        })
    }
}

impl Origin {
    fn parse(entry: &str) -> Result<Self, String> {
        let mut entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return Ok(Self::Any);
        }
        // Browsers leave out the port that a scheme has by default.
        for (scheme, port) in [("http://", ":80"), ("https://", ":443")] {
            if entry.starts_with(scheme) && entry.ends_with(port) {
                entry.truncate(entry.len() - port.len());
            }
        }
        let host =
            entry.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https")).map(|(_, host)| host);
        let is_host = |host: &str| !host.is_empty() && host.is_ascii() && !host.contains(['/', '?', '#', '@', ' ']);
        let sound = host.is_some_and(is_host);
        let refused = || {
            format!(
                "{entry:?} is no origin; expected https://example.com, https://*.example.com, or *; a name with letters beyond ASCII \
                 is written as browsers send it: https://xn--..."
            )
        };
        match entry.split_once('*') {
            _ if !sound => Err(refused()),
            None => Ok(Self::Exactly(entry)),
            Some((before, after)) if before.ends_with("://") && after.starts_with('.') && !after.contains('*') => {
                Ok(Self::Between(before.to_owned(), after.to_owned()))
            }
            Some(_) => Err(refused()),
        }
    }

    fn is(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(allowed) => allowed == origin,
            Self::Between(before, after) => {
                origin.len() > before.len() + after.len() && origin.starts_with(before) && origin.ends_with(after)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_matched_as_browsers_send_them() {
        let origins =
            "http://localhost:3000, https://Shorted.com.au:443,https://*.shorted.com.au, http://plain.test:80";
        let origins = Origins::parse(origins).unwrap();
        let allows = |origin: &str| origins.allow(&HeaderValue::from_str(origin).unwrap());
        for allowed in [
            "http://localhost:3000",
            "https://shorted.com.au",
            "https://a.b.shorted.com.au",
            "HTTPS://SHORTED.com.au",
            "http://plain.test",
        ] {
            assert!(allows(allowed), "{allowed}");
        }
        for foreign in [
            "http://localhost:3001",
            "http://shorted.com.au",
            "https://shorted.com.au.evil.test",
            "https://evilshorted.com.au",
            "null",
            "http://127.0.0.1:3000",
            // The published server takes it; no browser has such an origin.
            "https://.shorted.com.au",
        ] {
            assert!(!allows(foreign), "{foreign}");
        }
        assert!(Origins::parse("*").unwrap().allow(&HeaderValue::from_static("null")));
        assert!(!Origins::parse("").unwrap().allow(&HeaderValue::from_static("https://a.test")));
        for refused in [
            "example.com",
            "ftp://a",
            "https://",
            "https://a.test/",
            "https://*",
            "https://a.*.test",
            "https://*.*.a",
            "https://b\u{fc}cher.example",
        ] {
            assert!(Origins::parse(refused).unwrap_err().contains("is no origin"), "{refused}");
        }
    }
}
