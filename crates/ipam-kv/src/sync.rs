//! Sync: what this host owes the others on its networks, whether or not a verb comes by: all of it, or that of one network
//! on news of it.

use cluster::{Error, LocalStore as _, NetworkSnapshot, NetworkState, NodeView, Resolved};

use crate::{context::Context, local_store::FsLocalStore};

/// Where a host allocates: a network, among the records of the usual configuration or among those of one that keeps
/// them apart (`ipam.dataDir`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// What keeps its records apart, if anything does.
    pub data_dir: Option<String>,
    /// The network.
    pub network: String,
}

impl Pool {
    /// All of which this host has documents.
    pub fn all() -> Result<Vec<Self>, plugin::Error> {
        let mut all = Vec::new();
        for (data_dir, files) in FsLocalStore::all()? {
            let networks = files.networks()?;
            all.extend(networks.into_iter().map(|network| Self {
                data_dir: data_dir.clone(),
                network,
            }));
        }
        Ok(all)
    }

    /// The settings of its configuration.
    pub fn settings(&self, settings: &Resolved) -> Result<Resolved, plugin::Error> {
        let apart = settings.clone().apart(self.data_dir.as_deref());
        Ok(apart?)
    }

    /// Whether news of its blocks say anything of `node` that this host has not heard. Asks nobody.
    pub fn is_behind(&self, snapshot: &NetworkSnapshot, node: &str) -> Result<bool, plugin::Error> {
        let files = FsLocalStore::new(self.data_dir.as_deref());
        let ledger = files.ledger(&self.network)?;
        // Without one there are local leases alone, of which the store tells more.
        Ok(ledger.is_none_or(|ledger| ledger.is_behind(&snapshot.blocks, node)))
    }

    /// When this node has to make itself known again on a network that reclaims, as seconds since boot.
    pub fn contact_due(&self) -> Result<Option<u64>, plugin::Error> {
        let ledger = FsLocalStore::new(self.data_dir.as_deref()).ledger(&self.network);
        Ok(ledger?.and_then(|ledger| ledger.contact_due()))
    }

    /// This host's duties on it; what could not be done is returned.
    pub async fn sync(&self, settings: &Resolved) -> Result<Vec<Error>, plugin::Error> {
        let context = Context::new(self.settings(settings)?)?;
        Ok(sync_network(&context, &self.network).await)
    }
}

/// All of this host's duties on its networks, those of all data directories: the store is told what it missed or forgot, other
/// hosts get their answers. What failed is returned, with the network or the directory that it is of; it is in nobody
/// else's way.
/// `node_view` and `shared` are what the store says of this node's part in the records, and which directories it has.
pub async fn sync(
    settings: &Resolved,
    node_view: NodeView,
    shared: Result<Vec<String>, Error>,
) -> Result<Vec<(String, Error)>, plugin::Error> {
    let (mut failures, mut node_view) = (Vec::new(), Some(node_view));
    let mut data_dirs = FsLocalStore::data_dirs()?;
    // After a reboot the store alone knows in which this node was.
    match shared {
        Ok(shared) => data_dirs.extend(shared),
        Err(error) => failures.push(("data directories".to_owned(), error)),
    }
    data_dirs.sort();
    data_dirs.dedup();
    for data_dir in [None].into_iter().chain(data_dirs.into_iter().map(Some)) {
        let place = data_dir.as_deref().map(cluster::directory_of);
        let place = place.map_or_else(
            || "networks".to_owned(),
            |dir| format!("data directory {dir}"),
        );
        let node_view = node_view.take();
        match settings.clone().apart(data_dir.as_deref()) {
            Ok(settings) => match sync_data_dir(Context::new(settings)?, node_view).await {
                Ok(late) => failures.extend(late),
                Err(error) => failures.push((place, error)),
            },
            Err(error) => failures.push((place, error)),
        }
    }
    Ok(failures)
}

/// The same of one data directory, whose view is read if the caller has none.
async fn sync_data_dir(
    context: Context,
    node_view: Option<NodeView>,
) -> Result<Vec<(String, Error)>, Error> {
    let mut failures = Vec::new();
    let named = |network: &str| {
        let data_dir = context.settings().data_dir.as_deref();
        format!("network {}", cluster::full_name(network, data_dir))
    };
    let open = context.open();
    let mut networks = context.files().networks()?;
    let node_view = match node_view {
        Some(node_view) => node_view,
        None => open.cluster().node_view(context.node()).await?,
    };
    for network in node_view.networks.readable().map(|(_, it)| &it.record) {
        // Somebody must: who created it was killed, or had no time left.
        if network.state == NetworkState::Creating {
            let finished = open.cluster().finish_network(&network.name).await;
            failures.extend(finished.err().map(|error| (named(&network.name), error)));
        }
    }
    // After a reboot the store alone knows on which networks this node was.
    networks.extend(node_view.ledgers);
    networks.sort();
    networks.dedup();
    for network in networks {
        let failed = sync_network(&context, &network).await;
        failures.extend(failed.into_iter().map(|error| (named(&network), error)));
    }
    Ok(failures)
}

/// The same of one network.
async fn sync_network(context: &Context, network: &str) -> Vec<Error> {
    let synced = context.open().allocator(network).sync().await;
    synced.unwrap_or_else(|error| vec![error])
}
