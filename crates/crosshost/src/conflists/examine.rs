//! What is wrong with the network configurations of this host, in the folders of the runtimes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cluster::Settings;
use overlay::maintain::findings::{Check, Findings};
use serde_json::{Value, json};

use crate::session::{Session, environment};

/// Where runtimes look, and in folders there (nerdctl has one for each namespace of containerd).
const FOLDER: &str = "/etc/cni/net.d";

/// An entry of ours in a configuration, with the file.
struct Entry {
    file: PathBuf,
    conf: Value,
}

/// Names the keys that nobody reads, files that cannot be read, and stores that are not this host's.
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
        if let Err(refused) = another_store(&entry.conf) {
            let says = format!("{}: {refused}", entry.file.display());
            findings.wrong(Check::Conflist, says, "");
        }
    }
}

/// Refuses an entry as its ADD does, if it names another store than the host's configuration file. Values that the ADD
/// refuses for themselves are not looked at.
fn another_store(conf: &Value) -> Result<(), cluster::Error> {
    let settings = Settings {
        store: serde_json::from_value(conf["store"].clone()).unwrap_or_default(),
        ..Settings::default()
    };
    let resolved = settings.resolve(&environment());
    resolved.map_or(Ok(()), |settings| settings.refuse_another_store())
}

/// The folders and files that say which plugins runtimes start.
pub fn paths() -> Vec<PathBuf> {
    let folder = PathBuf::from(FOLDER);
    let files = files(&folder, true, &mut Vec::new());
    std::iter::once(folder).chain(files).collect()
}

/// The conflist of a network that a runtime of this host would use, in the form with a list of plugins.
pub fn of_network(session: &Session, network: &str) -> Option<Value> {
    let mut folders = vec![PathBuf::from(FOLDER)];
    folders.extend(session.settings.network.conflist_dirs.iter().cloned());
    for file in folders
        .iter()
        .flat_map(|it| files(it, true, &mut Vec::new()))
    {
        // What cannot be read is doctor's business.
        let text = fs::read(&file).unwrap_or_default();
        let list: Value = serde_json::from_slice(&text).unwrap_or_default();
        if list["name"] != network {
            continue;
        }
        return Some(if list["plugins"].is_array() {
            list
        } else {
            json!({ "cniVersion": list["cniVersion"], "name": network, "plugins": [list] })
        });
    }
    None
}

/// All entries that are ours or use `ipam-kv`, and what could not be read.
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
        // A file with one plugin has no list.
        let entries = match &list["plugins"] {
            Value::Array(entries) => entries.clone(),
            _ => vec![list.clone()],
        };
        for conf in entries {
            found.push(Entry {
                file: file.clone(),
                conf,
            });
        }
    }
    (found, failures)
}

/// Whether runtimes read a file of this name.
pub fn is_configuration(path: &Path) -> bool {
    let extension = path.extension();
    extension.is_some_and(|it| it == "conflist" || it == "conf" || it == "json")
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
        } else if is_configuration(&path) {
            found.push(path);
        }
    }
    found
}
