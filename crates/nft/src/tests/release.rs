//! Closing a socket right after something was removed.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::CONFIG;
use super::kit::Namespace;
use crate::Nft;

/// How long a socket takes to close of which a batch has just removed a network.
fn closing(waits: bool) -> Duration {
    let network = "10.7.0.0/16".parse().unwrap();
    let mut nft = Nft::open().unwrap();
    nft.add_egress(network, "n").unwrap();
    assert!(nft.remove_egress(network).unwrap());
    if waits {
        nft.channel.forget_removals();
    }
    let begun = Instant::now();
    drop(nft);
    begun.elapsed()
}

/// The sockets of this network namespace, of nfnetlink and of Unix.
fn sockets() -> usize {
    let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
    let netlink = read("netlink");
    let is_netfilter = |line: &&str| line.split_whitespace().nth(1) == Some("12");
    netlink.lines().filter(is_netfilter).count() + read("unix").lines().skip(1).count()
}

#[test]
fn a_removal_does_not_wait_until_the_kernel_has_freed_it() {
    Namespace::new().run(|| {
        Nft::open().unwrap().ensure(&CONFIG).unwrap();
        let before = sockets();
        let (mut waiting, mut leaving) = (vec![], vec![]);
        for _ in 0..9 {
            waiting.push(closing(true));
            leaving.push(closing(false));
        }
        waiting.sort();
        leaving.sort();
        assert!(leaving[4] * 3 < waiting[4], "{leaving:?} {waiting:?}");
        let begun = Instant::now();
        while sockets() > before {
            assert!(begun.elapsed() < Duration::from_secs(10), "some stay open");
            thread::sleep(Duration::from_millis(5));
        }
    });
}
