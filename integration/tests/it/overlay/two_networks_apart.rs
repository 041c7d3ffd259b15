//! A second network on the same hosts is a world of its own, even for a container that is on both.

use integration::{Attachment, Backend, Container, Lab, conflist, end_all};

#[test]
fn on_the_embedded_store() {
    two_networks(Backend::Dir);
}

#[test]
fn on_consul() {
    two_networks(Backend::Consul);
}

fn two_networks(backend: Backend) {
    let lab = Lab::new(2, backend);
    let untouched = lab.footprints();
    let (one, two) = (lab.host(1), lab.host(2));
    for host in lab.hosts() {
        host.sync();
        host.install(&conflist("ov_net1", "10.0.0.0/24"));
        host.install(&conflist("ov_net2", "10.0.1.0/24"));
    }
    creation_refuses_what_overlaps(&lab);

    let t1 = Attachment::new(one, "t1", "ov_net1");
    let also = Attachment::of(again(&t1.container), "ov_net2", "eth1");
    let on_first = Attachment::new(two, "t2", "ov_net1");
    let on_second = Attachment::new(two, "t3", "ov_net2");

    // The container on both reaches each over its own interface, and has one way out.
    assert!(t1.container.pings(on_first.address, &[]), "t1 to t2");
    assert!(t1.container.pings(on_second.address, &[]), "t1 to t3");
    let links = t1.container.ip("link");
    assert_eq!(
        links.as_array().map(Vec::len),
        Some(4),
        "lo eth0 eth1 gw0: {links:#}"
    );
    assert_eq!(t1.container.address("eth1"), Some(also.address));

    // No leak: neither by routing over the hosts nor on the wire.
    let (t2, t3) = (&on_first.container, &on_second.container);
    assert!(
        !t3.pings(on_first.address, &[]),
        "t3 reaches ov_net1 through its host"
    );
    t3.run("ip route add 10.0.0.0/24 dev eth0").ok();
    t2.run("ip route add 10.0.1.0/24 dev eth0").ok();
    assert!(
        !t3.pings(on_first.address, &[]),
        "t3 reaches ov_net1 on the wire"
    );
    // Each hears itself as well: its loopback is up.
    assert_eq!(
        t3.answers_to_broadcast("10.0.1.255"),
        [also.address, on_second.address]
    );
    assert_eq!(
        t2.answers_to_broadcast("10.0.0.255"),
        [t1.address, on_first.address]
    );

    // DEL of one network leaves the other, and the way out until the last is gone.
    also.detach().ok();
    assert!(t1.container.link("eth1").is_null());
    assert!(t1.container.pings(on_first.address, &[]), "ov_net1 goes on");
    assert_eq!(t1.container.link("gw0")["ifname"], "gw0");
    assert!(
        t1.container.tcp_get(integration::OUTSIDE).is_ok(),
        "the way out"
    );
    t1.detach().ok();
    assert!(
        t1.container.link("gw0").is_null(),
        "gw0 goes with the last network"
    );

    end_all([on_first, on_second]);
    t1.container.remove();
    lab.assert_same_as(&untouched, "after the last DEL");
}

/// The same container seen a second time, for its second attachment.
fn again<'host>(container: &Container<'host>) -> Container<'host> {
    container.host().existing(container.name())
}

fn creation_refuses_what_overlaps(lab: &Lab) {
    let (one, two) = (lab.host(1), lab.host(2));
    one.create_network("ov_net1", "10.0.0.0/24");
    two.create_network("ov_net2", "10.0.1.0/24");
    let networks = one.listed("network ls");
    let (first, second) = (&networks[0]["vni"], &networks[1]["vni"]);
    assert!(
        first.is_u64() && second.is_u64() && first != second,
        "{networks:#}"
    );

    for overlapping in ["10.0.0.128/25", "10.0.0.0/24", "10.0.0.0/16"] {
        let words = ["network", "create", "ov_net3", "--subnet", overlapping];
        let refused = two.crosshost(&words).failed();
        for word in [overlapping, "ov_net1"] {
            assert!(refused.stderr.contains(word), "{word} in {refused}");
        }
    }
    let taken = first.to_string();
    let words = format!("network create ov_net3 --subnet 10.0.3.0/24 --vni {taken}");
    let refused = two.crosshost(&words).failed();
    for word in [taken.as_str(), "ov_net1"] {
        assert!(refused.stderr.contains(word), "{word} in {refused}");
    }
    assert_eq!(one.listed("network ls"), networks, "nothing came of it");
}
