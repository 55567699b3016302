//! A client of a running server, over `treemap.v1`.

use std::{error::Error as _, iter::successors, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::proto::treemap::v1::{
    GetTreemapRequest, Treemap, WatchTreemapRequest, WatchTreemapResponse,
    treemap_service_client::TreemapServiceClient, watch_treemap_response::Event,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// A connection that was cut without a word is noticed after both: a watch would wait for ever.
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer: the largest has some 200 KB.
const ANSWER: usize = 16 << 20;

/// How a server is trusted.
#[derive(Debug, clap::Args)]
pub struct TrustArgs {
    /// With https: trust this CA (PEM) in place of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With https: the certificate of this client (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client(TreemapServiceClient<Channel>);

impl TrustArgs {
    /// Connects to host:port, `http://host:port` or `https://host:port`.
    ///
    /// Fails with what is wrong with the address or a file, or when the server does not answer in time.
    pub async fn connect(&self, given: &str) -> anyhow::Result<Client> {
        let address = if given.contains("://") { given.to_owned() } else { format!("http://{given}") };
        let wrong = || {
            format!("{given:?} is no address of a server; expected host:port, http://host:port or https://host:port")
        };
        let endpoint = Endpoint::from_shared(address.clone()).with_context(wrong)?;
        let mut endpoint = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN);
        match endpoint.uri().scheme_str() {
            Some("https") => {
                endpoint = endpoint.tls_config(self.tls()?).context("the certificates cannot be used")?;
            }
            Some("http") if self.ca.is_some() || self.cert.is_some() => {
                bail!("--ca, --cert and --key are for https:// addresses, and the address is {address}")
            }
            Some("http") => {}
            _ => bail!(wrong()),
        }
        let channel = endpoint.connect().await.with_context(|| format!("cannot reach a server at {address}"))?;
        Ok(Client(TreemapServiceClient::new(channel).max_decoding_message_size(ANSWER)))
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |file: &PathBuf| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        let mut tls = ClientTlsConfig::new();
        tls = match &self.ca {
            Some(ca) => tls.ca_certificate(Certificate::from_pem(read(ca)?)),
            None => tls.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(tls)
    }
}

impl Client {
    /// Asks for a treemap.
    ///
    /// Fails with the server's words, or without an answer in time.
    pub async fn get(&mut self, request: GetTreemapRequest) -> anyhow::Result<Treemap> {
        let mut request = tonic::Request::new(request);
        request.set_timeout(ANSWER_WITHIN);
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.0.get_treemap(request)).await;
        let answer = answer.map_err(|_| anyhow::anyhow!("no answer within {} s", ANSWER_WITHIN.as_secs()))?;
        Ok(answer.map_err(|status| refused(&status))?.into_inner().treemap.unwrap_or_default())
    }

    /// Watches a treemap.
    ///
    /// Fails with the server's words.
    pub async fn watch(&mut self, request: WatchTreemapRequest) -> anyhow::Result<Watched> {
        Ok(Watched(self.0.watch_treemap(request).await.map_err(|status| refused(&status))?.into_inner()))
    }
}

/// A stream of treemaps, and of heartbeats between them.
#[derive(Debug)]
pub struct Watched(tonic::Streaming<WatchTreemapResponse>);

impl Watched {
    /// The next treemap or heartbeat; `None` when the server asks to come again, or the connection has broken.
    ///
    /// Fails with the server's words.
    pub async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            match self.0.message().await {
                Ok(Some(WatchTreemapResponse { event: Some(event) })) => return Ok(Some(event)),
                // Of a kind that this version does not know.
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(status) if status.code() == tonic::Code::Unavailable || is_broken(&status) => return Ok(None),
                Err(status) => return Err(refused(&status)),
            }
        }
    }
}

/// Whether a status is that of the connection. One that the server has sent has no cause.
fn is_broken(status: &tonic::Status) -> bool {
    status.source().is_some()
}

fn refused(status: &tonic::Status) -> anyhow::Error {
    if is_broken(status) {
        let causes: Vec<_> = successors(status.source(), |&cause| cause.source()).map(ToString::to_string).collect();
        return anyhow::anyhow!(
            "no answer from the server: {}; one with TLS needs an https:// address, and perhaps --cert and --key",
            causes.join(": ")
        );
    }
    anyhow::anyhow!("the server answers: {} ({:?})", status.message(), status.code())
}
