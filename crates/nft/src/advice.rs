//! What stops packets of ours, in words for an operator, and the commands that would allow them.

use crate::Nft;
use crate::error::Error;
use crate::foreign::Obstacle;
use crate::packet::Packet;

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
    Ok(found.iter().map(told).collect())
}
