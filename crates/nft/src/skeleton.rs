//! Our table as data: the same attributes make an object and compare it with the kernel's. `skeleton.nft` is the same in
//! nft's language. The part for published ports is in `ports/skeleton.rs`; `repair` works on either.

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, SetAttribute, SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
};

use crate::channel::Channel;
use crate::error::Error;
use crate::expr::{NF_ACCEPT, PORT_BYTES, Rule, expressions};
use crate::family::{Family, IPV4, IPV6};
use crate::nonmembers::{self, drop_nonmembers};
use crate::rules::{
    admit_peers, admit_tunnels, by_containers, drop_forged, drop_forwarded, drop_of_users,
    drop_strangers, from_containers, masquerade, masquerade_apart, to_containers, to_tunnels,
    untracked,
};
use crate::segments::{self, drop_misdirected};

/// The name of our tables.
pub const TABLE: &str = "crosshost";
/// Sets of versions up to commit 505b5ca. No rule uses them any more; they go with the table.
const EARLIER: [&str; 2] = ["vteps4", "vteps6"];
/// The set of pairs of our links between which packets may be forwarded.
pub(crate) const TOGETHER: &str = "together";
/// The set of UDP ports of tunnels that send from any port.
pub(crate) const ANY_SOURCE_PORT: &str = "any-source-port";
/// The chain of what goes to other hosts' tunnels.
pub(crate) const TO_TUNNELS: &str = "to-tunnels";
/// The chain of what comes from containers.
pub(crate) const FROM_CONTAINERS: &str = "from-containers";
/// nft's `srcnat` of the inet family.
pub(crate) const SRCNAT: i32 = 100;
/// nft's `raw`: before connection tracking.
pub(crate) const RAW: i32 = -300;
/// Before the chains that versions up to 1.0.0 have as well: these compare them as they know them.
const BEFORE_RAW: i32 = RAW - 1;
/// Before the chains of this table, and of others, that translate: the first translation of a connection holds.
const BEFORE_DSTNAT: i32 = -101;
const BEFORE_SRCNAT: i32 = SRCNAT - 1;
/// nft's `filter`.
const FILTER: i32 = 0;
/// nft's number of the data type of a port, and the bits by which it concatenates type numbers.
pub(crate) const PORT_TYPE: u32 = 13;
pub(crate) const TYPE_BITS: u32 = 6;
/// The same of an interface's name, and the bytes of that.
pub(crate) const IFNAME_TYPE: u32 = 41;
pub(crate) const IFNAME: u32 = 16;
/// In a concatenation each part fills whole words.
pub(crate) const WORD: u32 = 4;
/// No flags, above all not `dormant`.
pub(crate) const AWAKE: TableAttribute = TableAttribute::Flags(TableFlags::empty());

/// All objects of a table; later ones may refer to earlier ones.
pub(crate) struct Skeleton {
    pub(crate) table: &'static str,
    pub(crate) sets: Vec<(&'static str, Vec<SetAttribute>)>,
    pub(crate) chains: Vec<Chain>,
}

pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) attributes: Vec<ChainAttribute>,
    /// `None` if rules are added and removed individually.
    pub(crate) rules: Option<Vec<Rule>>,
}

/// The kernel's objects, in the same order.
pub(crate) struct Found {
    pub(crate) table: Option<Vec<TableAttribute>>,
    pub(crate) sets: Vec<Option<Vec<SetAttribute>>>,
    pub(crate) chains: Vec<(Option<Vec<ChainAttribute>>, Vec<Rule>)>,
}

