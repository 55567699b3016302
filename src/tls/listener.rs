//! TLS for the listener: certificate, key and the CA of clients from files, read again when they change.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use super::{certificates, private_key, provider};

/// How often the files are looked at. Certificates are renewed weeks before they expire.
const LOOK: Duration = Duration::from_secs(5);

/// The files.
#[derive(Debug, Clone)]
pub struct Files {
    /// The server's certificate, with those between it and its CA.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs whose clients are let in; `None` lets in anybody.
    pub client_ca: Option<PathBuf>,
}

/// What new connections are accepted with.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Which setting names what cannot be used.
    pub fn read(files: Files) -> Result<Self, String> {
        let current = ArcSwap::from_pointee(files.config()?);
        Ok(Self { files, current })
    }

    /// For one connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files again whenever they change, for ever. What cannot be used is told once, and the old kept.
    pub async fn keep_current(self: Arc<Self>) {
        let mut seen = self.files.digest();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.files.digest();
            if now == seen {
                continue;
            }
            seen = now;
            match self.files.config() {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    tracing::info!("new connections use the new certificate");
                }
                Err(problem) => tracing::error!("the old certificate is kept: {problem}"),
            }
        }
    }
}

impl Files {
    fn config(&self) -> Result<ServerConfig, String> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let problem = |problem: String| format!("TREEMAP_TLS_CLIENT_CA: {problem}");
                let mut roots = RootCertStore::empty();
                for certificate in certificates(file).map_err(problem)? {
                    roots.add(certificate).map_err(|error| problem(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().map_err(|error| problem(error.to_string()))?)
            }
        };
        let chain = certificates(&self.certificate).map_err(|problem| format!("TREEMAP_TLS_CERT: {problem}"))?;
        let key = private_key(&self.key).map_err(|problem| format!("TREEMAP_TLS_KEY: {problem}"))?;
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| format!("TREEMAP_TLS_CERT and TREEMAP_TLS_KEY do not fit: {error}"))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// Of the content, not of the times: a secret of Kubernetes is replaced by moving a link.
    fn digest(&self) -> Option<Vec<u8>> {
        let mut digest = Sha256::new();
        for file in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten() {
            digest.update(fs::read(file).ok()?);
        }
        Some(digest.finalize().to_vec())
    }
}
