//! Loads the ASX list of companies into `"company-metadata"`: code, name and industry group. A company on the list is
//! updated or added. A company that is not on the list stays: its short positions may still be reported.

use std::{borrow::Cow, collections::BTreeMap, path::Path, time::Duration};

use csv::{ReaderBuilder, StringRecord};
use tokio_postgres::types::Type;

use super::{
    Refused, read,
    text::{Characters, decode, delimiter, is_blank, is_end, is_note, line, with_end},
};
use crate::postgres::{Session, error::DbError};

const BOUND: Duration = Duration::from_secs(60);
/// The published layouts differ in title lines, column order, letter case and extra columns. Columns are found by name.
const CODE: &str = "ASX code";
const NAME: &str = "Company name";
/// The first is what ASX writes; the others are what people make of it.
const INDUSTRY: [&str; 5] = ["GICS industry group", "Industry group", "Industry", "GICS sector", "Sector"];

/// Companies by code: name and industry group.
#[derive(Debug, PartialEq, Eq)]
pub struct Companies(BTreeMap<String, (String, String)>);

/// What loading a list changed.
#[derive(Debug)]
pub struct Loaded {
    /// Companies on the list.
    pub listed: usize,
    /// Companies that are new in the table.
    pub added: u64,
    /// Companies whose name or industry group changed.
    pub updated: u64,
}

impl Companies {
    /// Reads a list.
    ///
    /// Fails with the reason why the list cannot be loaded.
    pub fn read(path: &Path) -> Result<Self, Refused> {
        read(path).and_then(|bytes| Self::parse(&bytes)).map_err(|reason| Refused { path: path.to_owned(), reason })
    }

    /// The same companies in characters that the database can hold.
    fn fit(&self, characters: Characters) -> Result<Self, String> {
        let mut companies = BTreeMap::new();
        for (code, (name, industry)) in &self.0 {
            let fit = |text: &str| {
                characters.fit(text).map(Cow::into_owned).map_err(|reason| format!("company {code}: {reason}"))
            };
            companies.insert(fit(code)?, (fit(name)?, fit(industry)?));
        }
        Ok(Self(companies))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = decode(bytes)?;
        let header = text.lines().find(|line| line.to_ascii_lowercase().contains(&CODE.to_ascii_lowercase()));
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter(header.unwrap_or_default()))
            .from_reader(with_end(&text));
        let mut records = reader.records();
        // Title lines may come before the header. They are skipped.
        let columns = loop {
            match records.next() {
                Some(Ok(record)) => {
                    if let Some(columns) = columns(&record) {
                        break columns;
                    }
                }
                Some(Err(error)) => return Err(error.to_string()),
                None => {
                    return Err(format!(
                        "no line names the columns; expected {CODE:?}, {NAME:?} and {:?}",
                        INDUSTRY[0]
                    ));
                }
            }
        };
        let mut companies: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut below = None;
        for record in records {
            let record = record.map_err(|error| error.to_string())?;
            if is_end(&record, &text)? {
                break;
            }
            let line = line(&record, &text);
            if is_blank(&record) {
                continue;
            }
            if is_note(&record, usize::MAX, &text) {
                below = below.or(Some(line));
                continue;
            }
            if let Some(note) = below {
                return Err(format!(
                    "line {note} has text in its first column only, and line {line} is a row: one of them is damaged"
                ));
            }
            let [Some(code), Some(name), Some(industry)] = columns.map(|column| record.get(column).map(str::trim))
            else {
                return Err(format!("line {line} has {} fields: the file may be cut off", record.len()));
            };
            if code.is_empty() {
                return Err(format!("line {line} has no code"));
            }
            match companies.get(code) {
                // The row with an industry group counts.
                Some((_, earlier)) if industry.is_empty() && !earlier.is_empty() => continue,
                Some((same, earlier)) if !earlier.is_empty() && (earlier != industry || same != name) => {
                    return Err(format!("line {line} lists {code} again, as another company"));
                }
                _ => companies.insert(code.to_owned(), (name.to_owned(), industry.to_owned())),
            };
        }
        if companies.is_empty() {
            return Err("the list has a header and no companies".into());
        }
        Ok(Self(companies))
    }

    /// Writes the companies to the table in one transaction. Columns that are not on the list keep their values. No
    /// unique index is needed.
    ///
    /// Fails: the database fails, or cannot store a name; then nothing is changed.
    pub async fn load(&self, session: &Session) -> anyhow::Result<Loaded> {
        let fitting = self.fit(super::characters(session).await?).map_err(anyhow::Error::msg)?;
        Ok(fitting.write(session).await?)
    }

    async fn write(&self, session: &Session) -> Result<Loaded, DbError> {
        let codes: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let names: Vec<&str> = self.0.values().map(|(name, _)| name.as_str()).collect();
        let industries: Vec<&str> = self.0.values().map(|(_, industry)| industry.as_str()).collect();
        session
            .transaction("load companies", BOUND, async {
                let client = session.client();
                client.batch_execute("SELECT pg_advisory_xact_lock(hashtextextended('treemap.load', 0))").await?;
                let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
                    [(&codes, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY), (&industries, Type::TEXT_ARRAY)];
                let updated = client.execute_typed(UPDATE, &parameters).await?;
                let added = client.execute_typed(INSERT, &parameters).await?;
                Ok(Loaded { listed: codes.len(), added, updated })
            })
            .await
    }
}

