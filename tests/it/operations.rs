//! Operations: probes, metrics, logs, traces, restarts.

use std::{
    io::{BufRead, BufReader},
    sync::{Arc, Mutex},
    time::Duration,
};

use industry_treemap::proto::shorts::v1alpha1::GetIndustryTreeMapRequest;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::KeyValue,
    trace::v1::Span,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{
    Request, Response, Status,
    transport::{Identity, ServerTlsConfig, server::TcpIncoming},
};

use crate::{
    support::{
        cluster::{OwnCluster, free_port},
        database::Database,
        docs, eventually,
        outage::refresh_and_wait,
        raw::{self, Raw},
        server::{Server, get},
        treemap,
        web::Web,
    },
    tls::Authority,
};

#[tokio::test]
async fn livez_always_succeeds_and_readyz_and_grpc_health_succeed_only_with_a_model() {
    let database = Database::empty();
    let server = Server::start(&database).await;
    server.wait_for_log("not ready; retrying").await;
    assert_eq!(server.admin_get("/livez").await, (200, "alive\n".into()));
    let (status, why) = server.admin_get("/readyz").await;
    assert_eq!(status, 503);
    assert!(why.contains("not ready: cannot load the treemap") && why.contains("treemap migrate"), "{why}");
    assert_eq!(server.health("").await, Ok("NOT_SERVING"));
    assert_eq!(server.metric("treemap_model_age_seconds").await, f64::INFINITY, "a missing model is infinitely old");
    assert_eq!(server.metric("treemap_model_stale").await, 1.0);
    treemap::treemap(&database, &["migrate"]).succeeds();
    server.wait_until_ready().await;
    assert_eq!(server.admin_get("/readyz").await, (200, "ready\n".into()));
    assert_eq!(server.admin_get("/").await.0, 404);
}

#[tokio::test]
async fn during_the_drain_delay_the_server_is_not_ready_but_still_answers() {
    let database = Database::with_sample();
    let mut server = Server::start_with(&database.url(), &["--drain-delay", "2s"]).await;
    server.wait_until_ready().await;
    server.signal("TERM");
    server.wait_for_log("stopping").await;
    eventually("not ready", async || {
        (server.admin_get("/readyz").await == (503, "not ready: stopping\n".into())).then_some(())
    })
    .await;
    assert_eq!(server.admin_get("/livez").await.0, 200);
    // On a new connection, as from a load balancer that has not noticed yet.
    assert_eq!(server.health("").await, Ok("NOT_SERVING"));
    assert!(get(&mut server.client().await, "3m", 1, 0).await.is_ok());
    assert!(server.wait_for_exit().await.success());
}

#[tokio::test]
async fn ctrl_c_skips_the_drain_delay() {
    let database = Database::with_sample();
    let mut server = Server::start_with(&database.url(), &["--drain-delay", "1h"]).await;
    server.wait_until_ready().await;
    server.signal("INT");
    assert!(server.wait_for_exit().await.success());
}

#[tokio::test]
async fn a_second_signal_stops_the_server_at_once() {
    let database = Database::with_sample();
    let mut server = Server::start_with(&database.url(), &["--drain-delay", "1h"]).await;
    server.wait_until_ready().await;
    server.signal("TERM");
    server.wait_for_log("stopping").await;
    server.signal("INT");
    assert_eq!(server.wait_for_exit().await.code(), Some(1));
    server.wait_for_log("stopped by a second signal").await;
}

