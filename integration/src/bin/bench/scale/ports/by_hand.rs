//! Rules of the reference plugin for thousands of ports, put there in one go: by its own ADDs twenty thousand would take
//! hours. One ADD is the plugin's; the rules that it made are the pattern for all others. [`alike`] insists that what comes of
//! that is to the letter what the plugin would have made.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use integration::Host;

use super::Mapping;

/// With which program the reference makes its rules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    Iptables,
    Nftables,
}

/// Who uses the rules that are the pattern.
pub const PATTERN: u32 = 0;
/// The table that the reference has of its own.
const TABLE: &str = "ip cni_hostport";
/// What the chains of a container begin with on iptables; a part of a hash follows.
const CHAIN: &str = "CNI-DN-";
const CHAIN_LENGTH: usize = 28;

impl Rules {
    /// The value of the key `backend`.
    pub fn backend(self) -> &'static str {
        match self {
            Rules::Iptables => "iptables",
            Rules::Nftables => "nftables",
        }
    }

    /// All rules of the reference on a host.
    fn listed(self, host: &Host) -> String {
        let list = match self {
            Rules::Iptables => "iptables-save -t nat | grep -v '^#'",
            Rules::Nftables => &format!("nft list table {TABLE}"),
        };
        host.run(&["sh", "-euc", list]).ok().stdout
    }

    /// Makes the rules of the ports with these numbers, on a host where those of [`PATTERN`] are.
    pub fn load(self, host: &Host, numbers: Range<u32>) {
        let pattern = self.pattern(&self.listed(host));
        let mut text = String::new();
        for number in numbers {
            let port = Mapping::numbered(number);
            for line in &pattern {
                let line = line.replace("{id}", &port.id);
                let line = line.replace("{address}", &port.address.to_string());
                let line = line.replace("{port}", &port.host_port.to_string());
                let _ = writeln!(text, "{}", line.replace("{chain}", &chain(number)));
            }
        }
        let (text, load) = match self {
            Rules::Iptables => (
                format!("*nat\n{text}COMMIT\n"),
                "iptables-restore --noflush",
            ),
            Rules::Nftables => (text, "nft -f"),
        };
        host.write("/run/rules", text);
        host.script(&format!("{load} /run/rules"));
    }

    /// What an ADD makes, in words of the program that makes it, with names in braces for what is another's in each.
    fn pattern(self, listed: &str) -> Vec<String> {
        let port = Mapping::numbered(PATTERN);
        let own = match self {
            Rules::Iptables => chains(listed).remove(&port.id),
            Rules::Nftables => Some(format!("comment \"{}\"", port.id)),
        };
        let own = own.expect("the rules of the pattern");
        let mut chain = "";
        let mut lines = Vec::new();
        for line in listed.lines() {
            if let Some(name) = line.trim().strip_prefix("chain ") {
                chain = name.trim_end_matches(" {");
            }
            if line.contains(&own) {
                let line = match self {
                    Rules::Iptables => line.replace(&own, "{chain}"),
                    Rules::Nftables => format!("add rule {TABLE} {chain} {}", line.trim()),
                };
                let line = line.replace(&port.address.to_string(), "{address}");
                let line = line.replace(&port.host_port.to_string(), "{port}");
                lines.push(line.replace(&port.id, "{id}"));
            }
        }
        lines
    }
}

/// The name of a chain made by hand, as long as the plugin's.
fn chain(number: u32) -> String {
    format!("{CHAIN}{number:00$}", CHAIN_LENGTH - CHAIN.len())
}

/// The chain of each container, by its id, in what `iptables-save` says.
fn chains(listed: &str) -> BTreeMap<String, String> {
    let of = |line: &str| {
        let (_, rest) = line.split_once("id: \\\"")?;
        let (id, rest) = rest.split_once('\\')?;
        let (_, chain) = rest.split_once("-j ")?;
        Some((id.to_owned(), chain.to_owned()))
    };
    listed.lines().filter_map(of).collect()
}

/// Insists that of the ports with these numbers the plugin's rules, which are on one host, are those made by hand, on another.
pub fn alike(rules: Rules, plugins: &Host, by_hand: &Host) {
    let [plugins, by_hand] = [plugins, by_hand].map(|host| {
        let mut listed = rules.listed(host);
        for (id, chain) in chains(&listed) {
            assert_eq!(chain.len(), CHAIN_LENGTH, "{chain}");
            listed = listed.replace(&chain, &format!("<chain of {id}>"));
        }
        let mut lines: Vec<_> = listed.lines().map(str::to_owned).collect();
        // iptables-save sorts chains by the names that are hashes. What is in a chain stays as it is.
        if rules == Rules::Iptables {
            lines.sort_by_key(|line| line.split(" -").next().map(str::to_owned));
        }
        lines
    });
    assert_eq!(plugins, by_hand, "{}", rules.backend());
}
