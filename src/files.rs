//! Files that others wrote, within bounds: a pipe or a device has no end.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

/// Reads a file whole.
///
/// Fails when it cannot be read, is no regular file, or has more than `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| error.to_string();
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err("this is no regular file".into());
    }
    read_to_end(&mut fs::File::open(path).map_err(failed)?, limit)
}

/// Reads all that comes.
///
/// Fails when that fails, or when more than `limit` bytes come.
pub fn read_to_end(from: &mut dyn Read, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("the file has more than {} MiB", limit >> 20));
    }
    Ok(bytes)
}
