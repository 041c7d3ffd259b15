//! The tutorial's story: one network over three hosts, from the first host that registers to the last
//! key that is gone from the store. Told on the embedded store, on a current Consul, and on the oldest.

use std::net::{IpAddr, Ipv4Addr};

use crate::store_reader;
use integration::{Attachment, Backend, Host, Lab, OUTSIDE, conflist};
use serde_json::{Value, json};

const SUBNET: &str = "10.0.0.0/24";

#[test]
fn on_the_embedded_store() {
    story(Backend::Dir);
}

#[test]
fn on_consul() {
    story(Backend::Consul);
}

#[test]
fn on_the_oldest_consul() {
    story(Backend::OldestConsul);
}

fn story(backend: Backend) {
    let lab = Lab::new(3, backend);
    let untouched = lab.footprints();

    hosts_register(&lab);
    a_network_made_on_one_host_is_listed_on_all(&lab);
    let attached: Vec<_> = (1..=3)
        .map(|number| {
            let host = lab.host(number);
            host.install(&conflist("ov_net1", SUBNET));
            Attachment::new(host, &format!("t{number}"), "ov_net1")
        })
        .collect();
    every_pair_pings_on_the_first_try(&attached);
    each_container_has_its_two_interfaces(&attached);
    packets_are_as_large_as_promised_and_never_cut(&attached);
    a_broadcast_reaches_all(&attached);
    the_outside_sees_the_hosts(&attached);
    the_lists_tell_who_is_where(&lab, &attached);
    the_store_holds_a_lease_for_each(&lab, &attached);
    a_network_in_use_is_not_removed(&lab, &attached);

    for one in &attached {
        one.detach().ok();
        assert_eq!(one.container.link("eth0"), Value::Null, "eth0 after DEL");
        assert_eq!(one.container.link("gw0"), Value::Null, "gw0 after DEL");
        one.end();
    }
    lab.assert_same_as(&untouched, "after the last DEL");
    the_network_goes_without_a_trace(&lab);
}

fn hosts_register(lab: &Lab) {
    lab.sync();
    let nodes = lab.host(2).listed("node ls");
    assert_eq!(nodes.as_array().map(Vec::len), Some(3), "{nodes:#}");
    for (host, node) in lab
        .hosts()
        .iter()
        .zip(nodes.as_array().into_iter().flatten())
    {
        assert_eq!(node["name"], host.name());
        assert_eq!(node["vtep"], host.vtep());
        assert_eq!(node["bootID"], host.boot_id());
        assert!(!node["lastContact"].is_null(), "{node:#}");
    }
    let table = lab.host(3).crosshost("node ls").ok().stdout;
    for host in lab.hosts() {
        let row = table.lines().find(|row| row.contains(host.name()));
        let row = row.unwrap_or_else(|| panic!("no {} in:\n{table}", host.name()));
        assert!(row.contains(host.vtep()), "{row}");
    }
}

fn a_network_made_on_one_host_is_listed_on_all(lab: &Lab) {
    lab.host(2).create_network("ov_net1", SUBNET);
    let networks = lab.host(2).listed("network ls");
    let vni = networks[0]["vni"].as_u64().unwrap_or_default();
    assert!(
        (1..1 << 24).contains(&vni),
        "a VNI of 24 bits: {networks:#}"
    );
    for host in lab.hosts() {
        let listed = host.listed("network ls");
        assert_eq!(listed, networks, "the same from {}", host.name());
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed:#}");
        assert_eq!(listed[0]["name"], "ov_net1");
        assert_eq!(listed[0]["subnets"], json!([SUBNET]));
        assert_eq!(listed[0]["scope"], scope(lab));
        let table = host.crosshost("network ls").ok().stdout;
        for word in ["ov_net1", &vni.to_string(), SUBNET, scope(lab)] {
            assert!(table.contains(word), "{word} in:\n{table}");
        }
    }
}

