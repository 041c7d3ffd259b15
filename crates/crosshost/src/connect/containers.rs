//! The running containers of this host, as far as runtimes tell of them, so that a command can take a name.
//!
//! No runtime is asked. containerd's shims have a folder for each task, the OCI bundle, whose `config.json` has the annotations of
//! nerdctl and of the CRI; podman's monitors have id, name and pid file on their command lines. What cannot be read is left out. A
//! container on one of our networks is also known by its attachment, whatever runs it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Where containerd keeps bundles by default: `NAMESPACE/ID`.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task";

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The id with which its runtime calls plugins (`CNI_CONTAINERID`).
    pub cni_id: String,
    /// The id that the runtime shows.
    pub id: String,
    /// Its names, in the order in which they are shown.
    pub names: Vec<String>,
    /// Its network namespace.
    pub netns: PathBuf,
}

impl Container {
    /// Whether this is what a person calls it: a name, the id, or at least three digits with which the id begins.
    pub fn is_called(&self, word: &str) -> bool {
        self.names.iter().any(|name| name == word)
            || self.cni_id == word
            || self.id == word
            || (word.len() >= 3 && self.id.starts_with(word))
    }
}

/// All containers that runtimes tell of.
pub fn all() -> Vec<Container> {
    let mut roots = BTreeSet::from([PathBuf::from(BUNDLES)]);
    let mut found = Vec::new();
    for process in processes() {
        let Ok(line) = fs::read(process.join("cmdline")) else {
            continue;
        };
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        let words: Vec<_> = words.iter().map(|it| String::from_utf8_lossy(it)).collect();
        let program = words.first().map_or("", |word| word.as_ref());
        let program = program.rsplit('/').next().unwrap_or_default();
        if program.starts_with("containerd-shim") {
            // A shim works in the bundle of its first container.
            let bundle = fs::read_link(process.join("cwd")).unwrap_or_default();
            roots.extend(bundle.ancestors().nth(2).map(Path::to_owned));
        } else if program == "conmon" {
            found.extend(of_conmon(&words));
        }
    }
    for root in roots {
        for namespace in entries(&root) {
            found.extend(entries(&namespace).iter().filter_map(|it| of_bundle(it)));
        }
    }
    found
}

fn processes() -> Vec<PathBuf> {
    let is_process = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries(Path::new("/proc"))
        .into_iter()
        .filter(is_process)
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The namespace of a process that a file names.
fn netns(pid_file: &Path) -> Option<PathBuf> {
    let pid: u32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let netns = Path::new("/proc").join(pid.to_string()).join("ns/net");
    netns.exists().then_some(netns)
}

fn of_bundle(bundle: &Path) -> Option<Container> {
    let config = fs::read(bundle.join("config.json")).ok()?;
    let config: Value = serde_json::from_slice(&config).ok()?;
    let netns = netns(&bundle.join("init.pid"))?;
    let id = bundle.file_name()?.to_str()?;
    let namespace = bundle.parent()?.file_name()?.to_str()?;
    Some(described(namespace, id, &config["annotations"], netns))
}

/// The container of a bundle with these annotations.
fn described(namespace: &str, id: &str, annotations: &Value, netns: PathBuf) -> Container {
    let noted = |key: &str| annotations[key].as_str().map(str::to_owned);
    let sandbox = noted("io.kubernetes.cri.sandbox-id");
    let mut names = Vec::new();
    if let Some(pod) = noted("io.kubernetes.cri.sandbox-name") {
        let of = noted("io.kubernetes.cri.sandbox-namespace");
        names.extend(of.map(|of| format!("{of}/{pod}")));
        names.push(pod);
    }
    names.extend(noted("nerdctl/name"));
    Container {
        cni_id: sandbox.unwrap_or_else(|| format!("{namespace}-{id}")),
        id: id.to_owned(),
        names,
        netns,
    }
}

/// The container that a conmon watches, by its options: `-c` id, `-n` name, `-p` file with the pid.
fn of_conmon<S: AsRef<str>>(words: &[S]) -> Option<Container> {
    let option = |name: &str| {
        let at = words.iter().position(|word| word.as_ref() == name)?;
        words.get(at + 1).map(|word| word.as_ref().to_owned())
    };
    let id = option("-c")?;
    Some(Container {
        cni_id: id.clone(),
        netns: netns(Path::new(&option("-p")?))?,
        names: option("-n").into_iter().collect(),
        id,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_called_by_its_names_and_ids() {
        let annotations = json!({ "nerdctl/name": "web" });
        let container = described("default", "97a99c0562", &annotations, PathBuf::new());
        assert_eq!(container.cni_id, "default-97a99c0562");
        for word in ["web", "97a99c0562", "97a", "default-97a99c0562"] {
            assert!(container.is_called(word), "{word}");
        }
        for word in ["we", "97", "9a9", "default", ""] {
            assert!(!container.is_called(word), "{word}");
        }
    }

    #[test]
    fn a_container_of_a_pod_has_the_attachments_of_its_pod() {
        let annotations = json!({
            "io.kubernetes.cri.sandbox-id": "5aa", "io.kubernetes.cri.sandbox-name": "dns",
            "io.kubernetes.cri.sandbox-namespace": "kube-system",
        });
        let container = described("k8s.io", "97a", &annotations, PathBuf::new());
        assert_eq!(container.cni_id, "5aa");
        assert!(container.is_called("kube-system/dns") && container.is_called("dns"));
    }

    #[test]
    fn a_conmon_names_its_container() {
        let own = std::process::id();
        let file = std::env::temp_dir().join(format!("crosshost-conmon-{own}"));
        fs::write(&file, own.to_string()).unwrap();
        let file_name = file.to_str().unwrap();
        let line = [
            "/usr/bin/conmon",
            "-c",
            "0123456789",
            "-p",
            file_name,
            "-n",
            "web",
        ];
        let container = of_conmon(&line).unwrap();
        assert_eq!(
            (container.id.as_str(), container.names.concat()),
            ("0123456789", "web".to_owned())
        );
        assert_eq!(container.netns, Path::new(&format!("/proc/{own}/ns/net")));
        fs::remove_file(&file).unwrap();
        assert_eq!(of_conmon(&line), None, "it has ended");
    }
}
