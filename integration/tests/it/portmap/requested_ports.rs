//! What a runtime asks of `portmap`: ports that are to be chosen, none at all, and what cannot be.

use crate::portmap::published;
use crate::portmap::published::{
    Published, add, fetch_at, lab, network, port, port_mappings, rules,
};
use integration::{Backend, Finished, Host, Lab, conflist};
use serde_json::{Value, json};

#[test]
fn a_port_that_is_not_named_is_chosen_and_told() {
    let lab = lab();
    let host = lab.host(1);
    host.script(
        "echo 40000 40009 > /proc/sys/net/ipv4/ip_local_port_range
         echo 40000-40003 > /proc/sys/net/ipv4/ip_local_reserved_ports",
    );
    let _listens = published::serve(host.namespace().net(), "host", 40004);
    let bound = json!({ "hostIP": host.vtep(), "hostPort": 40009, "containerPort": 80 });
    let _bound = Published::new(host, "bound", "br", &json!([bound]));
    let mut chosen = Vec::new();
    for name in ["a", "b", "c"] {
        let asked = json!([port(0, 80), "0.0.0.0:0:81"]);
        if name == "c" {
            host.container(name);
            add(host, name, &asked)
                .failed()
                .warns(&["none of 40000-40009"]);
            host.cnitool("del", "br", name, "eth0").ok();
            continue;
        }
        let one = Published::new(host, name, "br", &asked);
        let _servers = [80, 81].map(|port| one.serves(port));
        let told = told(host, name);
        assert_eq!(
            told.len(),
            3,
            "one of both versions of IP, one of IPv4: {told:?}"
        );
        for port in &told {
            assert!((40005..=40008).contains(&port.0), "{port:?}");
            let seen = fetch_at(lab.host(2).namespace(), host.vtep(), port.0);
            assert!(seen.starts_with(name), "{seen}");
        }
        let id = format!("cnitool-{}", id_of(name));
        let again = one.alone("ADD", &id, &asked).ok();
        assert_eq!(self::told(host, name), told, "{again}");
        chosen.extend(told.into_iter().map(|(port, _)| port));
        one.again("check").ok();
    }
    chosen.sort_unstable();
    chosen.dedup();
    assert_eq!(chosen.len(), 4, "no port twice");
    chosen_is_in_the_result(host);
}

/// An ADD that comes again keeps what was chosen, unless it asks for that port by its number now.
#[test]
fn a_chosen_port_is_not_kept_for_two() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([]));
    let call = |verb, asked: &Value| web.alone(verb, "c1", asked).ok().json();
    let chosen = |said: &Value| {
        let all = said["portMappings"].as_array().expect("ports").clone();
        all.into_iter()
            .map(|it| it["hostPort"].clone())
            .collect::<Vec<_>>()
    };
    let first = chosen(&call("ADD", &json!([port(0, 80)])))[0].clone();
    let same = chosen(&call("ADD", &json!([port(0, 80)])));
    assert_eq!(same, std::slice::from_ref(&first));
    let by_number = json!({ "hostPort": first, "containerPort": 81, "protocol": "tcp" });
    let both = json!([port(0, 80), by_number]);
    let two = chosen(&call("ADD", &both));
    assert!(two[0] != first && two[1] == first, "{two:?}");
    let again = chosen(&call("ADD", &both));
    assert_eq!(again, two);
    web.alone("DEL", "c1", &both).ok();
}

/// The ports that `crosshost port ls` tells of a container: of the host, and of the container.
fn told(host: &Host, container: &str) -> Vec<(u16, u16)> {
    let all = host.listed("port ls");
    let id = format!("cnitool-{}", id_of(container));
    let port = |value: &Value| {
        let number = value.as_u64().and_then(|port| u16::try_from(port).ok());
        number.expect("a port")
    };
    let mine = all.as_array().expect("a list").iter();
    let mine = mine.filter(|it| it["containerID"] == id.as_str());
    mine.map(|it| (port(&it["hostPort"]), port(&it["containerPort"])))
        .collect()
}

/// What cnitool makes of a namespace's path.
pub(crate) fn id_of(container: &str) -> String {
    let sum = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("printf %s /run/netns/{container} | sha512sum"),
        ])
        .output();
    let sum = String::from_utf8_lossy(&sum.expect("a sum").stdout).into_owned();
    sum[..20].to_owned()
}

