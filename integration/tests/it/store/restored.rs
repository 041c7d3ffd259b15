//! The store loses its memory while containers run: it is emptied, or put back to an older snapshot, or another one that
//! counts its revisions from the beginning takes its place. The hosts know what
//! they hold and tell it again, whichever verb comes first; no address is given while a container has it.
//!
//! Each scenario damages the store, lets the hosts do a few things in an order of its own, and ends with a sync on each.
//! Then the network must be what it was, each block its owner's, each lease its container's, and new containers on
//! each host, enough to need new blocks, get addresses of their own. After each step the interfaces inside all
//! containers are read: at no time may two have the same address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::held_addresses::Held;
use integration::{Backend, Call, Consul, Container, Lab, address_of, netconf};
use serde_json::{Value, json};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";
const SNAPSHOT: &str = "older";
/// More than a block of this pool holds.
const MANY: usize = 12;

/// What a host does after the store lost its memory; hosts are numbered from 1.
#[derive(Clone, Copy, Debug)]
enum Step {
    Add(usize),
    Del(usize),
    Sync(usize),
}
use crate::held_addresses;
use crate::store_reader;
use Step::{Add, Del, Sync};

#[test]
fn an_emptied_store_is_filled_by_a_sync_on_each_host() {
    let lab = lab();
    let mut site = Site::of_many(&lab);
    site.damage(Consul::empty);
    site.take(&[Sync(1), Sync(2), Sync(3)]);
    site.end_well();
}

#[test]
fn an_emptied_store_is_filled_whatever_a_host_does_first() {
    let lab = lab();
    let mut site = Site::of_many(&lab);
    site.damage(Consul::empty);
    site.take(&[Add(3), Del(2), Add(1), Del(1), Sync(2), Add(2), Del(3)]);
    site.end_well();
}

#[test]
fn a_host_that_knows_the_others_from_long_ago_takes_nothing_of_theirs_from_an_emptied_store() {
    let lab = lab();
    let mut site = Site::new(&lab);
    for host in [3, 1, 2, 1, 2] {
        site.take(&[Add(host); MANY / 2]);
    }
    site.take(&[Add(1); MANY]);
    site.damage(Consul::empty);
    site.take(&[Add(3); MANY]);
    site.end_well();
}

#[test]
fn an_emptied_store_is_filled_by_all_hosts_at_once() {
    let lab = lab();
    let mut site = Site::of_many(&lab);
    site.damage(Consul::empty);
    std::thread::scope(|scope| {
        for host in lab.hosts() {
            scope.spawn(|| host.sync());
        }
    });
    site.end_well();
}

/// No watcher runs, so each host writes its own record only when its turn comes. The others know until then where its containers are.
#[test]
fn containers_of_a_host_that_has_not_yet_come_back_to_an_emptied_store_are_reached() {
    let lab = lab();
    let mut site = Site::new(&lab);
    site.take(&[Add(1), Add(2), Add(3)]);
    site.take(&[Sync(1), Sync(2), Sync(3)]);
    site.damage(Consul::empty);
    for step in [Sync(1), Add(1), Sync(1), Sync(3), Sync(2)] {
        site.take(&[step]);
        site.assert_reached(&format!("after {step:?}"));
    }
    site.end_well();
}

#[test]
fn what_came_and_went_since_a_snapshot_is_known_again_after_its_restoration() {
    let lab = lab();
    let mut site = Site::with_older_snapshot(&lab);
    site.damage(|consul| consul.restore_snapshot(SNAPSHOT));
    site.take(&[Sync(1), Sync(2), Sync(3)]);
    site.end_well();
}

#[test]
fn after_the_restoration_of_a_snapshot_a_host_may_do_anything_first() {
    let lab = lab();
    let mut site = Site::with_older_snapshot(&lab);
    site.damage(|consul| consul.restore_snapshot(SNAPSHOT));
    site.take(&[Add(2), Del(3), Sync(3), Add(1), Del(1), Add(3), Del(2)]);
    site.end_well();
}

#[test]
fn another_consul_in_the_place_of_the_lost_one_is_filled_by_a_sync_on_each_host() {
    let lab = lab();
    let mut site = Site::of_many(&lab);
    site.damage(Consul::replace);
    site.take(&[Sync(1), Sync(2), Sync(3)]);
    site.end_well();
}

