//! Says what stops our packets, and which command would let them pass.

use std::fs;

use nft::{Error, Nft};

use crate::packet::Packet;
use crate::quote::quoted;
use crate::tables::{self, BlockingChain, Editor};

/// The programs of iptables-legacy, whose rules only they can read, for IPv4 and IPv6; and where the kernel lists their
/// tables.
const LEGACY: [(&str, &str); 2] = [
    ("iptables-legacy", "/proc/thread-self/net/ip_tables_names"),
    ("ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names"),
];

/// Tables of iptables-legacy that can drop packets at the hooks that matter here.
const DROPPING: [&str; 3] = ["filter", "mangle", "security"];
/// firewalld's table in panic mode.
const PANIC: &str = "firewalld_policy_drop";

/// Packets that belong together, and what to say if they are stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic<'a> {
    /// Every packet has to pass, each in at least one of its forms.
    pub packets: Vec<Vec<Packet<'a>>>,
    /// The packets, in words.
    pub what: String,
    /// What would let them through.
    pub remedies: Remedies,
}

/// A foreign chain that stops our packets, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Whether all of the packets are stopped.
    pub certain: bool,
    /// The chain, as `chain FORWARD of nftables table ip filter`, or the only program that can read its table.
    pub chain: String,
    /// The chain and the packets that it stops, as a sentence.
    pub why: String,
    /// The commands that would let the packets pass; empty if only the table's owner can change it.
    pub remedy: String,
}

/// What lets packets pass, in the language of each firewall program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedies {
    /// Rules of nft, as they follow `nft insert rule TABLE CHAIN`.
    pub nft: Vec<String>,
    /// Rules of iptables, as they follow `iptables -I CHAIN`.
    pub iptables: Vec<String>,
    /// A complete firewalld command.
    pub firewalld: String,
}

impl Remedies {
    fn command(&self, at: &BlockingChain) -> String {
        let (table, chain) = (at.table.as_str(), at.chain.as_str());
        let (family, name) = table.split_once(' ').unwrap_or_default();
        match name {
            "firewalld" => return self.firewalld.clone(),
            PANIC => return "firewall-cmd --panic-off".to_owned(),
            _ => {}
        }
        let commands: Vec<_> = match at.editor {
            Editor::Owner => vec![],
            Editor::Nft if !at.is_spelled() => vec![],
            Editor::Nft => {
                let insert =
                    |rule: &String| format!("nft insert rule {table} {chain} {}", quoted(rule));
                self.nft.iter().map(insert).collect()
            }
            // iptables may fail to list a table in which nft has put a rule.
            Editor::Iptables { docker_user } => {
                let program = match family {
                    "ip6" => "ip6tables-nft",
                    _ => "iptables-nft",
                };
                // Docker keeps this chain for users' rules, before its own.
                let chain = if docker_user { "DOCKER-USER" } else { chain };
                let program = of_table(program, name);
                let insert = |rule| format!("{program} -I {chain} {rule}");
                self.iptables.iter().map(insert).collect()
            }
        };
        commands.join(" && ")
    }

    /// For tables of iptables-legacy, whose rules are unknown.
    fn legacy_command(&self, program: &str, tables: &[&str], chains: &[&str]) -> String {
        let programs = tables.iter().map(|table| of_table(program, table));
        let each = programs.flat_map(|program| {
            let begin = move |chain| format!("{program} -I {chain}");
            chains.iter().map(begin)
        });
        let commands = each.flat_map(|begin| {
            let rules = self.iptables.iter();
            rules.map(move |rule| format!("{begin} {rule}"))
        });
        commands.collect::<Vec<_>>().join(" && ")
    }
}

/// The beginning of an iptables command for a table.
fn of_table(program: &str, table: &str) -> String {
    match table {
        "filter" => program.to_owned(),
        _ => format!("{program} -t {table}"),
    }
}

impl BlockingChain {
    /// Whether nft's command line can spell table and chain. It takes no quoted names (nft(8), "Lexical conventions"), while
    /// the kernel takes any name.
    fn is_spelled(&self) -> bool {
        let name = self.table.split_once(' ').map_or("", |(_, name)| name);
        [name, &self.chain].iter().all(|name| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || "_.".contains(c))
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "/-_.".contains(c))
        })
    }
}

