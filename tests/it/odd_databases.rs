//! Databases as people really have them: other types, owners, partitions and settings than the migration's own. The treemap is right there,
//! or the reason is named.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{
    PATIENCE,
    cluster::{OwnCluster, output, program},
    database::Database,
    eventually,
    files::Reports,
    server::Server,
    treemap::treemap,
};

/// With the reports of 2023, only other problems count.
const STATUS: [&str; 3] = ["status", "--max-data-age", "36500d"];
const PERCENT: &str = "\"PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS\"";

/// Three stocks over three days, and what the view makes of them.
fn seed(database: &Database) {
    database.add_companies(&[("AAA", "'Materials'"), ("BBB", "'Banks'"), ("CCC", "'Energy'")]);
    for (day, factor) in [("2023-12-20", 1), ("2023-12-28", 2), ("2023-12-29", 3)] {
        let percent = |number: &str| format!("{factor}{number}");
        database.add_shorts(&[
            (day, "AAA", &percent(".5")),
            (day, "BBB", &percent(".25")),
            (day, "CCC", &percent(".125")),
        ]);
    }
}

fn rows_of(database: &Database) -> String {
    database.psql(
        "SELECT period_name, product_code, current_short_position, earliest_short_position, latest_date, pg_typeof(latest_date)
         FROM mv_treemap_data ORDER BY 1, 2",
    )
}

/// The rows of the view over the usual types.
fn usual_rows() -> String {
    let database = Database::migrated();
    seed(&database);
    database.refresh();
    rows_of(&database)
}

/// An empty database with `shorts` of another kind: the types of "DATE" and of the percent, and what follows the columns.
fn with_shorts(date: &str, percent: &str, kind: &str) -> Database {
    let database = Database::empty();
    database.psql("CREATE DOMAIN percentage AS numeric(12, 4) CHECK (VALUE >= 0); CREATE DOMAIN single AS real");
    database.psql(&format!(
        r#"CREATE TABLE shorts ("DATE" {date}, "PRODUCT" text, "PRODUCT_CODE" text, "REPORTED_SHORT_POSITIONS" double precision,
            "TOTAL_PRODUCT_IN_ISSUE" double precision, {PERCENT} {percent}) {kind}"#
    ));
    database
}

fn state(database: &Database) -> String {
    database.psql("SELECT treemap_source_state()")
}

