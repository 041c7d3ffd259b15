//! Operations on the ledger, without store or clock: which addresses are in use, which may be chosen, and what a new snapshot
//! changes.

use std::{collections::BTreeSet, net::IpAddr};

use ipam::{Block, OwnBlocks, Range, Used, offset};

use crate::{
    BlockRecord, LeaseGuard, LeaseOwner, Ledger, Network, NetworkSnapshot, Noted, Own,
    PendingChange, Records, Stored, Versioned,
};

impl Ledger {
    /// A ledger of a network, without blocks.
    pub(super) fn new(network: Versioned<Network>) -> Self {
        Self {
            network,
            blocks: [].into(),
            freed: Vec::new(),
            foreign: BTreeSet::new(),
            pending: None,
            leaving: BTreeSet::new(),
            as_of: 0,
            behind: Vec::new(),
            contact: 0,
            store_ref: None,
            begun: 0,
        }
    }

    /// When this node has to register again, on [`Clock::uptime`](crate::Clock::uptime), so that it does not count as silent;
    /// `None` on a network that does not reclaim.
    pub fn contact_due(&self) -> Option<u64> {
        let after = self.network.record.reclaim_after?;
        Some(self.contact.saturating_add(after / 4).saturating_add(1))
    }

    /// Whether these blocks of the network, just read, have something about this node that is new to the ledger: a block or an
    /// address came or went, or another host asks for one.
    pub fn is_behind(&self, blocks: &Records<Block, BlockRecord>, node: &str) -> bool {
        let of_us =
            |record: &BlockRecord| record.is_of(node) || record.given_to(node).next().is_some();
        let known = |block: &Block| self.blocks.get(block).map(|own| own.revision);
        let present = |block: &Block| blocks.get(block).map(Stored::revision);
        let is_its = |block: &Block| self.network.record.has_block(*block);
        // The host's own writes may be newer than the answer of a watch that was under way.
        let heard = |block: &Block| known(block) >= present(block);
        blocks
            .readable()
            .any(|(block, present)| of_us(&present.record) && is_its(block) && !heard(block))
            || self
                .blocks
                .keys()
                .any(|block| present(block).is_none() || !heard(block))
    }

    /// The block that decides about an address.
    pub(super) fn block_of(&self, address: IpAddr) -> Option<Block> {
        let range = self.network.record.range_of(address)?;
        self.network.record.block_of(range, address)
    }

    /// Notes whether an address is in use. Ignores addresses outside this host's blocks.
    pub(super) fn mark(&mut self, address: IpAddr, in_use: bool) {
        let own = self
            .block_of(address)
            .and_then(|block| Some((block, self.blocks.get_mut(&block)?)));
        let Some((block, own)) = own else { return };
        let Some(bit) = bit(block, address) else {
            return;
        };
        if in_use {
            own.used.insert(bit);
        } else {
            own.used.remove(bit);
        }
    }

    /// Notes that an address of this host is in use, although no local lease has it.
    pub(super) fn bar(&mut self, address: IpAddr) {
        self.mark(address, true);
        if self.uses(address) {
            self.foreign.insert(address);
        }
    }

    /// Whether an address of this host's blocks is in use.
    pub(super) fn uses(&self, address: IpAddr) -> bool {
        let block = self.block_of(address);
        let own = block.and_then(|block| self.blocks.get(&block).zip(bit(block, address)));
        own.is_some_and(|(own, bit)| own.used.contains(bit))
    }

    /// Marks the addresses as in use by `owner`.
    pub(super) fn take(&mut self, owner: &LeaseOwner, addresses: &[IpAddr]) {
        self.freed
            .retain(|(address, _)| !addresses.contains(address));
        for address in addresses {
            self.mark(*address, true);
        }
        self.pending = Some(pending(owner, addresses));
    }

    /// Frees the addresses of `owner`; they rest from `now` on.
    pub(super) fn free(&mut self, owner: &LeaseOwner, addresses: &[IpAddr], now: u64) {
        for address in addresses {
            if self.uses(*address) {
                self.mark(*address, false);
                self.freed.push((*address, now));
            }
        }
        self.pending = Some(pending(owner, addresses));
    }

    /// Frees addresses that were chosen and never given out; they need no rest.
    pub(super) fn unchoose(&mut self, owner: &LeaseOwner, addresses: &[IpAddr]) {
        for address in addresses {
            self.mark(*address, false);
        }
        self.pending = Some(pending(owner, addresses));
    }