const UPDATE: &str = r#"
    UPDATE public."company-metadata" AS old SET company_name = new.name, industry = new.industry
    FROM unnest($1::text[], $2::text[], $3::text[]) AS new (code, name, industry)
    WHERE old.stock_code::text = new.code
        AND (old.company_name::text, old.industry::text) IS DISTINCT FROM (new.name, new.industry)"#;
const INSERT: &str = r#"
    INSERT INTO public."company-metadata" (stock_code, company_name, industry)
    SELECT new.code, new.name, new.industry
    FROM unnest($1::text[], $2::text[], $3::text[]) AS new (code, name, industry)
    WHERE NOT EXISTS (SELECT FROM public."company-metadata" AS old WHERE old.stock_code::text = new.code)"#;

/// The positions of code, name and industry group, if this line is the header.
fn columns(record: &StringRecord) -> Option<[usize; 3]> {
    let place = |name: &str| record.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
    Some([place(CODE)?, place(NAME)?, INDUSTRY.iter().find_map(|name| place(name))?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn company(code: &str, name: &str, industry: &str) -> Companies {
        Companies(BTreeMap::from([(code.into(), (name.into(), industry.into()))]))
    }

    #[test]
    fn both_layouts_are_read_by_their_header() {
        let titled = b"ASX listed companies as at Mon Mar 02\n\nCompany name,ASX code,GICS industry group\n\"A, B LTD\",\"AB\",\"Banks\"\n";
        let dated = b"\"ASX code\",\"Company name\",\"GICs industry group\",\"Listing date\",\"Market Cap\"\n\"AB\",\"A, B LTD\",\"Banks\",\"01/02/2003\",15\n";
        assert_eq!(Companies::parse(titled).unwrap(), company("AB", "A, B LTD", "Banks"));
        assert_eq!(Companies::parse(dated).unwrap(), company("AB", "A, B LTD", "Banks"));
    }

    #[test]
    fn what_is_not_a_whole_list_is_refused() {
        let refusal = |text: &[u8]| Companies::parse(text).unwrap_err();
        assert!(refusal(b"a,b\nc,d\n").contains("no line names the columns"));
        assert!(refusal(b"Company name,ASX code,GICS industry group\n").contains("no companies"));
        assert!(refusal(b"Company name,ASX code,GICS industry group\nA LTD,A\n").contains("line 2 has 2 fields"));
        assert!(
            refusal(b"Company name,ASX code,GICS industry group\nA,A,Banks\nB,A,Banks\n").contains("lists A again")
        );
        assert!(refusal(b"").contains("empty"));
        let rows =
            |rows: &str| refusal(format!("Company name,ASX code,GICS industry group\nA,A,Banks\n{rows}").as_bytes());
        assert!(rows("\n\"B,B,Banks\nC,C,Banks\n").contains("line 4 has a quote that is never closed"));
        assert!(rows("\"B,B,Banks\nC\",C,Banks\n").contains("line 3 has a field with a line break"));
        assert!(rows("\nB LT\nC,C,Banks\n").contains("line 4 has text in its first column only, and line 5 is a row"));
    }

    #[test]
    fn a_list_that_a_spreadsheet_saved_again_is_read() {
        let tabs = b"ASX Code\tCompany Name\tSector\nAB\tA, B LTD\tBanks\n\t\t\n\nSource: ASX\n";
        assert_eq!(Companies::parse(tabs).unwrap(), company("AB", "A, B LTD", "Banks"));
        let twice = b"ASX code;Company name;GICS industry group\nAB;A;\nAB;A, B LTD;Banks\nAB;A;\n";
        assert_eq!(Companies::parse(twice).unwrap(), company("AB", "A, B LTD", "Banks"));
    }

    proptest::proptest! {
        #[test]
        fn no_list_makes_it_panic(bytes: Vec<u8>, rows in "[\u{0}-\u{ff},;\t\"\n]{0,300}") {
            let _ = Companies::parse(&bytes);
            let _ = Companies::parse(format!("ASX code,Company name,Sector\n{rows}").as_bytes());
        }
    }
}
