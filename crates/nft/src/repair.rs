//! Turns the kernel's table into the wanted one with one batch.
//!
//! A complete table is left alone, which is the case for all verbs but the first: a commit is work for the kernel, and makes
//! other processes' batches stale. Any deviation has all rules written again, as no packet sees an empty chain within one
//! transaction. An object of another type is removed and made again; only then are a set's elements lost.
//!
//! A rule has to equal ours, expression by expression, as the kernel dumps it. If a future kernel dumps one more attribute,
//! every verb writes the rules again, needlessly but still atomically, and the test of `skeleton.nft` fails.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, SetAttribute, SetFlags,
    SetMessage, TableAttribute, TableFlags,
};

use crate::Status;
use crate::channel::Change;
use crate::skeleton::{
    AWAKE, Chain, Found, IFNAME_TYPE, Skeleton, chain, on_part, on_table, rule, set, table,
};

/// Tells nft that the keys are in network byte order (libnftnl: `NFTNL_UDATA_SET_KEYBYTEORDER`, `BYTEORDER_BIG_ENDIAN`).
const BYTE_ORDER: [u8; 6] = [0, 4, 2, 0, 0, 0];
/// What nft is told of keys that are interfaces' names (`BYTEORDER_HOST_ENDIAN`).
const NAME_BYTE_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];
/// The same of what a map gives (`NFTNL_UDATA_SET_DATABYTEORDER`).
const DATA_BYTE_ORDER: [u8; 6] = [1, 4, 2, 0, 0, 0];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Absent,
    Same,
    Strange,
}

impl Fit {
    /// The same object where it is not wanted.
    fn if_there(self) -> Self {
        match self {
            Self::Absent => Self::Absent,
            Self::Same | Self::Strange => Self::Strange,
        }
    }
}

/// The kernel adds attributes (handle, use count): all wanted ones have to be there, others are ignored.
fn fit<T: PartialEq>(wanted: &[T], found: Option<&Vec<T>>) -> Fit {
    match found {
        None => Fit::Absent,
        Some(found) if wanted.iter().all(|attribute| found.contains(attribute)) => Fit::Same,
        Some(_) => Fit::Strange,
    }
}

fn is_asleep(table: &[TableAttribute]) -> bool {
    table.iter().any(|attribute| match attribute {
        TableAttribute::Flags(flags) => flags.contains(TableFlags::Dormant),
        _ => false,
    })
}

/// Makes the table, or clears its flags.
fn make_table(name: &str) -> Change {
    Change {
        what: on_table("make", name),
        flags: NLM_F_CREATE,
        message: NfTablesMessage::NewTable(table(name, vec![AWAKE])),
    }
}

fn is_map(set: &[SetAttribute]) -> bool {
    let mut flags = set.iter().filter_map(|attribute| match attribute {
        SetAttribute::Flags(flags) => Some(flags),
        _ => None,
    });
    flags.any(|flags| flags.contains(SetFlags::Map))
}

/// Whether the set has words for nft of its own.
fn says_types(set: &[SetAttribute]) -> bool {
    set.iter()
        .any(|attribute| matches!(attribute, SetAttribute::UserData(_)))
}

