//! What one verb works with: the documents of this host's attachments, and the lock over them and over the table.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use journal::{Attachment, Journal, Lock, Unreadable};
use nft::ports::{Ports, Published, Scope};
use plugin::{Error, code};

use crate::{
    conflict::{self, Conflict},
    conntrack,
    record::Record,
    route_localnet,
};

/// Where the documents are, below the journal's root.
const KIND: &str = "journal/portmap";
/// A file beside them, which is lost with them and goes with the last: all that is published has a document.
const COMPLETE: &str = "complete";
/// The lock's name. Nobody holds it for longer than some milliseconds.
const LOCK: &str = "ports";
/// So often an ADD fills maps that others empty.
const TRIES: u32 = 5;
/// Longest wait for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Documents and table of this host, and nobody else at them.
pub struct PortTable {
    /// The documents.
    pub records: Journal<Record>,
    _alone: Lock,
}

/// The documents, for who only reads.
pub fn records() -> Journal<Record> {
    Journal::new(Path::new(journal::ROOT), KIND)
}

/// Whether what has no document has no ports either, so that nobody need look at the table for it. That is not known on a host
/// whose documents were lost.
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
    /// Waits until nobody else is at work.
    pub fn open() -> Result<Self, Error> {
        let records = records();
        let alone = records.lock(LOCK, PATIENCE);
        Ok(Self {
            records,
            _alone: alone?,
        })
    }

    /// The record of an attachment; one that cannot be read is as good as none.
    pub fn record(&self, attachment: &Attachment) -> Result<Option<Record>, Error> {
        self.load(&attachment.hash())
    }

    fn load(&self, digest: &str) -> Result<Option<Record>, Error> {
        let loaded = self.records.load_readable(digest, &report_unreadable);
        loaded.map_err(Error::from)
    }

    /// All records that can be read.
    pub fn all(&self) -> Result<Vec<Record>, Error> {
        let all = self.records.all_readable(&report_unreadable);
        all.map_err(Error::from)
    }

    /// Whether there is no record at all.
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.records.is_empty().map_err(Error::from)
    }

    /// Notes, beside the first document, whether there are others to be missed: there are none if nothing is published yet.
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

    /// Brings the table to what all records say, once chains and maps are there; whether it was not so. What a killed DEL
    /// left is taken down. `local` are this host's addresses.
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
            // Who sent meanwhile was not led to a container.
            conntrack::forget_clients(&records, local);
        }
        Ok(changed || opened)
    }

    /// Publishes what the record says, in the place of what an earlier record of the attachment says, in one step; unless another
    /// container has one of its ports: then nothing changes. What a container has is told by the maps; so
    /// if somebody emptied one, or nobody has filled it yet, all that others have is put there first.
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
        Err(Error::again(format!(
            "{}: another program empties the maps of nftables table inet crosshost all the time",
            record.attachment
        )))
    }

    /// Publishes what an earlier record says again, in the place of what one of the same attachment says that is not to be.
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

    /// What the record means beside what was found, by the other records.
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

    /// Who has the port, in words.
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

    /// Takes away what is published for the record, and the record, and with the last one all that is about ports.
    pub fn withdraw(&self, ports: &mut Ports, record: &Record) -> Result<(), Error> {
        let leaving = Record {
            leaving: true,
            ..record.clone()
        };
        if let Err(full) = self.save(&leaving) {
            // What is taken away now would come back with a repair if this were killed. Better than that it stays.
            cni::log(&full.msg);
        }
        let scope = Scope::Keys(conflict::keys(record));
        let others = |digest: &str| self.load(digest).ok().flatten();
        let want = |found: &Published| Ok::<_, Conflict>(conflict::remove(found, record, &others));
        let updated = ports.update(&scope, want).or_else(|_| {
            // A set that somebody made is of a kind that cannot be asked.
            ports.ensure()?;
            ports.update(&scope, want)
        });
        drop(updated?);
        self.forget(record, ports)
    }

    /// Removes the record of which nothing is in the table any more.
    fn forget(&self, record: &Record, ports: &mut Ports) -> Result<(), Error> {
        conntrack::forget_answered(record);
        self.remove(&record.attachment.hash(), ports)
    }

    /// Removes the document of an attachment, by its digest, and with the last one all that is about ports.
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

/// Tells of a document that cannot be read.
pub(crate) fn report_unreadable(unreadable: &Unreadable) {
    cni::log(&unreadable.to_string());
}

/// Makes chains and maps, and in them what the records say; whether it was not so. Once more, if somebody flushes all rules
/// between the one and the other.
fn fill(ports: &mut Ports, records: &[Record]) -> Result<bool, nft::Error> {
    let want = |found: &Published| Ok::<_, Conflict>(conflict::all_records(found, records));
    let mut try_once = || -> Result<bool, nft::Error> {
        let made = ports.ensure()?;
        let changed = ports.update(&Scope::All, want)?.unwrap_or(false);
        Ok(made || changed)
    };
    for _ in 1..TRIES {
        match try_once() {
            Err(error) if error.is_gone() => {}
            done => return done,
        }
    }
    try_once()
}
