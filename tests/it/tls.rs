//! TLS on both sides: to Postgres, and to clients.

use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use crate::support::{
    cluster::{OwnCluster, Owner, cluster, output},
    database::Database,
    eventually,
    outage::refresh_and_wait,
    raw::Raw,
    server::{Client, Server, get},
    treemap,
};

/// A CA and the certificates that it signed, as files.
pub struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Owner::of_processes().give(folder.path());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, folder.path().display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// Signs a certificate for a host, or a user; writes `name.pem` and `name.key`.
    pub fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        fs::write(self.file(&format!("{name}.pem")), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        let file = self.file(&format!("{name}.key"));
        fs::write(&file, key.serialize_pem()).unwrap();
        Owner::of_processes().give(&file);
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A Postgres whose certificate is for `localhost`. The role `certified` can connect only with a client certificate.
fn postgres(authority: &Authority) -> OwnCluster {
    authority.sign("localhost");
    let file = |name: &str| authority.file(name).display().to_string();
    let own = OwnCluster::start(&[
        "ssl=on",
        &format!("ssl_cert_file={}", file("localhost.pem")),
        &format!("ssl_key_file={}", file("localhost.key")),
        &format!("ssl_ca_file={}", file("ca.pem")),
    ]);
    let hba = own.folder.join("data/pg_hba.conf");
    let rest = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("hostssl all certified all cert\nhost all certified all reject\n{rest}")).unwrap();
    own.psql("postgres", "CREATE ROLE certified LOGIN SUPERUSER");
    own.psql("postgres", "SELECT pg_reload_conf()");
    own
}

#[tokio::test]
async fn with_verify_full_every_connection_to_postgres_is_encrypted() {
    let authority = Authority::new();
    let own = postgres(&authority);
    let database = Database::with_sample_in(&own);
    let ca = authority.file("ca.pem");
    let url = database.url().replace("127.0.0.1", "localhost")
        + &format!("?sslmode=verify-full&sslrootcert={}", ca.display());
    let server = Server::refreshing(&url, &["--source-interval", "1s"]).await;
    server.wait_until_ready().await;
    server.wait_for_log("listening for refreshes").await;
    refresh_and_wait(&server, || database.refresh()).await;
    let open = "SELECT count(*) FILTER (WHERE NOT ssl), count(*) > 1 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE application_name = 'treemap'";
    assert_eq!(database.psql(open), "0|t");
    assert!(!server.log().contains(" WARN "), "{}", server.log());
}

#[test]
fn postgres_is_verified_as_sslmode_requires() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let own = postgres(&authority);
    let status = |host: &str, parameters: &str| {
        let url = own.url("postgres").replace("127.0.0.1", host) + "?" + parameters;
        treemap::run(treemap::command(&["status"]).env("DATABASE_URL", url)).exits(1)
    };
    // The connection works: the command then reports that the view is missing.
    let open = &["mv_treemap_data is missing"];
    let known = format!("sslrootcert={}", authority.file("ca.pem").display());
    let unknown = format!("sslrootcert={}", stranger.file("ca.pem").display());
    status("localhost", &format!("sslmode=verify-full&{known}")).prints(open);
    status("localhost", &known).prints(open);
    status("127.0.0.1", &format!("sslmode=verify-full&{known}")).prints(&["not valid for name", "sslrootcert=FILE"]);
    status("127.0.0.1", &format!("sslmode=verify-ca&{known}")).prints(open);
    status("127.0.0.1", &format!("sslmode=require&{known}")).prints(open);
    status("localhost", &format!("sslmode=verify-ca&{unknown}")).prints(&["UnknownIssuer", "sslrootcert=FILE"]);
    status("localhost", "sslmode=verify-full").prints(&["UnknownIssuer", "sslrootcert=FILE"]);
    status("127.0.0.1", "sslmode=require").prints(open).prints(&["WARN", "DATABASE_URL says sslmode=require"]);

    let certified = own.url_of("certified", "postgres") + "?sslmode=verify-ca&" + &known;
    treemap::run(treemap::command(&["status"]).env("DATABASE_URL", &certified)).exits(1).prints(&[
        "certificate",
        "Check the user",
        "sslcert",
    ]);
    authority.sign("certified");
    let file = |name: &str| authority.file(name).display().to_string();
    let with_ours = format!("{certified}&sslcert={}&sslkey={}", file("certified.pem"), file("certified.key"));
    treemap::run(treemap::command(&["status"]).env("DATABASE_URL", &with_ours)).exits(1).prints(open);
    let misfit = format!("{certified}&sslcert={}&sslkey={}", file("certified.pem"), file("localhost.key"));
    treemap::run(treemap::command(&["status"]).env("DATABASE_URL", &misfit))
        .exits(1)
        .prints(&["do not belong together"]);
}

#[test]
fn a_connection_that_requires_tls_fails_when_postgres_has_no_tls() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = cluster().url("postgres") + "?sslmode=" + mode;
        treemap::run(treemap::command(&["status"]).env("DATABASE_URL", url))
            .exits(1)
            .prints(&["server does not support TLS", "sslmode=disable"]);
    }
}

/// A channel to a server with a certificate of `authority` for `localhost`. `identity` names the client certificate.
async fn tls_channel(server: &Server, authority: &Authority, identity: Option<&str>) -> Result<Channel, Status> {
    let read = |name: &str| fs::read(authority.file(name)).unwrap();
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.pem"))).domain_name("localhost");
    if let Some(name) = identity {
        tls = tls.identity(Identity::from_pem(read(&format!("{name}.pem")), read(&format!("{name}.key"))));
    }
    let endpoint = Channel::from_shared(format!("https://{}", server.addr)).unwrap().tls_config(tls).unwrap();
    endpoint.connect().await.map_err(|error| Status::from_error(error.into()))
}

