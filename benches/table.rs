//! The table that the benchmarks print: each figure, its baseline, the ratio, and the bar that the ratio should meet.

use std::fs;

#[derive(Default)]
#[allow(dead_code)]
pub struct Table(Vec<[String; 6]>);

impl Table {
    /// A ratio ours / theirs that should stay at or below `bar`.
    pub fn at_most(&mut self, what: &str, ours: f64, theirs: f64, bar: f64) {
        self.row(what, ours, theirs, ours / theirs, format!("<= {bar} x"), ours / theirs <= bar);
    }

    /// A ratio theirs / ours (how many times faster) that should reach `bar`.
    pub fn at_least(&mut self, what: &str, ours: f64, theirs: f64, bar: f64) {
        self.row(what, ours, theirs, theirs / ours, format!(">= {bar} x"), theirs / ours >= bar);
    }

    /// A ratio ours / theirs that should reach `bar`.
    pub fn reaches(&mut self, what: &str, ours: f64, theirs: f64, bar: f64) {
        self.row(what, ours, theirs, ours / theirs, format!(">= {bar} x"), ours / theirs >= bar);
    }

    /// A comparison without a bar.
    pub fn note(&mut self, what: &str, ours: f64, theirs: f64) {
        self.row(what, ours, theirs, theirs / ours, "-".into(), true);
    }

    fn row(&mut self, what: &str, ours: f64, theirs: f64, ratio: f64, bar: String, met: bool) {
        let met = if met { "" } else { "MISSED" };
        self.0.push([what.into(), figure(ours), figure(theirs), format!("{} x", figure(ratio)), bar, met.into()]);
    }

    pub fn print(self) {
        let mut rows = vec![["what", "ours", "other", "ratio", "bar", ""].map(String::from)];
        rows.extend(self.0);
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        for row in &rows {
            let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column)));
            println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}

fn figure(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The median of some measurements.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The peak resident memory of a running process, in MiB; `None` when the system does not report it.
pub fn resident_peak(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes / 1024.0)
}
