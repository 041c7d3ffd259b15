//! What cannot be read, a key of the store or a document of a host, is taken, and stops nothing else: damaged, or of a version
//! that is newer. The pairs are in `crates/ipam-kv/tests/unreadable.rs`; here is a sample of them for real.

use std::collections::BTreeSet;

use crate::doctor_report;
use integration::{Attachment, Backend, Consul, Container, Host, Lab, conflist, end_all, netconf};
use serde_json::{Value, json};

/// What may become of a value; `{}` is what was there.
const DAMAGED: [&str; 4] = [
    "",
    "{\"schema\":1,",
    "\u{1}\u{fffd}nonsense",
    "{\"schema\":2}",
];

fn put(consul: &Consul, key: &str, value: &str) {
    let target = format!("/v1/kv/crosshost/v1/{key}");
    let (code, body) = consul.request("PUT", &target, value);
    assert_eq!((code, body.trim()), (200, "true"), "{key}");
}

fn get(consul: &Consul, key: &str) -> String {
    let target = format!("/v1/kv/crosshost/v1/{key}?raw");
    consul.request("GET", &target, "").1
}

fn delete(consul: &Consul, key: &str) {
    let target = format!("/v1/kv/crosshost/v1/{key}");
    assert_eq!(consul.request("DELETE", &target, "").0, 200, "{key}");
}

fn lab(networks: &[(&str, &str)]) -> Lab {
    let lab = Lab::registered(2, Backend::Consul);
    for (network, subnet) in networks {
        lab.host(1).create_network(network, subnet);
        lab.install(&conflist(network, subnet));
    }
    lab
}

/// The block that a host owns of a network, as its key spells it.
fn block(host: &Host, network: &str, of: &Host) -> String {
    let blocks = host.listed(&["network", "inspect", network])["blocks"].clone();
    let blocks = blocks.as_array().expect("blocks").clone();
    let own = blocks.iter().find(|it| it["node"] == of.name());
    let own = own.expect("a block")["block"].as_str().expect("a text");
    own.replace('/', "_")
}

/// What a script says on a host.
fn shell(host: &Host, script: &str) -> String {
    host.run(&["sh", "-ec", script]).ok().stdout
}

fn outer(container: &Container<'_>) -> String {
    container.address("gw0").expect("a way out").to_string()
}

/// Each list has a row for what cannot be read.
#[track_caller]
fn lists_show_them(host: &Host) {
    for words in [
        &["node", "ls"] as &[&str],
        &["network", "ls"],
        &["network", "inspect", "net_a"],
        &["endpoint", "ls"],
    ] {
        let listed = host.crosshost(words).ok();
        assert!(listed.stdout.contains("unreadable"), "{words:?}: {listed}");
    }
}

#[test]
fn keys_that_cannot_be_read_stop_nothing_else() {
    let lab = lab(&[("net_a", "10.0.0.0/24"), ("net_b", "10.0.1.0/24")]);
    let (one, two, consul) = (lab.host(1), lab.host(2), lab.consul());
    let (here, there) = (
        Attachment::new(one, "a1", "net_a"),
        Attachment::new(two, "a2", "net_a"),
    );
    let broken = Attachment::new(one, "b1", "net_b");
    let own = block(one, "net_a", one);
    for (round, damaged) in DAMAGED.iter().enumerate() {
        let keys = [
            format!("nodes/{}", two.name()),
            format!("blocks/net_a/{own}"),
            format!("leases/net_a/{}", there.address),
            format!("ledgers/net_a/{}", two.name()),
            format!("acks/net_a/{}", one.name()),
            "networks/net_b".to_owned(),
            "vnis/4097".to_owned(),
            "removed/net_c".to_owned(),
        ];
        let before = keys.clone().map(|key| get(consul, &key));
        for key in &keys {
            put(consul, key, damaged);
        }
        // Neither is a block of the network, and the one would be a walk of days.
        let strays = ["blocks/net_a/10.0.0.0_8", "blocks/net_a/::_0", "nodes/x/y"];
        for stray in strays {
            put(
                consul,
                stray,
                &json!({"schema": 1, "node": one.name()}).to_string(),
            );
        }
        lists_show_them(one);
        let found = doctor_report::ask(one);
        for key in keys.iter().map(String::as_str).chain(strays) {
            let mend = found.wrong(&[&format!("crosshost/v1/{key}: ")]);
            let is_newer = damaged.contains('2') && !strays.contains(&key);
            let is_node = key == keys[0];
            let deletes = mend.starts_with("consul kv delete ");
            assert_eq!(deletes, !is_newer && !is_node, "{mend}");
            let syncs = mend.starts_with(&format!("crosshost sync  # on {}", two.name()));
            assert_eq!(syncs, !is_newer && is_node, "{mend}");
        }
        let new: Vec<_> = lab
            .hosts()
            .iter()
            .map(|host| Attachment::new(host, &format!("new{round}"), "net_a"))
            .collect();
        let all: BTreeSet<_> = new
            .iter()
            .chain([&here, &there])
            .map(|it| it.address)
            .collect();
        assert_eq!(all.len(), 4, "{all:?}");
        // The host that has a container on the network reports it; the other host has no part in it.
        one.crosshost("sync").failed().warns(&["networks/net_b"]);
        two.sync();
        for host in lab.hosts() {
            host.crosshost("gc").ok();
        }
        for (from, to) in [
            (&here, &there),
            (&there, &here),
            (&new[0], &new[1]),
            (&new[1], &here),
        ] {
            assert!(from.container.pings(to.address, &[]), "round {round}");
        }
        one.cnitool("check", "net_a", "a1", "eth0").ok();
        two.cnitool("check", "net_a", "a2", "eth0").ok();
        end_all(&new);
        for (key, value) in keys.iter().zip(&before) {
            // A host that knows of a network, a VNI or a lease can write it again; so can it all of them.
            if round % 2 == 0 && !value.is_empty() {
                put(consul, key, value);
            } else {
                delete(consul, key);
            }
        }
        for stray in strays {
            delete(consul, stray);
        }
        for host in [one, two, one] {
            host.sync();
        }
        for stray in strays {
            assert_eq!(get(consul, stray), "", "{stray}: it is not written again");
        }
        assert!(here.container.pings(there.address, &[]));
    }
    broken.detach().ok();
    let kept: Vec<Value> = one
        .listed("endpoint ls")
        .as_array()
        .expect("a list")
        .clone();
    assert_eq!(kept.len(), 2, "{kept:?}");
}