/// A plugin's answer has it, though cnitool shows only what it knows.
fn chosen_is_in_the_result(host: &Host) {
    let one = Published::new(host, "d", "br", &json!([]));
    host.script("echo 41000 41009 > /proc/sys/net/ipv4/ip_local_port_range");
    let call = |verb| one.alone(verb, "c1", &json!([port(0, 80)])).ok();
    let told = call("ADD").json()["portMappings"].clone();
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(
        (&told[0]["containerPort"], &told[0]["protocol"]),
        (&json!(80), &json!("tcp"))
    );
    let port = told[0]["hostPort"].as_u64().expect("a port");
    assert!((41000..=41009).contains(&port), "{told}");
    host.crosshost("port ls")
        .ok()
        .says(&[&format!("0.0.0.0:{port}/tcp")]);
    call("CHECK");
    call("DEL");
}

#[test]
fn what_cannot_be_published_is_refused_with_key_and_value() {
    let lab = lab();
    let host = lab.host(1);
    let mut v4 = network("bridge", "v4", 4);
    v4["plugins"][0]["ipam"]["ranges"] = json!([[{ "subnet": "10.4.0.0/24" }]]);
    host.install(&v4);
    let attached = [
        Published::new(host, "web", "br", &json!([])),
        Published::new(host, "web4", "v4", &json!([])),
    ];
    let refused = |network: &str, keys: &Value, asked: Value, code: u32, words: &[&str]| {
        let of = attached.iter().find(|one| one.network == network);
        let of = of.expect("a network");
        let mut conf = json!({
            "cniVersion": "1.0.0",
            "name": network,
            "type": "portmap",
            "prevResult": of.result,
            "runtimeConfig": port_mappings(&asked),
        });
        for (key, value) in keys.as_object().into_iter().flatten() {
            conf[key] = value.clone();
        }
        let call = host.call("portmap", "ADD").id("c1").netns("/run/netns/web");
        call.conf(&conf).run().refused(code, words);
        assert!(!rules(host).contains("ports4"), "{}", rules(host));
    };
    let none = json!({});
    let key = "runtimeConfig.portMappings[0]: ";
    let one = |asked| json!([asked]);
    for (asked, why) in [
        (port(80, 0), "containerPort: 0 is not a port"),
        (json!({ "hostPort": 70000, "containerPort": 80 }), "70000"),
        (
            json!({ "hostPort": 80, "containerPort": 80, "protocol": "icmp" }),
            "icmp",
        ),
        (
            json!({ "hostPort": 80, "containerPort": 80, "hostIP": "here" }),
            "here",
        ),
    ] {
        refused("br", &none, one(asked), 7, &[key, why]);
    }
    let overlap = json!(["80-90:80-90", port(85, 80)]);
    let says = [
        "runtimeConfig.portMappings[1]: ",
        "overlaps with 80-90:80-90/tcp",
    ];
    refused("br", &none, overlap, 7, &says);
    let no_v6 = ["[::]:80:80/tcp", "no IPv6 address"];
    refused("v4", &none, json!(["[::]:80:80"]), 112, &no_v6);
    let words = json!({ "conditionsV4": ["-s", "10.0.0.1"] });
    refused(
        "br",
        &words,
        one(port(80, 80)),
        7,
        &["conditionsV4: ", "a word of iptables"],
    );
    let bit = json!({ "markMasqBit": 32 });
    refused("br", &bit, one(port(80, 80)), 7, &["markMasqBit: 32"]);
    let backend = json!({ "backend": "bpf" });
    refused("br", &backend, one(port(80, 80)), 7, &["backend: \"bpf\""]);
    let conf = |network: usize, asked: Value| {
        json!({
            "cniVersion": "1.0.0",
            "name": attached[network].network,
            "type": "portmap",
            "prevResult": attached[network].result,
            "runtimeConfig": port_mappings(&asked),
        })
    };
    let call = |verb, id: &str, conf: &Value| {
        let call = host.call("portmap", verb).id(id).netns("/run/netns/web");
        call.conf(conf).run()
    };
    let held = conf(0, one(port(81, 80)));
    call("ADD", "c1", &held).ok();
    let taken = conf(1, json!(["0.0.0.0:81:80"]));
    let says = ["81/tcp: eth0 of container c1 on network br has it"];
    call("ADD", "c2", &taken).refused(111, &says);
    call("DEL", "c1", &held).ok();
    for one in &attached {
        one.again("del").ok();
    }

    // An address that this host has not is no error, as it may come: it is said.
    let asked = json!([{ "hostIP": "192.168.1.200", "hostPort": 80, "containerPort": 80 }]);
    let added = add(host, "web", &asked).ok();
    assert!(
        added
            .stderr
            .contains("192.168.1.200 is not an address of this host yet"),
        "{added}"
    );
    host.cnitool("del", "br", "web", "eth0").ok();
    // Not chained.
    let conf = json!({ "cniVersion": "1.0.0", "name": "br", "type": "portmap" });
    let call = host.call("portmap", "ADD").id("c1");
    let call = call.netns("/run/netns/web").conf(&conf);
    call.run()
        .refused(7, &["prevResult: missing", "chained plugin"]);
}

