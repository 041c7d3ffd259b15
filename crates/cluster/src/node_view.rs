//! The view of one node: what a sync needs of all networks before it looks at each, in two reads.

use std::collections::BTreeMap;

use crate::{CHUNK, Cluster, Error, Network, Node, Records, stored};

/// The records of all nodes and networks, and of one node's part in these.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// All nodes, by name.
    pub nodes: Records<String, Node>,
    /// All networks, by name.
    pub networks: Records<String, Network>,
    /// The revisions of the node's joins, by network. One that the host does not know came back with an older snapshot of the
    /// store.
    pub joins: BTreeMap<String, u64>,
    /// The networks of which the node keeps a ledger, or kept one before its last boot.
    pub ledgers: Vec<String>,
}

impl Cluster<'_> {
    /// One read, and one more for each `CHUNK` of keys, of which each network has two.
    pub async fn node_view(&self, node: &str) -> Result<NodeView, Error> {
        let (nodes, networks) = (self.layout.nodes()?, self.layout.networks()?);
        let mut node_view = NodeView::default();
        for entry in self.store.read(&[nodes.clone(), networks.clone()]).await? {
            if entry.key.is_within(&nodes) {
                node_view.nodes.extend(stored::node(&entry, &nodes));
            } else {
                node_view
                    .networks
                    .extend(stored::network(&entry, &networks));
            }
        }
        let names: Vec<_> = node_view.networks.keys().cloned().collect();
        for names in names.chunks(CHUNK / 2) {
            let own = |name: &String| {
                Ok::<_, Error>((
                    name.clone(),
                    self.layout.ack(name, node)?,
                    self.layout.ledger(name, node)?,
                ))
            };
            let own = names.iter().map(own).collect::<Result<Vec<_>, _>>()?;
            let keys: Vec<_> = own
                .iter()
                .flat_map(|(_, ack, ledger)| [ack.clone(), ledger.clone()])
                .collect();
            let entries = self.store.read(&keys).await?;
            for (name, ack, ledger) in own {
                if entries.iter().any(|entry| entry.key == ledger) {
                    node_view.ledgers.push(name.clone());
                }
                if let Some(join) = entries.iter().find(|entry| entry.key == ack) {
                    node_view.joins.insert(name, join.revision);
                }
            }
        }
        Ok(node_view)
    }
}