/// The host that began to write a network again has lost its memory of it: it is named, and can be removed there.
#[test]
fn a_restore_whose_host_forgot_it_is_named_and_removed_where_it_began() {
    let lab = lab(&[("net_a", "10.0.0.0/24")]);
    let (one, two) = (lab.host(1), lab.host(2));
    let node = get(lab.consul(), &format!("nodes/{}", one.name()));
    let node: Value = serde_json::from_str(&node).expect("a record");
    let mut network: Value =
        serde_json::from_str(&get(lab.consul(), "networks/net_a")).expect("a record");
    network["state"] = json!("removing");
    network["restoring"] = json!({"node": one.name(), "bootID": node["bootID"]});
    put(lab.consul(), "networks/net_a", &network.to_string());
    let said = doctor_report::ask(two).noted(&["net_a", one.name(), "writes it again"]);
    assert!(said.starts_with("crosshost sync"), "{said}");
    two.crosshost("network rm net_a").failed();
    one.crosshost("network rm net_a").ok();
}

/// Names that no key of ours can have are told, and end neither doctor nor gc.
#[test]
fn keys_that_are_called_oddly_are_told_and_stop_nothing() {
    let lab = lab(&[]);
    let (host, consul) = (lab.host(1), lab.consul());
    let keys = [
        "blocks/Bad%20Name/10.1.0.0_29",
        "networks/a%20b",
        "removed/a%20b",
    ];
    for key in keys {
        put(consul, key, "x");
    }
    let found = doctor_report::ask(host);
    for named in ["blocks/Bad Name", "networks/a b", "removed/a b"] {
        let mend = found.wrong(&[&format!("crosshost/v1/{named}: ")]);
        assert_eq!(
            mend,
            format!("consul kv delete -recurse 'crosshost/v1/{named}'")
        );
    }
    host.crosshost("gc").ok();
}

