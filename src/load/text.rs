//! Decodes the bytes of a published file to text. Until 2022-06-02 ASIC published UTF-16, with some ASCII files; since
//! then it publishes ASCII. The encoding is detected from the bytes, never from the date.

use std::{borrow::Cow, io::Read};

use csv::StringRecord;
use encoding_rs::{Encoding, KOI8_U, UTF_8, WINDOWS_1252};

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

/// A line of its own behind a table. No text has it: [`decode`] refuses it.
const END: &str = "\0";

/// The bytes of a table, with a line behind it that [`is_end`] looks for.
pub fn with_end(text: &str) -> impl Read {
    text.as_bytes().chain(&b"\n\0"[..])
}

/// Whether this record is the line behind the table, and not a row of it.
///
/// Fails: a quote that is not closed where its field ends has made one field of several rows.
pub fn is_end(record: &StringRecord, text: &str) -> Result<bool, String> {
    if record.len() == 1 && &record[0] == END {
        return Ok(true);
    }
    // One look at the fields of a row: nearly all pass.
    if !record.as_slice().bytes().any(|byte| matches!(byte, b'\0' | b'\n' | b'\r')) {
        return Ok(false);
    }
    let line = line(record, text);
    Err(if record.as_slice().contains('\0') {
        format!("line {line} has a quote that is never closed")
    } else {
        format!("line {line} has a field with a line break: a quote may be open")
    })
}

/// The line where a record begins, as an editor counts. The reader's position is that of the empty lines before it.
pub fn line(record: &StringRecord, text: &str) -> u64 {
    record.position().map_or(0, |position| {
        let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
        let empty = text.bytes().skip(start).take_while(|byte| *byte == b'\n').count();
        position.line() + empty as u64
    })
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

/// What the numbers of a column count. It decides what a comma or a point in them may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figures {
    /// Shares: whole numbers, also of many millions.
    Shares,
    /// Percents: never so large that thousands are separated.
    Percent,
}

/// A number in a form that Postgres reads. Empty for a blank or `-`, which mean that there is no value. `None` for any other text, for
/// NaN and infinity, and for what has two meanings: `1,234` where semicolons stand between the columns, or `1.234` where no commas do.
pub fn number(text: &str, delimiter: u8, figures: Figures) -> Option<String> {
    if matches!(text, "" | "-") {
        return Some(String::new());
    }
    if figures == Figures::Shares && delimiter != b',' && are_thousands(text.trim_start_matches(['+', '-']), '.') {
        return None;
    }
    // Digits and points pass unchanged: nearly all are of this kind.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let written =
        if text.contains(',') { Cow::from(without_commas(text, delimiter, figures)?) } else { Cow::from(text) };
    let value: f64 = written.parse().ok().filter(|value: &f64| value.is_finite())?;
    Some(if plain { text.to_owned() } else { value.to_string() })
}

/// `1,234.5` and `1,234,567` are thousands. In a file with semicolons a single comma is a decimal one, as `0,54` is, unless it could be both.
fn without_commas(text: &str, delimiter: u8, figures: Figures) -> Option<String> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let thousands = figures == Figures::Shares && are_thousands(whole, ',') && fraction.is_none_or(are_digits);
    let decimal =
        delimiter == b';' && text.split_once(',').is_some_and(|(whole, rest)| are_digits(whole) && are_digits(rest));
    match (thousands, decimal) {
        (true, false) => Some(text.replace(',', "")),
        (false, true) => Some(text.replace(',', ".")),
        _ => None,
    }
}

/// Groups of three digits behind a first of one to three. The first does not begin with 0: that is how a fraction begins.
fn are_thousands(text: &str, separator: char) -> bool {
    text.split_once(separator).is_some_and(|(first, rest)| {
        (1..=3).contains(&first.len())
            && are_digits(first)
            && !first.starts_with('0')
            && rest.split(separator).all(|group| group.len() == 3 && are_digits(group))
    })
}

