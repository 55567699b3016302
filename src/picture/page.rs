//! The files of the page, which are built in.

use std::{io::Write, sync::LazyLock};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

/// Only from this server, and nothing inline: what a hostile company name could bring cannot run.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file.
#[derive(Debug)]
pub struct File {
    /// Its path on the server.
    pub path: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// Its bytes.
    pub plain: &'static str,
    /// The same, compressed.
    pub gzip: Bytes,
}

/// All files.
pub static FILES: LazyLock<[File; 3]> = LazyLock::new(|| {
    [
        ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
        ("/page.css", "text/css; charset=utf-8", include_str!("../page/page.css")),
        ("/page.js", "text/javascript; charset=utf-8", include_str!("../page/page.js")),
    ]
    .map(|(path, kind, plain)| File { path, kind, plain, gzip: gzip(plain.as_bytes(), Compression::best()) })
});

/// Compressed with gzip.
pub fn gzip(bytes: &[u8], level: Compression) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    // Writing into memory does not fail.
    let compressed = encoder.write_all(bytes).and_then(|()| encoder.finish());
    compressed.unwrap_or_default().into()
}
