//! Leases: a host publishes which of its addresses an attachment holds, and takes that back.

use std::{collections::BTreeMap, net::IpAddr};

use ipam::Block;
use store::{Op, Outcome};

use crate::{CHUNK, Cluster, Error, Lease, Records, Stored, records::encode, stored};

/// The facts on which a lease rests, as the host last saw them. A lease is written only while all of them hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseGuard {
    /// Revision of the network's record.
    pub network: u64,
    /// The blocks of the addresses, ours, and the revisions at which they became ours.
    pub blocks: BTreeMap<Block, u64>,
    /// Whether a container has the addresses, and its MAC, already: another holder of that MAC has come back from the past
    /// with a store that was put back to it.
    pub held: bool,
}

/// What became of leases that were to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// They stand, at these revisions, in the order of the addresses.
    Done(Vec<u64>),
    /// Network or block are no longer as the guard says: read the news and choose again. Nothing was written.
    Stale,
    /// Somebody else has a lease on this address, or one that cannot be read; it must not be given out. Nothing was written.
    Taken(IpAddr, Stored<Lease>),
}

impl Cluster<'_> {
    /// Publishes that `lease` has all of `addresses`, or none of them. One write; one read more where a lease is in
    /// the way, and one where a MAC was asked for. [`Error::BadMac`] and [`Error::Waiting`] where that cannot be had:
    /// nothing was written.
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
            Outcome::Conflict(_) => self.who_has(network, addresses, lease).await,
        }
    }

    /// Whose leases were in the way: ours (a write whose answer was lost, or one of a killed verb), or another's.
    async fn who_has(
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

    /// Deletes leases that still have these revisions, all at once where all have, else each by itself; whether all had.
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

    /// Which of some addresses `owner` has leases on, and the leases' revisions.
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