fn are_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The characters that the database can hold, or fewer: one that it cannot hold fails a whole batch of days.
#[derive(Debug, Clone, Copy)]
pub enum Characters {
    /// All of them.
    All,
    /// ASCII, and what the encoding writes as one byte, from this one on.
    Of(&'static Encoding, u8),
    /// ASCII. So it is taken of encodings with more than one byte per character: the tables of Postgres are its own.
    Ascii,
}

/// The parts of ISO 8859 that Postgres calls LATIN1, LATIN2 and so on.
const LATIN: [u8; 10] = [1, 2, 3, 4, 9, 10, 13, 14, 15, 16];

impl Characters {
    /// Of a `server_encoding`.
    pub fn of(server_encoding: &str) -> Self {
        let latin = LATIN.iter().zip(1..).find(|(_, number)| server_encoding == format!("LATIN{number}"));
        let label = match (server_encoding, latin) {
            ("UTF8" | "SQL_ASCII", _) => return Self::All,
            ("WIN866", _) => "ibm866".into(),
            ("KOI8R", _) => "koi8-r".into(),
            ("KOI8U", _) => "koi8-u".into(),
            (_, Some((part, _))) => format!("iso-8859-{part}"),
            (name, None) => match name.strip_prefix("WIN") {
                Some(number) => format!("windows-{number}"),
                None => name.replace('_', "-"),
            },
        };
        // The web reads some parts of ISO 8859 as Windows does, whose bytes from 0x80 to 0x9f are control characters there.
        let lowest = if label.starts_with("iso") || label.starts_with("ISO") { 0xa0 } else { 0x80 };
        Encoding::for_label(label.as_bytes())
            .filter(|encoding| encoding.is_single_byte())
            .map_or(Self::Ascii, |encoding| Self::Of(encoding, lowest))
    }

