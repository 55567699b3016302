//! The hot path against its bars: throughput, latency, memory, and how soon a refresh is seen. Load comes from h2load on
//! the same machine; each server is measured in turn with those it is compared with. `make bench`.

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
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use industry_treemap::proto::shorts::v1alpha1::GetIndustryTreeMapRequest;
use prost::Message;
use support::{
    cluster::output,
    database::Database,
    server::{Server, get},
};
use table::{Table, median};

/// Measurements of each server; the median counts.
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
    drop(ours);
    start(&database, &mut table).await;
    freshness(&database, &mut table).await;
    large_view(&mut table).await;
    table.print();
}

/// A server of `servers`, in a process of its own.
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

/// A request as h2load sends it: the gRPC frame in a file.
struct Load(tempfile::NamedTempFile);

impl Load {
    fn of(limit: i32) -> Self {
        let message = GetIndustryTreeMapRequest { period: "3m".into(), limit, view_mode: 0 }.encode_to_vec();
        let file = tempfile::NamedTempFile::new().unwrap();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        fs::write(file.path(), [&[0][..], &length, &message].concat()).unwrap();
        Self(file)
    }

    fn command(&self, addr: &str, arguments: &[&str]) -> String {
        let mut h2load = Command::new("h2load");
        h2load.args(arguments).arg("-d").arg(self.0.path());
        h2load.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
        let said = output(h2load.arg(format!("http://{addr}/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap")));
        assert!(said.contains(" 0 failed, 0 errored, 0 timeout"), "{said}");
        said
    }

    /// Requests per second when the server is kept busy.
    fn saturate(&self, addr: &str) -> f64 {
        let said = self.command(addr, &["-c", "10", "-m", "10", "-D", "3", "--warm-up-time", "1"]);
        let (_, rate) = said.split_once("finished in ").unwrap();
        rate.split([',', ' ']).find_map(|word| word.parse().ok()).unwrap()
    }

    /// The 99th percentile of the response time at a steady rate, in milliseconds.
    fn p99(&self, addr: &str, rate: f64) -> f64 {
        let log = tempfile::tempdir().unwrap();
        let file = log.path().join("log");
        let per_client = format!("{:.0}", rate / 10.0);
        let requests = format!("{:.0}", rate * 3.0);
        self.command(
            addr,
            &["-c", "10", "-n", &requests, "--rps", &per_client, "--log-file", &file.display().to_string()],
        );
        let log = fs::read_to_string(file).unwrap();
        let mut times: Vec<f64> = log
            .lines()
            .filter_map(|line| line.split('\t').nth(2)?.parse().ok())
            .map(|time: f64| time / 1000.0)
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() * 99 / 100]
    }
}

async fn throughput(database: &Database, ours: &Server, table: &mut Table) {
    let per_query = Other::start("query", &[("DATABASE_URL", &database.url())]);
    for limit in [10, 500] {
        let answer = tempfile::NamedTempFile::new().unwrap();
        // A connection each time: this process answers no PING while it waits for h2load.
        let message = get(&mut ours.client().await, "3m", limit, 0).await.unwrap().into_inner();
        fs::write(answer.path(), message.encode_to_vec()).unwrap();
        let bare = Other::start("bare", &[(servers::ANSWER, &answer.path().display().to_string())]);
        let load = Load::of(limit);
        let (mut fast, mut least, mut slow) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            fast.push(load.saturate(&ours.addr));
            least.push(load.saturate(&bare.addr));
            if limit == 10 {
                slow.push(load.saturate(&per_query.addr));
            }
        }
        let (fast, least) = (median(&mut fast), median(&mut least));
        let size = message.encoded_len();
        table.reaches(&format!("calls/s, limit {limit} ({size} bytes), against the bare server"), fast, least, 0.9);
        if limit == 10 {
            table.reaches("  against a ranked query per request, pool of 8", fast, median(&mut slow), 25.0);
            let (mut fast_p99, mut least_p99) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                fast_p99.push(load.p99(&ours.addr, least / 2.0));
                least_p99.push(load.p99(&bare.addr, least / 2.0));
            }
            let name = format!("  p99 at {:.0} calls/s, ms", least / 2.0);
            table.at_most(&name, median(&mut fast_p99), median(&mut least_p99), 1.25);
        }
    }
}

/// How long after its commit a refresh is on the wire of the last of four replicas, in milliseconds.
async fn freshness(database: &Database, table: &mut Table) {
    let refreshed = async |client: &mut support::server::Client| {
        let answer = get(client, "3m", 1, 0).await.unwrap();
        answer.metadata().get("treemap-last-refreshed").unwrap().clone()
    };
    // Without LISTEN: an address where nobody is.
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
            server.becomes_ready().await;
            if bar < 1000.0 {
                server.logged("listening for refreshes").await;
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

/// From exec to the first answer, with the database up.
async fn start(database: &Database, table: &mut Table) {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let server = Server::start(database).await;
        get(&mut server.client().await, "3m", 10, 0).await.unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    table.at_most("start to the first answer, ms, against the allowance", median(&mut times), 150.0, 1.0);
}

/// A view of 100,000 stocks: the time to load it, and what it does to the throughput.
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
    let load = Load::of(1);
    let (mut fast, mut usual) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        fast.push(load.saturate(&ours.addr));
        usual.push(load.saturate(&same.addr));
    }
    let name = "calls/s, limit 1, from 100,000 stocks against 60";
    table.reaches(name, median(&mut fast), median(&mut usual), 0.9);
}