impl Skeleton {
    /// `bridge` is the egress bridge, `links` how the names of a host's links to segments begin, of gateways first; at most 15 bytes each.
    pub(crate) fn new(bridge: &str, links: &[&str]) -> Self {
        let families = [&IPV4, &IPV6];
        let each = |rule: fn(&Family) -> Rule| families.map(rule).into_iter();
        let egress = families.map(|family| {
            let (key, bytes) = (family.key_type, family.key_bytes.into());
            of_keys(family.egress, key, bytes, SetFlags::Interval)
        });
        let sockets = |name: fn(&Family) -> &'static str| {
            families.map(|family| {
                let key = family.key_type << TYPE_BITS | PORT_TYPE;
                let bytes = u32::from(family.key_bytes) + WORD;
                of_keys(name(family), key, bytes, SetFlags::empty())
            })
        };
        let tunnels = sockets(|family| family.tunnels);
        let all_tunnels = sockets(|family| family.all_tunnels);
        let peers = families.map(|family| {
            let two = family.key_type << TYPE_BITS | family.key_type;
            let key = two << TYPE_BITS | PORT_TYPE;
            let bytes = 2 * u32::from(family.key_bytes) + WORD;
            of_keys(family.peers, key, bytes, SetFlags::empty())
        });
        // nft gives a key of one part its own length.
        let any = of_keys(ANY_SOURCE_PORT, PORT_TYPE, PORT_BYTES, SetFlags::empty());
        let pair = IFNAME_TYPE << TYPE_BITS | IFNAME_TYPE;
        let together = of_keys(TOGETHER, pair, 2 * IFNAME, SetFlags::empty());
        let nonmembers = families.map(nonmembers::set);
        let hides = families.map(|family| masquerade(family, bridge));
        Self {
            table: TABLE,
            sets: [egress, tunnels, peers, all_tunnels, nonmembers]
                .into_iter()
                .flatten()
                .chain([any, together, segments::set()])
                .collect(),
            chains: vec![
                Chain::new(
                    ("prerouting", "filter", InetHookNumber::PreRouting, RAW),
                    each(admit_peers).chain(each(drop_strangers)).collect(),
                ),
                Chain::new(
                    ("output", "filter", InetHookNumber::LocalOut, RAW),
                    each(untracked).collect(),
                ),
                Chain::new(
                    ("postrouting", "nat", InetHookNumber::PostRouting, SRCNAT),
                    hides.into(),
                ),
                Chain::called(TO_TUNNELS, Some(vec![drop_of_users()])),
                Chain::called(FROM_CONTAINERS, Some(from_containers(bridge, links))),
                Chain::new(
                    ("arriving", "filter", InetHookNumber::PreRouting, BEFORE_RAW),
                    by_containers(bridge, links)
                        .into_iter()
                        .chain(each(drop_nonmembers))
                        .collect(),
                ),
                Chain::new(
                    ("input", "filter", InetHookNumber::LocalIn, FILTER),
                    each(admit_tunnels).chain([drop_misdirected()]).collect(),
                ),
                Chain::new(
                    ("programs", "filter", InetHookNumber::LocalOut, BEFORE_RAW),
                    each(to_tunnels).collect(),
                ),
                Chain::new(
                    ("forward", "filter", InetHookNumber::Forward, FILTER),
                    each(drop_forwarded)
                        .chain(to_containers(bridge, links))
                        .collect(),
                ),
                Chain::new(
                    ("forged", "nat", InetHookNumber::PreRouting, BEFORE_DSTNAT),
                    drop_forged(bridge, links),
                ),
                Chain::new(
                    (
                        "client-ports",
                        "nat",
                        InetHookNumber::PostRouting,
                        BEFORE_SRCNAT,
                    ),
                    masquerade_apart(bridge, links.get(..1).unwrap_or_default()),
                ),
            ],
        }
    }

    /// Whether the table has no other sets and chains.
    pub(crate) fn is_all_of_the_table(&self, channel: &mut Channel) -> Result<bool, Error> {
        let is_ours = |set: &Vec<SetAttribute>| {
            let names = self.sets.iter().map(|(name, _)| *name).chain(EARLIER);
            let mut names = names.map(|name| SetAttribute::Name(name.to_owned()));
            names.any(|name| set.contains(&name))
        };
        if !sets(self.table, channel)?.iter().all(is_ours) {
            return Ok(false);
        }
        let attributes = vec![ChainAttribute::Table(self.table.to_owned())];
        let question = NfTablesMessage::GetChain(ChainMessage { attributes });
        let chains = channel.dump(&on_table("list the chains of", self.table), question)?;
        // The kernel lists the chains of all tables.
        Ok(chains.into_iter().all(|answer| match answer {
            NfTablesMessage::NewChain(chain) => {
                let table = ChainAttribute::Table(self.table.to_owned());
                !chain.attributes.contains(&table)
                    || self.chains.iter().any(|known| {
                        let name = ChainAttribute::Name(known.name.to_owned());
                        chain.attributes.contains(&name)
                    })
            }
            _ => true,
        }))
    }

    /// Reads the kernel's objects. They are consistent only if the generation is the same before and after.
    pub(crate) fn find(&self, channel: &mut Channel) -> Result<Found, Error> {
        let name = self.table;
        let question = NfTablesMessage::GetTable(table(name, vec![]));
        let table = channel.get(&on_table("read", name), question)?;
        let table = table.into_iter().find_map(|answer| match answer {
            NfTablesMessage::NewTable(table) => Some(table.attributes),
            _ => None,
        });
        let mut sets = sets(self.table, channel)?;
        let sets = self.sets.iter().map(|(name, _)| {
            let name = SetAttribute::Name((*name).to_owned());
            let found = sets.iter_mut().find(|set| set.contains(&name));
            found.map(std::mem::take)
        });
        let sets = sets.collect();
        let mut rules = rules(self.table, channel)?;
        let mut chains = vec![];
        for Chain { name, .. } in &self.chains {
            let question = NfTablesMessage::GetChain(chain(self.table, name));
            let answers = channel.get(&on("read chain", name), question)?;
            let attributes = answers.into_iter().find_map(|answer| match answer {
                NfTablesMessage::NewChain(chain) => Some(chain.attributes),
                _ => None,
            });
            let name = RuleAttribute::Chain((*name).to_owned());
            let is_of = |rule: &mut RuleMessage| rule.attributes.contains(&name);
            let rules = rules.extract_if(.., is_of).map(expressions);
            chains.push((attributes, rules.collect()));
        }
        Ok(Found {
            table,
            sets,
            chains,
        })
    }
}

