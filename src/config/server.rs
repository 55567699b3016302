//! How `treemap serve` serves its clients: addresses, TLS, limits, stopping.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{Problems, duration, unless_off};
use crate::tls::listener::{Files, Tls};

/// The settings of `treemap serve` that concern its clients.
#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    #[command(flatten)]
    listen: ListenAddress,
    #[command(flatten)]
    admin: AdminAddress,
    /// The server's certificate (PEM, with those between it and its CA); read again when it changes
    #[arg(long, env = "TREEMAP_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, env = "TREEMAP_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Admit only clients with a certificate of these CAs (PEM)
    #[arg(long, env = "TREEMAP_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Connections at a time; those beyond get `RESOURCE_EXHAUSTED`, and are closed
    #[arg(long, env = "TREEMAP_MAX_CONNECTIONS", default_value = "1000", value_name = "NUMBER")]
    max_connections: String,
    /// Calls of the treemap at a time; those beyond get `RESOURCE_EXHAUSTED`
    #[arg(long, env = "TREEMAP_MAX_CALLS", default_value = "1000", value_name = "NUMBER")]
    max_calls: String,
    /// How long a connection lives, give or take a tenth, so that clients spread over new replicas; off: for ever
    #[arg(long, env = "TREEMAP_MAX_CONNECTION_AGE", default_value = "30m", value_name = "DURATION")]
    max_connection_age: String,
    /// How long to go on serving after SIGTERM, no longer ready, until balancers have noticed
    #[arg(long, env = "TREEMAP_DRAIN_DELAY", default_value = "5s", value_name = "DURATION")]
    drain_delay: String,
    /// How long connections may take to end after that, before they are cut
    #[arg(long, env = "TREEMAP_DRAIN_TIMEOUT", default_value = "20s", value_name = "DURATION")]
    drain_timeout: String,
}

/// Where the treemap is served: shared by `serve` and `healthcheck`.
#[derive(Debug, clap::Args)]
pub struct ListenAddress {
    /// Address and port to serve gRPC on; port 0 takes a free one and logs it
    #[arg(long, env = "TREEMAP_LISTEN_ADDR", default_value = "127.0.0.1:50051", value_name = "ADDRESS")]
    listen_addr: String,
}

/// Where ops look: shared by `serve` and `healthcheck`.
#[derive(Debug, clap::Args)]
pub struct AdminAddress {
    /// Address and port of /livez, /readyz and /metrics; off: none
    #[arg(long, env = "TREEMAP_ADMIN_ADDR", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    admin_addr: String,
}

/// Checked settings of the server towards its clients.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where the treemap is served.
    pub listen_addr: SocketAddr,
    /// Where ops look; `None` when switched off.
    pub admin_addr: Option<SocketAddr>,
    /// Certificates; `None` without TLS.
    pub tls: Option<Tls>,
    /// Connections and their ends.
    pub limits: Limits,
    /// Calls of the treemap at a time.
    pub calls: usize,
    /// How long to serve on after the signal to stop.
    pub drain_delay: Duration,
}

/// How much a server takes on, and how it ends.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// How long a connection lives, give or take a tenth; `None` for ever.
    pub connection_age: Option<Duration>,
    /// How long connections may take to end after the signal to stop.
    pub drain: Duration,
}

impl ListenAddress {
    /// Fails with the setting and what it should be.
    pub fn read(&self) -> Result<SocketAddr, String> {
        address("TREEMAP_LISTEN_ADDR", &self.listen_addr, "127.0.0.1:50051")
    }
}

impl AdminAddress {
    /// `None` when switched off. Fails with the setting and what it should be.
    pub fn read(&self) -> Result<Option<SocketAddr>, String> {
        unless_off(&self.admin_addr)
            .map(|text| address("TREEMAP_ADMIN_ADDR", text, "127.0.0.1:8080, or off"))
            .transpose()
    }
}

impl ServerArgs {
    pub(super) fn read(&self, problems: &mut Problems) -> Option<ServerConfig> {
        let listen_addr = problems.note(self.listen.read());
        let admin_addr = problems.note(self.admin.read());
        let tls = problems.note(self.tls());
        let connections = problems.note(number("TREEMAP_MAX_CONNECTIONS", &self.max_connections));
        let calls = problems.note(number("TREEMAP_MAX_CALLS", &self.max_calls));
        let connection_age =
            unless_off(&self.max_connection_age).map(|text| duration("TREEMAP_MAX_CONNECTION_AGE", text)).transpose();
        let connection_age = problems.note(connection_age);
        let drain_delay = match self.drain_delay.trim() {
            "0" | "0s" => Some(Duration::ZERO),
            text => problems.note(duration("TREEMAP_DRAIN_DELAY", text)),
        };
        let drain = problems.note(duration("TREEMAP_DRAIN_TIMEOUT", &self.drain_timeout));
        Some(ServerConfig {
            listen_addr: listen_addr?,
            admin_addr: admin_addr?,
            tls: tls?,
            limits: Limits { connections: connections?, connection_age: connection_age?, drain: drain? },
            calls: calls?,
            drain_delay: drain_delay?,
        })
    }

    fn tls(&self) -> Result<Option<Tls>, String> {
        let needs = |set, missing| Err(format!("{missing} is not set; {set} needs it"));
        match (&self.tls_cert, &self.tls_key, &self.tls_client_ca) {
            (Some(certificate), Some(key), client_ca) => {
                Tls::read(Files { certificate: certificate.clone(), key: key.clone(), client_ca: client_ca.clone() })
                    .map(Some)
            }
            (None, None, None) => Ok(None),
            (Some(_), None, _) => needs("TREEMAP_TLS_CERT", "TREEMAP_TLS_KEY"),
            (None, Some(_), _) => needs("TREEMAP_TLS_KEY", "TREEMAP_TLS_CERT"),
            (None, None, Some(_)) => {
                Err("TREEMAP_TLS_CERT and TREEMAP_TLS_KEY are not set; TREEMAP_TLS_CLIENT_CA needs them".into())
            }
        }
    }
}

/// An address and a port; IPv6 in brackets.
fn address(setting: &str, text: &str, example: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| format!("{setting} is {text:?}; expected an address and a port, as {example}"))
}

fn number(setting: &str, text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err(format!("{setting} is {text:?}; expected a number from 1 to 1000000")),
    }
}