#[test]
fn an_address_at_which_the_host_meets_no_container_is_not_taken_in_silence() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([]));
    let call = |verb, result: &Value| {
        let conf = json!({
            "cniVersion": "1.0.0",
            "name": "br",
            "type": "portmap",
            "prevResult": result,
            "runtimeConfig": port_mappings(&json!([port(8080, 80)])),
        });
        let call = host.call("portmap", verb).id("c1");
        call.netns("/run/netns/web").conf(&conf).run()
    };
    // Its own loopback would be the host's, with all that listens there.
    let mut with_loopback = web.result.clone();
    let inside = json!({ "name": "lo", "sandbox": "/run/netns/web" });
    let interfaces = with_loopback["interfaces"].as_array_mut();
    interfaces.expect("a list").push(inside);
    let at = with_loopback["interfaces"].as_array().map(Vec::len);
    let at = at.expect("a list") - 1;
    let v4_of_web = web.result["ips"][0].clone();
    with_loopback["ips"] = json!([
        { "address": "127.0.0.1/8", "interface": at },
        { "address": "::1/128", "interface": at },
        v4_of_web,
    ]);
    call("ADD", &with_loopback).ok();
    let all = rules(host);
    let leads = all
        .lines()
        .filter(|line| line.contains("tcp . 8080 comment"));
    let leads: Vec<_> = leads.collect();
    assert!(leads.len() == 1 && leads[0].contains(": 10.1.0."), "{all}");
    call("DEL", &with_loopback).ok();
    // Behind a router, as the addresses of a network without a way out are: somebody else may have it there.
    let far = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.99.0.2/24" }] });
    let added = call("ADD", &far).ok();
    let says = "10.99.0.2 is not on a link of this host, but behind ";
    assert!(added.stderr.contains(says), "{added}");
    call("DEL", &far).ok();
    // What the host cannot reach over one version of IP it may over the other. fd99::/16 is unreachable here, whatever else there is.
    host.script("ip route add unreachable fd99::/16");
    let lame = json!({
        "cniVersion": "1.0.0",
        "ips": [{ "address": v4_of_web["address"] }, { "address": "fd99::2/64" }],
    });
    let added = call("ADD", &lame).ok();
    let says = "this host has no route to the container at fd99::2";
    assert!(added.stderr.contains(says), "{added}");
    assert!(
        rules(host).contains("tcp . 8080 comment"),
        "{}",
        rules(host)
    );
    call("DEL", &lame).ok();
    let lost = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "fd99::2/64" }] });
    call("ADD", &lost).refused(107, &[says]);
    // Neither this host's own addresses nor those of many are a container's, and none is none.
    host.script("ip address add fd00:1::9/64 dev lo nodad");
    let no_route = (107, "this host has no route to the container at ");
    let nothing = (112, "the container has no IP address");
    for (network, (code, says)) in [
        ("10.1.0.1/24", no_route),
        ("10.1.0.255/24", no_route),
        ("224.0.0.9/24", no_route),
        ("fd00:1::9/64", no_route),
        ("ff02::9/64", no_route),
        ("0.0.0.0/24", nothing),
        ("::/64", nothing),
    ] {
        let of = json!({ "cniVersion": "1.0.0", "ips": [{ "address": network }] });
        call("ADD", &of).refused(code, &[says]);
    }
    assert_eq!(rules(host), "");
    // From ::1 Linux lets nothing out to a container.
    host.container("late");
    let added = add(host, "late", &json!(["[::1]:80:80"])).ok();
    let says = "::1 leads to no container";
    assert!(added.stderr.contains(says), "{added}");
    host.cnitool("del", "br", "late", "eth0").ok();
}

