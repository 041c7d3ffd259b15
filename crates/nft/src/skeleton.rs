//! What is in our table, as data: the same attributes make an object, and tell whether the kernel's one is as wanted.
//! `skeleton.nft` says the same in nft's language. Sets and chains to come (published ports, VTEPs) are further entries of
//! [`Skeleton::new`]; `repair` does not know what they are for.

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, SetAttribute, SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
};

use crate::channel::Channel;
use crate::error::Error;
use crate::masquerade::{Rule, masquerade};

pub(crate) const TABLE: &str = "crosshost";
const POSTROUTING: &str = "postrouting";
/// nft's `srcnat` of the inet family.
const SRCNAT: u32 = 100;
const NF_ACCEPT: u32 = 1;
/// No flag, above all not `dormant`.
pub(crate) const AWAKE: TableAttribute = TableAttribute::Flags(TableFlags::empty());

/// What differs between the two versions of IP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// The set of networks to masquerade.
    pub(crate) egress: &'static str,
    pub(crate) nfproto: u8,
    /// nft's number of the data type, by which it prints an element.
    key_type: u32,
    pub(crate) key_bytes: u8,
    /// Of the source address in the IP header.
    pub(crate) source_offset: u32,
}

pub(crate) static IPV4: Family = Family {
    egress: "egress4",
    nfproto: 2,
    key_type: 7,
    key_bytes: 4,
    source_offset: 12,
};
pub(crate) static IPV6: Family = Family {
    egress: "egress6",
    nfproto: 10,
    key_type: 8,
    key_bytes: 16,
    source_offset: 8,
};

/// All objects of the table; later ones may refer to earlier ones.
pub(crate) struct Skeleton {
    pub(crate) sets: Vec<(&'static str, Vec<SetAttribute>)>,
    pub(crate) chains: Vec<Chain>,
}

pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) attributes: Vec<ChainAttribute>,
    pub(crate) rules: Vec<Rule>,
}

/// What the kernel has of it, in the same order.
pub(crate) struct Found {
    pub(crate) table: Option<Vec<TableAttribute>>,
    pub(crate) sets: Vec<Option<Vec<SetAttribute>>>,
    pub(crate) chains: Vec<(Option<Vec<ChainAttribute>>, Vec<Rule>)>,
}

impl Skeleton {
    /// `bridge` is the egress bridge, at most 15 bytes.
    pub(crate) fn new(bridge: &str) -> Self {
        let families = [&IPV4, &IPV6];
        let sets = families.iter().map(|family| {
            let attributes = vec![
                SetAttribute::Table(TABLE.to_owned()),
                SetAttribute::Name(family.egress.to_owned()),
                SetAttribute::Flags(SetFlags::Interval),
                SetAttribute::KeyType(family.key_type),
                SetAttribute::KeyLen(family.key_bytes.into()),
            ];
            (family.egress, attributes)
        });
        let postrouting = Chain {
            name: POSTROUTING,
            attributes: vec![
                ChainAttribute::Table(TABLE.to_owned()),
                ChainAttribute::Name(POSTROUTING.to_owned()),
                ChainAttribute::Hook(vec![
                    Hook::Number(InetHookNumber::PostRouting.into()),
                    Hook::Priority(SRCNAT),
                ]),
                ChainAttribute::Policy(NF_ACCEPT),
                ChainAttribute::Type("nat".to_owned()),
            ],
            rules: families
                .iter()
                .map(|family| masquerade(family, bridge))
                .collect(),
        };
        Self {
            sets: sets.collect(),
            chains: vec![postrouting],
        }
    }

    /// Reads what the kernel has. Consistent only if the generation is the same before and after.
    pub(crate) fn find(&self, channel: &mut Channel) -> Result<Found, Error> {
        let table = channel.get(&on_table("read"), NfTablesMessage::GetTable(table(vec![])))?;
        let mut found = Found {
            table: table.into_iter().find_map(|answer| match answer {
                NfTablesMessage::NewTable(table) => Some(table.attributes),
                _ => None,
            }),
            sets: vec![],
            chains: vec![],
        };
        for (name, _) in &self.sets {
            let answers = channel.get(&on("read set", name), NfTablesMessage::GetSet(set(name)))?;
            found
                .sets
                .push(answers.into_iter().find_map(|answer| match answer {
                    NfTablesMessage::NewSet(set) => Some(set.attributes),
                    _ => None,
                }));
        }
        for Chain { name, .. } in &self.chains {
            let answers = channel.get(
                &on("read chain", name),
                NfTablesMessage::GetChain(chain(name)),
            )?;
            let attributes = answers.into_iter().find_map(|answer| match answer {
                NfTablesMessage::NewChain(chain) => Some(chain.attributes),
                _ => None,
            });
            let question = NfTablesMessage::GetRule(rule(name, vec![]));
            let rules = channel.dump(&on("read the rules of chain", name), question)?;
            let rules = rules.into_iter().filter_map(|answer| match answer {
                NfTablesMessage::NewRule(rule) => Some(expressions(rule)),
                _ => None,
            });
            found.chains.push((attributes, rules.collect()));
        }
        Ok(found)
    }
}

/// "make set egress4 of table inet crosshost"
pub(crate) fn on(deed: &str, name: &str) -> String {
    format!("{deed} {name} of table inet {TABLE}")
}

pub(crate) fn on_table(deed: &str) -> String {
    format!("{deed} table inet {TABLE}")
}

pub(crate) fn table(mut attributes: Vec<TableAttribute>) -> TableMessage {
    attributes.insert(0, TableAttribute::Name(TABLE.to_owned()));
    TableMessage { attributes }
}

pub(crate) fn set(name: &str) -> SetMessage {
    let attributes = vec![
        SetAttribute::Table(TABLE.to_owned()),
        SetAttribute::Name(name.to_owned()),
    ];
    SetMessage { attributes }
}

pub(crate) fn chain(name: &str) -> ChainMessage {
    let attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(name.to_owned()),
    ];
    ChainMessage { attributes }
}

pub(crate) fn rule(chain: &str, rest: Vec<RuleAttribute>) -> RuleMessage {
    let mut attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
    ];
    attributes.extend(rest);
    RuleMessage { attributes }
}

fn expressions(rule: RuleMessage) -> Rule {
    let found = rule
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Expressions(expressions) => Some(expressions),
            _ => None,
        });
    found.unwrap_or_default()
}
