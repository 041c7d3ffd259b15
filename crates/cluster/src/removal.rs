//! Removals: a network when nobody is on it, a node when it will not come back.

use std::net::IpAddr;

use store::{Entry, Op, Outcome};

use crate::{
    ATTEMPTS, CHUNK, Cluster, Error, Lease, NetworkState, Versioned,
    leases::address_and_lease,
    records::{BlockRecord, decode, encode},
};

impl Cluster<'_> {
    /// Removes a network that has no endpoints. First no new lease can be written, then the leases are counted: so
    /// no attachment slips in between. A removal that was interrupted is taken up again.
    pub async fn remove_network(&self, name: &str) -> Result<(), Error> {
        let (own, all) = (self.layout.network(name)?, self.layout.subnets()?);
        let (blocks, leases) = (self.layout.blocks(name)?, self.layout.leases(name)?);
        for _ in 0..ATTEMPTS {
            let Some(mut network) = self.network(name).await? else {
                return Err(Error::NoNetwork(name.to_owned()));
            };
            let before = network.record.state;
            network.record.state = NetworkState::Removing;
            let Some(revision) = self
                .store
                .swap(&own, &encode(&network.record)?, network.revision)
                .await?
            else {
                continue;
            };
            let entries = self
                .store
                .read(&[all.clone(), blocks.clone(), leases.clone()])
                .await?;
            let held = entries
                .iter()
                .filter(|e| e.key.is_within(&leases))
                .map(address_and_lease);
            let held = held.collect::<Result<Vec<_>, _>>()?;
            if !held.is_empty() {
                network.record.state = before;
                self.store
                    .swap(&own, &encode(&network.record)?, revision)
                    .await?;
                return Err(Error::InUse {
                    name: name.to_owned(),
                    leases: unversioned(held),
                });
            }
            let block_ops: Vec<Op> = entries
                .iter()
                .filter(|e| e.key.is_within(&blocks))
                .map(delete)
                .collect();
            for chunk in block_ops.chunks(CHUNK) {
                self.store.apply(chunk).await?;
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

    /// Forgets a node with all that it owned: its blocks and leases are free at once.
    pub async fn remove_node(&self, name: &str) -> Result<(), Error> {
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
            let mut doomed = Vec::new();
            for entry in &entries {
                let owner = if entry.key.is_within(&read[1]) {
                    decode::<BlockRecord>(entry)?.record.node
                } else if entry.key.is_within(&read[2]) {
                    decode::<Lease>(entry)?.record.node
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

fn unversioned(leases: Vec<(IpAddr, Versioned<Lease>)>) -> Vec<(IpAddr, Lease)> {
    leases
        .into_iter()
        .map(|(address, lease)| (address, lease.record))
        .collect()
}
