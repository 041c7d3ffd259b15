//! What stops packets of ours, in words for an operator, and the commands that would allow them.

use std::fs;

use crate::Nft;
use crate::error::Error;
use crate::foreign::{Author, Obstacle};
use crate::packet::Packet;

/// The older iptables, whose rules only its own programs can read; for IPv4 and IPv6, with where the kernel lists its tables.
const LEGACY: [(&str, &str); 2] = [
    ("iptables-legacy", "/proc/thread-self/net/ip_tables_names"),
    ("ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names"),
];

/// Their tables that have chains at the hooks at which we say so, and drop.
const DROPPING: [&str; 3] = ["filter", "mangle", "security"];
/// The table that firewalld has in panic mode.
const PANIC: &str = "firewalld_policy_drop";

/// Packets of ours that belong together, and what is said where they are stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic<'a> {
    /// All of them have to get through, each in one of its forms.
    pub packets: Vec<Vec<Packet<'a>>>,
    /// What they are, in words.
    pub what: String,
    /// What would let them through.
    pub words: Words,
}

/// A chain of somebody else that stops what is ours, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Whether nothing of the kind passes.
    pub certain: bool,
    /// The chain: `chain FORWARD of nftables table ip filter`, or the program that alone can read its table.
    pub chain: String,
    /// The same, and what it stops.
    pub why: String,
    /// The commands that would allow it; empty, if nobody but the owner of a table can.
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
        let (family, name) = table.split_once(' ').unwrap_or_default();
        match name {
            "firewalld" => return self.firewalld.clone(),
            PANIC => return "firewall-cmd --panic-off".to_owned(),
            _ => {}
        }
        let commands: Vec<_> = match at.author {
            Author::Owner => vec![],
            Author::Nft if !at.is_spelled() => vec![],
            Author::Nft => {
                let insert =
                    |rule: &String| format!("nft insert rule {table} {chain} {}", quoted(rule));
                self.nft.iter().map(insert).collect()
            }
            // A native rule in a table of iptables may be one that iptables cannot list any more.
            Author::Iptables { docker_user } => {
                let program = match family {
                    "ip6" => "ip6tables-nft",
                    _ => "iptables-nft",
                };
                // Docker keeps that one for others' rules, before its own.
                let chain = if docker_user { "DOCKER-USER" } else { chain };
                let program = of_table(program, name);
                let insert = |rule| format!("{program} -I {chain} {rule}");
                self.iptables.iter().map(insert).collect()
            }
        };
        commands.join(" && ")
    }

    /// For tables of the older iptables, of which nobody knows what is in them, and their chains.
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

/// How a command of iptables for one of its tables begins.
fn of_table(program: &str, table: &str) -> String {
    match table {
        "filter" => program.to_owned(),
        _ => format!("{program} -t {table}"),
    }
}

impl Obstacle {
    /// Whether nft's command line has a spelling for table and chain: it takes no name in quotes (nft(8), "Lexical
    /// conventions"), while the kernel takes any.
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

/// A word of a command, in quotes where a shell would read it otherwise. What a terminal would act on is escaped in the
/// form that bash, zsh, ksh and busybox read.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@%+:=,/".contains(c);
    if word.chars().all(is_plain) && !word.is_empty() {
        return word.to_owned();
    }
    let is_shown = |c: char| c == ' ' || !(c.is_control() || c.is_whitespace() || is_mark(c));
    if word.chars().all(is_shown) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let escaped = word.chars().map(|c| match c {
        '\'' | '\\' => format!("\\{c}"),
        _ if is_shown(c) => c.to_string(),
        _ => {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            bytes.fold(String::new(), |text, byte| text + &format!("\\x{byte:02x}"))
        }
    });
    format!("$'{}'", escaped.collect::<String>())
}

