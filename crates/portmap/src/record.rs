//! The document of an attachment: enough to publish its ports again, and to withdraw them.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use journal::Attachment;
use nft::ports::{Conditional, Entry, HostPort};
use serde::{Deserialize, Serialize};

use crate::{
    config::conditions_of,
    mapping::{Protocol, ports},
    stale::Life,
};

/// The journal's record of one attachment, written before its first element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The attachment.
    pub attachment: Attachment,
    /// Nanoseconds since boot. If two records have the same port, the older one owns it.
    pub since: u64,
    /// Whether a DEL has begun: its ports must go.
    pub leaving: bool,
    /// The ports.
    pub runs: Vec<Run>,
    /// Whether packets that return by the interface by which they came get the host's address.
    pub hairpin: bool,
    /// Whether all packets get it.
    pub hidden: bool,
    /// `conditionsV4`, `conditionsV6`.
    pub conditions: [Vec<String>; 2],
    /// By what it is known whether the container lives; absent if nothing tells, and in records of versions up to 1.0.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<Life>,
}

/// Consecutive ports of the host that lead to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// On both sides.
    pub protocol: Protocol,
    /// The host's address; none means all of the same version of IP as `to`.
    pub address: Option<IpAddr>,
    /// The host's first port.
    pub port: u16,
    /// The container's address and first port.
    pub to: SocketAddr,
    /// The number of ports.
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

    /// Whether only programs of this host use it, by 127.0.0.1: nothing is forwarded.
    pub fn is_local(&self) -> bool {
        self.address.is_some_and(|address| address.is_loopback())
    }

    /// All ports of the host.
    pub fn ports(&self) -> RangeInclusive<u16> {
        ports(self.port, self.count)
    }

    /// Each port of the host, and where it leads.
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
    /// Its entries in the table, also if it is leaving.
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

    /// Its conditions, which were checked before the record was written.
    pub fn conditionals(&self) -> Vec<Conditional> {
        let conditional = |run: &Run| Conditional {
            at: run.at(),
            last: *run.ports().end(),
            conditions: conditions_of(&self.conditions, run.to.is_ipv6()).unwrap_or_default(),
        };
        let runs = self.runs.iter().map(conditional);
        runs.filter(|it| !it.conditions.is_empty()).collect()
    }

    /// The owner of its elements, in words. No network has a slash in its name.
    pub fn text(&self) -> String {
        let Attachment {
            network,
            container,
            ifname,
        } = &self.attachment;
        format!("{network}/{ifname}/{container}")
    }
}
