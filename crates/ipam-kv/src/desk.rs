//! The desk of one verb: settings, store and documents, from which it gets its allocator.

use std::time::Duration;

use cluster::{Allocator, Cluster, Error, Holder, Host, NetworkState, Resolved, Shelf, Store};
use journal::{Attachment, clock};

use crate::{conf::failed, shelf::Files};

/// Longest wait for other hosts to let go of an address. A runtime waits for its ADD meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// Seconds for which a freed address rests, unless nothing else is free.
const COOL_DOWN: u64 = 60;

/// What an allocator works with.
pub struct Desk {
    settings: Resolved,
    store: Box<dyn Store>,
    files: Files,
    host: Host,
}

/// The desk with its records open.
pub struct Open<'d> {
    desk: &'d Desk,
    cluster: Cluster<'d>,
}

impl Desk {
    /// The desk of a configuration. Nothing is sent and nothing is written yet.
    pub fn new(settings: Resolved) -> Result<Self, cni::Error> {
        let boot_id = clock::boot_id();
        let boot_id = boot_id.map_err(|error| cni::Error::io(format!("boot id: {error}")))?;
        Ok(Self {
            store: settings.open_store().map_err(failed)?,
            files: Files::new(settings.realm.as_deref()),
            host: Host {
                node: settings.node.clone(),
                boot_id,
                machine_id: clock::machine_id(),
                vtep: settings.vtep,
                place: Some(settings.place()),
            },
            settings,
        })
    }

    /// Opens the records.
    pub fn open(&self) -> Open<'_> {
        Open {
            desk: self,
            cluster: Cluster::new(&*self.store, self.settings.layout.clone()),
        }
    }

    /// The host's documents.
    pub fn files(&self) -> &Files {
        &self.files
    }
}

impl Open<'_> {
    /// The shared records.
    pub fn cluster(&self) -> &Cluster<'_> {
        &self.cluster
    }

    /// The allocator of a network.
    pub fn allocator<'a>(&'a self, network: &'a str) -> Allocator<'a> {
        Allocator {
            cluster: &self.cluster,
            shelf: &self.desk.files,
            clock: &self.desk.files,
            host: &self.desk.host,
            network,
            patience: PATIENCE,
            cool_down: COOL_DOWN,
        }
    }
}

/// The container's side of an attachment.
pub fn holder(attachment: &Attachment) -> Holder {
    Holder {
        container: attachment.container.clone(),
        ifname: attachment.ifname.clone(),
    }
}

/// All of this host's duties on its networks, those of all data directories: the store is told what it missed or forgot, other
/// hosts get their answers. What failed is returned, with the network or the directory that it is of; it is in nobody
/// else's way.
pub async fn sync(settings: &Resolved) -> Result<Vec<(String, Error)>, cni::Error> {
    let mut failures = Vec::new();
    let mut realms = Files::realms().map_err(failed)?;
    // After a reboot the store alone knows in which this node was.
    match Desk::new(settings.clone())?.open().cluster().realms().await {
        Ok(shared) => realms.extend(shared),
        Err(error) => failures.push(("data directories".to_owned(), error)),
    }
    realms.sort();
    realms.dedup();
    for realm in [None].into_iter().chain(realms.into_iter().map(Some)) {
        let place = realm.as_deref().map(cluster::directory_of);
        let place = place.map_or_else(
            || "networks".to_owned(),
            |dir| format!("data directory {dir}"),
        );
        let apart = match &realm {
            Some(realm) => settings.clone().apart(realm),
            None => Ok(settings.clone()),
        };
        match apart {
            Ok(settings) => match sync_realm(Desk::new(settings)?).await {
                Ok(late) => failures.extend(late),
                Err(error) => failures.push((place, error)),
            },
            Err(error) => failures.push((place, error)),
        }
    }
    Ok(failures)
}

/// The same of one realm.
async fn sync_realm(desk: Desk) -> Result<Vec<(String, Error)>, Error> {
    let mut failures = Vec::new();
    let named = |network: &str| {
        let realm = desk.settings.realm.as_deref();
        format!("network {}", cluster::full_name(network, realm))
    };
    let open = desk.open();
    let mut networks = desk.files.networks()?;
    let shared = open.cluster().networks().await?;
    for network in shared.iter().map(|network| &network.record) {
        // Somebody must: who created it was killed, or had no time left.
        if network.state == NetworkState::Creating {
            let finished = open.cluster().finish_network(&network.name).await;
            failures.extend(finished.err().map(|error| (named(&network.name), error)));
        }
    }
    // After a reboot the store alone knows on which networks this node was.
    let shared: Vec<_> = shared.into_iter().map(|it| it.record.name).collect();
    networks.extend(open.cluster().ledgers_of(&desk.host.node, &shared).await?);
    networks.sort();
    networks.dedup();
    for network in networks {
        let synced = match open.allocator(&network).sync().await {
            Err(error @ Error::Elsewhere { .. }) => sync_elsewhere(&desk, &network, error).await,
            synced => synced,
        };
        let failed = synced.unwrap_or_else(|error| vec![error]);
        failures.extend(failed.into_iter().map(|error| (named(&network), error)));
    }
    Ok(failures)
}

/// The same of a network whose conflist names another store than the host's settings, as far as its ledger says how to get in;
/// else why that is refused.
async fn sync_elsewhere(desk: &Desk, network: &str, refused: Error) -> Result<Vec<Error>, Error> {
    let place = desk.files.ledger(network)?.and_then(|ledger| ledger.place);
    let Some(settings) = place.and_then(|place| desk.settings.at(&place)) else {
        return Err(refused);
    };
    let store = settings.open_store()?;
    let cluster = Cluster::new(&*store, settings.layout.clone());
    let host = Host {
        place: Some(settings.place()),
        ..desk.host.clone()
    };
    let open = desk.open();
    let allocator = Allocator {
        cluster: &cluster,
        host: &host,
        ..open.allocator(network)
    };
    allocator.sync().await
}
