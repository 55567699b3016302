//! The hot path against its bars: throughput, CPU per call, latency, memory, and how soon a refresh is served. Load comes from h2load on
//! the same machine; each server is measured in turn with those it is compared with. `make bench`.

mod load;
mod real;
mod servers;
#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code)]
mod support;
#[allow(dead_code)]
mod table;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use industry_treemap::proto::treemap::v1::{WatchTreemapRequest, treemap_service_client::TreemapServiceClient};
use load::{Load, Measured, Shape, USUAL};
use prost::Message;
use support::{
    cluster::free_port,
    database::Database,
    raw::{self, Raw},
    server::{Client, Server, get},
    treemap::{command, treemap},
    web::Web,
};
use table::{Table, median};
use tokio::net::TcpStream;
use tonic::transport::Channel;

/// Measurements of each server; the median is the result.
const ROUNDS: usize = 5;

fn main() {
    // As another process of the benchmark, this one is a server to compare with.
    servers::serve_if_asked();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let database = real::database();
    database.psql("VACUUM ANALYZE");
    let mut table = Table::default();
    let ours = Server::ready(&database).await;
    throughput(&database, &ours, &mut table).await;
    let memory = table::resident_peak(ours.id()).unwrap_or(f64::NAN);
    table.at_most("resident memory under that load, MiB, against the allowance", memory, 32.0, 1.0);
    table.at_most("  with 1,000 idle connections after it", idle(&ours).await, 48.0, 1.0);
    drop(ours);
    pictures(&Server::ready(&database).await, &mut table).await;
    let name = "resident memory under gRPC, JSON, SVG and 1,000 watchers at once, MiB";
    table.at_most(name, everything(&database).await, 48.0, 1.0);
    start(&database, &mut table).await;
    start_from_a_file(&database, &mut table).await;
    freshness(&database, &mut table).await;
    large_view(&mut table).await;
    table.print();
}

/// A baseline server of `servers`, in its own process.
struct Other {
    process: Child,
    addr: String,
}

