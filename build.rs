//! Compiles proto/ to Rust, without protoc. prost generates the messages and a typed client. The server is declared by
//! hand, because its answers are already encoded (see `api::codec`).

use std::{env, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let descriptors = protox::compile(["shorts/v1alpha1/shorts.proto"], ["proto"])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;

    let get_industry_tree_map = tonic_build::manual::Method::builder()
        .name("get_industry_tree_map")
        .route_name("GetIndustryTreeMap")
        .input_type("crate::proto::shorts::v1alpha1::GetIndustryTreeMapRequest")
        .output_type("crate::treemap::model::Answer")
        .codec_path("crate::api::codec::AnswerCodec")
        .build();
    let service = tonic_build::manual::Service::builder()
        .name("ShortedStocksService")
        .package("shorts.v1alpha1")
        .method(get_industry_tree_map)
        .build();
    // A separate folder: the manual builder names its file after package and service, prost after the package.
    let server = out.join("server");
    fs::create_dir_all(&server)?;
    tonic_build::manual::Builder::new().build_client(false).out_dir(server).compile(&[service]);
    Ok(())
}
