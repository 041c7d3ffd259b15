//! The ledger from the store: at first, when it proved old, and when the store has forgotten.
//!
//! The node publishes that it keeps a ledger before it reads what it puts in there, so a host that changes its blocks later
//! must ask it. A snapshot is taken into the ledger under the ledger's lock, so that an older one can never undo what a
//! quicker verb of this host did.

use std::{any::Any, net::IpAddr};

use super::{Allocator, LeasedAddress, Ledger, LocalLease, Memory, Noted, Stage};
use crate::{
    Created, Error, Exclusion, ExclusionState, Lease, NetworkSnapshot, NetworkSpec, Records,
    Stored, Versioned,
};

/// Most addresses of which leases are asked for one by one; 64 of them are a request.
const MANY: u128 = 4096;

/// The ledger, open for change.
pub(super) struct Open {
    pub(super) ledger: Ledger,
    _lock: Box<dyn Any>,
}

impl Allocator<'_> {
    /// The ledger under its lock, as the last verb left it; `None` if this host has none since its boot.
    pub(super) async fn open(&self) -> Result<Option<Open>, Error> {
        let lock = self.local_store.lock(self.network).await?;
        Ok(self.load_of_here().await?.map(|ledger| Open {
            ledger,
            _lock: lock,
        }))
    }

    /// The same, begun again from the store where the host has lost it, in a reboot or while its containers run; `None`
    /// if this node keeps none of the network, or another host may be the one that does.
    pub(super) async fn open_or_rebuild(&self) -> Result<Option<Open>, Error> {
        let lock = self.local_store.lock(self.network).await?;
        let ledger = match self.load_of_here().await? {
            Some(ledger) => ledger,
            None if self
                .cluster
                .keeps_ledger(self.network, &self.host.node)
                .await?
                && self.is_known_for_sure().await? =>
            {
                self.rebuild(None).await?
            }
            None => return Ok(None),
        };
        Ok(Some(Open {
            ledger,
            _lock: lock,
        }))
    }

    /// Whether the store's record of this node can be told from one of a clone of this machine that has its name. Of another
    /// boot with a tunnel address it cannot without this host's: ADD and sync find that out first, and then begin.
    async fn is_known_for_sure(&self) -> Result<bool, Error> {
        if self.host.vtep.is_some() {
            return Ok(true);
        }
        Ok(match self.cluster.node(&self.host.node).await? {
            None => true,
            Some(Stored::Unreadable(_)) => false,
            Some(Stored::Readable(Versioned { record, .. })) => {
                record.boot_id == self.host.boot_id || record.vtep.is_none()
            }
        })
    }

    /// Builds a lost ledger again, for a caller that only reads it.
    pub async fn ensure_ledger(&self) -> Result<(), Error> {
        self.open_or_rebuild().await.map(drop)
    }

    pub(super) fn load(&self) -> Result<Option<Ledger>, Error> {
        let Some(mut ledger) = self.local_store.ledger(self.network)? else {
            return Ok(None);
        };
        // Older versions took in what is no block of the network.
        let network = &ledger.network.record;
        ledger.blocks.retain(|block, _| network.has_block(*block));
        if let Some(pending) = &ledger.pending {
            let local_lease = self.local_store.lease(self.network, &pending.owner)?;
            ledger.settle(&local_lease, self.clock.uptime());
        }
        Ok(Some(ledger))
    }

    pub(super) fn save(&self, ledger: &Ledger) -> Result<(), Error> {
        self.local_store.save_ledger(self.network, ledger)
    }

    /// The ledger, begun from the store if this is the first verb on the network since the boot, read again if it is of
    /// another network than `spec` describes.
    pub(super) async fn open_or_create(&self, spec: &NetworkSpec) -> Result<Open, Error> {
        let lock = self.local_store.lock(self.network).await?;
        let ledger = match self.load_of_here().await? {
            Some(ledger) if spec.agree(&ledger.network.record).is_ok() => ledger,
            Some(mut ledger) => {
                self.refresh(&mut ledger, Some(spec)).await?;
                spec.agree(&ledger.network.record)?;
                ledger
            }
            None => {
                self.refuse_second_store().await?;
                self.rebuild(Some(spec)).await?
            }
        };
        Ok(Open {
            ledger,
            _lock: lock,
        })
    }

    /// The first ledger since the boot: leases of this boot are taken over, those of an earlier one have no container
    /// any more and are released. The caller holds the lock.
    pub(super) async fn rebuild(&self, spec: Option<&NetworkSpec>) -> Result<Ledger, Error> {
        let (_, mut snapshot) = self.cluster.enrol(self.network, &self.node()).await?;
        if let Some(spec) = spec.filter(|_| snapshot.network.is_none()) {
            self.create(spec).await?;
            (_, snapshot) = self.cluster.enrol(self.network, &self.node()).await?;
        }
        let memory = self.local_store.memory(self.network)?.snapshot;
        self.end_restore(&memory, &mut snapshot).await?;
        let network = snapshot.ready_network(self.network)?.clone();
        if let Some(spec) = spec {
            spec.agree(&network.record)?;
        }
        let mut ledger = Ledger::new(network.clone());
        ledger.begun = self.clock.uptime();
        ledger.store_ref.clone_from(&self.host.store_ref);
        let new = ledger.update(&snapshot, &network, &self.host.node);
        let leases = self.leases_here(&ledger).await?;
        self.take_over(&mut ledger, &leases).await?;
        self.fill(&mut ledger, &new).await?;
        self.remember(&self.local_store.memory(self.network)?, snapshot)?;
        self.save(&ledger)?;
        Ok(ledger)
    }

    async fn create(&self, spec: &NetworkSpec) -> Result<Created, Error> {
        let spec = NetworkSpec {
            in_use: self.local_store.vnis()?,
            ..spec.clone()
        };
        self.cluster.ensure_network(&spec).await
    }

    /// The leases on all addresses that are this host's to give: its own are nowhere else. Of a host with very many
    /// it is cheaper to read all of the network than to ask for each.
    pub(super) async fn leases_here(
        &self,
        ledger: &Ledger,
    ) -> Result<Records<IpAddr, Lease>, Error> {
        if ledger.size(&self.host.node) > MANY {
            return self.cluster.leases(self.network).await;
        }
        let addresses: Vec<_> = ledger.addresses(&self.host.node).collect();
        self.cluster.leases_on(self.network, &addresses).await
    }

    /// Makes local leases of the leases that the store has for this node, and releases those that nobody holds any more:
    /// of an earlier boot, or given back unheard. Where lease or holding cannot be read the address is in use.
    async fn take_over(
        &self,
        ledger: &mut Ledger,
        leases: &Records<IpAddr, Lease>,
    ) -> Result<(), Error> {
        let mut gone = Vec::new();
        for (address, stored) in leases {
            let (address, own) = (*address, stored.readable());
            let Some(lease) = own.filter(|lease| lease.record.node == self.host.node) else {
                ledger.bar(address);
                continue;
            };
            let lease = lease.clone();
            let present = match self
                .local_store
                .lease(self.network, &lease.record.owner())?
            {
                Noted::Unreadable(_) if lease.record.boot_id == self.host.boot_id => {
                    ledger.bar(address);
                    continue;
                }
                noted => noted.readable(),
            };
            let unheard = present
                .as_ref()
                .is_some_and(|local_lease| local_lease.unheard);
            if lease.record.boot_id != self.host.boot_id || unheard {
                gone.push((address, lease));
            } else if present
                .as_ref()
                .is_none_or(|h| h.all().all(|held| held.address != address))
            {
                let mut local_lease = present.unwrap_or_else(|| LocalLease {
                    lease: lease.record.clone(),
                    stage: Stage::Given,
                    addresses: Vec::new(),
                    left: Vec::new(),
                    unheard: false,
                });
                let held = LeasedAddress {
                    address,
                    revision: Some(lease.revision),
                    mac: lease.record.mac,
                };
                // The order of the sets: IPv4 before IPv6 is as good as any where it is lost.
                match local_lease.stage {
                    Stage::Given => local_lease.addresses.push(held),
                    _ => local_lease.left.push(held),
                }
                self.local_store.save_lease(self.network, &local_lease)?;
            }
        }
        self.release_leases(&gone).await?;
        for local_lease in self.local_store.leases(self.network)?.readable {
            if local_lease.unheard
                && local_lease.addresses.is_empty()
                && local_lease.left.is_empty()
            {
                self.local_store
                    .remove_lease(self.network, &local_lease.owner())?;
            }
        }
        Ok(())
    }

    /// Releases leases that no container of this host holds any more. One that has changed meanwhile is for the next sync.
    pub(super) async fn release_leases(
        &self,
        gone: &[(IpAddr, Versioned<Lease>)],
    ) -> Result<(), Error> {
        for (_, lease) in gone.iter().filter(|(_, lease)| lease.record.mac.is_some()) {
            let Lease { node, mac, .. } = &lease.record;
            let with = gone.iter().filter(|(_, other)| other.record.mac == *mac);
            let with = with
                .map(|(address, _)| (*address, *mac))
                .collect::<Vec<_>>();
            self.return_macs(node, &with).await?;
        }
        let gone: Vec<_> = gone
            .iter()
            .map(|(address, lease)| (*address, lease.revision))
            .collect();
        self.cluster
            .delete_leases(self.network, &gone)
            .await
            .map(drop)
    }

    /// Marks as in use what local leases have of blocks that are new to the ledger. Of local leases that cannot be read the store tells.
    pub(super) async fn fill(&self, ledger: &mut Ledger, new: &[ipam::Block]) -> Result<(), Error> {
        if new.is_empty() {
            return Ok(());
        }
        let is_new = |ledger: &Ledger, address: IpAddr| {
            let block = ledger.block_of(address);
            block.is_some_and(|block| new.contains(&block))
        };
        let local_leases = self.local_store.leases(self.network)?;
        for held in local_leases.readable.iter().flat_map(LocalLease::all) {
            if is_new(ledger, held.address) {
                ledger.mark(held.address, true);
            }
        }
        if local_leases.unreadable.is_empty() {
            return Ok(());
        }
        for (address, lease) in &self.leases_here(ledger).await? {
            let known = match lease.readable() {
                None => Noted::Unreadable(String::new()),
                Some(lease) => self
                    .local_store
                    .lease(self.network, &lease.record.owner())?,
            };
            if matches!(known, Noted::Unreadable(_)) && is_new(ledger, *address) {
                ledger.bar(*address);
            }
        }
        Ok(())
    }

    /// Reads the news again, and tells the store what it has forgotten, if anything. Answers what this node was asked
    /// for. The caller holds the lock; the ledger is saved. The news, unless an answer has changed them.
    pub(super) async fn refresh(
        &self,
        ledger: &mut Ledger,
        spec: Option<&NetworkSpec>,
    ) -> Result<Option<NetworkSnapshot>, Error> {
        let remembered = self.local_store.memory(self.network)?;
        let memory = &remembered.snapshot;
        let (known, mut snapshot) = self.cluster.enrol(self.network, &self.node()).await?;
        let before = memory.nodes.get(&self.host.node).map(Stored::revision);
        let mut lost = before > known;
        let holds = self.holds()?;
        let same = (memory.network.as_ref().zip(snapshot.network.as_ref()))
            .is_some_and(|(memory, present)| memory.record.is_same(&present.record));
        let absent = snapshot.network.is_none();
        if same || (absent && holds) {
            lost |= self
                .cluster
                .restore(self.network, memory, &mut snapshot, &self.node(), holds)
                .await?;
        } else if holds {
            lost = true;
        }
        self.end_restore(memory, &mut snapshot).await?;
        if snapshot.network.is_none() {
            let Some(spec) = spec else {
                self.disown().await?;
                return Err(Error::NoNetwork(self.network.to_owned()));
            };
            self.create(spec).await?;
            lost |= holds;
        }
        if absent {
            // Its ledger is known before what it acts on is read.
            (_, snapshot) = self.cluster.enrol(self.network, &self.node()).await?;
        }
        let network = snapshot.ready_network(self.network)?.clone();
        self.take_back(&network, &mut snapshot).await?;
        let new = ledger.update(&snapshot, &network, &self.host.node);
        self.fill(ledger, &new).await?;
        if self.is_quiet(ledger) {
            self.cluster.register(&self.node()).await?;
            ledger.contact = self.clock.uptime();
        }
        if lost {
            self.publish_anew(ledger).await?;
        }
        self.remember(&remembered, snapshot.clone())?;
        self.save(ledger)?;
        let answered = self.answer(ledger).await?;
        Ok((!answered).then_some(snapshot))
    }

    /// Ends a restore that this host began and has lost its memory of. The caller holds the lock.
    async fn end_restore(
        &self,
        memory: &NetworkSnapshot,
        snapshot: &mut NetworkSnapshot,
    ) -> Result<(), Error> {
        let super::Host { node, boot_id, .. } = self.host;
        if memory.network.is_none()
            && self
                .cluster
                .end_restore(self.network, snapshot, node, boot_id)
                .await?
        {
            *snapshot = self.cluster.snapshot(self.network).await?;
        }
        Ok(())
    }

    /// Keeps the news for the day on which the store forgets them, and notes who has been silent since when. `before` is
    /// what is remembered so far.
    pub(super) fn remember(
        &self,
        before: &Memory,
        mut snapshot: NetworkSnapshot,
    ) -> Result<(), Error> {
        let now = self.clock.uptime();
        let since = |name: &String, revision: u64| match before.observed.get(name) {
            Some((seen, since)) if *seen == revision => *since,
            _ => now,
        };
        let observed = (snapshot.nodes.revisions())
            .map(|(name, revision)| (name.clone(), (revision, since(name, revision))))
            .collect();
        // Blocks never go while their network lives: where these are the older news, the newer record counts.
        let networks = before
            .snapshot
            .network
            .as_ref()
            .zip(snapshot.network.as_ref());
        if networks.is_some_and(|(before, now)| before.record.is_same(&now.record)) {
            for (block, known) in before.snapshot.blocks.readable() {
                // One that cannot be read may be removed by an operator: then this is all that is known of it.
                let present = snapshot.blocks.known(block);
                if present.is_none_or(|present| known.record.is_newer(&present.record)) {
                    snapshot.blocks.insert(*block, known.clone());
                }
            }
        }
        let requests = snapshot
            .blocks
            .readable()
            .flat_map(|(_, block)| &block.record.exclusions);
        let requests = requests.filter(|(_, exclusion)| exclusion.is_request());
        let requests = requests
            .map(|(address, exclusion)| {
                let name = request(*address, exclusion);
                let since = before.requests.get(&name).copied().unwrap_or(now);
                (name, since)
            })
            .collect();
        let memory = Memory {
            snapshot,
            observed,
            requests,
        };
        if memory == *before {
            return Ok(());
        }
        self.local_store.save_memory(self.network, &memory)
    }

    /// Answers what this node was asked for, if anything. What it grants it has noted before as another's; what it has to give back,
    /// as it does not use it, is due when it next gives back.
    async fn answer(&self, ledger: &mut Ledger) -> Result<bool, Error> {
        let node = &self.host.node;
        let asked: Vec<_> = (ledger.blocks.iter())
            .filter(|(_, own)| {
                let asks = |(address, exclusion): (&IpAddr, &Exclusion)| match exclusion.state {
                    ExclusionState::Asked => own.record.is_of(node),
                    _ => exclusion.is_wanted_of(node) && ledger.uses(*address),
                };
                own.record.exclusions.iter().any(asks)
            })
            .map(|(block, own)| {
                let present = Versioned {
                    record: own.record.clone(),
                    revision: own.revision,
                };
                (*block, present)
            })
            .collect();
        let any = !asked.is_empty();
        for (block, present) in asked {
            let in_use = |address| ledger.uses(address);
            let answered = self
                .cluster
                .answer(self.network, node, block, &present, in_use)
                .await?;
            if let Some(answered) = answered {
                ledger.as_of = ledger.as_of.max(answered.revision);
                ledger.put(block, &answered, node);
                self.save(ledger)?;
            }
        }
        Ok(any)
    }
}

/// What tells one request for an address from the next.
pub(super) fn request(address: IpAddr, exclusion: &Exclusion) -> String {
    format!("{address} {} {}", exclusion.node, exclusion.since)
}