#[test]
fn another_consul_is_filled_whatever_a_host_does_first() {
    let lab = lab();
    let mut site = Site::of_many(&lab);
    site.damage(Consul::replace);
    site.take(&[Add(3), Del(2), Add(1), Del(1), Sync(2), Add(2), Del(3)]);
    site.end_well();
}

/// The snapshot's revisions stay, and those that follow are again what they were of things that are forgotten.
#[test]
fn another_consul_that_was_given_an_old_snapshot_is_told_what_came_since() {
    let lab = lab();
    let mut site = Site::with_older_snapshot(&lab);
    lab.host(1).sync();
    site.damage(|consul| {
        consul.replace();
        consul.restore_snapshot(SNAPSHOT);
    });
    site.take(&[Sync(1), Sync(2), Sync(3), Add(2), Del(3), Add(1), Add(3)]);
    site.end_well();
}

#[test]
fn a_directory_that_was_emptied_is_filled_again() {
    let lab = site_of(Backend::Dir);
    let mut site = Site::of_many(&lab);
    let root = lab.router().path("/dev/shm/store");
    for entry in std::fs::read_dir(root).expect("the store").flatten() {
        let path = entry.path();
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
        removed.expect("emptied");
    }
    site.take(&[Add(3), Del(2), Add(1), Sync(1), Sync(2), Sync(3)]);
    site.end_well();
}

/// Three hosts on one network with a Consul that has not lost anything yet.
fn lab() -> Lab {
    site_of(Backend::Consul)
}

fn site_of(backend: Backend) -> Lab {
    let lab = Lab::registered(3, backend);
    lab.host(1).create_network(NETWORK, SUBNET);
    lab
}

/// All hosts with their running containers.
struct Site<'lab> {
    lab: &'lab Lab,
    /// The containers that run, oldest first, with the addresses that their ADDs told.
    running: Vec<(Container<'lab>, IpAddr)>,
    made: usize,
    /// The store's records before the damage.
    before: BTreeMap<String, String>,
}

