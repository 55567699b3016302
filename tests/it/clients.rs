//! Real clients of other languages: each gets the same answers, refusals, deadlines and freshness, and can watch.
//! scripts/setup.sh clients installs them.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::{
    support::{
        PATIENCE,
        cluster::output,
        database::Database,
        eventually,
        server::{Server, get, ready, stocks},
    },
    watch::change,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a program that prints an object for each of its `clients`, and checks them all.
async fn check(program: &mut Command, clients: usize) {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let descriptors = descriptors();
    let mut expected = Vec::new();
    for period in ["3m", "6M", "1y", "2y", "5y", "max"] {
        for view_mode in [0, 1] {
            let stocks = stocks(&mut server.client().await, period, 10, view_mode).await;
            expected.push(
                stocks.into_iter().map(|(industry, code, value)| json!([industry, code, value])).collect::<Value>(),
            );
        }
    }
    let version = version(&server).await;

    // A server that is not ready for as long as its database is locked: calls wait, and deadlines pass.
    let locked = Database::with_sample();
    let blocker = locked.connect().await;
    blocker.batch_execute("BEGIN; REFRESH MATERIALIZED VIEW mv_treemap_data").await.unwrap();
    let waiting = Server::start(&locked).await;
    let ran = program.args([&server.addr, &waiting.addr]).arg(descriptors.path()).stderr(Stdio::piped()).output();
    let ran =
        ran.unwrap_or_else(|error| panic!("{program:?}: {error}; set it up with: scripts/setup.sh clients grpcio npm"));
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program:?}: {errors}");
    let mut checked = 0;
    for line in String::from_utf8(ran.stdout).unwrap().lines() {
        let client: Value = serde_json::from_str(line).unwrap();
        let name = client["name"].as_str().unwrap();
        let answers = client["answers"].as_array().unwrap();
        assert_eq!(answers.len(), expected.len(), "{name}");
        for (answer, expected) in answers.iter().zip(&expected) {
            assert_eq!(as_doubles(answer), as_doubles(expected), "{name}");
        }
        assert_eq!(client["version"], version, "{name}");
        let is = |value: &Value, names: &[&str]| {
            let code = value.as_str().unwrap_or_default().to_ascii_lowercase().replace('_', "");
            assert!(names.contains(&code.as_str()), "{name}: {value}");
        };
        // A number is how Google's grpc-web names a code.
        is(&client["refusal"][0], &["invalidargument", "3"]);
        assert_eq!(client["refusal"][1], "limit must be positive", "{name}");
        is(&client["deadline"], &["deadlineexceeded", "4"]);
        checked += 1;
    }
    assert_eq!(checked, clients, "{program:?}");
}

fn descriptors() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), industry_treemap::proto::DESCRIPTORS).unwrap();
    file
}

/// The version that a server serves.
async fn version(server: &Server) -> String {
    let answer = get(&mut server.client().await, "3m", 1, 0).await.unwrap();
    answer.metadata().get("treemap-version").unwrap().to_str().unwrap().to_owned()
}

/// The streams of a program that watches, and what each of them has seen: an event and its version, or how it ended. A heartbeat that comes
/// again is left out.
struct Streams {
    program: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: BTreeMap<String, Vec<[String; 2]>>,
}

impl Streams {
    async fn start(program: Command, server: &Server, descriptors: &Path) -> Self {
        let mut program = tokio::process::Command::from(program);
        program.args([&server.addr, "watch"]).arg(descriptors).stdout(Stdio::piped()).kill_on_drop(true);
        let mut program = program.spawn().expect("the program; set it up with: scripts/setup.sh clients grpcio npm");
        let lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let mut streams = Self { program, lines, seen: BTreeMap::new() };
        let names = streams.line().await["streams"].as_array().unwrap().clone();
        streams.seen = names.iter().map(|name| (name.as_str().unwrap().to_owned(), Vec::new())).collect();
        streams
    }

    async fn line(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("no line in time after {:?}", self.seen)).unwrap();
        serde_json::from_str(&line.unwrap_or_else(|| panic!("ended after {:?}", self.seen))).unwrap()
    }

    /// Reads until this is the last that every stream has seen.
    async fn until(&mut self, event: &str, detail: &str) {
        let last = Some([event, detail].map(String::from));
        while self.seen.values().any(|seen| seen.last() != last.as_ref()) {
            let line = self.line().await;
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let (name, event) = (text("name"), text("event"));
            if event == "end" {
                assert!(text("message").contains("watch again"), "{line}");
            } else {
                // The sample is of 2023.
                assert_eq!(line["stale"], true, "{line}");
                assert_eq!(line["stocks"].as_u64().unwrap_or_default() > 0, event == "treemap", "{line}");
            }
            let detail = if event == "end" { text("code").to_ascii_lowercase() } else { text("version") };
            let seen = self.seen.get_mut(&name).unwrap();
            let event = [event, detail];
            if seen.last() != Some(&event) {
                seen.push(event);
            }
        }
    }
}

