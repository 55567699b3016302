//! A start without Postgres: from the model file of a server, and from a file alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::support::{
    cluster::{OwnCluster, free_port, output},
    database::Database,
    eventually,
    outage::refresh_and_wait,
    server::{Server, get, stocks},
    treemap::{command, run, treemap},
};

/// A connection string of a Postgres that is not there.
fn nowhere() -> String {
    format!("postgres://postgres@127.0.0.1:{}/postgres", free_port())
}

/// A folder, and a file in it that does not exist yet.
fn new_file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model");
    (folder, file)
}

fn argument(file: &Path) -> String {
    file.display().to_string()
}

/// The version of what a server answers, and the stocks.
async fn answer(server: &Server) -> (String, Vec<(String, String, f64)>) {
    let mut client = server.client().await;
    let answer = get(&mut client, "3m", 10, 0).await.unwrap();
    let version = answer.metadata().get("treemap-version").unwrap().to_str().unwrap().to_owned();
    let mut all = stocks(&mut client, "3m", 10, 0).await;
    all.extend(stocks(&mut client, "max", 500, 1).await);
    (version, all)
}

/// Writes the model file of a server over `database`, as the server itself does it; gives what it answers.
async fn write(database: &Database, file: &Path) -> (String, Vec<(String, String, f64)>) {
    let server = Server::start_with(&database.url(), &["--model-file", &argument(file)]).await;
    server.wait_until_ready().await;
    eventually("the model file is written", async || file.exists().then_some(())).await;
    answer(&server).await
}

const OF_FILE: &str = "treemap_model_of_file";

#[tokio::test]
async fn a_server_that_starts_while_postgres_is_away_answers_from_its_model_file_at_once() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let (_folder, file) = new_file();
    let before = write(&database, &file).await;
    own.stop("immediate");

    let (url, file_argument) = (database.url(), argument(&file));
    let arguments = ["--model-file", &file_argument, "--max-age", "1ms", "--poll-interval", "100ms"];
    let server = Server::start_with(&url, &arguments).await;
    // Not a call waits for the database.
    assert_eq!(server.health("").await, Ok("SERVING"));
    assert_eq!(answer(&server).await, before);
    let marked = get(&mut server.client().await, "3m", 10, 0).await.unwrap();
    assert_eq!(marked.metadata().get("treemap-stale").unwrap(), "true", "marked by its true age");
    assert_eq!(server.metric(OF_FILE).await, 1.0);
    server.wait_for_log("serving the last model; retrying").await;

    own.start_again();
    database.add_shorts(&[("2099-01-01", "AAA", "1")]);
    server.wait_for_log("the database answers again").await;
    eventually("the database's model serves", async || (server.metric(OF_FILE).await == 0.0).then_some(())).await;
    let written = "treemap_model_file_writes_total{result=\"written\"}";
    eventually("the file is written again", async || (server.metric(written).await >= 1.0).then_some(())).await;
    refresh_and_wait(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_model_file_that_cannot_be_used_is_named_ignored_and_replaced() {
    let database = Database::with_sample();
    let (folder, file) = new_file();
    let before = write(&database, &file).await;
    let whole = fs::read(&file).unwrap();
    let newer = [b"treemap model 2 sha256 ", &whole[23..]].concat();
    for (bytes, why) in
        [(&whole[..whole.len() / 2], "cut or damaged"), (&whole[..0], "no model"), (&newer[..], "another version")]
    {
        fs::write(&file, bytes).unwrap();
        let server = Server::start_with(&database.url(), &["--model-file", &argument(&file)]).await;
        let words = server.wait_for_log(&format!("ignoring the model file {}", file.display())).await;
        assert!(words.contains(why), "{words}");
        server.wait_until_ready().await;
        assert_eq!(answer(&server).await, before);
        eventually("the file is replaced", async || (fs::read(&file).unwrap() == whole).then_some(())).await;
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["model"], "nothing is left beside it");

    // A pipe has no end, and nobody waits for it.
    fs::remove_file(&file).unwrap();
    output(Command::new("mkfifo").arg(&file));
    let server = Server::start_with(&nowhere(), &["--model-file", &argument(&file)]).await;
    server.wait_for_log("this is no regular file").await;
}

#[tokio::test]
async fn a_model_file_that_cannot_be_written_costs_one_log_line_and_no_call() {
    let database = Database::with_sample();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/model");
    let mut servers = vec![Server::start_with(&database.url(), &["--model-file", &argument(&missing)]).await];
    // A full disk, where the tests may mount one.
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    let mount = "mount -t tmpfs -o size=8k tmpfs \"$0\" && exec \"$@\"";
    if Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        let treemap = command(&[]);
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", mount]).arg(&small).arg(treemap.get_program());
        unshare.env("TREEMAP_LOG_FORMAT", "text");
        let file = argument(&small.join("model"));
        let arguments = ["--model-file", &file, "--refresh-schedule", "off", "--source-interval", "off"];
        servers.push(Server::run(unshare, &database.url(), &arguments).await);
    } else {
        println!("skipped: no full disk without the right to mount one");
    }
    for server in &servers {
        server.wait_for_log("cannot write the model file").await;
        server.wait_until_ready().await;
        refresh_and_wait(server, || database.refresh()).await;
        let failed = "treemap_model_file_writes_total{result=\"failed\"}";
        eventually("it tries again", async || (server.metric(failed).await >= 2.0).then_some(())).await;
        assert_eq!(server.log().matches("cannot write the model file").count(), 1, "{}", server.log());
    }
}

