//! The load that replicas put on Postgres and on a machine: 20 replicas on this machine, with production settings,
//! first idle, then during a refresh. docs/scaling.md calculates with these figures. `cargo bench --bench scaling`.

mod real;
#[path = "../tests/it/support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::time::{Duration, Instant};

use support::{
    database::Database,
    server::{Server, cpu_seconds, get},
};

const REPLICAS: usize = 20;
const PEACE: Duration = Duration::from_secs(120);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(bench());
}

async fn bench() {
    let database = real::database();
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        let server = Server::refreshing(&database.url(), &[]).await;
        server.wait_until_ready().await;
        server.wait_for_log("listening for refreshes").await;
        replicas.push(server);
    }
    // The first replica that checks the source may refresh the view: the load may be counted in the template database.
    tokio::time::sleep(Duration::from_secs(5)).await;
    database.refresh();
    tokio::time::sleep(Duration::from_secs(5)).await;

    let held = number(&database, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'treemap'");
    let before = Counts::of(&database, &replicas);
    tokio::time::sleep(PEACE).await;
    let peace = Counts::of(&database, &replicas).since(&before);
    let per_hour = |count: f64| count / count_of(REPLICAS) * 3600.0 / PEACE.as_secs_f64();

    let mut clients = Vec::new();
    for server in &replicas {
        clients.push(server.client().await);
    }
    let before = Counts::of(&database, &replicas);
    let mut refreshed = Vec::new();
    for client in &mut clients {
        let answer = get(client, "3m", 1, 0).await.unwrap();
        refreshed.push(answer.metadata().get("treemap-last-refreshed").unwrap().clone());
    }
    database.refresh();
    let committed = Instant::now();
    for (client, before) in clients.iter_mut().zip(&refreshed) {
        while get(client, "3m", 1, 0).await.unwrap().metadata().get("treemap-last-refreshed") == Some(before) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let spread = committed.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refresh = Counts::of(&database, &replicas).since(&before);
    let memory: f64 = replicas.iter().map(Server::memory_mib).sum();

    println!("{REPLICAS} replicas, {} s in peace, then one refresh", PEACE.as_secs());
    for (what, figure) in [
        ("connections to Postgres, per replica", held / count_of(REPLICAS)),
        ("transactions in peace, per replica and hour", per_hour(peace.transactions)),
        ("seconds of Postgres' CPU in peace, per replica and hour", per_hour(peace.postgres_cpu)),
        ("seconds of its own CPU in peace, per replica and hour", per_hour(peace.replicas_cpu)),
        ("resident memory, MiB, per replica", memory / count_of(REPLICAS)),
        ("transactions for a refresh, per replica", refresh.transactions / count_of(REPLICAS)),
        ("seconds of Postgres' CPU for a refresh, per replica", refresh.postgres_cpu / count_of(REPLICAS)),
        ("seconds from the commit until the last of them serves it", spread),
    ] {
        println!("    {what:<58} {figure:.3}");
    }
}

fn number(database: &Database, sql: &str) -> f64 {
    database.psql(sql).parse().unwrap()
}

fn count_of(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// Counters up to now.
struct Counts {
    transactions: f64,
    postgres_cpu: f64,
    replicas_cpu: f64,
}

impl Counts {
    fn of(database: &Database, replicas: &[Server]) -> Self {
        let sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
        let backends = "SELECT pid FROM pg_stat_activity WHERE application_name = 'treemap'";
        Self {
            transactions: number(database, sql),
            postgres_cpu: database.psql(backends).lines().map(|pid| cpu_seconds(pid.parse().unwrap())).sum(),
            replicas_cpu: replicas.iter().map(Server::cpu_seconds).sum(),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            transactions: self.transactions - before.transactions,
            postgres_cpu: self.postgres_cpu - before.postgres_cpu,
            replicas_cpu: self.replicas_cpu - before.replicas_cpu,
        }
    }
}
