//! Capacity, for STATUS: could an ADD get an address on this host?
//!
//! A full pool is no failure on a host that holds some of its addresses, because the host's next DEL makes room. That DEL has
//! to come: Nomad makes no DEL after a STATUS that failed, so a full pool could never be emptied.
//!
//! STATUS is called often, and must answer within a second whatever else is at work. So it takes no lock, because another verb
//! may hold that during all its requests to the store. It needs none: documents are replaced as a whole, so what it reads is
//! consistent. It reads no leases either, because there may be many. Free addresses in other hosts' blocks do not count: an ADD
//! has to ask for them, and nobody can tell in advance whether their owners will answer.

use std::collections::{BTreeMap, BTreeSet};

use ipam::{Block, Choice, RangeSet};

use super::{Allocator, Ledger, foreign_store::Belongs};
use crate::{
    BlockRecord, BlockState, Error, NetworkSnapshot, NetworkSpec, Stored,
    operations::{blocks::no_block, nodes::boot_of, reclaim::is_silent},
};

impl Allocator<'_> {
    /// Whether an ADD on the network that `spec` describes could get an address of each set. Returns the error with which the
    /// ADD would end, if it could only after a DEL on this host; fails with that error if it could not at all. Costs two
    /// requests while this host has free addresses, up to three more if it has none, and one more if the store's name differs
    /// from the one noted.
    pub async fn refusal(&self, spec: &NetworkSpec) -> Result<Option<Error>, Error> {
        let holds = self.holds()?;
        let mut ledger = self.load()?;
        if let Some(known) = &ledger
            && self.belongs(known).await? == Belongs::Elsewhere
        {
            ledger = None;
        }
        if ledger.is_none() {
            self.refuse_second_store().await?;
        }
        let ledger = ledger.filter(|ledger| spec.agree(&ledger.network.record).is_ok());
        // While the store is away, a network that reclaims gives addresses only from kept blocks.
        let has_room = |kept_only: bool| {
            let full = |ledger| !self.lacking(ledger, kept_only).is_empty();
            ledger.as_ref().is_some_and(|ledger| !full(ledger))
        };
        let admitted = async {
            self.cluster.may_lease(self.network).await?;
            self.cluster.admit(spec, &self.node(), holds).await
        };
        let reclaims = |ledger: &Ledger| ledger.network.record.reclaim_after.is_some();
        match admitted.await {
            Err(away) if away.is_away() && ledger.is_some() => {
                return match has_room(ledger.as_ref().is_some_and(reclaims)) {
                    true => Ok(None),
                    false if holds => Ok(Some(away)),
                    false => Err(away),
                };
            }
            // The first ADD creates the network, or a host on it restores it.
            Ok(None) => return Ok(None),
            Ok(Some(_)) if has_room(false) => return Ok(None),
            admitted => drop(admitted?),
        }
        let snapshot = self.cluster.snapshot(self.network).await?;
        let network = snapshot.ready_network(self.network)?;
        // The ledger as an ADD would bring it up to date. The first ADD of a boot begins one with all blocks of this host.
        let mut ledger = ledger.unwrap_or_else(|| Ledger::new(network.clone()));
        let new = ledger.update(&snapshot, network, &self.host.node);
        self.fill(&mut ledger, &new).await?;
        let mut lacking = self.lacking(&ledger, false);
        lacking.retain(|set| !has_untouched(&snapshot, set));
        if lacking.is_empty() {
            return Ok(None);
        }
        match self.could_take_over(&snapshot, &lacking).await {
            Err(full @ Error::Exhausted { .. }) if holds => Ok(Some(full)),
            could => could.map(|()| None),
        }
    }

    /// The sets of which the ledger has no free address, not even a resting one.
    fn lacking<'l>(&self, ledger: &'l Ledger, kept_only: bool) -> Vec<&'l RangeSet> {
        let view = ledger.view(&self.host.node, kept_only);
        let full = |set: &&RangeSet| {
            let mut choices = set
                .iter()
                .map(|range| view.choose(range, self.clock.uptime(), 0));
            choices.all(|choice| choice == Choice::Full)
        };
        ledger.network.record.ranges.iter().filter(full).collect()
    }

    /// Checks that each set has an address in a block that was another host's and can be claimed without asking that host.
    async fn could_take_over(
        &self,
        snapshot: &NetworkSnapshot,
        sets: &[&RangeSet],
    ) -> Result<(), Error> {
        let (name, node) = (self.network, self.host.node.as_str());
        let seen = self.cluster.forwarders(name, node).await?;
        let silent = self.of_the_silent(snapshot, &seen).await?;
        let mut late = BTreeSet::new();
        for set in sets {
            let found = snapshot.blocks.readable().any(|(block, present)| {
                let record = &present.record;
                if !offers(set, *block, record) {
                    return false;
                }
                if record.state != BlockState::Returned {
                    return silent.contains(block);
                }
                let dropped = record.dropped.unwrap_or(present.revision);
                let waits = seen.iter().filter(|(_, seen)| **seen < dropped);
                let waits: Vec<_> = waits.map(|(name, _)| name.clone()).collect();
                let free = record.node == node || waits.is_empty();
                late.extend(waits);
                free
            });
            if !found {
                let why = no_block(name, snapshot, late.into_iter().collect()).to_string();
                let network = name.to_owned();
                return Err(Error::Exhausted { network, why });
            }
        }
        Ok(())
    }

    /// Blocks of hosts that never used them, and, on a network that reclaims, of hosts that have been silent for too long. An
    /// ADD makes them ownerless, and then waits until all members have acknowledged that. A member that is behind already will
    /// not acknowledge in time, so there are no such blocks then.
    async fn of_the_silent(
        &self,
        snapshot: &NetworkSnapshot,
        seen: &BTreeMap<String, u64>,
    ) -> Result<BTreeSet<Block>, Error> {
        if seen.values().any(|seen| *seen < snapshot.last_dropped()) {
            return Ok(BTreeSet::new());
        }
        let ledgers = self.cluster.ledgers(self.network).await?;
        let is_idle = |owner: &String| match (ledgers.get(owner), snapshot.nodes.known(owner)) {
            (None, _) => true,
            (Some(ledger), Some(node)) => {
                boot_of(ledger).is_some_and(|boot| node.record.boot_id != boot)
            }
            (Some(_), None) => false,
        };
        let after = snapshot
            .network
            .as_ref()
            .and_then(|n| n.record.reclaim_after);
        let (now, observed) = (
            self.clock.uptime(),
            self.local_store.memory(self.network)?.observed,
        );
        let is_gone = |owner: &String| {
            let known = snapshot.nodes.get(owner).map(Stored::revision);
            let silent = observed.get(owner).zip(after);
            silent.is_some_and(|((revision, since), after)| {
                Some(*revision) == known && is_silent(*since, now, after)
            })
        };
        let all = snapshot.blocks.readable().filter(|(_, present)| {
            let BlockRecord { node, kept, .. } = &present.record;
            *node != self.host.node
                && (is_idle(node) || (!kept && !seen.contains_key(node) && is_gone(node)))
        });
        Ok(all.map(|(block, _)| *block).collect())
    }
}

/// Whether there is a block for the set that no host ever had.
fn has_untouched(snapshot: &NetworkSnapshot, set: &RangeSet) -> bool {
    let taken = snapshot.blocks.keys().copied().collect();
    let network = snapshot.network.as_ref().map(|network| &network.record);
    network.is_some_and(|network| {
        let free = |range: &ipam::Range| range.free_block(network.block_prefix(range), &taken, 0);
        set.iter().any(|range| free(range).is_some())
    })
}

/// Whether the set has an address in the block that is not an exclusion.
fn offers(set: &RangeSet, block: Block, record: &BlockRecord) -> bool {
    set.iter().any(|range| {
        range.uses(block)
            && block
                .addresses()
                .any(|address| range.offers(address) && !record.exclusions.contains_key(&address))
    })
}
