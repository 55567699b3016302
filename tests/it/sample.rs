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
fn the_same_seed_writes_the_same_bytes_and_another_seed_writes_others() {
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
    assert!(
        one["reports/RR20220602-001-SSDailyAggShortPos.csv"].starts_with(b"\xff\xfeP\0"),
        "UTF-16 before 2022-06-03"
    );
    let today = String::from_utf8(one["reports/RR20220603-001-SSDailyAggShortPos.csv"].clone()).unwrap();
    assert!(today.starts_with("Product,Product Code,") && today.contains("\r\n") && today.contains(",."), "{today}");
    assert!(one["companies.csv"].starts_with(b"SYNTHETIC"));
    assert!(today.lines().skip(1).all(|line| line.starts_with("SYNTHETIC ")));
    assert!(String::from_utf8_lossy(&one["SYNTHETIC.txt"]).contains("No figure in here is of a real company"));
}

#[test]
fn sample_writes_nothing_if_the_folder_is_not_empty_or_an_argument_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.csv"), "mine").unwrap();
    sample(folder.path(), &[]).exits(1).prints(&["is not empty; expected a new folder"]);
    sample(&folder.path().join("mine.csv"), &[]).exits(1).prints(&["cannot write to"]);
    sample(Path::new("/proc/nowhere"), &[]).exits(1).prints(&["cannot write the sample to /proc/nowhere"]);
    let weekend = ["--from", "2023-12-30", "--to", "2023-12-31"];
    sample(&folder.path().join("weekend"), &weekend).exits(1).prints(&["no weekday from 2023-12-30"]);
    let backwards = ["--from", "2023-12-31", "--to", "2023-12-30"];
    sample(&folder.path().join("backwards"), &backwards).exits(1).prints(&["no day from 2023-12-31"]);
    sample(&folder.path().join("none"), &["--companies", "0"]).exits(2);
    assert_eq!(contents(folder.path()).into_keys().collect::<Vec<_>>(), ["mine.csv"], "no partial files are left");
}
