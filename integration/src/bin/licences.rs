//! Puts the licence texts of all that is linked into our two binaries into a folder: `licences FOLDER`. What is linked and where
//! its sources are `cargo metadata` says; the texts are the crates' own files. Asks no network.
//!
//! A procedural macro runs in the compiler and is not linked, nor is what only it uses. A crate without any text of its own is an
//! error: somebody has to look at it.
#![allow(
    clippy::print_stderr,
    reason = "a program for the one who makes an archive"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{fs, io};

use integration::workspace;
use serde_json::Value;

/// What is shipped.
const SHIPPED: [&str; 2] = ["crosshost-cni", "crosshost"];

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: licences FOLDER");
        return ExitCode::from(2);
    };
    match write_all(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("licences: {why}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(folder: &Path) -> Result<(), String> {
    let mut lines = Vec::new();
    for package in linked(&metadata()?) {
        let word = |key: &str| package[key].as_str().unwrap_or_default();
        let name = format!("{}-{}", word("name"), word("version"));
        let manifest = PathBuf::from(word("manifest_path"));
        let root = manifest.parent().unwrap_or(Path::new("/"));
        let texts = texts_below(root, root).map_err(|error| format!("{name}: {error}"))?;
        if texts.is_empty() {
            return Err(format!(
                "{name} ({}): no text of its licence in {}",
                word("license"),
                root.display()
            ));
        }
        for text in texts {
            let to = folder.join(&name).join(&text);
            copy(&root.join(&text), &to).map_err(|error| format!("{}: {error}", to.display()))?;
        }
        lines.push(format!("{name}: {}\n", word("license")));
    }
    let list = folder.join("CRATES");
    fs::write(&list, lines.concat()).map_err(|error| format!("{}: {error}", list.display()))
}

fn metadata() -> Result<Value, String> {
    let said = Command::new("cargo")
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
        ])
        .arg(target()?)
        .current_dir(workspace())
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !said.status.success() {
        return Err(String::from_utf8_lossy(&said.stderr).into_owned());
    }
    serde_json::from_slice(&said.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

fn target() -> Result<String, String> {
    let said = Command::new("rustc").arg("-vV").output();
    let said = said.map_err(|error| format!("rustc: {error}"))?.stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "rustc -vV: no host".to_owned())
}

/// The packages of others that are linked, by name and version.
fn linked(metadata: &Value) -> Vec<&Value> {
    let array = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let packages = metadata["packages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let by_id: BTreeMap<_, _> = packages.iter().map(|it| (it["id"].as_str(), it)).collect();
    let nodes = array(&metadata["resolve"]["nodes"]);
    let needs: BTreeMap<_, _> = nodes
        .iter()
        .map(|it| (it["id"].as_str(), &it["deps"]))
        .collect();
    let is_macro = |package: &Value| {
        let targets = array(&package["targets"]);
        targets.iter().any(|it| it["kind"][0] == "proc-macro")
    };
    let is_shipped =
        |it: &&Value| it["source"].is_null() && SHIPPED.iter().any(|name| it["name"] == *name);
    let mut waiting: Vec<_> = packages
        .iter()
        .filter(is_shipped)
        .map(|it| it["id"].as_str())
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        for need in needs
            .get(&id)
            .and_then(|it| it.as_array())
            .into_iter()
            .flatten()
        {
            let is_normal = array(&need["dep_kinds"])
                .iter()
                .any(|it| it["kind"].is_null());
            let id = need["pkg"].as_str();
            if is_normal && !by_id.get(&id).is_some_and(|it| is_macro(it)) {
                waiting.push(id);
            }
        }
    }
    let mut linked: Vec<_> = seen
        .iter()
        .filter_map(|id| by_id.get(id).copied())
        .collect();
    linked.retain(|it| !it["source"].is_null());
    linked.sort_by_key(|it| (it["name"].as_str(), it["version"].as_str()));
    linked
}

/// All files below `folder` that by their names are licences, copyrights or notices, as paths from `root`: sources of others that
/// a crate brings along have their own.
fn texts_below(root: &Path, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            texts.extend(texts_below(root, &path)?);
        } else if ["licen", "copying", "copyright", "notice", "unlicense"]
            .iter()
            .any(|it| name.starts_with(it))
            && path.extension().is_none_or(|it| it != "rs")
        {
            texts.extend(path.strip_prefix(root).map(Path::to_owned).ok());
        }
    }
    texts.sort();
    Ok(texts)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, fs::read(from)?)
}