/// Whether it turns the writing direction.
fn is_mark(c: char) -> bool {
    matches!(
        c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// An interface's name as nft reads it in a rule; `None` where nft has no spelling for it. A star at the end would stand for
/// all names that begin so.
pub fn interface(name: &str) -> Option<String> {
    if name.contains('"') {
        return None;
    }
    Some(match name.strip_suffix('*') {
        Some(start) => format!("\"{start}\\*\""),
        None => format!("\"{name}\""),
    })
}

/// The chains of others that stop these packets, or may, each once; by traffic.
pub fn blocked(traffic: &[Traffic<'_>]) -> Result<Vec<Vec<Blocked>>, Error> {
    let packets = traffic.iter().flat_map(|it| it.packets.concat());
    let packets: Vec<_> = packets.collect();
    let mut obstacles = Nft::open()?.obstacles(&packets)?.into_iter();
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

/// What stops all forms of a packet for certain, or some of them, or may: one of each chain.
fn best(forms: Vec<Vec<Obstacle>>) -> Vec<Obstacle> {
    let count = forms.len();
    let all: Vec<_> = forms.into_iter().flatten().collect();
    let of = |it: &Obstacle| (it.table.clone(), it.chain.clone());
    let stops_all = |chain: &Obstacle| {
        let certain = all.iter().filter(|it| it.certain && of(it) == of(chain));
        certain.count() == count
    };
    let all = all.iter().map(|it| Obstacle {
        certain: stops_all(it),
        ..it.clone()
    });
    worst(all)
}

/// One of each chain: that which is certain.
fn worst(obstacles: impl Iterator<Item = Obstacle>) -> Vec<Obstacle> {
    let mut found: Vec<Obstacle> = Vec::new();
    for obstacle in obstacles {
        let same = |it: &&mut Obstacle| it.table == obstacle.table && it.chain == obstacle.chain;
        match found.iter_mut().find(same) {
            Some(known) if known.certain || !obstacle.certain => {}
            Some(known) => *known = obstacle,
            None => found.push(obstacle),
        }
    }
    found
}

impl Traffic<'_> {
    fn native(&self, it: &Obstacle) -> Blocked {
        let stops = if it.certain { "stops" } else { "may stop" };
        let chain = format!("chain {} of nftables table {}", it.chain, it.table);
        let owned = match it.author {
            Author::Owner => "; only the program that owns the table may change it",
            Author::Nft if !it.is_spelled() => {
                "; nft has no spelling for its name: only the program that made it can change it"
            }
            _ => "",
        };
        Blocked {
            certain: it.certain,
            why: format!("{chain} {stops} {} with its {}{owned}", self.what, it.rule),
            chain,
            allow: self.words.command(it),
        }
    }

    /// The table of the older iptables that packets of this version of IP meet, if there is one.
    fn legacy(&self, v6: bool) -> Option<Blocked> {
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
        Some(Blocked {
            certain: false,
            chain: program.to_owned(),
            why: format!(
                "{program} has a table {named}, which only it can read (`{list} -S {first}`): it may stop {what}"
            ),
            allow: self.words.legacy_command(program, &tables, &chains),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_word_to_a_shell_whatever_is_in_it() {
        for (word, wanted) in [
            ("ch-egress", "ch-egress"),
            (
                "net.ipv4.conf.br/100.rp_filter=2",
                "net.ipv4.conf.br/100.rp_filter=2",
            ),
            ("", "''"),
            ("e;reboot;", "'e;reboot;'"),
            ("$(x)", "'$(x)'"),
            ("it's", "'it'\\''s'"),
            ("a b", "'a b'"),
            ("e\u{1b}[31m", "$'e\\x1b[31m'"),
            ("a\nreboot", "$'a\\x0areboot'"),
            ("a\u{202e}'\\", "$'a\\xe2\\x80\\xae\\'\\\\'"),
        ] {
            assert_eq!(quoted(word), wanted);
            // The shell reads back what was meant.
            let said = std::process::Command::new("bash")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), word);
        }
    }

    #[test]
    fn an_interface_that_nft_cannot_spell_has_no_rule() {
        assert_eq!(interface("ens3").as_deref(), Some("\"ens3\""));
        assert_eq!(interface("e;x").as_deref(), Some("\"e;x\""));
        assert_eq!(interface("e*").as_deref(), Some("\"e\\*\""));
        assert_eq!(interface("e\"x"), None);
    }

    #[test]
    fn a_chain_that_nft_cannot_spell_gets_no_command() {
        let words = Words {
            nft: vec!["udp dport 4789 accept".to_owned()],
            iptables: vec![],
            firewalld: String::new(),
        };
        let traffic = Traffic {
            packets: vec![],
            what: "the tunnels' packets".to_owned(),
            words,
        };
        let at = |table: &str, chain: &str| Obstacle {
            table: table.to_owned(),
            chain: chain.to_owned(),
            author: Author::Nft,
            rule: "policy drop".to_owned(),
            certain: true,
        };
        let usual = traffic.native(&at("inet mine", "in-put.1"));
        assert_eq!(
            usual.allow,
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
            assert_eq!(blocked.allow, "");
            assert!(
                blocked.why.contains("nft has no spelling"),
                "{}",
                blocked.why
            );
        }
    }
}
