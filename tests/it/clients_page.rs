//! docs/clients.md as a reader uses it: its programs are made by its commands, and print the treemap of a server of the suite.
//! scripts/setup.sh clients runs the page's install commands, so that nothing is downloaded here.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::Child,
    time::timeout,
};

use crate::support::{
    PATIENCE,
    cluster::{free_port, output},
    database::Database,
    docs, eventually,
    server::{Server, get, ready, stocks},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Industry, code and value of each stock.
type Stocks = Vec<(String, String, f64)>;

/// A section of the page, in the folder where setup.sh has installed what it needs.
struct Section(PathBuf);

impl Section {
    fn write(name: &str, folder: &str, server: &Server) -> Self {
        let folder = Path::new(ROOT).join(".tools/clients/page").join(folder);
        let script = Path::new(ROOT).join("scripts/clients-page.sh");
        output(Command::new(script).arg(name).arg(&folder).arg(&server.addr));
        Self(folder)
    }

    /// The section's commands, by the number of their block.
    fn commands(&self, number: u32) -> String {
        std::fs::read_to_string(self.0.join(format!("{number}.sh"))).unwrap()
    }

    /// A shell that runs commands in the folder, with the tools of setup.sh and without downloads.
    fn shell(&self, commands: &str) -> Command {
        let tools = ["buf/node_modules/.bin", "go/bin", "bin"].map(|tool| Path::new(ROOT).join(".tools").join(tool));
        let path = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths(tools.into_iter().chain(std::env::split_paths(&path))).unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-ec", commands]).current_dir(&self.0).env("PATH", path);
        shell.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("npm_config_offline", "true");
        shell
    }

    fn run(&self, number: u32) -> String {
        output(&mut self.shell(&self.commands(number)))
    }
}

/// What every program has to print.
struct Expected {
    as_of: String,
    stocks: Stocks,
}

impl Expected {
    async fn of(server: &Server) -> Self {
        let mut client = server.client().await;
        let answer = get(&mut client, "3m", 10, 0).await.unwrap();
        let date = answer.metadata().get("treemap-data-date").unwrap().to_str().unwrap();
        Self { as_of: format!("as of {date}"), stocks: stocks(&mut client, "3m", 10, 0).await }
    }

    /// A line with the date of the data, then a line for each stock.
    fn check(&self, printed: &str) {
        let mut lines = printed.lines();
        assert_eq!(lines.next(), Some(self.as_of.as_str()), "{printed}");
        let stocks: Stocks = lines
            .map(|line| {
                let mut words = line.rsplitn(3, ' ');
                let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
                let (value, code, industry) = (word(), word(), word());
                (industry.to_owned(), code.to_owned(), value.parse().unwrap())
            })
            .collect();
        assert_eq!(stocks, self.stocks);
    }

    fn check_json(&self, printed: &str) {
        let answer: Value = serde_json::from_str(printed).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let stocks = answer["stocks"].as_array().unwrap().iter().map(|stock| {
            (text(&stock["industry"]), text(&stock["productCode"]), stock["shortPosition"].as_f64().unwrap())
        });
        assert_eq!(stocks.collect::<Stocks>(), self.stocks);
    }
}

/// Starts a program that ends with the test: with its standard input, or killed.
fn start(command: Command) -> Child {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn the_pages_programs_for_python_print_the_treemap_and_watch_it() {
    let (_database, server) = ready(&[]).await;
    let expected = Expected::of(&server).await;
    expected.check(&Section::write("Python", "python", &server).run(1));

    let stream = Section::write("A stream", "python", &server);
    // `exec`: the program itself is what is killed.
    let mut watch = start(stream.shell(&format!("exec {}", stream.commands(1))));
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut printed = Vec::new();
    while printed.len() < 1 + expected.stocks.len() {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("a line in time");
        printed.push(line.unwrap().expect("the watch goes on"));
    }
    expected.check(&printed.join("\n"));
}

#[tokio::test]
async fn the_pages_programs_for_node_and_a_browser_print_the_treemap() {
    let database = Database::with_sample();
    let port = free_port();
    let origin = format!("http://localhost:{port}");
    let server = Server::start_with(&database.url(), &["--cors-origins", &origin]).await;
    server.wait_until_ready().await;
    let expected = Expected::of(&server).await;
    expected.check(&Section::write("TypeScript in Node", "node", &server).run(1));

    let browser = Section::write("TypeScript in a browser", "node", &server);
    let commands = browser.commands(1);
    assert!(commands.contains("localhost:3000"), "{commands}");
    let commands = commands.replace("localhost:3000", &format!("localhost:{port}"));
    let _files = start(browser.shell(&commands));
    eventually("the page's files are served", async || TcpStream::connect(("localhost", port)).await.ok()).await;
    let chromium = output(Command::new("bash").args(["-c", "source scripts/lib.sh; chromium_path"]).current_dir(ROOT));
    let profile = tempfile::tempdir().unwrap();
    let page = output(
        Command::new(chromium.trim())
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            // Time that does not pass while the page waits for an answer.
            .args(["--virtual-time-budget=10000", "--dump-dom", &origin]),
    );
    let shown = page.split_once("<pre>").unwrap().1.split_once("</pre>").unwrap().0;
    expected.check(&shown.replace("&amp;", "&"));
}

#[tokio::test]
async fn the_pages_programs_for_go_print_the_treemap() {
    let (_database, server) = ready(&[]).await;
    let expected = Expected::of(&server).await;
    let go = Section::write("Go", "go", &server);
    expected.check(&go.run(1));
    expected.check(&go.run(2));
}

/// Cargo has compiled it as an example of this package: a crate of its own would compile all of tonic once more.
#[tokio::test]
async fn the_pages_program_for_rust_prints_the_treemap() {
    let page = |words| docs::block("clients.md", words);
    assert!(docs::file("examples/client.rs").ends_with(&format!("\n\n{}\n", page("#[tokio::main]"))));
    let build = docs::file("build.rs");
    for line in page("protox::compile").lines() {
        assert!(build.lines().any(|ours| ours == line), "build.rs has no {line}");
    }
    let manifest = docs::file("Cargo.toml");
    for line in page("tonic-prost-build =").lines().filter(|line| line.contains(" = ") && !line.starts_with("name")) {
        // The version alone: the features may be others.
        let (name, version) = line.split_once(" = ").unwrap();
        let version = version.split('"').nth(1).unwrap();
        let same = |ours: &str| {
            ours.strip_prefix(name).and_then(|rest| rest.strip_prefix(" = ")).is_some_and(|rest| rest.contains(version))
        };
        assert!(manifest.lines().any(same), "Cargo.toml has no {name} {version}");
    }

    let (_database, server) = ready(&[]).await;
    let program = Path::new(env!("CARGO_BIN_EXE_treemap")).with_file_name("examples").join("client");
    assert!(program.exists(), "cargo test compiles it; for cargo test --test it, run cargo build --examples first");
    let commands = Section::write("Rust", "rust", &server).commands(1);
    let (_, address) = commands.trim().split_once("cargo run --quiet -- ").unwrap();
    Expected::of(&server).await.check(&output(Command::new(program).arg(address)));
}

#[tokio::test]
#[ignore = "needs Maven: make clients-java"]
async fn the_pages_program_for_java_prints_the_treemap() {
    let (_database, server) = ready(&[]).await;
    let java = Section::write("Java", "java", &server);
    // setup.sh has fetched everything.
    std::fs::create_dir_all(java.0.join(".mvn")).unwrap();
    std::fs::write(java.0.join(".mvn/maven.config"), "--offline\n").unwrap();
    // Debian's Maven ends its output with a change of colours.
    Expected::of(&server).await.check(&java.run(1).replace("\u{1b}[0m", ""));
}

#[tokio::test]
async fn the_pages_commands_for_curl_and_grpcurl_print_the_treemap() {
    let (_database, server) = ready(&[]).await;
    let expected = Expected::of(&server).await;
    let shell = Section::write("curl and grpcurl", "shell", &server);
    expected.check_json(&shell.run(1));
    expected.check_json(&shell.run(2));
}

#[test]
fn every_program_of_the_page_is_short() {
    let text = docs::file("docs/clients.md");
    for program in text.split("\n```").skip(1).step_by(2) {
        let (language, lines) = program.split_once('\n').unwrap();
        if !["python", "ts", "go", "rust", "java"].contains(&language) {
            continue;
        }
        let imports = |line: &str| {
            ["import ", "from ", "use "].iter().any(|word| line.starts_with(word))
                || line.starts_with('\t') && line.ends_with('"') && !line.contains('(')
        };
        // As the page says: without imports and lone brackets.
        let lines = lines.lines().filter(|line| line.contains(char::is_alphanumeric) && !imports(line)).count();
        assert!(lines < 25, "{lines} lines: {program}");
    }
}
