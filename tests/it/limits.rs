//! Limits on clients that misbehave. Other clients are not affected.

use std::time::{Duration, Instant};

use industry_treemap::proto::shorts::v1alpha1::GetIndustryTreeMapRequest;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{
    database::Database,
    eventually,
    outage::Calls,
    raw::{
        self, ACK, CONTINUATION, DATA, END_HEADERS, GET_TREEMAP, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS,
        frame, request_headers,
    },
    server::{Server, get, ready},
    web::Web,
};

fn request() -> GetIndustryTreeMapRequest {
    GetIndustryTreeMapRequest { period: "3m".into(), limit: 500, view_mode: 0 }
}

/// Reads until the server closes the connection; returns the seconds that this took.
async fn seconds_until_closed(raw: &mut Raw) -> f64 {
    let begun = Instant::now();
    tokio::time::timeout(Duration::from_secs(60), raw.read_to_end()).await.expect("the connection is never closed");
    begun.elapsed().as_secs_f64()
}

#[tokio::test]
async fn a_client_that_sends_nothing_or_half_a_preface_is_closed_after_five_seconds() {
    let (_database, server) = ready(&[]).await;
    let mut mute = Raw::connect(&server.addr).await;
    let mut half = Raw::connect(&server.addr).await;
    half.send(&raw::PREFACE[..10]).await;
    let (first, second) = tokio::join!(seconds_until_closed(&mut mute), seconds_until_closed(&mut half));
    assert!((4.0..8.0).contains(&first) && (4.0..8.0).contains(&second), "{first} {second}");
    // The client sees the end of the connection before the server counts it.
    eventually("both closed connections are counted", async || {
        (server.metric("treemap_connections_closed_total{why=\"silent\"}").await >= 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_of_another_protocol_is_closed_at_once() {
    let (_database, server) = ready(&[]).await;
    let mut other = Raw::connect(&server.addr).await;
    other.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a handshake of TLS, where none is spoken").await;
    assert!(seconds_until_closed(&mut other).await < 3.0);
}

#[tokio::test]
async fn the_limits_are_announced_in_the_http2_settings() {
    let (_database, server) = ready(&[]).await;
    let mut raw = Raw::handshake(&server.addr, &[]).await;
    let settings = raw.until(SETTINGS).await.unwrap().payload;
    let value = |id: u16| {
        settings
            .chunks(6)
            .find(|pair| pair[..2] == id.to_be_bytes())
            .map(|pair| u32::from_be_bytes(pair[2..6].try_into().unwrap()))
    };
    assert_eq!(value(3), Some(100), "streams");
    assert_eq!(value(6), Some(8 * 1024), "headers");
}

#[tokio::test]
async fn messages_and_headers_that_are_too_large_are_refused() {
    let (_database, server) = ready(&[]).await;
    let large = GetIndustryTreeMapRequest { period: "x".repeat(5000), ..request() };
    let status = get(&mut server.client().await, &large.period, 1, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    // Headers of 12 KB are refused. Megabytes of headers in pieces end the connection.
    let fat = raw::call(&server.addr, &[("x", &"y".repeat(12_000))], raw::message(&request())).await;
    assert_eq!(fat.status(), 431);
    let mut raw = Raw::handshake(&server.addr, &[]).await;
    raw.send(&frame(HEADERS, 0, 1, &request_headers(&[]))).await;
    let begun = Instant::now();
    while raw.send(&frame(CONTINUATION, 0, 1, &[0; 16_000])).await {
        assert!(begun.elapsed() < Duration::from_secs(20), "the server accepts headers without end");
    }
    assert!(get(&mut server.client().await, "3m", 1, 0).await.is_ok());
}

#[tokio::test]
async fn connections_beyond_the_limit_get_resource_exhausted_but_their_health_checks_are_answered() {
    let (_database, server) = ready(&["--max-connections", "2"]).await;
    // Connections of earlier health checks may still be open.
    let connect_within_the_limit = async || {
        eventually("a connection is free", async || {
            let mut client = server.client().await;
            get(&mut client, "3m", 1, 0).await.ok().map(|_| client)
        })
        .await
    };
    let (first, mut second) = (connect_within_the_limit().await, connect_within_the_limit().await);
    let third = server.client().await;
    let status =
        eventually("the third connection is refused", async || get(&mut third.clone(), "3m", 1, 0).await.err()).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(server.health("").await, Ok("SERVING"), "on a fourth connection");
    let refused = Web::json("{}").http1(&server.addr).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "resource_exhausted"));
    assert_eq!(refused.header("connection"), "close");
    assert_eq!(Web::new("GET", "/health").http1(&server.addr).await.status, 200);
    let mut fifth = Raw::handshake(&server.addr, &[]).await;
    let goodbye = tokio::time::timeout(Duration::from_secs(5), fifth.until(GOAWAY)).await.unwrap();
    assert!(goodbye.is_some(), "the server sends GOAWAY");
    // When a connection is free again, the same client is served.
    drop(first);
    eventually("the third connection is served", async || get(&mut third.clone(), "3m", 1, 0).await.ok().map(drop))
        .await;
    assert!(get(&mut second, "3m", 1, 0).await.is_ok());
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_and_health_checks_are_not() {
    let database = Database::with_sample();
    let blocker = database.connect().await;
    blocker.batch_execute("BEGIN; REFRESH MATERIALIZED VIEW mv_treemap_data").await.unwrap();
    let server = Server::start_with(&database.url(), &["--max-calls", "5"]).await;
    let client = server.client().await;
    // They wait for the first load, and so are in flight.
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { get(&mut client, "3m", 1, 0).await })
        })
        .collect();
    eventually("five calls are in flight", async || {
        (server.metric("treemap_calls_in_flight").await >= 5.0).then_some(())
    })
    .await;
    let status = get(&mut client.clone(), "3m", 1, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(server.health("").await, Ok("NOT_SERVING"));
    blocker.batch_execute("COMMIT").await.unwrap();
    for call in waiting {
        assert!(call.await.unwrap().is_ok());
    }
    assert!(get(&mut client.clone(), "3m", 1, 0).await.is_ok());
    eventually("no call is in flight", async || (server.metric("treemap_calls_in_flight").await == 0.0).then_some(()))
        .await;
}

#[tokio::test]
async fn a_deadline_is_honoured_and_a_cancelled_call_stops() {
    let database = Database::with_sample();
    let blocker = database.connect().await;
    blocker.batch_execute("BEGIN; REFRESH MATERIALIZED VIEW mv_treemap_data").await.unwrap();
    let server = Server::start(&database).await;
    for (timeout, at_least) in [("300m", 300), ("20000u", 20), ("0S", 0)] {
        let begun = Instant::now();
        let (code, words) = raw::status(&server.addr, &[("grpc-timeout", timeout)], raw::message(&request())).await;
        assert_eq!(Code::from(i32::try_from(code).unwrap()), Code::DeadlineExceeded, "{timeout}: {words}");
        assert!(begun.elapsed() >= Duration::from_millis(at_least) && begun.elapsed() < Duration::from_secs(3));
    }
    // A message that never ends does not extend the deadline.
    let mut raw = Raw::handshake(&server.addr, &[]).await;
    raw.send(&frame(HEADERS, END_HEADERS, 1, &request_headers(&[("grpc-timeout", "200m")]))).await;
    raw.send(&frame(DATA, 0, 1, &raw::message(&request())[..3])).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), raw.until(HEADERS)).await.unwrap().unwrap().stream, 1);

    let mut gone = Raw::handshake(&server.addr, &[]).await;
    assert!(gone.call(1, &request()).await);
    eventually("the call is in flight", async || (server.metric("treemap_calls_in_flight").await >= 1.0).then_some(()))
        .await;
    gone.send(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())).await;
    eventually("no call is in flight", async || (server.metric("treemap_calls_in_flight").await == 0.0).then_some(()))
        .await;
    let canceled = "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"shorts.v1alpha1.ShortedStocksService\",grpc_method=\"GetIndustryTreeMap\",grpc_code=\"Canceled\"}";
    eventually("the cancelled call is counted", async || (server.metric(canceled).await == 1.0).then_some(())).await;
}

