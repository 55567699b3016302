//! Values as JavaScript prints them, which Go's protojson and protobuf-es do too: `serde_json` prints 100.0 and 1e+16.

use std::fmt::Write;

/// Writes a string with its quotes.
pub fn write_string(text: &str, json: &mut String) {
    // A string can always be written.
    json.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// Writes a finite number as JavaScript does: shortest digits, with an exponent from 1e21 on and below 1e-6.
pub fn write_number(number: f64, json: &mut String) {
    let size = number.abs();
    let start = json.len();
    // Writing into a string does not fail.
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        let _ = write!(json, "{number}");
    } else {
        let _ = write!(json, "{number:e}");
        if let Some(exponent) = json[start..].find('e')
            && !json[start + exponent + 1..].starts_with('-')
        {
            json.insert(start + exponent + 1, '+');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_in_javascript() {
        for (number, printed) in [
            (0.1, "0.1"),
            (3.576_965_73, "3.57696573"),
            (100.0, "100"),
            (1e16, "10000000000000000"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (5e-324, "5e-324"),
            (-2.5, "-2.5"),
            (-1e-9, "-1e-9"),
        ] {
            let mut json = String::new();
            write_number(number, &mut json);
            assert_eq!(json, printed);
            assert_eq!(json.parse::<f64>().unwrap().to_bits(), number.to_bits());
        }
    }
}
