//! No client, file or log reader costs more than its share.

use std::{
    fs,
    io::{BufRead, BufReader, PipeReader, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::stream::pending;
use http::uri::PathAndQuery;
use industry_treemap::proto::{shorts::v1alpha1::GetIndustryTreeMapRequest, treemap::v1::WatchTreemapRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tonic::{Code, client::Grpc, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_client::ServerReflectionClient};

use crate::support::{
    PATIENCE,
    cluster::{Owner, free_port},
    database::Database,
    eventually,
    files::{Reports, name},
    outage::Calls,
    raw::{
        ACK, DATA, END_HEADERS, END_STREAM, GET_TREEMAP, HEADERS, PING, Raw, frame, headers_of, headers_of_get, message,
    },
    server::{Server, get, ready},
    treemap::{command, run, treemap},
    web::Web,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_messages_of_health_and_reflection_take_no_memory_and_end() {
    let (_database, server) = ready(&[]).await;
    let calls = Calls::start(&server.client().await);
    let before = server.memory_mib();
    let mut attackers = Vec::new();
    for path in ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"] {
        for _ in 0..20 {
            let mut raw = Raw::handshake(&server.addr, &[]).await;
            for stream in 0..100 {
                raw.send(&frame(HEADERS, END_HEADERS, 2 * stream + 1, &headers_of(path, &[]))).await;
                let head = [0, 0, 0x40, 0, 0];
                raw.send(&frame(DATA, 0, 2 * stream + 1, &[&head[..], &[0; 600]].concat())).await;
            }
            attackers.push(raw);
        }
    }
    assert!(server.memory_mib() < before + 32.0, "{} MiB, {before} before", server.memory_mib());
    calls.assert_none_failed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_never_complete_are_few_in_all_and_others_are_answered_beside_them() {
    let (_database, server) = ready(&[]).await;
    let calls = Calls::start(&server.client().await);
    let before = server.memory_mib();
    let mut attackers = Vec::new();
    for path in ["/grpc.health.v1.Health/Check", GET_TREEMAP] {
        for _ in 0..50 {
            let mut raw = Raw::handshake(&server.addr, &[]).await;
            for stream in 0..100 {
                // Within the limit of a message.
                let begun = [&[0, 0, 0, 16, 0][..], &[0; 300]].concat();
                raw.send(&frame(HEADERS, END_HEADERS, 2 * stream + 1, &headers_of(path, &[]))).await;
                raw.send(&frame(DATA, 0, 2 * stream + 1, &begun)).await;
            }
            attackers.push(raw);
        }
    }
    let after = server.memory_mib();
    calls.assert_none_failed().await;
    assert!(after < before + 64.0, "{after} MiB, {before} before");
}

/// A connection from an address that no client has which behaves.
async fn from_another_address(server: &Server, settings: &[u8]) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    Raw::over(socket.connect(server.addr.parse().unwrap()).await.unwrap(), settings).await
}

/// A client that is alive and takes nothing.
async fn answer_pings(mut raw: Raw) {
    while let Some(received) = raw.next().await {
        if received.kind == PING {
            raw.send(&frame(PING, ACK, 0, &received.payload)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_cost_little_memory_and_their_connections_end() {
    let database = Database::with_sample();
    database.add_a_thousand_stocks();
    let server = Server::start_with(&database.url(), &["--max-connections-per-client", "25%"]).await;
    server.wait_until_ready().await;
    let calls = Calls::start(&server.client().await);
    let before = server.memory_mib();
    // No room for any byte, and for one byte of each stream.
    let (closed, narrow) = ([0, 4, 0, 0, 0, 0], [0, 4, 0, 0, 0, 1]);
    let mut attackers = Vec::new();
    for connection in 0..5 {
        let mut pictures = from_another_address(&server, &closed).await;
        let mut tables = from_another_address(&server, &closed).await;
        let mut watchers = from_another_address(&server, &narrow).await;
        for stream in 0..10 {
            let limit = i32::try_from(100 + 10 * connection + stream).unwrap();
            let request = WatchTreemapRequest { period: "max".into(), limit, ..Default::default() };
            let headers = headers_of("/treemap.v1.TreemapService/WatchTreemap", &[]);
            watchers.send(&frame(HEADERS, END_HEADERS, 2 * stream + 1, &headers)).await;
            watchers.send(&frame(DATA, END_STREAM, 2 * stream + 1, &message(&request))).await;
        }
        for stream in 0..100 {
            let number = connection * 100 + stream;
            let id = 2 * stream + 1;
            let path = format!("/treemap.svg?limit=500&width={}", 1000 + number);
            pictures.send(&frame(HEADERS, END_HEADERS | END_STREAM, id, &headers_of_get(&path))).await;
            let path = format!("/treemap.csv?limit={}", 1 + number);
            tables.send(&frame(HEADERS, END_HEADERS | END_STREAM, id, &headers_of_get(&path))).await;
        }
        attackers.extend([pictures, tables, watchers].map(|raw| tokio::spawn(answer_pings(raw))));
    }
    let (mut most, begun) = (before, Instant::now());
    while server.metric("treemap_connections_closed_total{why=\"stalled\"}").await < 15.0 {
        most = most.max(server.memory_mib());
        assert!(begun.elapsed() < Duration::from_secs(60), "they are never closed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    calls.assert_none_failed().await;
    println!("{before} MiB before, {most} at most");
    for attacker in attackers {
        attacker.await.unwrap();
    }
    assert!(most < before + 80.0, "{most} MiB, {before} before");
}

#[tokio::test]
async fn pictures_have_half_of_the_places_of_calls_until_they_are_taken() {
    let (_database, server) = ready(&["--max-calls", "8"]).await;
    let mut raw = Raw::handshake(&server.addr, &[0, 4, 0, 0, 0, 0]).await;
    for stream in 0..8 {
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &headers_of_get("/treemap.svg"))).await;
    }
    eventually("four pictures wait", async || (server.metric("treemap_calls_in_flight").await == 4.0).then_some(()))
        .await;
    assert_eq!(Web::new("GET", "/treemap.svg").http1(&server.addr).await.status, 429);
    assert!(get(&mut server.client().await, "3m", 1, 0).await.is_ok(), "the other half is for calls");
    drop(raw);
    eventually("a free place", async || {
        (Web::new("GET", "/treemap.svg").http1(&server.addr).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_its_share_of_the_incomplete_requests() {
    let (_database, server) = ready(&["--max-connections-per-client", "25%"]).await;
    let mut attackers = Vec::new();
    for _ in 0..10 {
        let mut raw = from_another_address(&server, &[]).await;
        for stream in 0..100 {
            raw.send(&frame(HEADERS, END_HEADERS, 2 * stream + 1, &headers_of(GET_TREEMAP, &[]))).await;
        }
        attackers.push(raw);
    }
    // Another address sends 25 requests at once, each in two pieces.
    let request = GetIndustryTreeMapRequest { period: "3m".into(), limit: 1, view_mode: 0 };
    let mut good = Raw::handshake(&server.addr, &[]).await;
    for stream in 0..25 {
        good.send(&frame(HEADERS, END_HEADERS, 2 * stream + 1, &headers_of(GET_TREEMAP, &[]))).await;
    }
    // A PING that is answered: the server has read what came before it.
    good.send(&frame(PING, 0, 0, &[0; 8])).await;
    good.until(PING).await.unwrap();
    for stream in 0..25 {
        good.send(&frame(DATA, END_STREAM, 2 * stream + 1, &message(&request))).await;
    }
    for _ in 0..25 {
        assert!(timeout(PATIENCE, good.until(DATA)).await.unwrap().is_some(), "a request was refused");
    }
    drop(attackers);
}

#[tokio::test]
async fn a_connection_has_a_few_streams_of_health_and_its_checks_are_answered_beside_them() {
    let (_database, server) = ready(&[]).await;
    let channel = Endpoint::from_shared(format!("http://{}", server.addr)).unwrap().connect().await.unwrap();
    let client = HealthClient::new(channel);
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(client.clone().watch(HealthCheckRequest::default()).await.unwrap());
    }
    let refused = client.clone().watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(client.clone().check(HealthCheckRequest::default()).await.is_ok());
    // Another connection has its own.
    let other = Endpoint::from_shared(format!("http://{}", server.addr)).unwrap().connect().await.unwrap();
    assert!(HealthClient::new(other).watch(HealthCheckRequest::default()).await.is_ok());
    open.pop();
    eventually("a place is free again", async || {
        client.clone().watch(HealthCheckRequest::default()).await.is_ok().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_of_reflection_whose_client_is_silent_ends() {
    let (_database, server) = ready(&[]).await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let begun = Instant::now();
    let mut answers = client.server_reflection_info(pending::<ServerReflectionRequest>()).await.unwrap().into_inner();
    // However it ends: nothing was asked.
    let _ = timeout(Duration::from_secs(90), answers.message()).await.expect("it ends");
    assert!(begun.elapsed() > Duration::from_secs(55), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_health_check_whose_request_is_never_complete_is_refused_after_five_seconds() {
    let (_database, server) = ready(&[]).await;
    let mut client = Grpc::new(server.channel().await);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let begun = Instant::now();
    let never = tonic::Request::new(pending::<HealthCheckRequest>());
    let refused = timeout(PATIENCE, client.client_streaming(never, path, codec)).await.unwrap().unwrap_err();
    let took = begun.elapsed().as_secs_f64();
    assert_eq!((refused.code(), refused.message()), (Code::DeadlineExceeded, "the request was not complete in time"));
    assert!((4.5..8.0).contains(&took), "{took} s");
}

#[tokio::test]
async fn a_thousand_streams_of_health_and_reflection_are_open_in_all_and_no_more() {
    let (_database, server) = ready(&[]).await;
    let request = HealthCheckRequest::default;
    let mut open = Vec::new();
    for _ in 0..125 {
        let channel = server.channel().await;
        let (mut health, mut reflection) = (HealthClient::new(channel.clone()), ServerReflectionClient::new(channel));
        let mut streams = Vec::new();
        for _ in 0..4 {
            let watch = health.watch(request()).await.unwrap();
            let reflect = reflection.server_reflection_info(pending::<ServerReflectionRequest>()).await.unwrap();
            streams.push((watch, reflect));
        }
        open.push((health, reflection, streams));
    }
    let (mut health, mut reflection) =
        (HealthClient::new(server.channel().await), ServerReflectionClient::new(server.channel().await));
    let watch = health.watch(request()).await.unwrap_err();
    let reflect = reflection.server_reflection_info(pending::<ServerReflectionRequest>()).await.unwrap_err();
    for refused in [watch, reflect] {
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::ResourceExhausted, "too many streams of health and reflection are open")
        );
    }
    // Checks and calls need no stream.
    assert!(health.check(request()).await.is_ok());
    assert!(get(&mut server.client().await, "3m", 1, 0).await.is_ok());
    open.pop();
    eventually("a place is free again", async || health.clone().watch(request()).await.is_ok().then_some(())).await;
}

/// A server whose log nobody reads, although more is written than fits. Killed when it is dropped.
struct Unread {
    process: Child,
    port: u16,
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Unread {
    /// Starts it; gives the other end of its log too.
    async fn start(database: &Database) -> (Self, PipeReader) {
        let port = free_port();
        let (log, stderr) = std::io::pipe().unwrap();
        let process = command(&["serve", "--listen-addr", &format!("127.0.0.1:{port}"), "--admin-addr", "off"])
            .args(["--drain-delay", "0s", "--log", "trace,h2=trace"])
            .env("DATABASE_URL", database.url())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(stderr))
            .spawn()
            .unwrap();
        let server = Self { process, port };
        eventually("the server is ready", async || server.health().await).await;
        // Each connection over HTTP/2 writes some 150 lines.
        for _ in 0..300 {
            let mut raw = Raw::handshake(&format!("127.0.0.1:{port}"), &[]).await;
            raw.call(1, &GetIndustryTreeMapRequest::default()).await;
            assert!(timeout(Duration::from_secs(5), raw.until(HEADERS)).await.unwrap().is_some());
        }
        (server, log)
    }

    async fn health(&self) -> Option<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    }

    /// How long it takes to end after SIGTERM.
    async fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        run(Command::new("kill").arg(self.process.id().to_string())).succeeds();
        while self.process.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }
}

#[tokio::test]
async fn a_stuck_reader_of_the_log_holds_up_neither_calls_nor_the_stop() {
    let database = Database::with_sample();
    let (mut server, _nobody_reads) = Unread::start(&database).await;
    assert!(timeout(Duration::from_secs(5), server.health()).await.unwrap().is_some());
    let took = server.stop().await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    let mut out = String::new();
    server.process.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "", "the log has a way of its own");
}

#[tokio::test]
async fn lines_of_the_log_that_were_dropped_are_counted_once_it_is_read_again() {
    let database = Database::with_sample();
    let (mut server, log) = Unread::start(&database).await;
    // Longer than it waits before it looks for dropped lines.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (found, counted) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(log).lines().map_while(Result::ok);
        let count = lines.find_map(|line| {
            let (before, _) = line.split_once(" lines of the log: standard error")?;
            before.rsplit(' ').next()?.parse::<usize>().ok()
        });
        let _ = found.send(count);
    });
    let dropped = timeout(PATIENCE, counted).await.expect("the count is logged").unwrap().unwrap();
    assert!(dropped > 10_000, "{dropped}");
    assert!(server.stop().await < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_that_nobody_meant_for_us_do_not_end_the_server() {
    let (_database, mut server) = ready(&[]).await;
    for name in ["HUP", "USR1", "USR2"] {
        server.signal(name);
    }
    let calls = Calls::start(&server.client().await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    calls.assert_none_failed().await;
    server.signal("TERM");
    assert!(server.wait_for_exit().await.success());
}

#[tokio::test]
async fn connections_that_do_not_fit_the_descriptors_are_made_to_fit() {
    let database = Database::with_sample();
    // A low soft limit is raised.
    let limited = |limits: &str| {
        let mut shell = Command::new("bash");
        let program = command(&[]).get_program().to_owned();
        shell.args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")]).arg(program);
        shell.env("TREEMAP_LOG_FORMAT", "text");
        shell
    };
    let raised = Server::run(limited("ulimit -Sn 256"), &database.url(), &[]).await;
    raised.wait_until_ready().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", raised.id())).unwrap();
    let soft =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().nth(3).unwrap();
    assert!(soft.parse::<u32>().unwrap() >= 1384, "{soft}");
    // Where the hard limit is low too, fewer connections are served, and the log says so. One address has its share of these.
    let share = ["--max-connections-per-client", "25%"];
    let lowered = Server::run(limited("ulimit -n 800"), &database.url(), &share).await;
    lowered.wait_for_log("serving 416 connections").await;
    let mut held = Vec::new();
    for _ in 0..130 {
        held.push(Raw::handshake(&lowered.addr, &[]).await);
    }
    eventually("those beyond the share are closed", async || {
        (lowered.metric("treemap_connections_closed_total{why=\"crowded\"}").await == 26.0).then_some(())
    })
    .await;
    eventually("its share is served", async || (lowered.metric("treemap_connections").await == 104.0).then_some(()))
        .await;
}

#[test]
fn a_filter_or_an_interval_that_means_nothing_is_refused_by_name() {
    let database = Database::empty();
    treemap(&database, &["--log", "inof", "status"]).exits(1).prints(&["\"inof\" is no level", "info"]);
    for setting in ["--poll-interval", "--source-interval"] {
        treemap(&database, &["serve", setting, "1ns"]).exits(1).prints(&["\"1ns\"", "from 10ms to 1d"]);
        treemap(&database, &["serve", setting, "5ms"]).exits(1).prints(&["\"5ms\"", "from 10ms to 1d"]);
    }
}

/// Each duration: just too short, the ends, and just too long.
const DURATIONS: [(&str, [&str; 4]); 11] = [
    ("TREEMAP_POLL_INTERVAL", ["9ms", "10ms", "1d", "25h"]),
    ("TREEMAP_SOURCE_INTERVAL", ["9ms", "10ms", "1d", "25h"]),
    ("TREEMAP_SOURCE_QUIET", ["99ms", "100ms", "1d", "25h"]),
    ("TREEMAP_SOURCE_LONGEST_WAIT", ["999ms", "1s", "7d", "8d"]),
    ("TREEMAP_WATCH_HEARTBEAT", ["99ms", "100ms", "1h", "61m"]),
    ("TREEMAP_MAX_CONNECTION_AGE", ["99ms", "100ms", "365d", "366d"]),
    ("TREEMAP_DRAIN_TIMEOUT", ["99ms", "100ms", "1h", "61m"]),
    ("TREEMAP_DRAIN_DELAY", ["-1ms", "0s", "1h", "61m"]),
    ("TREEMAP_CACHE_MAX_AGE", ["999ms", "1s", "365d", "366d"]),
    ("TREEMAP_MAX_AGE", ["999us", "1ms", "36500d", "36501d"]),
    ("TREEMAP_MAX_DATA_AGE", ["999us", "1ms", "36500d", "36501d"]),
];

#[test]
fn a_duration_that_is_too_short_or_too_long_is_refused_with_both_ends() {
    for values in 0..4 {
        let mut serve = command(&["serve"]);
        // It ends in any case.
        serve.env("DATABASE_URL", "postgres://localhost/d").env("TREEMAP_LISTEN_ADDR", "nowhere");
        let refused = run(serve.envs(DURATIONS.map(|(setting, of)| (setting, of[values])))).exits(1).stderr();
        for (setting, of) in DURATIONS {
            let [_, shortest, longest, _] = of;
            let problem = format!("{setting} is {:?}; expected a duration from {shortest} to {longest}\n", of[values]);
            assert_eq!(refused.contains(&problem), [0, 3].contains(&values), "{problem}{refused}");
            assert_eq!(refused.contains(&format!("{setting} is")), [0, 3].contains(&values), "{setting}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_scraper_that_does_not_ask_for_openmetrics_gets_the_text_format() {
    let (_database, server) = ready(&[]).await;
    let text = server.admin_get("/metrics").await.1;
    assert!(text.contains("# TYPE grpc_server_started_total counter\n"), "{text}");
    assert!(text.contains("# TYPE treemap_build_info gauge\n") && !text.contains("# EOF") && !text.contains("# UNIT"));
    let mut stream = TcpStream::connect(server.admin().await).await.unwrap();
    let request =
        "GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\naccept: application/openmetrics-text\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("# TYPE grpc_server_started counter\n") && answer.ends_with("# EOF\n"), "{answer}");
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let database = Database::with_sample();
    for _ in 0..3 {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = command(&["status"]).env("DATABASE_URL", database.url()).stdout(writer).output().unwrap();
        assert!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(ended.status.code(), Some(141));
    }
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ended = command(&["status"]).env("DATABASE_URL", database.url()).stdout(full).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("cannot write to standard output"));
}

#[test]
fn a_report_that_cannot_be_is_refused_by_name_and_the_others_are_loaded() {
    let (database, folder) = (Database::migrated(), Reports::new());
    folder.report("20230103", 1, &["A,AAA,1,200,0.5"]);
    folder.report("00000103", 1, &["A,AAA,1,200,0.5"]);
    folder.report("20340103", 1, &["A,AAA,1,200,0.5"]);
    folder.report("99990103", 1, &["A,AAA,1,200,0.5"]);
    folder.report("20230104", 1, &[&format!("A,AAA,1,200,0.{}", "1".repeat(300))]);
    folder.report("20230105", 1, &[&format!("A,{},1,200,0.5", "A".repeat(6000))]);
    folder.report("20230106", 1, &["A,AAA,1,200,-0.5"]);
    folder.report("20230109", 1, &["A,AAA,1,200,150000", "B,BBB,1,2,0.5", "C,CCC,1,2,0.5"]);
    folder.report("20230110", 1, &["A,AAA,1,200,0.5"]);
    folder.write("RR20230111-001-SSDailyAggShortPos (1).csv", "x").write("notes.txt", "x");
    treemap(&database, &["load", "shorts", &folder.path()]).exits(1).prints(&[
        "the name says 2034-01-03; expected a day from 2000 until tomorrow",
        "0000-01-03",
        "9999-01-03",
        "line 2 has 302 characters for \"% of Total",
        "line 2 has 6000 characters for \"Product Code\"",
        "line 2 has \"-0.5\"",
        "AAA is reported with 150000 %",
        "has 1 rows, where the day before has 3: it may be cut off",
        "(1).csv: this is nearly named like a report",
        "1 other files",
        "3 reports loaded, 5 rows, 2023-01-03 to 2023-01-10; 0 older revisions passed over; 7 refused",
    ]);
}

#[test]
fn reports_are_taken_compressed_and_in_any_letter_case_and_devices_are_not_read() {
    let (database, folder) = (Database::migrated(), Reports::new());
    folder.report("20230103", 1, &["A,AAA,1,200,0.5"]).report("20230104", 1, &["A,AAA,1,200,0.5"]);
    let name = |date: &str| folder.file(&format!("RR{date}-001-SSDailyAggShortPos.csv"));
    run(Command::new("gzip").arg(name("20230103"))).succeeds();
    std::fs::rename(name("20230104"), folder.file("rr20230104-001-ssdailyaggshortpos.CSV")).unwrap();
    treemap(&database, &["load", "shorts", &folder.path()]).succeeds().prints(&["2 reports loaded, 2 rows"]);
    for endless in ["/dev/zero", "/dev/stdin"] {
        treemap(&database, &["load", "companies", endless]).exits(1).prints(&[endless, "no regular file"]);
    }
}

#[test]
fn a_subfolder_that_cannot_be_read_is_named_and_the_reports_beside_it_are_loaded() {
    let (database, folder) = (Database::migrated(), Reports::new());
    for (date, subfolder) in [("20230103", "2023-before"), ("20230104", "2023-past")] {
        fs::create_dir(folder.file(subfolder)).unwrap();
        folder.report(date, 1, &["A,AAA,1,200,0.5"]);
        fs::rename(folder.file(&name(date, 1)), Path::new(&folder.file(subfolder)).join(name(date, 1))).unwrap();
    }
    let locked = folder.file("2023-locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o000)).unwrap();
    // Nothing is locked for root. Another user may not reach the binary where it lies.
    let owner = Owner::of_processes();
    owner.give(Path::new(&folder.path()));
    let binary = tempfile::tempdir().unwrap();
    owner.give(binary.path());
    let program = binary.path().join("treemap");
    run(Command::new("cp").arg(env!("CARGO_BIN_EXE_treemap")).arg(&program)).succeeds();
    owner.give(&program);
    let mut load = owner.run(&program.display().to_string());
    load.args(["load", "shorts", &folder.path()]).env("DATABASE_URL", database.url());
    let loaded = run(&mut load);
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o755)).unwrap();
    loaded.exits(1).prints(&[&format!("refused {locked}: Permission denied"), "2 reports loaded, 2 rows"]);
}

#[tokio::test]
async fn one_address_that_does_not_read_holds_a_quarter_of_the_calls_and_no_more() {
    let database = Database::with_sample();
    let arguments = ["--max-calls", "100", "--max-connections-per-client", "25%"];
    let server = Server::start_with(&database.url(), &arguments).await;
    server.wait_until_ready().await;
    // Whole calls of a client that gives its answers no room: a window of 0 bytes.
    let request = GetIndustryTreeMapRequest { period: "3m".into(), limit: 10, view_mode: 0 };
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::handshake(&server.addr, &[0, 4, 0, 0, 0, 0]).await;
        for call in 0..20 {
            assert!(raw.call(2 * call + 1, &request).await);
        }
        held.push(raw);
    }
    let refused = "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"shorts.v1alpha1.ShortedStocksService\",\
        grpc_method=\"GetIndustryTreeMap\",grpc_code=\"ResourceExhausted\"}";
    eventually("all others are refused", async || (server.metric(refused).await == 35.0).then_some(())).await;
    assert_eq!(server.metric("treemap_calls_in_flight").await, 25.0);

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(server.addr.parse().unwrap()).await.unwrap();
    let request = format!(
        "POST {GET_TREEMAP} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    other.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "another address is served: {answer}");
}

#[tokio::test]
async fn one_address_holds_its_share_of_the_connections_and_no_more() {
    let (_database, server) = ready(&["--max-connections", "40", "--max-connections-per-client", "25%"]).await;
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(Raw::handshake(&server.addr, &[]).await);
    }
    eventually("those beyond the share are closed", async || {
        (server.metric("treemap_connections_closed_total{why=\"crowded\"}").await >= 20.0).then_some(())
    })
    .await;
    assert!(server.metric("treemap_connections").await <= 10.0);
    drop(held);
    eventually("the address may connect again", async || (server.health("").await == Ok("SERVING")).then_some(()))
        .await;
}
