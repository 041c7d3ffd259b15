//! ADD: choose, note, publish.

use std::net::IpAddr;

use super::{
    ATTEMPTS, Allocator, Held, Holder, Holding, Leased, Noted, Request, Stage,
    choice::{Need, Tried},
    rebuild::Open,
};
use crate::{Error, Lease, LeaseGuard, Network, Published, Stored};

/// What a choice under the ledger's lock comes to.
pub(super) enum Chosen {
    /// One address of each set, noted.
    Noted(Vec<IpAddr>, LeaseGuard, Network, Box<Lease>),
    /// The host has none ready; it has to be got from the store first.
    Needs(Need),
    /// A killed ADD of the same attachment left something, which has to go first.
    Leftover,
}

impl Allocator<'_> {
    /// Leases one address of each range set for a holder that has none, and notes it as chosen; [`Self::told`] makes
    /// it stand. While the store is away, from the host's own blocks.
    pub async fn add(&self, request: &Request<'_>) -> Result<Leased, Error> {
        let mut tried = Tried::default();
        for _ in 0..ATTEMPTS {
            let (addresses, guard, network, lease) = match self.choose(request, &tried).await? {
                Chosen::Noted(addresses, guard, network, lease) => {
                    (addresses, guard, network, lease)
                }
                Chosen::Leftover => {
                    self.note_gone(&request.holder).await?;
                    // What the store does not take now stays noted, and is in nobody's way.
                    let _ = self.release(&request.holder).await;
                    continue;
                }
                Chosen::Needs(need) => {
                    match self.provide(request, need, &mut tried).await {
                        // Gone from the store since, and nobody who had to write it again: ours to create.
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
                    self.note_revisions(&request.holder, &leases).await?;
                    return Ok(Leased { network, addresses });
                }
                // The host goes on from its own blocks (invariant 8 of `docs/architecture.md`).
                Err(error) if error.is_away() => {
                    // That a MAC is nobody else's the store alone knows.
                    if lease.mac.is_none() && self.may_go_on(&addresses).await? {
                        return Ok(Leased { network, addresses });
                    }
                    self.give_up(&request.holder).await?;
                    if tried.away {
                        return Err(error);
                    }
                    tried.away = true;
                }
                // Nothing was written.
                Ok(refused) => self.learn(request, &addresses, refused).await?,
                Err(refusal @ (Error::BadMac { .. } | Error::Waiting { .. })) => {
                    self.unchoose(&request.holder, &addresses).await?;
                    return Err(refusal);
                }
                // Something may have been: to be released when the store makes sense again.
                Err(error) => {
                    self.give_up(&request.holder).await?;
                    return Err(error);
                }
            }
        }
        Err(Error::Contended(format!(
            "network {}: addresses",
            self.network
        )))
    }

    /// Brings the ledger up to date with the network that the store has now, created if there is none.
    async fn renew(&self, request: &Request<'_>) -> Result<(), Error> {
        match self.open().await? {
            Some(mut open) => self
                .refresh(&mut open.ledger, Some(request.spec))
                .await
                .map(drop),
            None => Ok(()),
        }
    }

    /// What was chosen goes back; whether the store has it is for a later verb to find out.
    async fn give_up(&self, holder: &Holder) -> Result<(), Error> {
        self.note_gone(holder).await?;
        if let Some(mut open) = self.open().await? {
            open.ledger.fall_behind(holder);
            self.save(&open.ledger)?;
        }
        Ok(())
    }

    async fn choose(&self, request: &Request<'_>, tried: &Tried) -> Result<Chosen, Error> {
        let mut open = self.ready(request.spec).await?;
        let holding = self.shelf.holding(self.network, &request.holder)?;
        let left = match holding {
            Noted::Holding(holding) if holding.stage == Stage::Given => {
                let held = holding.addresses.iter().map(|it| it.address.to_string());
                let held = held.collect::<Vec<_>>().join(", ");
                return Err(self.duplicate(&request.holder, held));
            }
            // Its container may run.
            Noted::Unreadable(why) => {
                let held = format!("what nobody can tell ({why})");
                return Err(self.duplicate(&request.holder, held));
            }
            Noted::Holding(holding) if holding.stage == Stage::Chosen => {
                return Ok(Chosen::Leftover);
            }
            // Waits for the store, and is in nobody's way.
            Noted::Holding(holding) if !holding.unheard => holding.left,
            Noted::Holding(_) => return Ok(Chosen::Leftover),
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
        ledger.take(&request.holder, &addresses);
        self.save(ledger)?;
        let held = |address: &IpAddr| Held {
            address: *address,
            revision: None,
            mac,
        };
        let lease = self.lease(&request.holder, mac);
        let holding = Holding {
            lease: lease.clone(),
            stage: Stage::Chosen,
            addresses: addresses.iter().map(held).collect(),
            left,
            unheard: false,
        };
        self.shelf.save_holding(self.network, &holding)?;
        Ok(Chosen::Noted(addresses, guard, network, Box::new(lease)))
    }

    /// Whether addresses may be given out though the store does not know.
    async fn may_go_on(&self, addresses: &[IpAddr]) -> Result<bool, Error> {
        let open = self.open().await?;
        Ok(open.is_some_and(|open| {
            addresses
                .iter()
                .all(|address| open.ledger.outlasts(*address))
        }))
    }

    /// Notes at which revisions the leases stand. Where the attachment was given back meanwhile, nothing stands.
    async fn note_revisions(&self, holder: &Holder, leases: &[(IpAddr, u64)]) -> Result<(), Error> {
        let lock = self.shelf.lock(self.network).await?;
        let holding = self.shelf.holding(self.network, holder)?.readable();
        let Some(mut holding) = holding.filter(|holding| holding.stage == Stage::Chosen) else {
            drop(lock);
            self.cluster.delete_leases(self.network, leases).await?;
            let Holder { container, ifname } = holder;
            return Err(Error::Contended(format!(
                "network {}: {ifname} of container {container}, given back while it was added",
                self.network
            )));
        };
        for (held, (_, revision)) in holding.addresses.iter_mut().zip(leases) {
            held.revision = Some(*revision);
        }
        // Told first, noted then: an ADD of which nobody learnt is no duplicate for the next one.
        self.shelf.save_holding(self.network, &holding)
    }

    /// What was chosen is free again; the ledger without it.
    async fn unchoose(&self, holder: &Holder, addresses: &[IpAddr]) -> Result<Option<Open>, Error> {
        let mut open = self.open().await?;
        if let Some(Open { ledger, .. }) = &mut open {
            ledger.unchoose(holder, addresses);
            self.save(ledger)?;
            self.drop_addresses(holder)?;
        }
        Ok(open)
    }

    /// Takes from a refusal what makes the next choice better, or gives up. What was chosen is free again.
    async fn learn(
        &self,
        request: &Request<'_>,
        addresses: &[IpAddr],
        refused: Published,
    ) -> Result<(), Error> {
        let Some(mut open) = self.unchoose(&request.holder, addresses).await? else {
            return Ok(());
        };
        let ledger = &mut open.ledger;
        match refused {
            Published::Taken(address, Stored::Readable(holder))
                if self.is_zombie(address, &holder.record)? =>
            {
                self.release_leases(&[(address, holder)]).await?;
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

    /// The holding without the addresses that were chosen for it; none is left if it has nothing else.
    fn drop_addresses(&self, holder: &Holder) -> Result<(), Error> {
        let Some(mut holding) = self.shelf.holding(self.network, holder)?.readable() else {
            return Ok(());
        };
        if holding.left.is_empty() {
            return self.shelf.remove_holding(self.network, holder);
        }
        holding.addresses.clear();
        holding.stage = Stage::Gone;
        self.shelf.save_holding(self.network, &holding)
    }

    /// The caller has its answer: the addresses stand. What fails here is no reason to call the ADD failed.
    pub async fn told(&self, holder: &Holder) -> Result<(), Error> {
        let lock = self.shelf.lock(self.network).await?;
        let Some(mut holding) = self.shelf.holding(self.network, holder)?.readable() else {
            return Ok(());
        };
        holding.stage = Stage::Given;
        self.shelf.save_holding(self.network, &holding)?;
        if holding.addresses.iter().all(|held| held.revision.is_some()) {
            return Ok(());
        }
        drop(lock);
        if let Some(mut open) = self.open().await? {
            open.ledger.fall_behind(holder);
            self.save(&open.ledger)?;
        }
        Ok(())
    }

    /// Why a requested address cannot be had: who holds it, as far as that can be read.
    pub(super) fn held(&self, address: IpAddr, lease: &Stored<Lease>) -> Error {
        match lease {
            Stored::Readable(lease) => Error::Held {
                address,
                lease: Box::new(lease.record.clone()),
            },
            Stored::Opaque(opaque) => {
                let why = match self.cluster.layout().lease(self.network, address) {
                    Ok(key) => format!("is taken: {}", opaque.refusal(&key)),
                    Err(error) => error.to_string(),
                };
                Error::BadAddress { address, why }
            }
        }
    }

    fn duplicate(&self, holder: &Holder, held: String) -> Error {
        Error::Duplicate {
            network: self.network.to_owned(),
            container: holder.container.clone(),
            ifname: holder.ifname.clone(),
            held,
        }
    }
}
