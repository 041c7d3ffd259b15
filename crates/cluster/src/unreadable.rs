//! The keys below our prefix that this version cannot use: their records cannot be read, or no record of ours has such a name. For an
//! operator.

use std::collections::BTreeSet;

use store::{Entry, Key};

use crate::{
    Acknowledgement, Cluster, Error, LedgerRecord, Node, Stored, Unreadable, no_tunnel_address,
    records::{RemovedRecord, SubnetsRecord, VniRecord, read},
    stored::{BlockEntry, block, lease, name_below, network, node, spelled},
};

/// A key below our prefix that this version cannot use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnusableKey {
    /// The key.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
    /// Whether that is because a newer version wrote it.
    pub is_newer: bool,
    /// Whether it is the beginning of keys, of which there may be more than one.
    pub is_folder: bool,
}

/// What is wrong with a key, and whether that is because a newer version wrote it.
type Why = (String, bool);

impl Cluster<'_> {
    /// All keys below our prefix that this version cannot use: those that count as taken, and those that it ignores because no record
    /// has such a name. Reads everything.
    pub async fn unusable_keys(&self) -> Result<Vec<UnusableKey>, Error> {
        let layout = &self.layout;
        let (nodes, networks) = (layout.nodes()?, layout.networks()?);
        let (vnis, subnets, removed) = (layout.vnis()?, layout.subnets()?, layout.all_removed()?);
        let below_networks = [
            layout.all_blocks()?,
            layout.all_leases()?,
            layout.all_ledgers()?,
            layout.all_acks()?,
        ];
        let known = self.networks().await?;
        let mut unusable = BTreeSet::new();
        let mut add = |entry: &Entry, why: Option<Why>| {
            unusable.extend(why.map(|(why, is_newer)| UnusableKey {
                key: entry.key.as_str().to_owned(),
                why,
                is_newer,
                is_folder: false,
            }));
        };
        let tops = [
            nodes.clone(),
            networks.clone(),
            vnis.clone(),
            removed.clone(),
            subnets,
        ];
        for entry in &self.store.read(&tops).await? {
            let why = if entry.key.is_within(&nodes) {
                match node(entry, &nodes) {
                    None => Some(stray()),
                    Some((_, Stored::Unreadable(unreadable))) => Some(unreadable.why()),
                    // As it is written, not as it is used.
                    Some(_) => read::<Node>(&entry.value).ok().and_then(|node| {
                        let vtep = node.vtep?;
                        Some((format!("vtep {vtep}: {}", no_tunnel_address(vtep)?), false))
                    }),
                }
            } else if entry.key.is_within(&networks) {
                of_named(network(entry, &networks))
            } else if entry.key.is_within(&vnis) {
                match name_below(entry, &vnis).and_then(spelled::<u32>) {
                    None => Some(stray()),
                    Some(_) => match Stored::<VniRecord>::of(entry) {
                        Stored::Unreadable(unreadable) => Some(unreadable.why()),
                        Stored::Readable(vni) => self.no_name([&vni.record.network]),
                    },
                }
            } else if entry.key.is_within(&removed) {
                let name = name_below(entry, &removed);
                of_named(name.map(|name| (name, Stored::<RemovedRecord>::of(entry))))
            } else {
                match Stored::<SubnetsRecord>::of(entry) {
                    Stored::Unreadable(unreadable) => Some(unreadable.why()),
                    Stored::Readable(all) => self.no_name(all.record.networks.keys()),
                }
            };
            add(entry, why);
        }
        for (at, prefix) in below_networks.iter().enumerate() {
            for entry in &self.store.read(std::slice::from_ref(prefix)).await? {
                let Some((parent, _)) = entry.key.as_str().rsplit_once('/') else {
                    continue;
                };
                let of = (parent.strip_prefix(prefix.as_str()))
                    .and_then(|rest| rest.strip_prefix('/'))
                    .filter(|name| !name.contains('/'));
                let (Some(of), Ok(parent)) = (of, Key::new(parent)) else {
                    add(entry, Some(stray()));
                    continue;
                };
                let of = known.known(of).map(|network| &network.record);
                let why = match at {
                    0 => match block(entry, &parent, of) {
                        None => Some(stray()),
                        Some(BlockEntry::Block(_, stored)) => stored.why(),
                        Some(BlockEntry::Mac(_, stored)) => stored.why(),
                    },
                    1 => of_named(lease(entry, &parent)),
                    2 => Stored::<LedgerRecord>::of(entry).why(),
                    _ => Stored::<Acknowledgement>::of(entry).why(),
                };
                add(entry, why);
            }
        }
        let tops = [nodes, networks, vnis, removed];
        for prefix in tops.iter().chain(&below_networks) {
            unusable.extend(self.odd_names(prefix).await?);
        }
        Ok(unusable.into_iter().collect())
    }

    /// What is below `prefix` with a name that no record can have: no read returns it.
    async fn odd_names(&self, prefix: &Key) -> Result<Vec<UnusableKey>, Error> {
        let mut names = self.store.children(prefix).await?;
        names.retain(|name| !self.layout.can_name(name));
        let unusable = |name| UnusableKey {
            key: format!("{prefix}/{name}"),
            why: stray().0,
            is_newer: false,
            is_folder: true,
        };
        Ok(names.into_iter().map(unusable).collect())
    }

    /// What is wrong with a record that names these networks, if no network can have one of the names.
    fn no_name<'n>(&self, names: impl IntoIterator<Item = &'n String>) -> Option<Why> {
        let mut names = names.into_iter();
        let odd = names.find(|name| !self.layout.can_name(name))?;
        let why = format!("names network {odd:?}, and none can be called so; it is overlooked");
        Some((why, false))
    }
}

/// What is wrong with a record that was found under a name, or with a key without such a name.
fn of_named<N, T>(found: Option<(N, Stored<T>)>) -> Option<Why> {
    found.map_or_else(|| Some(stray()), |(_, stored)| stored.why())
}

/// No record of ours has such a key.
fn stray() -> Why {
    let why = "nothing of this network or cluster is called so; it is overlooked";
    (why.to_owned(), false)
}

impl<T> Stored<T> {
    fn why(&self) -> Option<Why> {
        match self {
            Self::Readable(_) => None,
            Self::Unreadable(unreadable) => Some(unreadable.why()),
        }
    }
}

impl<T> Unreadable<T> {
    fn why(&self) -> Why {
        (self.why.clone(), self.is_newer)
    }
}
