//! STATUS of `overlay`: code 50 with the words of the ADD that would fail, and within a second whatever is wrong. Nothing is left
//! behind by it. What rules of others do to containers is no matter of STATUS.

use std::net::UdpSocket;
use std::time::Duration;

use crate::doctor_report::ask;
use integration::{Attachment, Backend, Finished, Host, Lab, Programs, conflist, netconf};
use serde_json::{Value, json};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";

fn conf() -> Value {
    let mut conf = netconf(NETWORK, SUBNET, "1.1.0");
    conf["vni"] = 5000.into();
    conf
}

/// A network that no ADD has made yet.
fn another() -> Value {
    let mut conf = netconf("ov_net2", "10.0.1.0/24", "1.1.0");
    conf["vni"] = 5001.into();
    conf
}

fn lab() -> Lab {
    Lab::registered(1, Backend::Dir)
}

#[track_caller]
fn status_of(host: &Host, conf: &Value) -> Finished {
    let before = host.footprint();
    let said = host.call("overlay", "STATUS").conf(conf).run();
    assert!(said.took < Duration::from_secs(1), "{said}");
    host.assert_same_as(&before, "after STATUS");
    said
}

/// STATUS is not ready in these words, nor is the ADD.
#[track_caller]
fn neither_is_ready(host: &Host, conf: &Value, code: u32, words: &[&str]) {
    status_of(host, conf).refused(50, words);
    let container = host.container("t9");
    let before = host.footprint();
    container.call("ADD", conf).run().refused(code, words);
    host.assert_same_as(&before, "after an ADD that failed");
    container.remove();
}

#[test]
fn a_tunnel_address_or_underlay_that_is_not_there() {
    let lab = lab();
    let host = lab.host(1);
    status_of(host, &conf()).ok();
    let mut elsewhere = conf();
    elsewhere["node"] = json!({ "vtep": "192.168.1.99" });
    neither_is_ready(host, &elsewhere, 7, &["node.vtep: 192.168.1.99"]);
    elsewhere["node"] = json!({ "underlay": "ens9" });
    neither_is_ready(host, &elsewhere, 7, &["node.underlay: ens9"]);
}

#[test]
fn a_port_that_a_program_has() {
    let lab = lab();
    let host = lab.host(1);
    let taken = host
        .namespace()
        .net()
        .run(|| UdpSocket::bind("192.168.1.11:4789").expect("a socket"));
    let words = ["vxlanPort: 4789", "process", "another vxlanPort"];
    neither_is_ready(host, &conf(), 107, &words);
    let mut other = another();
    other["vxlanPort"] = 8472.into();
    status_of(host, &other).ok();
    drop(taken);
    status_of(host, &conf()).ok();
}

#[test]
fn a_vni_or_a_port_that_another_vxlan_device_has() {
    let lab = lab();
    let host = lab.host(1);
    let link = |options: &str| {
        let add = format!(
            "ip link add vx0 type vxlan dstport 4789 local 192.168.1.11 {options}; ip link set vx0 up"
        );
        host.script(&add);
    };
    link("id 5000");
    neither_is_ready(host, &conf(), 107, &["vni: 5000", "vx0", "4789"]);
    // A plain one shares its port with ours.
    status_of(host, &another()).ok();
    host.script("ip link delete vx0");
    link("external");
    neither_is_ready(
        host,
        &conf(),
        107,
        &["vxlanPort: 4789", "vx0", "another kind"],
    );
    host.script("ip link delete vx0");
    // Of another namespace, with its socket in this one, as those of Docker's overlay networks are: ADD alone can tell.
    host.script("ip netns add sandbox; ip link add vx0 type vxlan id 5000 dstport 4789 local 192.168.1.11; ip link set vx0 netns sandbox; ip -n sandbox link set vx0 up");
    status_of(host, &conf()).ok();
    let container = host.container("t9");
    container
        .call("ADD", &conf())
        .run()
        .refused(107, &["vni 5000", "vxlanPort 4789", "another VXLAN user"]);
    host.script("ip netns delete sandbox");
}

/// An ADD works all the same, and containers that run go on: it is for the operator to say what goes out.
#[test]
fn rules_of_others_that_let_nothing_out_are_the_doctors() {
    let lab = lab();
    let host = lab.host(1);
    host.install(&conflist(NETWORK, SUBNET));
    let attached = Attachment::new(host, "t1", NETWORK);
    let conf = netconf(NETWORK, SUBNET, "1.1.0");
    for (chain, hook, words) in [
        (
            "forward",
            "forward",
            ["chain forward of nftables table inet mine", "policy drop"],
        ),
        (
            "input",
            "input",
            ["UDP to port 4789", "nftables table inet mine"],
        ),
    ] {
        host.script(&format!(
            "nft add table inet mine
             nft 'add chain inet mine {chain} {{ type filter hook {hook} priority 0; policy drop; }}'"
        ));
        status_of(host, &conf).ok();
        let cure = ask(host).wrong(&words);
        host.script(&cure);
        ask(host).assert_well();
        host.script("nft delete table inet mine");
    }
    attached.detach().ok();
}

/// A plugin that gives one address, and is ready whatever is asked.
const IPAM: &str = r#"#!/bin/sh
cat > /dev/null
[ "$CNI_COMMAND" != ADD ] || echo '{ "cniVersion": "1.1.0", "ips": [{ "address": "10.0.0.7/24" }] }'
"#;

