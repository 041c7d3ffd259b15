//! A container is reached from the moment at which its ADD is answered, however long the kernel takes to let its bridge forward to it: a
//! spanning tree that somebody switched on makes a long time of what else is a moment.

use std::time::Instant;

use integration::{Attachment, Backend, Host, Lab, conflist, detach_all, netconf};

const SUBNET: &str = "10.0.0.0/24";

/// A new port of the segment's bridge listens and learns before it forwards, each for so long.
fn span(host: &Host, seconds: u32) {
    let words = format!("ip link set br0 type bridge stp_state 1 forward_delay {seconds}00");
    host.in_sandbox("ov_net1", &words);
}

#[test]
fn an_add_is_answered_when_its_container_can_be_reached() {
    let lab = Lab::with_network(2, Backend::Dir, &conflist("ov_net1", SUBNET));
    let two = lab.host(2);
    let [t1, t2] = Attachment::on_each(&lab, "ov_net1");

    span(two, 2);
    let begun = Instant::now();
    let t3 = Attachment::new(two, "t3", "ov_net1");
    let took = begun.elapsed();
    assert!(t1.container.pings(t3.address, &[]), "after {took:?}");
    assert!(t3.container.pings(t1.address, &[]));
    assert!(took.as_secs() >= 2, "{took:?}: was there a spanning tree?");
    t3.detach().ok();

    // A runtime is not held for ever.
    span(two, 30);
    let before = two.footprint();
    let container = two.container("t4");
    let conf = netconf("ov_net1", SUBNET, "1.1.0");
    let refused = container.call("ADD", &conf).run();
    refused.refused(107, &["chp", "does not forward"]);
    container.remove();
    two.assert_same_as(&before, "refused");
    detach_all([t1, t2]);
}
