//! The rows of a picture as CSV (RFC 4180, UTF-8).

use super::{Picture, plain};

const HEADER: [&str; 8] = [
    "industry",
    "code",
    "company",
    "current_percent",
    "earliest_percent",
    "change_percent",
    "report_date",
    "data_date",
];

/// The file.
pub fn write(picture: &Picture) -> String {
    let mut rows = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    // Writing into memory does not fail.
    let _ = rows.write_record(HEADER);
    for industry in &picture.treemap.industries {
        for stock in &industry.stocks {
            let numbers = [stock.current_percent.to_string(), stock.earliest_percent.to_string()];
            let change = stock.change_percent.map(|change| change.to_string()).unwrap_or_default();
            let _ = rows.write_record([
                &cell(&industry.name),
                &cell(&stock.code),
                &cell(&stock.company_name),
                &numbers[0],
                &numbers[1],
                &change,
                &stock.report_date,
                &picture.treemap.data_date,
            ]);
        }
    }
    rows.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// A text that a spreadsheet would take for a formula is quoted by an apostrophe, as OWASP advises.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    format!("{}{}", if formula { "'" } else { "" }, plain(text))
}
