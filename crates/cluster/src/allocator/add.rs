//! ADD: chooses addresses, notes the choice, and publishes the lease.

use std::net::IpAddr;

use super::{
    ATTEMPTS, Allocator, LeaseOwner, Leased, LeasedAddress, LocalLease, Noted, Request, Stage,
    choice::{Need, Tried},
    rebuild::Open,
};
use crate::{Error, Lease, LeaseGuard, Network, Published, Stored};

/// The result of a choice under the ledger's lock.
pub(super) enum Chosen {
    /// One address of each set, noted.
    Noted(Vec<IpAddr>, LeaseGuard, Box<Network>, Box<Lease>),
    /// The host has no address ready; it must acquire one from the store first.
    Needs(Need),
    /// A killed ADD of the same attachment left something, which must be removed first.
    Leftover,
}

impl Allocator<'_> {
    /// Leases one address of each range set for an attachment that has none, and notes it as chosen. The caller confirms with
    /// [`Self::told`]. While the store is away, the addresses come from the host's own blocks.
    pub async fn add(&self, request: &Request<'_>) -> Result<Leased, Error> {
        let mut tried = Tried::default();
        for _ in 0..ATTEMPTS {
            let chosen = match self.choose(request, &tried).await {
                // The network may have got a further subnet since this host read its record.
                Err(Error::BadAddress { .. }) if !tried.renewed => {
                    tried.renewed = true;
                    // If the store is away, the address is refused as before.
                    let _ = self.renew(request).await;
                    continue;
                }
                chosen => chosen?,
            };
            let (addresses, guard, network, lease) = match chosen {
                Chosen::Noted(addresses, guard, network, lease) => {
                    (addresses, guard, *network, lease)
                }
                Chosen::Leftover => {
                    self.note_gone(&request.owner).await?;
                    // If the store does not take the release now, the note stays for a later verb.
                    let _ = self.release(&request.owner).await;
                    continue;
                }
                Chosen::Needs(need) => {
                    match self.provide(request, need, &mut tried).await {
                        // The store no longer has the network, and no host has containers for which to restore it: create it.
                        Err(Error::NoNetwork(_)) if !tried.created => {
                            tried.created = true;
                            self.renew(request).await?;
                        }
                        provided => provided?,
                    }
                    continue;
                }
            };
            let published = self
                .cluster
                .publish(self.network, &addresses, &lease, &guard)
                .await;
            match published {
                Ok(Published::Done(revisions)) => {
                    let leases: Vec<_> = addresses.iter().copied().zip(revisions).collect();
                    self.note_revisions(&request.owner, &leases).await?;
                    return Ok(Leased { network, addresses });
                }
                // The host goes on from its own blocks (invariant 8 of `docs/architecture.md`).
                Err(error) if error.is_away() => {
                    // Only the store can tell that a requested MAC is free.
                    if lease.mac.is_none() && self.may_go_on(&addresses).await? {
                        return Ok(Leased { network, addresses });
                    }
                    self.give_up(&request.owner).await?;
                    if tried.away {
                        return Err(error);
                    }
                    tried.away = true;
                }
                // Nothing was written.
                Ok(refused) => self.learn(request, &addresses, refused).await?,
                Err(refusal @ (Error::BadMac { .. } | Error::Waiting { .. })) => {
                    self.unchoose(&request.owner, &addresses).await?;
                    return Err(refusal);
                }
                // A lease may have been written: note it, so that it is released when the store answers again.
                Err(error) => {
                    self.give_up(&request.owner).await?;
                    return Err(error);
                }
            }
        }
        Err(Error::Contended(format!(
            "network {}: addresses",
            self.network
        )))
    }

    /// Brings the ledger up to date with the network that the store has now; creates the network if the store has none.
    async fn renew(&self, request: &Request<'_>) -> Result<(), Error> {
        match self.open().await? {
            Some(mut open) => self
                .refresh(&mut open.ledger, Some(request.spec))
                .await
                .map(drop),
            None => Ok(()),
        }
    }

    /// Notes that the chosen addresses are given back. A later verb finds out whether the store has their leases.
    async fn give_up(&self, owner: &LeaseOwner) -> Result<(), Error> {
        self.note_gone(owner).await?;
        if let Some(mut open) = self.open().await? {
            open.ledger.fall_behind(owner);
            self.save(&open.ledger)?;
        }
        Ok(())
    }

    async fn choose(&self, request: &Request<'_>, tried: &Tried) -> Result<Chosen, Error> {
        let mut open = self.open_or_create(request.spec).await?;
        let local_lease = self.local_store.lease(self.network, &request.owner)?;
        let given_back = match local_lease {
            Noted::Lease(local_lease) if local_lease.stage == Stage::Given => {
                let held = local_lease
                    .addresses
                    .iter()
                    .map(|it| it.address.to_string());
                let held = held.collect::<Vec<_>>().join(", ");
                return Err(self.duplicate(&request.owner, held));
            }
            // The container may be running.
            Noted::Unreadable(why) => {
                let held = format!("addresses that cannot be read ({why})");
                return Err(self.duplicate(&request.owner, held));
            }
            Noted::Lease(local_lease) if local_lease.stage == Stage::Chosen => {
                return Ok(Chosen::Leftover);
            }
            // Its release waits for the store, which does not hinder this ADD.
            Noted::Lease(local_lease) if !local_lease.release_all => local_lease.given_back,
            Noted::Lease(_) => return Ok(Chosen::Leftover),
            Noted::Nothing => Vec::new(),
        };
        let ledger = &mut open.ledger;
        let network = ledger.network.record.clone();
        let mac = network.exception(request.mac, request.requested)?;
        let addresses = match self.pick_all(ledger, request, tried)? {
            Ok(addresses) => addresses,
            Err(need) => return Ok(Chosen::Needs(need)),
        };
        let guard = ledger.guard(&addresses, &self.host.node);
        let guard = guard.ok_or_else(|| Error::Local("ledger: chose what is not ours".into()))?;
        ledger.take(&request.owner, &addresses);
        self.save(ledger)?;
        let held = |address: &IpAddr| LeasedAddress {
            address: *address,
            revision: None,
            mac,
        };
        let lease = Lease {
            container_name: request.name.clone(),
            ..self.lease(&request.owner, mac)
        };
        let local_lease = LocalLease {
            lease: lease.clone(),
            stage: Stage::Chosen,
            addresses: addresses.iter().map(held).collect(),
            given_back,
            release_all: false,
        };
        self.local_store.save_lease(self.network, &local_lease)?;
        Ok(Chosen::Noted(
            addresses,
            guard,
            Box::new(network),
            Box::new(lease),
        ))
    }

    /// Whether these addresses may be given out although the store does not know of it.
    async fn may_go_on(&self, addresses: &[IpAddr]) -> Result<bool, Error> {
        let open = self.open().await?;
        Ok(open.is_some_and(|open| {
            addresses
                .iter()
                .all(|address| open.ledger.outlasts(*address))
        }))
    }

    /// Notes the revisions at which the leases were written. If the attachment was given back meanwhile, deletes the leases and
    /// fails.
    async fn note_revisions(
        &self,
        owner: &LeaseOwner,
        leases: &[(IpAddr, u64)],
    ) -> Result<(), Error> {
        let lock = self.local_store.lock(self.network).await?;
        let local_lease = self.local_store.lease(self.network, owner)?.readable();
        let Some(mut local_lease) =
            local_lease.filter(|local_lease| local_lease.stage == Stage::Chosen)
        else {
            drop(lock);
            self.cluster.delete_leases(self.network, leases).await?;
            let LeaseOwner { container, ifname } = owner;
            return Err(Error::Contended(format!(
                "network {}: {ifname} of container {container}, given back while it was added",
                self.network
            )));
        };
        for (held, (_, revision)) in local_lease.addresses.iter_mut().zip(leases) {
            held.revision = Some(*revision);
        }
        // It stays `Chosen` until the caller has the answer: an ADD whose answer nobody received is not a duplicate.
        self.local_store.save_lease(self.network, &local_lease)
    }

    /// Frees what was chosen. Returns the changed ledger.
    async fn unchoose(
        &self,
        owner: &LeaseOwner,
        addresses: &[IpAddr],
    ) -> Result<Option<Open>, Error> {
        let mut open = self.open().await?;
        if let Some(Open { ledger, .. }) = &mut open {
            ledger.unchoose(owner, addresses);
            self.save(ledger)?;
            self.drop_addresses(owner)?;
        }
        Ok(open)
    }

    /// Frees what was chosen, and corrects the ledger by what the store's refusal showed, so that the next choice is better.
    /// Fails if a requested address is taken.
    async fn learn(
        &self,
        request: &Request<'_>,
        addresses: &[IpAddr],
        refused: Published,
    ) -> Result<(), Error> {
        let Some(mut open) = self.unchoose(&request.owner, addresses).await? else {
            return Ok(());
        };
        let ledger = &mut open.ledger;
        match refused {
            Published::Taken(address, Stored::Readable(owner))
                if self.is_orphaned(address, &owner.record)? =>
            {
                self.release_leases(&[(address, owner)]).await?;
            }
            Published::Taken(address, lease) if request.requested.contains(&address) => {
                return Err(self.held(address, &lease));
            }
            Published::Taken(address, _) => {
                ledger.bar(address);
                self.save(ledger)?;
            }
            _ => drop(self.refresh(ledger, Some(request.spec)).await?),
        }
        Ok(())
    }

    /// Takes the chosen addresses out of the local lease, and removes it if it has nothing else.
    fn drop_addresses(&self, owner: &LeaseOwner) -> Result<(), Error> {
        let Some(mut local_lease) = self.local_store.lease(self.network, owner)?.readable() else {
            return Ok(());
        };
        if local_lease.given_back.is_empty() {
            return self.local_store.remove_lease(self.network, owner);
        }
        local_lease.addresses.clear();
        local_lease.stage = Stage::Gone;
        self.local_store.save_lease(self.network, &local_lease)
    }

    /// Notes that the caller has its answer. An error here does not mean that the ADD failed.
    pub async fn told(&self, owner: &LeaseOwner) -> Result<(), Error> {
        let lock = self.local_store.lock(self.network).await?;
        let Some(mut local_lease) = self.local_store.lease(self.network, owner)?.readable() else {
            return Ok(());
        };
        local_lease.stage = Stage::Given;
        self.local_store.save_lease(self.network, &local_lease)?;
        if local_lease
            .addresses
            .iter()
            .all(|held| held.revision.is_some())
        {
            return Ok(());
        }
        drop(lock);
        if let Some(mut open) = self.open().await? {
            open.ledger.fall_behind(owner);
            self.save(&open.ledger)?;
        }
        Ok(())
    }

    /// The error for a requested address that is taken. It names the holder, if the lease can be read.
    pub(super) fn held(&self, address: IpAddr, lease: &Stored<Lease>) -> Error {
        match lease {
            Stored::Readable(lease) => Error::Held {
                address,
                lease: Box::new(lease.record.clone()),
            },
            Stored::Unreadable(unreadable) => {
                let why = match self.cluster.layout().lease(self.network, address) {
                    Ok(key) => format!("is taken: {}", unreadable.refusal(&key)),
                    Err(error) => error.to_string(),
                };
                Error::BadAddress { address, why }
            }
        }
    }

    fn duplicate(&self, owner: &LeaseOwner, held: String) -> Error {
        Error::Duplicate {
            network: self.network.to_owned(),
            container: owner.container.clone(),
            ifname: owner.ifname.clone(),
            held,
        }
    }
}
