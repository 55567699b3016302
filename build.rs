//! Compiles proto/ to Rust, without protoc: the messages and typed clients. The server is our own (see `api::service`): its answers are
//! encoded already. Finds out which commit is built, for `treemap --version`.

use std::{env, fs, path::PathBuf, process::Command};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(["shorts/v1alpha1/shorts.proto", "treemap/v1/treemap.proto"], ["proto"])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_server(false).include_file("proto.rs").compile_fds(descriptors)?;

    let (commit, seconds) = commit();
    println!("cargo::rustc-env=TREEMAP_COMMIT={}", commit.get(..7).unwrap_or(&commit));
    println!("cargo::rustc-env=TREEMAP_COMMIT_SECONDS={seconds}");
    Ok(())
}

/// The commit and its time, in seconds since 1970; each is empty when it is not known. From `TREEMAP_COMMIT` and `SOURCE_DATE_EPOCH`,
/// since a build of the image has no git folder, or else from git.
fn commit() -> (String, String) {
    let variable = |name: &str| {
        println!("cargo::rerun-if-env-changed={name}");
        env::var(name).unwrap_or_default().trim().to_owned()
    };
    let given = (variable("TREEMAP_COMMIT"), variable("SOURCE_DATE_EPOCH"));
    // Without this, git would answer for a repository that the project merely lies in.
    if !given.0.is_empty() || fs::metadata(".git").is_err() {
        return given;
    }
    // Each commit and each checkout changes one of these. Cargo takes a file that does not exist for one that has always changed.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", branch.as_str()] {
        let file = git(&["rev-parse", "--git-path", name]);
        if fs::metadata(&file).is_ok_and(|file| file.is_file()) {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    let log = git(&["log", "-1", "--format=%H %ct"]);
    log.split_once(' ').map(|(commit, seconds)| (commit.into(), seconds.into())).unwrap_or_default()
}

/// What git prints; nothing where it fails or is not installed.
fn git(arguments: &[&str]) -> String {
    let ran = Command::new("git").args(arguments).output();
    let printed = ran.ok().filter(|ran| ran.status.success()).map(|ran| ran.stdout).unwrap_or_default();
    String::from_utf8_lossy(&printed).trim().to_owned()
}
