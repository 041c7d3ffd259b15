//! The dependencies that `crates/README.md` allows between crates.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use integration::workspace;
use serde_json::Value;

const LIBRARIES: [&str; 8] = [
    "cni", "store", "ipam", "cluster", "netlink", "nft", "ruleset", "journal",
];
/// What the plugins have in common beyond CNI: it knows the libraries, and they do not know it.
const SHARED: &str = "plugin";
const PLUGINS: [&str; 3] = ["overlay", "ipam-kv", "portmap"];
/// What is started: the plugins under their names, and the operator's command.
const PROGRAMS: [&str; 2] = ["crosshost-cni", "crosshost"];
/// The rtnetlink family breaks its API with each minor release: three crates pay for that, no others.
const NETLINK_FAMILY: [&str; 6] = [
    "rtnetlink",
    "netlink-packet-core",
    "netlink-packet-netfilter",
    "netlink-packet-route",
    "netlink-proto",
    "netlink-sys",
];

#[test]
fn libraries_do_not_know_each_other_but_for_cluster_and_ruleset() {
    for (name, needs) in arrows() {
        if LIBRARIES.contains(&name.as_str()) {
            let ours: BTreeSet<_> = needs.iter().filter(|one| is_ours(one)).cloned().collect();
            let allowed: &[&str] = match name.as_str() {
                "cluster" => &["ipam", "store"],
                "ruleset" => &["nft"],
                _ => &[],
            };
            let beyond: Vec<_> = ours
                .iter()
                // Its own tests may know a crate with a feature on.
                .filter(|it| !allowed.contains(&it.as_str()) && **it != name)
                .collect();
            assert!(beyond.is_empty(), "{name} must not know {beyond:?}");
        }
    }
}

/// Newer Consuls require both, and neither has an open-source licence.
#[test]
fn no_tool_is_built_of_a_module_without_a_licence() {
    let mut seen = 0;
    for entry in std::fs::read_dir(workspace().join("integration/tools"))
        .expect("a folder")
        .flatten()
    {
        for file in ["go.mod", "go.sum"] {
            let Ok(text) = std::fs::read_to_string(entry.path().join(file)) else {
                continue;
            };
            seen += 1;
            for module in [
                "github.com/hashicorp/consul/envoyextensions",
                "github.com/hashicorp/consul/troubleshoot",
            ] {
                assert!(
                    !text.contains(module),
                    "{module} in {}",
                    entry.path().display()
                );
            }
        }
    }
    assert!(seen > 6, "the tools were read: {seen}");
}

#[test]
fn plugins_meet_only_through_cni() {
    for (name, needs) in arrows() {
        if PLUGINS.contains(&name.as_str()) || name == SHARED {
            for other in PLUGINS.iter().chain(&PROGRAMS).chain(&["integration"]) {
                assert!(!needs.contains(*other), "{name} must not know {other}");
            }
        }
    }
}

#[test]
fn the_scenarios_know_the_product_from_outside_only() {
    let needs = &arrows()["integration"];
    let ours: Vec<_> = needs.iter().filter(|one| is_ours(one)).collect();
    assert!(ours.is_empty(), "integration must not link {ours:?}");
}

#[test]
fn the_netlink_crates_are_known_to_three_of_ours() {
    for (name, needs) in arrows() {
        if !["netlink", "nft", "ruleset"].contains(&name.as_str()) {
            let known: Vec<_> = NETLINK_FAMILY
                .iter()
                .filter(|it| needs.contains(**it))
                .collect();
            assert!(known.is_empty(), "{name} must not know {known:?}");
        }
    }
}

#[test]
fn every_crate_has_its_place_on_the_map() {
    for name in arrows().keys() {
        let placed = is_ours(name) || name == "integration";
        assert!(
            placed,
            "{name}: say in crates/README.md and in this test what it may know"
        );
    }
}

fn is_ours(name: &str) -> bool {
    [&LIBRARIES[..], &[SHARED], &PLUGINS, &PROGRAMS]
        .concat()
        .contains(&name)
}

/// Every package of the workspace with the names of the packages that it depends on, for tests too.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let said = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(workspace())
        .output()
        .expect("cargo metadata");
    let metadata: Value = serde_json::from_slice(&said.stdout).expect("cargo's JSON");
    let names = |list: &Value| {
        let all = list.as_array().cloned().unwrap_or_default();
        let names = all
            .into_iter()
            .map(|one| one["name"].as_str().unwrap_or_default().to_owned());
        names.collect::<BTreeSet<_>>()
    };
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let arrows: BTreeMap<_, _> = packages
        .iter()
        .map(|one| {
            let name = one["name"].as_str().unwrap_or_default().to_owned();
            (name, names(&one["dependencies"]))
        })
        .collect();
    assert!(arrows.len() > 8, "the workspace: {:?}", arrows.keys());
    arrows
}
