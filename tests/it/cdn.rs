//! A cache in front, as docs/web.md sets nginx up: what it asks a replica for, and what it answers without one.

use std::{
    fs,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::support::{
    cluster::{Owner, free_port},
    database::Database,
    docs, eventually,
    outage::refresh_and_wait,
    server::Server,
    web::{Answer, Web},
};

const ORIGIN: &str = "https://shorted.com.au";

/// The GET of a browser at an origin.
fn browser(origin: &str) -> Web {
    let get = Web::get("connect=v1&encoding=json&message=%7B%22period%22%3A%223m%22%7D");
    get.header("origin", origin).header("accept-encoding", "gzip")
}

/// nginx with the configuration of the page.
struct Nginx {
    process: Child,
    addr: String,
    _folder: TempDir,
}

impl Nginx {
    async fn start(server: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Owner::of_processes().give(folder.path());
        let path = folder.path().display();
        let addr = format!("127.0.0.1:{}", free_port());
        let http = docs::block("web.md", "proxy_cache_path")
            .replace("/var/cache/nginx", &path.to_string())
            .replace("127.0.0.1:50051", server)
            .replace("listen 8000", &format!("listen {addr}"));
        // Everything else that nginx writes has its place in the folder.
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {path}/{kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off;\npid {path}/pid;\nerror_log {path}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{http}}}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let mut nginx = Owner::of_processes().run("/usr/sbin/nginx");
        nginx.arg("-e").arg(folder.path().join("error.log")).arg("-c").arg(file).stderr(Stdio::null());
        let nginx = Self { process: nginx.spawn().expect("make test installs nginx"), addr, _folder: folder };
        eventually("nginx listens", async || std::net::TcpStream::connect(&nginx.addr).ok().map(drop)).await;
        nginx
    }

    async fn get(&self, origin: &str) -> Answer {
        let answer = browser(origin).http1(&self.addr).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), if origin == ORIGIN { ORIGIN } else { "" });
        answer
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it.
        let _ = std::process::Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// How many calls the server has answered.
async fn calls(server: &Server) -> f64 {
    server.metric("treemap_calls_total{protocol=\"connect\",grpc_code=\"OK\"}").await
}

#[tokio::test]
async fn a_cache_in_front_asks_once_per_variant_and_age_and_answers_while_no_replica_does() {
    let database = Database::with_sample();
    let arguments = ["--cache-max-age", "2s", "--cors-origins", ORIGIN];
    let server = Server::start_with(&database.url(), &arguments).await;
    server.wait_until_ready().await;
    let nginx = Nginx::start(&server.addr).await;
    let begun = Instant::now();
    let first = nginx.get(ORIGIN).await;
    for _ in 0..50 {
        let again = nginx.get(ORIGIN).await;
        assert_eq!(
            (&again.body, again.header("etag"), again.header("content-encoding")),
            (&first.body, first.header("etag"), "gzip")
        );
        nginx.get("https://another.test").await;
    }
    // Two variants: for the origin that may call, and for all others; each once, and again after two seconds.
    let (asked, took) = (calls(&server).await, begun.elapsed().as_secs_f64());
    assert!((2.0..=2.0 * (2.0 + took / 2.0)).contains(&asked), "{asked} calls for 101 requests in {took} s");
    // A browser's own copy is renewed by the cache.
    let known = browser(ORIGIN).header("if-none-match", first.header("etag"));
    assert_eq!(known.http1(&nginx.addr).await.status, 304);
    // A call by POST is not kept.
    let asked = calls(&server).await;
    for _ in 0..3 {
        assert_eq!(Web::json("{}").http1(&nginx.addr).await.status, 200);
    }
    assert!(calls(&server).await >= asked + 3.0);
    // A new version is there once the old one is too old, and was shown once more while the cache has asked for it.
    database.psql(r#"UPDATE "company-metadata" SET industry = 'Elsewhere' WHERE stock_code = 'AAA'"#);
    refresh_and_wait(&server, || database.refresh()).await;
    eventually("the cache has the new version", async || {
        (nginx.get(ORIGIN).await.header("etag") != first.header("etag")).then_some(())
    })
    .await;
    let newest = nginx.get(ORIGIN).await;
    drop(server);
    // Too old by now, and nobody to ask.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for _ in 0..5 {
        assert_eq!(nginx.get(ORIGIN).await.header("etag"), newest.header("etag"));
    }
}
