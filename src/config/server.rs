//! How `treemap serve` serves its clients: addresses, TLS, limits, stopping.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use super::{Problems, duration, origins::Origins, unless_off};
use crate::tls::listener::{Files, Tls};

/// The settings of `treemap serve` that concern its clients.
#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    #[command(flatten)]
    listen: ListenAddress,
    #[command(flatten)]
    admin: AdminAddress,
    /// The server's certificate (PEM, with its intermediate certificates); reloaded when it changes
    #[arg(long, env = "TREEMAP_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, env = "TREEMAP_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Accept only clients with a certificate from one of these CAs (PEM)
    #[arg(long, env = "TREEMAP_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Maximum number of connections; further ones get `RESOURCE_EXHAUSTED` and are closed
    #[arg(long, env = "TREEMAP_MAX_CONNECTIONS", default_value = "1000", value_name = "NUMBER")]
    max_connections: String,
    /// Maximum number of connections from one address, or their share of all; it has the same share of calls and streams; off where a proxy
    /// stands in front
    #[arg(long, env = "TREEMAP_MAX_CONNECTIONS_PER_CLIENT", default_value = "25%", value_name = "NUMBER")]
    max_connections_per_client: String,
    /// Maximum number of treemap calls in flight; further ones get `RESOURCE_EXHAUSTED`
    #[arg(long, env = "TREEMAP_MAX_CALLS", default_value = "1000", value_name = "NUMBER")]
    max_calls: String,
    /// Maximum number of open `WatchTreemap` streams; further ones get `RESOURCE_EXHAUSTED`
    #[arg(long, env = "TREEMAP_MAX_WATCHERS", default_value = "10000", value_name = "NUMBER")]
    max_watchers: String,
    /// How long a `WatchTreemap` stream is silent at most, before a heartbeat
    #[arg(long, env = "TREEMAP_WATCH_HEARTBEAT", default_value = "20s", value_name = "DURATION")]
    watch_heartbeat: String,
    /// Serve the page at /, /treemap.svg and /treemap.csv; off: only calls
    #[arg(long, env = "TREEMAP_PAGE", default_value = "on", value_name = "on|off")]
    page: String,
    /// Origins whose browsers may call, with commas: `https://example.com`, `https://*.example.com`, or `*`
    #[arg(long, env = "TREEMAP_CORS_ORIGINS", default_value = "", hide_default_value = true, value_name = "ORIGINS")]
    cors_origins: String,
    /// How long a browser or a CDN may keep an answer to GET; off: not at all
    #[arg(long, env = "TREEMAP_CACHE_MAX_AGE", default_value = "60s", value_name = "DURATION")]
    cache_max_age: String,
    /// Maximum age of a connection, +/- 10 %, so that clients move to new replicas; off: no limit
    #[arg(long, env = "TREEMAP_MAX_CONNECTION_AGE", default_value = "30m", value_name = "DURATION")]
    max_connection_age: String,
    /// How long to keep serving after SIGTERM while /readyz fails, so that load balancers notice
    #[arg(long, env = "TREEMAP_DRAIN_DELAY", default_value = "5s", value_name = "DURATION")]
    drain_delay: String,
    /// How long connections may then take to end, before they are cut
    #[arg(long, env = "TREEMAP_DRAIN_TIMEOUT", default_value = "20s", value_name = "DURATION")]
    drain_timeout: String,
}

/// The address of the gRPC port: shared by `serve` and `healthcheck`.
#[derive(Debug, clap::Args)]
pub struct ListenAddress {
    /// Address and port for gRPC, gRPC-Web and Connect; port 0 picks a free port and logs it [default: all addresses at `PORT` if that
    /// is set, as container platforms do, and 127.0.0.1:50051 otherwise]
    #[arg(long, env = "TREEMAP_LISTEN_ADDR", value_name = "ADDRESS")]
    listen_addr: Option<String>,
}

/// The address of the admin port: shared by `serve` and `healthcheck`.
#[derive(Debug, clap::Args)]
pub struct AdminAddress {
    /// Address and port of the admin endpoints /livez, /readyz and /metrics; off: none. Where `PORT` is the same port, the next one
    #[arg(long, env = "TREEMAP_ADMIN_ADDR", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    admin_addr: String,
}

