//! Benchmarks of the database side: refresh, ranked query, load. Each is measured in turn with its baseline in one run:
//! on a shared machine the ratios are reliable, the times are not. `make bench`.

#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code)]
mod support;
#[allow(dead_code)]
mod table;

use std::{fs, process::Stdio, time::Instant};

use support::{
    database::Database,
    files::{real_data, sample},
    treemap::{command, treemap},
};
use table::{Table, median};

const WINDOW_DEFINITION: &str = include_str!("../tests/it/sql/window_definition.sql");

fn main() {
    let database = Database::migrated();
    let reports = if let Some(data) = real_data() {
        for list in ["asx/ASX_Listed_Companies_2024-04-07.csv", "asx/asx-official-20260302.csv"] {
            treemap(&database, &["load", "companies", &data.join(list).display().to_string()]).succeeds();
        }
        data.join("asic").display().to_string()
    } else {
        println!("the real reports are not on this machine (TREEMAP_TEST_DATA): measuring the sample");
        treemap(&database, &["load", "companies", &sample().companies()]).succeeds();
        sample().reports()
    };
    let mut table = Table::default();
    load(&database, &reports, &mut table);
    database.psql("VACUUM ANALYZE shorts");
    refresh(&database, &mut table);
    refresh_of_the_last_version(&database, &mut table);
    ranked_query(&database, &mut table);
    table.print();
}

