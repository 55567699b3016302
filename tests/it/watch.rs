//! `treemap.v1`: the treemap with all that is known of its stocks, and as a stream that brings each new version by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use industry_treemap::proto::treemap::v1::{
    GetTreemapRequest, Heartbeat, Treemap, ViewMode, WatchTreemapRequest, WatchTreemapResponse,
    treemap_service_client::TreemapServiceClient, watch_treemap_response::Event,
};
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt;

use crate::support::{
    cluster::OwnCluster,
    database::Database,
    raw,
    server::{Client, Server, get, ready, stocks},
    web::Web,
};

const WATCH: &str = "/treemap.v1.TreemapService/WatchTreemap";

async fn client(server: &Server) -> TreemapServiceClient<Channel> {
    TreemapServiceClient::new(server.channel().await)
}

async fn watch(server: &Server, version: &str) -> Streaming<WatchTreemapResponse> {
    let request = WatchTreemapRequest { period: "3m".into(), limit: 10, version: version.into(), ..Default::default() };
    client(server).await.watch_treemap(request).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchTreemapResponse>) -> Result<Event, Status> {
    let message = tokio::time::timeout(Duration::from_secs(20), stream.message()).await.expect("a message in time")?;
    Ok(message.expect("no end without a status").event.unwrap())
}

async fn next_treemap(stream: &mut Streaming<WatchTreemapResponse>) -> Treemap {
    match next(stream).await.unwrap() {
        Event::Treemap(treemap) => treemap,
        Event::Heartbeat(heartbeat) => panic!("{heartbeat:?}"),
    }
}

async fn next_heartbeat(stream: &mut Streaming<WatchTreemapResponse>) -> Heartbeat {
    match next(stream).await.unwrap() {
        Event::Heartbeat(heartbeat) => heartbeat,
        Event::Treemap(treemap) => panic!("{}", treemap.version),
    }
}

/// Changes the data, and refreshes the view.
pub fn change(database: &Database, percent: u32) {
    database.psql(&format!(
        "UPDATE shorts SET \"PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS\" = {percent} WHERE \"DATE\" = '2023-12-29'"
    ));
    database.refresh();
}

