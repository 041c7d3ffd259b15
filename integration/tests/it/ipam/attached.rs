//! What the scenarios with interface plugins of others compare: the addresses that are on the containers' interfaces with
//! the leases that are in the store. Both name the host, so that a lease on the wrong one is seen too.

use std::collections::BTreeMap;
use std::net::IpAddr;

use integration::{Attachment, Backend, Container, Lab};
use serde_json::Value;

use crate::store_reader;

/// Three hosts that have these networks.
pub(crate) fn lab(backend: Backend, conflists: &[Value]) -> Lab {
    let lab = Lab::new(3, backend);
    for host in lab.hosts() {
        for conflist in conflists {
            host.install(conflist);
        }
    }
    lab
}

/// Containers of these names on each host, attached on all hosts at once.
pub(crate) fn attach<'lab>(lab: &'lab Lab, network: &str, names: &[&str]) -> Vec<Attachment<'lab>> {
    std::thread::scope(|scope| {
        let on = |host| {
            let add = move |name: &&str| Attachment::new(host, name, network);
            scope.spawn(move || names.iter().map(add).collect::<Vec<_>>())
        };
        let hosts: Vec<_> = lab.hosts().iter().map(on).collect();
        let attached = hosts.into_iter().map(|host| host.join().expect("the ADDs"));
        attached.flatten().collect()
    })
}

/// Which host has which address on a container's interface, and has it alone.
pub(crate) fn on_interfaces(attached: &[Attachment]) -> BTreeMap<IpAddr, String> {
    let mut all = BTreeMap::new();
    for one in attached {
        let found = addresses(&one.container, &one.ifname);
        assert!(found.contains(&one.address), "{found:?}: {}", one.address);
        for address in found {
            let twin = all.insert(address, one.host().name().to_owned());
            assert_eq!(twin, None, "{address} twice");
        }
    }
    all
}

/// The addresses that an interface really has, without link-local ones.
pub(crate) fn addresses(container: &Container, ifname: &str) -> Vec<IpAddr> {
    let listing = container.ip(&["address", "show", "dev", ifname, "scope", "global"]);
    let found = listing[0]["addr_info"].as_array().into_iter().flatten();
    let found = found.filter_map(|one| one["local"].as_str()?.parse().ok());
    found.collect()
}

/// Which host holds which address of `network`, by the store.
pub(crate) fn leases(lab: &Lab, network: &str) -> BTreeMap<IpAddr, String> {
    let records = store_reader::records(lab);
    let leases = records.iter().filter_map(|(key, lease)| {
        let address = key.strip_prefix(&format!("leases/{network}/"))?;
        let lease: Value = serde_json::from_str(lease).expect("a lease");
        let node = lease["node"].as_str().expect("a node").to_owned();
        Some((address.parse().expect("an address"), node))
    });
    leases.collect()
}

/// DEL of each in turn frees its lease and no other.
pub(crate) fn all_go(lab: &Lab, attached: &[Attachment]) {
    for (position, one) in attached.iter().enumerate() {
        one.detach().ok();
        assert_eq!(one.container.link(&one.ifname), Value::Null, "after DEL");
        let left = on_interfaces(&attached[position + 1..]);
        assert_eq!(leases(lab, &one.network), left, "after DEL");
        one.detach().ok();
    }
}

/// The container's id of an attachment, as its host lists it.
pub(crate) fn id_of(one: &Attachment) -> String {
    let listed = one.host().listed("endpoint ls --local");
    let mut listed = listed.as_array().into_iter().flatten();
    let mine = listed.find(|it| it["address"] == one.address.to_string());
    let mine = mine.unwrap_or_else(|| panic!("no {} on its host", one.address));
    mine["containerID"].as_str().expect("an id").to_owned()
}