impl<'lab> Site<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        Site {
            lab,
            running: Vec::new(),
            made: 0,
            before: BTreeMap::new(),
        }
    }

    /// With more containers than one block holds on each host, and some that were there.
    fn of_many(lab: &'lab Lab) -> Self {
        let mut site = Site::new(lab);
        site.take(&[Add(1), Add(2), Add(3)].repeat(MANY));
        site.take(&[Del(1), Del(2), Del(3)].repeat(2));
        site
    }

    /// With a snapshot that has leases which have ended since, and lacks blocks and leases of today.
    fn with_older_snapshot(lab: &'lab Lab) -> Self {
        let mut site = Site::new(lab);
        site.take(&[Add(1), Add(2), Add(3)].repeat(4));
        site.lab.consul().save_snapshot(SNAPSHOT);
        site.take(&[Del(1), Del(2), Del(3)].repeat(2));
        site.take(&[Add(1), Add(2), Add(3)].repeat(MANY));
        site
    }

    #[track_caller]
    fn take(&mut self, steps: &[Step]) {
        for step in steps {
            match *step {
                Sync(host) => drop(self.lab.host(host).sync()),
                Add(host) => self.add(host),
                Del(host) => self.del(host),
            }
            let when = format!("after {step:?} of {steps:?}");
            assert_eq!(
                held_addresses::alone(self.lab, &when),
                self.told(),
                "{when}"
            );
        }
    }

    #[track_caller]
    fn add(&mut self, host: usize) {
        self.made += 1;
        let container = self.lab.host(host).container(&format!("c{}", self.made));
        let added = call(&container, "ADD").run().ok();
        let address = address_of(&added.json(), "eth0");
        self.running.push((container, address));
    }

    /// Ends the oldest container of a host.
    #[track_caller]
    fn del(&mut self, host: usize) {
        let on = |(one, _): &(Container<'_>, _)| one.host().name() == self.lab.host(host).name();
        let oldest = self.running.iter().position(on).expect("a container");
        let (container, _) = self.running.remove(oldest);
        call(&container, "DEL").run().ok();
        container.remove();
    }

    fn told(&self) -> BTreeMap<IpAddr, Held> {
        let running = self.running.iter();
        running
            .map(|(one, address)| (*address, Held::by(one)))
            .collect()
    }

    /// Remembers what the store holds, and makes it forget.
    #[track_caller]
    fn damage(&mut self, how: impl Fn(&Consul)) {
        self.before = store_reader::records(self.lab);
        how(self.lab.consul());
        assert_ne!(self.before, store_reader::records(self.lab), "no damage");
    }

    /// A sync on each host makes the store whole. So it stays when runtimes collect garbage, when more containers come,
    /// and until the last is gone.
    #[track_caller]
    fn end_well(mut self) {
        self.take(&[Sync(1), Sync(2), Sync(3)]);
        self.assert_whole("after a sync on each host");
        self.collect_garbage();
        self.assert_whole("after a GC on each host");
        self.take(&[Add(1), Add(2), Add(3)].repeat(MANY));
        self.assert_whole("with new containers");
        let (first, last) = (&self.running[0], &self.running[self.running.len() - 1]);
        assert!(first.0.pings(last.1, &[]), "from the first to the last");
        while let Some((container, _)) = self.running.pop() {
            call(&container, "DEL").run().ok();
            container.remove();
        }
        assert_eq!(self.leases(), BTreeMap::new(), "after the last DEL");
    }

    /// Each container reaches each other one.
    #[track_caller]
    fn assert_reached(&self, when: &str) {
        for (one, own) in &self.running {
            for (_, other) in self.running.iter().filter(|(_, other)| other != own) {
                assert!(one.pings(*other, &[]), "{when}: {own} to {other}");
            }
        }
    }

    fn leases(&self) -> BTreeMap<IpAddr, Held> {
        held_addresses::by_leases(&store_reader::records(self.lab), NETWORK)
    }

    /// Network and blocks are as before the damage, and the leases as the containers hold them.
    #[track_caller]
    fn assert_whole(&self, when: &str) {
        let now = store_reader::records(self.lab);
        for (key, before) in &self.before {
            if ["networks/", "vnis/", "subnets"]
                .iter()
                .any(|it| key.starts_with(it))
            {
                assert_eq!(now.get(key), Some(before), "{when}: {key}");
            }
        }
        assert_eq!(self.leases(), self.told(), "{when}: the leases");
        for (container, address) in &self.running {
            let owner = owner(&now, *address);
            assert_eq!(
                owner.as_deref(),
                Some(container.host().name()),
                "{when}: {address}"
            );
        }
    }

    /// GC on each host with the containers that run there, as a runtime calls it.
    #[track_caller]
    fn collect_garbage(&self) {
        for host in self.lab.hosts() {
            let here = |(one, _): &&(Container<'_>, _)| one.host().name() == host.name();
            let valid = self
                .running
                .iter()
                .filter(here)
                .map(|(one, _)| json!({ "containerID": one.name(), "ifname": "eth0" }));
            let mut conf = netconf(NETWORK, SUBNET, "1.1.0");
            conf["cni.dev/valid-attachments"] = valid.collect();
            host.call("overlay", "GC").conf(&conf).run().ok();
        }
    }
}

/// Whose block an IPv4 address is in: the `node` of `blocks/NETWORK/ADDRESS_LENGTH`, or of an exclusion in it.
fn owner(records: &BTreeMap<String, String>, address: IpAddr) -> Option<String> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    let below = format!("blocks/{NETWORK}/");
    records.iter().find_map(|(key, text)| {
        let (first, length) = key.strip_prefix(&below)?.split_once('_')?;
        let first: Ipv4Addr = first.parse().expect("an address");
        let length: u32 = length.parse().expect("a length");
        let same = (u32::from(first) ^ u32::from(address)).leading_zeros() >= length;
        let block: Value = serde_json::from_str(text).expect("a block");
        let given = &block["exclusions"][address.to_string()]["node"];
        let node = given.as_str().or(block["node"].as_str());
        same.then(|| node.expect("an owner").to_owned())
    })
}

/// A call of `overlay` for the container, whose id is its name.
fn call<'host>(container: &Container<'host>, verb: &str) -> Call<'host> {
    container.call(verb, &netconf(NETWORK, SUBNET, "1.0.0"))
}
