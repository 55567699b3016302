//! `treemap query`: a picture, a table or a file of what a running server answers.

use std::{
    fs,
    process::{Command, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::{
    picture::is_well_formed,
    support::{
        PATIENCE,
        cluster::{free_port, output},
        database::Database,
        eventually,
        proxy::{Mode, Proxy},
        server::{Server, ready},
        treemap::{Run, command, run},
    },
    tls::Authority,
    watch::change,
};

/// The exit code of a command whose reader has gone away.
const NOBODY_READS: i32 = 141;

pub fn query(server: &Server, arguments: &[&str]) -> Run {
    run(&mut command(&[&["query", &server.addr], arguments].concat()))
}

#[tokio::test]
async fn query_prints_the_treemap_in_every_format() {
    let (database, server) = ready(&[]).await;
    let top =
        database.psql("SELECT product_code FROM get_treemap_data('3m', 1, 'CURRENT') WHERE industry = 'Materials'");
    let table = query(&server, &["--limit", "1"]).succeeds().stdout();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("reports up to 2023-12-29") && lines[0].contains(", version "), "{table}");
    let header: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!(header, ["industry", "code", "company", "now", "then", "change", "report"]);
    assert!(lines.iter().any(|line| line.starts_with("Materials ") && line.contains(&top)), "{table}");
    assert_eq!(
        query(&server, &["--limit", "1", "--format", "table"]).succeeds().stdout().lines().nth(2),
        Some(lines[2])
    );

    let json = query(&server, &["--format", "json", "--limit", "1", "--mode", "change"]).succeeds().stdout();
    assert_eq!(json.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["viewMode"], "VIEW_MODE_CHANGE");
    assert_eq!(json["period"], "3m");
    let csv = query(&server, &["--format", "csv", "--limit", "1", "--industry", "Materials"]).succeeds().stdout();
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.starts_with("industry,code,company,") && csv.contains(&format!("\r\nMaterials,{top},")), "{csv}");
    let year = query(&server, &["--format", "json", "--period", "1Y"]).succeeds().stdout();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&year).unwrap()["period"], "1y");
    query(&server, &["--format", "picture"]).succeeds().prints(&["reports up to 2023-12-29", &top]);

    // A file has what would have been printed.
    let folder = tempfile::tempdir().unwrap();
    for format in ["csv", "json", "svg", "table", "picture"] {
        let file = folder.path().join(format);
        let into_file = ["--format", format, "--output", &file.display().to_string()];
        assert_eq!(query(&server, &into_file).succeeds().stdout(), "");
        let (written, printed) =
            (fs::read_to_string(file).unwrap(), query(&server, &["--format", format]).succeeds().stdout());
        // The first line of a table and of a picture says how old the data is, by the second.
        let said = |text: &str| {
            text.split_once('\n').filter(|(first, _)| first.contains(" ago")).map(|(_, rest)| rest.to_owned())
        };
        assert_eq!(said(&written).unwrap_or(written.clone()), said(&printed).unwrap_or(printed), "{format}");
        if format == "svg" {
            is_well_formed(&written);
        }
    }
}

#[tokio::test]
async fn query_exits_with_1_without_an_answer_and_with_2_for_a_wrong_command_line() {
    let (_database, server) = ready(&[]).await;
    for (arguments, reason) in [
        (&["--industry", "Nothing"][..], "there are: "),
        (&["--limit", "501"], "limit cannot exceed 500"),
        (&["--period", "3x"], "invalid period format"),
        (&["--output", "/nowhere/x"], "cannot write /nowhere/x"),
        (&["--ca", "/nowhere/ca"], "are for https:// addresses"),
    ] {
        let failed = query(&server, arguments).exits(1).prints(&[reason]);
        assert_eq!(failed.stdout(), "");
    }
    run(&mut command(&["query", "127.0.0.1:1"])).exits(1).prints(&["cannot reach a server at http://127.0.0.1:1"]);
    run(&mut command(&["query", "ftp://x"])).exits(1).prints(&["is no address of a server"]);
    for wrong in [&["--format", "gif"][..], &["--mode", "size"], &["--limit", "x"], &["--cert", "x"], &["--follow"]] {
        query(&server, wrong).exits(2);
    }
}

/// `treemap query` on a terminal of 80 x 24 cells.
fn on_a_terminal(server: &Server, arguments: &str) -> Command {
    let program = env!("CARGO_BIN_EXE_treemap");
    let query = format!("stty cols 80 rows 24; exec '{program}' query {} --limit 2 {arguments}", server.addr);
    let mut script = Command::new("script");
    script.args(["-qec", &query, "/dev/null"]).stdin(Stdio::null());
    for name in ["NO_COLOR", "COLORTERM", "TREEMAP_LOG"] {
        script.env_remove(name);
    }
    script
}

