//! The hosts of a connection string, each with the configuration that the driver is given for it alone.

use std::{net::IpAddr, time::Duration};

use tokio_postgres::{Config, config::SslMode};

use crate::postgres::tls::Mode;

/// A place where Postgres may be.
pub struct Host {
    name: Option<String>,
    address: Option<IpAddr>,
    /// Its port.
    pub port: u16,
}

impl Host {
    /// The hosts of a connection string, by its three lists.
    pub fn list(names: Option<&str>, addresses: Option<&str>, ports: Option<&str>) -> Result<Vec<Self>, String> {
        let split = |text: Option<&str>| text.map(|text| text.split(',').map(str::to_owned).collect::<Vec<_>>());
        let (names, addresses) = (split(names), split(addresses));
        let ports = split(ports).unwrap_or_else(|| vec!["5432".into()]);
        let count = names.as_ref().or(addresses.as_ref()).map_or(0, Vec::len);
        let fits = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|list| list.len() == count);
        if count == 0 || names.iter().chain(&addresses).flatten().any(String::is_empty) {
            return Err("names no host; expected postgres://user:password@host:5432/database".into());
        }
        if !fits(&names) || !fits(&addresses) || (ports.len() > 1 && ports.len() != count) {
            return Err("has lists of hosts, addresses and ports that are not of one length".into());
        }
        (0..count)
            .map(|place| {
                let port = ports.get(place).or(ports.first()).and_then(|port| port.trim().parse().ok());
                let address = addresses.as_ref().map(|all| all[place].parse()).transpose();
                Ok(Self {
                    name: names.as_ref().map(|all| all[place].clone()),
                    address: address.map_err(|_| "has a hostaddr that is not an IP address")?,
                    port: port.ok_or("has a port that is not a number from 0 to 65535")?,
                })
            })
            .collect()
    }

    /// Whether what is sent stays on this machine.
    pub fn is_local(&self) -> bool {
        let name = self.name.as_deref().unwrap_or_default();
        match self.address.or_else(|| name.parse().ok()) {
            Some(address) => address.is_loopback(),
            None => name == "localhost" || name.starts_with('/'),
        }
    }

    /// What it is called in logs, and has to be called in its certificate.
    pub fn name(&self) -> String {
        self.name.clone().or(self.address.map(|address| address.to_string())).unwrap_or_default()
    }

    /// What the driver connects with: this host alone, with our time limits.
    pub fn config(&self, mut config: Config, mode: Mode) -> Config {
        if let Some(name) = &self.name {
            config.host(name);
        }
        if let Some(address) = self.address {
            config.hostaddr(address);
            if self.name.is_none() {
                // What the certificate has to be for.
                config.host(address.to_string());
            }
        }
        config.port(self.port);
        // Never `Prefer`, which continues without TLS when the server, or an attacker in between, says that it has none.
        let on_a_wire = self.name.as_ref().is_none_or(|name| !name.starts_with('/'));
        config.ssl_mode(if mode == Mode::Disable || !on_a_wire { SslMode::Disable } else { SslMode::Require });
        if config.get_connect_timeout().is_none() {
            // Per address of the host: one that does not answer must not use up the time of the next.
            config.connect_timeout(Duration::from_secs(2));
        }
        if config.get_application_name().is_none() {
            config.application_name("treemap");
        }
        // A dead network is noticed after 30 s at the latest, whatever the statement; `postgres` has time limits of its own beside this.
        config
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(15));
        config
    }
}
