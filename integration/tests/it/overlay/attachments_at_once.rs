//! One container, several attachments at the same moment: each is made whole, and what the container has once (its way out)
//! is made once and goes with the last of them.

use std::{collections::BTreeSet, time::Duration};

use integration::{Backend, Call, Container, Lab, OUTSIDE, address_of, netconf};

const SUBNETS: [(&str, &str); 2] = [("ov_net1", "10.0.0.0/24"), ("ov_net2", "10.0.1.0/24")];
const LIMIT: Duration = Duration::from_secs(30);
/// Network and interface of each attachment: two networks, and two interfaces on each.
const ATTACHMENTS: [(usize, &str); 4] = [(0, "eth0"), (1, "eth1"), (0, "eth2"), (1, "eth3")];

fn call<'h>(container: &Container<'h>, verb: &str, (network, ifname): (usize, &str)) -> Call<'h> {
    let (name, subnet) = SUBNETS[network];
    let call = container.call(verb, &netconf(name, subnet, "1.1.0"));
    call.ifname(ifname)
}

/// All of `which` at once; what each said.
fn at_once(container: &Container<'_>, verb: &str, which: &[(usize, &str)]) -> Vec<String> {
    let started: Vec<_> = (which.iter())
        .map(|one| call(container, verb, *one).start())
        .collect();
    let ended = started.into_iter().map(|one| one.wait(LIMIT).ok().stdout);
    ended.collect()
}

#[test]
fn attachments_of_one_container_are_made_and_unmade_at_the_same_moment() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    for (network, subnet) in SUBNETS {
        host.create_network(network, subnet);
    }
    let untouched = lab.footprints();
    for which in [
        &ATTACHMENTS[..2],
        &[ATTACHMENTS[0], ATTACHMENTS[2]],
        &ATTACHMENTS,
    ] {
        let container = host.container("t1");
        let results = at_once(&container, "ADD", which);
        let mut ways_out = BTreeSet::new();
        for ((_, ifname), said) in which.iter().zip(&results) {
            let result = serde_json::from_str(said).expect("a result");
            let address = address_of(&result, ifname);
            assert_eq!(container.address(ifname), Some(address), "{said}");
            ways_out.insert(address_of(&result, "gw0"));
        }
        assert_eq!(ways_out.len(), 1, "{results:?}");
        let netns = "--net=/run/crosshost/egress-netns/ch-egress";
        let links = host.run(&format!("nsenter {netns} ip -o link"));
        let ports = links.ok().stdout.matches(": che").count();
        assert_eq!(ports, 1, "made once");
        assert!(container.tcp_get(OUTSIDE).is_ok());

        let (last, others) = which.split_last().expect("some");
        at_once(&container, "DEL", others);
        assert!(container.tcp_get(OUTSIDE).is_ok(), "one is left");
        let mut conf = netconf(SUBNETS[last.0].0, SUBNETS[last.0].1, "1.1.0");
        let result = results.last().expect("a result");
        conf["prevResult"] = serde_json::from_str(result).expect("a result");
        call(&container, "CHECK", *last).conf(&conf).run().ok();
        call(&container, "DEL", *last).run().ok();
        assert!(container.link("gw0").is_null(), "it went with the last");
        container.remove();
        lab.assert_same_as(&untouched, "after the last DEL");

        let container = host.container("t1");
        at_once(&container, "ADD", which);
        at_once(&container, "DEL", which);
        container.remove();
        lab.assert_same_as(&untouched, "after all DELs at once");
    }
}
