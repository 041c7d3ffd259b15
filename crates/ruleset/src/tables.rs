//! Reads the tables of other programs, and finds the chains that stop our packets. Only what a packet can meet is read, and
//! only once: the list of chains, and the rules of those at the packet's hook.

use std::collections::HashMap;
use std::rc::Rc;

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, NfTablesMessage,
    RuleAttribute, RuleMessage, SetAttribute, SetElementList, SetElementMessage, SetMessage,
    TableAttribute, TableFlags, TableMessage,
};

use nft::expr::{NF_DROP, Rule, expressions};
use nft::{Channel, Error, TABLE};

use crate::eval::{Outcome, Table, first_call};
use crate::packet::Packet;
use crate::sets::Members;

/// A base chain that stops a packet, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockingChain {
    /// The table with its family, as `nft` shows it: `ip filter`.
    pub(crate) table: String,
    /// The base chain.
    pub(crate) chain: String,
    /// Which program can add rules to it.
    pub(crate) editor: Editor,
    /// What drops the packet: `policy drop`, or a verdict and its chain.
    pub(crate) rule: String,
    /// Whether no such packet passes. If not, the chain has rules that were not understood, or that test unknown properties
    /// of the packet.
    pub(crate) certain: bool,
}

/// The program by which a rule has to be added to a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Editor {
    /// nft.
    Nft,
    /// iptables, as the table is one of its own.
    Iptables {
        /// Whether all such packets first go to the chain that Docker keeps for users' rules.
        docker_user: bool,
    },
    /// Only the program that owns the table.
    Owner,
}

/// A foreign chain.
struct Chain {
    family: NetfilterProtoFamily,
    table: String,
    name: String,
    /// The hook, of a base chain.
    hook: Option<HookNumber>,
    priority: i32,
    /// `filter`, `nat` or `route`.
    kind: String,
    drops: bool,
}

impl Chain {
    /// Whether it has the table, type and priority of one of iptables' chains. iptables refuses other chains with the same
    /// names.
    fn is_of_iptables(&self) -> bool {
        let at = (self.table.as_str(), self.name.as_str());
        let is = (self.kind.as_str(), self.priority);
        let is_ip = matches!(
            self.family,
            NetfilterProtoFamily::IPv4 | NetfilterProtoFamily::IPv6
        );
        let wanted = match at {
            ("filter", "INPUT" | "FORWARD" | "OUTPUT") => ("filter", 0),
            ("security", "INPUT" | "FORWARD" | "OUTPUT") => ("filter", 150),
            ("raw", "PREROUTING" | "OUTPUT") => ("filter", -300),
            ("mangle", "OUTPUT") => ("route", -150),
            ("mangle", "PREROUTING" | "INPUT" | "FORWARD" | "POSTROUTING") => ("filter", -150),
            ("nat", "PREROUTING" | "OUTPUT") => ("nat", -100),
            ("nat", "INPUT" | "POSTROUTING") => ("nat", 100),
            _ => return false,
        };
        is_ip && is == wanted
    }
}

/// What was read so far, by table and chain or set.
#[derive(Default)]
struct Known {
    rules: HashMap<(String, String), Rc<[Rule]>>,
    members: HashMap<(String, String), Option<Rc<Members>>>,
}

/// Reads one table.
struct Reader<'c> {
    channel: &'c mut Channel,
    known: &'c mut Known,
    family: NetfilterProtoFamily,
    table: &'c str,
}

impl Table for Reader<'_> {
    fn rules(&mut self, chain: &str) -> Result<Rc<[Rule]>, Error> {
        let key = (called(self.family, self.table), chain.to_owned());
        if let Some(rules) = self.known.rules.get(&key) {
            return Ok(rules.clone());
        }
        let rules = rules(self.channel, self.family, self.table, chain)?;
        self.known.rules.insert(key, rules.clone());
        Ok(rules)
    }

    fn members(&mut self, set: &str) -> Result<Option<Rc<Members>>, Error> {
        let key = (called(self.family, self.table), set.to_owned());
        if let Some(members) = self.known.members.get(&key) {
            return Ok(members.clone());
        }
        let members = members(self.channel, self.family, self.table, set)?.map(Rc::new);
        self.known.members.insert(key, members.clone());
        Ok(members)
    }
}

