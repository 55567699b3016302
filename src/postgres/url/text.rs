//! Connection strings as text: the URL and the `key=value` form, taken apart into the same pairs.

use percent_encoding::percent_decode_str;

/// Keywords with their values, in the order given. Where one is repeated the last counts.
pub type Pairs = Vec<(String, String)>;

/// Takes either form apart; `None` when it is neither. What a keyword means is not looked at.
pub fn pairs(text: &str) -> Option<Pairs> {
    let text = text.trim();
    match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(url) => url_pairs(url),
        None => keyword_pairs(text),
    }
}

/// `user:password@host:port,host:port/database?keyword=value`, all but the hosts optional, everything percent-encoded. A
/// password that is not, as people paste it, is understood as far as that is possible: it ends at the last `@`.
fn url_pairs(url: &str) -> Option<Pairs> {
    let before_query = url.split('?').next().unwrap_or_default();
    let (login, address) = match before_query.rfind('@').or_else(|| url.rfind('@')) {
        Some(at) => (&url[..at], &url[at + 1..]),
        None => ("", url),
    };
    let (address, query) = address.split_once('?').unwrap_or((address, ""));
    let (hosts, database) = address.split_once('/').unwrap_or((address, ""));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));

    let mut ports = Vec::new();
    let mut names = Vec::new();
    for place in hosts.split(',') {
        let (name, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest.split_once(']')?;
                (name, if port.is_empty() { port } else { port.strip_prefix(':')? })
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        names.push(decode(name)?);
        ports.push(if port.is_empty() { "5432" } else { port });
    }
    let mut pairs = vec![("host".into(), names.join(",")), ("port".into(), ports.join(","))];
    for (keyword, value) in [("user", user), ("password", password), ("dbname", database)] {
        pairs.push((keyword.into(), decode(value)?));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (keyword, value) = pair.split_once('=')?;
        pairs.push((decode(keyword)?, decode(value)?));
    }
    pairs.retain(|(_, value)| !value.is_empty());
    Some(pairs)
}

/// A `%` that does not begin a code stands for itself.
fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// `keyword = value keyword = 'quoted value'`, with `\'` and `\\` in either kind of value.
fn keyword_pairs(text: &str) -> Option<Pairs> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (keyword, after) = rest.split_once('=')?;
        let keyword = keyword.trim_end();
        if keyword.is_empty() || keyword.contains(char::is_whitespace) {
            return None;
        }
        let after = after.trim_start();
        let quoted = after.starts_with('\'');
        let mut value = String::new();
        let mut ended = !quoted;
        let mut letters = after.char_indices().skip(usize::from(quoted));
        let mut end = after.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => value.push(letters.next()?.1),
                '\'' if quoted => {
                    ended = true;
                    end = at + 1;
                    break;
                }
                space if !quoted && space.is_whitespace() => {
                    end = at;
                    break;
                }
                other => value.push(other),
            }
        }
        if !ended {
            return None;
        }
        pairs.push((keyword.to_owned(), value));
        rest = after[end..].trim_start();
    }
    (!pairs.is_empty()).then_some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, keyword: &str) -> Option<String> {
        pairs(text).unwrap().into_iter().rev().find(|(name, _)| name == keyword).map(|(_, value)| value)
    }

    #[test]
    fn a_password_may_hold_anything_encoded_or_pasted() {
        for (text, password) in [
            ("postgres://u:p%40s%3As%2Fw%25r%23d@h/d", "p@s:s/w%r#d"),
            ("postgres://u:p@s:s/w%r#d@h/d", "p@s:s/w%r#d"),
            ("postgresql://u:p?w@h:1/d?application_name=a", "p?w"),
            ("postgres://u:p@h/d?application_name=a@b", "p"),
            (r"host=h user=u password='it\'s \\ @:/%#' dbname=d", r"it's \ @:/%#"),
            (r"host=h password=p@s:s/w%r#d\ e dbname = d", "p@s:s/w%r#d e"),
        ] {
            assert_eq!(of(text, "password").as_deref(), Some(password), "{text}");
            assert_eq!(of(text, "host").as_deref(), Some("h"), "{text}");
            assert_eq!(of(text, "dbname").as_deref(), Some("d"), "{text}");
        }
    }

    #[test]
    fn hosts_come_with_their_ports() {
        let text = "postgres://u@one:6543,[::1],%2Fvar%2Frun:7/d";
        assert_eq!(of(text, "host").as_deref(), Some("one,::1,/var/run"));
        assert_eq!(of(text, "port").as_deref(), Some("6543,5432,7"));
        assert_eq!(of("postgres:///d?host=/tmp", "host").as_deref(), Some("/tmp"));
    }

    #[test]
    fn what_is_neither_form_is_none() {
        for text in ["", "word", "host=h word", "host='h", "=h", r"host=h\", "postgres://h/d?word", "mysql://u:p@h/d w"]
        {
            assert_eq!(pairs(text), None, "{text}");
        }
    }
}