#[test]
fn documents_that_cannot_be_read_stop_nothing_else() {
    let lab = lab(&[("net_a", "10.0.0.0/24")]);
    let host = lab.host(1);
    let t2 = Attachment::new(host, "t2", "net_a");
    let t0 = Attachment::new(host, "t0", "net_a");
    let before = shell(host, "cd /run/crosshost; find . -name '*.json' | sort");
    t0.detach().ok();
    let t1 = Attachment::new(host, "t1", "net_a");
    let mine = shell(host, "cd /run/crosshost; find . -name '*.json' | sort");
    // Of t1's own and of the host's documents, not of t2's.
    let known: BTreeSet<_> = before.lines().collect();
    let is_attachments = |path: &&str| path.contains("journal/") || path.contains("holding/");
    let files: Vec<_> = mine
        .lines()
        .filter(|path| !is_attachments(path) || !known.contains(path))
        .collect();
    assert!(files.len() > 8, "{files:?}");
    let mut seen = BTreeSet::from([t1.address, t2.address]);
    for (n, file) in files.iter().enumerate() {
        let damaged = DAMAGED[n % DAMAGED.len()];
        let path = format!("/run/crosshost/{}", file.trim_start_matches("./"));
        host.write(&path, damaged);
        doctor_report::ask(host).wrong(&[&path]);
        host.cnitool("check", "net_a", "t2", "eth0").ok();
        host.crosshost("gc").ok();
        host.sync();
        let t3 = Attachment::new(host, "t3", "net_a");
        assert_ne!(outer(&t3.container), outer(&t1.container), "{file}");
        assert_ne!(outer(&t3.container), outer(&t2.container), "{file}");
        assert!(
            !seen.contains(&t3.address) || t3.address != t1.address,
            "{file}"
        );
        assert_ne!(t3.address, t1.address, "{file}");
        assert_ne!(t3.address, t2.address, "{file}");
        seen.insert(t3.address);
        for (from, to) in [(&t1, &t2), (&t3, &t1)] {
            assert!(from.container.pings(to.address, &[]), "{file}");
        }
        t3.end();
        host.cnitool("check", "net_a", "t2", "eth0").ok();
    }
    t1.detach().ok();
    t2.detach().ok();
    let left = "find /run/crosshost -name '*.json' | grep -v -e news -e memory -e ledger -e place -e paths -e layout -e tunnel || true";
    let left = shell(host, left);
    assert_eq!(left, "", "nothing of the containers is left");
}

#[test]
fn an_unreadable_holding_keeps_its_address_though_the_ledger_is_lost_too() {
    let lab = lab(&[("net_a", "10.0.0.0/24")]);
    let (host, consul) = (lab.host(1), lab.consul());
    let t1 = Attachment::new(host, "t1", "net_a");
    for damaged in DAMAGED {
        host.script("for file in /run/crosshost/holding/net_a/*.json; do : > $file; done");
        host.sync();
        let lease = format!("leases/net_a/{}", t1.address);
        assert!(
            get(consul, &lease).contains("containerID"),
            "its lease stays"
        );
        host.write("/run/crosshost/ledger/net_a.json", damaged);
        let others: Vec<_> = (0..3)
            .map(|n| Attachment::new(host, &format!("other{n}"), "net_a"))
            .collect();
        for other in &others {
            assert_ne!(other.address, t1.address);
            other.end();
        }
        let again = host.cnitool("add", "net_a", "t1", "eth1");
        again.ok();
        host.cnitool("del", "net_a", "t1", "eth1").ok();
    }
    t1.detach().ok();
    host.sync();
    assert_eq!(host.listed("endpoint ls"), json!([]));
    doctor_report::ask(host).assert_well();
}

#[test]
fn an_egress_document_lost_twice_gives_no_address_twice() {
    let lab = lab(&[("net_a", "10.0.0.0/24"), ("net_b", "10.0.1.0/24")]);
    let host = lab.host(1);
    let mut attached = vec![Attachment::new(host, "t0", "net_a")];
    for (n, damaged) in DAMAGED.iter().enumerate() {
        host.write("/run/crosshost/egress/egress.json", damaged);
        attached.push(Attachment::new(host, &format!("t{}", n + 1), "net_a"));
    }
    let all: BTreeSet<_> = attached.iter().map(|it| outer(&it.container)).collect();
    assert_eq!(all.len(), attached.len(), "{all:?}");
    // One that lost its note by its second network keeps its way out until it has left both.
    host.write("/run/crosshost/egress/egress.json", "");
    host.cnitool("add", "net_b", "t0", "eth1").ok();
    host.write("/run/crosshost/egress/egress.json", "");
    host.cnitool("del", "net_b", "t0", "eth1").ok();
    for it in &attached {
        let name = it.container.name();
        host.cnitool("check", "net_a", name, "eth0").ok();
        outer(&it.container);
    }
    end_all(&attached);
    let egress = shell(host, "ls /run/crosshost/egress");
    assert_eq!(egress, "", "the bridge went with the last of them");
}

#[test]
fn an_empty_list_of_interfaces_fails_no_published_port() {
    let lab = Lab::new(1, Backend::Consul);
    let host = lab.host(1);
    let mut chain = conflist("net_a", "10.0.0.0/24");
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    chain["plugins"]
        .as_array_mut()
        .expect("plugins")
        .push(portmap);
    let asked =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    host.install(&chain);
    for damaged in DAMAGED {
        host.script("mkdir -p /run/crosshost/portmap");
        host.write("/run/crosshost/portmap/localnet.json", damaged);
        let t1 = host.container("t1");
        for verb in ["add", "check", "del"] {
            if verb == "check" {
                host.write("/run/crosshost/portmap/localnet.json", damaged);
                host.sync();
            }
            host.cnitool_asking(verb, "net_a", ("t1", "eth0"), &asked)
                .ok();
        }
        t1.remove();
    }
}

