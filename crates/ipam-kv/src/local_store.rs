//! The host's documents of this plugin, below `/run/crosshost`: ledger, local leases and memory of each network. A reboot
//! loses them with the containers.

use std::{
    any::Any,
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use cluster::{
    Clock, DataDir, Error, LeaseOwner, Ledger, LocalLease, LocalLeases, LocalStore, Memory,
    Network, Noted, StoreRef, Versioned,
};
use journal::{Attachment, Found, Journal, Lock, Unreadable, clock};
use serde::{Serialize, de::DeserializeOwned};

/// Longest wait for another verb of this host.
const PATIENCE: Duration = Duration::from_secs(20);

/// The documents of one data directory.
pub struct FsLocalStore {
    data_dir: DataDir,
    root: PathBuf,
    ledgers: Journal<Ledger>,
    memories: Journal<Memory>,
}

impl FsLocalStore {
    /// Those of a data directory.
    pub fn new(data_dir: &DataDir) -> Self {
        Self::below(Path::new(journal::ROOT), data_dir)
    }

    /// The same below another folder than [`journal::ROOT`].
    pub fn below(root: &Path, data_dir: &DataDir) -> Self {
        let root = data_dir.folder(root);
        Self {
            data_dir: data_dir.clone(),
            ledgers: Journal::new(&root, "ledger"),
            memories: Journal::new(&root, "memory"),
            root,
        }
    }

    /// Those of all data directories of which this host has documents, and of the default one.
    pub fn all() -> Result<Vec<Self>, Error> {
        Ok(Self::data_dirs()?.iter().map(Self::new).collect())
    }

    /// The data directories of which this host has documents, and the default one.
    pub fn data_dirs() -> Result<BTreeSet<DataDir>, Error> {
        let named = names(&DataDir::all(Path::new(journal::ROOT)))?;
        let named = named.into_iter().map(DataDir::from_key);
        Ok([DataDir::default()].into_iter().chain(named).collect())
    }

    /// The data directory.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// The networks of which there is a document.
    pub fn networks(&self) -> Result<Vec<String>, Error> {
        let ledgers = names(&self.root.join("ledger"))?.into_iter();
        let ledgers = ledgers.filter_map(|name| name.strip_suffix(".json").map(str::to_owned));
        let mut networks: Vec<_> = ledgers.filter(|name| !name.starts_with('.')).collect();
        networks.extend(names(&self.root.join("holding"))?);
        networks.sort();
        networks.dedup();
        Ok(networks)
    }

    /// The documents that cannot be read, but for the local leases: what they said comes from the store again.
    pub fn lost(&self) -> Result<Vec<Unreadable>, Error> {
        let (ledgers, memories) = (self.ledgers.all(), self.memories.all());
        let mut lost = ledgers.map_err(|error| local(&error))?.unreadable;
        lost.extend(memories.map_err(|error| local(&error))?.unreadable);
        Ok(lost)
    }

    /// Keeps other verbs of the same attachment out.
    pub fn lock_attachment(&self, attachment: &Attachment) -> Result<Lock, Error> {
        Ok(self.take(&of_attachment(&attachment.hash()))?.passing())
    }

    fn take(&self, name: &str) -> Result<Lock, Error> {
        self.ledgers
            .lock(name, PATIENCE)
            .map_err(|error| local(&error))
    }

    fn local_leases_of(&self, network: &str) -> Journal<LocalLease> {
        Journal::new(&self.root, &format!("holding/{network}"))
    }
}

/// The name of the lock on an attachment.
fn of_attachment(hash: &str) -> String {
    format!("ipam-kv-{hash}")
}

/// The name of a local lease's document.
fn name(network: &str, owner: &LeaseOwner) -> String {
    let LeaseOwner { container, ifname } = owner.clone();
    Attachment {
        network: network.to_owned(),
        container,
        ifname,
    }
    .hash()
}

/// A document that cannot be read counts as absent: the store has its content.
fn readable<T: Serialize + DeserializeOwned>(
    documents: &Journal<T>,
    name: &str,
) -> Result<Option<T>, Error> {
    let loaded = documents.load_readable(name, &unreadable);
    loaded.map_err(|error| local(&error))
}

fn unreadable(error: &Unreadable) {
    cni::log(&error.to_string());
}

/// A local document or lock that could not be used: busy is worth another try, the rest is the host's.
fn local(error: &journal::Error) -> Error {
    match error {
        journal::Error::Busy { .. } => Error::Busy(error.to_string()),
        journal::Error::Io { .. } | journal::Error::Newer { .. } => Error::Local(error.to_string()),
    }
}

/// The names in a directory; none if it does not exist.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |error: io::Error| Error::Local(format!("{}: {error}", dir.display()));
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect::<io::Result<_>>().map_err(failed)
}

