//! DEL in any order, with a namespace or without, as often as a runtime likes: nothing is left.

use crate::store_reader::assert_no_lease;
use integration::{Attachment, Backend, Finished, Lab, conflist, netconf};

const SUBNET: &str = "10.0.0.0/24";

/// How a runtime may describe the container's namespace at DEL.
#[derive(Clone, Copy, Debug)]
enum Netns {
    /// `CNI_NETNS` names it and it is there.
    Present,
    /// nerdctl's way: the variable is set and empty.
    Empty,
    /// The variable is not set at all.
    Unset,
    /// The namespace is gone, the path is named.
    Gone,
    /// containerd's way: the path is a plain file, what is left of a bind mount.
    PlainFile,
}

#[test]
fn in_any_order_on_the_embedded_store() {
    any_order(Backend::Dir);
}

#[test]
fn in_any_order_on_consul() {
    any_order(Backend::Consul);
}

fn any_order(backend: Backend) {
    let lab = three_hosts(backend);
    let untouched = lab.footprints();
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for order in orders {
        let attached: Vec<_> = (1..=3)
            .map(|number| Attachment::new(lab.host(number), &format!("t{number}"), "ov_net1"))
            .collect();
        for position in order {
            attached[position].detach().ok();
            // Whoever is still there still reaches the others that are.
            let rest = order.iter().skip_while(|at| **at != position).skip(1);
            if let [one, other] = rest.map(|at| &attached[*at]).collect::<Vec<_>>()[..] {
                assert!(one.container.pings(other.address, &[]), "{order:?}");
            }
            attached[position].detach().ok();
            attached[position].container.remove();
        }
        lab.assert_same_as(&untouched, &format!("after DELs in the order {order:?}"));
        assert_no_lease(&lab, "after the DELs");
    }
}

#[test]
fn with_and_without_a_namespace() {
    let lab = three_hosts(Backend::Dir);
    let host = lab.host(1);
    let untouched = lab.footprints();
    for netns in [
        Netns::Present,
        Netns::Empty,
        Netns::Unset,
        Netns::Gone,
        Netns::PlainFile,
    ] {
        let container = host.container("t1");
        let conf = netconf("ov_net1", SUBNET, "1.0.0");
        let id = "ns-0123456789abcdef";
        container.call("ADD", &conf).id(id).run().ok();

        if matches!(netns, Netns::Gone | Netns::PlainFile) {
            container.remove();
        }
        if let Netns::PlainFile = netns {
            host.write(&container.netns(), "");
        }
        for time in ["first", "second", "third"] {
            let call = host.call("overlay", "DEL").id(id).conf(&conf);
            let call = match netns {
                Netns::Unset => call,
                Netns::Empty => call.netns(""),
                _ => call.netns(&container.netns()),
            };
            let said: Finished = call.run().ok();
            assert_eq!(said.stdout, "", "{netns:?}, {time} DEL");
        }
        match netns {
            Netns::Gone => {}
            Netns::PlainFile => {
                std::fs::remove_file(host.namespace().path(container.netns())).expect("the file");
            }
            _ => container.remove(),
        }
        lab.assert_same_as(&untouched, &format!("after DEL, netns {netns:?}"));
        assert_no_lease(&lab, "after the DELs");
    }
}

#[test]
fn of_a_container_that_never_was() {
    let lab = three_hosts(Backend::Dir);
    let untouched = lab.footprints();
    let conf = netconf("ov_net1", SUBNET, "1.0.0");
    let call = lab.host(1).call("overlay", "DEL").id("never").netns("");
    call.conf(&conf).run().ok();
    lab.assert_same_as(&untouched, "after DEL of nothing");
}

#[test]
fn the_sandbox_stays_for_the_others_and_goes_with_the_last() {
    let lab = three_hosts(Backend::Dir);
    let host = lab.host(1);
    let sandboxes = || {
        let folder = std::fs::read_dir(host.namespace().path("/run/crosshost/netns"));
        folder.map_or(0, Iterator::count)
    };
    let (t1, t2) = (
        Attachment::new(host, "t1", "ov_net1"),
        Attachment::new(host, "t2", "ov_net1"),
    );
    assert_eq!(sandboxes(), 1, "one for the network on this host");
    assert!(t1.container.pings(t2.address, &[]), "on one host");
    t1.detach().ok();
    assert_eq!(sandboxes(), 1);
    t2.detach().ok();
    assert_eq!(sandboxes(), 0);
}

fn three_hosts(backend: Backend) -> Lab {
    let lab = Lab::with_network(3, backend, &conflist("ov_net1", SUBNET));
    lab.host(1).create_network("ov_net1", SUBNET);
    lab
}

#[test]
fn of_another_network_leaves_an_interface_of_the_same_name() {
    let lab = three_hosts(Backend::Dir);
    let host = lab.host(1);
    let t1 = host.container("t1");
    let call = |verb: &str, network: &str, subnet: &str| {
        t1.call(verb, &netconf(network, subnet, "1.0.0"))
            .id("same-0123456789")
            .run()
            .ok()
    };
    call("ADD", "ov_net1", SUBNET);
    let address = t1.address("eth0");
    // A runtime's DEL before its ADD (nerdctl), or a late one of a network that the container has left.
    call("DEL", "ov_net2", "10.0.1.0/24");
    assert!(address.is_some() && t1.address("eth0") == address);
    assert!(t1.address("gw0").is_some(), "nor its way out");
}
