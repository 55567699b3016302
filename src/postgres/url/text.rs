//! Connection strings as text: the URL and the `key=value` form, taken apart into the same pairs.

use percent_encoding::percent_decode_str;

/// Keywords with their values, in the order given. Where one is repeated the last counts.
pub type Pairs = Vec<(String, String)>;

/// Takes either form apart. What a keyword means is not looked at.
///
/// Fails with the form that was seen, when it is another: never with a piece of the text.
pub fn pairs(text: &str) -> Result<Pairs, &'static str> {
    let text = bare(text);
    let other = [
        ("jdbc:", "is a JDBC URL"),
        ("export ", "begins with export, as a line of a shell script"),
        ("psql ", "begins with psql, as a command"),
        ("DATABASE_URL=", "begins with its own name, as a line of a file of settings"),
        ("LISTEN_DATABASE_URL=", "begins with its own name, as a line of a file of settings"),
    ];
    if let Some((_, form)) = other.iter().find(|(begin, _)| text.starts_with(begin)) {
        return Err(form);
    }
    let Some((scheme, url)) = text.split_once("://").filter(|(scheme, _)| !scheme.contains(['=', ' '])) else {
        return keyword_pairs(text).ok_or("is not a connection string");
    };
    // SQLAlchemy names its driver: postgresql+asyncpg.
    match scheme.split('+').next() {
        Some("postgres" | "postgresql") => url_pairs(url).ok_or("is not a connection string"),
        _ => Err("is a URL of another scheme than postgres://"),
    }
}

/// The string itself: without white space, a byte order mark, or the quotes that `docker --env-file` leaves around it.
fn bare(text: &str) -> &str {
    let text = text.trim().trim_start_matches('\u{feff}').trim();
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote)).map_or(text, str::trim)
}

/// `user:password@host:port,host:port/database?keyword=value`, all but the hosts optional, everything percent-encoded. A
/// password that is not, as people paste it, is accepted as far as that is possible: it ends at the last `@` before the query.
fn url_pairs(url: &str) -> Option<Pairs> {
    let (login, address) = match login_end(url) {
        Some(at) => (&url[..at], &url[at + 1..]),
        None => ("", url),
    };
    let (address, query) = address.split_once('?').unwrap_or((address, ""));
    let (hosts, database) = address.split_once('/').unwrap_or((address, ""));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));

    let mut ports = Vec::new();
    let mut names = Vec::new();
    for place in hosts.split(',') {
        let (name, port) = host_and_port(place)?;
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

/// Where the `@` is that ends user and password. A pasted password may hold a `?`, and a value of the query may hold an `@`: the
/// `?` begins the query when hosts stand before it and `keyword=` after it.
fn login_end(url: &str) -> Option<usize> {
    let (before, after) = url.split_once('?').unwrap_or((url, ""));
    before.rfind('@').or_else(|| {
        let mut hosts = before.split('/').next().unwrap_or_default().split(',');
        let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
        let are_hosts = hosts.all(|place| host_and_port(place).is_some_and(|(_, port)| is_port(port)));
        let is_query = after.split(['@', '&']).next().is_some_and(|first| first.contains('='));
        if are_hosts && is_query { None } else { url.rfind('@') }
    })
}

/// `name`, `name:port` or `[address]:port`.
fn host_and_port(place: &str) -> Option<(&str, &str)> {
    match place.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']')?;
            Some((name, if port.is_empty() { port } else { port.strip_prefix(':')? }))
        }
        None => Some(place.split_once(':').unwrap_or((place, ""))),
    }
}

/// A `%` that does not begin a code stands for itself.
fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// `keyword = value keyword = 'quoted value'`, with `\'` and `\\` in either kind of value, and `''` for a quote in a quoted one
/// (libpq refuses that, so it has no other meaning).
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
        let mut letters = after.char_indices().skip(usize::from(quoted)).peekable();
        let mut end = after.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => value.push(letters.next()?.1),
                '\'' if quoted && letters.next_if(|(_, next)| *next == '\'').is_some() => value.push('\''),
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
            ("postgres://u:p?w=1@h/d", "p?w=1"),
            (r"host=h user=u password='it''s' dbname=d", "it's"),
            (r"host=h user=u password='''' dbname=d", "'"),
            (r"host=h user=u password='it\'s \\ @:/%#' dbname=d", r"it's \ @:/%#"),
            (r"host=h password=p@s:s/w%r#d\ e dbname = d", "p@s:s/w%r#d e"),
        ] {
            assert_eq!(of(text, "password").as_deref(), Some(password), "{text}");
            assert_eq!(of(text, "host").as_deref(), Some("h"), "{text}");
            assert_eq!(of(text, "dbname").as_deref(), Some("d"), "{text}");
        }
    }

    #[test]
    fn an_at_sign_in_a_value_of_the_query_ends_no_login() {
        for text in [
            "postgres://localhost/db?application_name=me@host",
            "postgres://localhost?application_name=me@host",
            "postgres://localhost:5432/db?connect_timeout=3&application_name=me@host",
        ] {
            assert_eq!(of(text, "host").as_deref(), Some("localhost"), "{text}");
            assert_eq!(of(text, "application_name").as_deref(), Some("me@host"), "{text}");
            assert_eq!(of(text, "user"), None, "{text}");
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
            assert!(pairs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_tools_put_around_a_string_is_taken_off_and_other_forms_are_named_without_a_piece_of_them() {
        for text in [
            "\"postgres://u:hunter2@h/d\"",
            "'postgres://u:hunter2@h/d'",
            "\u{feff}postgres://u:hunter2@h/d\n",
            "postgresql+asyncpg://u:hunter2@h/d",
        ] {
            assert_eq!(of(text, "password").as_deref(), Some("hunter2"), "{text}");
            assert_eq!(of(text, "dbname").as_deref(), Some("d"), "{text}");
        }
        for (text, form) in [
            ("jdbc:postgresql://h/d?user=u&password=hunter2", "JDBC"),
            ("export DATABASE_URL=postgres://u:hunter2@h/d", "export"),
            ("DATABASE_URL=postgres://u:hunter2@h/d", "its own name"),
            ("psql postgres://u:hunter2@h/d", "psql"),
            ("mysql://u:hunter2@h/d", "another scheme"),
        ] {
            let refusal = pairs(text).unwrap_err();
            assert!(refusal.contains(form) && !refusal.contains("hunter2"), "{refusal}");
        }
    }
}