/// Makes a change, and waits until it is counted: Postgres counts it when the session ends, and 14 a moment later. What follows
/// the counters differs sooner: when they began, in a database that is new to them, and the newest day.
fn changes(database: &Database, change: &str) {
    let counters = || state(database).split('.').take(7).map(str::to_owned).collect::<Vec<_>>();
    let before = counters();
    database.psql(change);
    let begun = Instant::now();
    while counters() == before {
        assert!(begun.elapsed() < PATIENCE, "not counted: {change}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn a_row_of_the_future_does_not_move_the_anchor_and_is_reported() {
    let database = Database::with_sample();
    let before = rows_of(&database);
    for date in ["2034-03-28", "infinity", "9999-01-01", "-infinity"] {
        database.add_shorts(&[(date, "AAA", "50")]);
    }
    treemap(&database, &["refresh"]).succeeds().prints(&["2023-12-29"]);
    assert_eq!(rows_of(&database), before);
    treemap(&database, &STATUS).exits(1).prints(&[
        "3 rows of shorts have a date in the future, 2034-03-28 00:00:00 to infinity",
        "data date       2023-12-29",
    ]);
    let server = Server::ready(&database).await;
    assert_eq!(server.metric("treemap_source_future_rows").await, 3.0);
    server.wait_for_log("shorts has rows with a date in the future").await;
}

#[test]
fn status_reports_a_newest_day_that_is_nearly_empty() {
    let database = Database::with_sample();
    database.add_shorts(&[("2023-12-30", "AAA", "50")]);
    database.refresh();
    treemap(&database, &STATUS).exits(1).prints(&["the newest day, 2023-12-30, has 1 stocks, where a day has"]);
}

#[test]
fn status_reports_days_that_are_newer_than_the_view_though_no_change_was_counted() {
    let database = Database::with_sample();
    changes(&database, "INSERT INTO shorts SELECT '2023-12-30', 'AAA LTD', 'AAA', 1, 100, 50");
    // As if the counters had not moved.
    database.psql("UPDATE treemap_refreshes SET source_state = treemap_source_state()");
    treemap(&database, &STATUS).exits(1).prints(&["shorts has reports up to 2023-12-30 and the view up to 2023-12-29"]);
}

#[test]
fn a_table_that_is_put_in_place_by_a_rename_is_read_by_the_next_refresh() {
    let database = Database::with_sample();
    database.psql("CREATE ROLE reader_of_swapped; GRANT SELECT ON mv_treemap_data TO reader_of_swapped");
    database.psql(
        "CREATE TABLE shorts_new (LIKE shorts INCLUDING ALL); INSERT INTO shorts_new SELECT * FROM shorts;
         INSERT INTO shorts_new SELECT '2023-12-30', product_code, product_code, 1, 100, 77 FROM mv_treemap_data WHERE period_name = '3m';
         BEGIN; ALTER TABLE shorts RENAME TO shorts_old; ALTER TABLE shorts_new RENAME TO shorts; COMMIT",
    );
    treemap(&database, &["migrate", "--check"]).exits(1).prints(&["reads another table than public.shorts"]);
    treemap(&database, &["refresh"]).succeeds().prints(&["2023-12-30"]);
    assert_eq!(
        database.psql("SELECT DISTINCT current_short_position, latest_date::date FROM mv_treemap_data"),
        "77|2023-12-30"
    );
    assert_eq!(database.psql("SELECT has_table_privilege('reader_of_swapped', 'mv_treemap_data', 'SELECT')"), "t");
    treemap(&database, &["migrate", "--check"]).succeeds();
    database.psql("DROP OWNED BY reader_of_swapped; DROP ROLE reader_of_swapped");
}

#[test]
fn a_view_that_is_rebuilt_after_a_swap_is_open_to_those_who_could_read_it_and_to_nobody_else() {
    let database = Database::with_sample();
    database.psql(
        "DO $$ BEGIN CREATE ROLE anon; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
         CREATE ROLE granter_of_rebuilt; CREATE ROLE late_reader_of_rebuilt;
         GRANT SELECT ON mv_treemap_data TO granter_of_rebuilt WITH GRANT OPTION; GRANT UPDATE ON mv_treemap_data TO granter_of_rebuilt;
         ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, late_reader_of_rebuilt, PUBLIC;
         CREATE TABLE shorts_new (LIKE shorts INCLUDING ALL); INSERT INTO shorts_new TABLE shorts;
         BEGIN; ALTER TABLE shorts RENAME TO shorts_old; ALTER TABLE shorts_new RENAME TO shorts; COMMIT",
    );
    treemap(&database, &["refresh"]).succeeds();
    let granted = "SELECT string_agg(concat_ws(' ', coalesce(rolname, 'PUBLIC'), privilege_type, is_grantable), ', ' ORDER BY privilege_type)
        FROM pg_class c, aclexplode(relacl) AS granted LEFT JOIN pg_roles r ON r.oid = grantee
        WHERE c.oid = 'mv_treemap_data'::regclass AND grantee <> relowner";
    assert_eq!(database.psql(granted), "granter_of_rebuilt SELECT t, granter_of_rebuilt UPDATE f");
    treemap(&database, &["migrate", "--check"]).succeeds();
    // As a version before 006 left it.
    database.psql("GRANT SELECT ON mv_treemap_data TO anon");
    treemap(&database, &["migrate", "--check"]).exits(1).prints(&["role anon may read mv_treemap_data"]);
    treemap(&database, &["migrate"]).succeeds();
    treemap(&database, &["migrate", "--check"]).succeeds();
    for role in ["granter_of_rebuilt", "late_reader_of_rebuilt"] {
        database.psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}

#[test]
fn a_swap_that_a_dependent_view_prevents_fails_and_keeps_the_old_rows() {
    let database = Database::with_sample();
    database.psql("CREATE VIEW report AS SELECT * FROM mv_treemap_data; ALTER TABLE shorts RENAME TO gone; CREATE TABLE shorts (LIKE gone)");
    treemap(&database, &["refresh"]).exits(1).prints(&["other objects depend on it", "view public.report depends on"]);
    assert_eq!(database.count("mv_treemap_data"), 360);
}

#[test]
fn changes_of_partitions_children_and_tables_below_a_view_are_counted() {
    let partitioned = with_shorts("timestamp", "double precision", r#"PARTITION BY RANGE ("DATE")"#);
    partitioned.psql(
        "CREATE TABLE part_a PARTITION OF shorts FOR VALUES FROM (MINVALUE) TO ('2023-12-25');
         CREATE TABLE part_b PARTITION OF shorts FOR VALUES FROM ('2023-12-25') TO (MAXVALUE)",
    );
    let inherited = with_shorts("timestamp", "double precision", "");
    inherited.psql("CREATE TABLE part_b () INHERITS (shorts)");
    let viewed = with_shorts("timestamp", "double precision", "");
    viewed.psql("ALTER TABLE shorts RENAME TO part_b; CREATE VIEW shorts AS SELECT * FROM part_b");
    let usual = usual_rows();
    for database in [partitioned, inherited, viewed] {
        treemap(&database, &["migrate"]).succeeds();
        seed(&database);
        treemap(&database, &["refresh"]).succeeds();
        assert_eq!(rows_of(&database), usual);
        treemap(&database, &["migrate", "--check"]).succeeds();
        for change in [
            "INSERT INTO part_b SELECT '2023-12-30', 'A', 'AAA', 1, 1, 5",
            "UPDATE part_b SET \"PRODUCT\" = 'B'",
            "DELETE FROM part_b WHERE \"DATE\" = '2023-12-30'",
            "TRUNCATE part_b",
        ] {
            changes(&database, change);
        }
    }
}

#[test]
fn five_hundred_partitions_are_looked_at_in_milliseconds() {
    let database = with_shorts("timestamp", "double precision", r#"PARTITION BY RANGE ("DATE")"#);
    database.psql(
        "DO $$ BEGIN FOR n IN 0..499 LOOP
            EXECUTE format('CREATE TABLE part_%s PARTITION OF shorts FOR VALUES FROM (%L) TO (%L)',
                n, date '2014-06-01' + 7 * n, date '2014-06-01' + 7 * n + 7);
         END LOOP; END $$",
    );
    treemap(&database, &["migrate"]).succeeds();
    seed(&database);
    let usual = usual_rows();
    treemap(&database, &["refresh"]).succeeds();
    assert_eq!(rows_of(&database), usual);
    // The second look of a session, as a server has it: the first reads the catalog of all partitions.
    let took = database.psql(
        "SELECT extract(epoch FROM clock_timestamp() - began) < 0.5
         FROM (SELECT clock_timestamp() AS began FROM treemap_source_state() OFFSET 0) AS first,
            LATERAL (SELECT state FROM treemap_source_state() AS state WHERE began IS NOT NULL OFFSET 0) AS second
         WHERE second.state <> ''",
    );
    assert_eq!(took, "t");
}

#[tokio::test]
async fn where_changes_are_not_counted_a_new_day_is_noticed_and_status_and_the_log_say_so() {
    let database = with_shorts("timestamp", "double precision", "");
    database.psql(&format!(
        r#"ALTER TABLE shorts RENAME TO far; CREATE EXTENSION postgres_fdw;
        CREATE SERVER itself FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', dbname '{}', port '{}');
        CREATE USER MAPPING FOR postgres SERVER itself OPTIONS (user 'postgres', password 's3cret/of:all');
        CREATE FOREIGN TABLE shorts ("DATE" timestamp, "PRODUCT" text, "PRODUCT_CODE" text, "REPORTED_SHORT_POSITIONS" double precision,
            "TOTAL_PRODUCT_IN_ISSUE" double precision, {PERCENT} double precision) SERVER itself OPTIONS (table_name 'far')"#,
        database.name,
        database.psql("SHOW port"),
    ));
    treemap(&database, &["migrate"]).succeeds();
    seed(&database);
    treemap(&database, &["refresh"]).succeeds();
    assert_eq!(rows_of(&database), usual_rows());
    treemap(&database, &STATUS).succeeds().prints(&["not counted by Postgres"]);
    let server = Server::refreshing(&database.url(), &["--source-interval", "200ms", "--source-quiet", "100ms"]).await;
    server.wait_for_log("Postgres does not count the changes of a source table").await;
    database.psql("INSERT INTO far SELECT '2023-12-30', 'A', 'AAA', 1, 1, 5");
    let newest = "SELECT count(*) FROM treemap_refreshes WHERE data_date = '2023-12-30'";
    eventually("a refresh", async || (database.psql(newest) != "0").then_some(())).await;
}

#[tokio::test]
async fn a_look_at_the_source_does_not_wait_for_a_pipeline_that_locks_it() {
    let database = Database::with_sample();
    database.refresh();
    let before = state(&database);
    let pipeline = database.connect().await;
    pipeline.batch_execute("BEGIN; LOCK TABLE shorts").await.unwrap();
    assert_eq!(database.psql("SET statement_timeout = '5s'; SELECT treemap_source_state()"), before);
    treemap(&database, &STATUS).exits(1).prints(&["lock timeout", "rows            360"]);
    pipeline.batch_execute("COMMIT").await.unwrap();
    treemap(&database, &STATUS).succeeds();
}

#[test]
fn a_function_or_a_distributed_table_below_a_view_and_counters_that_are_off_count_as_uncounted() {
    let database = Database::with_sample();
    let counted = ["source changes  counted by Postgres"];
    treemap(&database, &STATUS).succeeds().prints(&counted);
    // A function that can only compute is no source.
    database.psql(
        "ALTER TABLE shorts RENAME TO far;
         CREATE FUNCTION code(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT upper($1)';
         CREATE VIEW shorts AS SELECT far.*, code(\"PRODUCT_CODE\") AS code FROM far",
    );
    treemap(&database, &["refresh"]).succeeds();
    treemap(&database, &STATUS).succeeds().prints(&counted);
    let uncounted = ["not counted by Postgres"];
    // The catalog of Citus, as far as it is read.
    database.psql(
        "SET allow_system_table_mods = on; CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass);
         INSERT INTO pg_catalog.pg_dist_partition VALUES ('far')",
    );
    treemap(&database, &STATUS).prints(&uncounted);
    database.psql("SET allow_system_table_mods = on; DROP TABLE pg_catalog.pg_dist_partition");
    treemap(&database, &STATUS).succeeds().prints(&counted);
    database.psql(
        "CREATE FUNCTION rows_of_far() RETURNS SETOF far STABLE LANGUAGE sql AS 'SELECT * FROM public.far';
         CREATE VIEW shorts_of_a_function AS SELECT * FROM rows_of_far();
         BEGIN; ALTER VIEW shorts RENAME TO shorts_old; ALTER VIEW shorts_of_a_function RENAME TO shorts; COMMIT",
    );
    treemap(&database, &STATUS).prints(&uncounted);
    let before = state(&database);
    database.psql("INSERT INTO far SELECT '2023-12-30', 'A', 'AAA', 1, 1, 5");
    assert_ne!(state(&database), before, "a new day is noticed");
    database.psql(
        "BEGIN; DROP VIEW shorts CASCADE; DROP VIEW shorts_old CASCADE; ALTER TABLE far RENAME TO shorts; COMMIT",
    );
    treemap(&database, &["migrate"]).succeeds();
    treemap(&database, &STATUS).prints(&counted);
    database.psql(&format!("ALTER DATABASE {} SET track_counts = off", database.name));
    treemap(&database, &STATUS).prints(&uncounted);
}

#[test]
fn other_types_give_the_same_rows_or_are_refused() {
    let usual = usual_rows();
    for (date, percent) in [
        ("date", "double precision"),
        ("timestamp", "numeric"),
        ("timestamp(0)", "numeric(12, 4)"),
        ("timestamp", "real"),
        ("timestamp", "percentage"),
        ("timestamp", "char(12)"),
        ("timestamp", "text"),
        ("date", "varchar(40)"),
    ] {
        let database = with_shorts(date, percent, "");
        treemap(&database, &["migrate"]).succeeds();
        treemap(&database, &["migrate", "--check"]).succeeds();
        seed(&database);
        if percent == "text" {
            let odd = ["'-'", "''", "' '", "'NaN'", "'n/a'", "'1,23'"];
            database.add_companies(&[("DDD", "'Odd'")]);
            database.add_shorts(&odd.map(|odd| ("2023-12-29", "DDD", odd)));
        }
        treemap(&database, &["refresh"]).succeeds();
        assert_eq!(rows_of(&database), usual, "{date}, {percent}");
        // Loading the same day twice leaves it once.
        let reports = Reports::new();
        reports.report("20231228", 1, &["A,AAA,1,1000,2.5", "B,BBB,1,1000,2.25", "C,CCC,1,1000,2.125"]);
        for _ in 0..2 {
            treemap(&database, &["load", "shorts", &reports.path()]).succeeds();
        }
        assert_eq!(database.count("shorts WHERE \"DATE\" = '2023-12-28'"), 3);
        treemap(&database, &["refresh"]).succeeds();
        assert_eq!(rows_of(&database), usual, "{date}, {percent}");
    }
    for date in ["timestamptz", "text"] {
        let database = with_shorts(date, "double precision", "");
        treemap(&database, &["migrate", "--check"]).exits(1).prints(&["column \"DATE\" of public.shorts is"]);
        treemap(&database, &["migrate"])
            .exits(1)
            .prints(&["which day that is depends on how it is read", "ALTER TABLE public.shorts"]);
        treemap(&database, &["load", "shorts", &Reports::new().report("20231228", 1, &["A,AAA,1,1,1"]).path()])
            .exits(1)
            .prints(&["column \"DATE\" of public.shorts is"]);
    }
}

#[test]
fn check_and_migrate_refuse_the_same_types() {
    let refused = |make: &str, words: &str| {
        let database = Database::empty();
        database.psql(make);
        treemap(&database, &["migrate", "--check"]).exits(1).prints(&[words]);
        treemap(&database, &["migrate"]).exits(1).prints(&[words, "put a view in place of the table"]);
        assert_eq!(database.psql("SELECT to_regclass('mv_treemap_data') IS NULL"), "t");
    };
    let shorts = |code: &str, percent: &str| {
        format!(
            r#"CREATE TABLE shorts ("DATE" timestamp, "PRODUCT" text, "PRODUCT_CODE" {code}, "REPORTED_SHORT_POSITIONS" double precision,
            "TOTAL_PRODUCT_IN_ISSUE" double precision, {PERCENT} {percent})"#
        )
    };
    // Compared with text, its index is of no use.
    refused(&shorts("char(6)", "numeric"), "column \"PRODUCT_CODE\" of public.shorts is character(6); expected text");
    refused(&shorts("text", "money"), "of public.shorts is money; expected a number, or text");
    refused(
        r#"CREATE TABLE "company-metadata" (stock_code text, company_name text, industry integer)"#,
        "column \"industry\" of public.\"company-metadata\" is integer; expected text",
    );
    let database = Database::empty();
    database.psql(
        r#"CREATE TYPE branch AS ENUM ('Banks');
        CREATE TABLE "company-metadata" (stock_code char(6), company_name varchar(40), industry branch)"#,
    );
    treemap(&database, &["migrate"]).succeeds();
    treemap(&database, &["migrate", "--check"]).succeeds();
    database.add_companies(&[("AAA", "'Banks'")]);
    database.add_shorts(&[("2023-12-29", "AAA", "1.5")]);
    treemap(&database, &["refresh"]).succeeds();
    assert_eq!(database.psql("SELECT DISTINCT industry, product_code FROM mv_treemap_data"), "Banks|AAA");
}

#[test]
fn percents_of_single_precision_are_served_as_they_were_written() {
    for percent in ["real", "single"] {
        let database = with_shorts("timestamp", percent, "");
        treemap(&database, &["migrate"]).succeeds();
        database.psql(&format!("ALTER DATABASE {} SET extra_float_digits = 0", database.name));
        database.add_companies(&[("AAA", "'Banks'")]);
        database.add_shorts(&[("2023-12-28", "AAA", "0.54"), ("2023-12-29", "AAA", "1.234567")]);
        treemap(&database, &["refresh"]).succeeds();
        let row = "SET extra_float_digits = 1; SELECT DISTINCT earliest_short_position, current_short_position FROM mv_treemap_data";
        assert_eq!(database.psql(row), "0.54|1.234567");
    }
}

#[test]
fn status_reports_what_else_differs_where_a_table_of_other_types_was_swapped_in() {
    let database = Database::with_sample();
    database.psql(
        r#"CREATE TABLE swapped AS SELECT "DATE"::text, "PRODUCT", "PRODUCT_CODE", "REPORTED_SHORT_POSITIONS", "TOTAL_PRODUCT_IN_ISSUE",
            "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" FROM shorts;
        BEGIN; ALTER TABLE shorts RENAME TO shorts_old; ALTER TABLE swapped RENAME TO shorts; COMMIT"#,
    );
    let found = ["column \"DATE\" of public.shorts is text; expected timestamp or date"];
    treemap(&database, &["refresh"]).exits(1).prints(&found).prints(&["ALTER TABLE public.shorts"]);
    treemap(&database, &["migrate"]).exits(1).prints(&found);
    treemap(&database, &STATUS).exits(1).prints(&found).prints(&[
        "reads another table than public.shorts",
        "rows            360",
        "not looked at",
    ]);
    assert_eq!(database.count("mv_treemap_data"), 360);
}

#[test]
fn status_reports_a_newest_day_without_figures_and_rows_with_a_time_of_day() {
    let database = Database::with_sample();
    let codes = "SELECT DISTINCT product_code FROM mv_treemap_data";
    database
        .psql(&format!("INSERT INTO shorts SELECT '2023-12-30', 'X', product_code, 1, 1, NULL FROM ({codes}) AS c"));
    let warned = database.psql_command().args(["-c", "SELECT refresh_treemap_data()"]).output().unwrap();
    let warned = String::from_utf8_lossy(&warned.stderr).into_owned();
    assert!(warned.contains("the newest figures are of 2023-12-29"), "{warned}");
    treemap(&database, &STATUS).exits(1).prints(&[
        "no stock has a position on 2023-12-30, the newest day, and all figures are of 2023-12-29 or before",
    ]);
    database.psql("DELETE FROM shorts WHERE \"DATE\" = '2023-12-30'");
    database.refresh();
    treemap(&database, &STATUS).succeeds();
    database.psql("UPDATE shorts SET \"DATE\" = '2023-12-29 10:00' WHERE \"DATE\" = '2023-12-29'");
    database.refresh();
    treemap(&database, &STATUS).exits(1).prints(&["rows of shorts in the last 30 days have a time of day"]);
}

#[test]
fn a_refresh_that_would_empty_the_view_fails_unless_the_source_is_empty() {
    let database = Database::with_sample();
    database.psql(r#"UPDATE "company-metadata" SET industry = ' '"#);
    let emptied = ["would leave none of 360 rows", "company-metadata"];
    treemap(&database, &["refresh"]).exits(1).prints(&emptied);
    database.psql("TRUNCATE \"company-metadata\"");
    treemap(&database, &["refresh"]).exits(1).prints(&emptied);
    // The same when the view is built anew.
    database.psql(
        "CREATE TABLE swapped AS TABLE shorts; ALTER TABLE shorts RENAME TO kept; ALTER TABLE swapped RENAME TO shorts",
    );
    treemap(&database, &["refresh"]).exits(1).prints(&emptied);
    database.psql("COMMENT ON MATERIALIZED VIEW mv_treemap_data IS 'another definition'");
    treemap(&database, &["migrate"]).exits(1).prints(&emptied);
    assert_eq!(database.count("mv_treemap_data"), 360);
    database.psql("TRUNCATE shorts");
    treemap(&database, &["migrate"]).succeeds();
    treemap(&database, &["refresh"]).succeeds().prints(&["refreshed 0 rows"]);
}

#[test]
fn owners_and_privileges_that_differ_are_reported_and_mended() {
    let database = Database::with_sample();
    database.psql(
        "CREATE ROLE other_owner; GRANT CREATE ON SCHEMA public TO other_owner;
         ALTER FUNCTION refresh_treemap_data OWNER TO other_owner; ALTER TABLE treemap_refreshes OWNER TO other_owner;
         GRANT EXECUTE ON FUNCTION refresh_treemap_data TO PUBLIC; GRANT SELECT ON mv_treemap_data TO PUBLIC",
    );
    let found = [
        "refresh_treemap_data(timestamp with time zone,text,boolean) belongs to other_owner and the view to postgres",
        "treemap_refreshes belongs to other_owner",
        "anybody may call function refresh_treemap_data",
        "anybody may read mv_treemap_data",
    ];
    treemap(&database, &["migrate", "--check"]).exits(1).prints(&found);
    treemap(&database, &STATUS).exits(1).prints(&found);
    treemap(&database, &["migrate"]).succeeds();
    treemap(&database, &["migrate", "--check"]).succeeds();
    treemap(&database, &["refresh"]).succeeds();
    database.psql("DROP OWNED BY other_owner; DROP ROLE other_owner");
}

#[test]
fn row_level_security_that_hides_the_source_is_reported_and_never_empties_the_view() {
    let database = Database::with_sample();
    database.psql(
        "CREATE ROLE view_owner; GRANT CREATE ON SCHEMA public TO view_owner; ALTER MATERIALIZED VIEW mv_treemap_data OWNER TO view_owner",
    );
    treemap(&database, &["migrate", "--check"])
        .exits(1)
        .prints(&["role view_owner, which owns the view, may not read public.shorts"]);
    database.psql(
        "GRANT SELECT ON shorts, \"company-metadata\" TO view_owner; ALTER TABLE shorts ENABLE ROW LEVEL SECURITY",
    );
    treemap(&database, &["migrate"])
        .succeeds()
        .prints(&["row level security of public.shorts hides rows from role view_owner"]);
    treemap(&database, &STATUS).exits(1).prints(&["row level security of public.shorts", "BYPASSRLS"]);
    treemap(&database, &["refresh"]).exits(1).prints(&["row-level security policy for table \"shorts\""]);
    assert_eq!(database.count("mv_treemap_data"), 360);
    database.psql("ALTER ROLE view_owner BYPASSRLS");
    treemap(&database, &["refresh"]).succeeds();
    database.psql("DROP OWNED BY view_owner; DROP ROLE view_owner");
}

#[test]
fn rows_of_the_log_from_another_database_neither_collide_nor_count() {
    let database = Database::with_sample();
    database.psql(
        "INSERT INTO treemap_refreshes (id, place, tick, started_at, finished_at, last_refreshed, row_count, source_state, who)
         SELECT id, 'elsewhere', '2026-01-02 03:00Z', now(), now() + interval '1 hour', now(), 1, treemap_source_state(), 'a publisher'
         FROM treemap_refreshes LIMIT 1",
    );
    changes(&database, "INSERT INTO shorts SELECT '2023-12-29', 'X', 'XXX', 1, 1, 1");
    let call = |arguments: &str| database.psql(&format!("SELECT outcome FROM refresh_treemap_data({arguments})"));
    assert_eq!(call("p_if_source_changed => true"), "refreshed");
    assert_eq!(call("'2026-01-02 03:00Z'"), "refreshed");
    // What an apply worker does with the publisher's row of this tick and of this instant.
    database.psql(
        "INSERT INTO treemap_refreshes (id, place, tick, started_at, finished_at, row_count, who)
         SELECT id, 'publisher', tick, started_at, finished_at, row_count, who FROM treemap_refreshes WHERE place = treemap_place()",
    );
    assert_eq!(call("'2026-01-02 03:00Z'"), "already done");
    treemap(&database, &["migrate", "--check"]).succeeds();
}

#[test]
fn a_log_of_another_shape_is_reported_and_mended() {
    let file = |name: &str| format!("{}/migrations/{name}.sql", env!("CARGO_MANIFEST_DIR"));
    let swap = "DROP TABLE treemap_refreshes; ALTER TABLE copy RENAME TO treemap_refreshes";
    let copy = format!("CREATE TABLE copy AS TABLE treemap_refreshes; {swap}");
    let twice =
        format!("CREATE TABLE copy AS TABLE treemap_refreshes; INSERT INTO copy TABLE treemap_refreshes; {swap}");
    let unique = format!(
        "CREATE TABLE copy (LIKE treemap_refreshes INCLUDING ALL); {swap}; CREATE UNIQUE INDEX ON treemap_refreshes (tick)"
    );
    for (change, found) in [
        // That of 004, put back from a dump.
        ("", ["column \"place\" of public.treemap_refreshes is missing", "has no unique index on (place, id)"]),
        (
            copy.as_str(),
            ["column \"id\" of public.treemap_refreshes is not NOT NULL", "has no unique index on (place, id)"],
        ),
        (
            twice.as_str(),
            ["column \"who\" of public.treemap_refreshes is not NOT NULL", "has no unique index on (place, id)"],
        ),
        (unique.as_str(), ["treemap_refreshes_tick_idx of public.treemap_refreshes is unique", "may collide"]),
        (
            "ALTER TABLE treemap_refreshes ALTER place DROP DEFAULT, ALTER id DROP DEFAULT",
            [
                "column \"place\" of public.treemap_refreshes is without",
                "column \"id\" of public.treemap_refreshes is without",
            ],
        ),
    ] {
        let database = Database::empty();
        if change.is_empty() {
            for name in ["001_source_tables", "004_treemap_materialized_view", "005_refresh_isolation_and_log"] {
                output(database.psql_command().args(["-1", "-f", &file(name)]));
            }
            seed(&database);
            database
                .psql("SELECT refresh_treemap_data('2026-01-02 03:00Z'); ALTER TABLE treemap_refreshes RENAME TO copy");
            output(database.psql_command().args(["-1", "-f", &file("006_treemap")]));
            database.psql(swap);
        } else {
            treemap(&database, &["migrate"]).succeeds();
            seed(&database);
            database.refresh();
            database.psql(change);
        }
        treemap(&database, &["migrate", "--check"]).exits(1).prints(&found);
        treemap(&database, &STATUS).exits(1).prints(&found);
        treemap(&database, &["migrate"]).succeeds();
        treemap(&database, &["migrate", "--check"]).succeeds();
        let call = |arguments: &str| database.psql(&format!("SELECT outcome FROM refresh_treemap_data({arguments})"));
        if change.is_empty() {
            assert_eq!(call("'2026-01-02 03:00Z'"), "already done");
        }
        assert_eq!(call("'2026-01-03 03:00Z'"), "refreshed");
        assert_eq!(call("'2026-01-03 03:00Z'"), "already done", "{change}");
    }
}

#[tokio::test]
async fn a_change_whose_counters_a_crash_has_lost_is_noticed_by_the_next_look() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let crash = || {
        own.kill();
        own.start_again();
    };
    // The refresh sees counters that began at 0, and so does the look after the change.
    crash();
    database.refresh();
    database.add_companies(&[("NEW", "'Banks'")]);
    // Of a day that is there: the newest day does not move.
    database.add_shorts(&[("2023-12-29", "NEW", "1")]);
    crash();
    let arguments = ["--refresh-schedule", "off", "--source-interval", "200ms", "--source-quiet", "100ms"];
    let _server = Server::refreshing(&database.url(), &arguments).await;
    eventually("the change is served", async || {
        (database.psql("SELECT count(*) FROM mv_treemap_data WHERE product_code = 'NEW'") != "0").then_some(())
    })
    .await;
}

#[test]
fn a_log_of_migration_005_is_brought_along() {
    let database = Database::empty();
    let file = |name: &str| format!("{}/migrations/{name}.sql", env!("CARGO_MANIFEST_DIR"));
    for name in ["001_source_tables", "004_treemap_materialized_view", "005_refresh_isolation_and_log"] {
        output(database.psql_command().args(["-1", "-f", &file(name)]));
    }
    seed(&database);
    assert_eq!(database.psql("SELECT outcome FROM refresh_treemap_data('2026-01-02 03:00Z')"), "refreshed");
    treemap(&database, &["migrate"]).succeeds().prints(&["migrated: 006_treemap"]);
    assert_eq!(database.psql("SELECT outcome FROM refresh_treemap_data('2026-01-02 03:00Z')"), "already done");
    assert_eq!(database.count("treemap_refreshes"), 3);
    assert_eq!(rows_of(&database), usual_rows());
    treemap(&database, &["migrate"]).succeeds().prints(&["up to date"]);
    treemap(&database, &["migrate", "--down"]).succeeds();
    treemap(&database, &["migrate"]).succeeds();
    treemap(&database, &["refresh"]).succeeds();
    assert_eq!(rows_of(&database), usual_rows());
}

#[tokio::test]
async fn a_pipeline_that_loads_and_refreshes_in_one_transaction_wins_against_a_refresh_of_the_service() {
    let database = Database::with_sample();
    let pipeline = database.connect().await;
    pipeline.batch_execute("BEGIN; TRUNCATE \"company-metadata\"").await.unwrap();
    let service = database.connect().await;
    let service =
        tokio::spawn(
            async move { service.query_one("SELECT outcome, row_count FROM refresh_treemap_data()", &[]).await },
        );
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'active' \
        AND datname = current_database() AND query LIKE '%refresh_treemap_data()%'";
    eventually("the service waits", async || (database.psql(waiting) != "0").then_some(())).await;
    // It takes the locks in the other order, and asks for the lock of a refresh last.
    pipeline
        .batch_execute(
            "TRUNCATE shorts; INSERT INTO shorts VALUES ('2023-12-30', 'A', 'AAA', 1, 1, 5);
             INSERT INTO \"company-metadata\" VALUES ('AAA', 'A', 'Materials');
             SELECT outcome FROM refresh_treemap_data(); SELECT pg_sleep(1.5); TRUNCATE shorts;
             INSERT INTO shorts VALUES ('2023-12-30', 'A', 'AAA', 1, 1, 6); COMMIT",
        )
        .await
        .unwrap();
    let row = service.await.unwrap().unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), ("refreshed", 6));
    assert_eq!(database.psql("SELECT DISTINCT current_short_position FROM mv_treemap_data"), "6");
}

#[test]
fn settings_of_the_database_change_nothing() {
    let usual = usual_rows();
    let database = Database::empty();
    for setting in [
        "default_transaction_read_only = on",
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "default_transaction_isolation = 'serializable'",
        "extra_float_digits = 0",
        "datestyle = 'German'",
        "timezone = 'Pacific/Kiritimati'",
        "search_path = ''",
        "enable_indexscan = off",
    ] {
        database.psql(&format!("BEGIN READ WRITE; ALTER DATABASE {} SET {setting}; COMMIT", database.name));
    }
    treemap(&database, &["migrate"]).succeeds();
    treemap(&database, &["migrate", "--check"]).succeeds();
    let reports = Reports::new();
    reports.report("20231229", 1, &["A,AAA,1,1000,2.5"]);
    treemap(&database, &["load", "shorts", &reports.path()]).succeeds();
    treemap(&database, &["refresh"]).succeeds();
    for setting in ["default_transaction_read_only", "search_path", "datestyle", "extra_float_digits"] {
        database.psql(&format!("BEGIN READ WRITE; ALTER DATABASE {} RESET {setting}; COMMIT", database.name));
    }
    database.psql("TRUNCATE shorts");
    seed(&database);
    treemap(&database, &["refresh"]).succeeds();
    assert_eq!(rows_of(&database), usual);
}

#[test]
fn an_event_trigger_that_forbids_drops_does_not_stop_a_first_migration_and_is_named_where_it_stops_a_refresh() {
    let database = Database::empty();
    database.psql(
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no % here', tg_tag; END $$;
         CREATE EVENT TRIGGER no_drops ON ddl_command_start WHEN TAG IN ('DROP FUNCTION', 'DROP MATERIALIZED VIEW') EXECUTE FUNCTION forbid()",
    );
    treemap(&database, &["migrate"]).succeeds();
    seed(&database);
    treemap(&database, &["refresh"]).succeeds();
    // REFRESH CONCURRENTLY drops temporary tables.
    database.psql("CREATE EVENT TRIGGER no_tables_dropped ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION forbid()");
    treemap(&database, &["refresh"]).exits(1).prints(&["no DROP TABLE here", "event triggers", "no_tables_dropped"]);
}

#[test]
fn a_database_that_is_not_utf_8_takes_names_in_plain_letters_or_refuses_the_file() {
    let own = OwnCluster::start(&[]);
    own.psql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let url = own.url("latin");
    let run = |arguments: &[&str]| {
        let mut command = crate::support::treemap::command(arguments);
        crate::support::treemap::run(command.env("DATABASE_URL", &url))
    };
    run(&["migrate"]).succeeds();
    let reports = Reports::new();
    reports
        .report("20231227", 1, &["O\u{2019}BRIEN CAF\u{c9} \u{2013} LTD,AAA,1,1000,2.5"])
        .report("20231228", 1, &["\u{4e2d} LTD,AAA,1,1000,2.5"])
        .report("20231229", 1, &["A,AAA,1,1000,2.5"]);
    run(&["load", "shorts", &reports.path()]).exits(1).prints(&["RR20231228", "line 2", "U+4E2D", "2 reports loaded"]);
    let names =
        own.psql("latin", "SET client_encoding = 'UTF8'; SELECT \"PRODUCT\" FROM shorts ORDER BY \"DATE\" LIMIT 1");
    assert_eq!(names.trim(), "O'BRIEN CAF\u{c9} - LTD");
}

#[tokio::test]
async fn a_server_starts_on_what_any_kind_of_dump_restores() {
    let database = Database::with_sample();
    let answers = rows_of(&database);
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump").display().to_string();
    let tool = |name: &str, arguments: &[&str]| output(Command::new(program(name)).args(arguments));
    if newer_than_pg_dump(&database) {
        println!("skipped: this pg_dump is older than the server, and refuses it");
        return;
    }
    for kind in
        [&["-Fc"][..], &["-Fc", "--no-owner", "--no-acl"], &["-Fp"], &["-Fp", "--no-owner"], &["-Fc", "--data-only"]]
    {
        tool("pg_dump", &[&["-d", &database.url(), "-f", &dump], kind].concat());
        let restored = if kind.contains(&"--data-only") { Database::migrated() } else { Database::empty() };
        if kind.contains(&"-Fp") {
            tool("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &restored.url(), "-f", &dump]);
        } else {
            tool("pg_restore", &["-d", &restored.url(), &dump]);
        }
        if kind.contains(&"--no-acl") {
            treemap(&restored, &["migrate", "--check"]).exits(1).prints(&["anybody may call function"]);
        }
        treemap(&restored, &["migrate"]).succeeds();
        let server =
            Server::refreshing(&restored.url(), &["--source-interval", "200ms", "--source-quiet", "100ms"]).await;
        server.wait_until_ready().await;
        eventually("a refresh there", async || {
            (restored.psql("SELECT count(*) FROM treemap_refreshes WHERE place = treemap_place() AND row_count = 360")
                != "0")
                .then_some(())
        })
        .await;
        assert_eq!(rows_of(&restored), answers, "{kind:?}");
        treemap(&restored, &STATUS).succeeds();
    }
}

/// Whether Postgres is newer than the `pg_dump` of this machine: that refuses to dump it.
fn newer_than_pg_dump(database: &Database) -> bool {
    let tool = output(Command::new(program("pg_dump")).arg("--version"));
    let tool = tool.split_whitespace().find_map(|word| word.split('.').next()?.parse::<u32>().ok()).unwrap();
    database.psql("SELECT current_setting('server_version_num')::int / 10000").trim().parse::<u32>().unwrap() > tool
}

#[tokio::test]
async fn a_dump_of_postgres_15_is_served_and_refreshed_by_this_version() {
    // Written by: pg_dump -Fp of Postgres 15, of a database with the rows of `seed`, after a refresh.
    let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sql/dump_of_postgres_15.sql");
    let restored = Database::empty();
    if restored.psql("SELECT current_setting('server_version_num')::int < 150000").trim() == "t" {
        println!("skipped: a dump is restored into its own version or a newer one");
        return;
    }
    output(restored.psql_command().args(["-f", dump]));
    treemap(&restored, &["migrate", "--check"]).succeeds().prints(&["up to date"]);
    assert_eq!(rows_of(&restored), usual_rows());
    let server = Server::refreshing(&restored.url(), &["--source-interval", "200ms", "--source-quiet", "100ms"]).await;
    server.wait_until_ready().await;
    restored.add_companies(&[("DDD", "'Banks'")]);
    restored.add_shorts(&[("2023-12-29", "DDD", "1")]);
    eventually("a refresh there", async || {
        (restored.psql("SELECT count(*) FROM mv_treemap_data WHERE product_code = 'DDD'").trim() != "0").then_some(())
    })
    .await;
    treemap(&restored, &STATUS).succeeds();
}

#[tokio::test]
async fn a_subscriber_of_logical_replication_with_a_service_of_its_own_goes_on_receiving() {
    let publisher = OwnCluster::start(&["wal_level=logical"]);
    let source = Database::with_sample_in(&publisher);
    let subscriber = OwnCluster::start(&["wal_level=logical"]);
    let copy = Database::with_sample_in(&subscriber);
    copy.psql("TRUNCATE shorts; TRUNCATE \"company-metadata\"; TRUNCATE treemap_refreshes");
    // Without a key, rows are only added here. The log has one.
    source.psql("CREATE PUBLICATION everything FOR TABLE shorts, \"company-metadata\", treemap_refreshes");
    let connection = source.url().replace("postgres://", "postgresql://");
    copy.psql(&format!("CREATE SUBSCRIPTION everything CONNECTION '{connection}' PUBLICATION everything"));

    let arguments = ["--refresh-schedule", "* * * * * *", "--source-interval", "200ms", "--source-quiet", "100ms"];
    let servers =
        [Server::refreshing(&source.url(), &arguments).await, Server::refreshing(&copy.url(), &arguments).await];
    for day in 1..=5 {
        let (date, code) = (format!("2024-01-{day:02}"), format!("Z{day:02}"));
        source.add_companies(&[(&code, "'Banks'")]);
        source.add_shorts(&[(&date, &code, "1")]);
        for database in [&source, &copy] {
            eventually("the row is served on both sides", async || {
                let row = format!("SELECT count(*) FROM mv_treemap_data WHERE product_code = '{code}'");
                (database.psql(&row).trim() != "0").then_some(())
            })
            .await;
        }
    }
    // Both sides write the same ticks into their log, and the rows of one are applied beside those of the other.
    eventually("the publisher's log is received", async || {
        (copy.psql("SELECT count(DISTINCT place) FROM treemap_refreshes").trim() == "2").then_some(())
    })
    .await;
    let errors = "SELECT apply_error_count + sync_error_count FROM pg_stat_subscription_stats";
    if copy.psql("SELECT current_setting('server_version_num')::int >= 150000").trim() == "t" {
        assert_eq!(copy.psql(errors).trim(), "0");
    }
    for server in &servers {
        assert!(!server.log().contains(" ERROR ") && !server.log().contains(" WARN "), "{}", server.log());
    }
}

#[test]
fn a_percent_that_is_text_is_a_number_or_no_position_under_every_collation() {
    let cases = [
        (r"0.54\u00a0", "0.54"),
        (r"\u20030.54\u3000%\u202f", "0.54"),
        (r" .5\t%\r\n", "0.5"),
        ("1e3", "1000"),
        ("0,054", "none"),
        ("1,234.5", "none"),
        ("1e999", "none"),
        (r"\u0665.5", "none"),
        (r"5\ufeff", "none"),
        ("5%%", "none"),
    ];
    let texts: Vec<_> = cases.iter().map(|(text, _)| format!("E'{text}'")).collect();
    let numbers: Vec<_> = cases.iter().map(|(_, number)| *number).collect();
    let database = Database::migrated();
    database.psql(
        "DO $$ BEGIN CREATE COLLATION alike (provider = icu, locale = 'und', deterministic = false);
         EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'no ICU here'; END $$",
    );
    let collations = "SELECT quote_ident(collname) FROM pg_collation \
        WHERE collname IN ('C', 'C.utf8', 'en_US.utf8', 'und-x-icu', 'alike') AND collencoding IN (-1, 6)";
    for collation in database.psql(collations).lines() {
        let read = database.psql(&format!(
            "SELECT string_agg(coalesce(treemap_percent(written COLLATE {collation})::text, 'none'), ' ' ORDER BY place)
             FROM unnest(ARRAY[{}]) WITH ORDINALITY AS cases (written, place)",
            texts.join(", ")
        ));
        assert_eq!(read.split(' ').collect::<Vec<_>>(), numbers, "{collation}");
    }
    let database = with_shorts("timestamp", "text", "");
    treemap(&database, &["migrate"]).succeeds();
    seed(&database);
    database.psql(&format!(r"UPDATE shorts SET {PERCENT} = {PERCENT} || E'\u00a0'"));
    treemap(&database, &["refresh"]).succeeds();
    assert_eq!(rows_of(&database), usual_rows());
}

#[test]
fn an_apostrophe_of_a_word_processor_is_loaded_into_a_database_of_any_encoding() {
    let own = OwnCluster::start(&[]);
    let reports = Reports::new();
    reports.report("20231229", 1, &["O\u{2019}BRIEN \u{2014} LTD,AAA,1,1000,2.5"]);
    // ICU, which the cluster has from Postgres 15 on, does not know all encodings.
    let has_icu = own.psql("postgres", "SELECT current_setting('server_version_num')::int >= 150000").trim() == "t";
    let provider = if has_icu { "LOCALE_PROVIDER libc" } else { "" };
    for encoding in ["LATIN5", "LATIN7", "LATIN10", "KOI8R", "KOI8U", "WIN866", "WIN1255", "EUC_CN", "EUC_JP", "EUC_TW"]
    {
        let name = encoding.to_lowercase();
        own.psql(
            "postgres",
            &format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' {provider} TEMPLATE template0"),
        );
        for arguments in [&["migrate"][..], &["load", "shorts", &reports.path()]] {
            let mut command = crate::support::treemap::command(arguments);
            crate::support::treemap::run(command.env("DATABASE_URL", own.url(&name))).succeeds();
        }
        let found = own.psql(&name, "SELECT count(*) FROM shorts WHERE \"PRODUCT\" ~ '^O.BRIEN . LTD$'");
        assert_eq!(found.trim(), "1", "{encoding}");
    }
}
