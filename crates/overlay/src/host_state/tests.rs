//! The table of damages against observations: each kind of object removed, changed, doubled. No kernel, no root.

use std::collections::BTreeSet;

use nft::guard::{self, Elements, Seen, Sources};

use netlink::{Forward, Link, Mac, Port, Route, Sysctl, VxlanInfo};

use super::{Kind, LinkSpec, Mtu, Object, Observed, Tunnel, deviations};

const MAC: Mac = Mac([2, 0x42, 10, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn flood(last: u8) -> Forward {
    Forward::Flood {
        vtep: [192, 168, 1, last].into(),
    }
}

fn neighbour(last: u8) -> Forward {
    Forward::Neigh {
        addr: [172, 18, 0, last].into(),
        mac: MAC,
    }
}

fn guarded(ports: &[&str]) -> Elements {
    let elements = |name: &&str| {
        let sources = Sources {
            mac: MAC.0,
            addresses: [[10, 0, 0, 1].into()].into(),
        };
        let port = guard::Port {
            name: (*name).to_owned(),
            only: Some(sources),
            group_rate: 1000,
        };
        (port.name.clone(), port.elements())
    };
    ports.iter().map(elements).collect()
}

/// One object of each kind.
fn described() -> Vec<Object> {
    let link = |name: &str, kind, mtu| LinkSpec {
        name: name.to_owned(),
        kind,
        mtu,
        ..LinkSpec::default()
    };
    let port = |spec| LinkSpec {
        bridge: Some("br0"),
        ..spec
    };
    let tunnel = Tunnel {
        network: "n".to_owned(),
        vni: 4097,
        port: 4789,
        local: [192, 168, 1, 11].into(),
        underlay: Some(3),
    };
    let (peer, mac) = ("chh".to_owned(), MAC);
    let flags = Port {
        learning: Some(false),
        neigh_suppress: Some(true),
        flood: Some(true),
        ..Port::default()
    };
    vec![
        Object::setting("ipv6", "br0", "accept_ra", "0"),
        Object::Link(link("br0", Kind::Bridge(None), Mtu::First(1450))),
        Object::Link(LinkSpec {
            port: flags,
            ..port(link("vxlan0", Kind::Vxlan(tunnel), Mtu::Exactly(1450)))
        }),
        Object::Link(port(link("chp1", Kind::Given, Mtu::AtLeast(1450)))),
        Object::Link(port(link(
            "chh",
            Kind::Veth { peer, mac },
            Mtu::Exactly(1450),
        ))),
        Object::Link(LinkSpec {
            mac: Some(MAC),
            ..link("own", Kind::Given, Mtu::Any)
        }),
        Object::Address {
            link: "own".to_owned(),
            address: "10.0.0.5/24".parse().unwrap(),
            bare: true,
        },
        Object::Route {
            links: vec!["own".to_owned()],
            route: Route {
                source: Some([10, 0, 0, 5].into()),
                ..Route::new("10.0.0.0/24".parse().unwrap(), None, 0)
            },
        },
        Object::Rewrite([].into()),
        Object::Guard {
            trusted: "vxlan0",
            ports: guarded(&["chp1"]),
            spared: ["chp9".to_owned()].into(),
        },
        Object::Neighbours {
            link: "own".to_owned(),
            entries: [neighbour(2), neighbour(3)].into(),
            only: true,
        },
        Object::Entries {
            bridge: "br0",
            port: "vxlan0".to_owned(),
            entries: [flood(12), flood(13)].into(),
            only: true,
        },
        Object::Entries {
            bridge: "br0",
            port: "chh".to_owned(),
            entries: [Forward::Port { mac: MAC }].into(),
            only: false,
        },
    ]
}

/// What a kernel has where all of it is right.
fn whole() -> Observed {
    let link = |index, name: &str, kind: &str| Link {
        index,
        name: name.to_owned(),
        mtu: 1450,
        up: true,
        kind: Some(kind.to_owned()),
        ..Link::default()
    };
    let port = |link| Link {
        master: Some(1),
        ..link
    };
    let vxlan = Link {
        vxlan: Some(VxlanInfo {
            vni: 4097,
            port: 4789,
            source_ports: nft::TUNNEL_SOURCE_PORTS,
            local: Some([192, 168, 1, 11].into()),
            underlay: 3,
            ..VxlanInfo::default()
        }),
        port: Port {
            learning: Some(false),
            neigh_suppress: Some(true),
            isolated: Some(false),
            hairpin: Some(false),
            flood: Some(true),
        },
        ..port(link(2, "vxlan0", "vxlan"))
    };
    let own = Link {
        mac: Some(MAC),
        ..link(5, "own", "veth")
    };
    let chp = Link {
        mtu: 9000,
        ..port(link(3, "chp1", "veth"))
    };
    let route = Route {
        source: Some([10, 0, 0, 5].into()),
        ..Route::new("10.0.0.0/24".parse().unwrap(), None, 5)
    };
    let key = Sysctl::of_link("ipv6", "br0", "accept_ra");
    Observed {
        place: " there",
        links: vec![
            link(1, "br0", "bridge"),
            vxlan,
            chp,
            port(link(4, "chh", "veth")),
            own,
        ],
        beyond: vec![link(9, "chh", "veth")],
        addresses: BTreeSet::from([(5, "10.0.0.5/24".parse().unwrap())]),
        routes: vec![route],
        entries: [
            ("vxlan0".to_owned(), [flood(12), flood(13)].into()),
            ("chh".to_owned(), [Forward::Port { mac: MAC }].into()),
        ]
        .into(),
        sysctls: [(key, Some("0".to_owned()))].into(),
        rewrites: true,
        guard: Seen {
            is_complete: true,
            elements: guarded(&["chp1", "chp9"]),
        },
        neighbours: [("own".to_owned(), [neighbour(2), neighbour(3)].into())].into(),
    }
}

/// Of one damage.
fn told(damage: fn(&mut Observed)) -> Vec<String> {
    let mut seen = whole();
    damage(&mut seen);
    let objects = described();
    let told = deviations(&objects, &seen).map(|found| found.what);
    told.collect()
}

fn link<'o>(seen: &'o mut Observed, name: &str) -> &'o mut Link {
    let mut links = seen.links.iter_mut();
    links.find(|link| link.name == name).unwrap()
}

