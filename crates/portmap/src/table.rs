//! The documents of this host's attachments and the table of their ports, under one lock.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use journal::{Attachment, Journal, Lock};
use nft::ports::{Ports, Published, Scope};
use plugin::{Error, all_readable, code, readable};

use crate::{
    conflict::{self, Conflict},
    conntrack,
    record::Record,
    route_localnet,
};

/// The folder of the documents, below the journal's root.
pub const KIND: &str = "journal/portmap";
/// A file in that folder, which is lost with the documents. While it exists, everything that is published has a document.
const COMPLETE: &str = "complete";
/// The lock's name. It is held for some milliseconds.
const LOCK: &str = "ports";
/// How often an ADD fills maps that other programs empty.
const TRIES: u32 = 5;
/// Longest wait for the lock.
const PATIENCE: Duration = Duration::from_secs(20);

/// The documents and the table, locked.
pub struct PortTable {
    /// The documents.
    pub records: Journal<Record>,
    _alone: Lock,
}

/// The documents, to read without the lock.
pub fn records() -> Journal<Record> {
    Journal::new(Path::new(journal::ROOT), KIND)
}

/// Whether everything that is published has a document, so that the table need not be read for an attachment without one.
/// Unknown on a host whose documents were lost.
pub fn is_complete() -> bool {
    complete().exists()
}