/// The sets of a table.
fn sets(table: &str, channel: &mut Channel) -> Result<Vec<Vec<SetAttribute>>, Error> {
    let attributes = vec![SetAttribute::Table(table.to_owned())];
    let question = NfTablesMessage::GetSet(SetMessage { attributes });
    let answers = channel.dump(&on_table("list the sets of", table), question)?;
    let sets = answers.into_iter().filter_map(|answer| match answer {
        NfTablesMessage::NewSet(set) => Some(set.attributes),
        _ => None,
    });
    Ok(sets.collect())
}

/// The rules of a table, in each chain's order.
fn rules(table: &str, channel: &mut Channel) -> Result<Vec<RuleMessage>, Error> {
    let attributes = vec![RuleAttribute::Table(table.to_owned())];
    let question = NfTablesMessage::GetRule(RuleMessage { attributes });
    let answers = channel.dump(&on_table("read the rules of", table), question)?;
    let rules = answers.into_iter().filter_map(|answer| match answer {
        NfTablesMessage::NewRule(rule) => Some(rule),
        _ => None,
    });
    Ok(rules.collect())
}

impl Chain {
    /// A base chain with policy accept, from its name, type, hook and priority.
    pub(crate) fn new(
        (name, kind, hook, priority): (&'static str, &str, InetHookNumber, i32),
        rules: Vec<Rule>,
    ) -> Self {
        let attributes = vec![
            ChainAttribute::Name(name.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(hook.into()),
                Hook::Priority(priority.cast_unsigned()),
            ]),
            ChainAttribute::Policy(NF_ACCEPT),
            ChainAttribute::Type(kind.to_owned()),
        ];
        Self {
            name,
            attributes,
            rules: Some(rules),
        }
    }

    /// A chain to which others jump.
    pub(crate) fn called(name: &'static str, rules: Option<Vec<Rule>>) -> Self {
        let attributes = vec![ChainAttribute::Name(name.to_owned())];
        Self {
            name,
            attributes,
            rules,
        }
    }
}

/// A set with the type and the length in bytes of its keys.
pub(crate) fn of_keys(
    name: &'static str,
    key: u32,
    bytes: u32,
    flags: SetFlags,
) -> (&'static str, Vec<SetAttribute>) {
    let mut attributes = vec![
        SetAttribute::Name(name.to_owned()),
        SetAttribute::KeyType(key),
        SetAttribute::KeyLen(bytes),
    ];
    // The kernel dumps no flags if there are none.
    if !flags.is_empty() {
        attributes.push(SetAttribute::Flags(flags));
    }
    (name, attributes)
}

/// "make set egress4 of table crosshost"
pub(crate) fn on(deed: &str, name: &str) -> String {
    on_part(deed, name, TABLE)
}

pub(crate) fn on_part(deed: &str, name: &str, table: &str) -> String {
    format!("{deed} {name} of table {table}")
}

pub(crate) fn on_table(deed: &str, table: &str) -> String {
    format!("{deed} table {table}")
}

pub(crate) fn table(name: &str, mut attributes: Vec<TableAttribute>) -> TableMessage {
    attributes.insert(0, TableAttribute::Name(name.to_owned()));
    TableMessage { attributes }
}

pub(crate) fn set(table: &str, name: &str) -> SetMessage {
    let attributes = vec![
        SetAttribute::Table(table.to_owned()),
        SetAttribute::Name(name.to_owned()),
    ];
    SetMessage { attributes }
}

pub(crate) fn chain(table: &str, name: &str) -> ChainMessage {
    let attributes = vec![
        ChainAttribute::Table(table.to_owned()),
        ChainAttribute::Name(name.to_owned()),
    ];
    ChainMessage { attributes }
}

pub(crate) fn rule(table: &str, chain: &str, rest: Vec<RuleAttribute>) -> RuleMessage {
    let mut attributes = vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
    ];
    attributes.extend(rest);
    RuleMessage { attributes }
}
