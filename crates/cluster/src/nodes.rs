//! Nodes: a host makes itself known.

use crate::{
    ATTEMPTS, Cluster, Error, Node, Versioned,
    records::{decode, encode},
};

impl Cluster<'_> {
    /// Makes `node` known, or brings its record up to date, at least its last contact. A node without `vtep` or
    /// `machine_id` leaves a known one as it is. At most one read and one write when nobody interferes.
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
fn is_another(present: &Node, node: &Node) -> bool {
    let machines = present.machine_id.as_ref().zip(node.machine_id.as_ref());
    present.boot_id != node.boot_id
        && (machines.is_some_and(|(theirs, ours)| theirs != ours)
            || (present.vtep.zip(node.vtep)).is_some_and(|(theirs, ours)| theirs != ours))
}
