//! Decodes the bytes of a published file to text. Until 2022-06-02 ASIC published UTF-16, with some ASCII files; since
//! then it publishes ASCII. The encoding is detected from the bytes, never from the date.

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
}