/// Runs a program that watches by each of its clients: from the start, and with the version that it has.
async fn check_watches(program: Command) {
    let (database, mut server) = ready(&["--watch-heartbeat", "300ms"]).await;
    let descriptors = descriptors();
    let old = version(&server).await;
    let mut streams = Streams::start(program, &server, descriptors.path()).await;
    streams.until("heartbeat", &old).await;
    change(&database, 42);
    let new =
        eventually("another version", async || Some(version(&server).await).filter(|version| *version != old)).await;
    streams.until("heartbeat", &new).await;
    server.signal("TERM");
    streams.until("end", "unavailable").await;
    assert!(server.wait_for_exit().await.success());
    let expected =
        [["treemap", &old], ["heartbeat", &old], ["treemap", &new], ["heartbeat", &new], ["end", "unavailable"]];
    for (name, seen) in &streams.seen {
        let expected = if name.ends_with(", known") { &expected[1..] } else { &expected[..] };
        assert_eq!(seen, expected, "{name}");
    }
    println!("{} streams", streams.seen.len());
    assert!(timeout(PATIENCE, streams.program.wait()).await.expect("an end").unwrap().success());
}

/// Industry, code and value of each stock; 100 and 100.0 are one.
fn as_doubles(stocks: &Value) -> Vec<(&str, &str, f64)> {
    let all = stocks.as_array().unwrap().iter();
    all.map(|each| (each[0].as_str().unwrap(), each[1].as_str().unwrap(), each[2].as_f64().unwrap())).collect()
}

fn tools(name: &str) -> PathBuf {
    Path::new(ROOT).join(".tools/clients").join(name)
}

fn node() -> Command {
    // Beside what it imports. Two tests may copy it at a time, so it comes to its place whole.
    let mut copy = tempfile::NamedTempFile::new_in(tools("")).unwrap();
    copy.write_all(&std::fs::read(Path::new(ROOT).join("tests/clients/client.mjs")).unwrap()).unwrap();
    copy.persist(tools("client.mjs")).unwrap();
    let mut node = Command::new("node");
    node.arg(tools("client.mjs"));
    node
}

fn python() -> Command {
    let system = Path::new("/usr/bin/python3");
    let mut python = Command::new(if system.exists() { system } else { Path::new("python3") });
    python.arg(Path::new(ROOT).join("tests/clients/client.py"));
    python
}

#[tokio::test]
async fn clients_for_node_and_browsers_get_the_same_answers() {
    check(&mut node(), 15).await;
}

#[tokio::test]
async fn clients_for_node_and_browsers_get_each_treemap_of_a_watch_and_its_end() {
    check_watches(node()).await;
}

#[tokio::test]
async fn clients_for_go_get_the_same_answers() {
    check(&mut Command::new(tools("go-client")), 7).await;
}

#[tokio::test]
async fn clients_for_python_get_the_same_answers() {
    check(&mut python(), 2).await;
}

#[tokio::test]
async fn clients_for_python_get_each_treemap_of_a_watch_and_its_end() {
    check_watches(python()).await;
}

#[tokio::test]
async fn curl_gets_an_answer_without_any_library() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let url = format!("http://{}/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap", server.addr);
    let curl = |arguments: &[&str]| output(Command::new("curl").args(["-sS", "-m", "5", &url]).args(arguments));
    let json: Value = serde_json::from_str(&curl(&["--json", r#"{"period":"3m","limit":"10"}"#])).unwrap();
    let expected = stocks(&mut server.client().await, "3m", 10, 0).await;
    assert_eq!(json["stocks"].as_array().unwrap().len(), expected.len());
    for (stock, (industry, code, value)) in json["stocks"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!((&stock["industry"], &stock["productCode"]), (&json!(industry), &json!(code)));
        assert_eq!(stock["shortPosition"].as_f64().unwrap(), *value);
    }
    let zipped = curl(&["--compressed", "-H", "content-type: application/json", "-d", r#"{"period":"3m","limit":10}"#]);
    assert_eq!(serde_json::from_str::<Value>(&zipped).unwrap(), json);
    // A request that is refused before its type was known gets its answer, over both versions of HTTP.
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for _ in 0..20 {
            let code =
                curl(&[version, "-o", "/dev/null", "-w", "%{http_code}", "-H", "content-type: text/plain", "-d", "x"]);
            assert_eq!(code, "415");
        }
    }
}
