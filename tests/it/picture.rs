//! The picture, the rows and the page, as they are served.

use std::{path::Path, process::Command};

use crate::{
    query::query,
    support::{
        database::Database,
        server::{Server, ready},
        web::{Answer, Web, gunzip},
    },
};

const HOSTILE: [(&str, &str); 6] = [
    ("AAA", "<script>alert(1)</script>"),
    ("BBB", "\"quotes\" & 'more' & <b>"),
    ("CCC", "\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{202e}evil\u{202c}"),
    ("DDD", "\u{1f4c9} shorts \u{1f525}"),
    ("EEE", "]]> --> \u{7}\u{1b}[31mred"),
    ("FFF", "=HYPERLINK(\"http://evil\")"),
];

async fn get(server: &Server, path: &str) -> Answer {
    Web::new("GET", path).http1(&server.addr).await
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// A small fixture with names as hostile as Postgres can hold.
fn hostile() -> Database {
    let database = Database::migrated();
    for (place, (code, name)) in HOSTILE.iter().enumerate() {
        let name = name.replace('\'', "''");
        database.psql(&format!(
            "INSERT INTO \"company-metadata\" VALUES ('{code}', '{name}', '{}')",
            ["Materials & <Mining>", "Banks"][place % 2]
        ));
        database.add_shorts(&[("2023-12-01", code, "1"), ("2023-12-29", code, &(place + 1).to_string())]);
    }
    let long = "L".repeat(200);
    database.psql(&format!("INSERT INTO \"company-metadata\" VALUES ('GGG', '{long}', 'Banks')"));
    database.add_shorts(&[("2023-12-29", "GGG", "0.5")]);
    database.refresh();
    database
}

/// Whether a text is well-formed XML, as Python's parser has it.
pub fn is_well_formed(xml: &str) {
    let mut python = Command::new("python3");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), xml).unwrap();
    let ran = python
        .args(["-c", "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test]
async fn a_picture_of_hostile_names_is_well_formed_and_cannot_run_anything() {
    let database = hostile();
    let server = Server::ready(&database).await;
    for query in ["", "?mode=change&theme=dark&width=400&height=300", "?industry=Materials%20%26%20%3CMining%3E"] {
        let answer = get(&server, &format!("/treemap.svg{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", text(&answer));
        assert_eq!(answer.headers["content-type"], "image/svg+xml");
        assert!(answer.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
        let svg = text(&answer);
        is_well_formed(&svg);
        for forbidden in ["<script", "<style", " style=", "\u{202e}", "\u{1b}", "<b>", "http://evil", "href", " on"] {
            let named = forbidden == "http://evil" && svg.contains("=HYPERLINK(&quot;http://evil&quot;)");
            assert!(
                named || !svg.contains(forbidden) || forbidden == " on" && !svg.contains(" onload"),
                "{forbidden} in {svg}"
            );
        }
        assert!(svg.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    }
}

#[tokio::test]
async fn the_picture_of_a_small_fixture_is_the_stored_one() {
    let server = Server::ready(&hostile()).await;
    let svg = text(&get(&server, "/treemap.svg?width=640&height=400").await);
    stored("tests/it/stored/treemap.svg", &stable(&svg));
    let drawn = query(&server, &["--format", "picture", "--limit", "3"]).succeeds().stdout();
    stored("tests/it/stored/treemap.txt", drawn.split_once('\n').unwrap().1);
}

#[tokio::test]
async fn the_picture_of_the_docs_is_that_of_the_sample() {
    let (_database, server) = ready(&["--max-data-age", "36500d"]).await;
    let svg = text(&get(&server, "/treemap.svg?width=960&height=540&limit=8").await);
    stored("docs/treemap.svg", &stable(&svg));
}

/// Without what differs from run to run.
fn stable(svg: &str) -> String {
    let mut svg = svg.to_owned();
    for name in ["data-version", "data-refreshed"] {
        let begin = svg.find(name).unwrap() + name.len() + 2;
        let end = begin + svg[begin..].find('"').unwrap();
        svg.replace_range(begin..end, "...");
    }
    svg
}

/// Compares with a stored file; writes it anew where `TREEMAP_STORE` is set.
fn stored(file: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("TREEMAP_STORE").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    assert_eq!(
        found,
        std::fs::read_to_string(&path).unwrap(),
        "{file}; if that is wanted: TREEMAP_STORE=1 cargo test picture::"
    );
}

#[tokio::test]
async fn every_tile_and_industry_of_the_answer_is_in_the_picture_and_in_the_rows() {
    let (database, server) = ready(&[]).await;
    for (mode, column) in [("current", "current_short_position"), ("change", "percentage_change")] {
        let svg = text(&get(&server, &format!("/treemap.svg?period=6m&limit=2&mode={mode}")).await);
        let expected = database.psql(&format!(
            "SELECT product_code FROM (SELECT *, row_number() OVER (PARTITION BY industry ORDER BY {column} DESC, product_code COLLATE \"C\") AS place
             FROM mv_treemap_data WHERE period_name = '6m' AND {column} IS NOT NULL) AS ranked WHERE place <= 2"
        ));
        assert_eq!(svg.matches("class=\"tile\"").count(), expected.lines().count());
        for code in expected.lines() {
            assert!(svg.contains(&format!("data-code=\"{code}\"")), "{code}");
        }
        assert!(svg.contains("data-period=\"6m\"") && svg.contains(&format!("data-mode=\"{mode}\"")));
        let csv = text(&get(&server, &format!("/treemap.csv?period=6m&limit=2&mode={mode}")).await);
        assert_eq!(csv.lines().count(), expected.lines().count() + 1);
        assert!(csv.starts_with(
            "industry,code,company,current_percent,earliest_percent,change_percent,report_date,data_date\r\n"
        ));
    }
}

#[tokio::test]
async fn a_spreadsheet_takes_no_name_for_a_formula_and_a_terminal_none_for_a_command() {
    let server = Server::ready(&hostile()).await;
    let answer = get(&server, "/treemap.csv").await;
    assert_eq!(answer.headers["content-type"], "text/csv; charset=utf-8; header=present");
    let csv = text(&answer);
    assert!(csv.contains("\"'=HYPERLINK(\"\"http://evil\"\")\""), "{csv}");
    // Nor a terminal for an escape sequence.
    assert!(
        csv.contains("]]> -->   [31mred") && csv.chars().all(|one| !one.is_control() || "\r\n".contains(one)),
        "{csv}"
    );
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(reader.records().map(Result::unwrap).count(), 7);
}

#[tokio::test]
async fn a_cache_can_hold_pictures_and_what_is_wrong_with_a_request_is_said() {
    let (database, server) = ready(&["--max-data-age", "36500d"]).await;
    for path in ["/treemap.svg", "/treemap.csv?limit=3"] {
        let answer = get(&server, path).await;
        assert!(
            answer.headers["cache-control"].to_str().unwrap().starts_with("public, max-age=60"),
            "{:?}",
            answer.headers
        );
        let tag = answer.headers["etag"].to_str().unwrap().to_owned();
        let again = Web::new("GET", path).header("if-none-match", &tag).http2(&server.addr).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
        assert_eq!(again.headers["etag"].to_str().unwrap(), tag);
        let zipped = Web::new("GET", path).header("accept-encoding", "br, gzip").http1(&server.addr).await;
        assert_eq!(gunzip(&zipped.body), answer.body);
        let head = Web::new("HEAD", path).http1(&server.addr).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
        // Under the address of a version, only that one is kept.
        let joint = if path.contains('?') { '&' } else { '?' };
        let version = answer.headers["treemap-version"].to_str().unwrap();
        for (asked, kept) in [(version, answer.headers["cache-control"].to_str().unwrap()), ("another", "no-store")] {
            let answer = get(&server, &format!("{path}{joint}version={asked}")).await;
            assert_eq!(answer.headers["cache-control"], kept, "{asked}");
        }
        database.refresh();
        crate::support::eventually("another tag", async || {
            (get(&server, path).await.headers["etag"].to_str().unwrap() != tag).then_some(())
        })
        .await;
    }
    for (query, sentence) in [
        ("period=4m", "invalid period format"),
        ("limit=x", "limit is \"x\""),
        ("limit=501", "limit cannot exceed 500"),
        ("mode=size", "expected current or change"),
        ("width=10", "width is \"10\""),
        ("height=9999", "expected pixels from 120 to 4320"),
        ("theme=blue", "expected light or dark"),
    ] {
        let answer = get(&server, &format!("/treemap.svg?{query}")).await;
        assert_eq!(answer.status, 400);
        assert!(text(&answer).contains(sentence), "{}", text(&answer));
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    assert_eq!(get(&server, "/treemap.svg?industry=Nothing").await.status, 404);
    let posted = Web::new("POST", "/treemap.svg").http1(&server.addr).await;
    assert_eq!((posted.status.as_u16(), posted.headers["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    assert!(server.metric("treemap_pages_total{path=\"/treemap.svg\",status=\"400\"}").await >= 7.0);
    let unready = Server::start(&Database::empty()).await;
    unready.wait_for_log("not ready; retrying").await;
    let answer = get(&unready, "/treemap.svg").await;
    assert_eq!(answer.status, 503);
    assert!(text(&answer).contains("not loaded yet"));
}

#[tokio::test]
async fn the_page_is_three_small_files_under_a_strict_policy_and_can_be_switched_off() {
    let (database, server) = ready(&[]).await;
    let mut bytes = 0;
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let answer = Web::new("GET", path).header("accept-encoding", "gzip").http1(&server.addr).await;
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with(kind));
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        bytes += answer.body.len();
        let file = String::from_utf8(gunzip(&answer.body)).unwrap();
        assert!(
            !file.contains("http://") || file.matches("http://").count() == file.matches("http://www.w3.org").count()
        );
        assert!(!file.contains("https://"), "{path} names another host");
    }
    let svg = Web::new("GET", "/treemap.svg?width=1280&height=640")
        .header("accept-encoding", "gzip")
        .http1(&server.addr)
        .await;
    bytes += svg.body.len();
    println!("the first picture takes {bytes} bytes");
    assert!(bytes <= 60 * 1024, "{bytes}");
    let without = Server::start_with(&database.url(), &["--page", "off"]).await;
    without.wait_until_ready().await;
    for path in ["/", "/page.js", "/treemap.svg", "/treemap.csv"] {
        assert_eq!(get(&without, path).await.status, 404, "{path}");
    }
}
