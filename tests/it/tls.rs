//! TLS between us and Postgres.

use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::support::{
    cluster::{OwnCluster, Owner, cluster},
    database::Database,
    outage::refreshes_arrive,
    server::Server,
    treemap,
};

/// A CA and what it signed, as files.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
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
    fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        fs::write(self.file(&format!("{name}.pem")), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        let file = self.file(&format!("{name}.key"));
        fs::write(&file, key.serialize_pem()).unwrap();
        Owner::of_processes().give(&file);
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A Postgres whose certificate is for `localhost`, and which lets the role `certified` in by its certificate only.
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
async fn every_connection_is_private_when_it_is_to_be_and_postgres_is_who_it_says() {
    let authority = Authority::new();
    let own = postgres(&authority);
    let database = Database::with_sample_in(&own);
    let ca = authority.file("ca.pem");
    let url = database.url().replace("127.0.0.1", "localhost")
        + &format!("?sslmode=verify-full&sslrootcert={}", ca.display());
    let server = Server::refreshing(&url, &["--source-interval", "1s"]).await;
    server.becomes_ready().await;
    server.logged("listening for refreshes").await;
    refreshes_arrive(&server, || database.refresh()).await;
    let open = "SELECT count(*) FILTER (WHERE NOT ssl), count(*) > 1 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE application_name = 'treemap'";
    assert_eq!(database.psql(open), "0|t");
    assert!(!server.log().contains(" WARN "), "{}", server.log());
}

#[test]
fn who_answers_is_verified_as_far_as_it_is_asked_for() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let own = postgres(&authority);
    let status = |host: &str, parameters: &str| {
        let url = own.url("postgres").replace("127.0.0.1", host) + "?" + parameters;
        treemap::run(treemap::command(&["status"]).env("DATABASE_URL", url)).exits(1)
    };
    // The way to Postgres is open: the view is missing there, and that is what it says.
    let open = &["mv_treemap_data is missing"];
    let known = format!("sslrootcert={}", authority.file("ca.pem").display());
    let unknown = format!("sslrootcert={}", stranger.file("ca.pem").display());
    status("localhost", &format!("sslmode=verify-full&{known}")).says(open);
    status("localhost", &known).says(open);
    status("127.0.0.1", &format!("sslmode=verify-full&{known}")).says(&["not valid for name", "sslrootcert=FILE"]);
    status("127.0.0.1", &format!("sslmode=verify-ca&{known}")).says(open);
    status("127.0.0.1", &format!("sslmode=require&{known}")).says(open);
    status("localhost", &format!("sslmode=verify-ca&{unknown}")).says(&["UnknownIssuer", "sslrootcert=FILE"]);
    status("localhost", "sslmode=verify-full").says(&["UnknownIssuer", "sslrootcert=FILE"]);
    status("127.0.0.1", "sslmode=require").says(open).says(&["WARN", "DATABASE_URL says sslmode=require"]);

    let certified = own.url_of("certified", "postgres") + "?sslmode=verify-ca&" + &known;
    treemap::run(treemap::command(&["status"]).env("DATABASE_URL", &certified))
        .exits(1)
        .says(&["certificate", "Check user"]);
    authority.sign("certified");
    let file = |name: &str| authority.file(name).display().to_string();
    let with_ours = format!("{certified}&sslcert={}&sslkey={}", file("certified.pem"), file("certified.key"));
    treemap::run(treemap::command(&["status"]).env("DATABASE_URL", &with_ours)).exits(1).says(open);
    let misfit = format!("{certified}&sslcert={}&sslkey={}", file("certified.pem"), file("localhost.key"));
    treemap::run(treemap::command(&["status"]).env("DATABASE_URL", &misfit)).exits(1).says(&["do not fit"]);
}

#[test]
fn nothing_is_sent_in_the_clear_to_a_postgres_without_tls() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = cluster().url("postgres") + "?sslmode=" + mode;
        treemap::run(treemap::command(&["status"]).env("DATABASE_URL", url))
            .exits(1)
            .says(&["server does not support TLS", "sslmode=disable"]);
    }
}
