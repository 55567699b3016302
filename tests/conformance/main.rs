//! The Connect conformance suite against our protocols: `make conformance`. The suite's runner starts this program as a server, once for
//! each protocol, version of HTTP and TLS.
//!
//! `TREEMAP_CONFORMANCE` names the runner, `TREEMAP_CONFORMANCE_PROTO` the folder of the suite's .proto files. Without them nothing is run.

mod service;

use std::{
    env,
    io::{self, Read, Write},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};

use industry_treemap::protocols::{
    Body, Counts, Place, Service, Settings, cache_control, discard_in_time, serve, serve_http,
};
use prost_reflect::{DescriptorPool, DynamicMessage, prost::Message as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use self::service::{Conformance, bytes, bytes_value, number};

const RUNNER: &str = "TREEMAP_CONFORMANCE";
const PROTO: &str = "TREEMAP_CONFORMANCE_PROTO";
/// What the suite may ask of us.
const FEATURES: &str = include_str!("features.yaml");
/// How many cases of the suite these features select.
const CASES: usize = 2636;

fn main() -> ExitCode {
    let (Some(runner), Some(proto)) = (env::var_os(RUNNER), env::var_os(PROTO)) else {
        println!("the conformance suite is not at hand: make conformance");
        return ExitCode::SUCCESS;
    };
    if env::args().nth(1).as_deref() != Some("serve") {
        return run_suite(Command::new(runner));
    }
    let pool = protox::compile(
        ["connectrpc/conformance/v1/service.proto", "connectrpc/conformance/v1/server_compat.proto"],
        [proto],
    );
    let pool = DescriptorPool::from_file_descriptor_set(pool.unwrap()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(serve_suite(pool))
}

fn run_suite(mut runner: Command) -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let features = folder.path().join("features.yaml");
    std::fs::write(&features, FEATURES).unwrap();
    runner.args(["--mode", "server", "--conf"]).arg(features);
    let chosen: Vec<_> = env::args()
        .skip(1)
        .filter(|argument| argument.starts_with("--run") || argument.starts_with("--trace"))
        .collect();
    runner.args(&chosen).arg("--").arg(env::current_exe().unwrap()).arg("serve");
    let ended = runner.stdout(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&ended.stdout);
    print!("{printed}");
    // A line that is lost from the features would leave out cases, and none would fail.
    let complete = !chosen.is_empty() || printed.contains(&format!("Total cases: {CASES}\n{CASES} passed, 0 failed\n"));
    if ended.status.success() && complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads what is asked for from standard input, says where the server is on standard output, and serves until it is killed.
async fn serve_suite(pool: DescriptorPool) -> ExitCode {
    let mut length = [0; 4];
    io::stdin().read_exact(&mut length).unwrap();
    let mut request = vec![0; u32::from_be_bytes(length) as usize];
    io::stdin().read_exact(&mut request).unwrap();
    let message = |name: &str| pool.get_message_by_name(&format!("connectrpc.conformance.v1.{name}")).unwrap();
    let request = DynamicMessage::decode(message("ServerCompatRequest"), &request[..]).unwrap();
    let creds = request.get_field_by_name("server_creds").unwrap().as_message().cloned();
    let creds = creds.filter(|_| request.get_field_by_name("use_tls").unwrap().as_bool().unwrap());
    let limit = usize::try_from(number(&request, "message_receive_limit")).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut response = DynamicMessage::new(message("ServerCompatResponse"));
    response.set_field_by_name("host", prost_reflect::Value::String("127.0.0.1".into()));
    response.set_field_by_name("port", prost_reflect::Value::U32(listener.local_addr().unwrap().port().into()));
    let tls = creds.map(|creds| {
        response.set_field_by_name("pem_cert", bytes_value(bytes(&creds, "cert")));
        acceptor(&bytes(&creds, "cert"), &bytes(&creds, "key"))
    });
    let response = response.encode_to_vec();
    let mut out = io::stdout();
    out.write_all(&u32::try_from(response.len()).unwrap().to_be_bytes()).unwrap();
    out.write_all(&response).unwrap();
    out.flush().unwrap();

    let settings =
        Settings { request_limit: if limit == 0 { 1 << 24 } else { limit }, cache_control: cache_control(None) };
    let (service, settings) = (Conformance::new(pool), Arc::new(settings));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (service, settings, tls) = (service.clone(), settings.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve_connection(service, settings, stream).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve_connection(service, settings, stream).await,
                    Err(error) => eprintln!("no TLS: {error}"),
                },
            }
        });
    }
}

async fn serve_connection<I>(service: Conformance, settings: Arc<Settings>, stream: I)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let counts = Arc::<Counts>::default();
    serve_http(stream, move |mut request| {
        let (service, settings, counts) = (service.clone(), settings.clone(), counts.clone());
        async move {
            let Some(method) = service.method(request.uri().path()) else {
                // As the server does it: a client that is still sending would see a broken pipe in place of the refusal.
                discard_in_time(request.body_mut()).await;
                let mut response = http::Response::new(Body::empty());
                *response.status_mut() = http::StatusCode::NOT_FOUND;
                return response;
            };
            serve(&service, &settings, method, &mut request, &counts, || Ok(Place::default())).await.response
        }
    })
    .await;
}

fn acceptor(cert: &[u8], key: &[u8]) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