#[test]
fn a_tunnel_address_belongs_to_one_host() {
    let lab = lab(&[("net_a", "10.0.0.0/24")]);
    let (one, two, consul) = (lab.host(1), lab.host(2), lab.consul());
    let here = Attachment::new(one, "t1", "net_a");
    let there = Attachment::new(two, "t2", "net_a");
    // The store has another address of a host that lives.
    let key = format!("nodes/{}", two.name());
    for (wrong, why) in [
        ("224.0.0.1", "multicast"),
        ("127.0.0.1", "loopback"),
        ("255.255.255.255", "broadcast"),
        ("0.0.0.0", "not the address of a host"),
    ] {
        let record = get(consul, &key).replace(two.vtep(), wrong);
        put(consul, &key, &record);
        doctor_report::ask(one).wrong(&[&key, wrong, why]);
        one.sync();
        let entries = one.in_sandbox("net_a", "bridge fdb show dev vxlan0");
        assert!(!entries.contains(&format!("dst {wrong} ")), "{entries}");
        let said = two.sync();
        assert!(said.stderr.contains("mended"), "{said}");
        one.sync();
        assert!(here.container.pings(there.address, &[]), "{wrong}");
    }
    // Only a host of the segment can know that this is none.
    let record = get(consul, &key).replace(two.vtep(), "192.168.1.255");
    put(consul, &key, &record);
    doctor_report::ask(one).wrong(&["192.168.1.255", two.name(), "broadcast"]);
    two.sync();
    doctor_report::ask(one).assert_well();
    // Two hosts that say the same.
    let record = get(consul, &key).replace(two.vtep(), one.vtep());
    put(consul, &key, &record);
    doctor_report::ask(one).wrong(&[one.vtep(), one.name(), two.name()]);
    let said = two.sync();
    assert!(
        said.stderr.contains(one.vtep()) && said.stderr.contains("mended"),
        "{said}"
    );
    two.script(&format!("ip addr add {}/32 dev ens3", one.vtep()));
    two.tunnel_from(one.vtep());
    let refused = two.crosshost("sync").failed();
    for word in [one.vtep(), one.name(), two.name(), "node rm"] {
        assert!(refused.stderr.contains(word), "{word}: {refused}");
    }
    let status = two
        .call("overlay", "STATUS")
        .conf(&netconf("net_a", "10.0.0.0/24", "1.1.0"));
    status.run().refused(50, &[one.vtep(), one.name()]);
    for (vtep, word) in [("127.0.0.1", "loopback"), ("224.0.0.1", "not an address")] {
        two.tunnel_from(vtep);
        let refused = two.crosshost("sync").failed();
        assert!(
            refused.stderr.contains(vtep) && refused.stderr.contains(word),
            "{refused}"
        );
    }
    two.underlay("lo");
    two.crosshost("sync").failed().warns(&["node.underlay: lo"]);
}

#[test]
fn a_tunnel_address_that_is_refused_is_not_registered() {
    let lab = lab(&[("net_a", "10.0.0.0/24")]);
    let (one, two, consul) = (lab.host(1), lab.host(2), lab.consul());
    let here = Attachment::new(one, "t1", "net_a");
    let there = Attachment::new(two, "t2", "net_a");
    let key = format!("nodes/{}", two.name());
    let conf = netconf("net_a", "10.0.0.0/24", "1.1.0");
    for wrong in [one.vtep(), "192.168.1.99", "224.0.0.1"] {
        two.tunnel_from(wrong);
        let why = [wrong, "not an address of this host"];
        let refused = two.crosshost("sync").failed();
        assert!(
            why.iter().all(|it| refused.stderr.contains(it)),
            "{refused}"
        );
        // Nor by a verb; and ADD and STATUS say the same.
        two.call("overlay", "STATUS")
            .conf(&conf)
            .run()
            .refused(50, &why);
        let new = two.container("new");
        let refused = two.cnitool("add", "net_a", "new", "eth0").failed();
        assert!(
            why.iter().all(|it| refused.stderr.contains(it)),
            "{refused}"
        );
        two.cnitool("del", "net_a", "new", "eth0").ok();
        new.remove();
        let record: Value = serde_json::from_str(&get(consul, &key)).expect("a record");
        assert_eq!(record["vtep"], two.vtep(), "{wrong}");
        one.sync();
        assert!(here.container.pings(there.address, &[]), "{wrong}");
    }
    two.tunnel_from(two.vtep());
    two.sync();
    Attachment::new(two, "new", "net_a");
}
