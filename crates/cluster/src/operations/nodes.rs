//! The records of nodes: how a host registers itself, how a second host with the same name or tunnel address is refused, and how a
//! host enrols on a network before it acts there.

use std::net::IpAddr;

use store::{Entry, Op};

use crate::{
    ATTEMPTS, Acknowledgement, Cluster, Error, LedgerRecord, NetworkSnapshot, Node, Records,
    Stored, Versioned, records::encode, stored,
};

impl Cluster<'_> {
    /// Registers `node`, or writes its record again, with the last contact. If `node` has no `vtep`, `machine_id` or `version`,
    /// a known one stays. At most one read and one write if nobody interferes.
    ///
    /// Fails with [`Error::NodeTaken`] if the record is another host's, because the two would take over and release each
    /// other's leases. A record that cannot be read may be another host's: it is written again if other records show that this
    /// host had the name in this boot; otherwise this fails with [`Error::Record`].
    pub async fn register(&self, node: &Node) -> Result<Versioned<Node>, Error> {
        let key = self.layout.node(&node.name)?;
        for _ in 0..ATTEMPTS {
            let entry = self.store.get(&key).await?;
            let nodes = self.layout.nodes()?;
            let stored = entry.and_then(|entry| stored::node(&entry, &nodes));
            let stored = stored.map(|(_, stored)| stored);
            if let Some(Stored::Unreadable(unreadable)) = &stored {
                if !self.had_this_name(node).await? {
                    return Err(unreadable.refusal(&key));
                }
                // A newer version wrote it on this host: it stays as it is.
                if unreadable.is_newer {
                    let (record, revision) = (node.clone(), unreadable.revision);
                    return Ok(Versioned { record, revision });
                }
            }
            let present = stored.as_ref().and_then(Stored::readable);
            if let Some(present) = present.filter(|p| is_another(&p.record, node)) {
                return Err(Error::NodeTaken(Box::new(present.record.clone())));
            }
            let mut record = node.clone();
            let machine_id = present.and_then(|p| p.record.machine_id.clone());
            record.machine_id = record.machine_id.or(machine_id);
            record.vtep = node.vtep.or(present.and_then(|p| p.record.vtep));
            if record.version.is_none()
                && let Some(present) = present
            {
                record.version.clone_from(&present.record.version);
                record.commit.clone_from(&present.record.commit);
            }
            let value = encode(&record)?;
            let written = match stored {
                None => self.store.create(&key, &value).await?,
                Some(present) => self.store.swap(&key, &value, present.revision()).await?,
            };
            if let Some(revision) = written {
                return Ok(Versioned { record, revision });
            }
        }
        Err(Error::Contended(key.as_str().to_owned()))
    }

    /// Whether the store has an acknowledgement or a ledger that `node` wrote in this boot.
    async fn had_this_name(&self, node: &Node) -> Result<bool, Error> {
        let (acks, ledgers) = (self.layout.all_acks()?, self.layout.all_ledgers()?);
        let entries = self.store.read(&[acks.clone(), ledgers]).await?;
        let boot = |entry: &Entry| {
            if entry.key.is_within(&acks) {
                let ack = Stored::<Acknowledgement>::of(entry);
                ack.readable().map(|ack| ack.record.boot_id.clone())
            } else {
                boot_of(&Stored::of(entry)).map(str::to_owned)
            }
        };
        let mut own = entries.iter().filter(|it| it.key.last() == node.name);
        Ok(own.any(|entry| boot(entry).is_some_and(|boot| boot == node.boot_id)))
    }

    /// Fails if another host has the same tunnel address and was heard of since `since`, in seconds since 1970: packets for one
    /// would reach the other. An older record may be of a host that has another address by now. Fails first if the name is
    /// another host's.
    pub fn refuse_double(
        nodes: &Records<String, Node>,
        node: &Node,
        since: u64,
    ) -> Result<(), Error> {
        if let Some(other) = nodes.known(&node.name)
            && is_another(&other.record, node)
        {
            return Err(Error::NodeTaken(Box::new(other.record.clone())));
        }
        let same = |other: &&Node| {
            other.name != node.name && other.vtep.is_some() && other.vtep == node.vtep
        };
        let mut others = nodes.readable().map(|(_, other)| &other.record);
        match others.find(|other| same(other) && other.last_contact >= since) {
            None => Ok(()),
            Some(other) => Err(Error::TunnelTaken {
                node: node.name.clone(),
                other: Box::new(other.clone()),
            }),
        }
    }

    /// Whether the store lets this host write its records: asks it to delete one at a revision that no record has.
    pub async fn may_write(&self, node: &str) -> Result<(), Error> {
        let key = self.layout.node(node)?;
        self.store.delete(&key, u64::MAX).await?;
        Ok(())
    }

    /// Prepares `node` to act on `network`:
    ///
    /// 1. registers it, unless it is registered in this boot;
    /// 2. publishes that it keeps a ledger of the network, unless that is published. Not if there is no such network, or it is
    ///    being removed;
    /// 3. reads the snapshot by which it acts.
    ///
    /// One read if nothing is to be written. Also returns the revision that the node's record had before, `None` if there was no
    /// record: if the host has seen a higher one, the store has lost data.
    pub async fn enrol(
        &self,
        network: &str,
        node: &Node,
    ) -> Result<(Option<u64>, NetworkSnapshot), Error> {
        let ledger = self.layout.ledger(network, &node.name)?;
        let (snapshot, beside) = self.snapshot_beside(network, &ledger).await?;
        let known = snapshot.nodes.get(&node.name).map(Stored::revision);
        let kept = beside.iter().find(|entry| entry.key == ledger);
        let kept = kept.map(Stored::<LedgerRecord>::of);
        let is_known = (snapshot.nodes.known(&node.name))
            .is_some_and(|known| known.record.boot_id == node.boot_id);
        let keeps = |kept: &Stored<_>| boot_of(kept) == Some(node.boot_id.as_str());
        if is_known
            && kept
                .as_ref()
                .is_some_and(|kept| keeps(kept) || kept.is_newer())
        {
            return Ok((known, snapshot));
        }
        if !is_known {
            self.register(node).await?;
        }
        let there = snapshot.network.as_ref();
        let Some(there) = there.filter(|there| !there.record.is_being_removed()) else {
            return Ok((known, snapshot));
        };
        if !kept
            .as_ref()
            .is_some_and(|kept| keeps(kept) || kept.is_newer())
        {
            let key = ledger;
            let value = encode(&LedgerRecord {
                boot_id: node.boot_id.clone(),
            })?;
            let check = Op::Check {
                key: self.layout.network(network)?,
                revision: there.revision,
            };
            let write = match kept.map(|kept| kept.revision()) {
                Some(revision) => Op::Swap {
                    key,
                    value,
                    revision,
                },
                None => Op::Create { key, value },
            };
            if self.done(&[check, write]).await?.is_none() {
                // Another verb of this host was quicker, the answer was lost, or the network has changed.
                self.keep_ledger(network, &node.name, &node.boot_id).await?;
            }
        }
        Ok((known, self.snapshot(network).await?))
    }

    /// One node.
    pub async fn node(&self, name: &str) -> Result<Option<Stored<Node>>, Error> {
        let entry = self.store.get(&self.layout.node(name)?).await?;
        let nodes = self.layout.nodes()?;
        let node = entry.and_then(|entry| stored::node(&entry, &nodes));
        Ok(node.map(|(_, node)| node))
    }

    /// All nodes, by name.
    pub async fn nodes(&self) -> Result<Records<String, Node>, Error> {
        let nodes = self.layout.nodes()?;
        let entries = self.store.read(std::slice::from_ref(&nodes)).await?;
        let all = entries.iter().filter_map(|it| stored::node(it, &nodes));
        Ok(all.collect())
    }
}

