//! The container's address for each version of IP, and the host's interface that leads there.
//!
//! The reference plugin takes the first address of the container's interface. That is right if the host can reach it, as on a
//! bridge. On a segment of `overlay` it cannot; there the result has another interface of the container, by which it leaves,
//! and whose address the host reaches on a link.

use std::net::IpAddr;

use cni::{CniResult, IfName};
use netlink::{Netns, Rtnl};
use plugin::{Error, code};

/// An address of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The address.
    pub address: IpAddr,
    /// The host's interface that leads there.
    pub via: String,
    /// The gateway, if the address is not on a link of this host.
    pub gateway: Option<IpAddr>,
}

/// The targets over IPv4 and IPv6, and the addresses of this host. A version of IP is left out if the container has no
/// address or this host no route; an error if both are.
pub async fn find(
    result: &CniResult,
    ifname: &IfName,
) -> Result<([Option<Target>; 2], Vec<IpAddr>), Error> {
    let here = Netns::current()?;
    let rtnl = Rtnl::here(&here)?;
    let (mut targets, mut lost) = ([None, None], Vec::new());
    for v6 in [false, true] {
        let candidates = candidates(result, ifname, v6);
        let found = best(&rtnl, &candidates).await?;
        if found.is_none() && !candidates.is_empty() {
            let all: Vec<_> = candidates.iter().map(ToString::to_string).collect();
            let why = "this host has no route to the container at";
            lost.push(format!("{why} {}", all.join(", ")));
        }
        targets[usize::from(v6)] = found;
    }
    if targets.iter().all(Option::is_none) && !lost.is_empty() {
        return Err(Error::new(code::KERNEL, lost.join("; ")));
    }
    for why in lost {
        cni::log(&why);
    }
    Ok((targets, addresses(&rtnl).await?))
}

/// The addresses of this host.
pub async fn local() -> Result<Vec<IpAddr>, Error> {
    let here = Netns::current()?;
    addresses(&Rtnl::here(&here)?).await
}

async fn addresses(rtnl: &Rtnl) -> Result<Vec<IpAddr>, Error> {
    let all = rtnl.addresses(None).await?;
    Ok(all.into_iter().map(|(_, network)| network.ip()).collect())
}

/// The first address that this host reaches on a link, or else the first to which it has a route.
async fn best(rtnl: &Rtnl, candidates: &[IpAddr]) -> Result<Option<Target>, Error> {
    let mut far = None;
    for address in candidates.iter().copied() {
        let Ok(hop) = rtnl.route_to(address).await else {
            continue;
        };
        if !hop.is_to_one {
            continue;
        }
        let target = Target {
            address,
            via: netlink::name_of(hop.dev)?,
            gateway: hop.gateway,
        };
        if target.gateway.is_none() {
            return Ok(Some(target));
        }
        far.get_or_insert(target);
    }
    if let Some(Target {
        address,
        gateway: Some(gateway),
        ..
    }) = &far
    {
        cni::log(&format!(
            "{address} is not on a link of this host, but behind {gateway}: its ports lead to whatever host has that address"
        ));
    }
    Ok(far)
}

/// The container's addresses in order of preference: of the interface by which it leaves, of the chained interface, of
/// others.
fn candidates(result: &CniResult, ifname: &IfName, v6: bool) -> Vec<IpAddr> {
    // A loopback address would be this host's own, and an unspecified one would match the default route.
    let leads_nowhere = |it: IpAddr| it.is_loopback() || it.is_unspecified();
    let is_of = |ip: &&cni::Ip| ip.address.is_ipv6() == v6 && !leads_nowhere(ip.address.ip());
    let ips = || result.ips.iter().filter(is_of);
    let interface = |ip: &cni::Ip| result.interfaces.get(ip.interface?);
    let is_inside = |ip: &cni::Ip| {
        interface(ip).is_some_and(|it| it.sandbox.as_ref().is_some_and(|path| !path.is_empty()))
    };
    let is_chained = |ip: &cni::Ip| {
        ip.interface.is_none()
            || (is_inside(ip) && interface(ip).is_some_and(|it| it.name == ifname.as_str()))
    };
    let everywhere = |route: &&cni::Route| route.dst.prefix() == 0 && route.dst.is_ipv6() == v6;
    let gateways = || {
        result
            .routes
            .iter()
            .filter(everywhere)
            .filter_map(|it| it.gw)
    };
    let leaves = |ip: &cni::Ip| gateways().any(|gateway| ip.address.contains(gateway));
    let first = ips().filter(|ip| (is_inside(ip) || ip.interface.is_none()) && leaves(ip));
    let chained = ips().filter(|ip| is_chained(ip));
    let others = ips().filter(|ip| is_inside(ip));
    let mut all: Vec<IpAddr> = Vec::new();
    for address in first.chain(chained).chain(others).map(|ip| ip.address.ip()) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use cni::{Interface, Ip, Route};

    use super::*;

    fn inside(name: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            sandbox: Some("/run/netns/c".to_owned()),
            ..Interface::default()
        }
    }

    fn ip(address: &str, interface: Option<usize>) -> Ip {
        Ip {
            interface,
            ..Ip::new(address.parse().unwrap())
        }
    }

    fn found(result: &CniResult) -> Vec<String> {
        let ifname = IfName::new("eth0".to_owned()).unwrap();
        let both = [false, true].map(|v6| candidates(result, &ifname, v6));
        both.concat().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn of_a_bridge_it_is_the_first_address_of_each_version() {
        let outside = Interface {
            name: "cni0".to_owned(),
            ..Interface::default()
        };
        let mut result = CniResult {
            interfaces: vec![outside, inside("eth0")],
            ips: vec![
                ip("10.1.0.2/16", Some(1)),
                ip("10.2.0.2/16", Some(1)),
                ip("fd00::2/64", Some(1)),
                ip("10.9.0.1/16", Some(0)),
            ],
            ..CniResult::default()
        };
        assert_eq!(found(&result), ["10.1.0.2", "10.2.0.2", "fd00::2"]);
        // Older versions have no interfaces at all.
        result.interfaces.clear();
        result.ips = vec![ip("10.1.0.2/16", None)];
        assert_eq!(found(&result), ["10.1.0.2"]);
    }

    #[test]
    fn of_an_overlay_it_is_first_the_address_by_which_the_container_leaves() {
        let route = |dst: &str, gateway: &str| Route {
            gw: Some(gateway.parse().unwrap()),
            ..Route::to(dst.parse().unwrap())
        };
        let result = CniResult {
            interfaces: vec![inside("eth0"), inside("gw0")],
            ips: vec![
                ip("10.0.0.2/24", Some(0)),
                ip("172.18.0.2/16", Some(1)),
                ip("fd00::2/64", Some(0)),
                ip("fd01::2/64", Some(1)),
            ],
            routes: vec![
                route("0.0.0.0/0", "172.18.0.1"),
                route("::/0", "fd01::1"),
                route("10.8.0.0/16", "10.0.0.1"),
            ],
            ..CniResult::default()
        };
        let all = ["172.18.0.2", "10.0.0.2", "fd01::2", "fd00::2"];
        assert_eq!(found(&result), all);
    }
}
