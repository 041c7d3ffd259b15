//! The words of an `ipam` section and what a runtime adds to them, at `ipam-kv` itself: what each is for, told by the
//! addresses that come, the records in the store and the refusals. `host_local_oracle.rs` compares generated
//! configurations with `host-local` on one host; here is what that plugin has no words for, what takes two hosts or a
//! real Consul, and the exact results.

use std::collections::BTreeSet;

use crate::store_reader;
use crate::store_reader::leased;
use integration::{Backend, Direct, Lab, addresses_in, ipamconf};
use serde_json::{Value, json};

#[test]
fn each_set_gives_one_address_and_the_later_ranges_of_a_set_stand_in_for_its_first() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    let stand_in = json!({ "subnet": "10.2.0.0/29", "gateway": "10.2.0.6" });
    let conf = ipamconf(
        "net1",
        json!({ "ranges": [
            [{ "subnet": "10.1.0.0/29" }, stand_in],
            [{ "subnet": "10.3.0.0/24", "rangeStart": "10.3.0.100" }],
            [{ "subnet": "fd00:4::/64" }],
        ] }),
    );
    let mut first = BTreeSet::new();
    for number in 0..10 {
        let result = hosts[number % 2].add(&format!("c{number}"), &conf);
        let result = result.ok().json();
        let [one, two, three] = &addresses_in(&result)[..] else {
            panic!("one address of each set: {result:#}")
        };
        let gateways: Vec<_> = (0..3).map(|at| &result["ips"][at]["gateway"]).collect();
        let (net, gateway) = match number {
            0..5 => ("10.1.0.", "10.1.0.1"),
            _ => ("10.2.0.", "10.2.0.6"),
        };
        assert!(one.starts_with(net), "number {number}: {one}");
        let last = two.trim_start_matches("10.3.0.").trim_end_matches("/24");
        assert!(last.parse::<u8>().is_ok_and(|last| last >= 100), "{two}");
        assert!(three.starts_with("fd00:4::"), "{three}");
        assert_eq!(gateways, [gateway, "10.3.0.1", "fd00:4::1"]);
        first.insert(one.to_owned());
    }
    assert_eq!(first.len(), 10, "{first:?}");
    let before = leased(&lab, "net1");
    assert_eq!(before.len(), 30, "{before:?}");
    // One set has nothing left: nothing of the others is held for that.
    for host in &hosts {
        host.add("last", &conf).refused(102, &["net1", "exhausted"]);
    }
    assert_eq!(leased(&lab, "net1"), before);
}

#[test]
fn the_old_single_form_says_all_that_a_range_can_say() {
    let lab = Lab::new(1, Backend::Dir);
    let hosts = Direct::on_all(&lab);
    let host = &hosts[0];
    lab.host(1).write(
        "/etc/resolv.test",
        "# a comment\nnameserver 192.0.2.53\nnameserver 2001:db8::53\ndomain example.org\n\
         search a.example.org b.example.org\noptions ndots:2 timeout:1\n",
    );
    let routes = json!([{ "dst": "0.0.0.0/0" }, { "dst": "198.51.100.0/24", "gw": "10.4.0.253" }]);
    let old = json!({
        "subnet": "10.4.0.0/24", "rangeStart": "10.4.0.20", "rangeEnd": "10.4.0.22", "gateway": "10.4.0.254",
        "routes": routes, "resolvConf": "/etc/resolv.test",
    });
    let conf = ipamconf("net1", old);
    let dns = json!({
        "nameservers": ["192.0.2.53", "2001:db8::53"], "domain": "example.org",
        "search": ["a.example.org", "b.example.org"], "options": ["ndots:2", "timeout:1"],
    });
    for last in 20..23 {
        let address = format!("10.4.0.{last}/24");
        let ips = json!([{ "address": address, "gateway": "10.4.0.254" }]);
        let wanted = json!({ "cniVersion": "1.1.0", "ips": ips, "routes": routes, "dns": dns });
        let result = host.add(&format!("c{last}"), &conf).ok().json();
        assert_eq!(result, wanted);
    }
    host.add("c23", &conf).refused(102, &["net1", "exhausted"]);

    // Beside `ranges` it is the first set.
    let mut both = ipamconf(
        "net2",
        json!({ "subnet": "10.5.0.0/24", "rangeStart": "10.5.0.9" }),
    );
    both["ipam"]["ranges"] = json!([[{ "subnet": "10.1.0.0/24" }]]);
    assert_eq!(host.given("c1", &both), ["10.5.0.9/24", "10.1.0.2/24"]);
    both["ipam"]["resolvConf"] = "/etc/nowhere".into();
    host.add("c2", &both)
        .refused(7, &["ipam.resolvConf", "/etc/nowhere"]);
    assert_eq!(leased(&lab, "net2").len(), 2);
}

