//! Finds the git commit that `cni::build` carries. `CROSSHOST_COMMIT` overrides it; outside of a checkout it is `unknown`.
#![allow(
    clippy::print_stdout,
    reason = "a build script speaks to cargo on standard output"
)]

use std::{path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=CROSSHOST_COMMIT");
    // The log of HEAD changes whenever HEAD does: commit, checkout, rebase. A missing file would mean a build each time.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let named = std::env::var("CROSSHOST_COMMIT");
    let commit = named.ok().filter(|it| !it.is_empty()).or_else(checked_out);
    let commit = commit.as_deref().unwrap_or("unknown");
    println!("cargo::rustc-env=CROSSHOST_COMMIT={commit}");
}

/// The commit of our own checkout. Sources unpacked inside of another repository have none.
fn checked_out() -> Option<String> {
    let is_ours = git(&["ls-files", "--error-unmatch", "Cargo.toml"]).is_some();
    let commit = git(&["rev-parse", "HEAD"]).filter(|_| is_ours)?;
    commit.get(..8).map(str::to_owned)
}

fn git(arguments: &[&str]) -> Option<String> {
    let said = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    said.status.success().then(|| text.trim().to_owned())
}
