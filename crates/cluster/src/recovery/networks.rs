//! Writes a network and its blocks again after the store has lost them.
//!
//! Blocks are never deleted while their network exists. So the store has lost a block that a host remembers and the store does not
//! have, whoever owns it. It has lost changes of a block that it has with fewer changes than the host remembers, and it has lost a network
//! on which the host has containers. The host writes all of that again before it does anything else. Where the store has as many
//! changes or more, the store is right.
//!
//! Nobody restores a network that an operator has removed: `removed/` has its id, and the transaction that writes a network's record
//! again depends on what was read there. During a removal and after it the network's record has changed, and each write of a block
//! depends on that record.
//!
//! First the network's record is written, with its VNI and its subnets, in a state in which nobody may use it
//! ([`Network::restoring`]). Then its blocks are written, then it is opened. So nobody takes its VNI, subnets or blocks
//! meanwhile, and keys without a network's record are not a restore at work.
//!
//! The store's revisions cannot be compared: a store that replaces another one counts from somewhere else.

use std::collections::BTreeSet;

use store::{Entry, Key, Op};

use crate::{
    ATTEMPTS, BlockRecord, CHUNK, Cluster, Error, Network, NetworkSnapshot, NetworkSpec,
    NetworkState, Node, Restoring, Stored, Versioned,
    operations::leftovers::absent,
    records::{RemovedRecord, SubnetsRecord, VniRecord, decode, encode, subnets},
};