/// How many of the terminal's lines a text takes.
fn lines_of_80(text: &str) -> usize {
    text.lines().map(|line| line.trim_end_matches('\r').chars().count().div_ceil(80).max(1)).sum()
}

#[tokio::test]
async fn query_draws_with_the_colours_that_the_terminal_has() {
    let (_database, server) = ready(&[]).await;
    let (true_colour, palette) = ("\x1b[48;2;", "\x1b[48;5;");
    for (variables, has, has_not) in [
        (&[("COLORTERM", "truecolor")][..], true_colour, palette),
        (&[("COLORTERM", "24bit"), ("NO_COLOR", "")], true_colour, palette),
        (&[], palette, true_colour),
        (&[("NO_COLOR", "1"), ("COLORTERM", "truecolor")], "|", "\x1b"),
    ] {
        let drawn = output(on_a_terminal(&server, "").envs(variables.iter().copied()));
        assert!(drawn.contains(has) && !drawn.contains(has_not), "{variables:?}: {drawn}");
        // The headline above it, and a line for the prompt.
        let (headline, picture) = drawn.split_once('\n').unwrap();
        assert_eq!(lines_of_80(headline) + picture.lines().count(), 23, "{drawn}");
    }
    // The longest headline is broken, and nothing of it is lost.
    for arguments in ["", "--mode change --period 10y"] {
        let plain = output(on_a_terminal(&server, arguments).env("NO_COLOR", "1"));
        assert_eq!(lines_of_80(&plain), 23, "{plain}");
        assert!(plain.lines().skip(1).all(|line| line.trim_end_matches('\r').chars().count() == 80), "{plain}");
    }
    // Into a pipe there are none, whatever the terminal has.
    let mut piped = command(&["query", &server.addr, "--format", "picture"]);
    let piped = run(piped.env("COLORTERM", "truecolor")).succeeds();
    assert!(!piped.stdout().contains('\x1b'), "{}", piped.stdout());
}

/// A running `treemap query --watch`.
struct Watching {
    program: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    /// Of one industry's first stock, as CSV.
    fn start(addr: &str) -> Self {
        let arguments = ["query", addr, "--watch", "--format", "csv", "--limit", "1", "--industry", "Materials"];
        Self::run(command(&arguments))
    }

    fn run(command: Command) -> Self {
        let mut program = tokio::process::Command::from(command);
        let mut program = program.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(program.stdout.take().unwrap()).lines();
        Self { program, lines }
    }

    /// The line that it prints next.
    async fn line(&mut self) -> String {
        // A connection that is dead is noticed after 15 s.
        let line = timeout(2 * PATIENCE, self.lines.next_line()).await.expect("a line in time").unwrap();
        line.expect("the watch goes on")
    }

    /// The row of the CSV that it prints next.
    async fn row(&mut self) -> String {
        let header = self.line().await;
        assert!(header.starts_with("industry,code,"), "{header}");
        self.line().await
    }

    /// Ends it; returns what it has reported.
    async fn reports(mut self) -> String {
        self.program.kill().await.unwrap();
        let mut reports = String::new();
        self.program.stderr.take().unwrap().read_to_string(&mut reports).await.unwrap();
        reports
    }
}

#[tokio::test]
async fn query_watch_prints_again_after_a_refresh_and_goes_on_when_the_server_is_killed_or_stopped_and_started() {
    let database = Database::with_sample();
    let address = format!("127.0.0.1:{}", free_port());
    let start = async || {
        let server = Server::start_with(&database.url(), &["--listen-addr", &address]).await;
        server.wait_until_ready().await;
        server.wait_for_log("listening for refreshes").await;
        server
    };
    let server = start().await;
    let mut watching = Watching::start(&address);
    watching.row().await;
    change(&database, 41);
    assert!(watching.row().await.contains(",41,"));
    // Dropped, it is killed.
    drop(server);
    let mut server = start().await;
    change(&database, 42);
    assert!(watching.row().await.contains(",42,"));
    server.signal("TERM");
    assert!(server.wait_for_exit().await.success());
    // What it missed comes once it is connected again.
    change(&database, 43);
    let _server = start().await;
    assert!(watching.row().await.contains(",43,"));
    let reports = watching.reports().await;
    assert!(!reports.contains("error: "), "{reports}");
    assert!(reports.matches("the server is gone; trying again").count() <= 2, "{reports}");
}

