//! What is given wrongly: one clear message, a code that tells, nothing half done.

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

fn all_with(url: &str, words: &[&str]) {
    for arguments in commands() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ran = run(command(&arguments).env("DATABASE_URL", url)).exits(1).says(words);
        assert_eq!(ran.stderr().lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", ran.stderr());
    }
}

#[test]
fn a_missing_database_url_is_named_with_what_is_expected() {
    all_with("", &["DATABASE_URL is not set", "postgres://user:password@host:5432/database"]);
    run(&mut command(&["serve"])).exits(1).says(&["DATABASE_URL is not set"]);
}

#[test]
fn a_wrong_database_url_is_named_and_not_quoted() {
    for (url, why) in [
        ("mysql://user:hunter2@host/db", "is not a connection string"),
        ("postgres://user:hunter2@host:port/db", "has a port that is not a number"),
        ("hunter2", "is not a connection string"),
        ("postgres://user:hunter2@host/db?sslmode=prefer", "has an sslmode that is prefer"),
    ] {
        all_with(url, &[&format!("DATABASE_URL {why}")]);
        let ran = run(command(&["serve"]).env("DATABASE_URL", url)).exits(1);
        assert!(!ran.stderr().contains("hunter2"), "{}", ran.stderr());
    }
}

#[test]
fn a_refused_connection_names_the_address() {
    let port = free_port();
    let address = format!("127.0.0.1:{port}/db");
    all_with(&format!("postgres://u@{address}"), &[&address, "Connection refused", "Is Postgres running"]);
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up_on() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@{}/db", silent.local_addr().unwrap());
    run(command(&["status"]).env("DATABASE_URL", url)).exits(1).says(&["no answer within"]);
}

#[test]
fn a_wrong_password_is_named_and_not_quoted() {
    let url = |password: &str| format!("postgres://locked:{password}@127.0.0.1:{}/postgres", cluster().port);
    all_with(
        &url("hunter2"),
        &["password authentication failed for user \"locked\"", "Check user, password and database"],
    );
    let right = PASSWORD.replace('/', "%2F").replace(':', "%3A");
    run(command(&["status"]).env("DATABASE_URL", url(&right))).exits(1).says(&["mv_treemap_data is missing"]);
}

#[test]
fn the_url_may_come_from_a_file_but_not_from_both() {
    let database = Database::migrated();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, format!("  {}\n", database.url())).unwrap();
    run(command(&["migrate", "--check"]).env("DATABASE_URL_FILE", &file)).succeeds();
    run(command(&["migrate", "--check"]).env("DATABASE_URL_FILE", &file).env("DATABASE_URL", database.url()))
        .exits(1)
        .says(&["DATABASE_URL and DATABASE_URL_FILE are both set"]);
    run(command(&["migrate"]).env("DATABASE_URL_FILE", folder.path().join("none")))
        .exits(1)
        .says(&["DATABASE_URL_FILE names", "none, which cannot be read: No such file"]);
}

#[test]
fn a_database_that_was_never_migrated_is_named_with_what_mends_it() {
    let database = Database::empty();
    for arguments in commands().into_iter().filter(|arguments| arguments[0] != "migrate") {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        treemap(&database, &arguments).exits(1).says(&["treemap migrate"]);
    }
    assert_eq!(database.psql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "0");
}

#[test]
fn every_wrong_setting_of_the_server_is_told_at_once() {
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
        assert!(ran.stderr().contains(&format!("{setting} is ")), "{setting} is not named:\n{}", ran.stderr());
    }
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let database = Database::empty();
    treemap(&database, &["serve", "--listen-addr", &address]).exits(1).says(&[
        "cannot listen on",
        &address,
        "TREEMAP_LISTEN_ADDR",
        "Address already in use",
    ]);
}

#[test]
fn an_unknown_flag_or_command_is_a_usage_error() {
    run(&mut command(&["serve", "--fast"])).exits(2).says(&["unexpected argument '--fast'", "Usage: treemap serve"]);
    run(&mut command(&["draw"])).exits(2).says(&["unrecognized subcommand 'draw'"]);
    run(&mut command(&[])).exits(2).says(&["Usage: treemap"]);
    run(&mut command(&["load", "shorts"])).exits(2).says(&["<PATH>"]);
    run(&mut command(&["status", "--log", "lo=ud=er"])).exits(1).says(&["TREEMAP_LOG"]);
}
