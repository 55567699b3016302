//! Loads what ASIC and the ASX publish into the two source tables: all of a file, or nothing of it.
//!
//! - [`text`]: bytes to text, whatever their encoding
//! - [`report`]: one daily report: its name, its rows
//! - [`plan`]: which files are reports, and which revision of a date counts
//! - [`shorts`]: reports into `shorts`, a batch of dates per transaction
//! - [`companies`]: a company list into `"company-metadata"`

pub mod companies;
pub mod plan;
pub mod report;
pub mod shorts;
pub mod text;

use std::path::PathBuf;

/// A file that was not loaded, and why: what was found, what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Refused {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}
