//! Thirty ADDs at the same moment on three hosts, and what one ADD costs at the store.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::store_reader::{self, assert_no_lease};
use integration::{Attachment, Backend, Lab, Request, address_of, conflist};

const SUBNET: &str = "10.0.0.0/24";
const EACH: usize = 10;

#[test]
fn on_consul_every_write_is_conditional() {
    let lab = Lab::new(3, Backend::Consul);
    let proxy = lab.consul().proxy();
    for host in lab.hosts() {
        host.configure(&proxy.url());
    }
    thirty_adds(&lab);
    let seen = proxy.take();
    let writes: Vec<_> = seen.iter().filter(|request| !request.is_read()).collect();
    assert!(
        writes.len() > 30,
        "the proxy saw the writes: {}",
        writes.len()
    );
    for write in writes {
        assert!(write.is_conditional(), "a blind write: {write:?}");
    }
}

#[test]
fn on_the_embedded_store() {
    thirty_adds(&Lab::new(3, Backend::Dir));
}

fn thirty_adds(lab: &Lab) {
    lab.sync();
    lab.install(&conflist("ov_net1", SUBNET));
    lab.host(1).create_network("ov_net1", SUBNET);
    let untouched = lab.footprints();

    let mut containers = Vec::new();
    for number in 1..=EACH {
        for host in lab.hosts() {
            containers.push(host.container(&format!("{}-{number}", host.name())));
        }
    }
    let started: Vec<_> = containers
        .iter()
        .map(|one| {
            one.host()
                .start_cnitool("add", "ov_net1", one.name(), "eth0")
        })
        .collect();
    let mut addresses = BTreeSet::new();
    for (container, add) in containers.iter().zip(started) {
        let result = add.wait(Duration::from_mins(1)).ok().json();
        let address = address_of(&result, "eth0");
        assert_eq!(
            container.address("eth0"),
            Some(address),
            "{}",
            container.name()
        );
        assert!(addresses.insert(address), "{address} was given twice");
    }
    assert_eq!(addresses.len(), 3 * EACH);

    let records = store_reader::records(lab);
    let leases = store_reader::keys_below(&records, "leases/ov_net1/");
    assert_eq!(leases.len(), 3 * EACH, "a lease for each: {leases:?}");
    let (first, last) = (&containers[0], &containers[3 * EACH - 1]);
    let last = last.address("eth0").expect("an address");
    assert!(
        first.pings(last, &[]),
        "from docker01 to the last on docker03"
    );

    let started: Vec<_> = containers
        .iter()
        .map(|one| {
            one.host()
                .start_cnitool("del", "ov_net1", one.name(), "eth0")
        })
        .collect();
    for del in started {
        del.wait(Duration::from_mins(1)).ok();
    }
    for container in &containers {
        container.remove();
    }
    lab.assert_same_as(&untouched, "after thirty DELs at once");
    assert_no_lease(lab, "after thirty DELs at once");
}

#[test]
fn an_add_with_room_in_its_block_costs_one_write_and_at_most_one_read() {
    let lab = Lab::new(2, Backend::Consul);
    let proxy = lab.consul().proxy();
    for host in lab.hosts() {
        host.configure(&proxy.url());
        host.sync();
        host.install(&conflist("ov_net1", SUBNET));
    }
    lab.host(2).create_network("ov_net1", SUBNET);
    let _first = Attachment::new(lab.host(1), "first", "ov_net1");
    proxy.take();
    for name in ["second", "third"] {
        let _attached = Attachment::new(lab.host(1), name, "ov_net1");
        let seen = proxy.take();
        let (reads, writes): (Vec<_>, Vec<_>) = seen.iter().partition(|it| it.is_read());
        assert_eq!(writes.len(), 1, "writes of the {name} ADD: {}", told(&seen));
        assert!(reads.len() <= 1, "reads of the {name} ADD: {}", told(&seen));
    }
}

fn told(requests: &[Request]) -> String {
    let lines = requests
        .iter()
        .map(|it| format!("{} {} {}", it.method, it.target, it.body));
    lines.collect::<Vec<_>>().join("\n  ")
}