/// How far the networks reach: a directory is a store of one machine.
fn scope(lab: &Lab) -> &'static str {
    match lab.backend() {
        Backend::Dir => "local",
        _ => "global",
    }
}

fn every_pair_pings_on_the_first_try(attached: &[Attachment]) {
    for (one, other) in pairs(attached) {
        let said = one.container.ping(other.address, &[]);
        assert!(said.status.success(), "{} {said}", one.container.name());
    }
}

fn each_container_has_its_two_interfaces(attached: &[Attachment]) {
    let mut addresses: Vec<_> = attached.iter().map(|one| one.address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "three addresses: {addresses:?}");

    for Attachment {
        container, address, ..
    } in attached
    {
        let IpAddr::V4(v4) = *address else {
            panic!("{address} in {SUBNET}")
        };
        let [a, b, c, d] = v4.octets();
        assert!([a, b, c] == [10, 0, 0] && ![0, 1, 255].contains(&d), "{v4}");

        let eth0 = container.link("eth0");
        assert_eq!(eth0["mtu"], 1450, "the underlay's 1500 less 50");
        assert_eq!(eth0["address"], mac_of(v4));
        assert_eq!(
            container.address("eth0"),
            Some(*address),
            "as the result says"
        );
        let lengths = container.ip("-4 address show eth0");
        assert_eq!(lengths[0]["addr_info"][0]["prefixlen"], 24);

        let way_out = container.ip("route show default");
        assert_eq!(way_out.as_array().map(Vec::len), Some(1), "{way_out:#}");
        assert_eq!(way_out[0]["dev"], "gw0");

        let mut names: Vec<_> = links(container);
        names.sort();
        assert_eq!(names, ["eth0", "gw0", "lo"]);
        let host = container.host().namespace();
        host.run("ip link show ch-egress type veth").ok();
        let netns = "--net=/run/crosshost/egress-netns/ch-egress";
        host.run(&format!("nsenter {netns} ip link show br0 type bridge"))
            .ok();
    }
}

fn links(container: &integration::Container) -> Vec<String> {
    let listing = container.ip("link");
    let names = listing.as_array().into_iter().flatten();
    names
        .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
        .collect()
}

