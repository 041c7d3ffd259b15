//! What a container should have of an attachment: its NIC on the segment, and its egress NIC. Pure.
//!
//! The result of the ADD says it: ADD makes what its result says, and CHECK compares what the result of the chain says, which
//! later plugins may have changed. `crosshost doctor` has no result, and compares what documents of this host say. The comparison itself is in
//! [`crate::host_state`]; whether an MTU is larger than a path carries, in `segment/path_mtu.rs`.
//!
//! What the result does not say is applied, and not compared: settings and link-local addresses are the container's own from then
//! on, and a later plugin such as `tuning` may set others.

use std::net::Ipv6Addr;

use cni::{CniResult, Ip};
use ipnetwork::IpNetwork;
use netlink::{Mac, Route};

use crate::{
    egress::Nic,
    host_state::{LinkSpec, Mtu, Object},
    names::EGRESS_NIC,
};

/// What a result says of the container's side: the interfaces that it has in a sandbox, their addresses, and the routes. The
/// attachment's own interface is `ifname`.
pub(crate) fn inside(ifname: &str, result: &CniResult) -> Vec<Object> {
    let interfaces = result.interfaces.iter().enumerate();
    let interfaces: Vec<_> = interfaces.filter(|(_, it)| it.sandbox.is_some()).collect();
    let mut names: Vec<_> = interfaces.iter().map(|(_, it)| it.name.as_str()).collect();
    let mut objects = Vec::new();
    if !names.contains(&ifname) {
        names.push(ifname);
        objects.push(link(ifname, None, None));
    }
    let ips = |index: usize| {
        let ips = result.ips.iter();
        ips.filter(move |ip| ip.interface == Some(index))
    };
    for (index, interface) in &interfaces {
        // The address of a link of another kind than Ethernet is not compared.
        let mac = interface.mac.as_ref().and_then(|mac| mac.parse().ok());
        let mac = mac.map(|mac: ipam::Mac| Mac(mac.0));
        objects.push(link(&interface.name, mac, interface.mtu));
        objects.extend(ips(*index).map(|ip| address(&interface.name, ip.address)));
    }
    // A route is made by the interface that has its gateway's subnet, or else by the attachment's own.
    objects.extend(result.routes.iter().map(|route| {
        let has_gateway = |name: &str| {
            let mut its = interfaces.iter().filter(|(_, it)| it.name == name);
            let contains = |ip: &Ip| route.gw.is_some_and(|gateway| ip.address.contains(gateway));
            its.any(|(index, _)| ips(*index).any(contains))
        };
        let mut links = names.clone();
        links.sort_by_key(|name| (!has_gateway(name), *name != ifname));
        Object::Route {
            links: links.into_iter().map(str::to_owned).collect(),
            route: Route {
                mtu: route.mtu,
                advmss: route.advmss,
                priority: route.priority,
                table: route.table,
                scope: route.scope,
                ..Route::new(route.dst, route.gw, 0)
            },
        }
    }));
    objects
}

/// What this host knows of an attachment's interface without the result: it is there and up, and has the MAC to which others send
/// its packets, where that is known.
pub(crate) fn own(ifname: &str, mac: Option<Mac>) -> Vec<Object> {
    vec![link(ifname, mac, None)]
}

/// What it knows of a container's egress NIC. Which network or plugin the container's default routes are from it does not know,
/// but that it has some.
pub(crate) fn egress(nic: Nic) -> Vec<Object> {
    let mut result = CniResult::default();
    super::nic::add_egress(&mut result, "", nic);
    let mut objects = inside(EGRESS_NIC, &result);
    for object in &mut objects {
        if let Object::Route { links, route } = object {
            links.clear();
            route.gateway = None;
        }
    }
    objects
}

/// The loopback interface, up: not every runtime raises it, nor has each chain the plugin `loopback`.
pub(crate) fn loopback() -> Object {
    link("lo", None, None)
}

/// The link-local address of an interface with this MAC. The kernel would wait for a second to learn that no other host has it.
pub(crate) fn link_local(name: &str, mac: Mac) -> Option<Object> {
    Some(address(name, link_local_of(mac)?))
}

fn link(name: &str, mac: Option<Mac>, mtu: Option<u32>) -> Object {
    Object::Link(LinkSpec {
        name: name.to_owned(),
        mac,
        mtu: mtu.map_or(Mtu::Any, Mtu::Exactly),
        ..LinkSpec::default()
    })
}

