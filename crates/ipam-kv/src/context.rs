//! The context of one verb: settings, store and documents, from which it gets its allocator.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use cluster::{Allocator, Cluster, Host, LeaseOwner, Resolved, Store, no_tunnel_address};
use journal::{Attachment, clock};

use crate::local_store::FsLocalStore;

/// Longest wait for other hosts to let go of an address. A runtime waits for its ADD meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// Seconds for which a freed address rests, unless nothing else is free.
const COOL_DOWN: u64 = 60;

/// What an allocator works with.
pub struct Context {
    settings: Resolved,
    store: Box<dyn Store>,
    files: FsLocalStore,
    host: Host,
}

/// The context with its records open.
pub struct Open<'d> {
    context: &'d Context,
    cluster: Cluster<'d>,
}

impl Context {
    /// The context of a configuration. Nothing is sent and nothing is written yet.
    pub fn new(settings: Resolved) -> Result<Self, plugin::Error> {
        let boot_id = clock::boot_id();
        let boot_id = boot_id.map_err(|error| plugin::Error::io(format!("boot id: {error}")))?;
        Ok(Self {
            store: settings.open_store()?,
            files: FsLocalStore::new(settings.layout.data_dir()),
            host: Host {
                node: settings.node.clone(),
                boot_id,
                machine_id: clock::machine_id(),
                vtep: settings.vtep.filter(is_of_this_host),
                tunnel: journal::tunnel::vtep(),
                store_ref: Some(settings.store_ref()),
                version: Some(cni::build::VERSION.to_owned()),
                commit: Some(cni::build::COMMIT.to_owned()),
            },
            settings,
        })
    }

    /// Opens the records.
    pub fn open(&self) -> Open<'_> {
        Open {
            context: self,
            cluster: Cluster::new(&*self.store, self.settings.layout.clone()),
        }
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.host.node
    }

    /// The settings with which the context was opened.
    pub fn settings(&self) -> &Resolved {
        &self.settings
    }

    /// The host's documents.
    pub fn files(&self) -> &FsLocalStore {
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
            local_store: &self.context.files,
            clock: &self.context.files,
            host: &self.context.host,
            network,
            patience: PATIENCE,
            cool_down: COOL_DOWN,
        }
    }
}

/// Whether tunnels of this host can end at the address, for a host on which no interface plugin has said so yet: only an
/// address of the host can be bound.
fn is_of_this_host(address: &IpAddr) -> bool {
    no_tunnel_address(*address).is_none() && UdpSocket::bind((*address, 0)).is_ok()
}

/// The container's side of an attachment.
pub fn owner(attachment: &Attachment) -> LeaseOwner {
    LeaseOwner {
        container: attachment.container.clone(),
        ifname: attachment.ifname.clone(),
    }
}
