//! Who may send to whom, as keys of plain sets: hosts to tunnels, links of this host to each other.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute,
};

use crate::channel::{Change, Channel};
use crate::element::{elements, message, octets};
use crate::error::Error;
use crate::expr::ifname;
use crate::family::{Family, IPV4, IPV6};
use crate::nonmembers::Nonmember;
use crate::segments::{self, SEGMENTS, Segment};
use crate::skeleton::{ANY_SOURCE_PORT, TOGETHER, on};

/// An attribute's length has 16 bits, and all elements of a message are in one.
const AT_ONCE: usize = 500;

/// One set's keys as the kernel has them: each part of a concatenation is padded to whole words.
#[derive(Debug)]
pub(crate) struct Keys {
    set: &'static str,
    keys: BTreeSet<Vec<u8>>,
}

/// What passes between tunnels and between links of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permitted {
    /// Where our tunnels end: tunnel address and UDP port.
    pub tunnels: BTreeSet<SocketAddr>,
    /// Where those of other hosts end.
    pub remotes: BTreeSet<SocketAddr>,
    /// The UDP ports of those of our tunnels that send from any port, not from [`crate::TUNNEL_SOURCE_PORTS`].
    pub any_source_port: BTreeSet<u16>,
    /// The tunnel addresses that may send to ours.
    pub hosts: BTreeSet<IpAddr>,
    /// Those of them, and of ours, that may not send to one of our ends with the VNI of a network.
    pub nonmembers: BTreeSet<Nonmember>,
    /// Our segments: nothing of these comes in by another address than a tunnel's.
    pub segments: BTreeSet<Segment>,
    /// The links of this host from the first of which packets may be forwarded to the second.
    pub together: BTreeSet<(String, String)>,
}

/// The wanted content of all sets, those of IPv4 first.
pub(crate) fn of(permitted: &Permitted) -> Vec<Keys> {
    let of = |family: &Family| {
        let is_v4 = *family == IPV4;
        let sockets = |set, sockets: &[&BTreeSet<SocketAddr>]| {
            let keys = sockets.iter().copied().flatten();
            let keys = keys.filter(|it| it.is_ipv4() == is_v4);
            let keys = keys.map(|it| [octets(it.ip()), of_port(it.port())].concat());
            Keys::new(set, keys)
        };
        let hosts = permitted.hosts.iter();
        let hosts = hosts.filter(|host| host.is_ipv4() == is_v4);
        let ends = || permitted.tunnels.iter().filter(|it| it.is_ipv4() == is_v4);
        let to = |host: &IpAddr, end: &SocketAddr| {
            [octets(*host), octets(end.ip()), of_port(end.port())].concat()
        };
        let nonmembers = permitted.nonmembers.iter();
        let nonmembers = nonmembers.filter(|it| it.host.is_ipv4() == is_v4);
        let nonmembers = nonmembers.map(Nonmember::key);
        let peers = hosts.flat_map(|host| ends().map(move |end| to(host, end)));
        [
            sockets(family.tunnels, &[&permitted.tunnels]),
            sockets(
                family.all_tunnels,
                &[&permitted.tunnels, &permitted.remotes],
            ),
            Keys::new(family.peers, peers),
            Keys::new(family.nonmembers, nonmembers),
        ]
    };
    let pairs = permitted.together.iter();
    let pairs = pairs.map(|(from, to)| [ifname(from), ifname(to)].concat());
    let together = Keys::new(TOGETHER, pairs);
    // A key of one part is not padded.
    let ports = permitted.any_source_port.iter();
    let ports = ports.map(|port| port.to_be_bytes().to_vec());
    let any = Keys::new(ANY_SOURCE_PORT, ports);
    let sets = [&IPV4, &IPV6].into_iter().flat_map(of);
    let segments = permitted.segments.iter().copied().map(segments::key);
    let segments = Keys::new(SEGMENTS, segments);
    sets.chain([any, together, segments]).collect()
}

/// A port, padded to a word.
fn of_port(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![high, low, 0, 0]
}

/// The changes that turn the kernel's sets into these; empty if they are equal.
pub(crate) fn changes(wanted: &[Keys], channel: &mut Channel) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    for keys in wanted {
        changes.extend(keys.changes(channel, false)?);
    }
    Ok(changes)
}

impl Keys {
    pub(crate) fn set(&self) -> &'static str {
        self.set
    }

    fn new(set: &'static str, keys: impl Iterator<Item = Vec<u8>>) -> Self {
        let keys = keys.collect();
        Self { set, keys }
    }

    /// The changes for one set; empty if it is as wanted. [`Error::Busy`] if it changed meanwhile.
    /// A set that is new has no elements.
    pub(crate) fn changes(
        &self,
        channel: &mut Channel,
        is_new: bool,
    ) -> Result<Vec<Change>, Error> {
        let mut there = BTreeSet::new();
        if !is_new {
            let question = NfTablesMessage::GetSetElement(message(self.set, None));
            let answers = channel.dump(&on("list set", self.set), question)?;
            there.extend(elements(answers).filter_map(key));
        }
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
