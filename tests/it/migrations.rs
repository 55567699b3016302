//! The migrations, as the binary, psql and Supabase apply them.

use std::{fs, path::Path, process::Command};

use crate::support::{
    cluster::output,
    database::Database,
    treemap::{command, run, treemap},
};

const PUBLISHED: &str = include_str!("sql/published_view.sql");

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))
}

fn up_files() -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "sql"))
        .map(|entry| entry.path().display().to_string())
        .collect();
    files.sort();
    files
}

/// All objects of the schema public with their definitions. If two results are equal, nothing has changed.
fn objects(database: &Database) -> String {
    database.psql(
        "SELECT string_agg(line, E'\n' ORDER BY line) FROM (
            SELECT concat(c.relkind, c.relname) || coalesce(pg_get_viewdef(c.oid), '') || coalesce(obj_description(c.oid), '') AS line
            FROM pg_class c WHERE relnamespace = 'public'::regnamespace
            UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            UNION ALL SELECT conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        ) AS objects",
    )
}

#[test]
fn migrating_again_or_after_a_rollback_gives_the_same_schema() {
    let database = Database::with_sample();
    let migrated = objects(&database);
    let rows = database.psql("SELECT count(*) FROM mv_treemap_data");
    treemap(&database, &["migrate"]).succeeds().prints(&["nothing to do"]);
    assert_eq!(objects(&database), migrated);
    assert_eq!(database.psql("SELECT count(*) FROM treemap_refreshes"), "2", "the view was not created again");

    treemap(&database, &["migrate", "--down"]).succeeds();
    treemap(&database, &["migrate", "--down"]).succeeds();
    let left = database.psql("SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'm')");
    assert_eq!(left, "company-metadata shorts");
    assert_eq!(database.psql("SELECT count(*) > 0 FROM shorts"), "t");
    treemap(&database, &["migrate", "--check"]).exits(1).prints(&["mv_treemap_data is missing", "treemap migrate"]);

    treemap(&database, &["migrate"]).succeeds();
    assert_eq!(objects(&database), migrated);
    assert_eq!(database.psql("SELECT count(*) FROM mv_treemap_data"), rows, "a new view is filled at once");
    treemap(&database, &["migrate", "--check"]).succeeds();
}

#[test]
fn four_migrations_at_once_all_succeed() {
    let database = Database::empty();
    for _ in 0..5 {
        let start = || command(&["migrate"]).env("DATABASE_URL", database.url()).spawn().unwrap();
        let processes = [start(), start(), start(), start()];
        for mut process in processes {
            assert!(process.wait().unwrap().success());
        }
        treemap(&database, &["migrate", "--check"]).succeeds();
        treemap(&database, &["migrate", "--down"]).succeeds();
    }
}

#[test]
fn the_published_view_is_replaced_and_its_readers_keep_their_privileges() {
    let database = Database::empty();
    database.psql(PUBLISHED);
    database.psql("GRANT SELECT ON mv_treemap_data TO stranger");
    treemap(&database, &["migrate", "--check"]).exits(1).prints(&["has another definition"]);
    treemap(&database, &["status"]).exits(1).prints(&["not migrated", "idx_mv_treemap_unique", "treemap migrate"]);
    treemap(&database, &["migrate"]).succeeds();
    treemap(&database, &["migrate", "--check"]).succeeds();
    assert_eq!(database.psql("SELECT product_code, short_position FROM get_treemap_data('3m', 1, 'current')"), "ABC|2");
    treemap(&database, &["refresh"]).succeeds();
    let read = output(
        Command::new(database.psql_command().get_program())
            .args(["-X", "-A", "-t", "-d", &database.url_of("stranger")])
            .args(["-c", "SELECT count(*) FROM mv_treemap_data"]),
    );
    assert_eq!(read.trim(), "6");
}

#[test]
fn a_migration_that_fails_half_way_changes_nothing() {
    let database = Database::empty();
    database.psql(PUBLISHED);
    database.psql("CREATE VIEW report AS SELECT product_code FROM mv_treemap_data");
    let before = objects(&database);
    treemap(&database, &["migrate"])
        .exits(1)
        .prints(&["mv_treemap_data was left as it is", "depends on materialized view"]);
    assert_eq!(objects(&database), before);
    // The same with psql, which commits each statement: a single statement replaces the view, and it fails as a whole.
    for file in up_files() {
        let _ = database.psql_command().args(["-f", &file]).output().unwrap();
    }
    assert_eq!(database.psql("SELECT count(*) FROM report"), "2");
}

