//! Docker's other native driver by command: containers that are neighbours of the hosts on the hosts' own segment, by the reference
//! plugin `macvlan` with addresses of the store.

use std::time::Duration;

use integration::{Attachment, Backend, Lab, OUTSIDE, end_all, until};
use serde_json::json;

use crate::operator::network_connect::{held, network};

/// For what comes by itself, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_macvlan_network_is_on_every_host_and_takes_running_containers() {
    let lab = Lab::registered(2, Backend::Consul);
    let [one, two] = [1, 2].map(|number| lab.host(number));
    let before = lab.footprints();
    let watchers = [one, two].map(|host| {
        host.keep_conflists(&json!({}));
        host.watch()
    });
    let words = "network create lan_net1 -d macvlan -o parent=ens3 --subnet 192.168.1.0/24 --gateway 192.168.1.1";
    one.crosshost(&format!("{words} --ip-range 192.168.1.128/26"))
        .ok();
    let listed = one.listed("network ls --filter driver=macvlan");
    assert_eq!(listed[0]["name"], "lan_net1", "{listed:#}");
    one.crosshost("network inspect lan_net1")
        .ok()
        .says(&["driver macvlan, parent ens3, mode bridge"]);
    until(SOON, "on the other host", || {
        let file = ["test", "-e", "/etc/cni/net.d/lan_net1.conflist"];
        two.run(&file).status.success()
    });
    let [t1, t2] = [(one, "t1"), (two, "t2")].map(|(host, name)| {
        let attached = Attachment::new(host, name, "lan_net1");
        assert!(attached.address.to_string().starts_with("192.168.1.1"));
        attached
    });
    assert!(t1.container.pings(t2.address, &[]));
    assert!(t2.container.pings(t1.address, &[]));
    // Its way out is the segment's gateway.
    let seen = t1.container.tcp_get(OUTSIDE).expect("the outside");
    assert_eq!(seen, t1.address.to_string());

    let other = two.container("other");
    let connected = format!(
        "connect --ip 192.168.1.150 --mac 02:42:00:00:01:50 lan_net1 {}",
        other.netns()
    );
    let said = network(two, &connected).ok().stdout;
    assert_eq!(said, "eth0 192.168.1.150/24\n");
    assert_eq!(other.link("eth0")["address"], "02:42:00:00:01:50");
    assert!(t1.container.pings("192.168.1.150".parse().unwrap(), &[]));
    assert_eq!(held(two).len(), 2);
    // No record of `overlay` tells of it: its namespace does.
    other.remove();
    two.crosshost("gc").ok();
    until(SOON, "swept", || held(two).len() == 1);
    end_all([t1, t2]);
    one.crosshost("network rm lan_net1").ok();
    drop(watchers);
    two.sync();
    lab.assert_same_as(&before, "after the network");
}
