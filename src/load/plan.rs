//! Finds the reports among the given paths, and orders the revisions of each date.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::{Refused, report::ReportName};

/// The reports of each date, and the paths that are not reports.
#[derive(Debug, Default)]
pub struct Plan {
    /// The reports of each date by revision; the highest comes last.
    pub dates: BTreeMap<Date, Vec<(ReportName, PathBuf)>>,
    /// Given paths that are not reports, with the reason.
    pub refused: Vec<Refused>,
    /// How many other files lie in the given folders.
    pub others: usize,
}

/// How a report is named.
const EXPECTED: &str = "expected RRyyyymmdd-vvv-SSDailyAggShortPos.csv";
/// ASIC's first report is of 2010; an earlier day is a mistake.
const FIRST_YEAR: i16 = 2000;
/// The zone of the exchange.
const ZONE: &str = "Australia/Sydney";

impl Plan {
    /// Searches files and folders, with their subfolders. In a folder, files that are not named like a report are
    /// counted, and those that nearly are are refused: reports may lie among other files.
    pub fn of(paths: &[PathBuf]) -> Self {
        let mut plan = Self::default();
        for path in paths {
            plan.add(path);
        }
        for reports in plan.dates.values_mut() {
            reports.sort();
            reports.dedup_by(|later, earlier| later.1 == earlier.1);
        }
        plan
    }

    /// How many reports were found.
    pub fn files(&self) -> usize {
        self.dates.values().map(Vec::len).sum()
    }

    fn add(&mut self, path: &Path) {
        match (fs::metadata(path), ReportName::of(path)) {
            (Err(error), _) => self.refuse(path, error.to_string()),
            (Ok(metadata), None) if metadata.is_dir() => {
                let before = (self.files(), self.refused.len());
                if let Err(error) = self.add_folder(path) {
                    self.refuse(path, error.to_string());
                } else if before == (self.files(), self.refused.len()) {
                    self.refuse(path, format!("there is no report in this folder; {EXPECTED}"));
                }
            }
            (Ok(_), None) => {
                self.refuse(path, format!("this is not named like a report; {EXPECTED}"));
            }
            (Ok(metadata), Some(_)) if !metadata.is_file() => {
                self.refuse(path, "this is named like a report, but is no file".into());
            }
            (Ok(_), Some(name)) if name.date.year() < FIRST_YEAR || name.date > tomorrow() => {
                let reason = format!("the name says {}; expected a day from {FIRST_YEAR} until tomorrow", name.date);
                self.refuse(path, reason);
            }
            (Ok(_), Some(name)) => self.dates.entry(name.date).or_default().push((name, path.to_owned())),
        }
    }

    fn add_folder(&mut self, folder: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if ReportName::of(&path).is_some() {
                self.add(&path);
            } else if path.is_dir() && !path.is_symlink() {
                // What lies beside it is looked at all the same.
                if let Err(error) = self.add_folder(&path) {
                    self.refuse(&path, error.to_string());
                }
            } else if ReportName::is_near(&path) {
                self.refuse(&path, format!("this is nearly named like a report; {EXPECTED}"));
            } else {
                self.others += 1;
            }
        }
        Ok(())
    }

    fn refuse(&mut self, path: &Path, reason: String) {
        self.refused.push(Refused { path: path.to_owned(), reason });
    }
}

/// A report may be named by the day after its own.
fn tomorrow() -> Date {
    let now = Timestamp::now();
    let day = now.in_tz(ZONE).map_or_else(|_| now.to_zoned(TimeZone::UTC).date(), |now| now.date());
    day.tomorrow().unwrap_or(day)
}