#[tokio::test]
async fn a_treemap_has_all_that_the_view_has_of_its_stocks() {
    let (database, server) = ready(&[]).await;
    for (view_mode, number, column) in
        [(ViewMode::Unspecified, 0, "current_short_position"), (ViewMode::Change, 1, "percentage_change")]
    {
        let request = GetTreemapRequest { period: "1Y".into(), limit: 3, view_mode: view_mode.into() };
        let answer = client(&server).await.get_treemap(request).await.unwrap();
        let version = answer.metadata().get("treemap-version").unwrap().to_str().unwrap().to_owned();
        let treemap = answer.into_inner().treemap.unwrap();
        assert_eq!((treemap.period.as_str(), treemap.data_date.as_str(), treemap.stale), ("1y", "2023-12-29", true));
        assert_eq!(treemap.version, version);
        let rows: Vec<String> = treemap
            .industries
            .iter()
            .flat_map(|industry| {
                industry.stocks.iter().map(|stock| {
                    let change = stock.change_percent.map_or_else(String::new, |change| change.to_string());
                    [
                        &industry.name,
                        &industry.stock_count.to_string(),
                        &stock.code,
                        &stock.company_name,
                        &stock.current_percent.to_string(),
                        &stock.earliest_percent.to_string(),
                        &change,
                        &stock.report_date,
                    ]
                    .map(String::as_str)
                    .join("|")
                })
            })
            .collect();
        let expected = database.psql(&format!(
            "SELECT industry, total, product_code, company_name, current_short_position, earliest_short_position, percentage_change, latest_date::date
             FROM (SELECT *, count({column}) OVER (PARTITION BY industry) AS total,
                    row_number() OVER (PARTITION BY industry ORDER BY {column} DESC, product_code COLLATE \"C\") AS place
                FROM mv_treemap_data WHERE period_name = '1y' AND {column} IS NOT NULL) AS ranked
             WHERE place <= 3 ORDER BY industry COLLATE \"C\", place"
        ));
        assert_eq!(rows, expected.lines().collect::<Vec<_>>());
        // The published answer has the same stocks in the same order.
        let published = stocks(&mut server.client().await, "1Y", 3, number).await;
        let codes =
            treemap.industries.iter().flat_map(|industry| industry.stocks.iter().map(|stock| stock.code.clone()));
        assert_eq!(codes.collect::<Vec<_>>(), published.into_iter().map(|(_, code, _)| code).collect::<Vec<_>>());
    }
    for (period, limit, view_mode, message) in [
        ("3x", 0, 0, "invalid period format"),
        ("", -1, 0, "limit must be positive"),
        ("", 501, 0, "limit cannot exceed 500"),
        ("", 0, 3, "VIEW_MODE_CURRENT, VIEW_MODE_CHANGE"),
    ] {
        let request = GetTreemapRequest { period: period.into(), limit, view_mode };
        let refused = client(&server).await.get_treemap(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(message), "{refused:?}");
        assert_eq!(refused.get_error_details().bad_request().unwrap().field_violations.len(), 1);
    }
}

#[tokio::test]
async fn json_is_what_protobufs_own_mapping_makes_of_the_binary_message() {
    use prost_reflect::{DescriptorPool, DynamicMessage};
    let (_database, server) = ready(&[]).await;
    let path = "/treemap.v1.TreemapService/GetTreemap";
    let post = async |kind: &str, body: &[u8]| {
        Web::new("POST", path).header("content-type", kind).body(body).http1(&server.addr).await.body
    };
    let json = post("application/json", br#"{"period":"max","limit":5,"viewMode":"VIEW_MODE_CHANGE"}"#).await;
    let request = prost::Message::encode_to_vec(&GetTreemapRequest { period: "max".into(), limit: 5, view_mode: 2 });
    let proto = post("application/proto", &request).await;
    let pool = DescriptorPool::decode(industry_treemap::proto::DESCRIPTORS).unwrap();
    let kind = pool.get_message_by_name("treemap.v1.GetTreemapResponse").unwrap();
    let mapped = serde_json::to_value(DynamicMessage::decode(kind, &proto[..]).unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&json).unwrap(), mapped);
}

#[tokio::test]
async fn a_treemap_may_be_got_by_get_and_is_kept_by_its_entity_tag() {
    let (_database, server) = ready(&[]).await;
    let path = "/treemap.v1.TreemapService/GetTreemap?connect=v1&encoding=json&message=%7B%22limit%22%3A5%7D";
    let answer = Web::new("GET", path).http1(&server.addr).await;
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["treemap"]["industries"].is_array());
    let tag = answer.header("etag").to_owned();
    // It shows when the data was refreshed, and whether it is stale: both are in the tag.
    assert!(tag.starts_with(&format!("W/\"{}-", answer.header("treemap-version"))), "{tag}");
    let known = Web::new("GET", path).header("if-none-match", &tag).http2(&server.addr).await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
}

#[tokio::test]
async fn every_watcher_of_every_replica_gets_the_treemap_and_then_each_change() {
    let database = Database::with_sample();
    let mut replicas = Vec::new();
    for _ in 0..4 {
        let server = Server::ready(&database).await;
        server.wait_for_log("listening for refreshes").await;
        replicas.push(server);
    }
    let mut streams = Vec::new();
    for server in &replicas {
        streams.push(watch(server, "").await);
    }
    let mut first = Vec::new();
    for stream in &mut streams {
        first.push(next_treemap(stream).await);
    }
    assert!(first.windows(2).all(|two| two[0].version == two[1].version && !two[0].industries.is_empty()));
    change(&database, 42);
    let begun = Instant::now();
    for stream in &mut streams {
        let treemap = next_treemap(stream).await;
        assert_ne!(treemap.version, first[0].version);
        assert!(
            treemap.industries.iter().all(|industry| industry.stocks.iter().all(|stock| stock.current_percent == 42.0))
        );
    }
    println!("all of 4 replicas have sent the change after {:?}", begun.elapsed());
    assert_eq!(replicas[0].metric("treemap_watchers").await, 1.0);
    assert_eq!(replicas[0].metric("treemap_watch_messages_total").await, 2.0);
    // A watcher is no call in flight.
    assert_eq!(replicas[0].metric("treemap_calls_in_flight").await, 0.0);
}