#[test]
fn a_rollback_that_a_dependent_view_prevents_changes_nothing() {
    let database = Database::with_sample();
    database.psql("CREATE VIEW report AS SELECT product_code FROM mv_treemap_data");
    let before = objects(&database);
    treemap(&database, &["migrate", "--down"]).exits(1).prints(&["view report depends on"]);
    assert_eq!(objects(&database), before);
}

#[test]
fn psql_and_the_binary_create_the_same_schema() {
    let by_binary = Database::empty();
    treemap(&by_binary, &["migrate"]).succeeds();
    for transaction in [&["-1"][..], &[]] {
        let by_psql = Database::empty();
        // Twice: each file can be applied again.
        for file in up_files().iter().chain(&up_files()) {
            output(by_psql.psql_command().args(transaction).args(["-f", file]));
        }
        assert_eq!(objects(&by_psql), objects(&by_binary));
        treemap(&by_psql, &["migrate", "--check"]).succeeds();
        output(
            by_psql
                .psql_command()
                .args(transaction)
                .args(["-f", &format!("{}/down/006_treemap.sql", folder().display())]),
        );
        assert_eq!(by_psql.psql("SELECT to_regclass('mv_treemap_data') IS NULL"), "t");
    }
}

#[tokio::test]
async fn supabase_can_apply_each_file_as_one_implicit_transaction() {
    let names = |path: &String| Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
    let files = up_files();
    assert_eq!(
        files.iter().map(names).collect::<Vec<_>>(),
        [
            "001_source_tables.sql",
            "004_treemap_materialized_view.sql",
            "005_refresh_isolation_and_log.sql",
            "006_treemap.sql"
        ]
    );
    let database = Database::empty();
    let client = database.connect().await;
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for line in text.lines() {
            assert!(!["BEGIN;", "COMMIT;", "ROLLBACK;"].contains(&line.trim()), "{line}");
            assert!(!line.starts_with('\\') && !line.contains("CREATE INDEX CONCURRENTLY"), "{line}");
        }
        // A simple query is one implicit transaction: VACUUM would fail in it, and COMMIT would give a warning.
        client.batch_execute("RESET ALL").await.unwrap();
        client.batch_execute(&text).await.unwrap();
    }
    treemap(&database, &["migrate", "--check"]).succeeds();
}

#[test]
fn supabases_public_roles_have_no_access_and_its_service_role_has_access() {
    let database = Database::empty();
    for role in ["anon", "authenticated", "service_role"] {
        database.psql(&format!(
            "DO $$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {role};
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO {role}"
        ));
    }
    treemap(&database, &["migrate"]).succeeds();
    let may = |role: &str| {
        database.psql(&format!(
            "SELECT has_table_privilege('{role}', 'mv_treemap_data', 'SELECT'), has_table_privilege('{role}', 'treemap_refreshes', 'SELECT'), \
             has_function_privilege('{role}', 'refresh_treemap_data(timestamptz, text, boolean)', 'EXECUTE'), \
             has_function_privilege('{role}', 'get_treemap_data(text, integer, text)', 'EXECUTE')"
        ))
    };
    assert_eq!(may("anon"), "f|f|f|f");
    assert_eq!(may("authenticated"), "f|f|f|f");
    assert_eq!(may("stranger"), "f|f|f|f");
    assert_eq!(may("service_role"), "t|t|t|t");
}

#[test]
fn a_dropped_index_is_reported_and_created_again() {
    let database = Database::with_sample();
    database.psql("DROP INDEX idx_mv_treemap_unique");
    treemap(&database, &["migrate", "--check"])
        .exits(1)
        .prints(&["idx_mv_treemap_unique", "cannot be refreshed concurrently"]);
    treemap(&database, &["migrate"]).succeeds();
    treemap(&database, &["migrate", "--check"]).succeeds();
    treemap(&database, &["refresh"]).succeeds();
}

#[test]
fn migrating_with_a_role_without_privileges_fails_and_changes_nothing() {
    let database = Database::empty();
    // The default since version 15.
    database.psql("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    run(command(&["migrate"]).env("DATABASE_URL", database.url_of("stranger")))
        .exits(1)
        .prints(&["permission denied for schema public", "role that owns"]);
    assert_eq!(objects(&database), "");
}