    fn hold(self, character: char) -> bool {
        match self {
            _ if character.is_ascii() => true,
            Self::All => true,
            Self::Ascii => false,
            Self::Of(encoding, lowest) => {
                // What the encodings of the web have and those of Postgres do not.
                let is_only_there = character.is_control()
                    || character == '\u{5ba}'
                    || (encoding == KOI8_U && matches!(character, '\u{40e}' | '\u{45e}'));
                let mut bytes = [0; 4];
                let (written, _, unmappable) = encoding.encode(character.encode_utf8(&mut bytes));
                !is_only_there && !unmappable && written.iter().all(|byte| *byte >= lowest)
            }
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
                '\u{b4}' | '\u{2bc}' | '\u{2018}'..='\u{201f}' | '\u{2032}' | '\u{2033}' => fitting.push('\''),
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
        for (text, delimiter, shares, percent) in [
            ("1234", ',', "1234", "1234"),
            ("1,234,567", ',', "1234567", "none"),
            ("1,234.5", ',', "1234.5", "none"),
            ("1,234", ',', "1234", "none"),
            ("1.234", ',', "1.234", "1.234"),
            ("0,54", ';', "0.54", "0.54"),
            ("0,054", ';', "0.054", "0.054"),
            ("1,234,567", ';', "1234567", "none"),
            // A thousand, or one and a bit; but no percent is a thousand.
            ("1,234", ';', "none", "1.234"),
            ("1.234", ';', "none", "1.234"),
            ("1.234", '\t', "none", "1.234"),
            ("-1.234", ';', "none", "-1.234"),
            ("0.234", ';', "0.234", "0.234"),
            ("1234.567", ';', "1234.567", "1234.567"),
            ("1.234,5", ';', "none", "none"),
            ("0,54", ',', "none", "none"),
            ("0,054", ',', "none", "none"),
            ("0,054,000", ',', "none", "none"),
            ("0,54", '\t', "none", "none"),
            ("1,23,456", ',', "none", "none"),
            (",", ';', "none", "none"),
            ("1,2345", ',', "none", "none"),
            ("1.2,3", ',', "none", "none"),
            ("1,234.5.6", ',', "none", "none"),
        ] {
            let read = |figures| number(text, delimiter as u8, figures).unwrap_or_else(|| "none".into());
            assert_eq!((&*read(Figures::Shares), &*read(Figures::Percent)), (shares, percent), "{text} {delimiter:?}");
        }
    }

    #[test]
    fn what_a_database_cannot_hold_becomes_plain_or_is_named() {
        let latin1 = Characters::of("LATIN1");
        assert_eq!(latin1.fit("O\u{2019}Brien \u{2013} Caf\u{e9}").unwrap(), "O'Brien - Caf\u{e9}");
        assert!(latin1.fit("\u{4e2d}").unwrap_err().contains("U+4E2D"));
        assert_eq!(Characters::of("WIN1252").fit("O\u{2019}Brien").unwrap(), "O\u{2019}Brien");
        assert_eq!(Characters::of("UTF8").fit("\u{4e2d}").unwrap(), "\u{4e2d}");
        assert!(Characters::of("SQL_ASCII").fit("\u{4e2d}").is_ok());
    }

    #[test]
    fn every_encoding_of_a_database_takes_an_apostrophe_and_what_it_has_itself_and_no_more() {
        // A character that it has, and one that it lacks though the web's encoding of that name has it.
        for (name, own, other) in [
            ("LATIN1", '\u{e9}', '\u{20ac}'),
            ("LATIN2", '\u{159}', '\u{e8}'),
            ("LATIN3", '\u{127}', '\u{159}'),
            ("LATIN4", '\u{137}', '\u{e8}'),
            ("LATIN5", '\u{11f}', '\u{160}'),
            ("LATIN6", '\u{137}', '\u{e8}'),
            ("LATIN7", '\u{17e}', '\u{e8}'),
            ("LATIN8", '\u{175}', '\u{159}'),
            ("LATIN9", '\u{20ac}', '\u{a4}'),
            ("LATIN10", '\u{219}', '\u{159}'),
            ("ISO_8859_5", '\u{416}', '\u{e9}'),
            ("ISO_8859_6", '\u{634}', '\u{e9}'),
            ("ISO_8859_7", '\u{3c9}', '\u{e9}'),
            ("ISO_8859_8", '\u{5d0}', '\u{e9}'),
            ("WIN1250", '\u{159}', '\u{e8}'),
            ("WIN1251", '\u{416}', '\u{e9}'),
            ("WIN1252", '\u{160}', '\u{81}'),
            ("WIN1253", '\u{3c9}', '\u{e9}'),
            ("WIN1254", '\u{11f}', '\u{159}'),
            ("WIN1255", '\u{5d0}', '\u{5ba}'),
            ("WIN1256", '\u{634}', '\u{159}'),
            ("WIN1257", '\u{17e}', '\u{e8}'),
            ("WIN1258", '\u{1b0}', '\u{159}'),
            ("WIN866", '\u{416}', '\u{e9}'),
            ("WIN874", '\u{e01}', '\u{e9}'),
            ("KOI8R", '\u{416}', '\u{491}'),
            ("KOI8U", '\u{491}', '\u{45e}'),
            ("EUC_CN", 'A', '\u{b7}'),
            ("EUC_JIS_2004", 'A', '\u{4e2d}'),
            ("EUC_JP", 'A', '\u{4e2d}'),
            ("EUC_KR", 'A', '\u{4e2d}'),
            ("EUC_TW", 'A', '\u{4e2d}'),
            ("MULE_INTERNAL", 'A', '\u{e9}'),
            ("one that is not known", 'A', '\u{e9}'),
        ] {
            let characters = Characters::of(name);
            assert_eq!(characters.fit(&own.to_string()).as_deref(), Ok(&*own.to_string()), "{name}");
            let written = if other == '\u{20ac}' { Some("EUR") } else { None };
            assert_eq!(characters.fit(&other.to_string()).ok().as_deref(), written, "{name}");
            let apostrophe = characters.fit("O\u{2019}Brien").unwrap();
            assert!(apostrophe == "O'Brien" || characters.hold('\u{2019}'), "{name}");
        }
        // Byte 0x92 of Windows is none of ISO 8859, where the web has one for both.
        assert_eq!(Characters::of("LATIN5").fit("O\u{2019}Brien").unwrap(), "O'Brien");
        assert_eq!(Characters::of("WIN1254").fit("O\u{2019}Brien").unwrap(), "O\u{2019}Brien");
    }

    #[test]
    fn an_open_quote_is_found_where_it_opens() {
        let first = |text: &str| {
            let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(with_end(text));
            for record in reader.records() {
                if is_end(&record.unwrap(), text)? {
                    return Ok(());
                }
            }
            Err("the end was not found".to_owned())
        };
        for whole in ["a,b\n1,2\n", "a,b\n1,2", "a,b\n\n1,\"2\"\n\n", "a,b\n", "a,b\n1,2\"\n"] {
            assert_eq!(first(whole), Ok(()), "{whole:?}");
        }
        assert_eq!(first("a,b\n1,2\n\n\n\"3,4\n").unwrap_err(), "line 5 has a quote that is never closed");
        assert_eq!(first("a,b\n1,\"2").unwrap_err(), "line 2 has a quote that is never closed");
        assert!(first("a,b\n1,\"2\n3\"\n4,5\n").unwrap_err().starts_with("line 2 has a field with a line break"));
    }
}
