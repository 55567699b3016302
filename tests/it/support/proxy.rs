//! A TCP proxy that can be told to misbehave, at any moment and for all its connections.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the proxy does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Hands it on.
    Open,
    /// Hands it on, later.
    Slow(Duration),
    /// Accepts connections and keeps them, and hands nothing on.
    Silent,
    /// Closes every connection, old and new, by a reset.
    Reset,
}

pub struct Proxy {
    pub port: u16,
    way: watch::Sender<Way>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to a port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (way, ways) = watch::channel(Way::Open);
        let accepting = tokio::spawn(async move {
            let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            while let Ok((here, _)) = listener.accept().await {
                tokio::spawn(serve(here, there, ways.clone()));
            }
        });
        Self { port: own, way, accepting }
    }

    /// From now on.
    pub fn go(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut client: TcpStream, address: SocketAddr, mut ways: watch::Receiver<Way>) {
    let mut reset = ways.clone();
    if *reset.borrow() != Way::Reset {
        // What is not let through now was never sent on: this connection stays silent until then.
        ways.wait_for(|way| *way != Way::Silent).await.map(drop).ok();
        if let Ok(mut server) = TcpStream::connect(address).await {
            let (mut questions, mut to_client) = client.split();
            let (mut answers, mut to_server) = server.split();
            tokio::select! {
                _ = pump(&mut questions, &mut to_server, ways.clone()) => {}
                _ = pump(&mut answers, &mut to_client, ways) => {}
                _ = reset.wait_for(|way| *way == Way::Reset) => {}
            }
        }
    }
    if *reset.borrow() == Way::Reset {
        client.set_zero_linger().ok();
    }
}

async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    ways: watch::Receiver<Way>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let way = *ways.borrow();
        match way {
            Way::Slow(pause) => tokio::time::sleep(pause).await,
            // What was sent into the silence is lost for ever, as on a wire that was cut.
            Way::Silent => std::future::pending().await,
            Way::Open | Way::Reset => {}
        }
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}