#[tokio::test]
async fn no_client_can_delay_the_end_of_the_drain() {
    let database = Database::with_sample();
    let mut server = Server::start_with(&database.url(), &["--drain-timeout", "1s"]).await;
    server.wait_until_ready().await;
    let _mute = Raw::connect(&server.addr).await;
    let _half = Raw::connect(&server.addr).await.send(&raw::PREFACE[..10]).await;
    // One client does not answer PINGs, and one does not read its answer.
    let _deaf = Raw::handshake(&server.addr, &[]).await;
    let window = [&4_u16.to_be_bytes()[..], &1_u32.to_be_bytes()].concat();
    let mut slow = Raw::handshake(&server.addr, &window).await;
    slow.call(1, &GetIndustryTreeMapRequest { period: "3m".into(), ..Default::default() }).await;
    slow.until(raw::HEADERS).await.unwrap();
    server.signal("TERM");
    let begun = std::time::Instant::now();
    assert!(server.wait_for_exit().await.success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let cut = server.wait_for_log("cut connections that were still open after 1 s").await;
    assert!(cut.contains("cut=2"), "{cut}");
}

#[tokio::test]
async fn a_rolling_restart_loses_no_call() {
    let database = Database::with_sample();
    let arguments = ["--drain-delay", "1s"];
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let server = Server::start_with(&database.url(), &arguments).await;
        server.wait_until_ready().await;
        replicas.push((server.client().await, server));
    }
    let ready: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new(replicas.iter().map(|(client, _)| client.clone()).collect()));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Like a load balancer: sends calls in turn to each replica that it knows to be ready.
    let (clients, ended) = (ready.clone(), stop.clone());
    let calling = tokio::spawn(async move {
        let mut made = 0;
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            let mut client = {
                let clients = clients.lock().unwrap();
                clients[made % clients.len()].clone()
            };
            get(&mut client, "3m", 10, 0).await.unwrap_or_else(|status| panic!("call {made}: {status:?}"));
            made += 1;
        }
        made
    });
    for _ in 0..3 {
        let (_, mut old) = replicas.remove(0);
        old.signal("TERM");
        eventually("the old replica is not ready", async || (old.admin_get("/readyz").await.0 == 503).then_some(()))
            .await;
        *ready.lock().unwrap() = replicas.iter().map(|(client, _)| client.clone()).collect();
        assert!(old.wait_for_exit().await.success());
        let new = Server::start_with(&database.url(), &arguments).await;
        new.wait_until_ready().await;
        replicas.push((new.client().await, new));
        *ready.lock().unwrap() = replicas.iter().map(|(client, _)| client.clone()).collect();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(calling.await.unwrap() > 100);
}

#[tokio::test]
async fn the_metrics_count_calls_refreshes_and_reloads() {
    let database = Database::with_sample();
    let server = Server::refreshing(&database.url(), &["--refresh-schedule", "* * * * * *"]).await;
    server.wait_until_ready().await;
    server.wait_for_log("listening for refreshes").await;
    server.wait_for_log("refreshed the view for the tick").await;
    let mut client = server.client().await;
    for _ in 0..3 {
        get(&mut client, "3m", 10, 0).await.unwrap();
    }
    get(&mut client, "3d", 10, 0).await.unwrap_err();
    let method =
        "grpc_type=\"unary\",grpc_service=\"shorts.v1alpha1.ShortedStocksService\",grpc_method=\"GetIndustryTreeMap\"";
    let metric = async |name: &str| server.metric(name).await;
    assert_eq!(metric(&format!("grpc_server_started_total{{{method}}}")).await, 4.0);
    assert_eq!(metric(&format!("grpc_server_handled_total{{{method},grpc_code=\"OK\"}}")).await, 3.0);
    assert_eq!(metric(&format!("grpc_server_handled_total{{{method},grpc_code=\"InvalidArgument\"}}")).await, 1.0);
    assert_eq!(metric(&format!("grpc_server_handling_seconds_count{{{method}}}")).await, 4.0);
    assert_eq!(metric(&format!("grpc_server_handling_seconds_bucket{{le=\"1.0\",{method}}}")).await, 4.0);
    assert!(metric("treemap_refreshes_total{result=\"refreshed\"}").await >= 1.0);
    assert!(metric("treemap_refresh_seconds_count").await >= 1.0);
    assert!(metric("treemap_reloads_total{result=\"loaded\"}").await >= 1.0);
    assert_eq!(metric("treemap_listener_up").await, 1.0);
    assert_eq!(metric("treemap_model_stocks{period=\"max\"}").await, 60.0);
    assert_eq!(metric("treemap_model_data_date_timestamp_seconds").await, 1_703_808_000.0, "2023-12-29");
    assert!(metric("treemap_model_age_seconds").await < 60.0);
    assert_eq!(metric("treemap_model_stale").await, 1.0);
    assert_eq!(metric("treemap_calls_in_flight").await, 0.0);
    assert!(metric("treemap_connections").await >= 1.0);
    assert!(metric("treemap_pool_connections{pool=\"read\",state=\"idle\"}").await <= 1.0);
    let text = server.admin_get("/metrics").await.1;
    assert!(text.contains(&format!("treemap_build_info{{version=\"{}\"", env!("CARGO_PKG_VERSION"))), "{text}");
}

