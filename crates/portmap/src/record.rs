//! What is remembered of an attachment: enough to publish its ports again, and to take them away without asking anyone.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use journal::Attachment;
use nft::ports::{Conditional, Entry, HostPort};
use serde::{Deserialize, Serialize};

use crate::{
    config::conditions_of,
    mapping::{Protocol, ports},
};

/// The journal's record of one attachment, written before its first element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What it is of.
    pub attachment: Attachment,
    /// Nanoseconds since boot: of two that have the same port, the first one's counts.
    pub since: u64,
    /// A DEL has begun: nothing of it is wanted any more.
    pub leaving: bool,
    /// The ports.
    pub runs: Vec<Run>,
    /// Whether what goes back by the interface that it came by leaves under the host's address.
    pub hairpin: bool,
    /// Whether all does.
    pub hidden: bool,
    /// `conditionsV4`, `conditionsV6`.
    pub conditions: [Vec<String>; 2],
}

/// A run of ports of the host that leads to one of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Of both ends.
    pub protocol: Protocol,
    /// The host's one address that it is of; none is all, of the version of IP that `to` is of.
    pub address: Option<IpAddr>,
    /// The host's first port.
    pub port: u16,
    /// The container's address and first port.
    pub to: SocketAddr,
    /// How many ports follow each other.
    pub count: u16,
    /// The interface by which the container is reached.
    pub via: String,
}

impl Run {
    /// The first port of the host.
    pub fn at(&self) -> HostPort {
        HostPort {
            v6: self.to.is_ipv6(),
            address: self.address,
            protocol: self.protocol.number(),
            port: self.port,
        }
    }

    /// Whether only programs of this host use it, by 127.0.0.1: nothing of it is forwarded.
    pub fn is_local(&self) -> bool {
        self.address.is_some_and(|address| address.is_loopback())
    }

    /// All ports of the host.
    pub fn ports(&self) -> RangeInclusive<u16> {
        ports(self.port, self.count)
    }

    /// Each port of the host, with where it leads.
    pub fn pairs(&self) -> impl Iterator<Item = (HostPort, SocketAddr)> {
        let (at, to) = (self.at(), self.to);
        (0..self.count).map(move |step| {
            let at = HostPort {
                port: at.port.saturating_add(step),
                ..at
            };
            let port = to.port().saturating_add(step);
            (at, SocketAddr::new(to.ip(), port))
        })
    }
}

impl Record {
    /// What it means in the table, or meant, if it is leaving.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.runs.iter().flat_map(|run| self.entries_of(run))
    }

    fn entries_of(&self, run: &Run) -> impl Iterator<Item = Entry> {
        let protocol = run.protocol.number();
        run.pairs().flat_map(move |(at, to)| {
            let via = run.via.clone();
            let hairpin = Entry::Hairpin { via, protocol, to };
            let hidden = Entry::Hidden { protocol, to };
            [
                Some(Entry::Port { at, to }),
                Some(hairpin).filter(|_| self.hairpin),
                Some(hidden).filter(|_| self.hidden),
            ]
            .into_iter()
            .flatten()
        })
    }

    /// Under what conditions; those were read before they were written down.
    pub fn conditionals(&self) -> Vec<Conditional> {
        let conditional = |run: &Run| Conditional {
            at: run.at(),
            last: *run.ports().end(),
            conditions: conditions_of(&self.conditions, run.to.is_ipv6()).unwrap_or_default(),
        };
        let runs = self.runs.iter().map(conditional);
        runs.filter(|it| !it.conditions.is_empty()).collect()
    }

    /// Whose elements they are, in words. No network has a slash in its name.
    pub fn text(&self) -> String {
        let Attachment {
            network,
            container,
            ifname,
        } = &self.attachment;
        format!("{network}/{ifname}/{container}")
    }
}
