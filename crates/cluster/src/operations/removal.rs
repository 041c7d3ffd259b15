//! Removal of a network without attachments, and of a node that will not come back.

use std::net::IpAddr;

use ipam::{Block, Mac};
use store::{Entry, Key, Op, Outcome};

use crate::{
    ATTEMPTS, BlockRecord, BlockState, CHUNK, Cluster, Error, ExclusionState, Lease, MacRecord,
    Network, NetworkState, Node, Restoring, Stored, Versioned,
    records::{RemovedRecord, SubnetsRecord, VniRecord, decode, encode},
    stored,
};

/// Seconds for which the store keeps the ids of removed networks: 30 days.
const REMEMBERED: u64 = 30 * 24 * 60 * 60;
/// Most ids of removed networks of one name that the store keeps: the last ones.
const REMEMBERED_OF_A_NAME: usize = 16;

impl Cluster<'_> {
    /// Removes a network that has no endpoints. First it makes new leases impossible, then it counts the leases, so no
    /// attachment slips in between. Then it deletes the network's record in one transaction with what was claimed with it, and
    /// notes the id as removed: from then on nobody writes anything of the network, and any host can sweep what is left. It
    /// continues an interrupted removal, or reverts it if there are endpoints. `now` is in seconds since 1970.
    pub async fn remove_network(&self, name: &str, now: u64) -> Result<(), Error> {
        let (own, all) = (self.layout.network(name)?, self.layout.subnets()?);
        let (leases, nodes) = (self.layout.leases(name)?, self.layout.nodes()?);
        let removed = self.layout.removed(name)?;
        for _ in 0..ATTEMPTS {
            let entries = self
                .store
                .read(&[own.clone(), leases.clone(), nodes.clone()])
                .await?;
            let Some(network) = entries.iter().find(|e| e.key == own) else {
                return match self.sweep(name, &|_| false).await? {
                    0 => Err(Error::NoNetwork(name.to_owned())),
                    _ => Ok(()),
                };
            };
            let mut network = decode::<Network>(network)?;
            if let Some(Restoring { node, boot_id }) = network.record.restoring.as_deref()
                && lives(&entries, &self.layout.node(node)?, boot_id)
            {
                return Err(Error::Restoring {
                    name: name.to_owned(),
                    node: node.clone(),
                });
            }
            // Counted once before, too: a removal that must be refused leaves the revision that the guards of leases name.
            let held = leases_in(&entries, &leases)?;
            if !held.is_empty() {
                if network.record.state == NetworkState::Removing {
                    self.reopen(network, NetworkState::Ready).await?;
                }
                return Err(in_use(name, held));
            }
            let before = match network.record.state {
                NetworkState::Removing => NetworkState::Ready,
                state => state,
            };
            network.record.state = NetworkState::Removing;
            network.record.restoring = None;
            let Some(revision) = self
                .store
                .swap(&own, &encode(&network.record)?, network.revision)
                .await?
            else {
                continue;
            };
            network.revision = revision;
            let mut keys = vec![all.clone(), leases.clone(), removed.clone()];
            keys.extend(
                network
                    .record
                    .vni
                    .map(|vni| self.layout.vni(vni))
                    .transpose()?,
            );
            let entries = self.store.read(&keys).await?;
            let held = leases_in(&entries, &leases)?;
            if !held.is_empty() {
                self.reopen(network, before).await?;
                return Err(in_use(name, held));
            }
            let find = |key: &Key| entries.iter().find(|e| e.key == *key);
            let mut ops = vec![Op::Delete {
                key: own.clone(),
                revision,
            }];
            let remove = |record: &mut SubnetsRecord| {
                record.networks.remove(name);
                Ok(())
            };
            // A subnets record that cannot be read prevents only creations; this network's entry is swept when the record can
            // be read.
            if !crate::operations::networks::is_unreadable(find(&all)) {
                ops.push(self.swap_subnets(find(&all), remove)?.0);
            }
            let vni = network.record.vni.map(|vni| self.layout.vni(vni));
            let other = |entry: &Entry| match Stored::<VniRecord>::of(entry) {
                Stored::Readable(vni) => vni.record.network != name,
                Stored::Unreadable(_) => false,
            };
            if let Some(entry) = vni.transpose()?.as_ref().and_then(find)
                && !other(entry)
            {
                ops.push(delete(entry));
            }
            if let Some(id) = &network.record.id {
                ops.extend(note_removed(&removed, find(&removed), id, now)?);
            }
            if let Outcome::Done(_) = self.store.apply(&ops).await? {
                self.sweep(name, &|_| false).await?;
                // The network is removed. If old removals cannot be deleted now, the next removal deletes them.
                let _ = self.forget_removals(now).await;
                return Ok(());
            }
        }
        Err(Error::Contended(own.as_str().to_owned()))
    }

    /// Whether an operator has removed this very network. If the record of removals cannot be read, it counts as removed.
    pub async fn was_removed(&self, network: &Network) -> Result<bool, Error> {
        let noted = self.store.get(&self.layout.removed(&network.name)?).await?;
        let noted = noted.as_ref().map(Stored::<RemovedRecord>::of);
        Ok(noted.is_some_and(|noted| noted.may_have(network)))
    }

    /// Deletes old removals: a host that was away for so long restores nothing any more. They must be old by the last contact
    /// of a second host, too, if there is one, so that one clock that is ahead does not delete what others noted.
    async fn forget_removals(&self, now: u64) -> Result<(), Error> {
        let (removed, nodes) = (self.layout.all_removed()?, self.layout.nodes()?);
        let entries = self.store.read(&[removed.clone(), nodes.clone()]).await?;
        let known = entries.iter().filter_map(|it| stored::node(it, &nodes));
        let mut contacts: Vec<u64> = known
            .filter_map(|(_, node)| Some(node.readable()?.record.last_contact))
            .collect();
        contacts.sort_unstable_by(|a, b| b.cmp(a));
        let Some(other) = contacts.get(1).or(contacts.first()) else {
            return Ok(());
        };
        let now = now.min(*other);
        let mut old = Vec::new();
        for entry in entries.iter().filter(|it| it.key.is_within(&removed)) {
            // One that cannot be read may be of today.
            let Stored::Readable(noted) = Stored::<RemovedRecord>::of(entry) else {
                continue;
            };
            let last = noted.record.ids.into_values().max().unwrap_or(0);
            if last.saturating_add(REMEMBERED) < now {
                old.push(delete(entry));
            }
        }
        for chunk in old.chunks(CHUNK) {
            self.done(chunk).await?;
        }
        Ok(())
    }

    /// Lets the network take attachments again. If another host has changed the record meanwhile, that change stays.
    async fn reopen(
        &self,
        mut network: Versioned<Network>,
        state: NetworkState,
    ) -> Result<(), Error> {
        network.record.state = state;
        let own = self.layout.network(&network.record.name)?;
        self.store
            .swap(&own, &encode(&network.record)?, network.revision)
            .await?;
        Ok(())
    }

    /// The leases of a node, each with its network and address; `None` for a lease that cannot be read on an address whose home
    /// is the node.
    pub async fn endpoints_of(
        &self,
        node: &str,
    ) -> Result<Vec<(String, IpAddr, Option<Lease>)>, Error> {
        let (leases, blocks) = (self.layout.all_leases()?, self.layout.all_blocks()?);
        let entries = self.store.read(&[leases.clone(), blocks.clone()]).await?;
        Ok(endpoints(&entries, &leases, &blocks, node))
    }

    /// Removes a node: its blocks have no owner any more, and its leases are deleted. A node that still has leases is removed
    /// only with `force`, which is for dead hosts: the containers of a running one would go on with addresses that others get.
    /// Other hosts claim its blocks when all members have dropped it.
    pub async fn remove_node(&self, name: &str, force: bool) -> Result<(), Error> {
        let key = self.layout.node(name)?;
        let (blocks, leases) = (self.layout.all_blocks()?, self.layout.all_leases()?);
        let beside = [self.layout.all_ledgers()?, self.layout.all_acks()?];
        'again: for _ in 0..ATTEMPTS {
            let read = [
                key.clone(),
                blocks.clone(),
                leases.clone(),
                beside[0].clone(),
                beside[1].clone(),
            ];
            let entries = self.store.read(&read).await?;
            let held = endpoints(&entries, &leases, &blocks, name);
            if !force && !held.is_empty() {
                return Err(Error::NodeInUse {
                    name: name.to_owned(),
                    leases: held,
                });
            }
            // First the blocks: after that the node cannot write a lease, so the leases that are read then are complete.
            let mut ops = Vec::new();
            for entry in entries.iter().filter(|e| e.key.is_within(&blocks)) {
                ops.extend(disowned(entry, name)?);
            }
            // Only the node's own record may be missing: after the store lost data, every host restores blocks, but only a node
            // itself restores its record.
            let named = |e: &Entry| e.key.last() == name && !e.key.is_within(&blocks);
            if ops.is_empty() && held.is_empty() && !entries.iter().any(named) {
                return Err(Error::NoNode(name.to_owned()));
            }
            for chunk in ops.chunks(CHUNK) {
                if self.done(chunk).await?.is_none() {
                    continue 'again;
                }
            }
            let entries = self.store.read(&read).await?;
            let mut doomed: Vec<Op> = leases_of(&entries, &leases, name)
                .into_iter()
                .map(|(entry, ..)| delete(entry))
                .collect();
            let own =
                |e: &&Entry| beside.iter().any(|b| e.key.is_within(b)) && e.key.last() == name;
            doomed.extend(entries.iter().filter(own).map(delete));
            // The node's own record goes last: until then the removal can be repeated by name.
            doomed.extend(entries.iter().filter(|e| e.key == key).map(delete));
            for chunk in doomed.chunks(CHUNK) {
                if self.done(chunk).await?.is_none() {
                    continue 'again;
                }
            }
            return Ok(());
        }
        Err(Error::Contended(key.as_str().to_owned()))
    }
}