fn forget_completeness() -> Result<(), Error> {
    let path = complete();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn complete() -> PathBuf {
    Path::new(journal::ROOT).join(KIND).join(COMPLETE)
}

impl PortTable {
    /// Waits for the lock.
    pub fn open() -> Result<Self, Error> {
        let records = records();
        let alone = records.lock(LOCK, PATIENCE);
        Ok(Self {
            records,
            _alone: alone?,
        })
    }

    /// The record of an attachment; `None` also if it cannot be read.
    pub fn record(&self, attachment: &Attachment) -> Result<Option<Record>, Error> {
        self.load(&attachment.hash())
    }

    fn load(&self, digest: &str) -> Result<Option<Record>, Error> {
        readable(&self.records, digest)
    }

    /// All readable records.
    pub fn all(&self) -> Result<Vec<Record>, Error> {
        all_readable(&self.records)
    }

    /// Whether there is no record at all.
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.records.is_empty().map_err(Error::from)
    }

    /// Notes, with the first document, whether everything that is published has a document: it has if nothing is published.
    pub fn note_completeness(&self, ports: &mut Ports) -> Result<(), Error> {
        let found = ports.read(&Scope::All)?;
        if !found.elements.is_empty() {
            return forget_completeness();
        }
        let path = complete();
        fs::write(&path, "").map_err(|error| Error::io(format!("{}: {error}", path.display())))
    }

    /// Writes the record.
    pub fn save(&self, record: &Record) -> Result<(), Error> {
        let saved = self.records.save(&record.attachment.hash(), record);
        saved.map_err(Error::from)
    }

    /// Makes chains and maps, and publishes all records; returns whether that was a change. Also withdraws what killed DELs
    /// left. `local` are this host's addresses.
    pub fn repair(&self, ports: &mut Ports, local: &[IpAddr]) -> Result<bool, Error> {
        let all = self.all()?;
        Ok(!all.is_empty() && self.repair_these(all, ports, local)?)
    }

    fn repair_these(
        &self,
        records: Vec<Record>,
        ports: &mut Ports,
        local: &[IpAddr],
    ) -> Result<bool, Error> {
        let (leaving, records): (Vec<_>, Vec<_>) = records.into_iter().partition(|it| it.leaving);
        let all: Vec<_> = records.iter().chain(&leaving).cloned().collect();
        let changed = fill(ports, &all)?;
        for record in &leaving {
            self.forget(record, ports)?;
        }
        let opened = route_localnet::enable_all(&records)?;
        if changed {
            // Packets that arrived meanwhile did not reach a container.
            conntrack::forget_clients(&records, local);
        }
        Ok(changed || opened)
    }

    /// Publishes a record in place of an earlier one of the attachment, atomically. If another container has one of the
    /// ports, nothing changes. The maps tell which container has a port; so if another program has emptied a map, or nothing
    /// has filled it yet, all other records are published first.
    pub fn publish(
        &self,
        ports: &mut Ports,
        earlier: Option<&Record>,
        record: &Record,
        local: &[IpAddr],
    ) -> Result<(), Error> {
        let mut scope = conflict::keys_and_rivals(record, local);
        if let Scope::Keys(keys) | Scope::KeysAndBound(keys) = &mut scope {
            keys.extend(earlier.into_iter().flat_map(conflict::keys));
        }
        let others = |digest: &str| self.load(digest).ok().flatten();
        for _ in 0..TRIES {
            let updated = ports.update(&scope, |found| {
                if !found.is_complete {
                    return Err(None);
                }
                let left = earlier.map(|earlier| conflict::remove(found, earlier, &others));
                let left = left.as_ref().unwrap_or(found);
                self.with_record(left, record, local).map_err(Some)
            });
            match updated? {
                Ok(_) => return Ok(()),
                Err(Some(conflict)) => return Err(self.refusal(conflict)?),
                Err(None) => {
                    let mut others = self.all()?;
                    others.retain(|it| it.attachment != record.attachment);
                    self.repair_these(others, ports, local)?;
                }
            }
        }
        Err(emptied(&record.attachment.to_string()))
    }

    /// Publishes an earlier record again, in place of a later one of the same attachment that failed.
    pub fn restore(
        &self,
        ports: &mut Ports,
        earlier: &Record,
        record: &Record,
        local: &[IpAddr],
    ) -> Result<(), Error> {
        self.save(earlier)?;
        self.publish(ports, Some(record), earlier, local)
    }

    /// Refuses ports that another container has, as [`Self::publish`] would. Code 111.
    pub fn refuse_conflicts(
        &self,
        ports: &mut Ports,
        record: &Record,
        local: &[IpAddr],
    ) -> Result<(), Error> {
        let scope = conflict::keys_and_rivals(record, local);
        let found = ports.read(&scope)?;
        let claimed = self.with_record(&found, record, local);
        claimed.map_or_else(|conflict| Err(self.refusal(conflict)?), |_| Ok(()))
    }

    /// What was found, with the record added.
    fn with_record(
        &self,
        found: &Published,
        record: &Record,
        local: &[IpAddr],
    ) -> Result<Published, Conflict> {
        conflict::add(found, record, local, &|digest| {
            self.load(digest).ok().flatten()
        })
    }

    /// The error that names the port's owner.
    fn refusal(&self, Conflict { wanted, owner }: Conflict) -> Result<Error, Error> {
        let owner = match self.load(&owner.0)? {
            Some(record) => record.attachment.to_string(),
            None => owner.1,
        };
        Ok(Error::new(
            code::PORT,
            format!("host port {wanted}: {owner} has it"),
        ))
    }

    /// Withdraws what is published for a record, removes the record, and with the last one everything about ports.
    pub fn withdraw(&self, ports: &mut Ports, record: &Record) -> Result<(), Error> {
        let leaving = Record {
            leaving: true,
            ..record.clone()
        };
        if let Err(full) = self.save(&leaving) {
            // If this is killed now, a repair publishes the ports again. That is better than to keep them.
            cni::log(&full.msg);
        }
        let scope = Scope::Keys(conflict::keys(record));
        let others = |digest: &str| self.load(digest).ok().flatten();
        let want = |found: &Published| Ok::<_, Conflict>(conflict::remove(found, record, &others));
        let updated = ports.update(&scope, want).or_else(|_| {
            // A set that another program made may have a type that cannot be read.
            ports.ensure()?;
            ports.update(&scope, want)
        });
        drop(updated?);
        self.forget(record, ports)
    }

    /// Removes a record that has no elements in the table any more.
    fn forget(&self, record: &Record, ports: &mut Ports) -> Result<(), Error> {
        conntrack::forget_answered(record);
        self.remove(&record.attachment.hash(), ports)
    }

    /// Removes the document with this digest, and with the last one everything about ports.
    pub fn remove(&self, digest: &str, ports: &mut Ports) -> Result<(), Error> {
        self.records.remove(digest)?;
        if self.is_empty()? {
            forget_completeness()?;
            let elements = ports.read(&Scope::All)?;
            if elements.elements.is_empty() {
                route_localnet::disable()?;
                ports.remove()?;
            }
        }
        Ok(())
    }
}

/// Makes chains and maps, and publishes the records; returns whether that was a change. Retries if another program flushes
/// the rules in between; code 11 if it does so each time.
fn fill(ports: &mut Ports, records: &[Record]) -> Result<bool, Error> {
    let want = |found: &Published| Ok::<_, Conflict>(conflict::all_records(found, records));
    let mut try_once = || -> Result<bool, nft::Error> {
        let made = ports.ensure()?;
        let changed = ports.update(&Scope::All, want)?.unwrap_or(false);
        Ok(made || changed)
    };
    for _ in 0..TRIES {
        match try_once() {
            Err(error) if error.is_gone() => {}
            done => return Ok(done?),
        }
    }
    Err(emptied("published ports"))
}

/// Another program removes what was made as fast as it is made.
fn emptied(what: &str) -> Error {
    Error::again(format!(
        "{what}: another program empties the maps of nftables table inet crosshost all the time"
    ))
}
