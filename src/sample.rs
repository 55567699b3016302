//! Writes synthetic daily reports and a company list in the real formats, for trials and tests without real files. The
//! same arguments write the same bytes. Every file is marked as synthetic.

use std::{
    fmt::Write,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use fastrand::Rng;
use jiff::civil::{Date, Weekday};

use crate::load::report::{HEADER, ReportName};

/// The first day whose report is ASCII with commas; earlier reports are UTF-16 with tabs.
const COMMA_ERA: Date = jiff::civil::date(2022, 6, 3);

/// The ASX industry groups, each with its approximate share of 100 listed companies.
const INDUSTRIES: [(&str, u32); 27] = [
    ("Automobiles & Components", 1),
    ("Banks", 1),
    ("Capital Goods", 4),
    ("Class Pend", 1),
    ("Commercial & Professional Services", 2),
    ("Consumer Discretionary Distribution & Retail", 2),
    ("Consumer Durables & Apparel", 1),
    ("Consumer Services", 2),
    ("Consumer Staples Distribution & Retail", 1),
    ("Energy", 6),
    ("Equity Real Estate Investment Trusts (REITs)", 2),
    ("Financial Services", 5),
    ("Food, Beverage & Tobacco", 2),
    ("Health Care Equipment & Services", 4),
    ("Household & Personal Products", 1),
    ("Insurance", 1),
    ("Materials", 37),
    ("Media & Entertainment", 2),
    ("Not Applic", 9),
    ("Pharmaceuticals, Biotechnology & Life Sciences", 4),
    ("Real Estate Management & Development", 1),
    ("Semiconductors & Semiconductor Equipment", 1),
    ("Software & Services", 5),
    ("Technology Hardware & Equipment", 1),
    ("Telecommunication Services", 1),
    ("Transportation", 1),
    ("Utilities", 1),
];

/// What to write.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// How many companies are listed.
    pub companies: u32,
    /// The first day that may have a report; weekends have none.
    pub from: Date,
    /// The last day that may have a report.
    pub to: Date,
    /// The seed of the random figures.
    pub seed: u64,
}

/// A company and its current short position.
struct Company {
    code: String,
    industry: &'static str,
    issued: f64,
    /// The percentage to which its short position returns.
    usual: f64,
    percent: f64,
}

impl Sample {
    /// Writes the reports into `folder`/reports and the list to `folder`/companies.csv. The folder must be new or
    /// empty. Either all files appear in it, or none.
    ///
    /// Fails: the folder is not empty or cannot be written, or there is no weekday between the dates.
    pub fn write(&self, folder: &Path) -> anyhow::Result<Written> {
        ensure!(self.from <= self.to, "there is no day from {} to {}", self.from, self.to);
        match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => bail!("{} is not empty; expected a new folder", folder.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write to {}", folder.display())),
        }
        let mut partial = folder.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let written = self.write_to(&partial).and_then(|written| {
            fs::rename(&partial, folder)?;
            Ok(written)
        });
        if written.is_err() {
            // Remove the partial files. An error here is ignored: the first error is the one to report.
            let _ = fs::remove_dir_all(&partial);
        }
        written.with_context(|| format!("cannot write the sample to {}", folder.display()))
    }

    fn write_to(&self, folder: &Path) -> anyhow::Result<Written> {
        let reports = folder.join("reports");
        fs::create_dir_all(&reports)?;
        fs::write(
            folder.join("SYNTHETIC.txt"),
            format!(
                "Synthetic data, written by: treemap sample --companies {} --from {} --to {} --seed {}\n\
                 No figure in here is of a real company.\n",
                self.companies, self.from, self.to, self.seed
            ),
        )?;
        let mut rng = Rng::with_seed(self.seed);
        let mut companies: Vec<_> = (0..self.companies).map(|number| company(number, &mut rng)).collect();
        fs::write(folder.join("companies.csv"), list(&companies))?;

        let mut written = Written { reports: 0, rows: 0 };
        for date in self.from.series(jiff::ToSpan::days(1)).take_while(|date| *date <= self.to) {
            if matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday) {
                continue;
            }
            let (bytes, rows) = report(date, &mut companies, &mut rng);
            fs::write(reports.join(ReportName { date, revision: 1 }.file_name()), bytes)?;
            written.reports += 1;
            written.rows += rows;
        }
        ensure!(written.reports > 0, "there is no weekday from {} to {}", self.from, self.to);
        Ok(written)
    }
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Reports, one per weekday.
    pub reports: usize,
    /// Rows of all reports.
    pub rows: usize,
}

