//! What may be a secret in a text: a connection string reaches us in places that are meant for others, as an argument, as the name of a
//! file, or in the wrong setting. The search rather hides too much than too little.

use std::{borrow::Cow, ops::Range};

/// What comes before a password, and an equals sign.
const PASSWORD: [&str; 3] = ["password", "passwd", "pwd"];
/// Our own messages say these.
const EXAMPLES: [&str; 3] = ["://user:password@host", "://host:port", "password=... "];

/// A text for people, with `***` in place of all that may be a secret.
pub fn redacted(text: &str) -> Cow<'_, str> {
    match may_hold_secret(text).then(|| secret(text)).flatten() {
        Some(Range { start, end }) => format!("{}***{}", &text[..start], &text[end..]).into(),
        None => text.into(),
    }
}

/// A quick look, which nearly every text passes.
pub fn may_hold_secret(text: &str) -> bool {
    let holds =
        |word: &str| text.as_bytes().windows(word.len()).any(|found| found.eq_ignore_ascii_case(word.as_bytes()));
    holds("://") || holds("@") || PASSWORD.into_iter().any(holds)
}

/// From the first to the last that may be a secret.
fn secret(text: &str) -> Option<Range<usize>> {
    // As long as the text.
    let mut searched = text.to_ascii_lowercase();
    for example in EXAMPLES {
        searched = searched.replace(example, &" ".repeat(example.len()));
    }
    let end = text.trim_end().len();
    let last_at = searched.rfind('@').unwrap_or_default();
    let users = searched.match_indices('@').filter_map(|(at, _)| Some(user(&searched[..at])?..at));
    // Without a host, nothing says where a password ends.
    let urls = searched.match_indices("://").map(|(found, _)| found + 3);
    let urls = urls.filter(|begin| *begin > last_at && !begins_with_host(&searched[*begin..])).map(|begin| begin..end);
    // It may be in quotes, and the quotes may be wrong.
    let passwords = PASSWORD.into_iter().flat_map(|word| searched.match_indices(word)).filter_map(|(found, word)| {
        let value = searched[found + word.len()..].trim_start().strip_prefix('=')?;
        Some(searched.len() - value.len()..end)
    });
    users.chain(urls).chain(passwords).reduce(|one, other| one.start.min(other.start)..one.end.max(other.end))
}

/// Where user and password begin that end with `before`: behind a scheme, or else behind a colon within a word. Not before a colon with
/// a space: in `h:5432/d: ... for user "me@server"` there is no secret.
fn user(before: &str) -> Option<usize> {
    let sentence = before.rfind(": ").map_or(0, |found| found + 2);
    let mut colons = before[sentence..].match_indices(':').map(|(found, _)| sentence + found + 1);
    let scheme = before.find("://").map(|found| found + 3);
    scheme.or_else(|| colons.find(|after| before[*after..].starts_with(|next: char| !next.is_whitespace())))
}

/// Whether what comes after a scheme is a host, with a port or without one, and not `user:password`.
fn begins_with_host(text: &str) -> bool {
    let authority = text.split(|letter: char| letter == '/' || letter.is_whitespace()).next().unwrap_or_default();
    let authority = authority.trim_end_matches(['"', '\'', '`', '.', ',', ';', ':', ')']);
    authority.starts_with('[') || authority.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown_in_any_form() {
        for text in [
            "unexpected argument 'postgres://u:hunter2@h/db' found",
            "\"postgres://u:hunter2#x@y hunter2@h/db\" is no level",
            "refused postgres://u:hunter2 sesame7@h/db: No such file",
            "refused postgres://u:hunter2\nsesame7@h/db: No such file",
            "refused postgres://u:hunter2/db: No such file",
            "refused postgres://u:hunter2 sesame7",
            "refused u:hunter2@h/db: No such file",
            "refused u:hunter2 sesame7@h/db: No such file",
            "X is \"u:hunter2 sesame7@h\": \"u:hunter2 sesame7@h\" is no level",
            "names jdbc:postgresql://h/db?user=u&password=hunter2, which",
            "names host=h Password=hunter2 x",
            "names host=h password='hunter2', which",
            "names host=h password='it\\'s hunter2', which",
            "names host=h password = hunter2 , which",
            "names host=h password=a;hunter2, which",
            "Host=h;PWD=hunter2;x pwd=hunter2",
            "expected postgres://user:password@host, not http://x:1 and postgres://u:hunter2@h",
        ] {
            let shown = redacted(text);
            assert!(shown.contains("***") && !shown.contains("hunter2") && !shown.contains("sesame7"), "{shown}");
        }
    }

    #[test]
    fn what_holds_no_secret_is_shown_whole() {
        for text in [
            "expected http://host:4317",
            "metrics on http://[::1]:8080/metrics",
            "expected postgres://user:password@host:5432/database, or host=... user=... password=... dbname=...",
            "\"ftp://x\" is no address of a server; expected host:port, http://host:port or https://host:port",
            "cannot reach h:5432/d: password authentication failed for user \"me@server\"",
            "TREEMAP_REFRESH_SCHEDULE is \"@daily\"",
            "two\nlines",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn the_place_of_a_secret_is_shown() {
        assert_eq!(redacted("X names postgres://u:p@h:1/d, which\n"), "X names postgres://***@h:1/d, which\n");
        assert_eq!(redacted("X names host=h password = p\n"), "X names host=h password =***\n");
    }
}
