//! What a user of crosshost does: a conflist, an attachment through cnitool, its end.

use std::borrow::Borrow;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::container::Container;
use crate::host::Host;
use crate::lab::Lab;
use crate::run::Finished;

/// The smallest conflist of a network: the same on each host, since what differs between hosts is
/// in `/etc/crosshost/config.json`. Of several subnets, with spaces between them, a container has an address each.
pub fn conflist(name: &str, subnets: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["1.1.0"],
        "name": name,
        "plugins": [{
            "type": "overlay",
            "capabilities": { "ips": true },
            "ipam": { "type": "ipam-kv", "ranges": ranges(subnets) },
        }],
    })
}

/// `ipam.ranges` with a pool for each subnet of a text with spaces between them.
pub fn ranges(subnets: &str) -> Value {
    let pools = subnets
        .split(' ')
        .map(|subnet| json!([{ "subnet": subnet }]));
    pools.collect()
}

/// The configuration that a runtime hands to the first plugin of [`conflist`] at one spec version.
pub fn netconf(name: &str, subnets: &str, version: &str) -> Value {
    let mut conf = conflist(name, subnets)["plugins"][0].clone();
    conf["cniVersion"] = version.into();
    conf["name"] = name.into();
    conf
}

/// A container's place in a network, made through cnitool.
pub struct Attachment<'host> {
    /// The container.
    pub container: Container<'host>,
    /// The network's name.
    pub network: String,
    /// The interface's name inside.
    pub ifname: String,
    /// The address in the network, from the result.
    pub address: IpAddr,
    /// The result of ADD as cnitool printed it.
    pub result: Value,
}

impl<'host> Attachment<'host> {
    /// A new container `name` on `host`, attached to `network` as eth0.
    #[track_caller]
    pub fn new(host: &'host Host, name: &str, network: &str) -> Self {
        Self::of(host.container(name), network, "eth0")
    }

    /// Attaches `container` to `network` as `ifname`.
    #[track_caller]
    pub fn of(container: Container<'host>, network: &str, ifname: &str) -> Self {
        let added = container
            .host()
            .cnitool("add", network, container.name(), ifname);
        let result = added.ok().json();
        Attachment {
            address: address_of(&result, ifname),
            container,
            network: network.to_owned(),
            ifname: ifname.to_owned(),
            result,
        }
    }

    /// A new container on each host of the laboratory, attached to `network` as eth0: t1 on the first, and so on.
    #[track_caller]
    pub fn on_each<const HOSTS: usize>(lab: &'host Lab, network: &str) -> [Self; HOSTS] {
        assert_eq!(lab.hosts().len(), HOSTS, "a name for each host");
        std::array::from_fn(|at| Self::new(&lab.hosts()[at], &format!("t{}", at + 1), network))
    }

    /// The host it is on.
    pub fn host(&self) -> &'host Host {
        self.container.host()
    }

    /// `cnitool del`, with the namespace's path whether or not it still exists.
    #[track_caller]
    pub fn detach(&self) -> Finished {
        let (network, name) = (&self.network, self.container.name());
        self.host().cnitool("del", network, name, &self.ifname)
    }

    /// `cnitool check`.
    #[track_caller]
    pub fn check(&self) -> Finished {
        let (network, name) = (&self.network, self.container.name());
        self.host().cnitool("check", network, name, &self.ifname)
    }

    /// Detaches it and removes the container.
    #[track_caller]
    pub fn end(&self) {
        self.detach().ok();
        self.container.remove();
    }
}

/// Detaches all of them, one after the other.
#[track_caller]
pub fn detach_all<'host>(all: impl IntoIterator<Item = impl Borrow<Attachment<'host>>>) {
    for attached in all {
        attached.borrow().detach().ok();
    }
}

/// Detaches all of them and removes their containers.
#[track_caller]
pub fn end_all<'host>(all: impl IntoIterator<Item = impl Borrow<Attachment<'host>>>) {
    for attached in all {
        attached.borrow().end();
    }
}

/// Where a result of spec 0.3.0 or later lists the interface `ifname`.
#[track_caller]
pub fn position_of(result: &Value, ifname: &str) -> usize {
    let interfaces = result["interfaces"].as_array();
    interfaces
        .and_then(|all| all.iter().position(|one| one["name"] == ifname))
        .unwrap_or_else(|| panic!("no interface {ifname} in {result:#}"))
}

/// The address that a result of spec 0.3.0 or later gives to the interface `ifname` in the sandbox.
#[track_caller]
pub fn address_of(result: &Value, ifname: &str) -> IpAddr {
    let position = position_of(result, ifname);
    let ips = result["ips"].as_array().into_iter().flatten();
    let mut addresses = ips
        .filter(|ip| ip["interface"] == position)
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
    addresses
        .next()
        .unwrap_or_else(|| panic!("no address of {ifname} in {result:#}"))
}
