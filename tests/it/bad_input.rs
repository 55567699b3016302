//! Wrong settings and arguments: one clear error message, the right exit code, and no partial changes.

use crate::support::{
    cluster::{PASSWORD, cluster, free_port},
    database::Database,
    files::sample,
    treemap::{command, run, treemap},
};

/// Every command that needs a database.
fn commands() -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    vec![
        words(&["migrate"]),
        words(&["migrate", "--check"]),
        words(&["migrate", "--down"]),
        words(&["refresh"]),
        words(&["status"]),
        words(&["load", "shorts", &sample().reports()]),
        words(&["load", "companies", &sample().companies()]),
    ]
}

fn every_command_fails_with(url: &str, words: &[&str]) {
    for arguments in commands() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ran = run(command(&arguments).env("DATABASE_URL", url)).exits(1).prints(words);
        assert_eq!(ran.stderr().lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", ran.stderr());
    }
}

#[test]
fn a_missing_database_url_is_reported_with_an_example() {
    every_command_fails_with("", &["DATABASE_URL is not set", "postgres://user:password@host:5432/database"]);
    run(&mut command(&["serve"])).exits(1).prints(&["DATABASE_URL is not set"]);
}

#[test]
fn the_error_for_an_invalid_database_url_does_not_quote_it() {
    for (url, why) in [
        ("mysql://user:hunter2@host/db", "is a URL of another scheme"),
        ("postgres://user:hunter2@host:port/db", "has a port that is not a number"),
        ("hunter2", "is not a connection string"),
        ("postgres://user:hunter2@host/db?sslmode=prefer", "has an sslmode that is prefer"),
    ] {
        every_command_fails_with(url, &[&format!("DATABASE_URL {why}")]);
        let ran = run(command(&["serve"]).env("DATABASE_URL", url)).exits(1);
        assert!(!ran.stderr().contains("hunter2"), "{}", ran.stderr());
    }
}

#[test]
fn the_error_for_a_refused_connection_contains_the_address() {
    let port = free_port();
    let address = format!("127.0.0.1:{port}/db");
    every_command_fails_with(
        &format!("postgres://u@{address}"),
        &[&address, "Connection refused", "Is Postgres running"],
    );
}

#[test]
fn a_connection_to_a_server_that_never_answers_times_out() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@{}/db", silent.local_addr().unwrap());
    run(command(&["status"]).env("DATABASE_URL", url)).exits(1).prints(&["no answer within"]);
}

#[test]
fn the_error_for_a_wrong_password_does_not_quote_it() {
    let url = |password: &str| format!("postgres://locked:{password}@127.0.0.1:{}/postgres", cluster().port);
    every_command_fails_with(
        &url("hunter2"),
        &["password authentication failed for user \"locked\"", "Check user, password and database"],
    );
    let right = PASSWORD.replace('/', "%2F").replace(':', "%3A");
    run(command(&["status"]).env("DATABASE_URL", url(&right))).exits(1).prints(&["mv_treemap_data is missing"]);
}

#[test]
fn the_url_comes_from_the_setting_or_from_a_file_but_not_from_both() {
    let database = Database::migrated();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, format!("  {}\n", database.url())).unwrap();
    run(command(&["migrate", "--check"]).env("DATABASE_URL_FILE", &file)).succeeds();
    run(command(&["migrate", "--check"]).env("DATABASE_URL_FILE", &file).env("DATABASE_URL", database.url()))
        .exits(1)
        .prints(&["DATABASE_URL and DATABASE_URL_FILE are both set"]);
    run(command(&["migrate"]).env("DATABASE_URL_FILE", folder.path().join("none")))
        .exits(1)
        .prints(&["DATABASE_URL_FILE names", "none, which cannot be read: No such file"]);
}

#[test]
fn the_error_for_a_database_without_migrations_names_the_command_to_run() {
    let database = Database::empty();
    for arguments in commands().into_iter().filter(|arguments| arguments[0] != "migrate") {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        treemap(&database, &arguments).exits(1).prints(&["treemap migrate"]);
    }
    assert_eq!(database.psql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "0");
}

#[test]
fn all_wrong_settings_of_the_server_are_reported_together() {
    let settings = [
        ("DATABASE_URL", "nonsense"),
        ("LISTEN_DATABASE_URL", "also nonsense"),
        ("TREEMAP_LISTEN_ADDR", "everywhere"),
        ("TREEMAP_POLL_INTERVAL", "often"),
        ("TREEMAP_MAX_AGE", "old"),
        ("TREEMAP_MAX_DATA_AGE", "0s"),
        ("TREEMAP_REFRESH_SCHEDULE", "0 9 31 2 *"),
        ("TREEMAP_REFRESH_TIMEZONE", "Sydney"),
        ("TREEMAP_SOURCE_INTERVAL", "sometimes"),
        ("TREEMAP_SOURCE_QUIET", "-1s"),
        ("TREEMAP_SOURCE_LONGEST_WAIT", ""),
    ];
    let ran = run(command(&["serve"]).envs(settings)).exits(1);
    for (setting, _) in settings {
        assert!(ran.stderr().contains(&format!("{setting} is ")), "{setting} is not reported:\n{}", ran.stderr());
    }
}

#[test]
fn the_error_for_an_address_in_use_contains_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let database = Database::empty();
    treemap(&database, &["serve", "--listen-addr", &address]).exits(1).prints(&[
        "cannot listen on",
        &address,
        "TREEMAP_LISTEN_ADDR",
        "Address already in use",
    ]);
}

#[test]
fn an_unknown_flag_or_command_is_a_usage_error() {
    run(&mut command(&["serve", "--fast"])).exits(2).prints(&["unexpected argument '--fast'", "Usage: treemap serve"]);
    run(&mut command(&["draw"])).exits(2).prints(&["unrecognized subcommand 'draw'"]);
    run(&mut command(&[])).exits(2).prints(&["Usage: treemap"]);
    run(&mut command(&["load", "shorts"])).exits(2).prints(&["<PATH>"]);
    run(&mut command(&["status", "--log", "lo=ud=er"])).exits(1).prints(&["TREEMAP_LOG"]);
}