/// `treemap load shorts`, compared with psql's `\copy` of the same prepared rows into the same empty table.
fn load(database: &Database, reports: &str, table: &mut Table) {
    let (mut ours, mut theirs, mut most_memory) = (Vec::new(), Vec::new(), 0.0_f64);
    let ready_made = tempfile::NamedTempFile::new().unwrap();
    for round in 0..4 {
        database.psql("TRUNCATE shorts");
        database.psql("CHECKPOINT");
        let started = Instant::now();
        let mut loader = command(&["load", "shorts", reports]);
        loader.env("DATABASE_URL", database.url()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut loader = loader.spawn().unwrap();
        while loader.try_wait().unwrap().is_none() {
            most_memory = most_memory.max(table::resident_peak(loader.id()).unwrap_or_default());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let took = started.elapsed().as_secs_f64();
        if round == 0 {
            // The warm-up round writes the file that psql copies.
            let copy = format!(r"\copy shorts TO '{}'", ready_made.path().display());
            assert!(database.psql_command().args(["-c", &copy]).status().unwrap().success());
            continue;
        }
        ours.push(took);

        database.psql("TRUNCATE shorts");
        database.psql("CHECKPOINT");
        let copy = format!(r"\copy shorts FROM '{}'", ready_made.path().display());
        let started = Instant::now();
        assert!(database.psql_command().args(["-c", &copy]).status().unwrap().success());
        theirs.push(started.elapsed().as_secs_f64());
    }
    let rows = database.psql("SELECT count(*) FROM shorts");
    table.at_most(&format!("load {rows} rows, s, against \\copy"), median(&mut ours), median(&mut theirs), 1.5);
    table.at_most("resident memory of the load, MiB, against the allowance", most_memory, 256.0, 1.0);
}

/// A refresh of the view, compared with a refresh of the same view that is defined by window functions.
fn refresh(database: &Database, table: &mut Table) {
    database.psql(&format!("CREATE MATERIALIZED VIEW by_windows AS {WINDOW_DEFINITION}"));
    let timed = |statement: &str| timings(database, &format!("{statement};"))[0] / 1000.0;
    let plain = "REFRESH MATERIALIZED VIEW mv_treemap_data";
    let concurrently = "SELECT refresh_treemap_data()";
    let windows = "REFRESH MATERIALIZED VIEW by_windows";
    timed(plain);
    timed(concurrently);
    let (mut ours, mut function, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        ours.push(timed(plain));
        function.push(timed(concurrently));
        theirs.push(timed(windows));
    }
    let theirs = median(&mut theirs);
    table.at_least("refresh, s, against the definition by window functions", median(&mut ours), theirs, 50.0);
    table.note("  the same through refresh_treemap_data(), concurrently", median(&mut function), theirs);
    database.psql("DROP MATERIALIZED VIEW by_windows");
}

/// `refresh_treemap_data()` of today's migration, compared with that of 005, over the same rows.
fn refresh_of_the_last_version(database: &Database, table: &mut Table) {
    let last = Database::empty();
    for name in ["001_source_tables", "004_treemap_materialized_view", "005_refresh_isolation_and_log"] {
        let file = format!("{}/migrations/{name}.sql", env!("CARGO_MANIFEST_DIR"));
        support::cluster::output(last.psql_command().args(["-1", "-f", &file]));
    }
    let rows = tempfile::NamedTempFile::new().unwrap();
    for relation in ["shorts", "\"company-metadata\""] {
        for (database, way) in [(database, "TO"), (&last, "FROM")] {
            let copy = format!(r"\copy {relation} {way} '{}'", rows.path().display());
            support::cluster::output(database.psql_command().args(["-c", &copy]));
        }
    }
    last.psql("VACUUM ANALYZE shorts");
    let timed = |database: &Database| timings(database, "SELECT refresh_treemap_data();")[0] / 1000.0;
    (timed(database), timed(&last));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        ours.push(timed(database));
        theirs.push(timed(&last));
    }
    let name = "refresh_treemap_data(), s, against that of migration 005";
    table.at_most(name, median(&mut ours), median(&mut theirs), 1.1);
}

/// The ranked window query of each view mode, compared with the published query on the published indexes.
fn ranked_query(database: &Database, table: &mut Table) {
    database.psql(
        "CREATE MATERIALIZED VIEW published AS TABLE mv_treemap_data;
        CREATE INDEX ON published (period_name, industry, percentage_change DESC NULLS LAST);
        CREATE INDEX ON published (period_name, current_short_position DESC);
        CREATE INDEX ON published (product_code, period_name);
        CREATE INDEX ON published (last_refreshed DESC)",
    );
    database.psql("VACUUM ANALYZE published");
    database.psql("VACUUM ANALYZE mv_treemap_data");
    for (mode, column) in [("CURRENT_CHANGE", "current_short_position"), ("PERCENTAGE_CHANGE", "percentage_change")] {
        let ours = format!(
            r#"SELECT industry, product_code, {column} FROM (
                SELECT industry, product_code, {column}, row_number() OVER (
                    PARTITION BY industry COLLATE "C" ORDER BY {column} DESC, product_code COLLATE "C") AS place
                FROM mv_treemap_data WHERE period_name = '3m' AND {column} IS NOT NULL
            ) AS ranked WHERE place <= 10 ORDER BY industry COLLATE "C", place"#
        );
        let value =
            format!("CASE WHEN '{mode}' = 'PERCENTAGE_CHANGE' THEN percentage_change ELSE current_short_position END");
        let theirs = format!(
            "WITH ranked AS (
                SELECT industry, product_code, {value} AS short_position,
                    ROW_NUMBER() OVER (PARTITION BY industry ORDER BY {value} DESC NULLS LAST) AS rank
                FROM published WHERE period_name = '3m'
            ) SELECT industry, product_code, short_position FROM ranked WHERE rank <= 10 ORDER BY industry, short_position DESC"
        );
        let times = timings(database, &format!("{ours};\n{theirs};\n").repeat(200));
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        // Skip the first ones: their pages are not in memory yet.
        for (place, time) in times.into_iter().enumerate().skip(40) {
            if place % 2 == 0 { &mut fast } else { &mut slow }.push(time);
        }
        assert_eq!(fast.len(), slow.len());
        let name = format!("ranked query of {mode}, ms, against the published one");
        table.at_most(&name, median(&mut fast), median(&mut slow), 0.5);
    }
}

/// The time of each statement of a script in one session, in milliseconds, without the start of psql.
fn timings(database: &Database, script: &str) -> Vec<f64> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("\\timing on\n{script}")).unwrap();
    let said = support::cluster::output(database.psql_command().arg("-f").arg(file.path()));
    said.lines().filter_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok()).collect()
}
