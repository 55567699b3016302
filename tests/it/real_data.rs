//! The view of the reports that ASIC published, if they are on this machine.

use crate::{
    support::{database::Database, files::real_data, treemap::treemap},
    view::{digest, equals_window_definition},
};

#[test]
fn the_real_reports_give_the_view_of_its_definition_even_when_they_are_stored_three_times() {
    let Some(data) = real_data() else {
        eprintln!("skipped: the real reports are not on this machine (TREEMAP_TEST_DATA)");
        return;
    };
    let path = |name: &str| data.join(name).display().to_string();
    let database = Database::migrated();
    for list in ["asx/ASX_Listed_Companies_2024-04-07.csv", "asx/asx-official-20260302.csv"] {
        treemap(&database, &["load", "companies", &path(list)]).succeeds();
    }
    // Three empty files and an HTML page are among them.
    treemap(&database, &["load", "shorts", &path("asic")]).exits(1).prints(&[
        "RR20130904-001-SSDailyAggShortPos.csv: the file is empty",
        "RR20150120-002-SSDailyAggShortPos.csv: the file is empty",
        "RR20150317-002-SSDailyAggShortPos.csv: the first line is no report's header",
        "RR20171002-001-SSDailyAggShortPos.csv: the file is empty",
        "3422 reports loaded, 1822830 rows, 2010-06-16 to 2023-12-29; 0 older revisions passed over; 4 refused",
    ]);
    treemap(&database, &["refresh"]).succeeds();
    equals_window_definition(&database, 6_000);

    let before = database.psql(&digest());
    database.psql(
        r#"ALTER TABLE shorts DROP CONSTRAINT "shorts_DATE_PRODUCT_CODE_key";
        CREATE TEMP TABLE thrice AS TABLE shorts; INSERT INTO shorts TABLE thrice; INSERT INTO shorts TABLE thrice;
        CREATE INDEX ON shorts ("DATE")"#,
    );
    database.refresh();
    assert_eq!(database.psql(&digest()), before);
}
