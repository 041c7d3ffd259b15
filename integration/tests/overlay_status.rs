//! STATUS of `overlay`: code 50 with the words of the ADD that would fail, 51 where rules of others keep everything in, and
//! within a second whatever is wrong. Nothing is left behind by it.
#![allow(clippy::expect_used, reason = "a test: it stops where it broke")]

use std::net::UdpSocket;
use std::time::Duration;

use integration::{Attachment, Backend, Finished, Host, Lab, conflist, netconf};
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
    let lab = Lab::new(1, Backend::Dir);
    lab.host(1).crosshost(&["sync"]).ok();
    lab
}

#[track_caller]
fn status_of(host: &Host, conf: &Value) -> Finished {
    let before = host.footprint();
    let said = host.call("overlay", "STATUS").conf(conf).run();
    assert!(said.took < Duration::from_secs(1), "{said}");
    host.footprint().assert_same_as(&before, "after STATUS");
    said
}

/// STATUS is not ready in these words, nor is the ADD.
#[track_caller]
fn neither_is_ready(host: &Host, conf: &Value, code: u32, words: &[&str]) {
    status_of(host, conf).refused(50, words);
    let container = host.container("t9");
    let before = host.footprint();
    let add = host
        .call("overlay", "ADD")
        .id("t9")
        .netns(&container.netns());
    add.conf(conf).run().refused(code, words);
    host.footprint()
        .assert_same_as(&before, "after an ADD that failed");
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
        .space()
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
        host.space().script(&add);
    };
    link("id 5000");
    neither_is_ready(host, &conf(), 107, &["vni: 5000", "vx0", "4789"]);
    // A plain one shares its port with ours.
    status_of(host, &another()).ok();
    host.space().script("ip link delete vx0");
    link("external");
    neither_is_ready(
        host,
        &conf(),
        107,
        &["vxlanPort: 4789", "vx0", "another kind"],
    );
    host.space().script("ip link delete vx0");
    // Of another namespace, with its socket in this one, as those of Docker's overlay networks are: ADD alone can tell.
    host.space().script("ip netns add sandbox; ip link add vx0 type vxlan id 5000 dstport 4789 local 192.168.1.11; ip link set vx0 netns sandbox; ip -n sandbox link set vx0 up");
    status_of(host, &conf()).ok();
    let container = host.container("t9");
    let add = host
        .call("overlay", "ADD")
        .id("t9")
        .netns(&container.netns());
    add.conf(&conf())
        .run()
        .refused(107, &["vni 5000", "vxlanPort 4789", "another VXLAN user"]);
    host.space().script("ip netns delete sandbox");
}

#[test]
fn rules_of_others_that_let_nothing_out_are_51_with_what_would() {
    let lab = lab();
    let host = lab.host(1);
    let forward = "nft add table inet mine
        nft 'add chain inet mine forward { type filter hook forward priority 0; policy drop; }'";
    host.space().script(forward);
    let mut internal = conf();
    internal["egress"] = "none".into();
    status_of(host, &internal).ok();
    let said = status_of(host, &conf());
    let details = said.json()["details"].as_str().expect("details").to_owned();
    said.refused(
        51,
        &["chain forward of nftables table inet mine", "policy drop"],
    );
    let allow = details.strip_prefix("to allow it: ").expect("a command");
    host.space().script(allow);
    status_of(host, &conf()).ok();
    // ADD works all the same: it is for the operator to say what goes out.
    host.space().script("nft delete table inet mine");
    host.space().script(forward);
    host.install(&conflist(NETWORK, SUBNET));
    let attached = Attachment::new(host, "t1", NETWORK);
    status_of(host, &netconf(NETWORK, SUBNET, "1.1.0")).refused(51, &["inet mine"]);
    attached.detach().ok();

    host.space().script(
        "nft delete table inet mine; nft add table inet mine
         nft 'add chain inet mine input { type filter hook input priority 0; policy drop; }'",
    );
    status_of(host, &netconf(NETWORK, SUBNET, "1.1.0")).refused(51, &["UDP to port 4789"]);
}
