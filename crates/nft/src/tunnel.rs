//! The tunnels' ends, and the hosts that may send to them, as keys of plain sets.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute,
};

use crate::channel::{Change, Channel};
use crate::element::{elements, message, octets};
use crate::error::Error;
use crate::family::{Family, IPV4, IPV6};
use crate::skeleton::on;

/// An attribute's length has 16 bits, and all elements of a message are in one.
const AT_ONCE: usize = 500;

/// One set's keys as the kernel has them: each part of a concatenation is padded to whole words.
#[derive(Debug)]
pub(crate) struct Keys {
    set: &'static str,
    keys: BTreeSet<Vec<u8>>,
}

/// The wanted content of all sets, those of IPv4 first.
pub(crate) fn of(ends: &BTreeSet<SocketAddr>, hosts: &BTreeSet<IpAddr>) -> Vec<Keys> {
    let of = |family: &Family| {
        let is_v4 = *family == IPV4;
        let ends = ends.iter().filter(|end| end.is_ipv4() == is_v4);
        let ends: Vec<_> = ends.map(of_end).collect();
        let hosts = hosts.iter().filter(|host| host.is_ipv4() == is_v4);
        let to = |end: &Vec<u8>, host: &IpAddr| [octets(*host), end.clone()].concat();
        let peers = hosts.flat_map(|host| ends.iter().map(move |end| to(end, host)));
        let peers = Keys {
            set: family.peers,
            keys: peers.collect(),
        };
        let tunnels = Keys {
            set: family.tunnels,
            keys: ends.iter().cloned().collect(),
        };
        [tunnels, peers]
    };
    [&IPV4, &IPV6].into_iter().flat_map(of).collect()
}

fn of_end(end: &SocketAddr) -> Vec<u8> {
    let mut key = octets(end.ip());
    key.extend(end.port().to_be_bytes());
    key.extend([0, 0]);
    key
}

/// The changes that turn the kernel's sets into these; empty if they are equal.
pub(crate) fn changes(wanted: &[Keys], channel: &mut Channel) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    for keys in wanted {
        changes.extend(keys.changes(channel)?);
    }
    Ok(changes)
}

impl Keys {
    /// The changes for one set; empty if it is as wanted. [`Error::Busy`] if it changed meanwhile.
    fn changes(&self, channel: &mut Channel) -> Result<Vec<Change>, Error> {
        let question = NfTablesMessage::GetSetElement(message(self.set, None));
        let answers = channel.dump(&on("list set", self.set), question)?;
        let there: BTreeSet<_> = elements(answers).filter_map(key).collect();
        let missing: Vec<_> = self.keys.difference(&there).collect();
        let excess: Vec<_> = there.difference(&self.keys).collect();
        let excess = excess.chunks(AT_ONCE).map(|keys| Change {
            what: on("remove elements of set", self.set),
            flags: 0,
            message: NfTablesMessage::DeleteSetElement(message(self.set, Some(list(keys)))),
        });
        let missing = missing.chunks(AT_ONCE).map(|keys| Change {
            what: on("add elements to set", self.set),
            flags: NLM_F_CREATE,
            message: NfTablesMessage::NewSetElement(message(self.set, Some(list(keys)))),
        });
        Ok(excess.chain(missing).collect())
    }
}

fn list(keys: &[&Vec<u8>]) -> Vec<ListAttribute<SetElementAttribute>> {
    let element = |key: &&Vec<u8>| {
        let key = SetElementAttribute::Key(DataAttribute::Value((*key).clone()));
        ListAttribute::Element(vec![key])
    };
    keys.iter().map(element).collect()
}

fn key(element: Vec<SetElementAttribute>) -> Option<Vec<u8>> {
    element.into_iter().find_map(|attribute| match attribute {
        SetElementAttribute::Key(DataAttribute::Value(key)) => Some(key),
        _ => None,
    })
}
