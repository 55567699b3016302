//! Decodes the bytes of a published file to text. Until 2022-06-02 ASIC published UTF-16, with some ASCII files; since
//! then it publishes ASCII. The encoding is detected from the bytes, never from the date.

use std::borrow::Cow;

use csv::StringRecord;
use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// Decodes a file to lines that end with LF. A byte order mark gives the encoding: UTF-16 or UTF-8. Without one, the
/// file is UTF-8 if its bytes are valid UTF-8, and otherwise Windows-1252, which Excel writes.
///
/// Fails: the file is empty or is not text.
pub fn decode(bytes: &[u8]) -> Result<String, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let (encoding, mark) = Encoding::for_bom(bytes).unwrap_or_else(|| {
        let encoding = if str::from_utf8(bytes).is_ok() { UTF_8 } else { WINDOWS_1252 };
        (encoding, 0)
    });
    let (text, malformed) = encoding.decode_without_bom_handling(&bytes[mark..]);
    if malformed || text.contains('\0') {
        return Err(format!("this is no text (read as {}): a binary file, or a damaged one", encoding.name()));
    }
    // The csv reader counts lines as an editor does only when they end with LF.
    Ok(text.replace("\r\n", "\n"))
}

/// The delimiter of a table: what its header line has, of tab, semicolon and comma. Spreadsheets write all three.
pub fn delimiter(header: &str) -> u8 {
    *b"\t;".iter().find(|delimiter| header.as_bytes().contains(delimiter)).unwrap_or(&b',')
}

/// A row without any text, as spreadsheets leave below a table.
pub fn is_blank(record: &StringRecord) -> bool {
    record.iter().all(|field| field.trim().is_empty())
}

/// A note below a table: text in the first column only, in a row that is as wide as the table, or after a line without text. A row that
/// was cut off has neither.
pub fn is_note(record: &StringRecord, width: usize, text: &str) -> bool {
    let alone = record.iter().skip(1).all(|field| field.trim().is_empty());
    let line = record.position().map_or(0, |position| usize::try_from(position.line()).unwrap_or_default());
    // The reader's position is that of the empty lines before a row.
    let before = || text.lines().skip(line.saturating_sub(2)).take(2);
    let is_empty = |line: &str| line.trim_matches([',', ';', '\t', ' ', '"']).is_empty();
    alone && (record.len() >= width || before().any(is_empty))
}

/// A number in a form that Postgres reads. Empty for a blank or `-`, which mean that there is no value. `None` for any other text, for
/// NaN and infinity, and for what has two meanings: `1,234` where semicolons stand between the columns.
pub fn number(text: &str, delimiter: u8) -> Option<String> {
    if matches!(text, "" | "-") {
        return Some(String::new());
    }
    // Digits and points pass unchanged: nearly all are of this kind.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let written = if text.contains(',') { without_commas(text, delimiter)? } else { Cow::from(text) };
    let value: f64 = written.parse().ok().filter(|value: &f64| value.is_finite())?;
    Some(if plain { text.to_owned() } else { value.to_string() })
}

/// `1,234.5` and `1,234,567` are thousands. In a file with semicolons a single comma is a decimal one, as `0,54` is, unless it could be both.
fn without_commas(text: &str, delimiter: u8) -> Option<Cow<'_, str>> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let groups: Vec<&str> = whole.split(',').collect();
    let digits = |group: &str| group.bytes().all(|byte| byte.is_ascii_digit());
    let thousands = (1..=3).contains(&groups[0].len())
        && groups.iter().all(|group| digits(group))
        && groups[1..].iter().all(|group| group.len() == 3)
        && fraction.is_none_or(digits);
    let decimal =
        delimiter == b';' && fraction.is_none() && groups.len() == 2 && groups.iter().all(|group| digits(group));
    match (thousands, decimal) {
        (true, false) => Some(text.replace(',', "").into()),
        (false, true) => Some(text.replace(',', ".").into()),
        _ => None,
    }
}

/// The characters that the database can hold.
#[derive(Debug, Clone, Copy)]
pub enum Characters {
    /// All of them, or Postgres alone knows.
    All,
    /// ISO 8859-1.
    Latin1,
    /// Those of another encoding with a name.
    Of(&'static Encoding),
}

impl Characters {
    /// Of a `server_encoding`.
    pub fn of(server_encoding: &str) -> Self {
        let name = match server_encoding {
            "UTF8" | "SQL_ASCII" => return Self::All,
            "LATIN1" => return Self::Latin1,
            "LATIN9" => "iso-8859-15".into(),
            name => match (name.strip_prefix("WIN"), name.strip_prefix("LATIN")) {
                (Some(number), _) => format!("windows-{number}"),
                (_, Some(number)) => format!("latin{number}"),
                _ => name.replace('_', "-"),
            },
        };
        Encoding::for_label(name.as_bytes()).map_or(Self::All, Self::Of)
    }