impl Other {
    fn start(role: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(servers::ROLE, role).envs(variables.iter().copied()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, addr: line.trim().strip_prefix("listening on ").unwrap().to_owned() }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Other {
    /// nghttpd, a server in C, which serves the files of a folder.
    fn nghttpd(folder: &Path) -> Self {
        let port = support::cluster::free_port();
        let mut nghttpd = Command::new("nghttpd");
        nghttpd.args(["--no-tls", "-a", "127.0.0.1", "-d"]).arg(folder).arg(port.to_string());
        let process = nghttpd.stdout(Stdio::null()).spawn().unwrap();
        let addr = format!("127.0.0.1:{port}");
        while std::net::TcpStream::connect(&addr).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, addr }
    }

    fn at(&self) -> (&str, u32) {
        (&self.addr, self.process.id())
    }
}

/// The medians of several servers under load, measured in turn.
fn compare<const N: usize>(shape: Shape, servers: [(&Load, (&str, u32)); N]) -> [Measured; N] {
    let mut all: [Vec<Measured>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((load, server), measured) in servers.iter().zip(&mut all) {
            measured.push(load.saturate(*server, shape));
        }
    }
    all.map(|measured| {
        let median_of = |figure: fn(&Measured) -> f64| median(&mut measured.iter().map(figure).collect::<Vec<_>>());
        Measured { rate: median_of(|measured| measured.rate), cpu: median_of(|measured| measured.cpu) }
    })
}

/// A row for the rates, and one for the CPU per call.
fn rows(table: &mut Table, what: &str, [ours, other]: [Measured; 2], bar: f64) {
    table.reaches(&format!("calls/s, {what}"), ours.rate, other.rate, bar);
    table.note("  CPU of the server per call, us", ours.cpu, other.cpu);
}

async fn throughput(database: &Database, ours: &Server, table: &mut Table) {
    let folder = tempfile::tempdir().unwrap();
    let answer = folder.path().join("answer");
    // A new connection each time: this process does not answer PINGs while it waits for h2load.
    let message = get(&mut ours.client().await, "3m", 10, 0).await.unwrap().into_inner().encode_to_vec();
    fs::write(&answer, &message).unwrap();
    let file = folder.path().join("envelope");
    fs::write(&file, raw::message(get(&mut ours.client().await, "3m", 10, 0).await.unwrap().get_ref())).unwrap();
    let json = Web::json(r#"{"period":"3m","limit":10}"#).http1(&ours.addr).await;
    let json_file = folder.path().join("json");
    fs::write(&json_file, &json.body).unwrap();
    let bare = Other::start("bare", &[(servers::ANSWER, &answer.display().to_string())]);
    let bare_http1 = Other::start("http1", &[(servers::ANSWER, &json_file.display().to_string())]);
    let per_query = Other::start("query", &[("DATABASE_URL", &database.url())]);
    let nghttpd = Other::nghttpd(folder.path());
    let us = (ours.addr.as_str(), ours.id());

    // nghttpd gets the same request as ours, and serves its file; and then one without a body, which costs it least.
    let (grpc, static_file) = (Load::grpc(10, &[]), Load::grpc(10, &[]).at("/envelope"));
    let least = Load::path("/envelope", &[]);
    let gzip = Load::grpc(10, &["grpc-accept-encoding: gzip"]);
    let connect = Load::connect(10, &["accept-encoding: gzip"]);
    let tag = Web::get("connect=v1&encoding=json&message=%7B%7D").http1(&ours.addr).await.header("etag").to_owned();
    let not_modified = Load::get(10, &[&format!("if-none-match: {tag}")]);
    let [fast, tonic, c, c_get, zipped, json_zipped, unchanged, query] = compare(
        USUAL,
        [
            (&grpc, us),
            (&grpc, bare.at()),
            (&static_file, nghttpd.at()),
            (&least, nghttpd.at()),
            (&gzip, us),
            (&connect, us),
            (&not_modified, us),
            (&grpc, per_query.at()),
        ],
    );
    let size = message.len();
    rows(table, &format!("gRPC, limit 10 ({size} bytes), against bare tonic"), [fast, tonic], 2.0);
    rows(table, "the same, against nghttpd", [fast, c], 0.6);
    table.note("  us per call, against a request without a body", 1e6 / fast.rate, 1e6 / c_get.rate);
    let [many, many_tonic] = compare(Shape(64, 1), [(&grpc, us), (&grpc, bare.at())]);
    rows(table, "one stream on each of 64 connections, against bare tonic", [many, many_tonic], 1.3);
    let [one, one_c] = compare(Shape(1, 1), [(&grpc, us), (&static_file, nghttpd.at())]);
    table.at_most("one call at a time, us, against nghttpd", 1e6 / one.rate, 1e6 / one_c.rate, 1.15);
    rows(table, "gRPC with gzip, against our identity", [zipped, fast], 1.0);
    rows(table, "Connect JSON with gzip over h2c, against our gRPC", [json_zipped, fast], 0.9);
    rows(table, "Connect GET answered 304, against our gRPC", [unchanged, fast], 1.1);
    let (connect1, post1) = (Load::connect(10, &[]).http1(), Load::connect(10, &[]).http1());
    let [http1, bare1] = compare(Shape(64, 1), [(&connect1, us), (&post1, bare_http1.at())]);
    rows(table, "Connect JSON over HTTP/1.1, against bare hyper", [http1, bare1], 0.9);
    rows(table, "gRPC, against a ranked query per request, pool of 8", [fast, query], 30.0);

    let (mut fast_p99, mut least_p99) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        fast_p99.push(grpc.p99(us.0, tonic.rate / 2.0));
        least_p99.push(grpc.p99(bare.at().0, tonic.rate / 2.0));
    }
    let name = format!("p99 at {:.0} calls/s, ms, against bare tonic", tonic.rate / 2.0);
    table.at_most(&name, median(&mut fast_p99), median(&mut least_p99), 1.0);
    table.at_most(
        "slowest call during refreshes, ms, against the allowance",
        slowest_call(database, ours).await,
        100.0,
        1.0,
    );
}

/// The slowest of the calls that are made while the view is refreshed, in milliseconds.
async fn slowest_call(database: &Database, ours: &Server) -> f64 {
    let mut refreshing = {
        let mut psql = database.psql_command();
        psql.args(["-c", "SELECT refresh_treemap_data()", "-c", "SELECT refresh_treemap_data()"]).stdout(Stdio::null());
        psql.spawn().unwrap()
    };
    let mut client = ours.client().await;
    let mut slowest = Duration::ZERO;
    while refreshing.try_wait().unwrap().is_none() {
        let begun = Instant::now();
        get(&mut client, "3m", 10, 0).await.unwrap();
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    slowest.as_secs_f64() * 1000.0
}

/// Resident memory with a thousand connections that have each been answered, and are idle, in MiB.
async fn idle(ours: &Server) -> f64 {
    let mut connections = Vec::new();
    let request = industry_treemap::proto::shorts::v1alpha1::GetIndustryTreeMapRequest {
        period: "3m".into(),
        limit: 10,
        view_mode: 0,
    };
    for _ in 0..990 {
        let mut raw = Raw::handshake(&ours.addr, &[]).await;
        raw.call(1, &request).await;
        raw.until(raw::HEADERS).await.unwrap();
        connections.push(raw);
    }
    ours.memory_mib()
}

/// The picture of ten stocks per industry, drawn for the first time and from the memo.
async fn pictures(ours: &Server, table: &mut Table) {
    let path = |width: u32| format!("/treemap.svg?period=3m&limit=10&width={width}");
    // Each of another width: none of them has been drawn before.
    let first = median(&mut one_by_one(&ours.addr, (1000..1200).map(path), "identity").await);
    let zipped = median(&mut one_by_one(&ours.addr, (1000..1200).map(path), "gzip").await);
    let again = median(&mut one_by_one(&ours.addr, (0..200).map(|_| path(900)), "identity").await);
    table.at_most("GET of an SVG of limit 10, first time, ms, against the allowance", first, 1.0, 1.0);
    table.note("  the same with gzip, against that", zipped, first);
    table.note("  the same from the memo, against that", again, first);
    let gzip = ["accept-encoding: gzip"];
    let (svg, get, uncompressed) = (Load::path(&path(900), &gzip), Load::get(10, &gzip), Load::get(10, &[]));
    let us = (ours.addr.as_str(), ours.id());
    let [picture, call, as_large] = compare(USUAL, [(&svg, us), (&get, us), (&uncompressed, us)]);
    rows(table, "SVG from the memo with gzip, against Connect GET with gzip", [picture, call], 0.8);
    table.note("  the same, against Connect GET without gzip, of as many bytes", picture.cpu, as_large.cpu);
}

/// The times of GETs, one at a time over one connection of HTTP/1.1, in milliseconds.
async fn one_by_one(addr: &str, paths: impl Iterator<Item = String>, encoding: &str) -> Vec<f64> {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut times = Vec::new();
    for path in paths {
        let request = http::Request::get(path).header("host", addr).header("accept-encoding", encoding);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        sender.ready().await.unwrap();
        let begun = Instant::now();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    times
}

/// The most resident memory with everything at once, in MiB: calls in protobuf and in JSON, pictures, and 1,000 watchers.
async fn everything(database: &Database) -> f64 {
    let ours = Server::ready(database).await;
    let request = WatchTreemapRequest { period: "3m".into(), limit: 10, ..Default::default() };
    let mut watchers = Vec::new();
    for _ in 0..10 {
        let client = TreemapServiceClient::new(ours.channel().await);
        for _ in 0..100 {
            let mut watcher = client.clone().watch_treemap(request.clone()).await.unwrap().into_inner();
            watcher.message().await.unwrap();
            watchers.push(watcher);
        }
    }
    let picture = Load::path("/treemap.svg?period=3m&limit=10", &["accept-encoding: gzip"]);
    let loads = [Load::grpc(10, &[]), Load::connect(10, &[]), picture].map(|load| {
        let (addr, id) = (ours.addr.clone(), ours.id());
        // This thread goes on with the watchers' connections.
        tokio::task::spawn_blocking(move || load.saturate((addr.as_str(), id), USUAL))
    });
    for load in loads {
        load.await.unwrap();
    }
    assert!(ours.metric("treemap_watchers").await >= 1000.0);
    table::resident_peak(ours.id()).unwrap_or(f64::NAN)
}

/// The time from the commit of a refresh until the last of four replicas serves it, in milliseconds.
async fn freshness(database: &Database, table: &mut Table) {
    let refreshed = async |client: &mut support::server::Client| {
        let answer = get(client, "3m", 1, 0).await.unwrap();
        answer.metadata().get("treemap-last-refreshed").unwrap().clone()
    };
    // Without LISTEN: an address where nothing listens.
    let nobody = format!("postgres://127.0.0.1:{}/none", support::cluster::free_port());
    for (name, arguments, bar) in [
        ("refresh to the wire of 4 replicas, ms, with LISTEN", vec!["--poll-interval", "1h"], 100.0),
        (
            "  with a poll each second, and without LISTEN",
            vec!["--poll-interval", "1s", "--listen-database-url", &nobody],
            1100.0,
        ),
    ] {
        let (mut replicas, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let server = Server::start_with(&database.url(), &arguments).await;
            server.wait_until_ready().await;
            if bar < 1000.0 {
                server.wait_for_log("listening for refreshes").await;
            }
            clients.push(server.client().await);
            replicas.push(server);
        }
        let mut slowest: f64 = 0.0;
        for _ in 0..ROUNDS {
            let mut before = Vec::new();
            for client in &mut clients {
                before.push(refreshed(client).await);
            }
            database.refresh();
            let committed = Instant::now();
            for (client, before) in clients.iter_mut().zip(before) {
                while refreshed(client).await == before {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            slowest = slowest.max(committed.elapsed().as_secs_f64() * 1000.0);
        }
        table.at_most(name, slowest, bar, 1.0);
    }
}

/// The time from process start to the first answer, with the database running.
async fn start(database: &Database, table: &mut Table) {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let server = Server::start(database).await;
        get(&mut server.client().await, "3m", 10, 0).await.unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    table.at_most("start to the first answer, ms, against the allowance", median(&mut times), 50.0, 1.0);
}

/// The time from process start to the first answer from a model file, with no database.
async fn start_from_a_file(database: &Database, table: &mut Table) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model").display().to_string();
    treemap(database, &["snapshot", &file]).succeeds();
    let nobody = format!("postgres://127.0.0.1:{}/none", free_port());
    let arguments =
        ["serve", "--listen-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--model-file", file.as_str()];
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let mut serve = command(&arguments);
        serve.env("DATABASE_URL", &nobody).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut process = serve.spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let addr =
            log.find_map(|line| Some(line.ok()?.split_once("listening on ")?.1.split_whitespace().next()?.to_owned()));
        let server = Other { process, addr: addr.expect("an address in the log") };
        let channel = Channel::from_shared(format!("http://{}", server.addr)).unwrap().connect().await.unwrap();
        get(&mut Client::new(channel), "3m", 10, 0).await.unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let name = "start to the first answer from a model file, without a database, ms";
    table.at_most(name, median(&mut times), 20.0, 1.0);
}

/// A view of 100,000 stocks: the time to load it, and its effect on the throughput.
async fn large_view(table: &mut Table) {
    let (small, large) = (Database::with_sample(), Database::with_sample());
    large.psql(
        r#"CREATE TEMP TABLE industries AS SELECT DISTINCT industry FROM "company-metadata" WHERE industry ~ '\S';
        INSERT INTO "company-metadata" SELECT 'L' || n, 'L', (SELECT industry FROM industries OFFSET n % 27 LIMIT 1)
            FROM generate_series(1, 100000) AS n;
        INSERT INTO shorts SELECT day, 'L', 'L' || n, 1, 100, 1 + n % 97
            FROM generate_series(1, 100000) AS n, (VALUES (date '2023-12-28'), (date '2023-12-29')) AS days (day)"#,
    );
    large.psql("ANALYZE");
    large.refresh();
    large.psql("VACUUM ANALYZE");
    let (ours, same) = (Server::ready(&large).await, Server::ready(&small).await);
    let line = ours.log();
    let (_, loaded) = line.split_once("milliseconds=").unwrap();
    let seconds = loaded.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1000.0;
    table.at_most("load of the model of 100,000 stocks, s, against the allowance", seconds, 2.0, 1.0);
    let load = Load::grpc(1, &[]);
    let [fast, usual] =
        compare(USUAL, [(&load, (ours.addr.as_str(), ours.id())), (&load, (same.addr.as_str(), same.id()))]);
    let name = "calls/s, limit 1, from 100,000 stocks against 60";
    table.reaches(name, fast.rate, usual.rate, 0.9);
}