#[tokio::test]
async fn who_has_the_version_gets_heartbeats_until_there_is_another() {
    let (database, server) =
        ready(&["--watch-heartbeat", "300ms", "--max-age", "2s", "--max-data-age", "36500d"]).await;
    let version = next_treemap(&mut watch(&server, "").await).await.version;
    let mut stream = watch(&server, &version).await;
    let heartbeat = next_heartbeat(&mut stream).await;
    assert_eq!(heartbeat.version, version);
    // A refresh that changes nothing sends nothing; it shows in the next heartbeats.
    let before = heartbeat.refreshed_at.unwrap();
    database.refresh();
    let after = loop {
        let heartbeat = next_heartbeat(&mut stream).await;
        if heartbeat.refreshed_at.unwrap() != before {
            break heartbeat;
        }
    };
    assert_eq!(after.version, version);
    // It turns stale without new rows.
    while !next_heartbeat(&mut stream).await.stale {}
    assert!(next_heartbeat(&mut stream).await.age_seconds >= 2);
    change(&database, 7);
    loop {
        match next(&mut stream).await.unwrap() {
            Event::Heartbeat(_) => {}
            Event::Treemap(treemap) => break assert!(treemap.version != version && !treemap.stale),
        }
    }
}

#[tokio::test]
async fn a_watch_ends_with_unavailable_when_the_server_stops() {
    let (_database, mut server) = ready(&[]).await;
    let mut stream = watch(&server, "").await;
    next_treemap(&mut stream).await;
    server.signal("TERM");
    let end = next(&mut stream).await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    assert!(end.message().contains("watch again"), "{end:?}");
    assert!(end.get_error_details().retry_info().is_some());
    assert!(server.wait_for_exit().await.success());
    assert!(!server.log().contains("cut connections"), "{}", server.log());
}

#[tokio::test]
async fn a_watch_ends_with_unavailable_when_its_connection_is_old() {
    let (_database, server) = ready(&["--max-connection-age", "1s"]).await;
    let mut stream = watch(&server, "").await;
    let version = next_treemap(&mut stream).await.version;
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::Unavailable);
    // It goes on where it was.
    let mut stream = watch(&server, &version).await;
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_watch_is_counted_by_how_it_ended_in_every_protocol() {
    let (_database, server) = ready(&["--max-connection-age", "2s"]).await;
    let addr = server.addr.as_str();
    let count = async |code: &str| {
        let labels =
            "grpc_type=\"server_stream\",grpc_service=\"treemap.v1.TreemapService\",grpc_method=\"WatchTreemap\"";
        server.metric(&format!("grpc_server_handled_total{{{labels},grpc_code=\"{code}\"}}")).await
    };
    let request = raw::message(&WatchTreemapRequest { limit: 1, ..Default::default() });
    let text = BASE64_STANDARD.encode(&request).into_bytes();
    let watched = [
        ("application/grpc", &request),
        ("application/grpc-web+proto", &request),
        ("application/grpc-web-text", &text),
        ("application/connect+proto", &request),
    ];
    let ends = watched.map(|(kind, body)| async move {
        let answer = Web::new("POST", WATCH).header("content-type", kind).body(body).http2(addr).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, kind));
    });
    join_all(ends).await;
    assert_eq!((count("Unavailable").await, count("OK").await), (4.0, 0.0));
    let mut stream = watch(&server, "").await;
    next_treemap(&mut stream).await;
    drop(stream);
    crate::support::eventually("a client that went away", async || (count("Canceled").await == 1.0).then_some(()))
        .await;
    // Each of them has begun well.
    assert_eq!(server.metric("treemap_calls_total{protocol=\"grpc_web\",grpc_code=\"OK\"}").await, 2.0);
}

