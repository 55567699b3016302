//! A server with a model answers every call while Postgres has a fault. Each test prints its row of the table in
//! docs/connecting.md: cargo test --test it outages -- --nocapture --test-threads=1

use std::time::Duration;

use crate::support::{
    cluster::{OwnCluster, cluster},
    database::Database,
    eventually,
    outage::{Calls, Fault, refresh_and_wait},
    pooler::Pooler,
    proxy::{Mode, Proxy},
    server::Server,
    treemap,
};

/// Starts a server with production settings, except that it checks the source for changes more often.
async fn serve(url: &str, arguments: &[&str]) -> Server {
    let often = ["--source-interval", "1s", "--source-quiet", "500ms"];
    let server = Server::refreshing(url, &[&often, arguments].concat()).await;
    server.wait_until_ready().await;
    server.wait_for_log("listening for refreshes").await;
    server
}

const DATABASE_FAULT: [&str; 2] = ["serving the last model; retrying: ", "the database answers again"];

async fn wait_until_listening_again(server: &Server) {
    eventually("the server listens again", async || {
        (server.log().matches("listening for refreshes").count() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_restart_of_postgres_fails_no_call() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let server = serve(&database.url(), &[]).await;
    let fault = Fault { name: "Postgres stopped, then started", log_lines: DATABASE_FAULT, server: &server };
    fault.inject(async { own.stop("fast") }, async { own.start_again() }).await;
    wait_until_listening_again(&server).await;
    refresh_and_wait(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_crash_of_postgres_fails_no_call() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let server = serve(&database.url(), &[]).await;
    let fault = Fault { name: "Postgres killed, then started", log_lines: DATABASE_FAULT, server: &server };
    fault.inject(async { own.kill() }, async { own.start_again() }).await;
    wait_until_listening_again(&server).await;
    refresh_and_wait(&server, || database.refresh()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_connections_are_opened_again_without_a_warning() {
    let database = Database::with_sample();
    let server = serve(&database.url(), &[]).await;
    let calls = Calls::start(&server.client().await);
    database.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    let begun = std::time::Instant::now();
    wait_until_listening_again(&server).await;
    let recovered = begun.elapsed().as_secs_f64();
    refresh_and_wait(&server, || database.refresh()).await;
    let made = calls.assert_none_failed().await;
    assert!(!server.log().contains(" WARN ") && !server.log().contains(" ERROR "), "{}", server.log());
    println!("| all connections terminated | none needed | 0 of {made} | {recovered:.1} |");
}

#[tokio::test]
async fn a_network_that_delivers_nothing_is_noticed() {
    let database = Database::with_sample();
    let proxy = Proxy::to(cluster().port).await;
    let server = serve(&database.url_at(proxy.port), &[]).await;
    let fault = Fault { name: "black hole: accepts, and stays silent", log_lines: DATABASE_FAULT, server: &server };
    fault.inject(async { proxy.set(Mode::BlackHole) }, async { proxy.set(Mode::Forward) }).await;
    wait_until_listening_again(&server).await;
    refresh_and_wait(&server, || database.refresh()).await;
}

#[tokio::test]
async fn connections_that_are_reset_are_noticed() {
    let database = Database::with_sample();
    let proxy = Proxy::to(cluster().port).await;
    let server = serve(&database.url_at(proxy.port), &[]).await;
    let fault = Fault { name: "every connection reset", log_lines: DATABASE_FAULT, server: &server };
    fault.inject(async { proxy.set(Mode::Reset) }, async { proxy.set(Mode::Forward) }).await;
    refresh_and_wait(&server, || database.refresh()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_causes_no_warning() {
    let database = Database::with_sample();
    let proxy = Proxy::to(cluster().port).await;
    proxy.set(Mode::Delay(Duration::from_millis(100)));
    let server = serve(&database.url_at(proxy.port), &[]).await;
    let calls = Calls::start(&server.client().await);
    refresh_and_wait(&server, || database.refresh()).await;
    calls.assert_none_failed().await;
    assert!(!server.log().contains(" WARN ") && !server.log().contains(" ERROR "), "{}", server.log());
}

#[tokio::test]
async fn a_half_open_listen_connection_is_noticed_and_the_server_polls() {
    let database = Database::with_sample();
    let proxy = Proxy::to(cluster().port).await;
    let listening = database.url_at(proxy.port);
    let server = serve(&database.url(), &["--listen-database-url", &listening, "--poll-interval", "500ms"]).await;
    let log_lines = ["LISTEN does not work; polling for refreshes: ", "listening for refreshes down_seconds"];
    let fault = Fault { name: "the listener's connection goes silent", log_lines, server: &server };
    let meanwhile = async {
        refresh_and_wait(&server, || database.refresh()).await;
        proxy.set(Mode::Forward);
    };
    fault.inject(async { proxy.set(Mode::BlackHole) }, meanwhile).await;
    refresh_and_wait(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_restart_of_the_pooler_fails_no_call() {
    let database = Database::with_sample();
    let pooler = Pooler::start(cluster().port);
    let listening = database.url();
    let server = serve(&pooler.url(&database), &["--listen-database-url", &listening]).await;
    let fault = Fault { name: "the pooler killed, then started", log_lines: DATABASE_FAULT, server: &server };
    fault.inject(async { pooler.kill() }, async { pooler.start_again() }).await;
    refresh_and_wait(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_postgres_without_free_connections_fails_no_call() {
    let own = OwnCluster::start(&["max_connections=12", "superuser_reserved_connections=0", "max_wal_senders=0"]);
    let database = Database::with_sample_in(&own);
    let server = serve(&database.url(), &[]).await;
    let held = std::sync::Mutex::new(Vec::new());
    let take = async {
        let first = database.connect().await;
        // Terminate the server's connections until this test holds all of them: the server may reconnect in between.
        while let Ok((client, connection)) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await {
            tokio::spawn(connection);
            held.lock().unwrap().push(client);
            let ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'treemap'";
            first.batch_execute(ours).await.unwrap();
        }
        held.lock().unwrap().push(first);
    };
    let fault = Fault { name: "all connections of Postgres taken", log_lines: DATABASE_FAULT, server: &server };
    fault.inject(take, async { held.lock().unwrap().clear() }).await;
    refresh_and_wait(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_postgres_that_refuses_connections_during_recovery_fails_no_call() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let server = serve(&database.url(), &[]).await;
    let recovering = own.folder.join("data/standby.signal");
    let fault =
        Fault { name: "Postgres in recovery, takes no connections", log_lines: DATABASE_FAULT, server: &server };
    let recover = async {
        own.stop("fast");
        std::fs::write(&recovering, "").unwrap();
        own.start_without_connections();
    };
    let end = async {
        own.stop("immediate");
        std::fs::remove_file(&recovering).unwrap();
        own.start_again();
    };
    fault.inject(recover, end).await;
    refresh_and_wait(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_full_disk_is_logged_and_refreshes_work_again_when_there_is_space() {
    let own = OwnCluster::start(&[]);
    own.stop("fast");
    let Some(small) = own.start_with_a_small_disk() else {
        return eprintln!("only root can make a disk that is full; not tested");
    };
    let database = Database::with_sample_in(&own);
    own.psql(&database.name, &format!("CREATE TABLESPACE small LOCATION '{}'", small.display()));
    // A refresh writes the new rows to this tablespace before it compares them with the old rows.
    database.psql(&format!("ALTER DATABASE {} SET temp_tablespaces = small", database.name));
    let schedule = ["--refresh-schedule", "* * * * * *", "--source-interval", "off"];
    let server = Server::refreshing(&database.url(), &schedule).await;
    server.wait_until_ready().await;
    server.wait_for_log("refreshed the view for the tick").await;
    let in_the_server = |command: &str| {
        database.psql(&format!("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; cd {} && {command}'", small.display()));
    };
    let log_lines = ["cannot keep the view fresh; retrying: ", "refreshes work again"];
    let fault = Fault { name: "the disk of Postgres full", log_lines, server: &server };
    let fill = async { in_the_server("dd if=/dev/zero of=filler bs=8k status=none || true") };
    fault.inject(fill, async { in_the_server("rm filler") }).await;
    let why = server.wait_for_log(log_lines[0]).await;
    assert!(why.contains("SQLSTATE 53100") && why.contains("Free space"), "{why}");
}

#[test]
fn a_command_times_out_when_the_database_never_answers() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@127.0.0.1,{}/db", silent.local_addr().unwrap());
    for arguments in [&["status"][..], &["refresh"], &["migrate"]] {
        let begun = std::time::Instant::now();
        treemap::run(treemap::command(arguments).env("DATABASE_URL", &url)).exits(1).prints(&["no answer within"]);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