/// The network under an IPAM plugin that knows no store.
fn foreign(host: &Host) -> Value {
    host.write_program("/run/foreign/foreign-ipam", IPAM);
    let mut conf = conf();
    conf["ipam"] = json!({ "type": "foreign-ipam", "subnet": SUBNET });
    conf
}

/// The same of an ADD and STATUS that find this plugin.
#[track_caller]
fn neither_is_ready_under_it(host: &Host, conf: &Value, code: u32, words: &[&str]) {
    let call = |verb: &str| {
        let path = format!("/run/foreign:{}", Programs::cni_path());
        host.call("overlay", verb).conf(conf).env("CNI_PATH", path)
    };
    let container = host.container("t9");
    let before = host.footprint();
    let add = call("ADD").id("t9-0123456789").netns(&container.netns());
    add.run().refused(code, words);
    let said = call("STATUS").run();
    assert!(said.took < Duration::from_secs(1), "{said}");
    let details = format!("an ADD would end with code {code}");
    assert_eq!(said.json()["details"], details.as_str(), "{said}");
    said.refused(50, words);
    host.assert_same_as(&before, "after both were refused");
    container.remove();
}

#[test]
fn what_the_store_has_against_each_add_whatever_plugin_gives_addresses() {
    let lab = Lab::new(2, Backend::Consul);
    let host = lab.host(1);
    let ready = |conf: &Value| {
        let path = format!("/run/foreign:{}", Programs::cni_path());
        let call = host.call("overlay", "STATUS").env("CNI_PATH", path);
        call.conf(conf).run().ok();
    };
    let conf = foreign(host);
    ready(&conf);
    let mut nowhere = conf.clone();
    nowhere["name"] = "nowhere".into();
    nowhere["ipam"] = json!({ "type": "foreign-ipam" });
    let words = ["network nowhere: not in the store", "ipam.ranges"];
    neither_is_ready_under_it(host, &nowhere, 103, &words);

    // The name is another host's.
    lab.host(2).sync();
    let settings = "/etc/crosshost/config.json";
    let own = host.run(&["cat", settings]).ok().stdout;
    let other = own.replace("docker01", "docker02");
    host.write(settings, other);
    let words = ["node docker02: is another host", "192.168.1.12"];
    neither_is_ready_under_it(host, &conf, 103, &words);
    host.write(settings, own);
    ready(&conf);

    // The network is another one, has no segment, or its store is away.
    host.create_network(NETWORK, "10.9.0.0/24");
    let mut other = conf.clone();
    other["vni"] = Value::Null;
    neither_is_ready_under_it(host, &other, 103, &["10.9.0.0/24", SUBNET]);
    host.crosshost(&["network", "rm", NETWORK]).ok();
    host.configure("consul://192.168.1.5:1");
    neither_is_ready_under_it(host, &conf, 11, &["192.168.1.5:1"]);
    host.configure(&lab.store_url());
    ready(&conf);
}

#[test]
fn what_this_host_has_against_each_add() {
    let lab = lab();
    let host = lab.host(1);
    let mut wants = netconf("out", SUBNET, "1.1.0");
    wants["egress"] = json!({ "mode": "gwbridge", "subnet": "172.30.0.0/16" });
    status_of(host, &wants).ok();
    host.script("ip link add other up type bridge; ip address add 172.30.5.1/24 dev other");
    neither_is_ready(host, &wants, 103, &["egress.subnet: 172.30.0.0/16"]);
    host.crosshost("network rm out").ok();
    host.script("ip address add 10.0.0.200/30 dev other");
    for (name, key, value) in [
        ("gate", "egress", json!("gateway")),
        ("access", "hostAccess", json!(true)),
    ] {
        let mut on_it = netconf(name, SUBNET, "1.1.0");
        on_it[key] = value;
        neither_is_ready(host, &on_it, 103, &[SUBNET, "10.0.0.200/30"]);
        host.crosshost(&["network", "rm", name]).ok();
    }
    host.script("ip link delete other");
    // A switch that is off and cannot be turned.
    host.script(
        "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /run/zero
         mount --bind /run/zero /proc/sys/net/ipv4/ip_forward
         mount -o remount,bind,ro /proc/sys/net/ipv4/ip_forward",
    );
    neither_is_ready(host, &conf(), 107, &["ip_forward", "Read-only file system"]);
    let mut internal = netconf("internal", SUBNET, "1.1.0");
    internal["egress"] = "none".into();
    host.crosshost(&["network", "rm", NETWORK]).ok();
    status_of(host, &internal).ok();
    host.script("umount /proc/sys/net/ipv4/ip_forward; rm /run/zero");
    // Where nothing can be noted nothing can be made.
    for (mount, words) in [
        ("size=64k", "No space left on device"),
        ("size=64k,ro", "Read-only file system"),
    ] {
        host.script(
            "mkdir -p /run/crosshost
             mount -t tmpfs -o size=64k full /run/crosshost
             dd if=/dev/zero of=/run/crosshost/filler bs=4096 2>/dev/null || true",
        );
        host.script(&format!("mount -o remount,{mount} /run/crosshost"));
        neither_is_ready(host, &conf(), 5, &["/run/crosshost", words]);
        host.script("umount /run/crosshost");
        status_of(host, &conf()).ok();
    }
}
