use std::sync::LazyLock;

use jiff::{Timestamp, tz::TimeZone};

/// The version, with the commit and its date (UTC) where the build knew them: `0.1.0 (a8a1b8d, 2026-11-25)`.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| text(env!("CARGO_PKG_VERSION"), env!("TREEMAP_COMMIT"), env!("TREEMAP_COMMIT_SECONDS")));
    &VERSION
}

fn text(version: &str, commit: &str, seconds: &str) -> String {
    let time = seconds.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    match time.map(|time| time.to_zoned(TimeZone::UTC).date()) {
        _ if commit.is_empty() => version.into(),
        Some(date) => format!("{version} ({commit}, {date})"),
        None => format!("{version} ({commit})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_says_what_is_known_of_its_commit() {
        assert_eq!(text("0.1.0", "a8a1b8d", "1764077040"), "0.1.0 (a8a1b8d, 2025-11-25)");
        assert_eq!(text("0.1.0", "a8a1b8d", ""), "0.1.0 (a8a1b8d)");
        assert_eq!(text("0.1.0", "", "1764077040"), "0.1.0");
        assert_eq!(text("0.1.0", "", ""), "0.1.0");
    }
}