/// The wanted and the present objects; `sets` and `chains` are in the skeleton's order.
pub(crate) struct Comparison<'a> {
    wanted: &'a Skeleton,
    table: Fit,
    is_asleep: bool,
    sets: Vec<Fit>,
    chains: Vec<Fit>,
    rules_fit: bool,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(wanted: &'a Skeleton, found: &Found) -> Self {
        let sets = wanted.sets.iter().zip(&found.sets);
        let chains = || wanted.chains.iter().zip(&found.chains);
        Self {
            wanted,
            table: fit(&[AWAKE], found.table.as_ref()),
            is_asleep: is_asleep(found.table.as_deref().unwrap_or_default()),
            sets: sets
                .map(|((_, wanted), found)| fit(wanted, found.as_ref()))
                .collect(),
            chains: chains()
                .map(|(wanted, (found, _))| fit(&wanted.attributes, found.as_ref()))
                .collect(),
            rules_fit: chains().all(|(wanted, (_, found))| {
                wanted.rules.as_ref().is_none_or(|wanted| wanted == found)
            }),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let mut all = self.sets.iter().chain(&self.chains).chain([&self.table]);
        if self.table == Fit::Absent {
            Status::Missing
        } else if self.rules_fit && all.all(|fit| *fit == Fit::Same) {
            Status::Complete
        } else {
            Status::Damaged
        }
    }

    /// Whether this set is made anew, without elements.
    pub(crate) fn makes_set(&self, name: &str) -> bool {
        let mut sets = self.wanted.sets.iter().zip(&self.sets);
        sets.any(|((wanted, _), fit)| *wanted == name && *fit != Fit::Same)
    }

    /// Whether the table is dormant, so that no packet meets its chains. The kernel wakes it up only in a transaction that
    /// makes no chain.
    pub(crate) fn is_asleep(&self) -> bool {
        self.is_asleep
    }

    /// The changes that complete the table, or wake it up; empty if it is complete.
    pub(crate) fn repairs(&self) -> Vec<Change> {
        let mut changes = vec![];
        if self.is_asleep {
            changes.push(make_table(self.wanted.table));
        } else if self.status() != Status::Complete {
            self.clear(&mut changes);
            self.build(&mut changes);
        }
        changes
    }

    /// The changes that remove all of it; elements go with their sets.
    pub(crate) fn removals(&self) -> Vec<Change> {
        let mut changes = vec![];
        let all = Self {
            wanted: self.wanted,
            table: self.table,
            is_asleep: self.is_asleep,
            sets: self.sets.iter().map(|fit| fit.if_there()).collect(),
            chains: self.chains.iter().map(|fit| fit.if_there()).collect(),
            rules_fit: false,
        };
        all.clear(&mut changes);
        changes
    }

    /// Rules first, as they refer to sets, and chains to each other.
    fn clear(&self, changes: &mut Vec<Change>) {
        let table = self.wanted.table;
        let on = |deed, name| on_part(deed, name, table);
        let mut push = |what, message| {
            let flags = 0;
            changes.push(Change {
                what,
                flags,
                message,
            });
        };
        let chains = || self.wanted.chains.iter().zip(&self.chains);
        let is_ours = |wanted: &Chain, fit: Fit| match fit {
            Fit::Absent => false,
            Fit::Same => wanted.rules.is_some(),
            Fit::Strange => true,
        };
        for (wanted, _) in chains().filter(|(wanted, fit)| is_ours(wanted, **fit)) {
            let message = NfTablesMessage::DeleteRule(rule(table, wanted.name, vec![]));
            push(on("empty chain", wanted.name), message);
        }
        for (wanted, _) in chains().filter(|(_, fit)| **fit == Fit::Strange) {
            let message = NfTablesMessage::DeleteChain(chain(table, wanted.name));
            push(on("remove chain", wanted.name), message);
        }
        let sets = self.wanted.sets.iter().zip(&self.sets);
        for ((name, _), _) in sets.filter(|(_, fit)| **fit == Fit::Strange) {
            push(
                on("remove set", name),
                NfTablesMessage::DeleteSet(set(table, name)),
            );
        }
    }

    /// Sets first, as rules refer to them.
    fn build(&self, changes: &mut Vec<Change>) {
        let table = self.wanted.table;
        let on = |deed, name| on_part(deed, name, table);
        changes.push(make_table(table));
        let mut push = |what, flags, message| {
            let flags = NLM_F_CREATE | flags;
            changes.push(Change {
                what,
                flags,
                message,
            });
        };
        let sets = (1..).zip(self.wanted.sets.iter().zip(&self.sets));
        for (id, ((name, wanted), _)) in sets.filter(|(_, (_, fit))| **fit != Fit::Same) {
            let mut attributes = vec![SetAttribute::Table(table.to_owned())];
            attributes.extend(wanted.clone());
            attributes.push(SetAttribute::Id(id)); // within this batch; the kernel insists on one
            if !says_types(wanted) {
                let is_name = wanted.contains(&SetAttribute::KeyType(IFNAME_TYPE));
                let order = if is_name { NAME_BYTE_ORDER } else { BYTE_ORDER };
                let mut order = order.to_vec();
                if is_map(wanted) {
                    order.extend(DATA_BYTE_ORDER);
                }
                attributes.push(SetAttribute::UserData(order));
            }
            push(
                on("make set", name),
                0,
                NfTablesMessage::NewSet(SetMessage { attributes }),
            );
        }
        let chains = self.wanted.chains.iter().zip(&self.chains);
        for (wanted, _) in chains.filter(|(_, fit)| **fit != Fit::Same) {
            let mut attributes = vec![ChainAttribute::Table(table.to_owned())];
            attributes.extend(wanted.attributes.clone());
            let message = ChainMessage { attributes };
            push(
                on("make chain", wanted.name),
                0,
                NfTablesMessage::NewChain(message),
            );
        }
        for wanted in &self.wanted.chains {
            for expressions in wanted.rules.iter().flatten() {
                let expressions = RuleAttribute::Expressions(expressions.clone());
                let message = NfTablesMessage::NewRule(rule(table, wanted.name, vec![expressions]));
                push(
                    on("make a rule of chain", wanted.name),
                    NLM_F_APPEND,
                    message,
                );
            }
        }
    }
}
