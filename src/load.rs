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

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{files, postgres::Session};
use text::Characters;

const LOOKED_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of a file, after decompression; the largest published one has some 200 KB.
const LARGEST: u64 = 64 << 20;

/// Reads a file whole, decompressed if it is compressed with gzip.
///
/// Fails when it is no regular file, or larger than [`LARGEST`]: a pipe or a device has no end.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = files::read(path, LARGEST)?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    files::read_to_end(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), LARGEST)
        .map_err(|reason| format!("the file cannot be decompressed: {reason}"))
}

/// The characters that the database can hold.
///
/// Fails when the database does, or where `"DATE"` is a type from which no day can be read the same way twice.
async fn characters(session: &Session) -> anyhow::Result<Characters> {
    const STATEMENT: &str = "SELECT current_setting('server_encoding'), format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END, NULL) \
        FROM (SELECT to_regclass('public.shorts') AS oid) AS shorts \
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = shorts.oid AND a.attname = 'DATE' \
        LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid";
    let row =
        session.read("look at the database", LOOKED_WITHIN, session.client().query_typed_one(STATEMENT, &[])).await?;
    if let Some(kind) = row.try_get::<_, Option<&str>>(1)?
        && !matches!(kind, "timestamp without time zone" | "date")
    {
        anyhow::bail!(
            r#"column "DATE" of public.shorts is {kind}; expected timestamp or date (see: treemap migrate --check)"#
        );
    }
    Ok(Characters::of(row.try_get(0)?))
}

/// A file that was not loaded, and the reason: what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Refused {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}
