//! Which container holds which address: as the interfaces inside the containers say, and as the store says. Neither asks our code.

use std::collections::BTreeMap;
use std::net::IpAddr;

use integration::{Container, Host, Lab};
use serde_json::Value;

/// A container that holds an address, by the name of its host and its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    pub(crate) host: String,
    pub(crate) container: String,
}

impl Held {
    /// By this container.
    pub(crate) fn by(container: &Container<'_>) -> Self {
        Held {
            host: container.host().name().to_owned(),
            container: container.name().to_owned(),
        }
    }
}

/// Reads `eth0` in each container's namespace of every host: an address, and all that have it.
#[track_caller]
pub(crate) fn by_interfaces(lab: &Lab) -> BTreeMap<IpAddr, Vec<Held>> {
    let mut all = BTreeMap::<IpAddr, Vec<Held>>::new();
    for host in lab.hosts() {
        for (address, held) in on_host(host) {
            all.entry(address).or_default().push(held);
        }
    }
    all
}

/// One process for each container, since each has a namespace of its own. One that has no `eth0`, or is removed
/// meanwhile, holds nothing.
fn on_host(host: &Host) -> Vec<(IpAddr, Held)> {
    let script = "cd /run/netns 2>/dev/null || exit 0
        for name in *; do
            ip -netns \"$name\" -oneline -4 address show dev eth0 2>/dev/null | sed \"s/^/$name /\"
        done";
    let said = host.run(&["sh", "-uc", script]).ok().stdout;
    let line = |line: &str| {
        // NAME INDEX: eth0 inet ADDRESS/LENGTH ...
        let words: Vec<_> = line.split_whitespace().collect();
        let address = words.get(4).and_then(|it| it.split('/').next());
        let address = address.and_then(|it| it.parse().ok());
        let held = Held {
            host: host.name().to_owned(),
            container: words[0].to_owned(),
        };
        (address.expect("an address from ip"), held)
    };
    said.lines().map(line).collect()
}

/// The addresses that more than one container has.
pub(crate) fn doubled(
    all: &BTreeMap<IpAddr, Vec<Held>>,
) -> impl Iterator<Item = (&IpAddr, &Vec<Held>)> {
    all.iter().filter(|(_, holders)| holders.len() > 1)
}

/// Insists that no two containers have the same address; which container has which.
#[track_caller]
pub(crate) fn alone(lab: &Lab, when: &str) -> BTreeMap<IpAddr, Held> {
    let all = by_interfaces(lab);
    let doubled: Vec<_> = doubled(&all).collect();
    assert!(doubled.is_empty(), "{when}: held twice: {doubled:#?}");
    let first = |(address, mut holders): (_, Vec<Held>)| Some((address, holders.pop()?));
    all.into_iter().filter_map(first).collect()
}

/// The leases of `network` in the store, from its records by key.
#[track_caller]
pub(crate) fn by_leases(
    records: &BTreeMap<String, String>,
    network: &str,
) -> BTreeMap<IpAddr, Held> {
    let below = format!("leases/{network}/");
    let lease = |(key, text): (&String, &String)| {
        let address = key.strip_prefix(&below)?.parse().expect("an address");
        let lease: Value = serde_json::from_str(text).expect("a lease");
        let word = |key: &str| lease[key].as_str().expect("a word").to_owned();
        assert_eq!(lease["ifname"], "eth0", "{key}: {text}");
        let held = Held {
            host: word("node"),
            container: word("containerID"),
        };
        Some((address, held))
    };
    records.iter().filter_map(lease).collect()
}
