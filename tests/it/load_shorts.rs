//! `treemap load shorts`: every encoding and irregularity of the files, and every reason to refuse one.

use crate::support::{
    database::Database,
    eventually,
    files::{Reports, name, sample},
    treemap::treemap,
};

fn rows(database: &Database) -> String {
    database.psql(r#"SELECT concat_ws(' ', "DATE"::date, "PRODUCT_CODE",
        coalesce("PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS"::text, 'null')) FROM shorts ORDER BY 1"#)
}

#[test]
fn both_formats_are_detected_by_the_content_of_the_file() {
    let database = Database::migrated();
    let reports = Reports::new();
    reports
        .utf_16_report("20220601", 1, &["A LTD ORDINARY\tAAA \t100\t1000\t10"])
        .report("20151229", 1, &["A LTD ORDINARY,AAA,1,1000,.1829", "\"B, C & CO\",BBB,2,1000,.2"])
        .utf_16_report("20220603", 1, &["A LTD ORDINARY\tAAA \t100\t1000\t0.54"]);
    treemap(&database, &["load", "shorts", &reports.path()])
        .succeeds()
        .prints(&["3 reports loaded, 4 rows, 2015-12-29 to 2022-06-03", "0 refused"]);
    assert_eq!(rows(&database), "2015-12-29 AAA 0.1829\n2015-12-29 BBB 0.2\n2022-06-01 AAA 10\n2022-06-03 AAA 0.54");
    assert_eq!(database.psql(r#"SELECT "PRODUCT" FROM shorts WHERE "PRODUCT_CODE" = 'BBB'"#), "B, C & CO");
}

#[test]
fn a_blank_or_a_dash_is_loaded_as_null() {
    let database = Database::migrated();
    let reports = Reports::new();
    reports.report("20230103", 1, &["A,AAA,1,1000,", "B,BBB,2,1000,-", "C,CCC,-,,  "]);
    treemap(&database, &["load", "shorts", &reports.path()]).succeeds();
    assert_eq!(rows(&database), "2023-01-03 AAA null\n2023-01-03 BBB null\n2023-01-03 CCC null");
    assert_eq!(
        database.psql(r#"SELECT count("REPORTED_SHORT_POSITIONS"), count("TOTAL_PRODUCT_IN_ISSUE") FROM shorts"#),
        "2|2"
    );
}

#[test]
fn the_highest_revision_of_a_date_replaces_all_its_rows() {
    let database = Database::migrated();
    let reports = Reports::new();
    reports.report("20230103", 1, &["A,AAA,1,1000,1", "B,BBB,1,1000,1"]).report("20230104", 1, &["A,AAA,1,1000,1"]);
    treemap(&database, &["load", "shorts", &reports.path()]).succeeds();
    reports.report("20230103", 2, &["A,AAA,1,1000,2", "B,BBB,1,1000,2"]).report("20230103", 10, &["A,AAA,1,1000,3"]);
    treemap(&database, &["load", "shorts", &reports.path()])
        .succeeds()
        .prints(&["2 reports loaded", "2 older revisions passed over"]);
    assert_eq!(rows(&database), "2023-01-03 AAA 3\n2023-01-04 AAA 1");
}

#[test]
fn when_a_revision_is_refused_the_one_before_it_is_loaded() {
    let database = Database::migrated();
    let reports = Reports::new();
    reports.report("20230103", 1, &["A,AAA,1,1000,1"]).write(&name("20230103", 2), "");
    treemap(&database, &["load", "shorts", &reports.path()])
        .exits(1)
        .prints(&["-002-SSDailyAggShortPos.csv: the file is empty"]);
    assert_eq!(rows(&database), "2023-01-03 AAA 1");
}

#[test]
fn loading_twice_changes_nothing_with_and_without_a_unique_constraint() {
    for constraint in [true, false] {
        let database = Database::migrated();
        if !constraint {
            database.psql(r#"ALTER TABLE shorts DROP CONSTRAINT "shorts_DATE_PRODUCT_CODE_key""#);
        }
        let digest = "SELECT count(*), md5(string_agg(shorts::text, ',' ORDER BY shorts::text)) FROM shorts";
        treemap(&database, &["load", "shorts", &sample().reports()]).succeeds();
        let once = database.psql(digest);
        treemap(&database, &["load", "shorts", &sample().reports()]).succeeds();
        assert_eq!(database.psql(digest), once);
        assert_ne!(once.split('|').next(), Some("0"));
    }
}

#[test]
fn each_refused_file_is_reported_with_its_reason_and_the_others_are_loaded() {
    let database = Database::migrated();
    let reports = Reports::new();
    let binary: Vec<u8> = (0..=255).collect();
    reports
        .report("20230103", 1, &["A,AAA,1,1000,1"])
        .write(&name("20230104", 1), "")
        .write(&name("20230105", 1), "<!DOCTYPE html><html><body>Service unavailable</body></html>")
        .write(&name("20230106", 1), binary)
        .report("20230109", 1, &["A,AAA,1,1000,1", "B,BBB,1"])
        .report("20230110", 1, &["A,AAA,1,1000,many"])
        .report("20230111", 1, &[])
        .write("notes.txt", "passed over")
        .report("20230113", 1, &["A,AAA,1,1000,1"]);
    std::fs::create_dir(reports.file(&name("20230112", 1))).unwrap();
    treemap(&database, &["load", "shorts", &reports.path()]).exits(1).prints(&[
        "RR20230104-001-SSDailyAggShortPos.csv: the file is empty",
        "RR20230105-001-SSDailyAggShortPos.csv: the first line is no report's header: found \"<!DOCTYPE html>",
        "RR20230106-001-SSDailyAggShortPos.csv: this is no text",
        "RR20230109-001-SSDailyAggShortPos.csv: line 3 has 3 fields; expected 5",
        "RR20230110-001-SSDailyAggShortPos.csv: line 2 has \"many\"",
        "RR20230111-001-SSDailyAggShortPos.csv: ",
        "RR20230112-001-SSDailyAggShortPos.csv: this is named like a report, but is no file",
        "2 reports loaded, 2 rows, 2023-01-03 to 2023-01-13; 0 older revisions passed over; 7 refused",
    ]);
    assert_eq!(rows(&database), "2023-01-03 AAA 1\n2023-01-13 AAA 1", "nothing of a refused file is loaded");
}

#[test]
fn paths_without_reports_are_refused() {
    let database = Database::migrated();
    let reports = Reports::new();
    reports.write("list.csv", "a,b");
    let load = |path: &str| treemap(&database, &["load", "shorts", path]).exits(1);
    load(&reports.path())
        .prints(&["there is no report in this folder; expected RRyyyymmdd-vvv-", "nothing was loaded"]);
    load(&reports.file("list.csv")).prints(&["list.csv: this is not named like a report; expected RRyyyymmdd-vvv-"]);
    load(&reports.file("missing")).prints(&["missing: No such file or directory"]);
}

#[test]
fn files_and_folders_may_be_mixed_and_repeated() {
    let database = Database::migrated();
    let (one, other) = (Reports::new(), Reports::new());
    one.report("20230103", 1, &["A,AAA,1,1000,1"]);
    other.report("20230104", 1, &["A,AAA,1,1000,1"]);
    std::fs::create_dir(other.file("deeper")).unwrap();
    other.write(&format!("deeper/{}", name("20230105", 1)), std::fs::read(other.file(&name("20230104", 1))).unwrap());
    let file = one.file(&name("20230103", 1));
    treemap(&database, &["load", "shorts", &file, &other.path(), &file])
        .succeeds()
        .prints(&["3 reports loaded", "0 older"]);
}

#[tokio::test]
async fn two_loaders_at_once_insert_each_row_once() {
    let database = Database::migrated();
    database.psql(r#"ALTER TABLE shorts DROP CONSTRAINT "shorts_DATE_PRODUCT_CODE_key""#);
    let load = || {
        let mut command = crate::support::treemap::command(&["load", "shorts", &sample().reports()]);
        command.env("DATABASE_URL", database.url());
        tokio::task::spawn_blocking(move || crate::support::treemap::run(&mut command).succeeds())
    };
    // This lock stops both loaders at the point where they could conflict.
    let holder = database.connect().await;
    holder.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('treemap.load', 0))").await.unwrap();
    let loaders = (load(), load());
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
    eventually("both loaders wait", async || (database.psql(waiting) == "2").then_some(())).await;
    holder.batch_execute("COMMIT").await.unwrap();
    let (one, other) = tokio::join!(loaders.0, loaders.1);
    let counted = format!("{} rows", database.psql("SELECT count(*) FROM shorts"));
    one.unwrap().prints(&[&counted]);
    other.unwrap().prints(&[&counted]);
}

#[test]
fn when_a_batch_fails_the_table_keeps_its_rows() {
    let database = Database::migrated();
    let reports = Reports::new();
    reports.report("20230103", 1, &["A,AAA,1,1000,1"]);
    treemap(&database, &["load", "shorts", &reports.path()]).succeeds();
    database.psql(r#"ALTER TABLE shorts ADD CHECK ("REPORTED_SHORT_POSITIONS" < 100)"#);
    reports.report("20230103", 2, &["A,AAA,1,1000,2", "B,BBB,100,1000,2"]);
    treemap(&database, &["load", "shorts", &reports.path()]).exits(1).prints(&[
        "the reports from 2023-01-03 to 2023-01-03 were not loaded",
        "violates check constraint",
        "COPY shorts",
    ]);
    assert_eq!(rows(&database), "2023-01-03 AAA 1");
}

#[test]
fn a_file_that_an_open_quote_ends_early_is_refused_and_what_is_left_out_is_noted() {
    let database = Database::migrated();
    let reports = Reports::new();
    reports
        .report("20230103", 1, &["A,AAA,1,1000,1", "", "\"B,BBB,1,1000,1", "C,CCC,1,1000,1"])
        .report("20230104", 1, &["A,AAA,1,1000,\"0,054\""])
        .report("20230105", 1, &["A,AAA,1,1000,1", "", "Source: ASIC"]);
    treemap(&database, &["load", "shorts", &reports.path()]).exits(1).prints(&[
        "RR20230103-001-SSDailyAggShortPos.csv: line 4 has a quote that is never closed",
        "RR20230104-001-SSDailyAggShortPos.csv: line 2 has \"0,054\"",
        "RR20230105-001-SSDailyAggShortPos.csv: line 4 and what follows is taken for a note, and is not loaded: \"Source: ASIC\"",
        "1 reports loaded",
    ]);
    assert_eq!(rows(&database), "2023-01-05 AAA 1");
}
