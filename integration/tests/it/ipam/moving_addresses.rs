//! A container keeps its address when it moves to another host, and is reached there by all that have ever talked to it.
//!
//! Under `overlay` every host sends to an address's home without asking, so that an address may change its home only
//! when all of them have dropped the old one. Each container pings before and after a move with whatever it and its
//! host remember: a host that still sends to the old home loses the packet, and the ping with it. Nothing is flushed.
//!
//! Without a watcher on each host the operator is told which ones are to be made to follow: `ownership::following` is that
//! watcher, where one runs.

use std::net::IpAddr;
use std::time::Duration;

use crate::ownership;
use crate::ownership::{
    asking, await_request, block_of, following, home, later, nothing_is_left_over, registered,
};
use integration::{Call, Container, Host, Lab, address_of, netconf};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.5.0.0/24";
/// For as long as this a host waits for one answer, and for all acknowledgements.
const PATIENCE: Duration = Duration::from_secs(2);

/// A call of `overlay` for a container that asks for these addresses.
fn call<'host>(container: &Container<'host>, verb: &str, ips: &[IpAddr]) -> Call<'host> {
    container.call(verb, &asking(&netconf(NETWORK, SUBNET, "1.1.0"), ips))
}

/// A container on each host, with an address that it did not ask for.
#[track_caller]
fn neighbours<'lab>(lab: &'lab Lab) -> Vec<(Container<'lab>, IpAddr)> {
    let on = |host: &'lab Host| {
        let container = host.container("neighbour");
        let added = call(&container, "ADD", &[]).run().ok();
        let address = address_of(&added.json(), "eth0");
        (container, address)
    };
    let all: Vec<_> = lab.hosts().iter().map(on).collect();
    // Each hears of those that came after it, as from its watcher.
    lab.sync();
    all
}

/// Starts the container `web` on a host, which gets this address.
#[track_caller]
fn start(host: &Host, address: IpAddr) -> Container<'_> {
    let web = host.container("web");
    let added = call(&web, "ADD", &[address]).run().ok();
    assert_eq!(address_of(&added.json(), "eth0"), address, "{added}");
    assert_eq!(web.address("eth0"), Some(address));
    web
}

/// Ends it as a runtime does.
#[track_caller]
fn end(web: &Container) {
    call(web, "DEL", &[]).run().ok();
    web.remove();
}

/// On the first try, from all, those of its own host too, and back.
#[track_caller]
fn is_reached(web: &Container, address: IpAddr, all: &[(Container, IpAddr)]) {
    for (from, back) in all {
        let said = from.ping(address, &[]);
        let (there, here) = (web.host().name(), from.host().name());
        assert!(said.status.success(), "at {there} from {here}: {said}");
        assert!(web.pings(*back, &[]), "from {there} to {here}");
    }
}

#[test]
fn a_container_moves_with_its_address_and_is_reached_from_all_hosts() {
    let lab = registered();
    let hosts: Vec<_> = lab.hosts().iter().collect();
    let [one, two, three] = hosts[..] else {
        panic!("three hosts")
    };
    let untouched = lab.footprints();
    let all = neighbours(&lab);
    // Of docker01's block, at docker02, at docker03, and where it would be anyway.
    let address = block_of(&lab, NETWORK, one).nth(5);
    let mut last = None;
    for host in [two, three, one] {
        let web = following(&[one, two, three], || start(host, address));
        assert_eq!(home(&lab, NETWORK, address).as_deref(), Some(host.name()));
        is_reached(&web, address, &all);
        if let Some(before) = last.replace(host) {
            assert_ne!(before.name(), host.name());
        }
        end(&web);
        for (from, _) in &all {
            assert!(!from.pings(address, &["-W1"]), "no host has it");
        }
        later(host, 61);
    }
    for (neighbour, _) in &all {
        call(neighbour, "DEL", &[]).run().ok();
        neighbour.remove();
    }
    lab.assert_same_as(&untouched, "after the last DEL");
    nothing_is_left_over(&lab, NETWORK, 0);
}

#[test]
fn a_host_that_may_still_send_to_the_old_home_is_waited_for_and_named() {
    let lab = registered();
    let [one, two, three] = [1, 2, 3].map(|number| lab.host(number));
    let all = neighbours(&lab);
    let address = block_of(&lab, NETWORK, one).nth(5);
    let web = two.container("web");

    // The owner answers, docker03 has not heard of it.
    let asked = call(&web, "ADD", &[address]).start();
    await_request(&lab, NETWORK, address);
    one.sync();
    // What it granted it has dropped itself only when it has followed its own answer.
    one.sync();
    let said = asked.wait(Duration::from_secs(15));
    assert!(said.took >= PATIENCE && said.took < 4 * PATIENCE, "{said}");
    let message = said.refused(
        108,
        &[
            NETWORK,
            &address.to_string(),
            "node docker03",
            "run there: crosshost sync",
            "try again",
        ],
    );
    for done in ["docker01", "docker02"] {
        assert!(
            !message.contains(done),
            "{done} has done its part: {message}"
        );
    }
    assert_eq!(home(&lab, NETWORK, address), None);
    nothing_is_left_over(&lab, NETWORK, 3);

    three.sync();
    let added = call(&web, "ADD", &[address]).run().ok();
    assert_eq!(address_of(&added.json(), "eth0"), address);
    assert!(added.took < PATIENCE, "{added}");
    // Not before they have heard of its new home; a packet is flooded until then.
    is_reached(&web, address, &all);
    for host in [one, three] {
        host.sync();
    }
    is_reached(&web, address, &all);
    nothing_is_left_over(&lab, NETWORK, 4);
}

#[test]
fn an_address_out_of_the_dynamic_range_moves_as_well() {
    let lab = registered();
    let hosts: Vec<_> = lab.hosts().iter().collect();
    let address = ownership::ip("10.5.0.10");
    let ranged = |container: &Container<'_>, verb: &str, ips: &[IpAddr]| {
        let mut conf = asking(&netconf(NETWORK, SUBNET, "1.1.0"), ips);
        conf["ipam"]["ranges"][0][0]["rangeStart"] = "10.5.0.100".into();
        container.call(verb, &conf).run().ok()
    };
    let mut all = Vec::new();
    for host in &hosts {
        let neighbour = host.container("neighbour");
        let added = ranged(&neighbour, "ADD", &[]);
        all.push((neighbour, address_of(&added.json(), "eth0")));
    }
    // Right away: the host that it leaves is asked, and has no use for it.
    following(&hosts, || {
        for host in [hosts[0], hosts[1], hosts[0]] {
            let web = host.container("web");
            let added = ranged(&web, "ADD", &[address]);
            assert_eq!(address_of(&added.json(), "eth0"), address);
            is_reached(&web, address, &all);
            ranged(&web, "DEL", &[]);
            web.remove();
        }
    });
    // And by a host that claims it when it has no home.
    for host in &hosts {
        later(host, 61);
        host.sync();
    }
    assert_eq!(home(&lab, NETWORK, address), None);
    for host in &hosts {
        host.sync();
    }
    let web = hosts[2].container("web");
    let added = ranged(&web, "ADD", &[address]);
    assert_eq!(address_of(&added.json(), "eth0"), address);
    is_reached(&web, address, &all);
    nothing_is_left_over(&lab, NETWORK, 4);
}
