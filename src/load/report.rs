//! One daily report of ASIC: `RRyyyymmdd-vvv-SSDailyAggShortPos.csv`.

use std::{collections::HashMap, path::Path};

use csv::{ReaderBuilder, StringRecord, Writer};
use jiff::civil::Date;

use super::text::{Characters, Figures, decode, delimiter, is_blank, is_end, is_note, line, number, with_end};

const PREFIX: &str = "RR";
const SUFFIX: &str = "-SSDailyAggShortPos.csv";
/// The columns as ASIC has named them since 2010, in order.
pub const HEADER: [&str; 5] = [
    "Product",
    "Product Code",
    "Reported Short Positions",
    "Total Product in Issue",
    "% of Total Product in Issue Reported as Short Positions",
];

/// The date and the revision in the name of a report. Ordered by date, then by revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReportName {
    /// The trading day of the report.
    pub date: Date,
    /// 1 for the first publication. The highest valid revision of a date is loaded.
    pub revision: u16,
}

impl ReportName {
    /// Parses a file name; `None` when it is not the name of a report.
    pub fn of(path: &Path) -> Option<Self> {
        // Letter case differs where a system folded it, and archives are compressed.
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        let middle = name.strip_prefix(&PREFIX.to_ascii_lowercase())?.strip_suffix(&SUFFIX.to_ascii_lowercase())?;
        let (date, revision) = middle.split_once('-')?;
        let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(date, 8) || !digits(revision, 3) {
            return None;
        }
        Some(Self { date: Date::strptime("%Y%m%d", date).ok()?, revision: revision.parse().ok()? })
    }

    /// Whether a file that is no report is named nearly like one: a second download, `... (1).csv`, or one without its revision.
    pub fn is_near(path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        name.contains("dailyaggshort") || (name.starts_with("rr2") && name.contains(".csv"))
    }

    /// The file name of a report.
    pub fn file_name(&self) -> String {
        format!("{PREFIX}{}-{:03}{SUFFIX}", self.date.strftime("%Y%m%d"), self.revision)
    }
}

/// The rows of one report, ready for `COPY shorts FROM STDIN (FORMAT csv)`.
#[derive(Debug)]
pub struct Report {
    /// The number of rows; at least one.
    pub rows: usize,
    /// The rows as CSV, with the columns of `shorts` in order; an empty field is NULL.
    pub copy: Vec<u8>,
    /// What is loaded as it is, and unlikely.
    pub notes: Vec<String>,
}

/// Characters of a code or a name, and of a number. Published ones have up to 6, 100 and 20.
const LONGEST: (usize, usize, usize) = (32, 500, 60);

impl Report {
    /// Parses a whole report, for a database that can hold these characters.
    ///
    /// Fails with the reason: the line, what was found and what was expected.
    pub fn parse(date: Date, characters: Characters, bytes: &[u8]) -> Result<Self, String> {
        let text = decode(bytes)?;
        let first_line = text.lines().next().unwrap_or_default();
        let delimiter = delimiter(first_line);
        // Rows and columns without text, and a note below, are what spreadsheets leave: so lengths are looked at here.
        let mut reader = ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(with_end(&text));
        let header = reader.headers().map_err(|error| error.to_string())?;
        if !is_header(header) {
            let found: String = first_line.chars().take(60).collect();
            return Err(format!(
                "the first line is no report's header: found {found:?}, expected {:?}",
                HEADER.join(",")
            ));
        }

        let mut copy = Writer::from_writer(Vec::with_capacity(text.len() + text.len() / 4));
        let day = date.to_string();
        let mut seen: HashMap<String, (u64, StringRecord)> = HashMap::new();
        let mut rows = 0;
        let mut notes = Vec::new();
        let mut below = None;
        for record in reader.records() {
            let mut record = record.map_err(|error| error.to_string())?;
            if is_end(&record, &text)? {
                break;
            }
            record.trim();
            let line = line(&record, &text);
            let (found, expected) = (record.len(), HEADER.len());
            if is_blank(&record) {
                continue;
            }
            if is_note(&record, expected, &text) {
                below = below.or_else(|| Some((line, record[0].to_owned())));
                continue;
            }
            if let Some((note, _)) = below {
                return Err(format!(
                    "line {note} has text in its first column only, and line {line} is a row: one of them is damaged"
                ));
            }
            if found < expected || record.iter().skip(expected).any(|field| !field.is_empty()) {
                return Err(format!(
                    "line {line} has {found} fields; expected {expected}: the file may be cut off, or a quote be open"
                ));
            }
            let code = &record[1];
            if code.is_empty() {
                return Err(format!("line {line} has no product code"));
            }
            check_lengths(&record, line)?;
            if let Some((earlier, same)) = seen.get(code) {
                if *same == record {
                    continue;
                }
                return Err(format!("lines {earlier} and {line} both report {code}, with different figures"));
            }
            let number = |column: usize, text: &str| {
                let figures = if column == 4 { Figures::Percent } else { Figures::Shares };
                number(text, delimiter, figures).ok_or_else(|| {
                    format!(
                        "line {line} has {text:?} for {:?}; expected a number that reads in one way",
                        HEADER[column]
                    )
                })
            };
            let percent = record[4].strip_suffix('%').map_or(&record[4], str::trim_end);
            let written = number(4, percent)?;
            let percent = written.parse::<f64>().unwrap_or_default();
            if percent < 0.0 {
                return Err(format!(
                    "line {line} has {:?} for {:?}; expected no negative number",
                    &record[4], HEADER[4]
                ));
            }
            if percent > 100.0 {
                notes.push(format!("line {line}: {code} is reported with {percent} %, more than there is"));
            }
            let fit = |text| characters.fit(text).map_err(|reason| format!("line {line}: {reason}"));
            let fields =
                [&day, &*fit(&record[0])?, &*fit(code)?, &number(2, &record[2])?, &number(3, &record[3])?, &written];
            copy.write_record(fields).map_err(|error| error.to_string())?;
            rows += 1;
            seen.insert(code.to_owned(), (line, record));
        }
        if rows == 0 {
            return Err("the report has a header and no rows; loading it would only delete the day".into());
        }
        if let Some((line, first)) = below {
            let first: String = first.chars().take(60).collect();
            notes.push(format!("line {line} and what follows is taken for a note, and is not loaded: {first:?}"));
        }
        if !text.ends_with(['\n', '\r']) {
            notes.push("the last line has no line end: it may be cut off, in its last number too".into());
        }
        let copy = copy.into_inner().map_err(|error| error.to_string())?;
        Ok(Self { rows, copy, notes })
    }
}

