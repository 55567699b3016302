//! What becomes of the answers while something is wrong with Postgres: nothing. Each test prints its row of the table in
//! docs/connecting.md: cargo test --test it outages -- --nocapture --test-threads=1

use std::time::Duration;

use crate::support::{
    cluster::{OwnCluster, cluster},
    database::Database,
    eventually,
    outage::{Calls, Fault, refreshes_arrive},
    pooler::Pooler,
    proxy::{Proxy, Way},
    server::Server,
    treemap,
};

/// A server with the settings of production, but that it looks for changes of the source more often.
async fn serve(url: &str, arguments: &[&str]) -> Server {
    let often = ["--source-interval", "1s", "--source-quiet", "500ms"];
    let server = Server::refreshing(url, &[&often, arguments].concat()).await;
    server.becomes_ready().await;
    server.logged("listening for refreshes").await;
    server
}

const DATABASE: [&str; 2] = ["serving the last model; retrying: ", "the database answers again"];

async fn listens_again(server: &Server) {
    eventually("it listens again", async || {
        (server.log().matches("listening for refreshes").count() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_postgres_that_is_stopped_and_started_is_not_missed() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let server = serve(&database.url(), &[]).await;
    let fault = Fault { name: "Postgres stopped, then started", told: DATABASE, server: &server };
    fault.suffer(async { own.stop("fast") }, async { own.start_again() }).await;
    listens_again(&server).await;
    refreshes_arrive(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_postgres_that_is_killed_and_recovers_is_not_missed() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let server = serve(&database.url(), &[]).await;
    let fault = Fault { name: "Postgres killed, then started", told: DATABASE, server: &server };
    fault.suffer(async { own.kill() }, async { own.start_again() }).await;
    listens_again(&server).await;
    refreshes_arrive(&server, || database.refresh()).await;
}

#[tokio::test]
async fn connections_that_are_terminated_are_made_anew_and_nobody_is_woken() {
    let database = Database::with_sample();
    let server = serve(&database.url(), &[]).await;
    let calls = Calls::start(&server.client().await);
    database.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    let begun = std::time::Instant::now();
    listens_again(&server).await;
    let recovered = begun.elapsed().as_secs_f64();
    refreshes_arrive(&server, || database.refresh()).await;
    let made = calls.none_failed().await;
    assert!(!server.log().contains(" WARN ") && !server.log().contains(" ERROR "), "{}", server.log());
    println!("| all connections terminated | none needed | 0 of {made} | {recovered:.1} |");
}

#[tokio::test]
async fn a_network_that_goes_silent_is_noticed() {
    let database = Database::with_sample();
    let proxy = Proxy::to(cluster().port).await;
    let server = serve(&database.url_at(proxy.port), &[]).await;
    let fault = Fault { name: "black hole: accepts, and stays silent", told: DATABASE, server: &server };
    fault.suffer(async { proxy.go(Way::Silent) }, async { proxy.go(Way::Open) }).await;
    listens_again(&server).await;
    refreshes_arrive(&server, || database.refresh()).await;
}

#[tokio::test]
async fn connections_that_are_reset_are_noticed() {
    let database = Database::with_sample();
    let proxy = Proxy::to(cluster().port).await;
    let server = serve(&database.url_at(proxy.port), &[]).await;
    let fault = Fault { name: "every connection reset", told: DATABASE, server: &server };
    fault.suffer(async { proxy.go(Way::Reset) }, async { proxy.go(Way::Open) }).await;
    refreshes_arrive(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_network_that_is_slow_is_no_outage() {
    let database = Database::with_sample();
    let proxy = Proxy::to(cluster().port).await;
    proxy.go(Way::Slow(Duration::from_millis(100)));
    let server = serve(&database.url_at(proxy.port), &[]).await;
    let calls = Calls::start(&server.client().await);
    refreshes_arrive(&server, || database.refresh()).await;
    calls.none_failed().await;
    assert!(!server.log().contains(" WARN ") && !server.log().contains(" ERROR "), "{}", server.log());
}

#[tokio::test]
async fn a_listener_that_is_half_open_is_found_out_and_made_up_for_by_the_poll() {
    let database = Database::with_sample();
    let proxy = Proxy::to(cluster().port).await;
    let listening = database.url_at(proxy.port);
    let server = serve(&database.url(), &["--listen-database-url", &listening, "--poll-interval", "500ms"]).await;
    let told = ["LISTEN does not work; polling for refreshes: ", "listening for refreshes down_seconds"];
    let fault = Fault { name: "the listener's connection goes silent", told, server: &server };
    let meanwhile = async {
        refreshes_arrive(&server, || database.refresh()).await;
        proxy.go(Way::Open);
    };
    fault.suffer(async { proxy.go(Way::Silent) }, meanwhile).await;
    refreshes_arrive(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_pooler_that_is_killed_and_started_is_not_missed() {
    let database = Database::with_sample();
    let pooler = Pooler::start(cluster().port);
    let listening = database.url();
    let server = serve(&pooler.url(&database), &["--listen-database-url", &listening]).await;
    let fault = Fault { name: "the pooler killed, then started", told: DATABASE, server: &server };
    fault.suffer(async { pooler.kill() }, async { pooler.start_again() }).await;
    refreshes_arrive(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_postgres_without_a_connection_to_spare_is_waited_for() {
    let own = OwnCluster::start(&["max_connections=12", "superuser_reserved_connections=0", "max_wal_senders=0"]);
    let database = Database::with_sample_in(&own);
    let server = serve(&database.url(), &[]).await;
    let held = std::sync::Mutex::new(Vec::new());
    let take = async {
        let first = database.connect().await;
        // Ours are terminated until all places are others': we may come back in between.
        while let Ok((client, connection)) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls).await {
            tokio::spawn(connection);
            held.lock().unwrap().push(client);
            let ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'treemap'";
            first.batch_execute(ours).await.unwrap();
        }
        held.lock().unwrap().push(first);
    };
    let fault = Fault { name: "all connections of Postgres taken", told: DATABASE, server: &server };
    fault.suffer(take, async { held.lock().unwrap().clear() }).await;
    refreshes_arrive(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_postgres_that_takes_no_connections_while_it_recovers_is_waited_for() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let server = serve(&database.url(), &[]).await;
    let recovering = own.folder.join("data/standby.signal");
    let fault = Fault { name: "Postgres in recovery, takes no connections", told: DATABASE, server: &server };
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
    fault.suffer(recover, end).await;
    refreshes_arrive(&server, || database.refresh()).await;
}

#[tokio::test]
async fn a_disk_that_is_full_is_told_of_and_the_view_refreshed_once_there_is_room() {
    let own = OwnCluster::start(&[]);
    own.stop("fast");
    let Some(small) = own.start_with_a_small_disk() else {
        return eprintln!("only root can make a disk that is full; not tested");
    };
    let database = Database::with_sample_in(&own);
    own.psql(&database.name, &format!("CREATE TABLESPACE small LOCATION '{}'", small.display()));
    // Where a refresh puts the new rows before it compares them with the old.
    database.psql(&format!("ALTER DATABASE {} SET temp_tablespaces = small", database.name));
    let schedule = ["--refresh-schedule", "* * * * * *", "--source-interval", "off"];
    let server = Server::refreshing(&database.url(), &schedule).await;
    server.becomes_ready().await;
    server.logged("refreshed the view for the tick").await;
    let in_the_server = |command: &str| {
        database.psql(&format!("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; cd {} && {command}'", small.display()));
    };
    let told = ["cannot keep the view fresh; retrying: ", "refreshes work again"];
    let fault = Fault { name: "the disk of Postgres full", told, server: &server };
    let fill = async { in_the_server("dd if=/dev/zero of=filler bs=8k status=none || true") };
    fault.suffer(fill, async { in_the_server("rm filler") }).await;
    let why = server.logged(told[0]).await;
    assert!(why.contains("SQLSTATE 53100") && why.contains("Free space"), "{why}");
}

#[test]
fn a_command_gives_up_on_a_database_that_stays_silent() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@127.0.0.1,{}/db", silent.local_addr().unwrap());
    for arguments in [&["status"][..], &["refresh"], &["migrate"]] {
        let begun = std::time::Instant::now();
        treemap::run(treemap::command(arguments).env("DATABASE_URL", &url)).exits(1).says(&["no answer within"]);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
