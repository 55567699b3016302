//! Files to load: the sample, reports that a test writes, and the real reports if they are on this machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use industry_treemap::HEADER;
use tempfile::TempDir;

use super::{
    cluster::cluster,
    treemap::{command, run},
};

/// The sample that most tests share.
pub struct Sample(PathBuf);

impl Sample {
    pub fn reports(&self) -> String {
        self.0.join("reports").display().to_string()
    }

    pub fn companies(&self) -> String {
        self.0.join("companies.csv").display().to_string()
    }
}

/// 60 companies over more than five years. The reports change from the older to the current format.
pub fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let folder = cluster().folder.join("sample");
        let target = folder.display().to_string();
        let arguments = ["sample", &target, "--companies", "60", "--from", "2017-06-01", "--to", "2023-12-29"];
        run(&mut command(&arguments)).succeeds();
        Sample(folder)
    })
}

/// The real reports and company lists, if they are on this machine.
pub fn real_data() -> Option<PathBuf> {
    let folder = env::var_os("TREEMAP_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    folder.join("asic").is_dir().then_some(folder)
}

/// A temporary folder with the reports of one test.
pub struct Reports(TempDir);

impl Reports {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> String {
        self.0.path().display().to_string()
    }

    pub fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Writes any bytes under any name.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::write(self.0.path().join(name), bytes).unwrap();
        self
    }

    /// Writes a report in the current format; rows as `NAME,CODE,1,2,3`.
    pub fn report(&self, date: &str, revision: u16, rows: &[&str]) -> &Self {
        let text = HEADER.join(",") + "\r\n" + &rows.join("\r\n") + "\r\n";
        self.write(&name(date, revision), text)
    }

    /// Writes a report in the older format; rows as `NAME\tCODE \t1\t2\t3`.
    pub fn utf_16_report(&self, date: &str, revision: u16, rows: &[&str]) -> &Self {
        let text = HEADER.join("\t") + "\n" + &rows.join("\n") + "\n";
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        self.write(&name(date, revision), units.flat_map(u16::to_le_bytes).collect::<Vec<_>>())
    }
}

/// The file name of a report; `date` is `yyyymmdd`.
pub fn name(date: &str, revision: u16) -> String {
    format!("RR{date}-{revision:03}-SSDailyAggShortPos.csv")
}