/// The write that takes a block, its addresses or a MAC from `node`; `None` if the record has nothing of it.
fn disowned(entry: &Entry, node: &str) -> Result<Option<Op>, Error> {
    if entry.key.last().parse::<Mac>().is_ok() {
        let Stored::Readable(mut mac) = Stored::<MacRecord>::of(entry) else {
            return Ok(None);
        };
        if mac.record.lease.node != node || mac.record.returned {
            return Ok(None);
        }
        mac.record.returned = true;
        return Ok(Some(Op::Swap {
            key: entry.key.clone(),
            value: encode(&mac.record)?,
            revision: mac.revision,
        }));
    }
    let Stored::Readable(present) = Stored::<BlockRecord>::of(entry) else {
        return Ok(None);
    };
    let mut record = present.record.pinned(present.revision);
    if record.node == node && record.state != BlockState::Returned {
        record.state = BlockState::Returned;
        record.dropped = None;
        record.kept = false;
    }
    record.exclusions.retain(|_, exclusion| {
        exclusion.node != node
            || matches!(
                exclusion.state,
                ExclusionState::Given | ExclusionState::Returned
            )
    });
    for exclusion in record.exclusions.values_mut() {
        if exclusion.node == node && exclusion.state == ExclusionState::Given {
            exclusion.state = ExclusionState::Returned;
            exclusion.dropped = None;
        }
    }
    if record == present.record.pinned(present.revision) {
        return Ok(None);
    }
    Ok(Some(Op::Swap {
        key: entry.key.clone(),
        value: encode(&record)?,
        revision: present.revision,
    }))
}