#[tokio::test]
async fn a_server_serves_a_snapshot_without_any_database_and_takes_a_new_one() {
    let database = Database::with_sample();
    let (_folder, file) = new_file();
    let file_argument = argument(&file);
    treemap(&database, &["snapshot", &file_argument]).succeeds().prints(&["wrote ", "data of 2023-12-29"]);
    let expected = answer(&Server::ready(&database).await).await;

    // A database that is set is not looked at. A variable that is set to nothing is none.
    let mut alone = command(&[]);
    alone.env("TREEMAP_MODEL_FILE", "").env("DATABASE_URL_FILE", "");
    let arguments = ["--from", &file_argument, "--poll-interval", "50ms"];
    let server = Server::run(alone, &nowhere(), &arguments).await;
    assert_eq!(answer(&server).await, expected);
    assert_eq!(server.metric(OF_FILE).await, 1.0);
    assert_eq!(server.admin_get("/readyz").await.0, 200);

    database.add_companies(&[("ZZZ", "'Banks'")]);
    database.add_shorts(&[("2023-12-29", "ZZZ", "12.5")]);
    database.refresh();
    treemap(&database, &["snapshot", &file_argument]).succeeds();
    eventually("the new file is served", async || (answer(&server).await != expected).then_some(())).await;
    let newer = answer(&server).await;
    // The same rows, refreshed again: they are as fresh as the file is.
    let refreshed = async || {
        let answer = get(&mut server.client().await, "3m", 10, 0).await.unwrap();
        answer.metadata().get("treemap-last-refreshed").unwrap().clone()
    };
    let before = refreshed().await;
    database.refresh();
    treemap(&database, &["snapshot", &file_argument]).succeeds();
    eventually("a file with the same rows is taken over", async || (refreshed().await != before).then_some(())).await;
    assert_eq!(answer(&server).await, newer);
    fs::write(&file, "nonsense").unwrap();
    server.wait_for_log("cannot be used; serving what it had").await;
    assert_eq!(answer(&server).await, newer);
    assert!(!server.log().contains("retrying"), "it looks for no database: {}", server.log());
}

#[test]
fn a_file_that_is_all_there_is_has_to_be_there_and_sound() {
    let (_folder, file) = new_file();
    let serve = |arguments: &[&str]| {
        let all = [&["serve", "--listen-addr", "127.0.0.1:0", "--admin-addr", "off", "--from"], arguments].concat();
        command(&all)
    };
    let file_argument = argument(&file);
    run(&mut serve(&[&file_argument])).exits(1).prints(&["TREEMAP_FROM names ", "does not exist", "treemap snapshot"]);
    fs::write(&file, "nonsense").unwrap();
    run(&mut serve(&[&file_argument])).exits(1).prints(&["TREEMAP_FROM names ", "cannot be used"]);
}

#[tokio::test]
async fn a_database_that_is_slow_holds_up_no_call_of_a_server_with_a_model_file() {
    let database = Database::with_sample();
    let (_folder, file) = new_file();
    let before = write(&database, &file).await;
    let blocker = database.connect().await;
    blocker.batch_execute("BEGIN; REFRESH MATERIALIZED VIEW mv_treemap_data").await.unwrap();
    let server = Server::start_with(&database.url(), &["--model-file", &argument(&file)]).await;
    let answered = tokio::time::timeout(Duration::from_secs(2), answer(&server)).await;
    assert_eq!(answered.expect("at once"), before);
}