fn mac_of(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn packets_are_as_large_as_promised_and_never_cut(attached: &[Attachment]) {
    let cut = || {
        let inside = attached.iter().map(|one| one.container.net());
        let hosts = attached.iter().map(|one| one.host().namespace().net());
        let nets = inside.chain(hosts);
        nets.map(|net| net.fragments_made()).sum::<u64>()
    };
    let before = cut();
    let (one, other) = (&attached[0].container, attached[1].address);
    // -s counts the payload; 28 bytes of headers come on top.
    for passing in ["1400", "1422"] {
        assert!(one.pings(other, &["-M", "do", "-s", passing]), "{passing}");
    }
    for failing in ["1423", "1451"] {
        assert!(!one.pings(other, &["-M", "do", "-s", failing]), "{failing}");
    }
    assert_eq!(cut(), before, "nothing was cut into fragments");
}

fn a_broadcast_reaches_all(attached: &[Attachment]) {
    // It hears itself, too: its loopback is up.
    let mut all: Vec<_> = attached.iter().map(|one| one.address).collect();
    all.sort();
    let answers = attached[0].container.answers_to_broadcast("10.0.0.255");
    assert_eq!(answers, all, "who answered a broadcast of t1");
}

fn the_outside_sees_the_hosts(attached: &[Attachment]) {
    for one in attached {
        let name = one.container.name();
        let seen = one.container.tcp_get(OUTSIDE);
        let seen = seen.unwrap_or_else(|error| panic!("{name} to {OUTSIDE}: {error}"));
        assert_eq!(seen, one.host().vtep(), "{name} seen from outside");
    }
}

fn the_lists_tell_who_is_where(lab: &Lab, attached: &[Attachment]) {
    let of_docker01 = lab.host(1).listed("network inspect ov_net1");
    for host in lab.hosts() {
        let network = host.listed("network inspect ov_net1");
        assert_eq!(network, of_docker01, "the same from {}", host.name());
        let local = host.listed("endpoint ls --local");
        assert_eq!(local.as_array().map(Vec::len), Some(1), "{local:#}");
        assert_eq!(local[0]["node"], host.name());
    }
    assert_eq!(of_docker01["name"], "ov_net1");
    assert_eq!(of_docker01["subnets"], json!([SUBNET]));
    assert_eq!(of_docker01["scope"], scope(lab));

    let blocks = of_docker01["blocks"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let owners: Vec<_> = lab.hosts().iter().map(Host::name).collect();
    for owner in &owners {
        let theirs = blocks.iter().filter(|block| block["node"] == *owner);
        assert_eq!(
            theirs.count(),
            1,
            "a block at creation for {owner}: {blocks:#?}"
        );
    }
    let everywhere = lab.host(3).listed("endpoint ls");
    for endpoints in [&of_docker01["endpoints"], &everywhere] {
        assert_eq!(endpoints.as_array().map(Vec::len), Some(3), "{endpoints:#}");
        for one in attached {
            let mut all = endpoints.as_array().into_iter().flatten();
            let mine = all.find(|endpoint| endpoint["address"] == one.address.to_string());
            let mine = mine.unwrap_or_else(|| panic!("no {}: {endpoints:#}", one.address));
            assert_eq!(mine["node"], one.host().name());
            assert_eq!(mine["ifname"], "eth0");
            assert_eq!(mine["mac"], one.container.link("eth0")["address"]);
            let id = mine["containerID"].as_str().unwrap_or_default();
            assert!(id.starts_with("cnitool-"), "{id}");
        }
    }
}

fn the_store_holds_a_lease_for_each(lab: &Lab, attached: &[Attachment]) {
    let records = store_reader::records(lab);
    let leases = store_reader::keys_below(&records, "leases/ov_net1/");
    assert_eq!(leases.len(), 3, "{leases:?}");
    for one in attached {
        let lease = records.get(&format!("leases/ov_net1/{}", one.address));
        let lease = lease.unwrap_or_else(|| panic!("no lease of {}: {leases:?}", one.address));
        for word in [one.host().name(), one.host().boot_id(), "eth0", "cnitool-"] {
            assert!(lease.contains(word), "{word} in {lease}");
        }
    }
}

fn a_network_in_use_is_not_removed(lab: &Lab, attached: &[Attachment]) {
    let refused = lab.host(3).crosshost("network rm ov_net1").failed();
    for one in attached {
        let address = one.address.to_string();
        assert!(refused.stderr.contains(&address), "{address} in {refused}");
    }
}

fn the_network_goes_without_a_trace(lab: &Lab) {
    lab.host(1).crosshost("network rm ov_net1").ok();
    for host in lab.hosts() {
        assert_eq!(host.listed("network ls"), json!([]));
        assert_eq!(host.listed("endpoint ls"), json!([]));
    }
    let left = store_reader::records_but_nodes(lab);
    let left: Vec<_> = left
        .iter()
        .filter(|(key, value)| key.contains("ov_net1") || value.contains("ov_net1"))
        // The removal stays noted, so that no host restores the network.
        .filter(|(key, _)| *key != "removed/ov_net1")
        .collect();
    assert!(left.is_empty(), "in the store: {left:?}");
    lab.host(1)
        .crosshost("network rm ov_net1")
        .failed()
        .warns(&["ov_net1"]);
}

fn pairs<'a, 'h>(
    all: &'a [Attachment<'h>],
) -> impl Iterator<Item = (&'a Attachment<'h>, &'a Attachment<'h>)> {
    let ordered = all
        .iter()
        .flat_map(move |one| all.iter().map(move |other| (one, other)));
    ordered.filter(|(one, other)| one.address != other.address)
}