/// The leases of a node among the entries, and those that cannot be read on addresses whose home is the node.
fn endpoints(
    entries: &[Entry],
    leases: &Key,
    blocks: &Key,
    node: &str,
) -> Vec<(String, IpAddr, Option<Lease>)> {
    let readable = leases_of(entries, leases, node).into_iter();
    let mut held: Vec<_> = readable
        .map(|(entry, address, lease)| (network_of(entry), address, Some(lease)))
        .collect();
    let is_its = |network: &str, address: IpAddr| {
        let below = entries.iter().filter(|it| it.key.is_within(blocks));
        below.filter(|it| network_of(it) == network).any(|entry| {
            let block = entry.key.last().parse::<Block>();
            block.is_ok_and(|block| block.contains(address))
                && Stored::<BlockRecord>::of(entry)
                    .readable()
                    .is_some_and(|it| it.record.home(address) == Some(node))
        })
    };
    for entry in entries.iter().filter(|it| it.key.is_within(leases)) {
        if let Some((address, Stored::Unreadable(_))) = lease_below(entry) {
            let network = network_of(entry);
            if is_its(&network, address) {
                held.push((network, address, None));
            }
        }
    }
    held
}

/// The leases of a node among the entries.
fn leases_of<'e>(
    entries: &'e [Entry],
    leases: &Key,
    node: &str,
) -> Vec<(&'e Entry, IpAddr, Lease)> {
    let mut held = Vec::new();
    for entry in entries.iter().filter(|e| e.key.is_within(leases)) {
        // A lease that cannot be read stays: its node is unknown.
        if let Some((address, Stored::Readable(lease))) = lease_below(entry)
            && lease.record.node == node
        {
            held.push((entry, address, lease.record));
        }
    }
    held
}

