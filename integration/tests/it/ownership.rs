//! The owners of addresses: as the blocks' records in the store say, and as hosts agree on them while time passes.
//!
//! A host answers a request for an address when it reads the records, and gives back what has rested. A watcher does the first at
//! once, and the second comes hours later; here a scenario says when: [`following`] is a watcher, [`later`] those hours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use integration::{Direct, Host, Lab, spend, until};
use serde_json::Value;

use crate::store_reader;

/// A block's record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Block {
    pub(crate) first: IpAddr,
    pub(crate) length: u32,
    pub(crate) record: Value,
}

impl Block {
    /// The node that has it, or had it last.
    pub(crate) fn node(&self) -> &str {
        self.record["node"].as_str().expect("a node")
    }

    /// What has become of one of its addresses, if it is not the node's.
    pub(crate) fn exclusion(&self, address: IpAddr) -> &Value {
        &self.record["exclusions"][address.to_string()]
    }

    /// Its address number `n`, from 0.
    pub(crate) fn nth(&self, n: u128) -> IpAddr {
        above(self.first, n)
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let differs = number(self.first) ^ number(address);
        address.is_ipv4() == self.first.is_ipv4()
            && differs.checked_shr(width - self.length).unwrap_or(0) == 0
    }
}

/// The address `n` above another.
pub(crate) fn above(address: IpAddr, n: u128) -> IpAddr {
    let sum = number(address) + n;
    match address {
        IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(sum).expect("of IPv4")).into(),
        IpAddr::V6(_) => Ipv6Addr::from(sum).into(),
    }
}

/// The address as a number.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// An address out of a result or a constant, with or without a length.
#[track_caller]
pub(crate) fn ip(text: &str) -> IpAddr {
    let bare = text.split('/').next().unwrap_or(text);
    bare.parse().expect("an address")
}

/// The blocks of a network by the store's records, in order.
#[track_caller]
pub(crate) fn blocks(lab: &Lab, network: &str) -> Vec<Block> {
    let below = format!("blocks/{network}/");
    let mut blocks = Vec::new();
    for (key, text) in store_reader::records(lab) {
        let Some(name) = key.strip_prefix(&below) else {
            continue;
        };
        let (first, length) = name.split_once('_').expect("ADDRESS_LENGTH");
        blocks.push(Block {
            first: ip(first),
            length: length.parse().expect("a length"),
            record: serde_json::from_str(&text).expect("a block"),
        });
    }
    blocks.sort_by_key(|block| (block.first, block.length));
    blocks
}

/// The first block of a host.
#[track_caller]
pub(crate) fn block_of(lab: &Lab, network: &str, host: &Host) -> Block {
    let mut blocks = blocks(lab, network).into_iter();
    blocks
        .find(|block| block.node() == host.name())
        .expect("a block of the host")
}

/// The block that has an address; the smallest, as an address out of the range is a block of its own.
#[track_caller]
pub(crate) fn around(lab: &Lab, network: &str, address: IpAddr) -> Option<Block> {
    let around = blocks(lab, network).into_iter();
    let around = around.filter(|block| block.contains(address));
    around.max_by_key(|block| block.length)
}

/// The home of an address; none while it moves from one host to another.
#[track_caller]
pub(crate) fn home(lab: &Lab, network: &str, address: IpAddr) -> Option<String> {
    let block = around(lab, network, address)?;
    let exclusion = block.exclusion(address);
    let (owner, at_home) = match exclusion {
        Value::Null => (&block.record["node"], block.record["state"].is_null()),
        _ => (&exclusion["node"], exclusion["state"] == "given"),
    };
    at_home.then(|| owner.as_str().expect("a node").to_owned())
}

/// Waits until the store has a request for an address that its owner has not answered.
#[track_caller]
pub(crate) fn await_request(lab: &Lab, network: &str, address: IpAddr) {
    let asked = || {
        let block = around(lab, network, address);
        block.is_some_and(|block| block.exclusion(address)["state"] == "asked")
    };
    until(
        Duration::from_secs(10),
        &format!("asked for {address}"),
        asked,
    );
}

/// Three hosts that know each other, and so have a block each as soon as there is a network.
#[track_caller]
pub(crate) fn registered() -> Lab {
    Lab::registered(3, integration::Backend::Consul)
}

/// What `work` gives while these hosts read the records again and again, as with a watcher on each.
pub(crate) fn following<T>(hosts: &[&Host], work: impl FnOnce() -> T) -> T {
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&over);
        for host in hosts {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    host.sync();
                    spend(Duration::from_millis(50));
                }
            });
        }
        work()
    })
}

/// `crosshost sync` on a host for which `seconds` have gone by: what was freed just now has rested.
#[track_caller]
pub(crate) fn later(host: &Host, seconds: u64) {
    host.namespace().let_pass(seconds);
    host.sync();
}

/// The addresses that the host itself says it holds or has not yet told the store of, with their state.
#[track_caller]
pub(crate) fn held_locally(host: &Host) -> Vec<(IpAddr, String)> {
    let listed = host.listed("endpoint ls --local");
    let listed = listed.as_array().cloned().unwrap_or_default();
    let row = |row: &Value| {
        let word = |key: &str| row[key].as_str().expect("a word").to_owned();
        (ip(&word("address")), word("state"))
    };
    listed.iter().map(row).collect()
}

/// The leases are what the hosts hold, all of them told, and there are `count` of them.
#[track_caller]
pub(crate) fn nothing_is_left_over(lab: &Lab, network: &str, count: usize) {
    let mut held = Vec::new();
    for host in lab.hosts() {
        for (address, state) in held_locally(host) {
            assert_eq!(state, "published", "{address} on {}", host.name());
            held.push(address.to_string());
        }
    }
    held.sort();
    let mut leased: Vec<_> = store_reader::leased(lab, network).into_iter().collect();
    leased.sort();
    assert_eq!(leased, held, "leases in the store and addresses on hosts");
    assert_eq!(leased.len(), count, "{leased:?}");
}

/// A configuration in which a runtime asks for these addresses.
pub(crate) fn asking(conf: &Value, ips: &[IpAddr]) -> Value {
    let mut conf = conf.clone();
    conf["runtimeConfig"] = serde_json::json!({ "ips": ips });
    conf
}

/// ADDs of new containers, named after the host and their number, and what they were given.
#[track_caller]
pub(crate) fn fill(host: &Direct, conf: &Value, numbers: std::ops::Range<usize>) -> Vec<IpAddr> {
    let add = |number| {
        let given = host.given(&format!("{}-{number}", host.host().name()), conf);
        ip(&given[0])
    };
    numbers.map(add).collect()
}