    fn hold(self, character: char) -> bool {
        match self {
            Self::All => true,
            Self::Latin1 => u32::from(character) < 0x100,
            Self::Of(encoding) => !encoding.encode(character.encode_utf8(&mut [0; 4])).2,
        }
    }

    /// The text with its typographic quotes and dashes as plain ones, where the database cannot hold them.
    ///
    /// Fails with the first character that has no plain form.
    pub fn fit(self, text: &str) -> Result<Cow<'_, str>, String> {
        if text.is_ascii() || text.chars().all(|character| self.hold(character)) {
            return Ok(text.into());
        }
        let mut fitting = String::with_capacity(text.len());
        for character in text.chars() {
            match character {
                _ if self.hold(character) => fitting.push(character),
                '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201c}' | '\u{201d}' | '\u{201e}' => fitting.push('\''),
                '\u{2010}'..='\u{2015}' | '\u{2212}' => fitting.push('-'),
                '\u{2026}' => fitting.push_str("..."),
                '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' => fitting.push(' '),
                '\u{2022}' => fitting.push('*'),
                '\u{20ac}' => fitting.push_str("EUR"),
                _ => {
                    return Err(format!(
                        "the character {character:?} (U+{:04X}) cannot be stored in this database, whose encoding is not UTF8",
                        u32::from(character)
                    ));
                }
            }
        }
        Ok(fitting.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_is_read_and_binary_is_refused() {
        let utf_16 = |text: &str, big: bool| -> Vec<u8> {
            let mark = [0xfeffu16];
            let units = mark.into_iter().chain(text.encode_utf16());
            units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        assert_eq!(decode(&utf_16("Caf\u{e9}\t1", false)).unwrap(), "Caf\u{e9}\t1");
        assert_eq!(decode(&utf_16("Caf\u{e9}\t1", true)).unwrap(), "Caf\u{e9}\t1");
        assert_eq!(decode(b"\xef\xbb\xbfCaf\xc3\xa9").unwrap(), "Caf\u{e9}");
        assert_eq!(decode(b"Caf\xc3\xa9").unwrap(), "Caf\u{e9}");
        assert_eq!(decode(b"Caf\xe9").unwrap(), "Caf\u{e9}");
        assert!(decode(b"").unwrap_err().contains("empty"));
        assert!(decode(b"\x7fELF\x02\x01\0\0").unwrap_err().contains("no text"));
        // Half of a UTF-16 unit is missing: the download was cut.
        assert!(decode(b"\xff\xfeC\0a").unwrap_err().contains("damaged"));
    }

    #[test]
    fn a_number_with_one_meaning_is_read_and_one_with_two_is_not() {
        let read = |text: &str, delimiter: u8| number(text, delimiter).unwrap_or_else(|| "none".into());
        assert_eq!(read("1,234,567", b','), "1234567");
        assert_eq!(read("1,234.5", b','), "1234.5");
        assert_eq!(read("1,234", b','), "1234");
        assert_eq!(read("0,54", b';'), "0.54");
        assert_eq!(read("1,234,567", b';'), "1234567");
        assert_eq!(read("1,234", b';'), "none", "a thousand, or one and a bit");
        for odd in ["0,54", "1,23,456", ",", "1,2345", "1.2,3", "1,234.5.6"] {
            assert_eq!(read(odd, b','), "none", "{odd}");
        }
    }

    #[test]
    fn what_a_database_cannot_hold_becomes_plain_or_is_named() {
        let latin1 = Characters::of("LATIN1");
        assert_eq!(latin1.fit("O\u{2019}Brien \u{2013} Caf\u{e9}").unwrap(), "O'Brien - Caf\u{e9}");
        assert!(latin1.fit("\u{4e2d}").unwrap_err().contains("U+4E2D"));
        assert_eq!(Characters::of("WIN1252").fit("O\u{2019}Brien").unwrap(), "O\u{2019}Brien");
        assert_eq!(Characters::of("UTF8").fit("\u{4e2d}").unwrap(), "\u{4e2d}");
        assert!(Characters::of("EUC_JP").fit("\u{4e2d}").is_ok());
    }
}
