//! Real clients of the published service, of other languages: each gets the same answers, refusals, deadlines and freshness.
//! scripts/setup.sh clients installs them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    cluster::output,
    database::Database,
    server::{Server, get, stocks},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a program that prints an object for each of its clients, and checks them all.
async fn check(program: &mut Command) {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let descriptors = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(descriptors.path(), industry_treemap::proto::DESCRIPTORS).unwrap();
    let mut expected = Vec::new();
    for period in ["3m", "6M", "1y", "2y", "5y", "max"] {
        for view_mode in [0, 1] {
            let stocks = stocks(&mut server.client().await, period, 10, view_mode).await;
            expected.push(
                stocks.into_iter().map(|(industry, code, value)| json!([industry, code, value])).collect::<Value>(),
            );
        }
    }
    let answer = get(&mut server.client().await, "3m", 1, 0).await.unwrap();
    let version = answer.metadata().get("treemap-version").unwrap().to_str().unwrap().to_owned();

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
    let mut clients = 0;
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
        clients += 1;
    }
    assert!(clients >= 2, "{clients}");
    println!("{clients} clients of {program:?}");
}

/// Industry, code and value of each stock; 100 and 100.0 are one.
fn as_doubles(stocks: &Value) -> Vec<(&str, &str, f64)> {
    let all = stocks.as_array().unwrap().iter();
    all.map(|each| (each[0].as_str().unwrap(), each[1].as_str().unwrap(), each[2].as_f64().unwrap())).collect()
}

fn tools(name: &str) -> PathBuf {
    Path::new(ROOT).join(".tools/clients").join(name)
}

#[tokio::test]
async fn clients_for_node_and_browsers_get_the_same_answers() {
    // Beside what it imports.
    std::fs::copy(Path::new(ROOT).join("tests/clients/client.mjs"), tools("client.mjs")).unwrap();
    check(Command::new("node").arg(tools("client.mjs"))).await;
}

#[tokio::test]
async fn clients_for_go_get_the_same_answers() {
    check(&mut Command::new(tools("go-client"))).await;
}

#[tokio::test]
async fn clients_for_python_get_the_same_answers() {
    let system = Path::new("/usr/bin/python3");
    let python = if system.exists() { system } else { Path::new("python3") };
    check(Command::new(python).arg(Path::new(ROOT).join("tests/clients/client.py"))).await;
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
