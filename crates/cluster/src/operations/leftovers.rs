//! Leftovers: keys of a network that has no record. A network's record is written before everything else of the network and
//! deleted before it. So keys without a record were left by a removal that was killed, or by a version that used another order,
//! and can be deleted. Each deletion depends on the record's absence. A lease of a running container is not a leftover: the
//! store lost the record, and the container's host restores it.

use std::collections::{BTreeMap, BTreeSet};

use store::{Entry, Key, Op};

use crate::{
    ATTEMPTS, CHUNK, Cluster, Error, Lease, Node,
    records::{SubnetsRecord, VniRecord, decode},
};

/// What is left of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// The keys.
    pub keys: Vec<String>,
    /// The nodes that may have containers on it.
    pub nodes: BTreeSet<String>,
}

impl Cluster<'_> {
    /// Removes everything that is left of a network of this name without a record. Returns the number of keys. Does nothing if
    /// there is a record. `is_void` says which leases certainly have no container.
    ///
    /// Fails with [`Error::Forgotten`], and removes nothing, if a container may be running.
    pub async fn sweep(
        &self,
        name: &str,
        is_void: &dyn Fn(&Lease) -> bool,
    ) -> Result<usize, Error> {
        let own = self.layout.network(name)?;
        let mut swept = 0;
        for _ in 0..ATTEMPTS {
            let mut keys = self.leftover_keys(name)?.to_vec();
            keys.extend([own.clone(), self.layout.nodes()?]);
            let entries = self.store.read(&keys).await?;
            if entries.iter().any(|entry| entry.key == own) {
                return Ok(swept);
            }
            let leftovers = self.leftovers_of(name, &entries, is_void)?;
            if leftovers.is_empty() {
                return Ok(swept);
            }
            if self.remove_leftovers(&own, &leftovers).await? {
                swept += leftovers.len();
            }
        }
        Err(Error::Contended(own.as_str().to_owned()))
    }

    /// The leftovers of all networks, by name. Reads all blocks and leases.
    pub async fn leftovers(&self) -> Result<BTreeMap<String, Leftovers>, Error> {
        let prefixes = [
            self.layout.all_blocks()?,
            self.layout.all_leases()?,
            self.layout.all_ledgers()?,
            self.layout.all_acks()?,
        ];
        let mut names = BTreeSet::new();
        for prefix in &prefixes {
            names.extend(self.store.children(prefix).await?);
        }
        // A record that cannot be read names no network, and stays.
        let (vnis, all) = (self.layout.vnis()?, self.layout.subnets()?);
        for entry in self.store.read(&[vnis.clone(), all.clone()]).await? {
            if entry.key == all {
                let record = decode::<SubnetsRecord>(&entry);
                names.extend(
                    record
                        .into_iter()
                        .flat_map(|it| it.record.networks.into_keys()),
                );
            } else {
                names.extend(decode::<VniRecord>(&entry).map(|vni| vni.record.network));
            }
        }
        // No network can have such a name: `faults` reports it, and it stays.
        names.retain(|name| self.layout.can_name(name));
        // Read last, so that a network that was created meanwhile is among them.
        for present in self.store.children(&self.layout.networks()?).await? {
            names.remove(&present);
        }
        let mut found = BTreeMap::new();
        for name in names {
            let mut keys = self.leftover_keys(&name)?.to_vec();
            keys.push(self.layout.nodes()?);
            let entries = self.store.read(&keys).await?;
            let (leftovers, nodes) = match self.leftovers_of(&name, &entries, &|_| false) {
                Ok(leftovers) => (leftovers, BTreeSet::new()),
                Err(Error::Forgotten { nodes, .. }) => (Vec::new(), nodes.into_iter().collect()),
                Err(error) => return Err(error),
            };
            let keys = leftovers.iter().map(|op| op.key().to_string()).collect();
            found.insert(name, Leftovers { keys, nodes });
        }
        Ok(found)
    }

    /// The keys below which records of a network can be, apart from its own.
    pub(crate) fn leftover_keys(&self, name: &str) -> Result<[Key; 6], Error> {
        Ok([
            self.layout.blocks(name)?,
            self.layout.leases(name)?,
            self.layout.ledgers(name)?,
            self.layout.acks(name)?,
            self.layout.vnis()?,
            self.layout.subnets()?,
        ])
    }

    /// The writes that remove what is left of `name`. `entries` are those of [`Self::leftover_keys`] and of all nodes.
    pub(crate) fn leftovers_of(
        &self,
        name: &str,
        entries: &[Entry],
        is_void: &dyn Fn(&Lease) -> bool,
    ) -> Result<Vec<Op>, Error> {
        let [blocks, leases, ledgers, acks, vnis, all] = self.leftover_keys(name)?;
        let nodes = self.layout.nodes()?;
        // A node whose record cannot be read counts as alive.
        let boot = |entry: &Entry| decode::<Node>(entry).ok().map(|node| node.record.boot_id);
        let boots = entries.iter().filter(|entry| entry.key.is_within(&nodes));
        let boots: BTreeMap<_, _> = boots.map(|entry| (entry.key.last(), boot(entry))).collect();
        let mut running = BTreeSet::new();
        let mut ops = Vec::new();
        for entry in entries {
            let delete = Op::Delete {
                key: entry.key.clone(),
                revision: entry.revision,
            };
            if entry.key.is_within(&leases) {
                let Ok(lease) = decode::<Lease>(entry) else {
                    running.insert(format!(
                        "an unknown node (record {} cannot be read)",
                        entry.key
                    ));
                    continue;
                };
                if is_void(&lease.record) {
                    ops.push(delete);
                    continue;
                }
                let Lease { node, boot_id, .. } = lease.record;
                let lives = |boot: &Option<String>| boot.as_ref().is_none_or(|it| *it == boot_id);
                if boots.get(node.as_str()).is_some_and(lives) {
                    running.insert(node);
                }
                ops.push(delete);
            } else if [&blocks, &ledgers, &acks]
                .iter()
                .any(|it| entry.key.is_within(it))
                || (entry.key.is_within(&vnis)
                    && decode::<VniRecord>(entry).is_ok_and(|vni| vni.record.network == name))
            {
                ops.push(delete);
            } else if entry.key == all
                && decode::<SubnetsRecord>(entry)
                    .is_ok_and(|subnets| subnets.record.networks.contains_key(name))
            {
                let (swap, _) = self.swap_subnets(Some(entry), |record| {
                    record.networks.remove(name);
                    Ok(())
                })?;
                ops.push(swap);
            }
        }
        if running.is_empty() {
            return Ok(ops);
        }
        Err(Error::Forgotten {
            name: name.to_owned(),
            nodes: running.into_iter().collect(),
        })
    }

    /// Removes leftovers while the record `own` does not exist. Returns whether all were removed.
    pub(crate) async fn remove_leftovers(
        &self,
        own: &Key,
        leftovers: &[Op],
    ) -> Result<bool, Error> {
        for chunk in leftovers.chunks(CHUNK - 1) {
            let mut ops = vec![absent(own)];
            ops.extend_from_slice(chunk);
            if self.done(&ops).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The condition that a key does not exist: no key has revision 0.
pub(crate) fn absent(key: &Key) -> Op {
    Op::Delete {
        key: key.clone(),
        revision: 0,
    }
}