/// Whether a node is registered, in this boot.
fn lives(entries: &[Entry], node: &Key, boot_id: &str) -> bool {
    let present = entries.iter().find(|entry| entry.key == *node);
    // A node whose record cannot be read counts as alive.
    present.is_some_and(|it| decode::<Node>(it).map_or(true, |it| it.record.boot_id == boot_id))
}

/// The write that notes a network's id as removed. It gets the latest time of its name, whatever the clocks of other hosts
/// said, so that it is the last to be forgotten. `None` if a newer version wrote the record: that stays, and counts as having
/// every id because it cannot be read.
fn note_removed(
    key: &Key,
    present: Option<&Entry>,
    id: &str,
    now: u64,
) -> Result<Option<Op>, Error> {
    let present = present.map(Stored::<RemovedRecord>::of);
    if present.as_ref().is_some_and(Stored::is_newer) {
        return Ok(None);
    }
    let revision = present.as_ref().map(Stored::revision);
    let mut record = match present {
        Some(Stored::Readable(present)) => present.record,
        Some(Stored::Unreadable(_)) | None => RemovedRecord::default(),
    };
    let newest = record.ids.values().max();
    let at = newest.map_or(now, |newest| now.max(newest.saturating_add(1)));
    while record.ids.len() >= REMEMBERED_OF_A_NAME {
        let oldest = record.ids.iter().min_by_key(|(_, at)| **at);
        let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
            break;
        };
        record.ids.remove(&oldest);
    }
    record.ids.insert(id.to_owned(), at);
    let (key, value) = (key.clone(), encode(&record)?);
    Ok(Some(match revision {
        None => Op::Create { key, value },
        Some(revision) => Op::Swap {
            key,
            value,
            revision,
        },
    }))
}

fn delete(entry: &Entry) -> Op {
    Op::Delete {
        key: entry.key.clone(),
        revision: entry.revision,
    }
}

/// The leases among the entries, at or below `leases`.
fn leases_in(entries: &[Entry], leases: &Key) -> Result<Vec<(IpAddr, Lease)>, Error> {
    let leases = entries.iter().filter(|e| e.key.is_within(leases));
    let leases = leases.filter_map(|e| Some((e, lease_below(e)?)));
    let lease = |(entry, (address, lease)): (&Entry, (IpAddr, Stored<Lease>))| {
        Ok((address, lease.or_refuse(&entry.key)?.record))
    };
    leases.map(lease).collect()
}

/// The address and lease of an entry of any network.
fn lease_below(entry: &Entry) -> Option<(IpAddr, Stored<Lease>)> {
    let (network, _) = entry.key.as_str().rsplit_once('/')?;
    stored::lease(entry, &Key::new(network).ok()?)
}

fn in_use(name: &str, leases: Vec<(IpAddr, Lease)>) -> Error {
    Error::InUse {
        name: name.to_owned(),
        leases,
    }
}

/// The network of a lease's or a block's entry: the last path part of its key but one.
fn network_of(lease: &Entry) -> String {
    let mut parts = lease.key.as_str().rsplit('/');
    parts.nth(1).unwrap_or_default().to_owned()
}
