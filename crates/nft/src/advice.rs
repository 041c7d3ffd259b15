//! What stops packets of ours, in words for an operator, and the commands that would allow them.

use std::fs;

use crate::Nft;
use crate::error::Error;
use crate::foreign::Obstacle;
use crate::packet::Packet;

/// The older iptables, whose rules only its own programs can read; for IPv4 and IPv6, with where the kernel lists its tables.
const LEGACY: [(&str, &str); 2] = [
    ("iptables-legacy", "/proc/thread-self/net/ip_tables_names"),
    ("ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names"),
];

/// A chain of somebody else that stops what is ours, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Whether nothing of the kind passes.
    pub certain: bool,
    /// The chain, and what it stops.
    pub why: String,
    /// The commands that would allow it.
    pub allow: String,
}

/// What would allow it, in the words of each program that makes rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Rules of nft, each as it follows `nft insert rule TABLE CHAIN`.
    pub nft: Vec<String>,
    /// Rules of iptables, each as it follows `iptables -I CHAIN`.
    pub iptables: Vec<String>,
    /// A whole command of firewalld.
    pub firewalld: String,
}

impl Words {
    fn command(&self, at: &Obstacle) -> String {
        let (table, chain) = (at.table.as_str(), at.chain.as_str());
        let iptables = match table.split_once(' ') {
            Some((_, "firewalld")) => return self.firewalld.clone(),
            Some(("ip", "filter")) => "iptables-nft",
            Some(("ip6", "filter")) => "ip6tables-nft",
            _ => "",
        };
        // A native rule in a table of iptables may be one that iptables cannot list any more.
        let commands: Vec<_> = if iptables.is_empty() || chain != chain.to_uppercase() {
            let insert = |rule| format!("nft insert rule {table} {chain} {rule}");
            self.nft.iter().map(insert).collect()
        } else {
            // Docker keeps that one for others' rules, before its own.
            let docker = chain == "FORWARD" && at.has_docker_user;
            let chain = if docker { "DOCKER-USER" } else { chain };
            let insert = |rule| format!("{iptables} -I {chain} {rule}");
            self.iptables.iter().map(insert).collect()
        };
        commands.join(" && ")
    }

    /// For a table of the older iptables, of which nobody knows what is in it.
    fn legacy_command(&self, program: &str, chains: &[&str]) -> String {
        let commands = chains.iter().flat_map(|chain| {
            let insert = move |rule| format!("{program} -I {chain} {rule}");
            self.iptables.iter().map(insert)
        });
        commands.collect::<Vec<_>>().join(" && ")
    }
}

/// The chains of others that stop these packets, or may, each once; `what` names the packets.
pub fn blocked(packets: &[Packet<'_>], what: &str, words: &Words) -> Result<Vec<Blocked>, Error> {
    let mut found: Vec<Obstacle> = Vec::new();
    for obstacle in Nft::open()?.obstacles(packets)?.into_iter().flatten() {
        let same = |it: &&mut Obstacle| it.table == obstacle.table && it.chain == obstacle.chain;
        match found.iter_mut().find(same) {
            Some(known) if known.certain || !obstacle.certain => {}
            Some(known) => *known = obstacle,
            None => found.push(obstacle),
        }
    }
    let told = |it: &Obstacle| {
        let stops = if it.certain { "stops" } else { "may stop" };
        let Obstacle {
            table, chain, rule, ..
        } = it;
        Blocked {
            certain: it.certain,
            why: format!("chain {chain} of nftables table {table} {stops} {what} with its {rule}"),
            allow: words.command(it),
        }
    };
    let native = found.iter().map(told);
    let legacy = [false, true]
        .into_iter()
        .filter_map(|v6| legacy(packets, v6, what, words));
    Ok(native.chain(legacy).collect())
}

/// The table of the older iptables that packets of this version of IP meet, if there is one.
fn legacy(packets: &[Packet<'_>], v6: bool, what: &str, words: &Words) -> Option<Blocked> {
    let (program, tables) = LEGACY[usize::from(v6)];
    let mut chains: Vec<_> = packets
        .iter()
        .filter(|packet| packet.v6 == v6)
        .map(|packet| packet.hook.of_iptables())
        .collect();
    chains.dedup();
    let tables = fs::read_to_string(tables).unwrap_or_default();
    let has_filter = tables.lines().any(|name| name == "filter");
    (has_filter && !chains.is_empty()).then(|| Blocked {
        certain: false,
        why: format!(
            "{program} has a table filter, which only it can read (`{program} -S {}`): it may stop {}",
            chains[0],
            what.trim_end_matches(',')
        ),
        allow: words.legacy_command(program, &chains),
    })
}