#[test]
fn keys_of_ours_mean_the_same_in_any_case_and_unknown_ones_mean_nothing() {
    let lab = Lab::new(1, Backend::Dir);
    let hosts = Direct::on_all(&lab);
    let plain = json!({
        "cniVersion": "1.0.0", "name": "net1", "type": "bridge",
        "ipam": {
            "type": "ipam-kv", "dataDir": "/srv/plain", "blockPrefix": 28, "exclude": ["10.6.0.40/30"],
            "ranges": [[{ "subnet": "10.6.0.0/24", "rangeEnd": "10.6.0.99", "gateway": "10.6.0.254", "exclude": ["10.6.0.44"] }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
        "runtimeConfig": { "ipRanges": [[{ "subnet": "10.6.0.0/24", "rangeStart": "10.6.0.40", "rangeEnd": "10.6.0.50" }]] },
    });
    let odd = json!({
        "CNIVERSION": "1.0.0", "Name": "net1", "TYPE": "bridge", "isGateway": "perhaps", "cni.dev/new": [5],
        "IPAM": {
            "Type": "ipam-kv", "DATADIR": "/srv/odd", "blockprefix": 28, "EXCLUDE": ["10.6.0.40/30"],
            "Ranges": [[{
                "SUBNET": "10.6.0.0/24", "RangeEnd": "10.6.0.99", "gateWay": "10.6.0.254", "Exclude": ["10.6.0.44"],
                "ipRange": "10.9.0.0/24", "sticky": "10.6.0.60",
            }]],
            "routeS": [{ "DST": "0.0.0.0/0", "via": "10.6.0.7" }], "log_file": "/nowhere", "network_name": 3,
        },
        "RUNTIMECONFIG": {
            "IPranges": [[{ "Subnet": "10.6.0.0/24", "rangestart": "10.6.0.40", "RANGEEND": "10.6.0.50" }]],
            "portMappings": 5,
        },
        "args": { "cni": { "labels": 5 }, "podman_options": [] },
    });
    let mut stored = Vec::new();
    for conf in [plain, odd] {
        let mut result = hosts[0].add("c1", &conf).ok().json();
        assert_eq!(addresses_in(&result), ["10.6.0.45/24"]);
        assert_eq!(result["routes"][0]["dst"], "0.0.0.0/0");
        // A route is passed on with what we do not know of it.
        result["routes"][0]
            .as_object_mut()
            .expect("a route")
            .remove("via");
        stored.push((result, blocks(&lab)));
    }
    let (odd, plain) = (stored.remove(1), stored.remove(0));
    assert_eq!(odd.0, plain.0);
    // The block that the network came with, and the one that the runtime's range is in.
    assert_eq!(
        plain.1,
        ["plain/net1/10.6.0.0_28", "plain/net1/10.6.0.32_28"]
    );
    let both = plain.1.iter().map(|block| block.replace("plain", "odd"));
    assert_eq!(odd.1, both.chain(plain.1.clone()).collect::<Vec<_>>());
}

/// The blocks below the data directories of a `dir` store, as `DIRECTORY/NETWORK/BLOCK`.
fn blocks(lab: &Lab) -> Vec<String> {
    let files = lab.stored_files();
    let block = |path: &String| {
        let (dir, block) = path
            .strip_prefix("crosshost/data/-2fsrv-2f")?
            .split_once("/v1/blocks/")?;
        Some(format!("{dir}/{}", block.trim_end_matches('=')))
    };
    files.keys().filter_map(block).collect()
}

#[test]
fn what_is_excluded_is_never_given_and_a_request_for_it_is_refused_by_name() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    // Of the /28 .2 to .14 are for containers.
    let range = json!({ "subnet": "10.7.0.0/28", "exclude": ["10.7.0.14", "10.7.0.3/32"] });
    let conf = ipamconf(
        "net1",
        json!({ "ranges": [[range]], "exclude": ["10.7.0.4", "10.7.0.9/30"] }),
    );
    let wanted = [2, 5, 6, 7, 12, 13].map(|last| format!("10.7.0.{last}"));
    for (excluded, by) in [(14, 14), (3, 3), (4, 4), (8, 8), (11, 8)] {
        let mut asking = conf.clone();
        let excluded = format!("10.7.0.{excluded}");
        asking["runtimeConfig"] = json!({ "ips": [excluded] });
        for host in &hosts {
            let by = format!("excluded by 10.7.0.{by}/");
            host.add("asks", &asking).refused(108, &[&excluded, &by]);
        }
    }
    assert_eq!(leased(&lab, "net1"), BTreeSet::new());
    let all = (0..6).map(|number| {
        hosts[number % 2]
            .given(&format!("c{number}"), &conf)
            .remove(0)
    });
    let all: BTreeSet<_> = all.collect();
    assert_eq!(all, wanted.iter().map(|one| format!("{one}/28")).collect());
    assert_eq!(leased(&lab, "net1"), wanted.into());
    for host in &hosts {
        host.add("last", &conf).refused(102, &["net1", "exhausted"]);
    }
}

#[test]
fn a_pool_without_an_address_to_give_is_refused_before_anything_is_made() {
    let lab = Lab::new(1, Backend::Dir);
    let host = Direct::on(lab.host(1));
    let only = json!({ "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.1" });
    let excluded = json!({ "subnet": "10.1.0.0/29", "exclude": ["10.1.0.0/29"] });
    for ipam in [only, excluded] {
        let words = ["ipam.ranges", "10.1.0.1 to 10.1.0.", "no address is left"];
        let conf = ipamconf("net1", ipam);
        host.add("c1", &conf).refused(7, &words);
        host.call("STATUS", "", &conf).run().refused(7, &words);
    }
    assert_eq!(store_reader::records(&lab).len(), 0);
}

#[test]
fn the_size_of_blocks_is_as_asked_for_and_stays_so() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    let conf = |block_prefix: Value| {
        let ranges = json!([[{ "subnet": "10.8.0.0/24" }], [{ "subnet": "fd00:8::/64" }]]);
        ipamconf(
            "net1",
            json!({ "ranges": ranges, "blockPrefix": block_prefix }),
        )
    };
    for (asked, bounds) in [(23, "want 24 to 32"), (33, "want 24 to 32")] {
        let said = hosts[0].add("c1", &conf(json!(asked)));
        said.refused(7, &["ipam.blockPrefix", &asked.to_string(), bounds]);
    }
    hosts[0]
        .add("c1", &conf(json!("/27")))
        .refused(7, &["ipam.blockPrefix", "/27"]);

    // Twenty containers on each host: their blocks have room for thirty, and no other host comes between.
    for number in 0..20 {
        for host in &hosts {
            host.given(&format!("c{number}"), &conf(json!(27)));
        }
    }
    let records = store_reader::records(&lab);
    for (host, other) in [("docker01", "docker02"), ("docker02", "docker01")] {
        let blocks = records.iter().filter(|(key, value)| {
            key.starts_with("blocks/net1/") && value.contains(host) && !value.contains(other)
        });
        let mut lengths = blocks.map(|(key, _)| key.rsplit('_').next().expect("a length"));
        let lengths: Vec<_> = lengths.by_ref().collect();
        assert_eq!(lengths, ["27", "123"], "{records:#?}");
    }
    hosts[1]
        .add("more", &conf(json!(28)))
        .refused(103, &["net1", "blockPrefix", "27", "28"]);
}

#[test]
fn the_result_has_the_shape_of_its_version() {
    let lab = Lab::new(1, Backend::Dir);
    let hosts = Direct::on_all(&lab);
    let routes = json!([
        { "dst": "0.0.0.0/0" },
        { "dst": "10.99.0.0/16", "gw": "10.9.0.7", "mtu": 1400, "advmss": 1360, "priority": 9, "table": 50, "scope": 0 },
        { "dst": "fd99::/32", "gw": "fd00:9::7" },
    ]);
    lab.host(1)
        .write("/etc/resolv.test", "nameserver 192.0.2.53\n");
    let dns = json!({ "nameservers": ["192.0.2.53"] });
    let (v4, v6) = ("10.9.0.2/24", "fd00:9::2/64");
    for version in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        let ranges = json!([[{ "subnet": "10.9.0.0/24" }], [{ "subnet": "fd00:9::/64" }]]);
        let ipam_section = json!({ "ranges": ranges, "routes": routes, "resolvConf": "/etc/resolv.test", "dataDir": version });
        let mut conf = ipamconf("net1", ipam_section);
        conf["cniVersion"] = version.into();
        let wanted = match version {
            "0.1.0" | "0.2.0" => json!({
                "cniVersion": version,
                "ip4": {
                    "ip": v4, "gateway": "10.9.0.1",
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "10.99.0.0/16", "gw": "10.9.0.7" }],
                },
                "ip6": { "ip": v6, "gateway": "fd00:9::1", "routes": [{ "dst": "fd99::/32", "gw": "fd00:9::7" }] },
                "dns": dns,
            }),
            "0.3.0" | "0.3.1" | "0.4.0" => json!({
                "cniVersion": version,
                "ips": [
                    { "version": "4", "address": v4, "gateway": "10.9.0.1" },
                    { "version": "6", "address": v6, "gateway": "fd00:9::1" },
                ],
                "routes": routes, "dns": dns,
            }),
            _ => json!({
                "cniVersion": version,
                "ips": [{ "address": v4, "gateway": "10.9.0.1" }, { "address": v6, "gateway": "fd00:9::1" }],
                "routes": routes, "dns": dns,
            }),
        };
        let result = hosts[0].add("c1", &conf).ok().json();
        assert_eq!(result, wanted, "{version}");

        // Each verb since its version; CHECK reads the result of its own version.
        conf["prevResult"] = result;
        for (verb, since) in [("CHECK", "0.4.0"), ("STATUS", "1.1.0"), ("GC", "1.1.0")] {
            let said = hosts[0].call(verb, "c1", &conf).run();
            if version < since {
                said.refused(1, &[version, verb, since]);
            } else {
                assert_eq!(said.ok().stdout, "", "{verb} at {version}");
            }
        }
        assert_eq!(hosts[0].call("DEL", "c1", &conf).run().ok().stdout, "");
    }
}

#[test]
fn the_oldest_versions_have_no_words_for_two_addresses_of_a_family() {
    let lab = Lab::new(1, Backend::Dir);
    let hosts = Direct::on_all(&lab);
    let ranges = json!([[{ "subnet": "10.9.0.0/24" }], [{ "subnet": "10.10.0.0/24" }]]);
    let mut conf = ipamconf("net1", json!({ "ranges": ranges }));
    for (version, named) in [("0.1.0", "0.1.0"), ("0.2.0", "0.2.0"), ("", "0.1.0")] {
        conf["cniVersion"] = version.into();
        hosts[0]
            .add("c1", &conf)
            .refused(7, &["cniVersion", named, "one address of each family"]);
    }
    assert_eq!(store_reader::records(&lab).len(), 0);
    conf["cniVersion"] = "0.3.0".into();
    assert_eq!(hosts[0].given("c1", &conf), ["10.9.0.2/24", "10.10.0.2/24"]);
}
