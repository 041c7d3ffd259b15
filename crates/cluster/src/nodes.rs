//! Nodes: a host makes itself known.

use crate::{
    ATTEMPTS, Cluster, Error, LedgerRecord, News, Node, Versioned,
    records::{decode, encode},
};

impl Cluster<'_> {
    /// Makes `node` known, or brings its record up to date, at least its last contact. A node without `vtep`,
    /// `machine_id` or `version` leaves a known one as it is. At most one read and one write when nobody interferes.
    ///
    /// [`Error::NodeTaken`] where the record is another host's: if that lived on, the two would take over and release
    /// each other's leases.
    pub async fn register(&self, node: &Node) -> Result<Versioned<Node>, Error> {
        let key = self.layout.node(&node.name)?;
        for _ in 0..ATTEMPTS {
            let present = self
                .store
                .get(&key)
                .await?
                .map(|entry| decode::<Node>(&entry))
                .transpose()?;
            if let Some(present) = present.as_ref().filter(|p| is_another(&p.record, node)) {
                return Err(Error::NodeTaken(Box::new(present.record.clone())));
            }
            let mut record = node.clone();
            let machine_id = present.as_ref().and_then(|p| p.record.machine_id.clone());
            record.machine_id = record.machine_id.or(machine_id);
            record.vtep = node.vtep.or(present.as_ref().and_then(|p| p.record.vtep));
            if record.version.is_none()
                && let Some(present) = &present
            {
                record.version.clone_from(&present.record.version);
                record.commit.clone_from(&present.record.commit);
            }
            let value = encode(&record)?;
            let written = match present {
                None => self.store.create(&key, &value).await?,
                Some(present) => self.store.swap(&key, &value, present.revision).await?,
            };
            if let Some(revision) = written {
                return Ok(Versioned { record, revision });
            }
        }
        Err(Error::Contended(key.as_str().to_owned()))
    }

    /// Whether the store lets this host write its records: asks it to remove one at a revision that no record has.
    pub async fn may_write(&self, node: &str) -> Result<(), Error> {
        let key = self.layout.node(node)?;
        self.store.delete(&key, u64::MAX).await?;
        Ok(())
    }

    /// Makes sure that `node` is known in this boot and keeps a ledger of `network`, and reads the news that it acts on after
    /// that: one read where all is as it should be. Also the revision of its record before, `None` where the store knew no
    /// such node: one lower than the host has seen, or none, tells that the store has forgotten something.
    pub async fn enrol(&self, network: &str, node: &Node) -> Result<(Option<u64>, News), Error> {
        let ledger = self.layout.ledger(network, &node.name)?;
        let (news, beside) = self.news_beside(network, &ledger).await?;
        let known = news.nodes.get(&node.name).map(|known| known.revision);
        let kept = beside.iter().find(|entry| entry.key == ledger);
        let kept = kept.map(decode::<LedgerRecord>).transpose()?;
        let is_known =
            (news.nodes.get(&node.name)).is_some_and(|known| known.record.boot_id == node.boot_id);
        let keeps = |kept: &Versioned<LedgerRecord>| kept.record.boot_id == node.boot_id;
        if is_known && kept.as_ref().is_some_and(keeps) {
            return Ok((known, news));
        }
        if !is_known {
            self.register(node).await?;
        }
        let value = encode(&LedgerRecord {
            boot_id: node.boot_id.clone(),
        })?;
        let written = match kept {
            Some(kept) if keeps(&kept) => Some(kept.revision),
            Some(kept) => self.store.swap(&ledger, &value, kept.revision).await?,
            None => self.store.create(&ledger, &value).await?,
        };
        if written.is_none() {
            // Another verb of this host was quicker, or its answer was lost.
            self.keep_ledger(network, &node.name, &node.boot_id).await?;
        }
        Ok((known, self.news(network).await?))
    }

    /// One node.
    pub async fn node(&self, name: &str) -> Result<Option<Versioned<Node>>, Error> {
        let entry = self.store.get(&self.layout.node(name)?).await?;
        entry.as_ref().map(decode).transpose()
    }

    /// All nodes, by name.
    pub async fn nodes(&self) -> Result<Vec<Versioned<Node>>, Error> {
        self.store
            .read(&[self.layout.nodes()?])
            .await?
            .iter()
            .map(decode)
            .collect()
    }
}

/// Whether `present` is of another host than `node`. In one boot a host is itself whatever its address (DHCP); over a
/// boot it must have kept machine and tunnel address, as far as both are known: cloned machines share even the id.
pub(crate) fn is_another(present: &Node, node: &Node) -> bool {
    let machines = present.machine_id.as_ref().zip(node.machine_id.as_ref());
    present.boot_id != node.boot_id
        && (machines.is_some_and(|(theirs, ours)| theirs != ours)
            || (present.vtep.zip(node.vtep)).is_some_and(|(theirs, ours)| theirs != ours))
}
