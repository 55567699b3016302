//! The rows of the view: which stocks it contains, and their positions and changes.

use crate::support::{
    database::Database,
    server::{Server, stocks},
    treemap::treemap,
};

const WINDOW_DEFINITION: &str = include_str!("sql/window_definition.sql");

/// Asserts that the view holds exactly the rows of the window-function definition, to the last bit.
#[track_caller]
pub fn equals_window_definition(database: &Database, at_least: usize) {
    let view = "SELECT period_name, industry, product_code, company_name, current_short_position, \
        earliest_short_position, percentage_change, latest_date FROM mv_treemap_data";
    let answer = database.psql(&format!(
        "CREATE TEMP TABLE expected AS {WINDOW_DEFINITION}; CREATE TEMP TABLE found AS {view}; \
         SELECT (SELECT count(*) FROM (TABLE expected EXCEPT ALL TABLE found) AS d), \
             (SELECT count(*) FROM (TABLE found EXCEPT ALL TABLE expected) AS d), (SELECT count(*) FROM found)"
    ));
    let counts: Vec<usize> = answer.split('|').map(|count| count.parse().unwrap()).collect();
    assert_eq!(counts[..2], [0, 0], "missing rows, unexpected rows");
    assert!(counts[2] >= at_least, "only {} rows were compared", counts[2]);
}

#[test]
fn the_view_equals_its_definition_by_window_functions_row_for_row() {
    equals_window_definition(&Database::with_sample(), 300);
}

