//! Leases: a host publishes which of its addresses an attachment holds, and takes that back.

use std::net::IpAddr;

use store::{Op, Outcome};

use crate::{
    ATTEMPTS, Cluster, Error, Lease, Versioned,
    records::{decode, encode},
};

/// The facts on which a lease rests, as the host last saw them. A lease is written only while both hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseGuard {
    /// The block of the address, ours, and the revision at which it became ours.
    pub block: (ipam::Block, u64),
    /// Revision of the network's record.
    pub network: u64,
}

/// What became of a lease that was to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// It stands at this revision.
    Done(u64),
    /// Network or block are no longer as the guard says: read the news and choose again.
    Stale,
    /// Somebody else has a lease on the address; it must not be given out.
    Taken(Versioned<Lease>),
}

impl Cluster<'_> {
    /// Publishes that `lease` has `address`. One write; one read more where a lease is in the way.
    pub async fn publish(
        &self,
        network: &str,
        address: IpAddr,
        lease: &Lease,
        guard: LeaseGuard,
    ) -> Result<Published, Error> {
        let key = self.layout.lease(network, address)?;
        let ops = [
            Op::Check {
                key: self.layout.network(network)?,
                revision: guard.network,
            },
            Op::Check {
                key: self.layout.block(network, guard.block.0)?,
                revision: guard.block.1,
            },
            Op::Create {
                key: key.clone(),
                value: encode(lease)?,
            },
        ];
        match self.store.apply(&ops).await? {
            Outcome::Done(revisions) => Ok(Published::Done(
                revisions.last().copied().unwrap_or_default(),
            )),
            Outcome::Conflict(0 | 1) => Ok(Published::Stale),
            Outcome::Conflict(_) => match self.store.get(&key).await? {
                None => Ok(Published::Stale),
                Some(entry) => {
                    let held = decode::<Lease>(&entry)?;
                    // Ours: a write whose answer was lost, or one of a killed verb of this attachment.
                    let ours = held.record.same_holder(lease);
                    Ok(if ours {
                        Published::Done(held.revision)
                    } else {
                        Published::Taken(held)
                    })
                }
            },
        }
    }

    /// Takes back the lease of `holder` on `address`; nothing happens to a lease of anyone else. With the `revision`
    /// at which it was published this is one write, else one read before it.
    pub async fn release(
        &self,
        network: &str,
        address: IpAddr,
        holder: &Lease,
        revision: Option<u64>,
    ) -> Result<(), Error> {
        let key = self.layout.lease(network, address)?;
        let mut known = revision;
        for _ in 0..ATTEMPTS {
            let revision = match known.take() {
                Some(revision) => revision,
                None => match self
                    .store
                    .get(&key)
                    .await?
                    .map(|entry| decode::<Lease>(&entry))
                    .transpose()?
                {
                    Some(held) if held.record.same_holder(holder) => held.revision,
                    _ => return Ok(()),
                },
            };
            if self.store.delete(&key, revision).await? {
                return Ok(());
            }
        }
        Err(Error::Contended(key.as_str().to_owned()))
    }

    /// All leases of a network by address.
    pub async fn leases(&self, network: &str) -> Result<Vec<(IpAddr, Versioned<Lease>)>, Error> {
        let entries = self.store.read(&[self.layout.leases(network)?]).await?;
        entries.iter().map(address_and_lease).collect()
    }
}

/// A lease's entry as address and record.
pub(crate) fn address_and_lease(entry: &store::Entry) -> Result<(IpAddr, Versioned<Lease>), Error> {
    let why = |error: std::net::AddrParseError| Error::Record {
        key: entry.key.as_str().to_owned(),
        why: error.to_string(),
    };
    Ok((entry.key.last().parse().map_err(why)?, decode(entry)?))
}
