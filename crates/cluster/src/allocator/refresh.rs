//! Brings the ledger up to date with the store: reads the snapshot, restores what the store has lost
//! ([`recovery`](crate::recovery)), and answers requests of other hosts.

use std::net::IpAddr;

use super::{Allocator, Ledger};
use crate::{Error, Exclusion, ExclusionState, NetworkSnapshot, NetworkSpec, Versioned};

impl Allocator<'_> {
    /// Reads the snapshot again, restores what the store has lost, if anything, and answers what this node was asked for. The
    /// caller holds the lock; the ledger is saved. Returns the snapshot, or `None` if an answer has changed it.
    pub(super) async fn refresh(
        &self,
        ledger: &mut Ledger,
        spec: Option<&NetworkSpec>,
    ) -> Result<Option<NetworkSnapshot>, Error> {
        let remembered = self.local_store.memory(self.network)?;
        let memory = &remembered.snapshot;
        let (known, mut snapshot) = self.cluster.enrol(self.network, &self.node()).await?;
        let holds = self.holds()?;
        let absent = snapshot.network.is_none();
        let mut lost = self
            .restore_lost(memory, known, &mut snapshot, holds)
            .await?;
        if snapshot.network.is_none() {
            let Some(spec) = spec else {
                self.disown().await?;
                return Err(Error::NoNetwork(self.network.to_owned()));
            };
            self.create(spec).await?;
            lost |= holds;
        }
        if absent {
            // The ledger must be published before the snapshot is read by which this host acts.
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

    /// Answers what this node was asked for, and returns whether it was asked anything. The ledger no longer gives out what it
    /// grants here. What it has by exclusion and does not use is given back by the next give-back.
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
