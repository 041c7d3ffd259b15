//! The way of packets through this host to a container: what stops it, other than ours.

use std::{collections::BTreeSet, fs};

use cni::Error;
use nft::{Blocked, Hook, Packet, Words};

use crate::{kernel, record::Record};

/// What lets a host forward, by version of IP.
const FORWARD: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];

/// The keys of sysctl that would have to be 1.
pub(crate) fn off(record: &Record) -> Vec<&'static str> {
    let is_off = |key: &str| {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        fs::read_to_string(path).is_ok_and(|value| value.trim() == "0")
    };
    let versions: BTreeSet<_> = record.runs.iter().map(|run| run.to.is_ipv6()).collect();
    let keys = versions.into_iter().map(|v6| FORWARD[usize::from(v6)]);
    keys.filter(|key| is_off(key)).collect()
}

/// The chains of others that let nothing through to the records' ports, or back, or may not.
pub(crate) fn blocked(records: &[Record]) -> Result<Vec<Blocked>, Error> {
    let runs = records.iter().flat_map(|record| &record.runs);
    let ways: BTreeSet<_> = runs
        .map(|run| (run.via.as_str(), run.to.is_ipv6()))
        .collect();
    let mut all = Vec::new();
    for (via, v6) in ways {
        // No interface has the index 0: of one that is gone, no rule can be but by its name.
        let via_index = netlink::index_of(via).unwrap_or(0);
        // From wherever they come: a rule that asks for that may let them in.
        let comes = Packet {
            hook: Hook::Forward,
            v6,
            iif: None,
            oif: Some((via, via_index)),
            state: Packet::TRANSLATED,
            udp: None,
        };
        let reply = Packet {
            iif: Some((via, via_index)),
            oif: None,
            state: Packet::ESTABLISHED,
            ..comes
        };
        let words = Words {
            nft: vec![
                format!("oifname {via} ct status dnat accept"),
                format!("iifname {via} ct state established,related accept"),
            ],
            iptables: vec![
                format!("-o {via} -m conntrack --ctstate DNAT -j ACCEPT"),
                format!("-i {via} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
            ],
            firewalld: format!("firewall-cmd --zone=trusted --change-interface={via}"),
        };
        let version = if v6 { "IPv6" } else { "IPv4" };
        let what = format!("what comes to published ports over {version}, by {via},");
        let blocked = nft::blocked(&[comes, reply], &what, &words);
        all.extend(blocked.map_err(|error| kernel(&error))?);
    }
    Ok(all)
}