    /// Completes or reverts the pending change: the local lease decides.
    pub(super) fn settle(&mut self, local_lease: &Noted, now: u64) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        for address in pending.addresses {
            if local_lease.may_hold(address) {
                self.freed.retain(|(freed, _)| *freed != address);
                self.mark(address, true);
            } else if self.uses(address) && !self.foreign.contains(&address) {
                self.mark(address, false);
                self.freed.push((address, now));
            }
        }
    }

    /// The addresses from which ADD may choose. `kept_only` leaves out what is not in a kept block.
    pub(super) fn view(&self, node: &str, kept_only: bool) -> OwnBlocks<'_> {
        let mut held = OwnBlocks {
            blocks: Vec::new(),
            singles: Vec::new(),
            barred: BTreeSet::new(),
            freed: &self.freed,
        };
        for (block, own) in &self.blocks {
            if own.record.is_of(node) {
                if !kept_only || own.record.kept {
                    held.blocks.push((*block, &own.used));
                }
                let barred = own.record.exclusions.keys();
                held.barred
                    .extend(barred.filter(|a| own.record.home(**a) != Some(node)));
            } else if !kept_only {
                let given = own.record.given_to(node);
                // An address that another host asks for is about to be given back.
                let wanted = |address: &IpAddr| own.record.exclusions[address].wanted;
                held.singles
                    .extend(given.filter(|address| !self.uses(*address) && !wanted(address)));
            }
        }
        held
    }

    /// All addresses of this host's blocks, and those that it has by exclusion.
    pub(super) fn addresses<'l>(&'l self, node: &'l str) -> impl Iterator<Item = IpAddr> + 'l {
        self.blocks.iter().flat_map(move |(block, own)| {
            let whole = own.record.is_of(node).then(|| block.addresses());
            let single = own
                .record
                .given_to(node)
                .filter(move |_| !own.record.is_of(node));
            whole.into_iter().flatten().chain(single)
        })
    }

    /// How many [`Self::addresses`] has.
    pub(super) fn size(&self, node: &str) -> u128 {
        let size = |(block, own): (&Block, &Own)| {
            if own.record.is_of(node) {
                block.size()
            } else {
                own.record.given_to(node).count() as u128
            }
        };
        self.blocks.iter().map(size).sum()
    }

    /// Whether this host may give out an address.
    pub(super) fn is_ours(&self, address: IpAddr, node: &str) -> bool {
        let own = self
            .block_of(address)
            .and_then(|block| self.blocks.get(&block));
        own.is_some_and(|own| own.record.home(address) == Some(node))
    }

    /// Whether an address may be given out while the store is away.
    pub(super) fn outlasts(&self, address: IpAddr) -> bool {
        let own = self
            .block_of(address)
            .and_then(|block| self.blocks.get(&block));
        self.network.record.reclaim_after.is_none() || own.is_some_and(|own| own.record.kept)
    }

    /// The conditions under which leases on `addresses` may be published; `None` if one of them is not this host's.
    pub(super) fn guard(&self, addresses: &[IpAddr], node: &str) -> Option<LeaseGuard> {
        let block = |address: &IpAddr| {
            let block = self
                .block_of(*address)
                .filter(|_| self.is_ours(*address, node))?;
            Some((block, self.blocks.get(&block)?.revision))
        };
        Some(LeaseGuard {
            network: self.network.revision,
            held: false,
            blocks: addresses.iter().map(block).collect::<Option<_>>()?,
        })
    }

    /// How many addresses of one set could be given out at once.
    pub(super) fn available(&self, set: &[Range], node: &str, now: u64, cool_down: u64) -> u64 {
        let view = self.view(node, false);
        set.iter()
            .map(|range| view.available(range, now, cool_down))
            .sum()
    }

    /// Takes a block as this host's own write left it, unless the ledger has something newer. Returns whether it did.
    pub(super) fn put(
        &mut self,
        block: Block,
        present: &Versioned<BlockRecord>,
        node: &str,
    ) -> bool {
        if present.revision < self.as_of || self.leaving.contains(&(block, None)) {
            return false;
        }
        self.keep(block, present, node)
    }

    /// Takes network and blocks from a snapshot that was read under the ledger's lock. Returns the blocks that are new here:
    /// the caller must find out which of their addresses are in use.
    pub(super) fn update(
        &mut self,
        snapshot: &NetworkSnapshot,
        network: &Versioned<Network>,
        node: &str,
    ) -> Vec<Block> {
        self.network = network.clone();
        self.as_of = snapshot.revision();
        // A give-back is over when the record no longer gives the block or the address to this node.
        self.leaving.retain(|(block, address)| {
            let present = snapshot.blocks.known(block).map(|present| &present.record);
            present.is_some_and(|record| match address {
                None => record.is_of(node),
                Some(address) => record.given_to(node).any(|given| given == *address),
            })
        });
        let ours = |block: &Block, record: &BlockRecord| {
            (record.is_of(node) || record.given_to(node).next().is_some())
                && !self.leaving.contains(&(*block, None))
        };
        let present: Vec<_> = (snapshot.blocks.readable())
            .filter(|(block, present)| ours(block, &present.record))
            .collect();
        let names: BTreeSet<Block> = present.iter().map(|(block, _)| **block).collect();
        self.blocks.retain(|block, _| names.contains(block));
        let mut new = Vec::new();
        for (block, record) in present {
            if !self.blocks.contains_key(block) {
                new.push(*block);
            }
            self.keep(*block, record, node);
        }
        let still: Vec<_> = self.blocks.keys().copied().collect();
        self.freed
            .retain(|(address, _)| still.iter().any(|block| block.contains(*address)));
        new
    }

    fn keep(&mut self, block: Block, present: &Versioned<BlockRecord>, node: &str) -> bool {
        let mut record = present.record.clone();
        for (leaving, address) in &self.leaving {
            if *leaving == block
                && let Some(address) = address
            {
                record.exclusions.remove(address);
            }
        }
        if !record.is_of(node) && record.given_to(node).next().is_none() {
            return false;
        }
        let revision = present.revision;
        let used = self
            .blocks
            .remove(&block)
            .map_or_else(Used::default, |own| own.used);
        self.blocks.insert(
            block,
            Own {
                revision,
                record,
                used,
            },
        );
        true
    }

    /// Notes that the store does not know the latest state of an attachment.
    pub(crate) fn fall_behind(&mut self, owner: &LeaseOwner) {
        if !self.behind.contains(owner) {
            self.behind.push(owner.clone());
        }
    }
}

fn pending(owner: &LeaseOwner, addresses: &[IpAddr]) -> PendingChange {
    PendingChange {
        owner: owner.clone(),
        addresses: addresses.to_vec(),
    }
}

/// The number of an address in its block.
fn bit(block: Block, address: IpAddr) -> Option<u64> {
    offset(block.first(), address).and_then(|n| u64::try_from(n).ok())
}
