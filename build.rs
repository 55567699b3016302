//! Compiles proto/ to Rust, without protoc: the messages and typed clients. The server is our own (see `api::service`): its answers are
//! encoded already.

use std::{env, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(["shorts/v1alpha1/shorts.proto", "treemap/v1/treemap.proto"], ["proto"])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_server(false).include_file("proto.rs").compile_fds(descriptors)?;
    Ok(())
}