#[test]
fn rows_that_are_stored_three_times_change_nothing() {
    let database = Database::with_sample();
    let before = database.psql(&digest());
    database.psql(r#"ALTER TABLE shorts DROP CONSTRAINT "shorts_DATE_PRODUCT_CODE_key""#);
    database
        .psql("CREATE TABLE thrice AS TABLE shorts; INSERT INTO shorts TABLE thrice; INSERT INTO shorts TABLE thrice");
    database.refresh();
    assert_eq!(database.psql(&digest()), before);
}

/// A query for a digest of all columns of the view, except the time of the refresh.
pub fn digest() -> String {
    "SELECT count(*), md5(string_agg(concat_ws('|', period_name, industry, product_code, company_name, \
        current_short_position, earliest_short_position, percentage_change, latest_date), ',' \
        ORDER BY period_name, product_code)) FROM mv_treemap_data"
        .into()
}

#[test]
fn when_rows_of_a_stock_and_day_differ_the_lowest_percent_counts() {
    let database = Database::migrated();
    database.psql(r#"ALTER TABLE shorts DROP CONSTRAINT "shorts_DATE_PRODUCT_CODE_key""#);
    database.add_companies(&[("AAA", "'Banks'")]);
    database.add_shorts(&[
        ("2023-12-01", "AAA", "4"),
        ("2023-12-01", "AAA", "2"),
        ("2023-12-29", "AAA", "'NaN'"),
        ("2023-12-29", "AAA", "5"),
        ("2023-12-29", "AAA", "3"),
    ]);
    database.refresh();
    let row = database.psql(
        "SELECT DISTINCT current_short_position, earliest_short_position, percentage_change FROM mv_treemap_data",
    );
    assert_eq!(row, "3|2|50");
}

#[tokio::test]
async fn only_finite_positions_above_zero_are_served() {
    let database = Database::migrated();
    let latest = [
        ("NUL", "NULL"),
        ("NAN", "'NaN'"),
        ("PIN", "'Infinity'"),
        ("NIN", "'-Infinity'"),
        ("ZER", "0"),
        ("NEG", "-1"),
        ("TIN", "0.0001"),
        ("BIG", "2731700"),
        ("ONE", "1"),
    ];
    for (code, percent) in latest {
        database.add_companies(&[(code, "'Banks'")]);
        database.add_shorts(&[("2023-12-28", code, "0.5"), ("2023-12-29", code, percent)]);
    }
    database.refresh();
    let server = Server::ready(&database).await;
    let codes: Vec<_> = stocks(&mut server.client().await, "3m", 10, 0).await;
    // A row without a percent is ignored: the row of the day before counts.
    let expected = [("BIG", 2_731_700.0), ("ONE", 1.0), ("NUL", 0.5), ("TIN", 0.0001)];
    assert_eq!(codes, expected.map(|(code, value)| ("Banks".into(), code.into(), value)));
}

#[tokio::test]
async fn a_stock_without_a_valid_earliest_position_has_no_change_and_an_unchanged_one_has_zero() {
    let database = Database::migrated();
    let earliest = [
        ("ZER", "0"),
        ("NAN", "'NaN'"),
        ("INF", "'Infinity'"),
        ("TIN", "1e-320"),
        ("SAM", "2"),
        ("HAL", "4"),
        ("DOU", "1"),
        ("NEG", "-1"),
    ];
    for (code, percent) in earliest {
        database.add_companies(&[(code, "'Banks'")]);
        database.add_shorts(&[("2023-12-01", code, percent), ("2023-12-29", code, "2")]);
    }
    database.refresh();
    let server = Server::ready(&database).await;
    let mut client = server.client().await;
    let changes = stocks(&mut client, "3m", 10, 1).await;
    let expected = [("DOU", 100.0), ("SAM", 0.0), ("HAL", -50.0), ("NEG", -300.0)];
    assert_eq!(changes, expected.map(|(code, value)| ("Banks".into(), code.into(), value)));
    assert_eq!(stocks(&mut client, "3m", 10, 0).await.len(), earliest.len(), "their positions are still served");
}

#[test]
fn companies_without_an_industry_are_left_out() {
    let database = Database::migrated();
    let industries = [("NUL", "NULL"), ("EMP", "''"), ("BLA", "'   '"), ("TAB", r"E'\t'"), ("NOT", "'Not Applic'")];
    database.add_companies(&industries);
    for (code, _) in industries {
        database.add_shorts(&[("2023-12-29", code, "1")]);
    }
    database.refresh();
    assert_eq!(database.psql("SELECT DISTINCT product_code, industry FROM mv_treemap_data"), "NOT|Not Applic");
}

#[test]
fn a_stock_that_was_last_reported_seven_months_before_the_newest_report_is_left_out() {
    let database = Database::migrated();
    database.add_companies(&[("OLD", "'Banks'"), ("SIX", "'Banks'"), ("NEW", "'Banks'")]);
    database.add_shorts(&[("2023-05-29", "OLD", "95"), ("2023-06-29", "SIX", "9"), ("2023-12-29", "NEW", "1")]);
    database.refresh();
    let periods = |code: &str| {
        database.psql(&format!("SELECT string_agg(period_name, ' ' ORDER BY period_name) FROM mv_treemap_data WHERE product_code = '{code}'"))
    };
    assert_eq!(periods("OLD"), "");
    assert_eq!(periods("SIX"), "1y 2y 5y 6m max", "exactly six months still counts, but not for 3m");
    assert_eq!(periods("NEW"), "1y 2y 3m 5y 6m max");
}

#[tokio::test]
async fn data_that_ended_eighteen_months_ago_is_still_served_and_marked_stale() {
    let database = Database::migrated();
    database.add_companies(&[("AAA", "'Banks'")]);
    database.psql(
        "INSERT INTO shorts SELECT date_trunc('day', now()) - interval '18 months' - day * interval '1 day', \
            'AAA', 'AAA', 1, 100, day + 1 FROM generate_series(0, 30) AS day",
    );
    database.refresh();
    let server = Server::ready(&database).await;
    let mut client = server.client().await;
    assert_eq!(stocks(&mut client, "1m", 10, 0).await.len(), 1);
    let answer = crate::support::server::get(&mut client, "1m", 10, 0).await.unwrap();
    assert_eq!(answer.metadata().get("treemap-stale").unwrap(), "true");
    treemap(&database, &["status"]).exits(1).prints(&["the newest report is of"]);
}

#[test]
fn a_change_of_an_old_row_reaches_the_view() {
    let database = Database::migrated();
    database.add_companies(&[("AAA", "'Banks'")]);
    database.add_shorts(&[("2022-03-01", "AAA", "1"), ("2023-12-29", "AAA", "3")]);
    database.refresh();
    let change = "SELECT percentage_change FROM mv_treemap_data WHERE period_name = '2y'";
    assert_eq!(database.psql(change), "200");
    database.psql(r#"UPDATE shorts SET "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" = 2 WHERE "DATE" = '2022-03-01'"#);
    database.refresh();
    assert_eq!(database.psql(change), "50");
}

#[test]
fn migrations_and_loaders_work_with_the_tables_of_production() {
    let database = Database::empty();
    // Mostly text columns, unknown columns, no primary keys, an index with another name.
    database.psql(
        r#"CREATE TABLE shorts ("DATE" timestamp, "PRODUCT" text, "PRODUCT_CODE" text, "REPORTED_SHORT_POSITIONS" double precision,
            "TOTAL_PRODUCT_IN_ISSUE" double precision,
            "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" double precision);
        CREATE INDEX some_name ON shorts ("PRODUCT_CODE", "DATE" DESC);
        CREATE TABLE "company-metadata" (company_name text, address text, summary text, industry text, stock_code text,
            links text, images text, logo_gcs_url text, unknown_column text);
        CREATE UNIQUE INDEX ON "company-metadata" (stock_code);
        INSERT INTO "company-metadata" (stock_code, company_name, industry, unknown_column) VALUES ('AAA', 'A', 'Old name', 'kept')"#,
    );
    treemap(&database, &["migrate"]).succeeds();
    let sample = crate::support::files::sample();
    treemap(&database, &["load", "companies", &sample.companies()])
        .succeeds()
        .prints(&["60 companies: 59 added, 1 updated"]);
    treemap(&database, &["load", "shorts", &sample.reports()]).succeeds();
    treemap(&database, &["refresh"]).succeeds();
    equals_window_definition(&database, 300);
    assert_eq!(database.psql(r#"SELECT unknown_column FROM "company-metadata" WHERE stock_code = 'AAA'"#), "kept");
    let indexes = database
        .psql("SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'shorts'");
    assert_eq!(indexes, "idx_shorts_date some_name", "an index that already exists is not created again");
}

#[test]
fn a_company_that_is_listed_twice_does_not_stop_the_refresh() {
    let database = Database::migrated();
    database.psql(r#"ALTER TABLE "company-metadata" DROP CONSTRAINT "company-metadata_stock_code_key""#);
    database.add_companies(&[("AAA", "'Banks'"), ("AAA", "'Energy'")]);
    database.add_shorts(&[("2023-12-29", "AAA", "1")]);
    database.refresh();
    assert_eq!(database.psql("SELECT count(*), min(industry) FROM mv_treemap_data"), "6|Banks");
}