fn remove(seen: &mut Observed, name: &str) {
    seen.links.retain(|link| link.name != name);
}

#[test]
fn what_is_as_described_does_not_deviate() {
    assert_eq!(told(|_| ()), [""; 0]);
    // Others' things beside ours are theirs.
    let more = told(|seen| {
        seen.addresses.insert((5, "10.0.0.200/24".parse().unwrap()));
        let other = "192.0.2.0/24".parse().unwrap();
        seen.routes.push(Route::new(other, None, 5));
        let learned = Forward::Port { mac: OTHER };
        seen.entries.get_mut("chh").unwrap().insert(learned);
        link(seen, "br0").mtu = 1300;
    });
    assert_eq!(more, [""; 0]);
    // A kernel without IPv6.
    let without = told(|seen| seen.sysctls.values_mut().for_each(|value| *value = None));
    assert_eq!(without, [""; 0]);
}

type Damage = fn(&mut Observed);

#[test]
fn each_damage_of_a_link_is_named() {
    let table: [(Damage, &str); 19] = [
        (|seen| link(seen, "br0").up = false, "br0 there: is down"),
        (
            |seen| link(seen, "br0").kind = Some("dummy".to_owned()),
            "br0 there: is no bridge",
        ),
        (|seen| remove(seen, "vxlan0"), "vxlan0 there: is gone"),
        (
            |seen| link(seen, "vxlan0").up = false,
            "vxlan0 there: is down",
        ),
        (
            |seen| link(seen, "vxlan0").master = None,
            "vxlan0 there: was taken off the bridge",
        ),
        (
            |seen| link(seen, "vxlan0").mtu = 1300,
            "vxlan0 there: has MTU 1300, not 1450",
        ),
        (
            |seen| link(seen, "vxlan0").vxlan = None,
            "vxlan0 there: is no VXLAN device",
        ),
        (
            |seen| link(seen, "vxlan0").vxlan.as_mut().unwrap().vni = 77,
            "vxlan0 there: has VNI 77, not 4097",
        ),
        (
            |seen| link(seen, "vxlan0").vxlan.as_mut().unwrap().local = None,
            "vxlan0 there: has local address none, not 192.168.1.11",
        ),
        (
            |seen| link(seen, "vxlan0").vxlan.as_mut().unwrap().underlay = 4,
            "vxlan0 there: has underlay link 4, not 3",
        ),
        (
            |seen| link(seen, "vxlan0").vxlan.as_mut().unwrap().learning = true,
            "vxlan0 there: has learning true, not false",
        ),
        (
            |seen| link(seen, "vxlan0").port.learning = Some(true),
            "vxlan0 there: as a port of the bridge has learning on",
        ),
        (
            |seen| link(seen, "vxlan0").port.neigh_suppress = None,
            "vxlan0 there: as a port of the bridge has neigh_suppress off",
        ),
        (
            |seen| link(seen, "vxlan0").port.flood = Some(false),
            "vxlan0 there: as a port of the bridge has flood off",
        ),
        (|seen| remove(seen, "chp1"), "chp1 there: is gone"),
        (
            |seen| link(seen, "chp1").mtu = 1280,
            "chp1 there: has MTU 1280, not 1450",
        ),
        (
            |seen| seen.beyond.clear(),
            "chh there: its other end chh is gone",
        ),
        (
            |seen| seen.beyond[0].kind = Some("bridge".to_owned()),
            "chh there: its other end chh is gone",
        ),
        (
            |seen| link(seen, "own").mac = Some(OTHER),
            "own there: has MAC 02:00:00:00:00:09, not 02:42:0a:00:00:01",
        ),
    ];
    for (damage, says) in table {
        assert_eq!(told(damage), [says]);
    }
}