/// The foreign chains that drop these packets, or may; by packet.
pub(crate) fn blocking_chains(
    channel: &mut Channel,
    packets: &[Packet<'_>],
) -> Result<Vec<Vec<BlockingChain>>, Error> {
    let tables = tables(channel)?;
    let flags = |chain: &Chain| {
        let name = called(chain.family, &chain.table);
        tables.get(&name).copied().unwrap_or(TableFlags::empty())
    };
    let chains = chains(channel)?;
    let mut known = Known::default();
    let mut found = Vec::new();
    for packet in packets {
        let mut obstacles = Vec::new();
        let meets = |chain: &&Chain| {
            chain.hook == Some(packet.hook.number())
                && packet.priorities.contains(&chain.priority)
                && packet.meets(&chain.kind)
                && applies(chain.family, packet.v6)
                && !flags(chain).contains(TableFlags::Dormant)
        };
        for base in chains.iter().filter(meets) {
            let (family, table, is) = (base.family, &base.table, flags(base));
            let mut reader = Reader {
                channel,
                known: &mut known,
                family,
                table,
            };
            let mut outcome = Outcome::of(packet, &base.name, &mut reader)?;
            if outcome.goes_on {
                outcome.end_by_policy(base.drops);
            }
            let Some(rule) = outcome.drops else {
                continue;
            };
            obstacles.push(BlockingChain {
                table: called(family, table),
                chain: base.name.clone(),
                editor: if is.contains(TableFlags::Owner) {
                    Editor::Owner
                } else if base.is_of_iptables() {
                    let first = first_call(packet, &base.name, &mut reader)?;
                    let docker_user = first.as_deref() == Some("DOCKER-USER");
                    Editor::Iptables { docker_user }
                } else {
                    Editor::Nft
                },
                rule,
                certain: !outcome.passes,
            });
        }
        found.push(obstacles);
    }
    Ok(found)
}

/// Whether chains of a family see packets of a version of IP.
fn applies(family: NetfilterProtoFamily, v6: bool) -> bool {
    match family {
        NetfilterProtoFamily::Inet => true,
        NetfilterProtoFamily::IPv4 => !v6,
        NetfilterProtoFamily::IPv6 => v6,
        _ => false,
    }
}

fn called(family: NetfilterProtoFamily, table: &str) -> String {
    let family = match family {
        NetfilterProtoFamily::IPv4 => "ip",
        NetfilterProtoFamily::IPv6 => "ip6",
        _ => "inet",
    };
    format!("{family} {table}")
}

/// All tables with their flags. The chains of a dormant table see nothing.
fn tables(channel: &mut Channel) -> Result<HashMap<String, TableFlags>, Error> {
    let attributes = vec![];
    let question = NfTablesMessage::GetTable(TableMessage { attributes });
    let all = channel.dump_of("list tables", NetfilterProtoFamily::Unspec, question)?;
    let mut tables = HashMap::new();
    for (family, answer) in all {
        let NfTablesMessage::NewTable(TableMessage { attributes }) = answer else {
            continue;
        };
        let (mut name, mut is) = (String::new(), TableFlags::empty());
        for attribute in attributes {
            match attribute {
                TableAttribute::Name(called) => name = called,
                TableAttribute::Flags(flags) => is = flags,
                _ => {}
            }
        }
        tables.insert(called(family, &name), is);
    }
    Ok(tables)
}

/// All chains but those of our own tables.
fn chains(channel: &mut Channel) -> Result<Vec<Chain>, Error> {
    let attributes = vec![];
    let question = NfTablesMessage::GetChain(ChainMessage { attributes });
    let all = channel.dump_of("list chains", NetfilterProtoFamily::Unspec, question)?;
    let mut chains = Vec::new();
    for (family, answer) in all {
        let NfTablesMessage::NewChain(ChainMessage { attributes }) = answer else {
            continue;
        };
        let mut chain = Chain {
            family,
            table: String::new(),
            name: String::new(),
            hook: None,
            priority: 0,
            kind: String::new(),
            drops: false,
        };
        for attribute in attributes {
            match attribute {
                ChainAttribute::Table(is) => chain.table = is,
                ChainAttribute::Name(is) => chain.name = is,
                ChainAttribute::Policy(policy) => chain.drops = policy == NF_DROP,
                ChainAttribute::Type(kind) => chain.kind = kind,
                ChainAttribute::Hook(parts) => {
                    for part in parts {
                        match part {
                            HookAttribute::Number(number) => chain.hook = Some(number),
                            HookAttribute::Priority(number) => {
                                chain.priority = number.cast_signed();
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if family != NetfilterProtoFamily::Inet || chain.table != TABLE {
            chains.push(chain);
        }
    }
    Ok(chains)
}

/// The rules of one chain.
fn rules(
    channel: &mut Channel,
    family: NetfilterProtoFamily,
    table: &str,
    chain: &str,
) -> Result<Rc<[Rule]>, Error> {
    let attributes = vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
    ];
    let question = NfTablesMessage::GetRule(RuleMessage { attributes });
    let what = format!("read chain {chain} of table {}", called(family, table));
    let answers = channel.dump_of(&what, family, question)?.into_iter();
    let rules = answers.filter_map(|(_, answer)| match answer {
        NfTablesMessage::NewRule(rule) => Some(expressions(rule)),
        _ => None,
    });
    Ok(rules.collect())
}

/// The elements of one set.
fn members(
    channel: &mut Channel,
    family: NetfilterProtoFamily,
    table: &str,
    set: &str,
) -> Result<Option<Members>, Error> {
    let what = format!("read set {set} of table {}", called(family, table));
    let attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(set.to_owned()),
    ];
    let question = NfTablesMessage::GetSet(SetMessage { attributes });
    let sets = channel.get_of(&what, family, question)?.into_iter();
    let mut sets = sets.filter_map(|(_, answer)| match answer {
        NfTablesMessage::NewSet(set) => Some(set.attributes),
        _ => None,
    });
    let found = sets.next();
    let Some(found) = found.filter(|found| Members::are_told_of(found)) else {
        return Ok(None);
    };
    let attributes = vec![
        SetElementList::Table(table.to_owned()),
        SetElementList::Set(set.to_owned()),
    ];
    let question = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
    let answers = channel.dump_of(&what, family, question)?.into_iter();
    let answers = answers.map(|(_, answer)| answer).collect();
    Ok(Members::new(&found, answers))
}