fn address(link: &str, address: IpNetwork) -> Object {
    Object::Address {
        link: link.to_owned(),
        address,
        bare: false,
    }
}

/// The link-local address that goes with a MAC: its modified EUI-64 (RFC 4291, appendix A).
pub(crate) fn link_local_of(mac: Mac) -> Option<IpNetwork> {
    let mut id = [0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    id[..3].copy_from_slice(&mac.0[..3]);
    id[5..].copy_from_slice(&mac.0[3..]);
    id[0] ^= 2;
    let bits = 0xfe80 << 112 | u128::from(u64::from_be_bytes(id));
    IpNetwork::new(Ipv6Addr::from_bits(bits).into(), 64).ok()
}

#[cfg(test)]
mod tests {
    use netlink::Link;

    use super::*;
    use crate::{
        egress::Nic6,
        endpoint::nic,
        host_state::{Observed, deviations},
    };

    const MAC: Mac = Mac([0x02, 0x42, 10, 0, 0, 2]);
    const OTHER: Mac = Mac([0x02, 0, 0, 0, 0, 9]);

    fn nic() -> Nic {
        Nic {
            address: "172.18.0.2/16".parse().unwrap(),
            gateway: [172, 18, 0, 1].into(),
            new: false,
            v6: Some(Nic6 {
                address: "fd01::2/64".parse().unwrap(),
                gateway: "fd01::1".parse().unwrap(),
                new: false,
            }),
        }
    }

    fn result() -> CniResult {
        let attachment = journal::Attachment {
            network: "n".to_owned(),
            container: "c".to_owned(),
            ifname: "eth0".to_owned(),
        };
        let route = |dst: &str| cni::Route::to(dst.parse().unwrap());
        let ipam = CniResult {
            ips: ["10.0.0.2/24", "fd00::2/64"]
                .map(|ip| Ip::new(ip.parse().unwrap()))
                .into(),
            routes: vec![
                cni::Route {
                    gw: Some([10, 0, 0, 1].into()),
                    mtu: Some(1300),
                    priority: Some(7),
                    ..route("10.9.0.0/24")
                },
                cni::Route {
                    table: Some(100),
                    scope: Some(253),
                    ..route("10.8.0.0/24")
                },
            ],
            ..CniResult::default()
        };
        nic::result(
            &attachment,
            "ch-egress".to_owned(),
            "/run/netns/c",
            MAC,
            1450,
            ipam,
            Some(nic()),
        )
    }

    /// What a container has where all of it is right, and other things beside.
    fn whole() -> Observed {
        let link = |index, name: &str, mac, mtu| Link {
            index,
            name: name.to_owned(),
            mac: Some(mac),
            mtu,
            up: true,
            ..Link::default()
        };
        let route = |dst: &str, gateway: Option<&str>, dev| {
            let gateway = gateway.map(|it| it.parse().unwrap());
            Route {
                table: Some(254),
                ..Route::new(dst.parse().unwrap(), gateway, dev)
            }
        };
        let near = Route {
            table: Some(100),
            scope: Some(253),
            ..route("10.8.0.0/24", None, 2)
        };
        let far = Route {
            mtu: Some(1300),
            priority: Some(7),
            scope: Some(0),
            ..route("10.9.0.0/24", Some("10.0.0.1"), 2)
        };
        let addresses = [
            (2, "10.0.0.2/24"),
            (2, "10.0.0.200/24"),
            (2, "fd00::2/64"),
            (3, "172.18.0.2/16"),
            (3, "fd01::2/64"),
            (4, "192.0.2.1/24"),
        ];
        Observed {
            links: vec![
                link(2, "eth0", MAC, 1450),
                link(3, "gw0", nic().mac(), 1500),
                link(4, "other", OTHER, 1500),
            ],
            addresses: addresses
                .map(|(index, address)| (index, address.parse().unwrap()))
                .into(),
            routes: vec![
                route("0.0.0.0/0", Some("172.18.0.1"), 3),
                route("::/0", Some("fd01::1"), 3),
                route("10.9.0.0/24", Some("192.0.2.2"), 4),
                far,
                near,
            ],
            ..Observed::default()
        }
    }

    fn told(objects: &[Object], damage: fn(&mut Observed)) -> String {
        let mut seen = whole();
        damage(&mut seen);
        let first = deviations(objects, &seen).next();
        first.map_or(String::new(), |first| first.what)
    }

    fn link<'o>(seen: &'o mut Observed, name: &str) -> &'o mut Link {
        let mut links = seen.links.iter_mut();
        links.find(|link| link.name == name).unwrap()
    }

    fn lose(seen: &mut Observed, address: &str) {
        let lost: IpNetwork = address.parse().unwrap();
        seen.addresses.retain(|(_, address)| *address != lost);
    }

    type Damage = fn(&mut Observed);

    /// What CHECK says of a container, which knows its result, and what doctor says.
    #[test]
    fn each_damage_of_a_container_is_named() {
        let check = inside("eth0", &result());
        let doctor = [own("eth0", Some(MAC)), egress(nic())].concat();
        let both: [(Damage, &str); 10] = [
            (|_| (), ""),
            (|seen| drop(seen.links.remove(0)), "eth0: is gone"),
            (|seen| link(seen, "eth0").up = false, "eth0: is down"),
            (
                |seen| link(seen, "eth0").mac = Some(OTHER),
                "eth0: has MAC 02:00:00:00:00:09, not 02:42:0a:00:00:02",
            ),
            (|seen| drop(seen.links.remove(1)), "gw0: is gone"),
            (|seen| link(seen, "gw0").up = false, "gw0: is down"),
            (
                |seen| link(seen, "gw0").mtu = 1280,
                "gw0: has MTU 1280, not 1500",
            ),
            (
                |seen| lose(seen, "172.18.0.2/16"),
                "gw0: lacks address 172.18.0.2/16",
            ),
            (
                |seen| lose(seen, "fd01::2/64"),
                "gw0: lacks address fd01::2/64",
            ),
            (
                |seen| {
                    seen.routes.remove(0);
                },
                "route to 0.0.0.0/0: is gone",
            ),
        ];
        for (damage, says) in both {
            assert_eq!(
                (told(&check, damage), told(&doctor, damage)),
                (says.to_owned(), says.to_owned())
            );
        }
        // What doctor has no document of, only CHECK says.
        let check_alone: [(Damage, &str); 8] = [
            (
                |seen| link(seen, "eth0").mtu = 1400,
                "eth0: has MTU 1400, not 1450",
            ),
            (
                |seen| lose(seen, "fd00::2/64"),
                "eth0: lacks address fd00::2/64",
            ),
            (
                |seen| seen.routes[1].dev = 4,
                "route to ::/0: is via fd01::1 dev other, not via fd01::1 dev gw0",
            ),
            (
                |seen| seen.routes[0].gateway = Some([10, 0, 0, 1].into()),
                "route to 0.0.0.0/0: is via 10.0.0.1 dev gw0, not via 172.18.0.1 dev gw0",
            ),
            (
                |seen| seen.routes[3].mtu = None,
                "route to 10.9.0.0/24: is via 10.0.0.1 dev eth0 metric 7, not via 10.0.0.1 dev eth0 metric 7 mtu 1300",
            ),
            (
                |seen| {
                    seen.routes.remove(3);
                },
                "route to 10.9.0.0/24: is via 192.0.2.2 dev other, not via 10.0.0.1 dev eth0 metric 7 mtu 1300",
            ),
            (
                |seen| seen.routes[4].table = Some(254),
                "route to 10.8.0.0/24: is dev eth0, not dev eth0 table 100",
            ),
            (
                |seen| {
                    seen.routes.remove(4);
                },
                "route to 10.8.0.0/24: is gone",
            ),
        ];
        for (damage, says) in check_alone {
            assert_eq!(
                (told(&check, damage), told(&doctor, damage)),
                (says.to_owned(), String::new())
            );
        }
    }

    #[test]
    fn a_route_is_made_by_the_interface_that_has_its_gateway() {
        let objects = inside("eth0", &result());
        let routes = objects.iter().filter_map(|object| match object {
            Object::Route { links, route } => Some(format!("{} {}", route.dst, links[0])),
            _ => None,
        });
        let all = [
            "10.9.0.0/24 eth0",
            "10.8.0.0/24 eth0",
            "0.0.0.0/0 gw0",
            "::/0 gw0",
        ];
        assert_eq!(routes.collect::<Vec<_>>(), all);
        let of_egress = objects.iter().filter(|object| object.is_of(EGRESS_NIC));
        assert_eq!(of_egress.count(), 5, "its link, two addresses, two routes");
    }

    #[test]
    fn a_link_local_address_is_that_of_the_kernel() {
        let address = link_local_of(MAC).map(|address| address.to_string());
        assert_eq!(address.as_deref(), Some("fe80::42:aff:fe00:2/64"));
    }
}
