//! Sync: this host's duties to the others on its networks, without a verb: all of them, or those of one network
//! when a record of it changed.

use std::{collections::BTreeSet, fmt};

use cluster::{DataDir, Error, LocalStore as _, NetworkSnapshot, NetworkState, NodeView, Resolved};

use crate::{context::Context, local_store::FsLocalStore};

/// Where a host allocates: a network of a data directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// The data directory.
    pub data_dir: DataDir,
    /// The network.
    pub network: String,
}

/// The network's full name.
impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.data_dir.full_name(&self.network))
    }
}

impl Pool {
    /// All of which this host has documents.
    pub fn all() -> Result<Vec<Self>, plugin::Error> {
        let mut all = Vec::new();
        for files in FsLocalStore::all()? {
            all.extend(files.networks()?.into_iter().map(|network| Self {
                data_dir: files.data_dir().clone(),
                network,
            }));
        }
        Ok(all)
    }

    /// Whether a snapshot of its blocks says anything of `node` that this host has not read. Asks nobody.
    pub fn is_behind(&self, snapshot: &NetworkSnapshot, node: &str) -> Result<bool, plugin::Error> {
        let ledger = FsLocalStore::new(&self.data_dir).ledger(&self.network)?;
        // Without a ledger there are only local leases, and a sync reads the rest from the store.
        Ok(ledger.is_none_or(|ledger| ledger.is_behind(&snapshot.blocks, node)))
    }

    /// When this node has to make itself known again on a network that reclaims, as seconds since boot.
    pub fn contact_due(&self) -> Result<Option<u64>, plugin::Error> {
        let ledger = FsLocalStore::new(&self.data_dir).ledger(&self.network);
        Ok(ledger?.and_then(|ledger| ledger.contact_due()))
    }

    /// This host's duties on it; what could not be done is returned.
    pub async fn sync(&self, settings: &Resolved) -> Result<Vec<Error>, plugin::Error> {
        let context = Context::new(settings.within(&self.data_dir)?)?;
        Ok(sync_network(&context, &self.network).await)
    }
}

/// All of this host's duties on its networks, those of all data directories: it tells the store what that missed or lost, and answers
/// other hosts. A failure is returned with the network or the data directory, and does not stop the others.
/// `node_view` and `shared` are what the store says of this node's part in the records, and which data directories it has.
pub async fn sync(
    settings: &Resolved,
    node_view: NodeView,
    shared: Result<Vec<DataDir>, Error>,
) -> Result<Vec<(String, Error)>, plugin::Error> {
    let (mut failures, mut node_view) = (Vec::new(), Some(node_view));
    let mut data_dirs: BTreeSet<DataDir> = FsLocalStore::data_dirs()?;
    // After a reboot the store alone knows in which this node was.
    match shared {
        Ok(shared) => data_dirs.extend(shared),
        Err(error) => failures.push(("data directories".to_owned(), error)),
    }
    for data_dir in data_dirs {
        // It is that of the default one, which is the first.
        let node_view = node_view.take();
        let synced = match settings.within(&data_dir) {
            Ok(settings) => sync_data_dir(Context::new(settings)?, node_view).await,
            Err(error) => Err(error),
        };
        let all = || {
            (data_dir.directory()).map_or_else(
                || "networks".to_owned(),
                |directory| format!("data directory {directory}"),
            )
        };
        failures.extend(synced.unwrap_or_else(|error| vec![(all(), error)]));
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
        let data_dir = context.settings().layout.data_dir();
        format!("network {}", data_dir.full_name(network))
    };
    let open = context.open();
    let mut networks = context.files().networks()?;
    let node_view = match node_view {
        Some(node_view) => node_view,
        None => open.cluster().node_view(context.node()).await?,
    };
    for network in node_view.networks.readable().map(|(_, it)| &it.record) {
        // The verb that created it was killed, or had no time left.
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
