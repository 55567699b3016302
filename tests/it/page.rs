//! The page in a real Chromium, driven by tests/page/page.mjs. scripts/setup.sh chromium installs it.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use crate::{
    support::{
        cluster::free_port,
        database::Database,
        eventually,
        server::{Server, ready},
    },
    watch::change,
};

const FRESH: [&str; 2] = ["--max-data-age", "36500d"];

/// A run of one of the script's scenarios.
struct Browser(Child);

impl Browser {
    fn start(addr: &str, scenario: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let screenshots = root.join("target/screenshots");
        std::fs::create_dir_all(&screenshots).unwrap();
        let mut node = Command::new("node");
        node.arg(root.join("tests/page/page.mjs")).args([&format!("http://{addr}"), scenario]);
        let names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
        let paths: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect();
        let chromium =
            names.iter().find_map(|name| paths.iter().map(|path| path.join(name)).find(|path| path.exists()));
        node.env("CHROMIUM", chromium.expect("Chromium; set it up with: scripts/setup.sh chromium"));
        node.env("SCREENSHOTS", screenshots).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(node.kill_on_drop(true).spawn().expect("node; set it up with: scripts/setup.sh npm chromium"))
    }

    /// Waits for a step of the scenario.
    async fn wait_for(&mut self, step: &str) {
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line == format!("READY {step}") {
                    return true;
                }
            }
            false
        };
        if !tokio::time::timeout(Duration::from_secs(60), ready).await.unwrap_or_default() {
            let mut errors = String::new();
            let _ = tokio::io::AsyncReadExt::read_to_string(self.0.stderr.as_mut().unwrap(), &mut errors).await;
            panic!("no {step}: {errors}");
        }
    }

    async fn go_on(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
    }

    async fn succeeds(self) {
        let ended =
            tokio::time::timeout(Duration::from_secs(120), self.0.wait_with_output()).await.expect("an end").unwrap();
        assert!(
            ended.status.success(),
            "{}{}",
            String::from_utf8_lossy(&ended.stdout),
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}

#[tokio::test]
async fn the_page_does_all_that_it_offers_by_pointer_and_by_keyboard() {
    let (_database, server) = ready(&FRESH).await;
    Browser::start(&server.addr, "whole").succeeds().await;
}

#[tokio::test]
async fn a_new_treemap_arrives_by_itself() {
    let (database, server) = ready(&FRESH).await;
    let mut browser = Browser::start(&server.addr, "live");
    browser.wait_for("loaded").await;
    database.psql(
        "UPDATE shorts SET \"PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS\" = 12.5 WHERE \"DATE\" = '2023-12-29'",
    );
    database.refresh();
    browser.go_on().await;
    browser.succeeds().await;
}

#[tokio::test]
async fn a_hidden_tab_watches_nothing() {
    let (_database, server) = ready(&FRESH).await;
    let mut browser = Browser::start(&server.addr, "hidden");
    for (step, watchers) in [("visible", 1.0), ("hidden", 0.0), ("visible again", 1.0)] {
        browser.wait_for(step).await;
        eventually(&format!("{watchers} watchers while the tab is {step}"), async || {
            (server.metric("treemap_watchers").await == watchers).then_some(())
        })
        .await;
        browser.go_on().await;
    }
    browser.succeeds().await;
}

#[tokio::test]
async fn the_page_shows_that_the_server_is_away_or_back_and_keeps_the_old_picture_meanwhile() {
    let database = Database::with_sample();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let start = async || {
        let server = Server::start_with(&database.url(), &[&FRESH[..], &["--listen-addr", &address]].concat()).await;
        server.wait_until_ready().await;
        server
    };
    let server = start().await;
    let mut browser = Browser::start(&address, "restart");
    browser.wait_for("loaded").await;
    drop(server);
    browser.go_on().await;
    browser.wait_for("gone").await;
    let _server = start().await;
    browser.go_on().await;
    browser.succeeds().await;
}

#[tokio::test]
async fn the_page_shows_that_the_data_is_old() {
    let (_database, server) = ready(&[]).await;
    Browser::start(&server.addr, "stale").succeeds().await;
}

#[tokio::test]
async fn the_page_shows_why_it_was_refused_and_recovers_by_itself_or_by_a_button() {
    let (_database, server) = ready(&FRESH).await;
    Browser::start(&server.addr, "refusals").succeeds().await;
}

#[tokio::test]
async fn a_picture_that_is_older_than_announced_is_asked_for_again() {
    let (database, server) = ready(&FRESH).await;
    let mut browser = Browser::start(&server.addr, "behind");
    browser.wait_for("loaded").await;
    change(&database, 12);
    browser.go_on().await;
    browser.succeeds().await;
}

#[tokio::test]
async fn markup_in_a_name_is_text_on_the_page() {
    let database = Database::migrated();
    // The names that the scenario expects.
    database.psql(
        r#"INSERT INTO "company-metadata" VALUES ('AAA', '<img src=x onerror="window.ran=1"><b>Sons</b>', 'Mines & <b>Ores</b>')"#,
    );
    database.add_shorts(&[("2023-12-01", "AAA", "1"), ("2023-12-29", "AAA", "2")]);
    database.refresh();
    let server = Server::start_with(&database.url(), &FRESH).await;
    server.wait_until_ready().await;
    Browser::start(&server.addr, "hostile").succeeds().await;
}
