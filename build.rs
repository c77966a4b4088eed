//! Puts the commit into `--version`, where there is a repository and git, or a package that says it;
//! nothing fails without.

use std::path::Path;
use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The commit that a published package was made from: Cargo writes it down beside it.
fn packaged() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\": \"")?;
    let hash = rest.get(..12)?;
    hash.chars()
        .all(|c| c.is_ascii_hexdigit())
        .then(|| hash.to_owned())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Only our own repository: a source tree unpacked inside some other one is not that one.
    if !Path::new(".git").exists() {
        if let Some(hash) = packaged() {
            println!("cargo::rustc-env=REDIS_MIGRATE_GIT={hash}");
        }
        return;
    }
    // The log of HEAD changes with every commit, HEAD itself only with the branch.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    if let Some(hash) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=REDIS_MIGRATE_GIT={hash}");
    }
}