#[tokio::test]
async fn query_watch_notices_a_connection_that_is_dead_and_makes_another() {
    let (database, server) = ready(&[]).await;
    server.wait_for_log("listening for refreshes").await;
    let proxy = Proxy::to(server.addr.rsplit(':').next().unwrap().parse().unwrap()).await;
    let mut watching = Watching::start(&format!("127.0.0.1:{}", proxy.port));
    watching.row().await;
    proxy.set(Mode::BlackHole);
    // Lost on its way.
    change(&database, 44);
    let lost = async || (server.metric("treemap_watch_messages_total").await >= 2.0).then_some(());
    eventually("the treemap is sent", lost).await;
    proxy.set(Mode::Forward);
    assert!(watching.row().await.contains(",44,"));
}

#[tokio::test]
async fn query_watch_prints_again_when_the_treemap_turns_stale_or_fresh_and_not_at_every_heartbeat() {
    let (database, server) =
        ready(&["--watch-heartbeat", "200ms", "--max-age", "3s", "--max-data-age", "36500d"]).await;
    server.wait_for_log("listening for refreshes").await;
    let mut watching = Watching::run(command(&["query", &server.addr, "--watch", "--format", "json", "--limit", "1"]));
    let mut is_stale = async || {
        let treemap: serde_json::Value = serde_json::from_str(&watching.line().await).unwrap();
        treemap["stale"] == true
    };
    // The sample was refreshed some time ago.
    while !is_stale().await {}
    // Nothing changes but the time of the refresh.
    database.refresh();
    assert!(!is_stale().await);
    assert!(is_stale().await);
}

#[tokio::test]
async fn query_watch_on_a_terminal_draws_again_at_every_heartbeat() {
    let (_database, server) = ready(&["--watch-heartbeat", "200ms"]).await;
    let mut watching = Watching::run(on_a_terminal(&server, "--watch"));
    for _ in 0..3 {
        // The screen is cleared for the headline.
        while !watching.line().await.contains("\x1b[2J\x1b[HASX short positions: ") {}
    }
}

#[tokio::test]
async fn query_watch_ends_quietly_when_nobody_reads_any_more() {
    let (database, server) = ready(&[]).await;
    server.wait_for_log("listening for refreshes").await;
    let mut watching = Watching::start(&server.addr);
    watching.row().await;
    let Watching { program, lines } = watching;
    drop(lines);
    change(&database, 45);
    let ended = timeout(PATIENCE, program.wait_with_output()).await.expect("an end").unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap()), (Some(NOBODY_READS), String::new()));
}

#[tokio::test]
async fn query_trusts_the_ca_that_it_is_given_and_shows_its_own_certificate() {
    let database = Database::with_sample();
    let (authority, stranger) = (Authority::new(), Authority::new());
    for name in ["localhost", "client"] {
        authority.sign(name);
    }
    let file = |name: &str| authority.file(name).display().to_string();
    let (cert, key, ca) = (file("localhost.pem"), file("localhost.key"), file("ca.pem"));
    let arguments = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
    let server = Server::start_with(&database.url(), &arguments).await;
    server.wait_for_log("loaded the treemap").await;
    let port = server.addr.rsplit(':').next().unwrap();
    let (https, http) = (format!("https://localhost:{port}"), format!("http://localhost:{port}"));
    let (client, client_key) = (file("client.pem"), file("client.key"));
    let other_ca = stranger.file("ca.pem").display().to_string();
    let own = ["--cert", &client, "--key", &client_key];
    let ask = |arguments: &[&[&str]]| run(&mut command(&[&["query", "--limit", "1"], &*arguments.concat()].concat()));
    ask(&[&[&https, "--ca", &ca], &own]).succeeds().prints(&["reports up to 2023-12-29", "Materials"]);
    // It is refused once the handshake is over, as it may be by TLS 1.3: in the first call, or while it is made.
    ask(&[&[&https, "--ca", &ca]]).exits(1).prints(&["error: "]);
    ask(&[&[&https, "--ca", &other_ca], &own]).exits(1).prints(&["UnknownIssuer"]);
    // By the system's CAs.
    ask(&[&[&https], &own]).exits(1).prints(&["cannot reach a server at https://"]);
    ask(&[&[&http]]).exits(1).prints(&["needs an https:// address"]);
    ask(&[&[&format!("https://127.0.0.1:{port}"), "--ca", &ca], &own]).exits(1).prints(&["not valid for name"]);
    ask(&[&[&https, "--ca", &ca, "--cert", &client, "--key", &key]])
        .exits(1)
        .prints(&["the certificates cannot be used"]);
    ask(&[&[&https, "--ca", "/nowhere/ca.pem"], &own]).exits(1).prints(&["cannot read /nowhere/ca.pem"]);
    ask(&[&[&https, "--ca", &ca, "--cert", &client]]).exits(2).prints(&["--key"]);
}