/// Checked settings of the server towards its clients.
#[derive(Debug)]
pub struct ServerConfig {
    /// The address of the gRPC port.
    pub listen_addr: SocketAddr,
    /// The address of the admin port; `None` when switched off.
    pub admin_addr: Option<SocketAddr>,
    /// Certificates; `None` without TLS.
    pub tls: Option<Tls>,
    /// Limits on connections.
    pub limits: Limits,
    /// What one address may have of the connections; `None` for no limit.
    per_client: Option<PerClient>,
    /// Maximum numbers of treemap calls.
    pub calls: CallLimits,
    /// How long a stream of treemaps is silent at most.
    pub watch_heartbeat: Duration,
    /// Whether page and pictures are served.
    pub page: bool,
    /// The origins whose browsers may call.
    pub origins: Origins,
    /// How long an answer to GET may be kept; `None` not at all.
    pub cache_max_age: Option<Duration>,
    /// How long to keep serving after the stop signal.
    pub drain_delay: Duration,
}

/// What one address may have of the connections: so many, or so many of a hundred.
#[derive(Debug, Clone, Copy)]
enum PerClient {
    Number(usize),
    Percent(usize),
}

impl ServerConfig {
    /// Serves at most so many connections. The share of one address is a share of these.
    pub fn limit_connections(&mut self, connections: usize) {
        let per_client = self.per_client.map(|per_client| match per_client {
            PerClient::Number(number) => number,
            PerClient::Percent(percent) => (connections * percent / 100).max(1),
        });
        self.limits.connections = connections;
        self.limits.connections_per_client = per_client;
        let of_client = per_client.map_or(connections, |per_client| per_client.min(connections));
        self.calls.share = Share::of_all(of_client, connections);
    }
}

/// How many calls of the treemap there may be at a time.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Calls in flight.
    pub calls: usize,
    /// Streams of treemaps.
    pub watchers: usize,
    /// What one address may have of either, and of all other streams.
    pub share: Share,
}

/// What one address may have: as much of everything as of the connections.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Connections of one address.
    of_client: usize,
    /// All connections.
    of_all: usize,
}

impl Default for Share {
    /// All of it.
    fn default() -> Self {
        Self { of_client: 1, of_all: 1 }
    }
}

impl Share {
    /// So many of so many.
    pub const fn of_all(of_client: usize, of_all: usize) -> Self {
        Self { of_client, of_all }
    }

    /// The share of `most`, at least 1.
    pub const fn of(self, most: usize) -> usize {
        most.saturating_mul(self.of_client).div_ceil(self.of_all)
    }
}

/// Limits on connections, and the drain timeout.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of connections.
    pub connections: usize,
    /// Maximum number of connections from one address; `None` for no limit.
    pub connections_per_client: Option<usize>,
    /// Maximum age of a connection, plus or minus a tenth; `None` for no limit.
    pub connection_age: Option<Duration>,
    /// How long connections may take to end once the drain begins.
    pub drain: Duration,
}