#[test]
fn each_damage_of_what_is_no_link_is_named() {
    let table: [(Damage, &str); 15] = [
        (
            |seen| seen.addresses.clear(),
            "own there: lacks address 10.0.0.5/24",
        ),
        (
            |seen| seen.routes.clear(),
            "route to 10.0.0.0/24 there: is gone",
        ),
        (
            |seen| seen.routes[0].source = None,
            "route to 10.0.0.0/24 there: is dev own, not dev own src 10.0.0.5",
        ),
        (
            |seen| {
                let key = Sysctl::of_link("ipv6", "br0", "accept_ra");
                seen.sysctls.insert(key, Some("1".to_owned()));
            },
            "net.ipv6.conf.br0.accept_ra there: is 1, not 0",
        ),
        (
            |seen| seen.rewrites = false,
            "nftables table bridge crosshost there: does not rewrite the MACs that it should",
        ),
        (
            |seen| {
                seen.entries.get_mut("vxlan0").unwrap().remove(&flood(12));
            },
            "forwarding there: has no flooding to 192.168.1.12",
        ),
        (
            |seen| {
                seen.entries.get_mut("vxlan0").unwrap().insert(flood(99));
            },
            "forwarding there: has flooding to 192.168.1.99",
        ),
        (
            |seen| {
                let entries = seen.entries.get_mut("chh").unwrap();
                entries.clear();
                entries.insert(Forward::Loose { mac: MAC });
            },
            "forwarding there: has no bridge entry 02:42:0a:00:00:01",
        ),
        (
            |seen| seen.guard.is_complete = false,
            "nftables table bridge crosshost-guard there: gone or changed by another program",
        ),
        (
            |seen| seen.guard.elements.clear(),
            "nftables table bridge crosshost-guard there: does not hold chp1 to its own addresses",
        ),
        (
            |seen| drop(seen.guard.elements.get_mut("chp1").unwrap().pop_first()),
            "nftables table bridge crosshost-guard there: does not hold chp1 to its own addresses",
        ),
        (
            |seen| seen.guard.elements.extend(guarded(&["chp2"])),
            "nftables table bridge crosshost-guard there: speaks of chp2, of which it should not",
        ),
        (
            |seen| {
                let neighbours = seen.neighbours.get_mut("own").unwrap();
                neighbours.remove(&neighbour(2));
            },
            "own there: has no neighbour 172.18.0.2 is 02:42:0a:00:00:01",
        ),
        (
            |seen| {
                let neighbours = seen.neighbours.get_mut("own").unwrap();
                neighbours.insert(neighbour(9));
            },
            "own there: has neighbour 172.18.0.9 is 02:42:0a:00:00:01",
        ),
        (
            |seen| seen.entries.get_mut("chh").unwrap().clear(),
            "forwarding there: has no bridge entry 02:42:0a:00:00:01",
        ),
    ];
    for (damage, says) in table {
        assert_eq!(told(damage), [says]);
    }
}

#[test]
fn where_nothing_is_all_of_it_differs_and_only_links_are_told() {
    let (objects, nothing) = (described(), Observed::default());
    let all = objects.iter().filter_map(|object| object.differs(&nothing));
    let steps: usize = all.map(|found| found.steps).sum();
    assert_eq!(
        steps,
        objects.len() + 2,
        "two entries of the tunnel, two neighbours"
    );
    let told: Vec<_> = deviations(&objects, &nothing).collect();
    let links = ["br0", "vxlan0", "chp1", "chh", "own"].map(|link| format!("{link}: is gone"));
    let says: Vec<_> = told.iter().map(|found| found.what.as_str()).collect();
    assert_eq!(says[..5], links);
    assert!(says[5].starts_with("nftables table"), "{says:?}");
    let given = told.iter().filter(|found| !found.is_curable);
    let given: Vec<_> = given.map(|found| found.what.as_str()).collect();
    assert_eq!(given, ["chp1: is gone", "own: is gone"]);
}

#[test]
fn a_bridge_that_is_gone_leaves_its_ports_off_it() {
    let found = told(|seen| remove(seen, "br0"));
    let off =
        ["vxlan0", "chp1", "chh"].map(|port| format!("{port} there: was taken off the bridge"));
    assert_eq!(found[0], "br0 there: is gone");
    assert_eq!(found[1..], off);
}
