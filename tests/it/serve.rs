//! How the server starts, waits and stops.

use std::{
    net::UdpSocket,
    process::Command,
    time::{Duration, Instant},
};

use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{
    cluster::{cluster, free_port},
    database::Database,
    eventually,
    server::{Server, get, stocks},
    treemap::{self, treemap},
};

#[tokio::test]
async fn the_server_starts_without_a_database_logs_the_reason_and_becomes_ready_later() {
    // Nothing listens on this port at first. Later a proxy to the real Postgres opens it.
    let port = free_port();
    let database = Database::with_sample();
    let server = Server::start_with(&format!("postgres://postgres@127.0.0.1:{port}/{}", database.name), &[]).await;
    let why = server.wait_for_log("not ready; retrying: ").await;
    assert!(why.contains("Connection refused") && why.contains("Is Postgres running"), "{why}");
    assert_eq!(server.health("").await, Ok("NOT_SERVING"));

    let proxy = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut here, _)) = proxy.accept().await {
            let mut there = tokio::net::TcpStream::connect(("127.0.0.1", cluster().port)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut here, &mut there).await });
        }
    });
    server.wait_until_ready().await;
    assert!(!stocks(&mut server.client().await, "3m", 10, 0).await.is_empty());
    server.wait_for_log("the database answers again").await;
    assert_eq!(server.log().matches("not ready; retrying").count(), 1, "logged once: {}", server.log());
}

#[tokio::test]
async fn a_server_without_a_model_returns_unavailable_with_a_retry_delay() {
    let database = Database::empty();
    let server = Server::start(&database).await;
    let status = get(&mut server.client().await, "3m", 10, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    for secret in ["mv_treemap_data", "127.0.0.1", "postgres"] {
        assert!(!status.message().contains(secret), "{}", status.message());
    }
    let why = server.wait_for_log("not ready; retrying: ").await;
    assert!(why.contains("\"public.mv_treemap_data\" does not exist") && why.contains("treemap migrate"), "{why}");
    assert_eq!(server.health("").await, Ok("NOT_SERVING"));
    assert_eq!(server.health("shorts.v1alpha1.ShortedStocksService").await, Ok("NOT_SERVING"));
}

#[tokio::test]
async fn the_server_becomes_ready_when_the_view_is_migrated_or_filled_later() {
    let database = Database::empty();
    let server = Server::start(&database).await;
    server.wait_for_log("does not exist").await;
    treemap(&database, &["migrate"]).succeeds();
    server.wait_until_ready().await;

    let database = Database::with_sample();
    database.psql("REFRESH MATERIALIZED VIEW mv_treemap_data WITH NO DATA");
    let server = Server::start(&database).await;
    let why = server.wait_for_log("not ready; retrying: ").await;
    assert!(why.contains("treemap refresh"), "{why}");
    treemap(&database, &["refresh"]).succeeds();
    server.wait_until_ready().await;
    assert_eq!(server.health("shorts.v1alpha1.ShortedStocksService").await, Ok("SERVING"));
    assert!(!stocks(&mut server.client().await, "3m", 10, 0).await.is_empty());
}

#[tokio::test]
async fn each_reason_why_the_server_is_not_ready_is_logged() {
    let port = free_port();
    let database = Database::with_sample();
    let locked = format!("postgres://locked:wrong-{port}@127.0.0.1:{}/postgres", cluster().port);
    for (url, words) in [
        (format!("postgres://postgres@127.0.0.1:{port}/postgres"), "Is Postgres running"),
        (locked, "Check user, password and database"),
        (cluster().url("no_such_database"), "database \"no_such_database\" does not exist"),
        (database.url_of("stranger"), "permission denied for materialized view mv_treemap_data"),
    ] {
        let server = Server::start_with(&url, &[]).await;
        let why = server.wait_for_log("not ready; retrying: ").await;
        assert!(why.contains(words), "{why}");
        assert!(!server.log().contains(&format!("wrong-{port}")), "{}", server.log());
    }
}

#[tokio::test]
async fn the_first_requests_wait_for_the_first_load() {
    let database = Database::with_sample();
    let blocker = database.connect().await;
    blocker.batch_execute("BEGIN; REFRESH MATERIALIZED VIEW mv_treemap_data").await.unwrap();
    let server = Server::start(&database).await;
    let client = server.client().await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { stocks(&mut client, "3m", 10, 0).await.len() })
        })
        .collect();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the load waits for the lock", async || (database.psql(waiting) == "1").then_some(())).await;
    assert_eq!(server.health("").await, Ok("NOT_SERVING"));
    assert!(calls.iter().all(|call| !call.is_finished()));
    blocker.batch_execute("COMMIT").await.unwrap();
    for call in calls {
        assert!(call.await.unwrap() > 0);
    }
    // A thread of its own writes the log.
    server.wait_for_log("loaded the treemap").await;
    assert_eq!(server.log().matches("loaded the treemap").count(), 1, "many waiting calls share one load");
}