impl ListenAddress {
    /// Fails with the name of the setting and the expected value.
    pub fn read(&self) -> Result<SocketAddr, String> {
        const DEFAULT: &str = "127.0.0.1:50051";
        // A variable that is set to nothing is not set.
        if let Some(given) = self.listen_addr.as_ref().filter(|given| !given.trim().is_empty()) {
            return address("TREEMAP_LISTEN_ADDR", given, DEFAULT);
        }
        match port_of_platform()? {
            Some(port) => {
                // Where the machine has IPv6, its address stands for both.
                let ipv6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
                let all = if ipv6 { IpAddr::from(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
                Ok((all, port).into())
            }
            None => address("TREEMAP_LISTEN_ADDR", DEFAULT, DEFAULT),
        }
    }
}

/// `PORT`, if it is set.
fn port_of_platform() -> Result<Option<u16>, String> {
    let port = std::env::var("PORT").ok().filter(|port| !port.trim().is_empty());
    let read =
        |port: String| port.trim().parse().map_err(|_| format!("PORT is {port:?}; expected a number from 0 to 65535"));
    port.map(read).transpose()
}

impl AdminAddress {
    /// `None` when switched off. Fails with the name of the setting and the expected value.
    pub fn read(&self) -> Result<Option<SocketAddr>, String> {
        let Some(text) = unless_off(&self.admin_addr) else { return Ok(None) };
        let mut addr = address("TREEMAP_ADMIN_ADDR", text, "127.0.0.1:8080, or off")?;
        // A platform chooses its port without knowing ours: Cloud Run's is 8080 as well.
        if port_of_platform().is_ok_and(|port| port == Some(addr.port()) && port != Some(0)) {
            addr.set_port(addr.port().checked_add(1).unwrap_or(addr.port() - 1));
        }
        Ok(Some(addr))
    }
}

impl ServerArgs {
    pub(super) fn read(&self, problems: &mut Problems) -> Option<ServerConfig> {
        let listen_addr = problems.note(self.listen.read());
        let admin_addr = problems.note(self.admin.read());
        let tls = problems.note(self.tls());
        let connections = problems.note(number("TREEMAP_MAX_CONNECTIONS", &self.max_connections));
        let per_client = unless_off(&self.max_connections_per_client);
        let per_client = per_client.map(|text| share("TREEMAP_MAX_CONNECTIONS_PER_CLIENT", text));
        let per_client = problems.note(per_client.transpose());
        let calls = problems.note(number("TREEMAP_MAX_CALLS", &self.max_calls));
        let watchers = problems.note(number("TREEMAP_MAX_WATCHERS", &self.max_watchers));
        let watch_heartbeat =
            problems.note(duration("TREEMAP_WATCH_HEARTBEAT", &self.watch_heartbeat, ["100ms", "1h"]));
        let page = match self.page.trim() {
            "on" => Some(true),
            "off" => Some(false),
            other => problems.note(Err(format!("TREEMAP_PAGE is {other:?}; expected on or off"))),
        };
        let connection_age = unless_off(&self.max_connection_age)
            .map(|text| duration("TREEMAP_MAX_CONNECTION_AGE", text, ["100ms", "365d"]));
        let connection_age = problems.note(connection_age.transpose());
        let origins = Origins::parse(&self.cors_origins);
        let origins = problems.note(origins.map_err(|problem| format!("TREEMAP_CORS_ORIGINS: {problem}")));
        let cache_max_age =
            unless_off(&self.cache_max_age).map(|text| duration("TREEMAP_CACHE_MAX_AGE", text, ["1s", "365d"]));
        let cache_max_age = problems.note(cache_max_age.transpose());
        let drain_delay = match self.drain_delay.trim() {
            "0" => Some(Duration::ZERO),
            text => problems.note(duration("TREEMAP_DRAIN_DELAY", text, ["0s", "1h"])),
        };
        let drain = problems.note(duration("TREEMAP_DRAIN_TIMEOUT", &self.drain_timeout, ["100ms", "1h"]));
        let connections = connections?;
        let mut config = ServerConfig {
            listen_addr: listen_addr?,
            admin_addr: admin_addr?,
            tls: tls?,
            limits: Limits {
                connections,
                connections_per_client: None,
                connection_age: connection_age?,
                drain: drain?,
            },
            per_client: per_client?,
            calls: CallLimits { calls: calls?, watchers: watchers?, share: Share::default() },
            watch_heartbeat: watch_heartbeat?,
            page: page?,
            origins: origins?,
            cache_max_age: cache_max_age?,
            drain_delay: drain_delay?,
        };
        config.limit_connections(connections);
        Some(config)
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

/// A number, or a share as `25%`.
fn share(setting: &str, text: &str) -> Result<PerClient, String> {
    let expected = || format!("{setting} is {text:?}; expected a number, a share as 25%, or off");
    let Some(percent) = text.trim().strip_suffix('%') else {
        return number(setting, text).map(PerClient::Number).map_err(|_| expected());
    };
    let percent = percent.parse::<usize>().ok().filter(|percent| (1..=100).contains(percent));
    percent.map(PerClient::Percent).ok_or_else(expected)
}

fn number(setting: &str, text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err(format!("{setting} is {text:?}; expected a number from 1 to 1000000")),
    }
}
