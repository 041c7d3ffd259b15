//! A bridge with as many ports as the kernel allows: ADD names the network, or the way out, and the limit, and leaves
//! nothing; with one port less it works.

use integration::{Attachment, Backend, Lab, conflist, netconf};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/16";

#[test]
fn a_network_with_all_its_ports_refuses_the_next() {
    refused(
        "nsenter --net=/run/crosshost/netns/ov_net1",
        "br0",
        &["network ov_net1: "],
    );
}

#[test]
fn so_does_the_way_out() {
    refused(
        "nsenter --net=/run/crosshost/egress-netns/ch-egress",
        "br0",
        &["ch-egress: "],
    );
}

/// Fills the bridge up with links of others, from the namespace that `inside` enters.
fn refused(inside: &str, bridge: &str, words: &[&str]) {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&conflist(NETWORK, SUBNET));
    let _first = Attachment::new(host, "first", NETWORK);
    let container = host.container("t1");
    host.script(&format!(
        "has=$({inside} ip -o link show master {bridge} | wc -l)
         for i in $(seq $((1023 - has))); do echo link add d$i master {bridge} type vxlan id $i dstport 9; done |
             {inside} ip -batch -"
    ));
    let call = |verb| {
        container
            .call(verb, &netconf(NETWORK, SUBNET, "1.0.0"))
            .id("t1-0123456789")
            .run()
    };
    let before = host.footprint();
    let limit = "1,023 ports already, the kernel's limit (EXFULL)";
    call("ADD").refused(107, &[words, &[limit]].concat());
    host.assert_same_as(&before, "after the refusal");
    call("DEL").ok();

    host.script(&format!("{inside} ip link del d1"));
    call("ADD").ok();
    call("DEL").ok();
}