#[tokio::test]
async fn watchers_beyond_the_limit_are_refused_and_a_place_is_free_again_when_one_leaves() {
    let (_database, server) = ready(&["--max-watchers", "2"]).await;
    let mut streams = vec![watch(&server, "").await, watch(&server, "").await];
    for stream in &mut streams {
        next_treemap(stream).await;
    }
    let client = client(&server).await;
    let refused = client.clone().watch_treemap(WatchTreemapRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_error_details().retry_info().is_some());
    streams.pop();
    crate::support::eventually("a free place", async || {
        client.clone().watch_treemap(WatchTreemapRequest::default()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_deadline_ends_a_watch() {
    let (_database, server) = ready(&[]).await;
    let mut request = tonic::Request::new(WatchTreemapRequest::default());
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let mut stream = client(&server).await.watch_treemap(request).await.unwrap().into_inner();
    next_treemap(&mut stream).await;
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_slow_reader_gets_the_newest_treemap_and_no_queue_of_old_ones() {
    let (database, server) = ready(&[]).await;
    // Its window is smaller than a treemap.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.addr)).unwrap();
    let channel = endpoint.initial_stream_window_size(1024).connect().await.unwrap();
    let mut stream =
        TreemapServiceClient::new(channel).watch_treemap(WatchTreemapRequest::default()).await.unwrap().into_inner();
    crate::support::eventually("the first treemap", async || {
        (server.metric("treemap_watch_messages_total").await >= 1.0).then_some(())
    })
    .await;
    let mut newest = watch(&server, "").await;
    next_treemap(&mut newest).await;
    for percent in 1..=5 {
        change(&database, percent);
        next_treemap(&mut newest).await;
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&5.0) {
        seen.push(next_treemap(&mut stream).await.industries[0].stocks[0].current_percent);
    }
    assert!(seen.len() <= 3, "{seen:?}");
}

#[tokio::test]
async fn watchers_outlive_postgres_sessions_that_are_cut() {
    let (database, server) = ready(&["--watch-heartbeat", "200ms"]).await;
    let mut stream = watch(&server, "").await;
    let version = next_treemap(&mut stream).await.version;
    database.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
    assert_eq!(next_heartbeat(&mut stream).await.version, version);
    change(&database, 9);
    loop {
        if let Event::Treemap(treemap) = next(&mut stream).await.unwrap() {
            break assert_ne!(treemap.version, version);
        }
    }
}

#[tokio::test]
async fn a_watch_goes_on_while_postgres_is_killed_turns_stale_by_itself_and_gets_the_refresh_after_it() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let arguments = ["--watch-heartbeat", "200ms", "--max-age", "3s", "--max-data-age", "36500d"];
    let server = Server::start_with(&database.url(), &arguments).await;
    server.wait_until_ready().await;
    server.wait_for_log("listening for refreshes").await;
    let mut stream = watch(&server, "").await;
    let version = next_treemap(&mut stream).await.version;
    database.refresh();
    while next_heartbeat(&mut stream).await.stale {}
    own.kill();
    server.wait_for_log("serving the last model; retrying: ").await;
    loop {
        let heartbeat = next_heartbeat(&mut stream).await;
        assert_eq!(heartbeat.version, version);
        if heartbeat.stale {
            break;
        }
    }
    own.start_again();
    server.wait_for_log("the database answers again").await;
    change(&database, 9);
    loop {
        match next(&mut stream).await.unwrap() {
            Event::Heartbeat(heartbeat) => assert_eq!(heartbeat.version, version),
            Event::Treemap(treemap) => break assert_ne!(treemap.version, version),
        }
    }
    assert_eq!(server.metric("treemap_watchers").await, 1.0);
}

#[tokio::test]
async fn watchers_cost_postgres_no_query() {
    let (database, server) = ready(&["--poll-interval", "1h"]).await;
    server.wait_for_log("listening for refreshes").await;
    let client = client(&server).await;
    let calls = || {
        database
            .psql("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
            .parse::<i64>()
            .unwrap()
    };
    let before = calls();
    let mut streams = Vec::new();
    for _ in 0..90 {
        let mut stream = client.clone().watch_treemap(WatchTreemapRequest::default()).await.unwrap().into_inner();
        next_treemap(&mut stream).await;
        streams.push(stream);
    }
    // Each psql is a transaction or two of its own, and the listener asks now and then whether it still listens.
    let spent = calls() - before;
    assert!(spent < 20, "{spent} transactions for {} watchers", streams.len());
}

/// Calls again and again from a thread of its own, until `stop`; returns how long each call took, from the shortest to the longest.
fn calls(addr: &str, stop: &Arc<AtomicBool>) -> thread::JoinHandle<Vec<Duration>> {
    let (endpoint, stop) = (Channel::from_shared(format!("http://{addr}")).unwrap(), stop.clone());
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = Client::new(endpoint.connect().await.unwrap());
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                get(&mut client, "3m", 10, 0).await.unwrap();
                times.push(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            times.sort();
            times
        })
    })
}

/// The bars: 12 KiB for an idle watcher; 2 s until the last of 10,000 has a new version, and no failed call meanwhile, 99 % within 100 ms.
#[tokio::test]
#[ignore = "takes a minute: make soak"]
async fn ten_thousand_watchers_cost_little_memory_and_get_a_change_soon() {
    const CONNECTIONS: usize = 100;
    const EACH: usize = 100;
    let (database, server) = ready(&["--poll-interval", "1h", "--watch-heartbeat", "10m"]).await;
    let request = WatchTreemapRequest { period: "3m".into(), limit: 10, ..Default::default() };
    let (before, sent) = (server.memory_mib(), server.metric("treemap_watch_messages_total").await);
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = client(&server).await;
        for _ in 0..EACH {
            let mut stream = client.clone().watch_treemap(request.clone()).await.unwrap().into_inner();
            next_treemap(&mut stream).await;
            streams.push(stream);
        }
    }
    let watchers = streams.len();
    assert_eq!(server.metric("treemap_watchers").await, 10_000.0);
    #[expect(clippy::cast_precision_loss, reason = "10,000")]
    let each = (server.memory_mib() - before) * 1024.0 / watchers as f64;
    let stop = Arc::<AtomicBool>::default();
    let calls = calls(&server.addr, &stop);
    change(&database, 3);
    let begun = Instant::now();
    let mut got = tokio::task::JoinSet::new();
    for mut stream in streams {
        got.spawn(async move { drop(next_treemap(&mut stream).await) });
    }
    while let Some(done) = got.join_next().await {
        done.unwrap();
    }
    let last = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let times = calls.join().expect("no call fails");
    println!(
        "{watchers} watchers: {each:.1} KiB each; the last has the change after {last:?}; of {} calls meanwhile none failed, p99 {:?}, slowest {:?}",
        times.len(),
        times[times.len() * 99 / 100],
        times.last().unwrap(),
    );
    assert_eq!(server.metric("treemap_watch_messages_total").await - sent, 20_000.0);
    assert!(each <= 12.0, "{each} KiB for each watcher");
    assert!(last <= Duration::from_secs(2), "{last:?} until the last has the change");
    // Client and server share the processors; the figure of the bar is printed.
    assert!(*times.last().unwrap() < Duration::from_secs(2), "the slowest call took {:?}", times.last());
}
