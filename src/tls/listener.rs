//! TLS for the listener: certificate, key and the CA of clients from files, read again when they change.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use super::{certificates, private_key, provider};

/// The files.
#[derive(Debug, Clone)]
pub struct Files {
    /// The server's certificate, with those between it and its CA.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs whose clients are admitted; `None` admits anybody.
    pub client_ca: Option<PathBuf>,
}

/// The configuration for new connections.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    current: ArcSwap<ServerConfig>,
    /// Of the files, taken before they were read: what changes in between is noticed at the next look.
    seen: Mutex<Option<Vec<u8>>>,
}

impl Tls {
    /// Reads the files. Fails with the setting that names what cannot be used.
    pub fn read(files: Files) -> Result<Self, String> {
        let seen = Mutex::new(files.digest());
        let current = ArcSwap::from_pointee(files.config()?);
        Ok(Self { files, current, seen })
    }

    /// For one connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files again if they have changed. If they cannot be used, that is logged once, and the old configuration stays.
    pub fn look(&self) {
        let now = self.files.digest();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return;
            }
            *seen = now;
        }
        match self.files.config() {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!("new connections use the new certificate");
            }
            Err(problem) => tracing::error!("keeping the old certificate: {problem}"),
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
            .map_err(|error| format!("TREEMAP_TLS_CERT and TREEMAP_TLS_KEY do not belong together: {error}"))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &Files, name: &str) {
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        fs::write(&files.certificate, cert.pem()).unwrap();
        fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_certificate_that_is_renewed_before_the_first_look_is_noticed_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let files = Files { certificate: file("cert.pem"), key: file("key.pem"), client_ca: None };
        write(&files, "one.test");
        let tls = Tls::read(files.clone()).unwrap();
        write(&files, "two.test");
        let before = tls.current.load_full();
        tls.look();
        assert!(!Arc::ptr_eq(&before, &tls.current.load_full()), "the new certificate is in use");
        let now = tls.current.load_full();
        tls.look();
        assert!(Arc::ptr_eq(&now, &tls.current.load_full()), "nothing has changed since");
    }
}