#[async_trait(?Send)]
impl LocalStore for FsLocalStore {
    async fn lock(&self, network: &str) -> Result<Box<dyn Any>, Error> {
        Ok(Box::new(self.take(&format!("ledger-{network}"))?))
    }

    async fn lock_claims(&self, network: &str) -> Result<Box<dyn Any>, Error> {
        Ok(Box::new(self.take(&format!("claims-{network}"))?))
    }

    fn lock_idle(&self, network: &str, owner: &LeaseOwner) -> Result<Option<Box<dyn Any>>, Error> {
        let name = of_attachment(&name(network, owner));
        let idle = self.ledgers.try_lock(&name);
        let idle = idle.map_err(|error| local(&error))?;
        Ok(idle.map(|lock| Box::new(lock.passing()) as Box<dyn Any>))
    }

    fn ledger(&self, network: &str) -> Result<Option<Ledger>, Error> {
        readable(&self.ledgers, network)
    }

    fn save_ledger(&self, network: &str, ledger: &Ledger) -> Result<(), Error> {
        self.ledgers
            .save(network, ledger)
            .map_err(|error| local(&error))
    }

    fn remove_ledger(&self, network: &str) -> Result<(), Error> {
        self.ledgers
            .remove(network)
            .map_err(|error| local(&error))?;
        // While it is there the network is one of this host's. One with local leases in it stays.
        let _ = fs::remove_dir(self.root.join("holding").join(network));
        Ok(())
    }

    fn lease(&self, network: &str, owner: &LeaseOwner) -> Result<Noted, Error> {
        let found = self.local_leases_of(network).load(&name(network, owner));
        Ok(match found.map_err(|error| local(&error))? {
            Found::Absent => Noted::Nothing,
            Found::Readable(local_lease) => Noted::Lease(local_lease),
            Found::Unreadable(it) => Noted::Unreadable(it.to_string()),
        })
    }

    fn save_lease(&self, network: &str, local_lease: &LocalLease) -> Result<(), Error> {
        let local_leases = self.local_leases_of(network);
        let name = name(network, &local_lease.owner());
        local_leases
            .save(&name, local_lease)
            .map_err(|error| local(&error))
    }

    fn remove_lease(&self, network: &str, owner: &LeaseOwner) -> Result<(), Error> {
        let local_leases = self.local_leases_of(network);
        local_leases
            .remove(&name(network, owner))
            .map_err(|error| local(&error))
    }

    fn stores(&self) -> Result<Vec<(Versioned<Network>, StoreRef)>, Error> {
        let mut stores = Vec::new();
        for ledger in self
            .ledgers
            .all_readable(&unreadable)
            .map_err(|error| local(&error))?
        {
            if let Some(store) = ledger.store_ref
                && !self.leases(&ledger.network.record.name)?.is_nothing()
            {
                stores.push((ledger.network, store));
            }
        }
        Ok(stores)
    }

    fn vnis(&self) -> Result<BTreeSet<u32>, Error> {
        let ledgers = self.ledgers.all_readable(&unreadable);
        let ledgers = ledgers.map_err(|error| local(&error))?.into_iter();
        Ok(ledgers
            .filter_map(|ledger| ledger.network.record.vni)
            .collect())
    }

    fn leases(&self, network: &str) -> Result<LocalLeases, Error> {
        let all = self.local_leases_of(network).all();
        let all = all.map_err(|error| local(&error))?;
        Ok(LocalLeases {
            readable: all.readable,
            unreadable: all.unreadable.iter().map(Unreadable::to_string).collect(),
        })
    }

    fn memory(&self, network: &str) -> Result<Memory, Error> {
        Ok(readable(&self.memories, network)?.unwrap_or_default())
    }

    fn save_memory(&self, network: &str, memory: &Memory) -> Result<(), Error> {
        let saved = if *memory == Memory::default() {
            self.memories.remove(network)
        } else {
            self.memories.save(network, memory)
        };
        saved.map_err(|error| local(&error))
    }
}

impl Clock for FsLocalStore {
    fn uptime(&self) -> u64 {
        clock::uptime()
    }

    fn unix(&self) -> u64 {
        clock::unix()
    }
}
