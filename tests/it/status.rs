//! `treemap status` and its exit code.

use crate::support::{database::Database, treemap::treemap};

/// The reports of the sample end in 2023. With this limit, only the age of the view matters.
const FRESH: [&str; 3] = ["status", "--max-data-age", "36500d"];

#[test]
fn status_succeeds_for_a_fresh_and_complete_view() {
    let database = Database::with_sample();
    database.refresh();
    treemap(&database, &FRESH).succeeds().prints(&["populated", "3m 60", "max 60", "27", "2023-12-29", "all is well"]);
}

#[test]
fn status_fails_for_an_old_view() {
    let database = Database::with_sample();
    let arguments = [&FRESH[..], &["--max-age", "1ms"]].concat();
    treemap(&database, &arguments).exits(1).prints(&["the view was last refreshed", "treemap refresh"]);
}

#[test]
fn status_fails_for_old_reports() {
    let database = Database::with_sample();
    treemap(&database, &["status"]).exits(1).prints(&["the newest report is of 2023-12-29", "treemap load shorts"]);
}

#[test]
fn status_fails_for_a_view_without_its_unique_index() {
    let database = Database::with_sample();
    database.psql("DROP INDEX idx_mv_treemap_unique");
    treemap(&database, &FRESH).exits(1).prints(&[
        "idx_mv_treemap_unique",
        "cannot be refreshed concurrently",
        "treemap migrate",
    ]);
    database.psql("CREATE INDEX idx_mv_treemap_unique ON mv_treemap_data (period_name, product_code)");
    treemap(&database, &FRESH).exits(1).prints(&["idx_mv_treemap_unique"]);
}

#[test]
fn status_fails_for_a_missing_unpopulated_or_empty_view() {
    treemap(&Database::empty(), &FRESH).exits(1).prints(&["missing", "treemap migrate"]);
    let database = Database::migrated();
    treemap(&database, &FRESH).exits(1).prints(&["the view holds no stocks"]);
    database.psql("REFRESH MATERIALIZED VIEW mv_treemap_data WITH NO DATA");
    treemap(&database, &FRESH).exits(1).prints(&["never filled", "treemap refresh"]);
}

#[test]
fn status_reports_functions_of_another_version() {
    let database = Database::with_sample();
    database.refresh();
    database.psql("CREATE OR REPLACE FUNCTION get_treemap_data(p_period text, p_limit integer DEFAULT 10, p_view_mode text DEFAULT 'x') \
        RETURNS TABLE (industry text, product_code text, short_position double precision) LANGUAGE sql AS 'SELECT null, null, null::float8'");
    treemap(&database, &FRESH).exits(1).prints(&["function public.get_treemap_data(text, integer, text)"]);
    treemap(&database, &["migrate"]).succeeds();
    treemap(&database, &FRESH).succeeds();
}

#[tokio::test]
async fn status_compares_what_a_server_serves_with_what_the_view_holds() {
    let (database, server) = crate::support::server::ready(&["--poll-interval", "1h"]).await;
    let status = |address: &str| treemap(&database, &[&FRESH[..], &[address]].concat());
    status(&server.addr).succeeds().prints(&["all is well"]);
    status("127.0.0.1:1").exits(1).prints(&["the server at 127.0.0.1:1 does not answer"]);
    let (other, _other_server) = crate::support::server::ready(&[]).await;
    other.refresh();
    treemap(&other, &[&FRESH[..], &[&server.addr]].concat())
        .exits(1)
        .prints(&["serves the refresh of", "and the view holds that of"]);
}