/// Whether a line is a report's header, in whatever case; columns without a name may follow.
fn is_header(header: &StringRecord) -> bool {
    let (names, rest) = (header.iter().take(HEADER.len()), header.iter().skip(HEADER.len()));
    header.len() >= HEADER.len()
        && names.zip(HEADER).all(|(name, own)| name.trim().eq_ignore_ascii_case(own))
        && rest.into_iter().all(|name| name.trim().is_empty())
}

fn check_lengths(record: &StringRecord, line: u64) -> Result<(), String> {
    for (column, longest) in [(0, LONGEST.1), (1, LONGEST.0), (2, LONGEST.2), (3, LONGEST.2), (4, LONGEST.2)] {
        let length = record[column].chars().count();
        if length > longest {
            let name = HEADER[column];
            return Err(format!("line {line} has {length} characters for {name:?}; expected at most {longest}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    fn parse(rows: &str) -> Result<String, String> {
        let text = format!("{}\r\n{rows}", HEADER.join(","));
        Report::parse(date(2023, 1, 2), Characters::All, text.as_bytes())
            .map(|report| String::from_utf8(report.copy).unwrap())
    }

    #[test]
    fn a_report_is_known_by_its_name() {
        let name = |text: &str| ReportName::of(Path::new(text));
        let found = name("some/RR20150120-002-SSDailyAggShortPos.csv").unwrap();
        assert_eq!(found, ReportName { date: date(2015, 1, 20), revision: 2 });
        assert_eq!(found.file_name(), "RR20150120-002-SSDailyAggShortPos.csv");
        for same in ["rr20150120-002-ssdailyaggshortpos.CSV", "RR20150120-002-SSDailyAggShortPos.csv.gz"] {
            assert_eq!(name(same), Some(found), "{same}");
        }
        for near in ["RR20150120-002-SSDailyAggShortPos (1).csv", "RR20150120-SSDailyAggShortPos.csv"] {
            assert!(ReportName::is_near(Path::new(near)), "{near}");
        }
        assert!(!ReportName::is_near(Path::new("readme.txt")));
        for other in [
            "RR20150229-001-SSDailyAggShortPos.csv",
            "RR2015012-001-SSDailyAggShortPos.csv",
            "RR20150120-1-SSDailyAggShortPos.csv",
            "RR20150120-001-SSDailyAggShortPos.csv.part",
            "RR+2015012-001-SSDailyAggShortPos.csv",
            "readme.txt",
        ] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn numbers_are_taken_as_written_and_blanks_are_null() {
        let rows = "\"A, B LTD\",ABC ,1,200,.1829\r\nC,CBA,-,,-\r\nD,D,1e3,2.50,1e-400\r\n";
        assert_eq!(
            parse(rows).unwrap(),
            "2023-01-02,\"A, B LTD\",ABC,1,200,.1829\n2023-01-02,C,CBA,,,\n2023-01-02,D,D,1000,2.50,0\n"
        );
    }

    #[test]
    fn a_repeated_row_counts_once_and_a_contradiction_is_refused() {
        assert_eq!(parse("A,ABC,1,2,3\nA,ABC,1,2,3\n").unwrap().lines().count(), 1);
        assert!(parse("A,ABC,1,2,3\nA,ABC,1,2,4\n").unwrap_err().contains("lines 2 and 3 both report ABC"));
    }

    #[test]
    fn what_is_not_a_whole_report_is_refused_with_its_line() {
        assert!(parse("A,ABC,1,2,3\nB,BCD,1,2\n").unwrap_err().contains("line 3 has 4 fields; expected 5"));
        assert!(parse("A,ABC,1,2,NaN\n").unwrap_err().contains("line 2 has \"NaN\" for \"% of Total"));
        assert!(parse("A,ABC,inf,2,3\n").unwrap_err().contains("\"inf\""));
        assert!(parse("A,ABC,1e999,2,3\n").unwrap_err().contains("\"1e999\""));
        assert!(parse("A,ABC,1,2,-0.5\n").unwrap_err().contains("line 2 has \"-0.5\""));
        assert!(parse(&format!("A,ABC,1,2,0.{}\n", "1".repeat(300))).unwrap_err().contains("302 characters"));
        assert!(parse(&format!("A,{},1,2,3\n", "A".repeat(6000))).unwrap_err().contains("6000 characters"));
        assert!(parse("A,,1,2,3\n").unwrap_err().contains("line 2 has no product code"));
        assert!(parse("").unwrap_err().contains("no rows"));
        assert!(
            Report::parse(date(2023, 1, 2), Characters::All, b"<html><body>Not found</body></html>")
                .unwrap_err()
                .contains("<html>")
        );
    }

    #[test]
    fn a_report_that_a_spreadsheet_saved_again_is_read() {
        let header = HEADER.join(",").to_uppercase();
        let text = format!("{header},,\nA LTD,ABC,\"1,234\",\"2,000,000\",0.54%,,\n,,,,,,\n\nSource: ASIC,,,,,,\n");
        let report = Report::parse(date(2023, 1, 2), Characters::All, text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(report.copy).unwrap(), "2023-01-02,A LTD,ABC,1234,2000000,0.54\n");
        let text = format!("{}\nA LTD;ABC;1;200;0,54\n\nA note\n", HEADER.join(";"));
        let report = Report::parse(date(2023, 1, 2), Characters::All, text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(report.copy).unwrap(), "2023-01-02,A LTD,ABC,1,200,0.54\n");
        let refused = |rows: &str, reason: &str| {
            let refusal = parse(rows).unwrap_err();
            assert!(refusal.contains(reason), "{rows:?}: {refusal}");
        };
        refused("A,ABC,1,2,3\nBETA BA", "line 3 has 1 fields");
        refused("A,ABC,1,2,3\nA note,,,,\nB,BCD,1,2,3\n", "line 3 has text in its first column only");
        refused("A,ABC,1,2,3,4\n", "line 2 has 6 fields");
        refused("A,ABC,\"1,23\",2,3\n", "line 2 has \"1,23\"");
        refused("A,ABC,\"0,054\",2,3\n", "line 2 has \"0,054\" for \"Reported Short Positions\"");
        refused("A,ABC,1,2,\"0,054\"\n", "line 2 has \"0,054\" for \"% of Total Product");
        refused("A,ABC,1,2,\"1,234\"\n", "line 2 has \"1,234\" for \"% of Total Product");
        let text = format!("{}\nA LTD;ABC;1;1.234;0,54\n", HEADER.join(";"));
        let refusal = Report::parse(date(2023, 1, 2), Characters::All, text.as_bytes()).unwrap_err();
        assert!(refusal.contains("line 2 has \"1.234\" for \"Total Product in Issue\""), "{refusal}");
    }

    #[test]
    fn what_an_open_quote_takes_in_is_refused_and_never_taken_for_a_note() {
        for (rows, reason) in [
            ("A,ABC,1,2,3\n\n\"B,BCD,1,2,3\nC,CDE,1,2,3\n", "line 4 has a quote that is never closed"),
            ("A,ABC,1,2,3\n\n\"Source: ASIC\n", "line 4 has a quote that is never closed"),
            ("A,ABC,1,2,\"3\n", "line 2 has a quote that is never closed"),
            ("A,ABC,1,2,3\n\n\"B,BCD,1,2,3\nC,CDE,1,2,3\n\"\n", "line 4 has a field with a line break"),
            ("A,ABC,1,2,3\n\"B,BCD,1,2,3\nC, D\",CDE,1,2,3\n", "line 3 has a field with a line break"),
        ] {
            let refusal = parse(rows).unwrap_err();
            assert!(refusal.contains(reason), "{rows:?}: {refusal}");
        }
    }

    #[test]
    fn what_is_left_out_or_may_be_cut_off_is_noted() {
        let notes = |rows: &str| {
            let text = format!("{}\n{rows}", HEADER.join(","));
            Report::parse(date(2023, 1, 2), Characters::All, text.as_bytes()).unwrap().notes
        };
        assert!(notes("A,ABC,1,2,3\n\n").is_empty());
        assert!(notes("A,ABC,1,2,3\n\nSource: ASIC\n")[0].contains("line 4 and what follows"));
        assert!(notes("A,ABC,1,2,3")[0].contains("no line end"));
    }

    proptest! {
        // `make soak` asks for more of them.
        #![proptest_config(ProptestConfig::with_cases(
            std::env::var("TREEMAP_DAMAGED_REPORTS").ok().and_then(|number| number.parse().ok()).unwrap_or(2_000)
        ))]

        #[test]
        fn a_damaged_report_is_read_whole_or_refused_with_a_reason(
            utf_16: bool,
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let lines = published(utf_16);
            let whole = lines.concat();
            let rows = rows(&Report::parse(date(2023, 1, 2), Characters::All, &whole).unwrap());
            prop_assert_eq!(rows.len() + 1, lines.len());
            let mut bytes = whole.clone();
            for (place, byte) in &damage {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            let cut = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
            bytes.truncate(cut);

            match Report::parse(date(2023, 1, 2), Characters::All, &bytes) {
                Ok(report) => {
                    let read = self::rows(&report);
                    prop_assert!(read.len() == report.rows && read.iter().all(|row| row.len() == 6));
                    let (mut start, mut damaged, mut complete) = (lines[0].len(), 0, 0);
                    for (line, row) in lines[1..].iter().zip(&rows) {
                        let end = start + line.len();
                        // The line end before it belongs to it: without that, it is no line of its own.
                        let before = start - if utf_16 { 4 } else { 2 };
                        let is_intact = bytes.get(before..end) == Some(&whole[before..end]);
                        prop_assert!(!is_intact || read.contains(row), "lost: {row:?}");
                        complete += usize::from(end <= cut);
                        damaged += usize::from(!is_intact && start < cut);
                        start = end;
                    }
                    let made = read.iter().filter(|row| !rows.contains(row)).count();
                    prop_assert!(made <= damaged, "{made} rows from {damaged} damaged lines");
                    let says = |words: &str| report.notes.iter().any(|note| note.contains(words));
                    prop_assert!(read.len() >= complete || says("is not loaded"), "lost without a word");
                    // A last number that is cut off cannot be seen, but for the missing line end.
                    let ends: [&[u8]; 2] = if utf_16 { [b"\n\0", b"\r\0"] } else { [b"\n", b"\r"] };
                    let is_ended = ends.iter().any(|end| bytes.ends_with(end));
                    prop_assert!(is_ended || says("has no line end"), "cut off without a word");
                }
                Err(reason) => {
                    let of_the_file = ["the file is empty", "this is no text", "a header and no rows"];
                    let is_named = reason.contains("line") || of_the_file.iter().any(|words| reason.contains(words));
                    prop_assert!(is_named, "{}", reason);
                }
            }
        }
    }

    /// The lines of a report as they are published: names with commas in quotes, blanks behind codes, percents of every form.
    fn published(utf_16: bool) -> Vec<Vec<u8>> {
        let delimiter = if utf_16 { "\t" } else { "," };
        let rows = (0..20).map(|row| {
            let (quote, ending) = if row % 5 == 0 { ("\"", ", INC") } else { ("", " LTD") };
            let percent = [format!("{row}.5"), ".1829".into(), "-".into(), String::new()][row % 4].clone();
            let name = format!("{quote}COMPANY {row}{ending}{quote}");
            [name, format!("C{row:02} "), format!("{row}00"), "1000".into(), percent].join(delimiter)
        });
        let lines = std::iter::once(HEADER.join(delimiter)).chain(rows).map(|line| line + "\r\n");
        let mut encoded: Vec<Vec<u8>> = lines
            .map(|line| if utf_16 { line.encode_utf16().flat_map(u16::to_le_bytes).collect() } else { line.into() })
            .collect();
        if utf_16 {
            encoded[0].splice(0..0, [0xff, 0xfe]);
        }
        encoded
    }

    fn rows(report: &Report) -> Vec<StringRecord> {
        let mut reader = ReaderBuilder::new().has_headers(false).from_reader(&report.copy[..]);
        reader.records().collect::<Result<_, _>>().unwrap()
    }
}
