//! Nodes: a host makes itself known, and an operator removes one that will not come back.

use store::{Op, Outcome};

use crate::{
    ATTEMPTS, CHUNK, Cluster, Error, Node, Versioned,
    records::{BlockRecord, Lease, decode, encode},
};

impl Cluster<'_> {
    /// Makes `node` known, or brings its record up to date. A node without `vtep` leaves a known one as it is.
    /// At most one read and one write when nobody interferes.
    pub async fn register(&self, node: &Node) -> Result<Versioned<Node>, Error> {
        let key = self.layout.node(&node.name)?;
        for _ in 0..ATTEMPTS {
            let present = self
                .store
                .get(&key)
                .await?
                .map(|entry| decode::<Node>(&entry))
                .transpose()?;
            let mut record = node.clone();
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

    /// Forgets a node with all that it owned: its blocks and leases are free at once.
    pub async fn remove_node(&self, name: &str) -> Result<(), Error> {
        let key = self.layout.node(name)?;
        let read = [
            key.clone(),
            self.layout.all_blocks()?,
            self.layout.all_leases()?,
        ];
        'again: for _ in 0..ATTEMPTS {
            let entries = self.store.read(&read).await?;
            let node = entries
                .iter()
                .find(|e| e.key == key)
                .ok_or_else(|| Error::NoNode(name.to_owned()))?;
            let mut doomed = Vec::new();
            for entry in &entries {
                let owner = if entry.key.is_within(&read[1]) {
                    decode::<BlockRecord>(entry)?.record.node
                } else if entry.key.is_within(&read[2]) {
                    decode::<Lease>(entry)?.record.node
                } else {
                    continue;
                };
                if owner == name {
                    doomed.push(Op::Delete {
                        key: entry.key.clone(),
                        revision: entry.revision,
                    });
                }
            }
            // The node's own record goes last: until then the removal can be repeated by name.
            doomed.push(Op::Delete {
                key: key.clone(),
                revision: node.revision,
            });
            for chunk in doomed.chunks(CHUNK) {
                if let Outcome::Conflict(_) = self.store.apply(chunk).await? {
                    continue 'again;
                }
            }
            return Ok(());
        }
        Err(Error::Contended(key.as_str().to_owned()))
    }
}
