//! Finds the reports among the given paths, and orders the revisions of each date.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use jiff::civil::Date;

use super::{Refused, report::ReportName};

/// The reports of each date, and the paths that are not reports.
#[derive(Debug, Default)]
pub struct Plan {
    /// The reports of each date by revision; the highest comes last.
    pub dates: BTreeMap<Date, Vec<(ReportName, PathBuf)>>,
    /// Given paths that are not reports, with the reason.
    pub refused: Vec<Refused>,
}

impl Plan {
    /// Searches files and folders, with their subfolders. In a folder, files that are not named like a report are
    /// ignored: reports may lie among other files.
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
                    self.refuse(
                        path,
                        "there is no report in this folder; expected RRyyyymmdd-vvv-SSDailyAggShortPos.csv".into(),
                    );
                }
            }
            (Ok(_), None) => {
                self.refuse(
                    path,
                    "this is not named like a report; expected RRyyyymmdd-vvv-SSDailyAggShortPos.csv".into(),
                );
            }
            (Ok(metadata), Some(_)) if !metadata.is_file() => {
                self.refuse(path, "this is named like a report, but is no file".into());
            }
            (Ok(_), Some(name)) => self.dates.entry(name.date).or_default().push((name, path.to_owned())),
        }
    }

    fn add_folder(&mut self, folder: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if ReportName::of(&entry.path()).is_some() {
                self.add(&entry.path());
            } else if entry.file_type()?.is_dir() {
                self.add_folder(&entry.path())?;
            }
        }
        Ok(())
    }

    fn refuse(&mut self, path: &Path, reason: String) {
        self.refused.push(Refused { path: path.to_owned(), reason });
    }
}
