//! Shared by TLS to Postgres and TLS to clients: the crypto provider, and certificates and keys from PEM files.

pub mod listener;

use std::{path::Path, sync::Arc};

use rustls::{
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

/// The crypto provider. It is always passed explicitly: a default of the process would have to be set before first use.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates of a PEM file, in the order of the file.
///
/// Fails: the file cannot be read, or holds no certificate.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    match read() {
        Ok(none) if none.is_empty() => Err(format!("{} holds no certificate in PEM form", file.display())),
        found => found.map_err(|error| unreadable(file, &error)),
    }
}

/// The private key of a PEM file.
///
/// Fails: the file cannot be read, or holds no private key.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        pem::Error::NoItemsFound => format!("{} holds no unencrypted private key in PEM form", file.display()),
        error => unreadable(file, &error),
    })
}

fn unreadable(file: &Path, error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("{} cannot be read: {error}", file.display()),
        error => format!("{} is not in PEM form: {error}", file.display()),
    }
}