#[tokio::test]
async fn an_expired_deadline_is_honoured_when_a_model_is_loaded() {
    let (_database, server) = ready(&[]).await;
    for (timeout, code) in [("0m", Code::DeadlineExceeded), ("10S", Code::Ok), ("nonsense", Code::InvalidArgument)] {
        let (answered, words) = raw::status(&server.addr, &[("grpc-timeout", timeout)], raw::message(&request())).await;
        assert_eq!(Code::from(i32::try_from(answered).unwrap()), code, "{timeout}: {words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_its_answers_is_closed_and_other_clients_are_not_affected() {
    let (_database, server) = ready(&[]).await;
    let calls = Calls::start(&server.client().await);
    // A flow-control window of one byte per stream, which never grows.
    let window = [&4_u16.to_be_bytes()[..], &1_u32.to_be_bytes()].concat();
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::handshake(&server.addr, &window).await;
        for stream in 0..50 {
            raw.call(2 * stream + 1, &request()).await;
        }
        slow.push(raw);
    }
    eventually("its calls are in flight", async || {
        (server.metric("treemap_calls_in_flight").await >= 250.0).then_some(())
    })
    .await;
    for raw in &mut slow {
        assert!(seconds_until_closed(raw).await < 45.0);
    }
    eventually("the closed connections are counted", async || {
        (server.metric("treemap_connections_closed_total{why=\"stalled\"}").await >= 5.0).then_some(())
    })
    .await;
    eventually("its calls have ended", async || (server.metric("treemap_calls_in_flight").await <= 2.0).then_some(()))
        .await;
    calls.assert_none_failed().await;
}

#[tokio::test]
async fn rapid_resets_close_the_connection() {
    let (_database, server) = ready(&[]).await;
    let mut raw = Raw::handshake(&server.addr, &[]).await;
    let mut attack = Vec::new();
    for stream in 0..2000 {
        attack.extend(frame(HEADERS, END_HEADERS, 2 * stream + 1, &request_headers(&[])));
        attack.extend(frame(RST_STREAM, 0, 2 * stream + 1, &8_u32.to_be_bytes()));
    }
    raw.send(&attack).await;
    let codes = tokio::time::timeout(Duration::from_secs(10), raw.read_to_end()).await.unwrap();
    assert_eq!(codes, [11], "ENHANCE_YOUR_CALM");
    assert!(get(&mut server.client().await, "3m", 1, 0).await.is_ok());
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_closed() {
    // Only the keepalive can close these connections: the age limit is off, and they have no call.
    let (_database, server) = ready(&["--max-connection-age", "off"]).await;
    let mut deaf = Raw::handshake(&server.addr, &[]).await;
    let mut alive = Raw::handshake(&server.addr, &[]).await;
    let begun = Instant::now();
    let ping = tokio::time::timeout(Duration::from_secs(45), deaf.until(PING)).await.unwrap();
    assert!(ping.is_some() && begun.elapsed() > Duration::from_secs(20), "{:?}", begun.elapsed());
    let ping = tokio::time::timeout(Duration::from_secs(45), alive.until(PING)).await.unwrap().unwrap();
    assert!(alive.send(&frame(PING, ACK, 0, &ping.payload)).await);
    let unanswered = seconds_until_closed(&mut deaf).await;
    assert!((10.0..45.0).contains(&unanswered), "{unanswered}");
    // The client that answered its PING stays connected.
    assert!(alive.call(1, &request()).await);
    assert!(tokio::time::timeout(Duration::from_secs(5), alive.until(HEADERS)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_client_that_ignores_goaway_is_closed() {
    let (_database, server) = ready(&["--max-connection-age", "1s"]).await;
    let mut raw = Raw::handshake(&server.addr, &[]).await;
    assert!(raw.call(1, &request()).await);
    // At the age limit the server sends GOAWAY and a PING. This client does not answer, and its call has not ended.
    assert!(tokio::time::timeout(Duration::from_secs(5), raw.until(GOAWAY)).await.unwrap().is_some());
    assert!(tokio::time::timeout(Duration::from_secs(5), raw.until(PING)).await.unwrap().is_some());
    assert!(seconds_until_closed(&mut raw).await < 45.0, "sooner than by the keepalive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_connections_by_age_fails_no_call() {
    let (_database, server) = ready(&["--max-connection-age", "300ms"]).await;
    let calls = Calls::start_over_ending_connections(&server.client().await);
    eventually("ten connections have ended", async || {
        (server.metric("treemap_connections_closed_total{why=\"age\"}").await >= 10.0).then_some(())
    })
    .await;
    calls.assert_none_failed().await;
}

#[tokio::test]
async fn when_file_descriptors_run_out_the_server_does_not_spin_or_exit() {
    let database = Database::with_sample();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_treemap")]);
    command.env("TREEMAP_LOG_FORMAT", "text");
    let arguments = ["--refresh-schedule", "off", "--source-interval", "off"];
    let server = Server::run(command, &database.url(), &arguments).await;
    server.wait_until_ready().await;
    let mut client = server.client().await;
    assert!(get(&mut client, "3m", 1, 0).await.is_ok());
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(Raw::connect(&server.addr).await);
    }
    server.wait_for_log("cannot accept connections; retrying: ").await;
    let before = server.cpu_seconds();
    for _ in 0..100 {
        assert!(get(&mut client, "3m", 1, 0).await.is_ok(), "a connected client is served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(server.cpu_seconds() - before < 1.0, "the server spins");
    drop(held);
    eventually("accepting connections again", async || {
        let healthy = server.health("").await;
        (healthy == Ok("SERVING") && server.log().contains("accepting connections again")).then_some(())
    })
    .await;
    assert_eq!(server.log().matches("cannot accept connections").count(), 1, "{}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_leave_no_memory_or_cpu_use_behind() {
    let (_database, server) = ready(&["--max-connections", "200"]).await;
    let mut client = server.client().await;
    let calls = Calls::start(&client);
    let before = server.memory_mib();
    let mut most: f64 = before;
    for _ in 0..20 {
        let mut held = Vec::new();
        for _ in 0..500 {
            let mut raw = Raw::connect(&server.addr).await;
            raw.send(&[raw::PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(PING, 0, 0, &[0; 8])].concat()).await;
            held.push(raw);
        }
        most = most.max(server.memory_mib());
    }
    calls.assert_none_failed().await;
    eventually("the server has dropped the connections", async || {
        (server.metric("treemap_connections").await <= 20.0).then_some(())
    })
    .await;
    assert!(most - before < 40.0, "{before} MiB, then {most}");
    assert!(server.memory_mib() - before < 25.0, "{before} MiB, now {}", server.memory_mib());
    let used = server.cpu_seconds();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(server.cpu_seconds() - used < 0.3, "the server is still busy");
    assert!(get(&mut client, "3m", 1, 0).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_frames_do_not_harm_the_server_or_other_clients() {
    let (_database, server) = ready(&[]).await;
    let mut client = server.client().await;
    let calls = Calls::start(&client);
    let before = server.memory_mib();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..400 {
        let mut raw = Raw::handshake(&server.addr, &[]).await;
        if round % 2 == 0 {
            raw.call(1, &request()).await;
        }
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..20) {
            let mut payload = vec![0; random.usize(..200)];
            random.fill(&mut payload);
            // Mostly kinds that exist, on streams that may exist, with flags that may be invalid.
            let mut made = frame(random.u8(..12), random.u8(..), random.u32(..6), &payload);
            if random.u8(..4) == 0 {
                let place = random.usize(..made.len());
                made[place] = random.u8(..);
            }
            if random.u8(..8) == 0 {
                made.truncate(random.usize(..made.len()));
            }
            bytes.extend(made);
        }
        raw.send(&bytes).await;
        raw.send(&frame(SETTINGS, ACK, 0, &[])).await;
    }
    calls.assert_none_failed().await;
    assert!(get(&mut client, "3m", 1, 0).await.is_ok());
    eventually("the server has dropped the connections", async || {
        (server.metric("treemap_connections").await <= 20.0).then_some(())
    })
    .await;
    assert!(server.memory_mib() - before < 25.0, "{before} MiB, now {}", server.memory_mib());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_its_request_is_counted_as_canceled() {
    let (_database, server) = ready(&[]).await;
    let count = async |code: &str| {
        let method = "grpc_service=\"shorts.v1alpha1.ShortedStocksService\",grpc_method=\"GetIndustryTreeMap\"";
        server.metric(&format!("grpc_server_handled_total{{grpc_type=\"unary\",{method},grpc_code=\"{code}\"}}")).await
    };
    // By a reset, and by the end of the connection; over HTTP/1.1 too.
    let mut raw = Raw::handshake(&server.addr, &[]).await;
    raw.send(&frame(HEADERS, END_HEADERS, 1, &request_headers(&[]))).await;
    raw.send(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())).await;
    let mut gone = Raw::handshake(&server.addr, &[]).await;
    gone.send(&frame(HEADERS, END_HEADERS, 1, &request_headers(&[]))).await;
    let started = "grpc_server_started_total{grpc_type=\"unary\",grpc_service=\"shorts.v1alpha1.ShortedStocksService\",grpc_method=\"GetIndustryTreeMap\"}";
    eventually("it has arrived", async || (server.metric(started).await == 2.0).then_some(())).await;
    drop(gone);
    let mut http1 = Raw::connect(&server.addr).await;
    let head = format!(
        "POST {GET_TREEMAP} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n"
    );
    http1.send(head.as_bytes()).await;
    drop(http1);
    eventually("three are canceled", async || (count("Canceled").await == 3.0).then_some(())).await;
    for other in ["Unknown", "DeadlineExceeded", "Internal", "InvalidArgument"] {
        assert!(count(other).await < 1.0, "{other}");
    }
}
