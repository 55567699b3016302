use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::config::{AdminAddress, ListenAddress};

/// How long the server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Check whether the server on this machine is ready; for a container's HEALTHCHECK
///
/// The exit code is 0 when the server is ready. Otherwise it is 1, and the reason is printed. When the admin port is
/// off, a server that accepts connections counts as ready.
#[derive(Debug, clap::Args)]
pub struct Healthcheck {
    #[command(flatten)]
    admin: AdminAddress,
    #[command(flatten)]
    listen: ListenAddress,
}

impl Healthcheck {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Some(admin) = self.admin.read().map_err(anyhow::Error::msg)? else {
            let address = on_this_machine(self.listen.read().map_err(anyhow::Error::msg)?);
            TcpStream::connect_timeout(&address, ANSWER_WITHIN).with_context(|| format!("no answer from {address}"))?;
            out_line!("accepts connections; TREEMAP_ADMIN_ADDR is off, so there is no /readyz to ask");
            return Ok(ExitCode::SUCCESS);
        };
        let address = on_this_machine(admin);
        let answer = ask(address).with_context(|| format!("no answer from http://{address}/readyz"))?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("{}", answer.split("\r\n\r\n").nth(1).unwrap_or(&answer).trim());
        }
        out_line!("ready");
        Ok(ExitCode::SUCCESS)
    }
}

/// The loopback address, when the server listens on all addresses.
fn on_this_machine(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}
