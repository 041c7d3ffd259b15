//! The desk of one verb: settings, store and documents, from which it gets its allocator.

use std::time::Duration;

use cluster::{Allocator, Cluster, Holder, Host, Resolved, Store};
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
                tunnel: journal::tunnel::vtep(),
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

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.host.node
    }

    /// What the desk was opened with.
    pub fn settings(&self) -> &Resolved {
        &self.settings
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
