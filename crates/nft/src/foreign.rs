//! The tables of others: which of their chains stop a packet of ours.
//!
//! In nftables a packet has to pass each base chain of a hook: what one of them drops no other can save. So an accept of ours
//! would help nobody, and all that can be done is to say whose chain it is. Only what a packet can meet is read: the list of
//! chains, and the rules of those that hang on its hook.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, NfTablesMessage,
    RuleAttribute, RuleMessage, TableAttribute, TableFlags, TableMessage,
};

use crate::channel::Channel;
use crate::error::Error;
use crate::judge::{Fate, Packet, Rules};
use crate::rules::Rule;
use crate::skeleton::{TABLE, expressions};

/// What stops a packet, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The table with its family, as `nft` names it: `ip filter`.
    pub table: String,
    /// The base chain.
    pub chain: String,
    /// The chains of the table.
    pub chains: BTreeSet<String>,
    /// What in it drops the packet: `policy drop`, or a verdict and its chain.
    pub rule: String,
    /// Whether no packet of this kind passes; else rules are in it that were not understood or that look at more than is
    /// known of the packet.
    pub certain: bool,
}

const NF_DROP: u32 = 0;

/// A base chain.
struct Base {
    family: NetfilterProtoFamily,
    table: String,
    chain: String,
    hook: HookNumber,
    drops: bool,
}

/// The names of all chains, by table.
type Names = BTreeMap<String, BTreeSet<String>>;

/// See [`crate::Nft::obstacles`].
pub(crate) fn obstacles(
    channel: &mut Channel,
    packets: &[Packet<'_>],
) -> Result<Vec<Vec<Obstacle>>, Error> {
    let asleep = asleep(channel)?;
    let (bases, chains) = chains(channel)?;
    let mut found = Vec::new();
    let mut tables = BTreeMap::new();
    for packet in packets {
        let mut obstacles = Vec::new();
        let meets = |base: &&Base| {
            base.hook == packet.hook.number()
                && applies(base.family, packet.v6)
                && !asleep.contains(&called(base.family, &base.table))
        };
        for base in bases.iter().filter(meets) {
            let table = called(base.family, &base.table);
            let rules = tables.entry(table.clone()).or_insert_with(|| Reader {
                family: base.family,
                table: base.table.clone(),
                read: BTreeMap::new(),
            });
            let mut lent = Lent {
                reader: rules,
                channel: &mut *channel,
            };
            let mut fate = Fate::of(packet, &base.chain, &mut lent)?;
            if fate.goes_on {
                fate.end_by_policy(base.drops);
            }
            let chain = base.chain.clone();
            obstacles.extend(fate.drops.map(|rule| Obstacle {
                chains: chains.get(&table).cloned().unwrap_or_default(),
                table,
                chain,
                rule,
                certain: !fate.passes,
            }));
        }
        found.push(obstacles);
    }
    Ok(found)
}

/// Whether chains of a family see packets of this version of IP.
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

/// Tables that are dormant: their chains see nothing.
fn asleep(channel: &mut Channel) -> Result<BTreeSet<String>, Error> {
    let attributes = vec![];
    let question = NfTablesMessage::GetTable(TableMessage { attributes });
    let all = channel.dump_of("list tables", NetfilterProtoFamily::Unspec, question)?;
    let mut asleep = BTreeSet::new();
    for (family, answer) in all {
        let NfTablesMessage::NewTable(TableMessage { attributes }) = answer else {
            continue;
        };
        let (mut name, mut sleeps) = (String::new(), false);
        for attribute in attributes {
            match attribute {
                TableAttribute::Name(is) => name = is,
                TableAttribute::Flags(flags) => sleeps = flags.contains(TableFlags::Dormant),
                _ => {}
            }
        }
        if sleeps {
            asleep.insert(called(family, &name));
        }
    }
    Ok(asleep)
}

/// The base chains of others, and the names of all chains by table.
fn chains(channel: &mut Channel) -> Result<(Vec<Base>, Names), Error> {
    let attributes = vec![];
    let question = NfTablesMessage::GetChain(ChainMessage { attributes });
    let all = channel.dump_of("list chains", NetfilterProtoFamily::Unspec, question)?;
    let (mut bases, mut names) = (Vec::new(), Names::new());
    for (family, answer) in all {
        let NfTablesMessage::NewChain(ChainMessage { attributes }) = answer else {
            continue;
        };
        let (mut table, mut chain, mut hook, mut drops) =
            (String::new(), String::new(), None, false);
        for attribute in attributes {
            match attribute {
                ChainAttribute::Table(is) => table = is,
                ChainAttribute::Name(is) => chain = is,
                ChainAttribute::Policy(policy) => drops = policy == NF_DROP,
                ChainAttribute::Hook(parts) => {
                    hook = parts.into_iter().find_map(|part| match part {
                        HookAttribute::Number(number) => Some(number),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        if family == NetfilterProtoFamily::Inet && table == TABLE {
            continue;
        }
        names
            .entry(called(family, &table))
            .or_default()
            .insert(chain.clone());
        bases.extend(hook.map(|hook| Base {
            family,
            table,
            chain,
            hook,
            drops,
        }));
    }
    Ok((bases, names))
}

/// The rules of a table's chains, as they were read.
struct Reader {
    family: NetfilterProtoFamily,
    table: String,
    read: BTreeMap<String, Vec<Rule>>,
}

struct Lent<'a> {
    reader: &'a mut Reader,
    channel: &'a mut Channel,
}

impl Rules for Lent<'_> {
    fn of(&mut self, chain: &str) -> Result<Vec<Rule>, Error> {
        let Reader {
            family,
            table,
            read,
        } = &mut *self.reader;
        if let Some(rules) = read.get(chain) {
            return Ok(rules.clone());
        }
        let attributes = vec![
            RuleAttribute::Table(table.clone()),
            RuleAttribute::Chain(chain.to_owned()),
        ];
        let question = NfTablesMessage::GetRule(RuleMessage { attributes });
        let what = format!("read chain {chain} of table {}", called(*family, table));
        let answers = self.channel.dump_of(&what, *family, question)?.into_iter();
        let rules = answers.filter_map(|(_, answer)| match answer {
            NfTablesMessage::NewRule(rule) => Some(expressions(rule)),
            _ => None,
        });
        let rules: Vec<_> = rules.collect();
        read.insert(chain.to_owned(), rules.clone());
        Ok(rules)
    }
}
