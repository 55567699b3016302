//! TLS to Postgres: libpq's `sslmode`, `sslrootcert`, `sslcert` and `sslkey`, as a rustls configuration.
//!
//! The default is stricter than libpq's: without `sslmode`, it encrypts only if the server can, and verifies nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::tls::{certificates, private_key, provider};

/// Whether a connection is encrypted, and how the server is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not encrypted.
    Disable,
    /// Encrypted; the server is not verified.
    Require,
    /// Encrypted; the certificate must come from a trusted CA, for any host name.
    VerifyCa,
    /// Encrypted; the certificate must come from a trusted CA and match the host name.
    VerifyFull,
}

/// The settings of a connection string that concern TLS.
#[derive(Debug, Default)]
pub struct Settings {
    /// `sslmode`.
    pub mode: Option<String>,
    /// `sslrootcert`: a file of CAs to trust instead of the system's, or `system`.
    pub roots: Option<String>,
    /// `sslcert`: a file with the client certificate.
    pub certificate: Option<PathBuf>,
    /// `sslkey`: a file with its key.
    pub key: Option<PathBuf>,
}

impl Settings {
    /// The mode from the settings. Without one, it depends on whether all hosts are `local`.
    pub fn mode(&self, local: bool) -> Result<Mode, String> {
        Ok(match self.mode.as_deref() {
            Some("disable") => Mode::Disable,
            // As in libpq: with `sslrootcert`, `require` also verifies the CA.
            Some("require") if self.roots.is_some() => Mode::VerifyCa,
            Some("require") => Mode::Require,
            Some("verify-ca") => Mode::VerifyCa,
            Some("verify-full") => Mode::VerifyFull,
            Some(other) => {
                let other = if matches!(other, "allow" | "prefer") {
                    format!("{other}, which would send the password in the clear to whoever asks for it")
                } else {
                    "not a mode".into()
                };
                return Err(format!(
                    "has an sslmode that is {other}; expected disable, require, verify-ca or verify-full"
                ));
            }
            None if local && self.roots.is_none() => Mode::Disable,
            None => Mode::VerifyFull,
        })
    }

    /// The files that are named.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let roots = self.roots.as_deref().filter(|roots| *roots != "system").map(Path::new);
        [roots, self.certificate.as_deref(), self.key.as_deref()].into_iter().flatten()
    }

    /// The rustls configuration for `mode`. Reads the files now.
    pub fn client(&self, mode: Mode, direct: bool) -> Result<ClientConfig, String> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match mode {
            // With `Disable` the verifier is never called: the driver does not start TLS.
            Mode::Disable | Mode::Require => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Lenient { known: None, algorithms }))
            }
            Mode::VerifyCa => {
                let known = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), provider)
                    .build()
                    .map_err(|error| format!("has an sslrootcert that cannot be used: {error}"))?;
                let verifier = Lenient { known: Some(known), algorithms };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            Mode::VerifyFull => builder.with_root_certificates(self.roots()?),
        };
        let mut config = match (&self.certificate, &self.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate)
                    .map_err(|problem| format!("has an sslcert that cannot be used: {problem}"))?;
                let key =
                    private_key(key).map_err(|problem| format!("has an sslkey that cannot be used: {problem}"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("has an sslcert and an sslkey that do not belong together: {error}"))?
            }
            _ => return Err("has only one of sslcert and sslkey; set both".into()),
        };
        if direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        match self.roots.as_deref() {
            None | Some("system") => {
                let found = rustls_native_certs::load_native_certs();
                // The store of the system may hold certificates that rustls cannot parse. They are skipped.
                let (usable, _) = roots.add_parsable_certificates(found.certs);
                if usable == 0 {
                    return Err("needs the CAs of this system to verify Postgres, and there are none; \
                                name a file of CAs with sslrootcert"
                        .into());
                }
            }
            Some(file) => {
                let problem = |problem| format!("has an sslrootcert that cannot be used: {problem}");
                for certificate in certificates(file.as_ref()).map_err(problem)? {
                    roots.add(certificate).map_err(|error| problem(format!("{file}: {error}")))?;
                }
            }
        }
        Ok(roots)
    }
}

/// Verifies only the CA, or nothing; never the host name.
#[derive(Debug)]
struct Lenient {
    known: Option<Arc<WebPkiServerVerifier>>,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(known) = &self.known else { return Ok(ServerCertVerified::assertion()) };
        match known.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is verified last, so every other check has passed.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
