//! The sockets that tell other programs of published ports, kept by the watcher.
//!
//! Programs such as nerdctl 2.1 choose a free port by the sockets of the host, and a published port has none. So the watcher
//! reserves each published port by a socket that receives nothing ([`netlink::ReservedPort`]). Nothing else depends on it:
//! without a watcher ports are published as ever, and such a program chooses a port that `portmap` then refuses.
//! `docs/decisions/0031-reserved-ports.md` says why.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use journal::{All, Found};
use netlink::ReservedPort;

use crate::{
    record::{Record, Run},
    table::records,
};

/// An IP protocol number, an address and a port.
type Key = (u8, SocketAddr);

/// The reserved ports.
#[derive(Debug, Default)]
pub struct Reservations {
    /// The most sockets.
    limit: usize,
    /// For each record, by its digest, its ports.
    wanted: BTreeMap<String, BTreeSet<Key>>,
    /// `None` if another socket has the port: the runtime may hold it for the container.
    reserved: BTreeMap<Key, Option<ReservedPort>>,
}

impl Reservations {
    /// Reserves nothing yet, and never has more than `limit` sockets.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Reads all records. Ports that could not be reserved before are tried again.
    ///
    /// # Errors
    ///
    /// Why a port could not be reserved, if not because another socket has it; and what the file system says.
    pub fn read_all(&mut self) -> io::Result<()> {
        let All {
            readable,
            unreadable,
        } = records().all().map_err(io::Error::other)?;
        // What a record that cannot be read publishes is still published.
        let unreadable: BTreeSet<_> = unreadable.iter().map(journal::Unreadable::name).collect();
        self.wanted.retain(|digest, _| unreadable.contains(digest));
        let all = readable.iter();
        self.wanted
            .extend(all.map(|record| (record.attachment.hash(), keys(record))));
        self.reserved.retain(|_, reserved| reserved.is_some());
        self.settle()
    }

    /// Reads the records with these digests.
    ///
    /// # Errors
    ///
    /// As [`Self::read_all`].
    pub fn read(&mut self, digests: &BTreeSet<String>) -> io::Result<()> {
        for digest in digests {
            match records().load(digest).map_err(io::Error::other)? {
                Found::Absent => drop(self.wanted.remove(digest)),
                Found::Readable(record) => drop(self.wanted.insert(digest.clone(), keys(&record))),
                Found::Unreadable(_) => {}
            }
        }
        self.settle()
    }

    /// Reserves what is wanted, and releases everything else.
    fn settle(&mut self) -> io::Result<()> {
        let wanted: BTreeSet<_> = self.wanted.values().flatten().copied().collect();
        self.reserved.retain(|key, _| wanted.contains(key));
        let mut done = Ok(());
        for key in wanted {
            if self.reserved.contains_key(&key) {
                continue;
            }
            if self.reserved.len() >= self.limit {
                let why = format!("more than {} are published", self.limit);
                return Err(io::Error::other(why));
            }
            let (protocol, at) = key;
            match ReservedPort::take(protocol, at) {
                Ok(reserved) => drop(self.reserved.insert(key, Some(reserved))),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    self.reserved.insert(key, None);
                }
                Err(error) => {
                    // The next complete reading tries again.
                    self.reserved.insert(key, None);
                    done = Err(io::Error::new(error.kind(), format!("{at}: {error}")));
                }
            }
        }
        done
    }
}

/// The ports of a record that can be reserved; none while a DEL removes it.
fn keys(record: &Record) -> BTreeSet<Key> {
    let runs = record.runs.iter().filter(|_| !record.leaving);
    let of_protocol = |run: &&Run| ReservedPort::is_possible(run.protocol.number());
    runs.filter(of_protocol)
        .flat_map(|run| {
            let every = match run.to {
                SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            };
            let address = run.address.unwrap_or(every);
            let key = move |port| (run.protocol.number(), SocketAddr::new(address, port));
            run.ports().map(key)
        })
        .collect()
}