#[tokio::test]
async fn every_metric_is_documented_and_shown_and_the_alerts_use_no_other() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    get(&mut server.client().await, "3m", 10, 0).await.unwrap();
    assert_eq!(Web::new("GET", "/treemap.csv").http1(&server.addr).await.status, 200);
    let shown = server.admin_get("/metrics").await.1;
    let names: Vec<&str> =
        shown.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    let mut used = 0;
    for file in ["deploy/prometheus/alerts.yaml", "deploy/grafana/treemap.json"] {
        let text = docs::file(file);
        for word in text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_') {
            if word.starts_with("grpc_server_") || (word.starts_with("treemap_") && word != "treemap_") {
                assert!(names.contains(&word), "{file} uses {word}, which is not in /metrics");
                used += 1;
            }
        }
    }
    assert!(used > 20);
    // The docs explain each metric, and the dashboard shows it.
    let (page, dashboard) = (docs::file("docs/operations.md"), docs::file("deploy/grafana/treemap.json"));
    for line in shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        let name = name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name);
        assert!(page.contains(name), "docs/operations.md does not explain {name}");
        assert!(dashboard.contains(name), "the dashboard does not show {name}");
    }
}

#[test]
fn logs_are_json_when_stderr_is_not_a_terminal() {
    let database = Database::with_sample();
    let mut command = treemap::command(&["serve", "--listen-addr", "127.0.0.1:0", "--admin-addr", "off"]);
    command.env_remove("TREEMAP_LOG_FORMAT").env("DATABASE_URL", database.url()).stderr(std::process::Stdio::piped());
    let mut server = command.spawn().unwrap();
    let lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let mut log = String::new();
    for line in lines.map_while(Result::ok) {
        log += &(line + "\n");
        if log.contains("loaded the treemap") {
            break;
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
    let events: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let loaded = events.iter().find(|event| event["message"] == "loaded the treemap").unwrap();
    assert_eq!(loaded["level"], "INFO");
    assert_eq!(loaded["stocks"], 720);
    assert!(loaded["milliseconds"].is_u64());
    assert_eq!(loaded["spans"][0]["name"], "reload");
    assert!(loaded["timestamp"].is_string());
}

#[test]
fn the_last_error_of_a_failed_server_is_json_when_its_log_is_json() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let mut command = treemap::command(&["serve", "--listen-addr", &addr, "--admin-addr", "off"]);
    let database = "postgres://nobody@127.0.0.1/none";
    let failed = command.env_remove("TREEMAP_LOG_FORMAT").env("DATABASE_URL", database).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let log = String::from_utf8(failed.stderr).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap_or_else(|_| panic!("{log}"));
    assert_eq!(last["level"], "ERROR");
    assert!(
        last["message"].as_str().unwrap().starts_with(&format!("cannot listen on {addr} (TREEMAP_LISTEN_ADDR)")),
        "{last}"
    );
    // In text format, the error is a sentence.
    let failed = command.env("TREEMAP_LOG_FORMAT", "text").output().unwrap();
    assert!(String::from_utf8(failed.stderr).unwrap().starts_with("error: cannot listen on "));
}

#[tokio::test]
async fn a_scraper_may_keep_its_connection_to_the_admin_port() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let mut stream = tokio::net::TcpStream::connect(server.admin().await).await.unwrap();
    for pause in [0, 12, 3] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: admin\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "after {pause} s: {read} bytes");
    }
}

#[tokio::test]
async fn slow_clients_of_the_admin_port_do_not_delay_probes() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let admin = server.admin().await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = tokio::net::TcpStream::connect(&admin).await.unwrap();
        let _ = stream.write_all(b"GET /met").await;
        slow.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(server.admin_get("/livez").await.0, 200);
    }
}

#[tokio::test]
async fn each_of_many_concurrent_scrapes_contains_one_model_version() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let scrapes = (0..50).map(|_| async { server.admin_get("/metrics").await.1 });
    for text in futures_util::future::join_all(scrapes).await {
        assert_eq!(text.matches("treemap_model{version=").count(), 1, "{text}");
        assert_eq!(text.matches("# TYPE treemap_connections gauge").count(), 1, "{text}");
    }
}

#[tokio::test]
async fn no_call_is_logged() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let mut client = server.client().await;
    get(&mut client, "3m", 10, 0).await.unwrap();
    let before = server.log().lines().count();
    for _ in 0..50 {
        get(&mut client, "3m", 10, 0).await.unwrap();
        get(&mut client, "nonsense", 10, 0).await.unwrap_err();
    }
    assert!(server.log().lines().count() <= before + 1, "{}", server.log());
}