/// The boot in which a node began its ledger, if the record can be read.
pub(crate) fn boot_of(ledger: &Stored<LedgerRecord>) -> Option<&str> {
    ledger
        .readable()
        .map(|ledger| ledger.record.boot_id.as_str())
}

/// Whether `present` is another host's record. Within one boot a host stays the same whatever its address (DHCP). Across boots
/// it must have kept its machine id and its tunnel address, as far as both are known: cloned machines share even the id.
pub(crate) fn is_another(present: &Node, node: &Node) -> bool {
    let machines = present.machine_id.as_ref().zip(node.machine_id.as_ref());
    present.boot_id != node.boot_id
        && (machines.is_some_and(|(theirs, ours)| theirs != ours)
            || (present.vtep.zip(node.vtep)).is_some_and(|(theirs, ours)| theirs != ours))
}

/// Why an address cannot be a host's tunnel address, if it cannot: a tunnel ends at exactly one host.
pub fn no_tunnel_address(address: IpAddr) -> Option<&'static str> {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if address.is_unspecified() || matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0) {
        Some("is not the address of a host")
    } else if address.is_loopback() {
        Some("is a loopback address, which no other host reaches")
    } else if address.is_multicast() {
        Some("is a multicast address, and a tunnel ends at one host")
    } else if address == IpAddr::from([255, 255, 255, 255]) {
        Some("is the broadcast address, and a tunnel ends at one host")
    } else if link_local {
        Some("is a link-local address, which tunnels cannot use")
    } else {
        None
    }
}
