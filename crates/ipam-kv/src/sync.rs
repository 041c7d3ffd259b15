//! Sync: what this host owes the others on its networks, whether or not a verb comes by: all of it, or that of one network
//! on news of it.

use std::collections::BTreeMap;

use cluster::{BlockRecord, Cluster, Error, Resolved, Shelf as _, Versioned};
use ipam::Block;

use crate::{conf::failed, desk::Desk, shelf::Files};

/// Where a host allocates: a network, among the records of the usual configuration or among those of one that keeps
/// them apart (`ipam.dataDir`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// What keeps its records apart, if anything does.
    pub realm: Option<String>,
    /// The network.
    pub network: String,
}

impl Pool {
    /// All of which this host has documents.
    pub fn all() -> Result<Vec<Self>, cni::Error> {
        let mut all = Vec::new();
        for (realm, files) in Files::all().map_err(failed)? {
            let networks = files.networks().map_err(failed)?;
            all.extend(networks.into_iter().map(|network| Self {
                realm: realm.clone(),
                network,
            }));
        }
        Ok(all)
    }

    /// The settings of its configuration.
    pub fn settings(&self, settings: &Resolved) -> Result<Resolved, cni::Error> {
        match &self.realm {
            Some(realm) => settings.clone().apart(realm).map_err(failed),
            None => Ok(settings.clone()),
        }
    }

    /// Whether its blocks, just read, say anything of `node` that this host has not heard. Asks nobody.
    pub fn is_behind(
        &self,
        blocks: &BTreeMap<Block, Versioned<BlockRecord>>,
        node: &str,
    ) -> Result<bool, cni::Error> {
        let files = Files::new(self.realm.as_deref());
        let ledger = files.ledger(&self.network).map_err(failed)?;
        // Without one there are holdings alone, of which the store tells more.
        Ok(ledger.is_none_or(|ledger| ledger.is_behind(blocks, node)))
    }

    /// When this node has to make itself known again on a network that reclaims, as seconds since boot.
    pub fn contact_due(&self) -> Result<Option<u64>, cni::Error> {
        let ledger = Files::new(self.realm.as_deref()).ledger(&self.network);
        Ok(ledger
            .map_err(failed)?
            .and_then(|ledger| ledger.contact_due()))
    }

    /// This host's duties on it; what could not be done is returned.
    pub async fn sync(&self, settings: &Resolved) -> Result<Vec<Error>, cni::Error> {
        let desk = Desk::new(self.settings(settings)?)?;
        Ok(failures(desk.open().allocator(&self.network).sync().await))
    }
}

/// All of this host's duties on its networks: the store is told what it missed or forgot, other hosts get their answers. What
/// failed is returned, with its network.
pub async fn sync(settings: &Resolved) -> Result<Vec<(String, Error)>, cni::Error> {
    let mut failed_ones = Vec::new();
    for (realm, files) in Files::all().map_err(failed)? {
        let settings = match realm {
            Some(realm) => settings.clone().apart(&realm).map_err(failed)?,
            None => settings.clone(),
        };
        let desk = Desk::new(settings)?;
        let open = desk.open();
        let mut networks = files.networks().map_err(failed)?;
        networks.extend(kept(open.cluster(), desk.node()).await?);
        networks.sort();
        networks.dedup();
        for network in networks {
            let failures = failures(open.allocator(&network).sync().await).into_iter();
            failed_ones.extend(failures.map(|error| (network.clone(), error)));
        }
    }
    Ok(failed_ones)
}

/// After a reboot the store alone knows on which networks this node was.
async fn kept(cluster: &Cluster<'_>, node: &str) -> Result<Vec<String>, cni::Error> {
    cluster.ledgers_of(node).await.map_err(failed)
}

fn failures(done: Result<Vec<Error>, Error>) -> Vec<Error> {
    done.unwrap_or_else(|error| vec![error])
}