/// A trace collector that keeps the spans that it receives.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts it, with TLS if that is given; gives its port too.
    async fn start(tls: Option<ServerTlsConfig>) -> (Self, u16) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = tonic::transport::Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let serving = server.add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));
        (collector, port)
    }

    async fn wait_for(&self, name: &str) {
        let arrived = async || self.0.lock().unwrap().iter().any(|span| span.name == name).then_some(());
        eventually(&format!("the span {name:?} arrives"), arrived).await;
    }
}

#[tokio::test]
async fn a_call_is_a_span_in_the_trace_of_its_caller() {
    let (collector, port) = Collector::start(None).await;
    let database = Database::with_sample();
    let mut command = treemap::command(&[]);
    let endpoint = format!("http://127.0.0.1:{port}");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env("OTEL_BSP_SCHEDULE_DELAY", "100");
    let server = Server::run(command, &database.url(), &["--refresh-schedule", "off"]).await;
    server.wait_until_ready().await;
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let request = GetIndustryTreeMapRequest { period: "3m".into(), limit: 1, view_mode: 0 };
    let traceparent = format!("00-{trace}-{parent}-01");
    let (code, _) = raw::status(&server.addr, &[("traceparent", &traceparent)], raw::message(&request)).await;
    assert_eq!(code, 0);
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
            .collect::<String>()
    };
    let span = eventually("the span arrives", async || {
        collector.0.lock().unwrap().iter().find(|span| hex(&span.trace_id) == trace).cloned()
    })
    .await;
    assert_eq!(span.name, "shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap");
    assert_eq!(hex(&span.parent_span_id), parent);
    assert_eq!(span.kind, 2, "server");
    let protocol = span.attributes.iter().find(|attribute| attribute.key == "treemap.protocol");
    assert!(format!("{:?}", protocol.unwrap().value).contains("grpc"), "{span:?}");
    for (web, protocol) in
        [(Web::json("{}"), "connect"), (Web::post("application/grpc-web", raw::message(&request)), "grpc_web")]
    {
        assert_eq!(web.http1(&server.addr).await.status, 200);
        eventually(&format!("the span of {protocol} arrives"), async || {
            let spans = collector.0.lock().unwrap();
            let mut attributes = spans.iter().flat_map(|span| &span.attributes);
            let named = |attribute: &&KeyValue| format!("{:?}", attribute.value).contains(&format!("\"{protocol}\""));
            attributes.find(|attribute| attribute.key == "treemap.protocol" && named(attribute)).map(drop)
        })
        .await;
    }
    // The load has its own.
    collector.wait_for("load").await;
}

#[tokio::test]
async fn a_trace_collector_with_tls_is_trusted_by_the_cas_of_the_system() {
    let authority = Authority::new();
    authority.sign("localhost");
    let pem = |name: &str| std::fs::read(authority.file(name)).unwrap();
    let identity = Identity::from_pem(pem("localhost.pem"), pem("localhost.key"));
    let (collector, port) = Collector::start(Some(ServerTlsConfig::new().identity(identity))).await;
    let database = Database::with_sample();
    let mut command = treemap::command(&[]);
    command.env("SSL_CERT_FILE", authority.file("ca.pem")).env("OTEL_BSP_SCHEDULE_DELAY", "100");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://localhost:{port}"));
    let server = Server::run(command, &database.url(), &["--refresh-schedule", "off"]).await;
    server.wait_until_ready().await;
    collector.wait_for("load").await;
}