async fn answers(server: &Server, authority: &Authority, identity: Option<&str>) -> Result<(), Status> {
    let channel = tls_channel(server, authority, identity).await?;
    get(&mut Client::new(channel), "3m", 1, 0).await.map(drop)
}

#[tokio::test]
async fn the_server_accepts_only_tls_and_reloads_a_renewed_certificate() {
    let database = Database::with_sample();
    let (authority, clients) = (Authority::new(), Authority::new());
    authority.sign("localhost");
    let file = |authority: &Authority, name: &str| authority.file(name).display().to_string();
    let (cert, key) = (file(&authority, "localhost.pem"), file(&authority, "localhost.key"));
    let server = Server::start_with(&database.url(), &["--tls-cert", &cert, "--tls-key", &key]).await;
    eventually("the server answers", async || answers(&server, &authority, None).await.ok()).await;
    assert!(answers(&server, &clients, None).await.is_err(), "another CA");
    // A client without TLS gets no answer, and does not harm the server.
    let plain = Channel::from_shared(format!("http://{}", server.addr)).unwrap().connect_lazy();
    assert!(get(&mut Client::new(plain), "3m", 1, 0).await.is_err());

    // The certificate is renewed while a client is connected. It stays connected; new clients get the new certificate.
    let mut connected = Client::new(tls_channel(&server, &authority, None).await.unwrap());
    let renewed = Authority::new();
    renewed.sign("localhost");
    fs::write(&key, "half a key").unwrap();
    server.wait_for_log("keeping the old certificate: TREEMAP_TLS_").await;
    assert!(answers(&server, &authority, None).await.is_ok());
    fs::copy(renewed.file("localhost.pem"), &cert).unwrap();
    fs::copy(renewed.file("localhost.key"), &key).unwrap();
    server.wait_for_log("new connections use the new certificate").await;
    assert!(answers(&server, &renewed, None).await.is_ok());
    assert!(answers(&server, &authority, None).await.is_err());
    get(&mut connected, "3m", 1, 0).await.unwrap();
}

#[tokio::test]
async fn both_versions_of_http_are_offered_over_tls() {
    let database = Database::with_sample();
    let authority = Authority::new();
    authority.sign("localhost");
    let file = |name: &str| authority.file(name).display().to_string();
    let (cert, key) = (file("localhost.pem"), file("localhost.key"));
    let server = Server::start_with(&database.url(), &["--tls-cert", &cert, "--tls-key", &key]).await;
    eventually("the server answers", async || answers(&server, &authority, None).await.ok()).await;
    let port = server.addr.rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap");
    for (version, spoken) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let mut curl = std::process::Command::new("curl");
        curl.args([
            "-sS",
            "-m",
            "5",
            version,
            "--cacert",
            &file("ca.pem"),
            "--resolve",
            &format!("localhost:{port}:127.0.0.1"),
        ]);
        curl.args(["-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--json", "{}", &url]);
        assert_eq!(output(&mut curl), format!("{spoken} 200"));
    }
}

#[tokio::test]
async fn with_a_client_ca_only_clients_with_its_certificates_are_accepted() {
    let database = Database::with_sample();
    let authority = Authority::new();
    for name in ["localhost", "client"] {
        authority.sign(name);
    }
    let other = Authority::new();
    other.sign("client");
    let file = |name: &str| authority.file(name).display().to_string();
    let (cert, key, ca) = (file("localhost.pem"), file("localhost.key"), file("ca.pem"));
    let arguments = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
    let server = Server::start_with(&database.url(), &arguments).await;
    eventually("the server answers", async || answers(&server, &authority, Some("client")).await.ok()).await;
    assert!(answers(&server, &authority, None).await.is_err(), "no certificate");
    fs::copy(other.file("client.pem"), authority.file("stranger.pem")).unwrap();
    fs::copy(other.file("client.key"), authority.file("stranger.key")).unwrap();
    assert!(answers(&server, &authority, Some("stranger")).await.is_err(), "a certificate of another CA");
    // A client that does not start the handshake is closed.
    let mut mute = Raw::connect(&server.addr).await;
    tokio::time::timeout(std::time::Duration::from_secs(10), mute.read_to_end()).await.unwrap();
}

#[tokio::test]
async fn after_sighup_a_rotated_ca_is_trusted() {
    let authority = Authority::new();
    let own = postgres(&authority);
    let database = Database::with_sample_in(&own);
    let trusted = authority.file("trusted.pem");
    fs::copy(authority.file("ca.pem"), &trusted).unwrap();
    let url = database.url().replace("127.0.0.1", "localhost")
        + &format!("?sslmode=verify-full&sslrootcert={}", trusted.display());
    let server = Server::start_with(&url, &["--poll-interval", "100ms"]).await;
    server.wait_for_log("listening for refreshes").await;

    // Postgres has a certificate of another CA from now on.
    let next = Authority::new();
    next.sign("localhost");
    for name in ["localhost.pem", "localhost.key"] {
        fs::write(authority.file(name), fs::read(next.file(name)).unwrap()).unwrap();
    }
    own.psql("postgres", "SELECT pg_reload_conf()");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'treemap'";
    own.psql("postgres", end);
    server.wait_for_log("UnknownIssuer").await;
    fs::copy(next.file("ca.pem"), &trusted).unwrap();
    server.signal("HUP");
    server.wait_for_log("the connection string has changed; new connections use it").await;
    server.wait_for_log("the database answers again").await;
}
