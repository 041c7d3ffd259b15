//! Faults: the keys of ours that cannot be read, or are called as nothing of ours can be, for an operator.

use std::collections::BTreeSet;

use store::{Entry, Key};

use crate::{
    Acknowledgement, Cluster, Error, LedgerRecord, Node, Stored, Unreadable, no_tunnel_address,
    records::{RemovedRecord, SubnetsRecord, VniRecord, read},
    stored::{BlockEntry, block, lease, name_below, network, node, spelled},
};

/// A key of ours that this version cannot use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The key.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
    /// Whether that is because a newer version wrote it.
    pub is_newer: bool,
    /// Whether it is the beginning of keys, of which there may be more than one.
    pub is_folder: bool,
}

impl Cluster<'_> {
    /// All keys of ours that this version cannot use: what it takes for taken, and what it overlooks because no key of that name
    /// can be. Reads all that there is.
    pub async fn faults(&self) -> Result<Vec<Fault>, Error> {
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
        let mut faults = BTreeSet::new();
        let mut add = |entry: &Entry, fault: Option<(String, bool)>| {
            faults.extend(fault.map(|(why, is_newer)| Fault {
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
            let fault = if entry.key.is_within(&nodes) {
                match node(entry, &nodes) {
                    None => Some(stray()),
                    Some((_, Stored::Unreadable(unreadable))) => Some(unreadable.fault()),
                    // As it is written, not as it is used.
                    Some(_) => read::<Node>(&entry.value).ok().and_then(|node| {
                        let vtep = node.vtep?;
                        Some((format!("vtep {vtep}: {}", no_tunnel_address(vtep)?), false))
                    }),
                }
            } else if entry.key.is_within(&networks) {
                match network(entry, &networks) {
                    None => Some(stray()),
                    Some((_, stored)) => stored.fault(),
                }
            } else if entry.key.is_within(&vnis) {
                match name_below(entry, &vnis).and_then(spelled::<u32>) {
                    None => Some(stray()),
                    Some(_) => match Stored::<VniRecord>::of(entry) {
                        Stored::Unreadable(unreadable) => Some(unreadable.fault()),
                        Stored::Readable(vni) => self.no_name([&vni.record.network]),
                    },
                }
            } else if entry.key.is_within(&removed) {
                match name_below(entry, &removed) {
                    None => Some(stray()),
                    Some(_) => Stored::<RemovedRecord>::of(entry).fault(),
                }
            } else {
                match Stored::<SubnetsRecord>::of(entry) {
                    Stored::Unreadable(unreadable) => Some(unreadable.fault()),
                    Stored::Readable(all) => self.no_name(all.record.networks.keys()),
                }
            };
            add(entry, fault);
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
                let fault = match at {
                    0 => match block(entry, &parent, of) {
                        None => Some(stray()),
                        Some(BlockEntry::Block(_, stored)) => stored.fault(),
                        Some(BlockEntry::Mac(_, stored)) => stored.fault(),
                    },
                    1 => match lease(entry, &parent) {
                        None => Some(stray()),
                        Some((_, stored)) => stored.fault(),
                    },
                    2 => Stored::<LedgerRecord>::of(entry).fault(),
                    _ => Stored::<Acknowledgement>::of(entry).fault(),
                };
                add(entry, fault);
            }
        }
        let tops = [nodes, networks, vnis, removed];
        for prefix in tops.iter().chain(&below_networks) {
            faults.extend(self.odd_names(prefix).await?);
        }
        Ok(faults.into_iter().collect())
    }

    /// What is below `prefix` and called as no key of ours can be: no read has it.
    async fn odd_names(&self, prefix: &Key) -> Result<Vec<Fault>, Error> {
        let mut names = self.store.children(prefix).await?;
        names.retain(|name| !self.layout.can_name(name));
        let fault = |name| Fault {
            key: format!("{prefix}/{name}"),
            why: stray().0,
            is_newer: false,
            is_folder: true,
        };
        Ok(names.into_iter().map(fault).collect())
    }

    /// What is wrong with a record that names these networks, if none can be called like one of them.
    fn no_name<'n>(&self, names: impl IntoIterator<Item = &'n String>) -> Option<(String, bool)> {
        let mut names = names.into_iter();
        let odd = names.find(|name| !self.layout.can_name(name))?;
        let why = format!("names network {odd:?}, and none can be called so; it is overlooked");
        Some((why, false))
    }
}

/// That no key of ours is called so.
fn stray() -> (String, bool) {
    let why = "nothing of this network or cluster is called so; it is overlooked";
    (why.to_owned(), false)
}

impl<T> Stored<T> {
    fn fault(&self) -> Option<(String, bool)> {
        match self {
            Self::Readable(_) => None,
            Self::Unreadable(unreadable) => Some(unreadable.fault()),
        }
    }
}

impl<T> Unreadable<T> {
    fn fault(&self) -> (String, bool) {
        (self.why.clone(), self.is_newer)
    }
}
