//! Loads the published files of ASIC and the ASX into the two source tables. A file is loaded whole or not at all.
//!
//! - [`text`]: decodes the bytes of a file, in any of the published encodings
//! - [`report`]: parses one daily report: its file name and its rows
//! - [`plan`]: finds the reports among the given paths, and orders the revisions of a date
//! - [`shorts`]: loads reports into `shorts`, a batch of dates per transaction
//! - [`companies`]: loads a company list into `"company-metadata"`

pub mod companies;
pub mod plan;
pub mod report;
pub mod shorts;
pub mod text;

use std::path::PathBuf;

/// A file that was not loaded, and the reason: what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Refused {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}
