//! `treemap sample`.

use std::{collections::BTreeMap, fs, path::Path};

use crate::support::treemap::{Run, command, run};

fn sample(folder: &Path, more: &[&str]) -> Run {
    let folder = folder.display().to_string();
    let arguments: Vec<&str> = ["sample", &folder].into_iter().chain(more.iter().copied()).collect();
    run(&mut command(&arguments))
}

/// All files below a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(contents(&entry.path()).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    files
}

#[test]
fn the_same_seed_writes_the_same_bytes_and_another_seed_others() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--companies", "40", "--from", "2022-05-30", "--to", "2022-06-07"];
    let write = |name: &str, seed: &str| {
        let target = folder.path().join(name);
        sample(&target, &[&arguments[..], &["--seed", seed]].concat()).succeeds();
        contents(&target)
    };
    let (one, again, other) = (write("one", "1"), write("again", "1"), write("other", "2"));
    assert_eq!(one, again);
    assert_ne!(
        one["reports/RR20220603-001-SSDailyAggShortPos.csv"],
        other["reports/RR20220603-001-SSDailyAggShortPos.csv"]
    );
    assert_eq!(one.len(), 2 + 7, "a list, a notice, and a report per weekday");
    assert!(one["reports/RR20220602-001-SSDailyAggShortPos.csv"].starts_with(b"\xff\xfeP\0"), "UTF-16 until then");
    let today = String::from_utf8(one["reports/RR20220603-001-SSDailyAggShortPos.csv"].clone()).unwrap();
    assert!(today.starts_with("Product,Product Code,") && today.contains("\r\n") && today.contains(",."), "{today}");
    assert!(one["companies.csv"].starts_with(b"SYNTHETIC"));
    assert!(today.lines().skip(1).all(|line| line.starts_with("SYNTHETIC ")));
    assert!(String::from_utf8_lossy(&one["SYNTHETIC.txt"]).contains("No figure in here is of a real company"));
}

#[test]
fn it_writes_nothing_where_something_is_or_where_it_may_not() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.csv"), "mine").unwrap();
    sample(folder.path(), &[]).exits(1).says(&["is not empty; expected a new folder"]);
    sample(&folder.path().join("mine.csv"), &[]).exits(1).says(&["cannot write to"]);
    sample(Path::new("/proc/nowhere"), &[]).exits(1).says(&["cannot write the sample to /proc/nowhere"]);
    let weekend = ["--from", "2023-12-30", "--to", "2023-12-31"];
    sample(&folder.path().join("weekend"), &weekend).exits(1).says(&["no weekday from 2023-12-30"]);
    let backwards = ["--from", "2023-12-31", "--to", "2023-12-30"];
    sample(&folder.path().join("backwards"), &backwards).exits(1).says(&["no day from 2023-12-31"]);
    sample(&folder.path().join("none"), &["--companies", "0"]).exits(2);
    assert_eq!(contents(folder.path()).into_keys().collect::<Vec<_>>(), ["mine.csv"], "nothing is left half done");
}
