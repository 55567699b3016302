//! All protocols on one port, under load, while the database dies and while a replica stops: no call fails in any of them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use industry_treemap::proto::shorts::v1alpha1::GetIndustryTreeMapRequest;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::support::{
    cluster::OwnCluster,
    database::Database,
    eventually,
    raw::{self, GET_TREEMAP},
    server::Server,
};

/// A client of one protocol, with its connections kept alive.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    Grpc,
    GrpcWeb,
    ConnectHttp1,
    ConnectHttp2,
    Get,
}
use Protocol::{ConnectHttp1, ConnectHttp2, Get, Grpc, GrpcWeb};

enum Connection {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Protocol {
    const ALL: [Self; 5] = [Grpc, GrpcWeb, ConnectHttp1, ConnectHttp2, Get];

    async fn connect(self, addr: &str) -> Option<Connection> {
        let stream = TcpStream::connect(addr).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let io = TokioIo::new(stream);
        if matches!(self, ConnectHttp1 | GrpcWeb | Get) {
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
            tokio::spawn(connection);
            return Some(Connection::Http1(sender));
        }
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.ok()?;
        tokio::spawn(connection);
        Some(Connection::Http2(sender))
    }

    fn request(self, addr: &str) -> Request<Full<Bytes>> {
        let message = raw::message(&GetIndustryTreeMapRequest { period: "3m".into(), limit: 10, view_mode: 0 });
        let (kind, body) = match self {
            Grpc => ("application/grpc", message),
            GrpcWeb => ("application/grpc-web+proto", message),
            _ => ("application/json", br#"{"period":"3m","limit":10}"#.to_vec()),
        };
        let query = "?connect=v1&encoding=json&message=%7B%22limit%22%3A10%7D";
        let path = if self == Get { format!("{GET_TREEMAP}{query}") } else { GET_TREEMAP.into() };
        let uri = if matches!(self, Grpc | ConnectHttp2) { format!("http://{addr}{path}") } else { path };
        let request = Request::builder().uri(uri).header("host", addr).header("te", "trailers");
        if self == Get {
            return request.body(Full::default()).unwrap();
        }
        request.method("POST").header("content-type", kind).body(Full::new(body.into())).unwrap()
    }

    /// Whether an answer is a treemap.
    async fn is_answered(self, response: http::Response<hyper::body::Incoming>) -> bool {
        let status = response.status();
        let Ok(body) = response.into_body().collect().await else { return false };
        let trailers = body.trailers().cloned().unwrap_or_default();
        let bytes = body.to_bytes();
        status == 200
            && bytes.len() > 500
            && match self {
                Grpc => trailers.get("grpc-status").is_some_and(|code| code == "0"),
                GrpcWeb => bytes.windows(14).any(|window| window == b"grpc-status: 0"),
                _ => serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(),
            }
    }
}

/// Clients of all protocols that call the replicas that are ready, in turn.
struct Load {
    ready: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(ready: Vec<String>) -> Self {
        let (ready, stop) = (Arc::new(Mutex::new(ready)), Arc::new(AtomicBool::new(false)));
        let client = |protocol| tokio::spawn(call_on(protocol, ready.clone(), stop.clone()));
        let clients = Protocol::ALL.into_iter().map(client).collect();
        Self { ready, stop, clients }
    }

