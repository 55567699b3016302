use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::config::address;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ask a running server whether it is ready, for a container's HEALTHCHECK: exit code 0 when it is, 1 and why otherwise
#[derive(Debug, clap::Args)]
pub struct Healthcheck {
    /// Where the server has its /readyz
    #[arg(long, env = "TREEMAP_ADMIN_ADDR", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    admin_addr: String,
}

impl Healthcheck {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut address =
            address("TREEMAP_ADMIN_ADDR", &self.admin_addr, "127.0.0.1:8080").map_err(anyhow::Error::msg)?;
        // Where a server listens on all addresses, this one is among them.
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let answer = ask(address).with_context(|| format!("no answer from http://{address}/readyz"))?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("{}", answer.split("\r\n\r\n").nth(1).unwrap_or(&answer).trim());
        }
        println!("ready");
        Ok(ExitCode::SUCCESS)
    }
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}
