//! Networks by command beside the version before: it attaches to them, follows their changes, and keeps what it does not know of
//! their records.

use std::time::Duration;

use integration::{Attachment, Backend, Host, Lab, Programs, end_all, until};
use serde_json::json;

/// The version before the one under test.
const EARLIER: &str = "86dc1f2";
/// For what comes by itself, on a machine that has much else to do.
const SOON: Duration = Duration::from_mins(1);

fn subnets(host: &Host) -> String {
    host.listed("network inspect ov_net1")["subnets"].to_string()
}

#[test]
fn a_host_of_the_version_before_works_on_a_network_by_command() {
    let lab = Lab::registered(2, Backend::Consul);
    let [one, two] = [1, 2].map(|number| lab.host(number));
    let before = lab.footprints();
    two.exchange_programs(Some(Programs::previous(EARLIER)));
    two.sync();
    one.keep_conflists(&json!({}));
    one.crosshost("network create ov_net1 --subnet 10.0.0.0/29 --label team=blue")
        .ok();
    let file = "/etc/cni/net.d/ov_net1.conflist";
    let conflist = one.run(&["cat", file]).ok().json();
    // Whoever has not upgraded yet copies it.
    two.install(&conflist);
    let watcher = two.watch();
    let t1 = Attachment::new(one, "t1", "ov_net1");
    let t2 = Attachment::new(two, "t2", "ov_net1");
    assert!(t1.container.pings(t2.address, &[]));
    assert!(t2.container.pings(t1.address, &[]));

    // A change reaches it as well: its containers get addresses of the new subnet.
    one.crosshost("network update ov_net1 --subnet 10.0.1.0/24 --mtu 1400 --label more=words")
        .ok();
    until(SOON, "known to the version before", || {
        subnets(two) == r#"["10.0.0.0/29","10.0.1.0/24"]"#
    });
    // Five addresses but for the gateway's are in the first one.
    let more: Vec<_> = (3..8)
        .map(|number| Attachment::new(two, &format!("t{number}"), "ov_net1"))
        .collect();
    let last = more.last().expect("a container");
    assert!(last.address.to_string().starts_with("10.0.1."));
    let near = Attachment::new(one, "near", "ov_net1");
    assert!(near.container.pings(last.address, &[]));
    assert!(last.container.pings(near.address, &[]));
    let record = one.listed("network inspect ov_net1");
    let labels = json!({ "team": "blue", "more": "words" });
    assert_eq!(
        (&record["labels"], &record["conflist"]),
        (&labels, &json!(true))
    );

    // The copy is ours, and goes with the network once the host is upgraded.
    drop(watcher);
    two.exchange_programs(None);
    two.keep_conflists(&json!({}));
    two.sync();
    assert!(t1.container.pings(last.address, &[]));
    end_all(more);
    end_all([t1, t2, near]);
    one.crosshost("network rm ov_net1").ok();
    two.sync();
    assert!(!two.run(&["test", "-e", file]).status.success());
    lab.assert_same_as(&before, "after the network");
}
