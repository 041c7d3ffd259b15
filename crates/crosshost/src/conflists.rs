//! The network configurations of this host, in the folders of the runtimes.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use overlay::maintain::findings::{Check, Findings};
use serde_json::Value;

/// The folders of the runtimes. Folders inside them count as well: nerdctl has one for each namespace of containerd.
const FOLDER: &str = "/etc/cni/net.d";

/// Our entries in all configurations, with the file and the network's name.
struct Entry {
    file: PathBuf,
    network: String,
    conf: Value,
}

/// The networks that are configured with a store of their own, and its URL.
pub fn stores() -> BTreeSet<(String, Option<String>)> {
    let (entries, _) = entries();
    let named = entries.into_iter().filter_map(|entry| {
        let url = entry.conf["store"]["url"].as_str()?;
        Some((entry.network, Some(url.to_owned())))
    });
    named.collect()
}

/// Reports keys that no plugin reads, and files that cannot be read.
pub fn examine(findings: &mut Findings) {
    let (entries, failures) = entries();
    for failure in failures {
        findings.wrong(Check::Conflist, failure, "");
    }
    for entry in entries {
        let unread = cluster::keys::unread(&entry.conf);
        if !unread.is_empty() {
            let (file, keys) = (entry.file.display(), unread.join(", "));
            let plugin = entry.conf["type"].as_str().unwrap_or_default();
            let says = format!("{file}: {plugin}: no plugin of ours reads {keys}");
            findings.note(Check::Conflist, says, "");
        }
    }
}

/// All entries of our plugins or with `ipam-kv`, and the files that could not be read.
fn entries() -> (Vec<Entry>, Vec<String>) {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for file in files(Path::new(FOLDER), true, &mut failures) {
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) => {
                failures.push(format!("{}: {error}", file.display()));
                continue;
            }
        };
        let list: Value = match serde_json::from_slice(&bytes) {
            Ok(list) => list,
            Err(error) => {
                failures.push(format!("{}: {error}", file.display()));
                continue;
            }
        };
        let network = list["name"].as_str().unwrap_or_default().to_owned();
        // A file with one plugin has no list.
        let entries = match &list["plugins"] {
            Value::Array(entries) => entries.clone(),
            _ => vec![list.clone()],
        };
        for conf in entries {
            found.push(Entry {
                file: file.clone(),
                network: network.clone(),
                conf,
            });
        }
    }
    (found, failures)
}

/// The configurations in a folder, and in its folders, by name.
fn files(folder: &Path, deeper: bool, failures: &mut Vec<String>) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            failures.push(format!("{}: {error}", folder.display()));
            return Vec::new();
        }
        Ok(entries) => entries,
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            if deeper {
                found.extend(files(&path, false, failures));
            }
        } else if path
            .extension()
            .is_some_and(|it| it == "conflist" || it == "conf" || it == "json")
        {
            found.push(path);
        }
    }
    found
}
