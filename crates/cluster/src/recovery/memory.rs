//! What a host remembers of a network: the snapshot that it read last, since when each node has been silent, and since when each
//! request for an address has waited. After the store has lost records, they are restored from this memory. Document:
//! `memory/NETWORK.json`.

use std::net::IpAddr;

use crate::{Allocator, Error, Exclusion, Memory, NetworkSnapshot, Stored};

impl Allocator<'_> {
    /// Writes again what this host remembers and the store has lost, and reads that into `snapshot`. `known` is the revision that
    /// this node's record had before this verb, and `holds` says whether containers here have addresses. Returns whether their
    /// leases may be lost, too. The caller holds the lock.
    pub(crate) async fn restore_lost(
        &self,
        memory: &NetworkSnapshot,
        known: Option<u64>,
        snapshot: &mut NetworkSnapshot,
        holds: bool,
    ) -> Result<bool, Error> {
        let before = memory.nodes.get(&self.host.node).map(Stored::revision);
        let mut lost = before > known;
        let is_same = (memory.network.as_ref().zip(snapshot.network.as_ref()))
            .is_some_and(|(memory, present)| memory.record.is_same(&present.record));
        if is_same || (snapshot.network.is_none() && holds) {
            lost |= self
                .cluster
                .restore(self.network, memory, snapshot, &self.node(), holds)
                .await?;
        } else if holds {
            lost = true;
        }
        self.end_restore(memory, snapshot).await?;
        Ok(lost)
    }

    /// Ends a restore that this host began but no longer remembers. The caller holds the lock.
    pub(crate) async fn end_restore(
        &self,
        memory: &NetworkSnapshot,
        snapshot: &mut NetworkSnapshot,
    ) -> Result<(), Error> {
        let crate::Host { node, boot_id, .. } = self.host;
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

    /// Keeps the snapshot in case the store loses its data, and notes since when each node has been silent. `before` is what
    /// was remembered so far.
    pub(crate) fn remember(
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
        // A block's record is never deleted while its network exists. If the snapshot is the older one, the newer record
        // counts.
        let networks = before
            .snapshot
            .network
            .as_ref()
            .zip(snapshot.network.as_ref());
        if networks.is_some_and(|(before, now)| before.record.is_same(&now.record)) {
            for (block, known) in before.snapshot.blocks.readable() {
                // An operator may remove a record that cannot be read; then only this copy is left.
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
}

/// Identifies one request for an address.
pub(crate) fn request(address: IpAddr, exclusion: &Exclusion) -> String {
    format!("{address} {} {}", exclusion.node, exclusion.since)
}
