//! Removals: a network when nobody is on it, a node when it will not come back.

use std::net::IpAddr;

use store::{Entry, Key, Op, Outcome};

use crate::{
    ATTEMPTS, CHUNK, Cluster, Error, Lease, Network, NetworkState, Versioned,
    leases::address_and_lease,
    records::{BlockRecord, decode, encode},
};

impl Cluster<'_> {
    /// Removes a network that has no endpoints. First no new lease can be written, then the leases are counted: so
    /// no attachment slips in between. A removal that was interrupted is taken up again, or, where there are
    /// endpoints, taken back.
    pub async fn remove_network(&self, name: &str) -> Result<(), Error> {
        let (own, all) = (self.layout.network(name)?, self.layout.subnets()?);
        let (blocks, leases) = (self.layout.blocks(name)?, self.layout.leases(name)?);
        'again: for _ in 0..ATTEMPTS {
            let entries = self.store.read(&[own.clone(), leases.clone()]).await?;
            let network = entries.iter().find(|e| e.key == own);
            let network = network.ok_or_else(|| Error::NoNetwork(name.to_owned()))?;
            let mut network = decode::<Network>(network)?;
            // Counted once before, too: a removal that must be refused leaves the revision on which hosts rely.
            let held = leases_in(&entries, &leases)?;
            if !held.is_empty() {
                if network.record.state == NetworkState::Removing {
                    self.reopen(network).await?;
                }
                return Err(in_use(name, held));
            }
            network.record.state = NetworkState::Removing;
            let Some(revision) = self
                .store
                .swap(&own, &encode(&network.record)?, network.revision)
                .await?
            else {
                continue;
            };
            network.revision = revision;
            let entries = self
                .store
                .read(&[all.clone(), blocks.clone(), leases.clone()])
                .await?;
            let held = leases_in(&entries, &leases)?;
            if !held.is_empty() {
                self.reopen(network).await?;
                return Err(in_use(name, held));
            }
            let block_ops: Vec<Op> = entries
                .iter()
                .filter(|e| e.key.is_within(&blocks))
                .map(delete)
                .collect();
            for chunk in block_ops.chunks(CHUNK - 1) {
                // Another removal may have taken ours back meanwhile.
                let check = Op::Check {
                    key: own.clone(),
                    revision,
                };
                let ops: Vec<Op> = [check].into_iter().chain(chunk.iter().cloned()).collect();
                if let Outcome::Conflict(_) = self.store.apply(&ops).await? {
                    continue 'again;
                }
            }
            let (subnets_op, _) =
                self.swap_subnets(entries.iter().find(|e| e.key == all), |record| {
                    record.networks.remove(name);
                    Ok(())
                })?;
            let mut ops = vec![
                subnets_op,
                Op::Delete {
                    key: own.clone(),
                    revision,
                },
            ];
            if let Some(vni) = network.record.vni
                && let Some(entry) = self.store.get(&self.layout.vni(vni)?).await?
            {
                ops.push(delete(&entry));
            }
            if let Outcome::Done(_) = self.store.apply(&ops).await? {
                return Ok(());
            }
        }
        Err(Error::Contended(own.as_str().to_owned()))
    }

    /// The network takes attachments again. A host that was quicker knows better.
    async fn reopen(&self, mut network: Versioned<Network>) -> Result<(), Error> {
        network.record.state = NetworkState::Ready;
        let own = self.layout.network(&network.record.name)?;
        self.store
            .swap(&own, &encode(&network.record)?, network.revision)
            .await?;
        Ok(())
    }

    /// Forgets a node with all that it owned: its blocks and leases are free at once. One that still has leases only
    /// with `force`, for a host that is dead: the containers of a living one would go on with addresses that others get.
    pub async fn remove_node(&self, name: &str, force: bool) -> Result<(), Error> {
        let key = self.layout.node(name)?;
        let read = [
            key.clone(),
            self.layout.all_blocks()?,
            self.layout.all_leases()?,
        ];
        'again: for _ in 0..ATTEMPTS {
            let entries = self.store.read(&read).await?;
            let node = entries
                .iter()
                .find(|e| e.key == key)
                .ok_or_else(|| Error::NoNode(name.to_owned()))?;
            let (mut doomed, mut held) = (Vec::new(), Vec::new());
            for entry in &entries {
                let owner = if entry.key.is_within(&read[1]) {
                    decode::<BlockRecord>(entry)?.record.node
                } else if entry.key.is_within(&read[2]) {
                    let (address, lease) = address_and_lease(entry)?;
                    if lease.record.node == name {
                        held.push((network_of(entry), address, lease.record.clone()));
                    }
                    lease.record.node
                } else {
                    continue;
                };
                if owner == name {
                    doomed.push(Op::Delete {
                        key: entry.key.clone(),
                        revision: entry.revision,
                    });
                }
            }
            if !force && !held.is_empty() {
                return Err(Error::NodeInUse {
                    name: name.to_owned(),
                    leases: held,
                });
            }
            // The node's own record goes last: until then the removal can be repeated by name.
            doomed.push(Op::Delete {
                key: key.clone(),
                revision: node.revision,
            });
            for chunk in doomed.chunks(CHUNK) {
                if let Outcome::Conflict(_) = self.store.apply(chunk).await? {
                    continue 'again;
                }
            }
            return Ok(());
        }
        Err(Error::Contended(key.as_str().to_owned()))
    }
}

fn delete(entry: &Entry) -> Op {
    Op::Delete {
        key: entry.key.clone(),
        revision: entry.revision,
    }
}

/// The leases among the entries, at or below `leases`.
fn leases_in(entries: &[Entry], leases: &Key) -> Result<Vec<(IpAddr, Lease)>, Error> {
    entries
        .iter()
        .filter(|e| e.key.is_within(leases))
        .map(|e| address_and_lease(e).map(|(address, lease)| (address, lease.record)))
        .collect()
}

fn in_use(name: &str, leases: Vec<(IpAddr, Lease)>) -> Error {
    Error::InUse {
        name: name.to_owned(),
        leases,
    }
}

/// The network of a lease's entry: the last segment of its key but one.
fn network_of(lease: &Entry) -> String {
    let mut segments = lease.key.as_str().rsplit('/');
    segments.nth(1).unwrap_or_default().to_owned()
}