impl Cluster<'_> {
    /// Writes again what `node` has in `memory` and the store has lost; returns whether there was anything. `snapshot` is the store's,
    /// and is read again after each write. The network itself is written again only if the node `holds` addresses of it.
    pub async fn restore(
        &self,
        name: &str,
        memory: &NetworkSnapshot,
        snapshot: &mut NetworkSnapshot,
        node: &Node,
        holds: bool,
    ) -> Result<bool, Error> {
        let Some(remembered) = &memory.network else {
            return Ok(false);
        };
        let mut restored = false;
        for _ in 0..ATTEMPTS {
            let Some(present) = snapshot.network.clone() else {
                if !holds || !self.announce(&remembered.record, node).await? {
                    return Ok(restored);
                }
                restored = true;
                *snapshot = self.snapshot(name).await?;
                continue;
            };
            if !present.record.is_same(&remembered.record) || present.record.is_being_removed() {
                return Ok(restored);
            }
            let own = self.layout.network(name)?;
            let mut ops = Vec::new();
            for (block, known) in memory.blocks.readable() {
                let key = self.layout.block(name, *block)?;
                let value = encode(&known.record.unpinned())?;
                match snapshot.blocks.get(block) {
                    None => ops.push(Op::Create { key, value }),
                    Some(Stored::Readable(present)) if known.record.is_newer(&present.record) => {
                        ops.push(Op::Swap {
                            key,
                            value,
                            revision: present.revision,
                        });
                    }
                    Some(_) => {}
                }
            }
            if ops.is_empty() {
                let Some(restoring) = &present.record.restoring else {
                    return Ok(restored);
                };
                let known = snapshot.nodes.get(&restoring.node);
                let is_gone = known.is_none_or(|it| {
                    // One whose record cannot be read may be alive.
                    (it.readable()).is_some_and(|it| it.record.boot_id != restoring.boot_id)
                });
                if !holds && restoring.node != node.name && !is_gone {
                    return Ok(restored);
                }
                // Nobody may take a block of ours for one that was never used.
                self.keep_ledger(name, &node.name, &node.boot_id).await?;
                self.open_restored(name, &present, snapshot, &node.name)
                    .await?;
            }
            restored = true;
            let check = Op::Check {
                key: own,
                revision: present.revision,
            };
            for chunk in ops.chunks(CHUNK - 1) {
                let ops: Vec<_> = [&check].into_iter().chain(chunk).cloned().collect();
                if self.done(&ops).await?.is_none() {
                    break;
                }
            }
            *snapshot = self.snapshot(name).await?;
        }
        Err(Error::Contended(
            self.layout.network(name)?.as_str().to_owned(),
        ))
    }

    /// Opens a network whose restore `node` began in this boot, for a host that has lost its memory of it: it has
    /// nothing more to write, and no other host ends the restore while this one is alive. Returns whether it did.
    pub async fn end_restore(
        &self,
        name: &str,
        snapshot: &NetworkSnapshot,
        node: &str,
        boot_id: &str,
    ) -> Result<bool, Error> {
        let is_ours = |it: &Restoring| it.node == node && it.boot_id == boot_id;
        match &snapshot.network {
            Some(present) if present.record.restoring.as_deref().is_some_and(is_ours) => {
                self.open_restored(name, present, snapshot, node).await
            }
            _ => Ok(false),
        }
    }

    /// Ends the restore of a network: containers may use it from now on. Writes a block as well, for the watchers.
    /// `false` if another write was quicker.
    async fn open_restored(
        &self,
        name: &str,
        present: &Versioned<Network>,
        snapshot: &NetworkSnapshot,
        node: &str,
    ) -> Result<bool, Error> {
        let record = Network {
            state: NetworkState::Ready,
            restoring: None,
            ..present.record.clone()
        };
        let mut ops = vec![Op::Swap {
            key: self.layout.network(name)?,
            value: encode(&record)?,
            revision: present.revision,
        }];
        ops.extend(self.wake(name, snapshot, node)?);
        Ok(self.done(&ops).await?.is_some())
    }

    /// Writes the record of a network that the store has lost, with its VNI and subnets, in a state in which nobody may use it;
    /// `false` if it was removed.
    async fn announce(&self, network: &Network, node: &Node) -> Result<bool, Error> {
        let name = &network.name;
        let (all, own) = (self.layout.subnets()?, self.layout.network(name)?);
        let removed = self.layout.removed(name)?;
        let vni = network.vni.map(|vni| self.layout.vni(vni)).transpose()?;
        let mut keys = vec![all.clone(), own.clone(), removed.clone()];
        keys.extend(vni.clone());
        for _ in 0..ATTEMPTS {
            let entries = self.store.read(&keys).await?;
            let find = |key: &Key| entries.iter().find(|entry| entry.key == *key);
            if find(&own).is_some() {
                return Ok(true);
            }
            let noted = find(&removed).map(Stored::<RemovedRecord>::of);
            if noted.as_ref().is_some_and(|noted| noted.may_have(network)) {
                return Ok(false);
            }
            let mut ops = vec![match noted {
                Some(noted) => Op::Check {
                    key: removed.clone(),
                    revision: noted.revision(),
                },
                None => absent(&removed),
            }];
            let spec = NetworkSpec {
                name: name.clone(),
                ranges: network.ranges.clone(),
                ..NetworkSpec::default()
            };
            let claim = |record: &mut SubnetsRecord| {
                crate::operations::networks::refuse_overlap(&spec, record)?;
                record
                    .networks
                    .insert(name.clone(), subnets(&network.ranges));
                Ok(())
            };
            // Nobody creates a network while the subnets cannot be read, and the next creation reads the networks beside them.
            if !crate::operations::networks::is_unreadable(find(&all)) {
                ops.push(self.swap_subnets(find(&all), claim)?.0);
            }
            let record = Network {
                state: NetworkState::Removing,
                restoring: Some(Box::new(Restoring {
                    node: node.name.clone(),
                    boot_id: node.boot_id.clone(),
                })),
                ..network.clone()
            };
            ops.push(Op::Create {
                key: own.clone(),
                value: encode(&record)?,
            });
            if let Some(key) = vni.clone() {
                match find(&key) {
                    None => ops.push(Op::Create {
                        key,
                        value: encode(&VniRecord {
                            network: name.clone(),
                        })?,
                    }),
                    Some(entry) => {
                        // If only the network's record was lost, its VNI is still its own.
                        if let Stored::Readable(taken) = Stored::<VniRecord>::of(entry)
                            && taken.record.network != *name
                        {
                            self.make_way(&taken.record.network, entry).await?;
                            continue;
                        }
                    }
                }
            }
            if self.done(&ops).await?.is_some() {
                return Ok(true);
            }
        }
        Err(Error::Contended(own.as_str().to_owned()))
    }

    /// The write of a block, one of `node`'s if it has any, that changes nothing but its revision. Watchers are told of blocks, so
    /// those that read the network before it was opened read it again.
    fn wake(
        &self,
        name: &str,
        snapshot: &NetworkSnapshot,
        node: &str,
    ) -> Result<Option<Op>, Error> {
        let own = |(_, block): &(_, &Versioned<BlockRecord>)| block.record.is_of(node);
        let mut blocks = snapshot.blocks.readable();
        let Some((block, present)) = blocks.clone().find(own).or_else(|| blocks.next()) else {
            return Ok(None);
        };
        Ok(Some(Op::Swap {
            key: self.layout.block(name, *block)?,
            value: encode(&present.record.pinned(present.revision))?,
            revision: present.revision,
        }))
    }

    /// Gives another VNI to `other`, a network that was created while this one was lost: the older network keeps the one of `vni`.
    /// One of the other's blocks is written again, so that its watchers are told: their hosts make its VXLAN device again.
    async fn make_way(&self, other: &str, vni: &Entry) -> Result<(), Error> {
        let (own, vnis) = (self.layout.network(other)?, self.layout.vnis()?);
        let networks = self.layout.networks()?;
        let keys = [networks, self.layout.blocks(other)?, vnis.clone()];
        let entries = self.store.read(&keys).await?;
        let mut ops = vec![Op::Delete {
            key: vni.key.clone(),
            revision: vni.revision,
        }];
        let Some(entry) = entries.iter().find(|entry| entry.key == own) else {
            ops.push(absent(&own));
            return self.done(&ops).await.map(drop);
        };
        let present = decode::<Network>(entry)?;
        let number = vni.key.last().parse().unwrap_or_default();
        if present.record.vni == Some(number) {
            let spec = NetworkSpec {
                in_use: BTreeSet::from([number]),
                ..NetworkSpec::default()
            };
            let another = self.free_vni(&spec, &entries)?;
            ops.push(Op::Create {
                key: self.layout.vni(another)?,
                value: encode(&VniRecord {
                    network: other.to_owned(),
                })?,
            });
            let blocks = self.layout.blocks(other)?;
            let mut blocks = entries.iter().filter(|entry| entry.key.is_within(&blocks));
            let block = blocks.find_map(|entry| Some((entry, decode::<BlockRecord>(entry).ok()?)));
            if let Some((entry, block)) = block {
                ops.push(Op::Swap {
                    key: entry.key.clone(),
                    value: encode(&block.record.pinned(block.revision))?,
                    revision: block.revision,
                });
            }
            let record = Network {
                vni: Some(another),
                ..present.record
            };
            ops.push(Op::Swap {
                key: own,
                value: encode(&record)?,
                revision: present.revision,
            });
        }
        self.done(&ops).await.map(drop)
    }
}