    async fn assert_none_failed(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            assert!(client.await.unwrap() > 10);
        }
    }
}

async fn call_on(protocol: Protocol, ready: Arc<Mutex<Vec<String>>>, stop: Arc<AtomicBool>) -> usize {
    let mut connections: HashMap<String, Connection> = HashMap::new();
    let mut made = 0;
    while !stop.load(Ordering::Relaxed) {
        let addr = {
            let ready = ready.lock().unwrap();
            ready[made % ready.len()].clone()
        };
        let mut answered = false;
        // A connection that was kept may be closed as the request is sent: then it is sent again over a new one, as every client does.
        for kept in [connections.remove(&addr), None] {
            let is_new = kept.is_none();
            let mut connection = match kept {
                Some(kept) => kept,
                None => {
                    protocol.connect(&addr).await.unwrap_or_else(|| panic!("{protocol:?}: {addr} takes no connection"))
                }
            };
            let request = protocol.request(&addr);
            let sent = match &mut connection {
                Connection::Http1(sender) => {
                    if !is_new && sender.ready().await.is_err() {
                        continue;
                    }
                    timeout(Duration::from_secs(2), sender.send_request(request)).await
                }
                Connection::Http2(sender) => {
                    if !is_new && sender.ready().await.is_err() {
                        continue;
                    }
                    timeout(Duration::from_secs(2), sender.send_request(request)).await
                }
            };
            match sent.unwrap_or_else(|_| panic!("{protocol:?}: no answer in time")) {
                Ok(response) => {
                    let close = response.headers().get("connection").is_some_and(|value| value == "close");
                    answered = protocol.is_answered(response).await;
                    if !close {
                        connections.insert(addr.clone(), connection);
                    }
                    break;
                }
                Err(error) => assert!(!is_new, "{protocol:?}: {error}"),
            }
        }
        assert!(answered, "{protocol:?}: call {made} to {addr} failed");
        made += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_of_any_protocol_fails_while_postgres_dies() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let server = Server::ready(&database).await;
    let load = Load::start(vec![server.addr.clone()]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    own.kill();
    server.wait_for_log("serving the last model; retrying: ").await;
    own.start_again();
    server.wait_for_log("the database answers again").await;
    load.assert_none_failed().await;
    for protocol in ["grpc", "grpc_web", "connect"] {
        let metric = format!("treemap_calls_total{{protocol=\"{protocol}\",grpc_code=\"OK\"}}");
        assert!(server.metric(&metric).await > 10.0, "{protocol}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_of_any_protocol_fails_while_replicas_are_restarted() {
    let database = Database::with_sample();
    let start = async || {
        let server = Server::start_with(&database.url(), &["--drain-delay", "1s"]).await;
        server.wait_until_ready().await;
        server
    };
    let mut replicas = vec![start().await, start().await];
    let addresses = |replicas: &[Server]| replicas.iter().map(|server| server.addr.clone()).collect::<Vec<_>>();
    let load = Load::start(addresses(&replicas));
    for _ in 0..2 {
        let mut old = replicas.remove(0);
        old.signal("TERM");
        // As a balancer that probes the port itself.
        eventually("it is not ready", async || {
            let answer = crate::support::web::Web::new("GET", "/health").http1(&old.addr).await;
            (answer.status == 503).then_some(())
        })
        .await;
        *load.ready.lock().unwrap() = addresses(&replicas);
        assert!(old.wait_for_exit().await.success());
        assert!(!old.log().contains("cut connections"), "{}", old.log());
        replicas.push(start().await);
        *load.ready.lock().unwrap() = addresses(&replicas);
    }
    load.assert_none_failed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_of_any_protocol_fails_while_three_replicas_are_restarted_and_postgres_is_down() {
    let own = OwnCluster::start(&[]);
    let database = Database::with_sample_in(&own);
    let folder = tempfile::tempdir().unwrap();
    let start = async |replica: usize| {
        let file = folder.path().join(replica.to_string()).display().to_string();
        let server = Server::start_with(&database.url(), &["--drain-delay", "1s", "--model-file", &file]).await;
        server.wait_until_ready().await;
        eventually("its model file is there", async || std::path::Path::new(&file).exists().then_some(())).await;
        server
    };
    let mut replicas = vec![start(0).await, start(1).await, start(2).await];
    let addresses = |replicas: &[Server]| replicas.iter().map(|server| server.addr.clone()).collect::<Vec<_>>();
    let load = Load::start(addresses(&replicas));
    own.kill();
    for replica in 0..3 {
        let mut old = replicas.remove(0);
        *load.ready.lock().unwrap() = addresses(&replicas);
        old.signal("TERM");
        assert!(old.wait_for_exit().await.success());
        replicas.push(start(replica).await);
        assert_eq!(replicas[2].metric("treemap_model_of_file").await, 1.0);
        *load.ready.lock().unwrap() = addresses(&replicas);
    }
    load.assert_none_failed().await;
    own.start_again();
    for server in &replicas {
        eventually("the database's model serves", async || {
            (server.metric("treemap_model_of_file").await == 0.0).then_some(())
        })
        .await;
    }
}
