//! Leases: a host publishes which addresses an attachment holds, and deletes the leases when they are released.

use std::{collections::BTreeMap, net::IpAddr};

use ipam::Block;
use store::{Op, Outcome};

use crate::{CHUNK, Cluster, Error, Lease, Records, Stored, records::encode, stored};

/// What a lease depends on, as the host last read it. The store takes a lease only while all of it still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseGuard {
    /// Revision of the network's record.
    pub network: u64,
    /// The host's blocks that contain the addresses, and the revisions of their records.
    pub blocks: BTreeMap<Block, u64>,
    /// Whether a container already has the addresses and its MAC. Then another holder of that MAC in the store was brought back
    /// by a restore.
    pub held: bool,
}

/// The outcome of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The leases are written, at these revisions, in the order of the addresses.
    Done(Vec<u64>),
    /// Network or block are no longer as in the guard: read the snapshot and choose again. Nothing was written.
    Stale,
    /// Another attachment has a lease on this address, or it has one that cannot be read; the address must not be given out.
    /// Nothing was written.
    Taken(IpAddr, Stored<Lease>),
}

impl Cluster<'_> {
    /// Publishes `lease` for all of `addresses`, or for none. One write; one read more if another lease is in the way, and one
    /// for a requested MAC. Fails with [`Error::BadMac`] or [`Error::Waiting`] if the MAC is not available; nothing was written
    /// then.
    pub async fn publish(
        &self,
        network: &str,
        addresses: &[IpAddr],
        lease: &Lease,
        guard: &LeaseGuard,
    ) -> Result<Published, Error> {
        let mut ops = vec![Op::Check {
            key: self.layout.network(network)?,
            revision: guard.network,
        }];
        for (block, revision) in &guard.blocks {
            ops.push(Op::Check {
                key: self.layout.block(network, *block)?,
                revision: *revision,
            });
        }
        if let Some(mac) = lease.mac {
            ops.push(
                self.claim_mac(network, mac, lease, addresses, guard.held)
                    .await?,
            );
        }
        let checks = ops.len();
        let value = encode(lease)?;
        for address in addresses {
            ops.push(Op::Create {
                key: self.layout.lease(network, *address)?,
                value: value.clone(),
            });
        }
        match self.store.apply(&ops).await? {
            Outcome::Done(revisions) => Ok(Published::Done(revisions[checks..].to_vec())),
            Outcome::Conflict(index) if index < checks => Ok(Published::Stale),
            Outcome::Conflict(_) => self.find_holders(network, addresses, lease).await,
        }
    }

    /// Finds out which leases were in the way: this attachment's own (the answer to its write was lost, or a verb was killed),
    /// or another's.
    async fn find_holders(
        &self,
        network: &str,
        addresses: &[IpAddr],
        lease: &Lease,
    ) -> Result<Published, Error> {
        let mut ours = BTreeMap::new();
        for (address, stored) in &self.leases_on(network, addresses).await? {
            match stored {
                Stored::Readable(held) if held.record.same_owner(lease) => {
                    ours.insert(*address, held.revision);
                }
                other => return Ok(Published::Taken(*address, other.clone())),
            }
        }
        let all = addresses
            .iter()
            .map(|address| ours.get(address).copied())
            .collect::<Option<Vec<_>>>();
        Ok(all.map_or(Published::Stale, Published::Done))
    }

    /// Deletes the leases that still have these revisions. Returns whether all had.
    pub async fn delete_leases(
        &self,
        network: &str,
        leases: &[(IpAddr, u64)],
    ) -> Result<bool, Error> {
        let mut all = true;
        for chunk in leases.chunks(CHUNK) {
            let delete = |(address, revision): &(IpAddr, u64)| {
                let key = self.layout.lease(network, *address)?;
                Ok::<_, Error>(Op::Delete {
                    key,
                    revision: *revision,
                })
            };
            let ops = chunk.iter().map(delete).collect::<Result<Vec<_>, _>>()?;
            if self.done(&ops).await?.is_some() {
                continue;
            }
            all = false;
            for op in ops.iter().filter(|_| ops.len() > 1) {
                self.done(std::slice::from_ref(op)).await?;
            }
        }
        Ok(all)
    }

    /// The addresses among `addresses` on which `owner` has leases, with the leases' revisions.
    pub async fn leased_to(
        &self,
        network: &str,
        owner: &Lease,
        addresses: &[IpAddr],
    ) -> Result<Vec<(IpAddr, u64)>, Error> {
        let leases = self.leases_on(network, addresses).await?;
        let own = leases.readable();
        let own = own.filter(|(_, held)| held.record.same_owner(owner));
        Ok(own
            .map(|(address, held)| (*address, held.revision))
            .collect())
    }

    /// The leases on some addresses.
    pub async fn leases_on(
        &self,
        network: &str,
        addresses: &[IpAddr],
    ) -> Result<Records<IpAddr, Lease>, Error> {
        let (all, mut leases) = (self.layout.leases(network)?, Records::default());
        for chunk in addresses.chunks(CHUNK) {
            let keys = chunk.iter().map(|a| self.layout.lease(network, *a));
            let keys = keys.collect::<Result<Vec<_>, _>>()?;
            let entries = self.store.read(&keys).await?;
            leases.extend(entries.iter().filter_map(|it| stored::lease(it, &all)));
        }
        Ok(leases)
    }

    /// All leases of a network by address.
    pub async fn leases(&self, network: &str) -> Result<Records<IpAddr, Lease>, Error> {
        let all = self.layout.leases(network)?;
        let entries = self.store.read(std::slice::from_ref(&all)).await?;
        let leases = entries.iter().filter_map(|it| stored::lease(it, &all));
        Ok(leases.collect())
    }
}