#[tokio::test]
async fn the_server_stops_cleanly_on_sigterm_and_on_ctrl_c() {
    for signal in ["TERM", "INT"] {
        let database = Database::with_sample();
        let mut server = Server::ready(&database).await;
        // One client is connected, and one watches the health of the server.
        let mut client = server.client().await;
        assert!(!stocks(&mut client, "3m", 1, 0).await.is_empty());
        let mut watcher = tonic_health::pb::health_client::HealthClient::new(server.channel().await);
        let mut health = watcher.watch(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(health.message().await.unwrap().unwrap().status().as_str_name(), "SERVING");

        server.signal(signal);
        assert!(server.wait_for_exit().await.success());
        server.wait_for_log("INFO stopped").await;
        assert!(!server.log().contains("were cut"), "{}", server.log());
        assert_eq!(health.message().await.unwrap().unwrap().status().as_str_name(), "NOT_SERVING");
    }
}

#[tokio::test]
async fn the_server_stops_while_it_waits_for_the_database() {
    let mut server = Server::start_with(&format!("postgres://127.0.0.1:{}/x", free_port()), &[]).await;
    server.wait_for_log("not ready").await;
    server.signal("TERM");
    assert!(server.wait_for_exit().await.success());
}

#[tokio::test]
async fn the_server_stops_in_time_while_no_name_server_answers() {
    // A name server that is silent, where the tests may have one.
    let silent = UdpSocket::bind("127.0.0.99:53");
    let mounts = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if silent.is_err() || !mounts {
        println!("skipped: no name server without the right to port 53 and to mount");
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "nameserver 127.0.0.99\noptions timeout:30 attempts:3\n").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]).arg(file.path());
    command.arg(treemap::command(&[]).get_program()).env("TREEMAP_LOG_FORMAT", "text");
    let arguments = ["--refresh-schedule", "off", "--source-interval", "off"];
    let mut server = Server::run(command, "postgres://database.internal/x", &arguments).await;
    server.wait_for_log("not ready").await;
    let begun = Instant::now();
    server.signal("TERM");
    assert!(server.wait_for_exit().await.success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn port_is_the_port_on_all_addresses_where_no_address_is_set() {
    let database = Database::with_sample();
    let port = free_port().to_string();
    for listen_addr in [None, Some(""), Some("127.0.0.1:0")] {
        let mut command = treemap::command(&[]);
        command.env("PORT", &port);
        if let Some(listen_addr) = listen_addr {
            command.env("TREEMAP_LISTEN_ADDR", listen_addr);
        }
        let server = Server::run_at(None, command, &database.url(), &[]).await;
        let (host, at) = server.addr.rsplit_once(':').unwrap();
        match listen_addr {
            Some("127.0.0.1:0") => assert!(host == "127.0.0.1" && at != port, "{}", server.addr),
            _ => assert!(["[::]", "0.0.0.0"].contains(&host) && at == port, "{}", server.addr),
        }
        assert!(tokio::net::TcpStream::connect(format!("127.0.0.1:{at}")).await.is_ok());
    }
    // Cloud Run's port is the one that the image has for the admin endpoints.
    let mut command = treemap::command(&[]);
    command.env("PORT", &port);
    let server = Server::run_at(None, command, &database.url(), &["--admin-addr", &format!("[::]:{port}")]).await;
    assert!(server.addr.ends_with(&format!(":{port}")), "{}", server.addr);
    assert_eq!(server.admin_get("/livez").await.0, 200);
    let mut command = treemap::command(&["serve"]);
    command.env("PORT", "http").env("DATABASE_URL", database.url());
    treemap::run(&mut command).exits(1).prints(&["PORT is \"http\"; expected a number"]);
}
