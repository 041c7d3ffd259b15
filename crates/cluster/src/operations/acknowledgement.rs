//! Acknowledgements: which hosts are members of a network, and which snapshot each forwards by.
//!
//! A host joins *before* it reads the snapshot by which it forwards, and acknowledges *after* it has applied it. So a host that
//! wants an address that lost its home at revision R only has to read the acknowledgements: each host that could still send to
//! the old home has one with less than R. A host that joins later reads a snapshot in which the old home is gone.

use std::{collections::BTreeMap, time::Duration};

use store::{Entry, Key, Op, Outcome};

use crate::{
    ATTEMPTS, Acknowledgement, Cluster, Error, ExclusionState, LedgerRecord, Network,
    NetworkSnapshot, Node, Records, Stored, Versioned,
    operations::nodes::boot_of,
    records::{decode, encode},
    stored,
};

/// A wait is cut into this many parts. A change ends a part early.
pub(crate) const WAKES: u32 = 16;

impl Cluster<'_> {
    /// Makes `node` a member of `network`. From now on no address of the network changes its home before `node` has acknowledged that.
    /// One read and usually one write. The
    /// snapshot by which the node forwards must be read after this. Fails with [`Error::NoNetwork`] if there is no such
    /// network, or it is being removed.
    pub async fn join(
        &self,
        network: &str,
        node: &str,
        boot_id: &str,
    ) -> Result<Versioned<Acknowledgement>, Error> {
        let record = Acknowledgement {
            boot_id: boot_id.to_owned(),
            seen: 0,
        };
        // Written even if it exists, so that the delete of an earlier leave that is still under way fails.
        let (key, value) = (self.layout.ack(network, node)?, encode(&record)?);
        let written = self.write_on(network, &key, &value, |_| Ok(false)).await?;
        let revision = written.ok_or_else(|| Error::NoNetwork(network.to_owned()))?;
        Ok(Versioned { record, revision })
    }

    /// Writes `key`, a record of `network`, while that network exists and is not being removed. Returns the new revision;
    /// `None` if there is no such network. If `stands` accepts the present record, it stays as it is.
    async fn write_on(
        &self,
        network: &str,
        key: &Key,
        value: &[u8],
        stands: impl Fn(&Entry) -> Result<bool, Error>,
    ) -> Result<Option<u64>, Error> {
        let own = self.layout.network(network)?;
        for _ in 0..ATTEMPTS {
            let entries = self.store.read(&[own.clone(), key.clone()]).await?;
            let find = |key: &Key| entries.iter().find(|entry| entry.key == *key);
            let there = find(&own).map(decode::<Network>).transpose()?;
            let Some(there) = there.filter(|it| !it.record.is_being_removed()) else {
                return Ok(None);
            };
            let (key, value) = (key.clone(), value.to_vec());
            let write = match find(&key) {
                Some(present) if stands(present)? => return Ok(Some(present.revision)),
                Some(present) => Op::Swap {
                    key,
                    value,
                    revision: present.revision,
                },
                None => Op::Create { key, value },
            };
            let check = Op::Check {
                key: own.clone(),
                revision: there.revision,
            };
            if let Some(revisions) = self.done(&[check, write]).await? {
                return Ok(revisions.last().copied());
            }
        }
        Err(Error::Contended(key.as_str().to_owned()))
    }

    /// Acknowledges that `node` forwards by `snapshot` now. Writes only if something lost its home since the last time. If the
    /// store has lost the membership, the node joins again without an acknowledgement, and must read the snapshot once more.
    pub async fn acknowledge(
        &self,
        network: &str,
        node: &str,
        snapshot: &NetworkSnapshot,
        own: &Versioned<Acknowledgement>,
    ) -> Result<Versioned<Acknowledgement>, Error> {
        if snapshot.last_dropped() <= own.record.seen {
            return Ok(own.clone());
        }
        let record = Acknowledgement {
            seen: snapshot.revision(),
            ..own.record.clone()
        };
        let key = self.layout.ack(network, node)?;
        match self
            .store
            .swap(&key, &encode(&record)?, own.revision)
            .await?
        {
            Some(revision) => Ok(Versioned { record, revision }),
            None => self.join(network, node, &own.record.boot_id).await,
        }
    }

    /// Ends the membership of `node`, which joined at `revision`. Does nothing if it has joined again since.
    pub async fn leave(&self, network: &str, node: &str, revision: u64) -> Result<(), Error> {
        let key = self.layout.ack(network, node)?;
        let mut revision = revision;
        while !self.store.delete(&key, revision).await? {
            match self.store.get(&key).await? {
                // Revisions only grow, so this is an earlier join of this node that a restore of the store brought back.
                Some(present) if present.revision < revision => revision = present.revision,
                _ => break,
            }
        }
        Ok(())
    }

    /// The members of `network` other than `node`, and the revision that each has acknowledged. A node whose record cannot be
    /// read counts as not rebooted since it joined. An acknowledgement that cannot be read counts as 0.
    pub(crate) async fn forwarders(
        &self,
        network: &str,
        node: &str,
    ) -> Result<BTreeMap<String, u64>, Error> {
        let (acks, nodes) = (self.layout.acks(network)?, self.layout.nodes()?);
        let entries = self.store.read(&[acks.clone(), nodes.clone()]).await?;
        let known = entries.iter().filter_map(|it| stored::node(it, &nodes));
        let known: Records<String, Node> = known.collect();
        let mut seen = BTreeMap::new();
        for entry in &entries {
            let Some(name) = stored::name_below(entry, &acks) else {
                continue;
            };
            // A node that was removed does not forward any more.
            let (Some(forwarder), true) = (known.get(name), name != node) else {
                continue;
            };
            match Stored::<Acknowledgement>::of(entry).readable() {
                None => drop(seen.insert(name.to_owned(), 0)),
                Some(ack) => {
                    // Nor does one that has booted since.
                    let boot = forwarder.readable().map(|it| &it.record.boot_id);
                    if boot.is_none_or(|boot| *boot == ack.record.boot_id) {
                        seen.insert(name.to_owned(), ack.record.seen);
                    }
                }
            }
        }
        Ok(seen)
    }

    /// The members of `network` other than `node` that may still send to a home that ended at `revision`.
    pub async fn waiting_for(
        &self,
        network: &str,
        node: &str,
        revision: u64,
    ) -> Result<Vec<String>, Error> {
        let forwarders = self.forwarders(network, node).await?.into_iter();
        Ok(forwarders
            .filter(|(_, seen)| *seen < revision)
            .map(|(name, _)| name)
            .collect())
    }

    /// What of `network` is waiting to change its home, each with the nodes that it waits for. A block or an address without a
    /// home waits for the members that may still send to its last home; a request for an address waits for its owner's answer.
    pub async fn stuck(&self, network: &str) -> Result<Vec<(String, Vec<String>)>, Error> {
        let snapshot = self.snapshot(network).await?;
        let forwarders = self.forwarders(network, "").await?;
        let late = |revision: u64| {
            let late = forwarders.iter().filter(|(_, seen)| **seen < revision);
            late.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let mut stuck = Vec::new();
        for (block, Versioned { record, revision }) in snapshot.blocks.readable() {
            if !record.has_owner() {
                let (first, prefix) = (block.first(), block.prefix());
                let what = format!("block {first}/{prefix}, given back by {}", record.node);
                stuck.push((what, late(record.dropped.unwrap_or(*revision))));
            }
            for (address, exclusion) in &record.exclusions {
                let (asked, of) = (exclusion.state == ExclusionState::Asked, &exclusion.node);
                let (what, waits) = match exclusion.dropped_at(*revision) {
                    _ if asked && record.has_owner() => ("requested by", vec![record.node.clone()]),
                    Some(dropped) => ("moving from or to", late(dropped)),
                    None if exclusion.wanted => ("requested from", vec![of.clone()]),
                    None => continue,
                };
                stuck.push((format!("address {address}, {what} {of}"), waits));
            }
        }
        stuck.retain(|(_, nodes)| !nodes.is_empty());
        Ok(stuck)
    }

    /// Waits for at most `patience` until all members have dropped a home that ended at `revision`. Returns those that have
    /// not.
    pub async fn all_dropped(
        &self,
        network: &str,
        node: &str,
        revision: u64,
        patience: Duration,
    ) -> Result<Vec<String>, Error> {
        let mut late = self.waiting_for(network, node, revision).await?;
        if patience.is_zero() {
            return Ok(late);
        }
        let acks = self.layout.acks(network)?;
        let mut index = 0;
        for _ in 0..=WAKES {
            if late.is_empty() {
                break;
            }
            // Index 0 answers at once with the present index; the next read sees what changed before it.
            index = self
                .store
                .watch(&acks, index, patience / WAKES)
                .await?
                .index;
            late = self.waiting_for(network, node, revision).await?;
        }
        Ok(late)
    }

    /// Publishes that `node` keeps a ledger of `network`: from now on other nodes must ask it for its addresses. It must read
    /// its snapshot after this. One read, and one write unless it was published already. Does nothing if there is no such
    /// network, or it is being removed.
    pub async fn keep_ledger(&self, network: &str, node: &str, boot_id: &str) -> Result<(), Error> {
        let record = LedgerRecord {
            boot_id: boot_id.to_owned(),
        };
        let stands = |entry: &Entry| {
            let kept = Stored::of(entry);
            Ok(boot_of(&kept) == Some(boot_id) || kept.is_newer())
        };
        let key = self.layout.ledger(network, node)?;
        self.write_on(network, &key, &encode(&record)?, stands)
            .await
            .map(drop)
    }

    /// Whether `node` keeps a ledger of `network`, or kept one before it booted.
    pub(crate) async fn keeps_ledger(&self, network: &str, node: &str) -> Result<bool, Error> {
        let key = self.layout.ledger(network, node)?;
        Ok(self.store.get(&key).await?.is_some())
    }

    /// The nodes that keep a ledger of `network`.
    pub(crate) async fn ledgers(
        &self,
        network: &str,
    ) -> Result<Records<String, LedgerRecord>, Error> {
        let all = self.layout.ledgers(network)?;
        let entries = self.store.read(std::slice::from_ref(&all)).await?;
        let ledger = |entry| {
            Some((
                stored::name_below(entry, &all)?.to_owned(),
                Stored::of(entry),
            ))
        };
        Ok(entries.iter().filter_map(ledger).collect())
    }

    /// The conditions under which `node` keeps no ledger of `network`, so that it cannot be giving out any of its addresses
    /// there; `None` if it keeps one, or may.
    pub(crate) async fn idle(&self, network: &str, node: &str) -> Result<Option<Vec<Op>>, Error> {
        let (ledger, own) = (self.layout.ledger(network, node)?, self.layout.node(node)?);
        let entries = self.store.read(&[ledger.clone(), own.clone()]).await?;
        let find = |key| entries.iter().find(|entry| entry.key == key);
        let Some(kept) = find(ledger.clone()) else {
            // As a condition: a delete at revision 0 succeeds only if the key does not exist.
            return Ok(Some(vec![Op::Delete {
                key: ledger,
                revision: 0,
            }]));
        };
        let nodes = self.layout.nodes()?;
        let known = find(own.clone()).and_then(|known| stored::node(known, &nodes));
        let known = known.as_ref().and_then(|(_, known)| known.readable());
        let begun = Stored::of(kept);
        let (Some(known), Some(boot)) = (known, boot_of(&begun)) else {
            return Ok(None);
        };
        let check = |key, revision| Op::Check { key, revision };
        Ok((known.record.boot_id != boot)
            .then(|| vec![check(ledger, kept.revision), check(own, known.revision)]))
    }

    /// Applies `ops`. Returns the revisions, or `None` after a conflict.
    pub(crate) async fn done(&self, ops: &[Op]) -> Result<Option<Vec<u64>>, Error> {
        Ok(match self.store.apply(ops).await? {
            Outcome::Done(revisions) => Some(revisions),
            Outcome::Conflict(_) => None,
        })
    }
}
