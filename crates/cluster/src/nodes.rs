//! Nodes: a host makes itself known.

use crate::{
    ATTEMPTS, Cluster, Error, Node, Versioned,
    records::{decode, encode},
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
}
