//! A TCP proxy for fault injection. Its mode can change at any time, and applies to all its connections.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

/// What the proxy does with the bytes that it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards them.
    Forward,
    /// Forwards them after a pause.
    Delay(Duration),
    /// Accepts and keeps connections, but forwards nothing.
    BlackHole,
    /// Closes every connection, old and new, with a reset.
    Reset,
}

pub struct Proxy {
    pub port: u16,
    mode: watch::Sender<Mode>,
    /// Dropped with the proxy, it ends the thread that forwards.
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    /// A proxy to a port of this machine.
    pub async fn to(port: u16) -> Self {
        let (mode, modes) = watch::channel(Mode::Forward);
        let (stop, stopped) = oneshot::channel();
        let (bound, own) = oneshot::channel();
        // A thread of its own: it forwards also while the test waits for psql, which may wait for what is forwarded.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                bound.send(listener.local_addr().unwrap().port()).unwrap();
                let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                let accept = async {
                    while let Ok((here, _)) = listener.accept().await {
                        tokio::spawn(serve(here, there, modes.clone()));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port: own.await.unwrap(), mode, _stop: stop }
    }

    /// Changes the mode.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn serve(mut client: TcpStream, address: SocketAddr, mut modes: watch::Receiver<Mode>) {
    let mut reset = modes.clone();
    if *reset.borrow() != Mode::Reset {
        // A new connection waits here while the proxy is a black hole, and continues afterwards.
        modes.wait_for(|mode| *mode != Mode::BlackHole).await.map(drop).ok();
        if let Ok(mut server) = TcpStream::connect(address).await {
            let (mut questions, mut to_client) = client.split();
            let (mut answers, mut to_server) = server.split();
            tokio::select! {
                _ = pump(&mut questions, &mut to_server, modes.clone()) => {}
                _ = pump(&mut answers, &mut to_client, modes) => {}
                _ = reset.wait_for(|mode| *mode == Mode::Reset) => {}
            }
        }
    }
    if *reset.borrow() == Mode::Reset {
        client.set_zero_linger().ok();
    }
}

async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    modes: watch::Receiver<Mode>,
) -> io::Result<()> {
    // What is delayed does not hold up what comes after it.
    let (queue, mut queued) = mpsc::unbounded_channel();
    let reading = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            let mode = *modes.borrow();
            let pause = match mode {
                Mode::Delay(pause) => pause,
                // These bytes are lost for ever, as on a cut cable.
                Mode::BlackHole => std::future::pending().await,
                Mode::Forward | Mode::Reset => Duration::ZERO,
            };
            let _ = queue.send((Instant::now() + pause, buffer[..read].to_vec()));
            if read == 0 {
                return std::future::pending().await;
            }
        }
    };
    let writing = async {
        while let Some((due, bytes)) = queued.recv().await {
            sleep_until(due).await;
            if bytes.is_empty() {
                break;
            }
            to.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::select! {
        failed = reading => failed,
        ended = writing => ended,
    }
}