#[tokio::test]
async fn a_missing_trace_collector_fails_no_call() {
    let database = Database::with_sample();
    let mut command = treemap::command(&[]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", free_port()));
    let mut server = Server::run(command, &database.url(), &["--refresh-schedule", "off"]).await;
    server.wait_until_ready().await;
    let mut client = server.client().await;
    for _ in 0..100 {
        get(&mut client, "3m", 10, 0).await.unwrap();
    }
    server.signal("TERM");
    assert!(server.wait_for_exit().await.success());
}

#[test]
fn other_commands_than_serve_neither_trace_nor_fail_for_a_setting_of_traces() {
    let database = Database::with_sample();
    // One port where nothing listens, and one where nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let served = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let served = served.local_addr().unwrap().to_string();
    for port in [free_port(), silent.local_addr().unwrap().port()] {
        for arguments in [
            &["healthcheck", "--admin-addr", "off", "--listen-addr", &served][..],
            &["status", "--max-age", "36500d", "--max-data-age", "36500d"],
            &["migrate", "--check"],
            &["man"],
        ] {
            let mut command = treemap::command(arguments);
            command.env("DATABASE_URL", database.url()).env("OTEL_EXPORTER_OTLP_PROTOCOL", "none of them");
            let begun = std::time::Instant::now();
            treemap::run(command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"))).succeeds();
            assert!(begun.elapsed() < Duration::from_secs(5), "{arguments:?}: {:?}", begun.elapsed());
        }
    }
    assert!(silent.accept().is_err(), "nobody has come");
}

#[test]
fn a_missing_setting_that_another_setting_needs_is_reported() {
    for (set, missing) in [
        ("TREEMAP_TLS_CERT", "TREEMAP_TLS_KEY is not set; TREEMAP_TLS_CERT needs it"),
        ("TREEMAP_TLS_KEY", "TREEMAP_TLS_CERT is not set; TREEMAP_TLS_KEY needs it"),
        ("TREEMAP_TLS_CLIENT_CA", "TREEMAP_TLS_CERT and TREEMAP_TLS_KEY are not set; TREEMAP_TLS_CLIENT_CA needs them"),
    ] {
        let mut command = treemap::command(&["serve"]);
        treemap::run(command.env(set, "/nowhere").env("DATABASE_URL", "postgres://localhost/d"))
            .exits(1)
            .prints(&[missing]);
    }
}

#[test]
fn all_mistakes_in_the_flags_are_reported_together() {
    let run = treemap::run(&mut treemap::command(&[
        "serve",
        "--database-url",
        "nonsense",
        "--listen-addr",
        "here",
        "--admin-addr",
        "there",
        "--tls-cert",
        "/nowhere/cert.pem",
        "--max-connections",
        "0",
        "--max-calls",
        "many",
        "--max-connection-age",
        "old",
        "--drain-delay=-1s",
        "--drain-timeout",
        "0s",
        "--poll-interval",
        "often",
    ]));
    run.exits(1).prints(&[
        "DATABASE_URL is not",
        "TREEMAP_LISTEN_ADDR is \"here\"",
        "TREEMAP_ADMIN_ADDR is \"there\"",
        "TREEMAP_TLS_KEY is not set; TREEMAP_TLS_CERT needs it",
        "TREEMAP_MAX_CONNECTIONS is \"0\"",
        "TREEMAP_MAX_CALLS is \"many\"",
        "TREEMAP_MAX_CONNECTION_AGE is \"old\"",
        "TREEMAP_DRAIN_DELAY is \"-1s\"",
        "TREEMAP_DRAIN_TIMEOUT is \"0s\"",
        "TREEMAP_POLL_INTERVAL is \"often\"",
    ]);
}

#[tokio::test]
async fn after_sighup_a_rotated_password_is_used_and_a_wrong_file_changes_nothing() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    own.psql("postgres", "ALTER ROLE locked SUPERUSER");
    let file = tempfile::NamedTempFile::new().unwrap();
    let url = database.url_of("locked");
    std::fs::write(file.path(), &url).unwrap();
    let path = file.path().display().to_string();
    let server = Server::start_with("", &["--database-url-file", &path, "--poll-interval", "100ms"]).await;
    server.wait_for_log("listening for refreshes").await;

    std::fs::write(file.path(), "s3cret and nothing else").unwrap();
    server.signal("HUP");
    server.wait_for_log("keeping the old connection string: DATABASE_URL is not a connection string").await;

    own.psql("postgres", "ALTER ROLE locked PASSWORD 'an0ther'");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'locked'";
    own.psql("postgres", end);
    server.wait_for_log("password authentication failed").await;
    let (begin, rest) = url.split_once("://locked:").unwrap();
    let rest = rest.split_once('@').unwrap().1;
    std::fs::write(file.path(), format!("{begin}://locked:an0ther@{rest}")).unwrap();
    server.signal("HUP");
    server.wait_for_log("the connection string has changed; new connections use it").await;
    refresh_and_wait(&server, || database.refresh()).await;
    server.signal("HUP");
    server.wait_for_log("the connection string is the same as before").await;
    assert!(!server.log().contains("s3cret") && !server.log().contains("an0ther"), "{}", server.log());
}
