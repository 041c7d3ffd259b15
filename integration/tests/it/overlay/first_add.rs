//! What the first ADD does on hosts where no command of ours has run before.

use integration::{Attachment, Backend, Lab, conflist};
use serde_json::json;

#[test]
fn a_host_registers_with_its_first_add() {
    let lab = Lab::new(2, Backend::Dir);
    lab.install(&conflist("ov_net1", "10.0.0.0/24"));
    let _t1 = Attachment::new(lab.host(1), "t1", "ov_net1");
    let nodes = lab.host(2).listed("node ls");
    let names: Vec<_> = nodes
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| &it["name"])
        .collect();
    assert!(names.contains(&&json!("docker01")), "{nodes:#}");
}

#[test]
fn a_network_is_born_from_the_conflist() {
    let lab = Lab::new(2, Backend::Consul);
    let mut full = conflist("ov_net1", "10.0.0.0/24");
    let overlay = &mut full["plugins"][0];
    overlay["store"] = json!({ "url": lab.store_url(), "prefix": "crosshost" });
    overlay["vni"] = 4097.into();
    overlay["mtu"] = 1400.into();
    overlay["vxlanPort"] = 4790.into();
    overlay["egress"] = json!({ "mode": "gwbridge", "subnet": "172.19.0.0/16" });
    overlay["ipam"]["ranges"][0][0]["gateway"] = "10.0.0.1".into();
    lab.sync();
    lab.install(&full);
    let [t1, t2] = Attachment::on_each(&lab, "ov_net1");
    assert!(
        t1.container.pings(t2.address, &[]),
        "with every key of a network"
    );
    assert_eq!(t1.container.link("eth0")["mtu"], 1400);
    let gw0 = t1
        .container
        .address("gw0")
        .map(|address| address.to_string());
    assert!(
        gw0.as_ref().is_some_and(|it| it.starts_with("172.19.")),
        "{gw0:?}"
    );

    let networks = lab.host(2).listed("network ls");
    assert_eq!(networks[0]["vni"], 4097);
    assert_eq!(networks[0]["subnets"], json!(["10.0.0.0/24"]));
}

#[test]
fn a_conflist_that_contradicts_the_store_is_refused_with_both_values() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.create_network("ov_net1", "10.0.0.0/24");
    host.install(&conflist("ov_net1", "10.7.0.0/24"));
    let before = host.footprint();
    let _t1 = host.container("t1");
    let refused = host.cnitool("add", "ov_net1", "t1", "eth0").failed();
    for value in ["10.0.0.0/24", "10.7.0.0/24"] {
        let said = refused.to_string();
        assert!(said.contains(value), "{value} in {said}");
    }
    host.run("ip netns delete t1").ok();
    host.assert_same_as(&before, "after the refusal");
}

#[test]
fn an_internal_network_has_no_way_out() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let mut internal = conflist("ov_net1", "10.0.0.0/24");
    internal["plugins"][0]["egress"] = "none".into();
    host.install(&internal);
    let t1 = Attachment::new(host, "t1", "ov_net1");
    assert!(t1.container.link("gw0").is_null(), "no gw0");
    assert_eq!(t1.container.ip("route show default"), json!([]));
}