#[test]
fn without_ports_nothing_is_touched_and_the_result_goes_through() {
    let lab = lab();
    let host = lab.host(1);
    host.container("web");
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let mut previous = json!({
            "cniVersion": version,
            "interfaces": [{ "name": "eth0", "mac": "", "sandbox": "/run/netns/web", "of": { "theirs": 1 } }],
            "ips": [{ "address": "10.1.0.2/24", "interface": 0, "x": "y" }],
            "routes": [],
            "dns": {},
            "unknown": [1, { "a": null }],
        });
        if !version.starts_with('1') {
            previous["ips"][0]["version"] = "4".into();
        }
        let conf = json!({ "cniVersion": version, "name": "br", "type": "portmap", "prevResult": previous });
        let call = host
            .call("portmap", "ADD")
            .id("c1")
            .netns("/run/netns/web")
            .conf(&conf);
        assert_eq!(call.run().ok().json(), previous);
    }
    assert_eq!(rules(host), "");
    assert!(!host.namespace().path("/run/crosshost").exists());
}

#[test]
fn status_and_version_need_no_container() {
    let lab = lab();
    let host = lab.host(1);
    let conf = |keys: Value| {
        let mut conf = json!({ "cniVersion": "1.1.0", "name": "br", "type": "portmap" });
        for (key, value) in keys.as_object().into_iter().flatten() {
            conf[key] = value.clone();
        }
        conf
    };
    host.call("portmap", "STATUS")
        .conf(&conf(json!({})))
        .run()
        .ok();
    let bad = conf(json!({ "markMasqBit": -1 }));
    host.call("portmap", "STATUS")
        .conf(&bad)
        .run()
        .refused(7, &["markMasqBit: -1"]);
    // Without the right to speak to nftables an ADD would fail.
    let mut command = host.namespace().command("setpriv");
    command
        .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"])
        .arg(integration::Programs::product("portmap"))
        .env("CNI_COMMAND", "STATUS");
    let running = integration::Running::start(command, conf(json!({})).to_string().as_bytes());
    let said = running.wait(std::time::Duration::from_secs(5));
    said.refused(50, &["nftables cannot be used"]);
    let version = host.call("portmap", "VERSION").stdin("").run().ok().json();
    let all = version["supportedVersions"].as_array().map(Vec::len);
    assert_eq!(all, Some(7), "{version}");
}

/// Results before 0.3.0 have no interfaces. Of a container of `overlay` they have the address on the segment alone, which the host
/// does not reach: by its default gateway a port would lead to whoever has that address beyond it.
#[test]
fn a_result_that_does_not_say_where_the_container_is_met_is_refused_with_its_version() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let asked = port_mappings(&json!([port(8080, 80)]));
    for version in [None, Some("0.1.0"), Some("0.2.0")] {
        let mut old = conflist("ov_net1", "10.0.0.0/24");
        old["plugins"] = json!([
            old["plugins"][0],
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ]);
        old.as_object_mut().expect("a list").remove("cniVersions");
        match version {
            Some(version) => old["cniVersion"] = version.into(),
            None => drop(old.as_object_mut().expect("a list").remove("cniVersion")),
        }
        host.install(&old);
        let container = host.container("web");
        let attached = ("web", "eth0");
        let refused = |said: Finished| {
            let said = said.failed().stderr;
            let version = version.unwrap_or("0.1.0");
            for words in [
                &format!("cniVersion: {version}"),
                "10.0.0.",
                "0.3.0 or later",
            ] {
                assert!(said.contains(words), "{words}: {said}");
            }
            assert!(!rules(host).contains("ports4"), "{}", rules(host));
            host.cnitool_asking("del", "ov_net1", attached, &asked).ok();
        };
        refused(host.cnitool_asking("add", "ov_net1", attached, &asked));
        // Nor to whoever has it on a link of this host.
        host.script("ip link add other up type bridge; ip address add 10.0.0.200/24 dev other");
        refused(host.cnitool_asking("add", "ov_net1", attached, &asked));
        host.script("ip link delete other");
        // A container without ports is none of its business.
        host.cnitool("add", "ov_net1", "web", "eth0").ok();
        host.cnitool("del", "ov_net1", "web", "eth0").ok();
        container.remove();
    }
    // Where the host is on the segment it meets the container there.
    let mut old = network("overlay", "gate", 2);
    old["cniVersion"] = "0.2.0".into();
    old["plugins"][0]["egress"] = "gateway".into();
    host.install(&old);
    let web = Published::new(host, "web2", "gate", &json!([port(8080, 80)]));
    let _server = web.serves(80);
    assert!(fetch_at(host.namespace(), host.vtep(), 8080).starts_with("web2 "));
    web.again("del").ok();
}
