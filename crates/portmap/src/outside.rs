//! By which interfaces clients come to this host, and whether it forwards what they send.

use std::{collections::BTreeSet, fs};

use cni::Error;
use netlink::{Netns, Rtnl};
use nft::Blocked;

use crate::{
    kernel,
    record::{Record, Run},
    way,
};

/// Name and index.
pub(crate) type Link = (String, u32);

/// The interfaces by which a client of another machine may come over a version of IP, to be led on by `via`: those by which a router is
/// reached, and those with an address. A bridge or one end of a veth pair that is no way to a router has containers alone behind it.
pub(crate) async fn links(via: &str, v6: bool) -> Result<Vec<Link>, Error> {
    let here = Netns::current().map_err(|error| kernel(&error))?;
    let rtnl = Rtnl::here(&here).map_err(|error| kernel(&error))?;
    let all = rtnl.links().await.map_err(|error| kernel(&error))?;
    let routes = rtnl.routes().await.map_err(|error| kernel(&error))?;
    let addresses = rtnl.addresses(None).await.map_err(|error| kernel(&error))?;
    let leads_on = |index: u32| {
        let by = |route: &&netlink::Route| route.dev == index && route.dst.is_ipv6() == v6;
        let mut routes = routes.iter().filter(by);
        routes.any(|route| route.gateway.is_some())
    };
    let is_here = |index: u32| {
        let is_global = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V6(address) => !address.is_unicast_link_local(),
            std::net::IpAddr::V4(_) => true,
        };
        addresses.iter().any(|(link, address)| {
            *link == index && address.is_ipv6() == v6 && is_global(address.ip())
        })
    };
    let outside = all.into_iter().filter(|link| {
        let is_inner = matches!(link.kind.as_deref(), Some("bridge" | "veth"));
        let is_own = link.name == "lo" || link.name == via;
        link.up && !is_own && (leads_on(link.index) || (!is_inner && is_here(link.index)))
    });
    Ok(outside.map(|link| (link.name, link.index)).collect())
}

/// What of the kernel's settings keeps packets from the record's ports, or their answers from clients, with what turns it on.
pub(crate) fn off(record: &Record) -> Vec<Blocked> {
    let forwarded = || record.runs.iter().filter(|run| !way::is_here(run));
    let mut keys = BTreeSet::new();
    for run in forwarded() {
        keys.extend(if run.to.is_ipv6() {
            // The kernel asks no interface.
            Some("net.ipv6.conf.all.forwarding".to_owned()).filter(|key| is_off(key))
        } else {
            off4(run)
        });
    }
    let blocked = |key: String| Blocked {
        certain: true,
        why: format!("{key} is 0: this host forwards nothing to containers"),
        allow: format!("sysctl -w {key}=1"),
        chain: key,
    };
    keys.into_iter().map(blocked).collect()
}

/// Over IPv4 each interface by which something comes has a setting, and the global one turns all of them.
fn off4(run: &Run) -> Option<String> {
    let global = "net.ipv4.ip_forward";
    let of = |link: &str| format!("net.ipv4.conf.{}.forwarding", link.replace('.', "/"));
    let via = of(&run.via);
    if !is_off(global) {
        return Some(via).filter(|via| is_off(via));
    }
    let links = fs::read_dir("/proc/sys/net/ipv4/conf");
    let links = links.into_iter().flatten().filter_map(Result::ok);
    let mut others = links.filter_map(|link| link.file_name().into_string().ok());
    let no_client = ["all", "default", "lo", &run.via];
    let comes_in = others.any(|link| !no_client.contains(&link.as_str()) && !is_off(&of(&link)));
    (!comes_in || is_off(&via)).then(|| global.to_owned())
}

/// Whether a key of sysctl is 0; not, if nobody can say. A dot in an interface's name is a slash in the key.
fn is_off(key: &str) -> bool {
    let swapped = key.chars().map(|c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    });
    let path: String = "/proc/sys/".chars().chain(swapped).collect();
    fs::read_to_string(path).is_ok_and(|value| value.trim() == "0")
}