fn company(number: u32, rng: &mut Rng) -> Company {
    // The first companies cover each industry once. The others are distributed roughly as on the ASX.
    let industry = INDUSTRIES.get(number as usize).map_or_else(
        || {
            let mut place = rng.u32(0..INDUSTRIES.iter().map(|(_, share)| share).sum());
            INDUSTRIES
                .iter()
                .find(|(_, share)| {
                    let found = place < *share;
                    place = place.saturating_sub(*share);
                    found
                })
                .map_or("Not Applic", |(name, _)| name)
        },
        |(name, _)| name,
    );
    // Most positions are small, a few are large.
    let usual = 10f64.powf(rng.f64() * 3.0 - 2.0);
    Company { code: code(number), industry, issued: (10f64.powf(rng.f64() * 3.0 + 7.0)).round(), usual, percent: usual }
}

/// AAA, AAB, ... ZZZ, AAAA, ...
fn code(number: u32) -> String {
    let mut length = 3;
    let mut left = number;
    while let Some(rest) = left.checked_sub(26u32.pow(length)) {
        left = rest;
        length += 1;
    }
    let digit = |place: u32| char::from(b'A' + u8::try_from(left / 26u32.pow(place) % 26).unwrap_or_default());
    (0..length).rev().map(digit).collect()
}

/// The company list, in the layout with a title.
fn list(companies: &[Company]) -> String {
    let mut text =
        "SYNTHETIC list of companies, none of them real\n\nCompany name,ASX code,GICS industry group\n".to_owned();
    for Company { code, industry, .. } in companies {
        let _ = writeln!(text, "\"SYNTHETIC {code} LIMITED\",\"{code}\",\"{industry}\"");
    }
    text
}

/// The report of one day. Moves the short position of each company by one step.
fn report(date: Date, companies: &mut [Company], rng: &mut Rng) -> (Vec<u8>, usize) {
    let commas = date >= COMMA_ERA;
    let (delimiter, padding, end) = if commas { (",", "", "\r\n") } else { ("\t", " ", "\n") };
    let mut text = HEADER.join(delimiter) + end;
    let mut rows = 0;
    for company in companies {
        // A random walk: the step is proportional to the position, and the position returns to its usual value.
        company.percent *= (rng.f64() - 0.5).mul_add(0.1, 1.0);
        company.percent += (company.usual - company.percent) * 0.005;
        // Sometimes a company has no short positions and is not in the report.
        if rng.u32(0..100) == 0 {
            continue;
        }
        let Company { code, issued, percent, .. } = company;
        let shorts = (*issued * *percent / 100.0).round();
        let mut figure = format!("{:.8}", shorts / *issued * 100.0);
        if commas && figure.starts_with("0.") {
            figure.remove(0);
        }
        let fields = [
            format!("SYNTHETIC {code} LTD ORDINARY"),
            format!("{code}{padding}"),
            shorts.to_string(),
            issued.to_string(),
            figure,
        ];
        text.push_str(&fields.join(delimiter));
        text.push_str(end);
        rows += 1;
    }
    let bytes = if commas {
        text.into_bytes()
    } else {
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    (bytes, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_all_different_and_grow_when_the_letters_are_used_up() {
        assert_eq!([code(0), code(25), code(26), code(17_575), code(17_576)], ["AAA", "AAZ", "ABA", "ZZZ", "AAAA"]);
    }
}
