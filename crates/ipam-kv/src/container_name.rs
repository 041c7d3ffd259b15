//! A container's name, for people who read tables of addresses. CNI knows none, so it is what each runtime happens to tell:
//!
//! | runtime | where | form |
//! |---|---|---|
//! | containerd's CRI, CRI-O | `K8S_POD_NAMESPACE` and `K8S_POD_NAME` of `CNI_ARGS` | `default/web-0` |
//! | podman | `K8S_POD_NAME` of `CNI_ARGS` | `web` |
//! | Nomad 1.10 or newer | `NOMAD_JOB_ID` and `NOMAD_GROUP_NAME` of `CNI_ARGS` | `shop.web` |
//! | nerdctl | annotation `nerdctl/name` of the OCI bundle, which is the plugin's working directory | `web` |
//!
//! Others, such as cnitool, tell none. A name decides nothing: containers are told apart by their ids.

use std::{collections::HashMap, fs::File, io::Read as _, path::Path};

use cni::{Call, CniArgs};
use serde::Deserialize;

/// Most bytes of a bundle's configuration that are read: nerdctl's have some tens of thousands.
const MOST: u64 = 1 << 20;
/// Most characters of a name. Pods' names have at most 253.
const LONGEST: usize = 256;

/// The name of the container of a call, if its runtime tells one.
pub fn of(call: &Call) -> Option<String> {
    let folder = std::env::current_dir().ok();
    let id = call.container.as_ref().map(ToString::to_string);
    let name = told(&call.args).or_else(|| in_bundle(&folder?, &id?))?;
    Some(name.chars().take(LONGEST).collect())
}

fn told(args: &CniArgs) -> Option<String> {
    let get = |key| args.get(key).filter(|value| !value.is_empty());
    match (get("K8S_POD_NAMESPACE"), get("K8S_POD_NAME")) {
        (Some(namespace), Some(name)) => return Some(format!("{namespace}/{name}")),
        (None, Some(name)) => return Some(name.to_owned()),
        (_, None) => {}
    }
    let (job, group) = (get("NOMAD_JOB_ID")?, get("NOMAD_GROUP_NAME")?);
    Some(format!("{job}.{group}"))
}

/// What is read of an OCI bundle's `config.json`.
#[derive(Deserialize)]
struct Bundle {
    annotations: HashMap<String, String>,
}

/// The name in the bundle, if that is the bundle of container `id`: nerdctl makes the id of its namespace and the bundle's name.
fn in_bundle(folder: &Path, id: &str) -> Option<String> {
    let namespace = id.strip_suffix(folder.file_name()?.to_str()?)?;
    let namespace = namespace.strip_suffix('-')?;
    let mut text = Vec::new();
    let file = File::open(folder.join("config.json")).ok()?;
    file.take(MOST).read_to_end(&mut text).ok()?;
    let Bundle { mut annotations } = serde_json::from_slice(&text).ok()?;
    if annotations.get("nerdctl/namespace")? != namespace {
        return None;
    }
    annotations
        .remove("nerdctl/name")
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runtime_tells_it_in_its_way() {
        for (args, name) in [
            (
                "IgnoreUnknown=1;K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=default",
                Some("default/web-0"),
            ),
            ("IgnoreUnknown=1;K8S_POD_NAME=web", Some("web")),
            (
                "NOMAD_GROUP_NAME=web;NOMAD_JOB_ID=shop;NOMAD_ALLOC_ID=x",
                Some("shop.web"),
            ),
            ("NOMAD_JOB_ID=shop", None),
            ("K8S_POD_NAME=;K8S_POD_NAMESPACE=default", None),
            ("IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=web1", None),
            ("", None),
        ] {
            assert_eq!(told(&CniArgs::parse(args)).as_deref(), name, "{args}");
        }
    }

    #[test]
    fn a_bundle_tells_the_name_of_its_own_container_only() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("c0ffee");
        std::fs::create_dir(&folder).unwrap();
        let says = |text: &str| std::fs::write(folder.join("config.json"), text).unwrap();
        assert_eq!(in_bundle(&folder, "default-c0ffee"), None);
        says(
            r#"{"ociVersion":"1.0","annotations":{"nerdctl/namespace":"default","nerdctl/name":"web"},"mounts":[]}"#,
        );
        let name = |id| in_bundle(&folder, id);
        assert_eq!(name("default-c0ffee").as_deref(), Some("web"));
        for other in ["other-c0ffee", "c0ffee", "default-beef", "defaultc0ffee"] {
            assert_eq!(name(other), None, "{other}");
        }
        for text in ["{}", "", r#"{"annotations":null}"#] {
            says(text);
            assert_eq!(name("default-c0ffee"), None, "{text}");
        }
    }
}