/// The foreign chains that stop these packets, or may, each chain once; by traffic.
pub(crate) fn obstacles(traffic: &[Traffic<'_>]) -> Result<Vec<Vec<Obstacle>>, Error> {
    let packets = traffic.iter().flat_map(|it| it.packets.concat());
    let packets: Vec<_> = packets.collect();
    let mut obstacles = Nft::open()?
        .read(|channel| tables::blocking_chains(channel, &packets))?
        .into_iter();
    let mut blocked = Vec::new();
    for traffic in traffic {
        let forms = |forms: &Vec<_>| best(obstacles.by_ref().take(forms.len()).collect());
        let met = traffic.packets.iter().flat_map(forms);
        let native = worst(met).into_iter().map(|it| traffic.native(&it));
        let legacy = [false, true]
            .into_iter()
            .filter_map(|v6| traffic.legacy(v6));
        blocked.push(native.chain(legacy).collect());
    }
    Ok(blocked)
}

/// One entry for each chain: certain only if it certainly stops all forms of the packet.
fn best(forms: Vec<Vec<BlockingChain>>) -> Vec<BlockingChain> {
    let count = forms.len();
    let all: Vec<_> = forms.into_iter().flatten().collect();
    let of = |it: &BlockingChain| (it.table.clone(), it.chain.clone());
    let stops_all = |chain: &BlockingChain| {
        let certain = all.iter().filter(|it| it.certain && of(it) == of(chain));
        certain.count() == count
    };
    let all = all.iter().map(|it| BlockingChain {
        certain: stops_all(it),
        ..it.clone()
    });
    worst(all)
}

/// One entry for each chain, the certain one if there is one.
fn worst(obstacles: impl Iterator<Item = BlockingChain>) -> Vec<BlockingChain> {
    let mut found: Vec<BlockingChain> = Vec::new();
    for obstacle in obstacles {
        let same =
            |it: &&mut BlockingChain| it.table == obstacle.table && it.chain == obstacle.chain;
        match found.iter_mut().find(same) {
            Some(known) if known.certain || !obstacle.certain => {}
            Some(known) => *known = obstacle,
            None => found.push(obstacle),
        }
    }
    found
}

impl Traffic<'_> {
    fn native(&self, it: &BlockingChain) -> Obstacle {
        let stops = if it.certain { "stops" } else { "may stop" };
        let chain = format!("chain {} of nftables table {}", it.chain, it.table);
        let owned = match it.editor {
            Editor::Owner => "; only the program that owns the table may change it",
            Editor::Nft if !it.is_spelled() => {
                "; nft has no spelling for its name: only the program that made it can change it"
            }
            _ => "",
        };
        Obstacle {
            certain: it.certain,
            why: format!("{chain} {stops} {} with its {}{owned}", self.what, it.rule),
            chain,
            remedy: self.remedies.command(it),
        }
    }

    /// The obstacle that tables of iptables-legacy for this version of IP may be, if there are any.
    fn legacy(&self, v6: bool) -> Option<Obstacle> {
        let (program, tables) = LEGACY[usize::from(v6)];
        let packets = self.packets.iter().flatten();
        let packets = packets.filter(|packet| packet.v6 == v6);
        let mut chains: Vec<_> = packets
            .filter_map(|packet| packet.hook.of_iptables())
            .collect();
        chains.dedup();
        let first = chains.first()?;
        let tables = fs::read_to_string(tables).unwrap_or_default();
        let tables = tables.lines().filter(|name| DROPPING.contains(name));
        let tables: Vec<_> = tables.collect();
        let list = of_table(program, tables.first()?);
        let named = tables.join(", ");
        let what = self.what.trim_end_matches(',');
        Some(Obstacle {
            certain: false,
            chain: program.to_owned(),
            why: format!(
                "{program} has a table {named}, which only it can read (`{list} -S {first}`): it may stop {what}"
            ),
            remedy: self.remedies.legacy_command(program, &tables, &chains),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_nft_cannot_spell_gets_no_command() {
        let remedies = Remedies {
            nft: vec!["udp dport 4789 accept".to_owned()],
            iptables: vec![],
            firewalld: String::new(),
        };
        let traffic = Traffic {
            packets: vec![],
            what: "the tunnels' packets".to_owned(),
            remedies,
        };
        let at = |table: &str, chain: &str| BlockingChain {
            table: table.to_owned(),
            chain: chain.to_owned(),
            editor: Editor::Nft,
            rule: "policy drop".to_owned(),
            certain: true,
        };
        let usual = traffic.native(&at("inet mine", "in-put.1"));
        assert_eq!(
            usual.remedy,
            "nft insert rule inet mine in-put.1 'udp dport 4789 accept'"
        );
        for (table, chain) in [
            ("inet t; reboot # $(reboot)", "input"),
            ("inet mine", "in\nput"),
            ("inet mine", "\u{1b}[31m"),
            ("inet mine", "1"),
            ("inet mine", ""),
        ] {
            let blocked = traffic.native(&at(table, chain));
            assert_eq!(blocked.remedy, "");
            assert!(
                blocked.why.contains("nft has no spelling"),
                "{}",
                blocked.why
            );
        }
    }
}
