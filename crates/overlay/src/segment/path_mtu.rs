//! What MTU the paths to the other hosts of a network leave for a container. Measured by `crates/netlink/src/path_mtu.rs`; when to
//! measure, and what is noted, is decided here.
//!
//! The underlay's MTU is that of its first link; a path may carry less. So this host measures the path to each other host when it
//! first needs it, and all of them again with each sync. A container that is made then gets an MTU that every path carries. One that
//! was made before keeps its own, and doctor reports it ([`outgrown`]). CHECK does not: the container is as its result says, and the
//! paths belong to others. The segment itself, which only passes on what containers send, keeps the underlay's MTU.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use cluster::NetworkSnapshot;
use journal::Attachment;
use netlink::{Netns, Rtnl};
use plugin::{Error, readable};
use serde::{Deserialize, Serialize};

use crate::{
    segment::forwarding::peers,
    state::{attachment::Record, host::Host, underlay::overhead},
};

/// The document's name, and its lock's.
const NAME: &str = "paths";
/// How long an ADD waits for an answer of a host that it has not met before.
const BRIEFLY: Duration = Duration::from_millis(100);
/// How long a sync does, which meets all of them at once.
const PATIENTLY: Duration = Duration::from_millis(300);

/// Most containers, or ways, that are named in one line.
const SHOWN: usize = 5;

/// What this host knows of the ways to others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Our tunnel address and the underlay's MTU when they were measured; with others nothing is known.
    from: Option<(IpAddr, u32)>,
    /// By tunnel address: bytes of the largest IP packet that gets there, none of a host that did not answer.
    sizes: BTreeMap<IpAddr, Option<u32>>,
}

/// A way that carries less than the underlay's first cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrow {
    /// The other host's tunnel address.
    pub vtep: IpAddr,
    /// Bytes of the largest IP packet that gets there.
    pub packet: u32,
}

impl Paths {
    /// The narrow ways among those to `peers`.
    fn narrow(&self, peers: &BTreeSet<IpAddr>) -> Vec<Narrow> {
        let mtu = self.from.map_or(0, |(_, mtu)| mtu);
        let known = peers.iter().filter_map(|vtep| {
            let packet = (*self.sizes.get(vtep)?)?;
            Some(Narrow {
                vtep: *vtep,
                packet,
            })
        });
        known.filter(|narrow| narrow.packet < mtu).collect()
    }
}

/// Where packets start: our tunnel address, and the underlay's MTU in bytes.
pub type Start = (IpAddr, u32);

/// What the ways to all other hosts of a network leave its segment, in bytes: its own MTU where none is narrow. Measures
/// those that are not known yet.
pub(crate) async fn carried(
    host: &Host,
    snapshot: &NetworkSnapshot,
    node: &str,
    segment: Start,
) -> Result<u32, Error> {
    let (vtep, segment) = segment;
    let start = (vtep, segment + overhead(vtep));
    let peers = peers(snapshot, node, vtep);
    let mut paths = load(host)?;
    let unknown = |peer: &&IpAddr| paths.from != Some(start) || !paths.sizes.contains_key(*peer);
    let asked: Vec<_> = peers.iter().filter(unknown).copied().collect();
    if paths.from != Some(start) || !asked.is_empty() {
        paths = measure(host, start, &asked, BRIEFLY, |_| true).await?;
    }
    Ok(least(&paths.narrow(&peers), start).min(segment))
}

/// What is left inside the tunnel by the narrowest of some ways.
fn least(narrow: &[Narrow], start: Start) -> u32 {
    let packets = narrow.iter().map(|narrow| narrow.packet);
    packets
        .min()
        .unwrap_or(start.1)
        .saturating_sub(overhead(start.0))
}

/// Measures the ways to all `peers` anew, and forgets those to others.
pub(crate) async fn measure_anew(
    host: &Host,
    start: Start,
    peers: &BTreeSet<IpAddr>,
) -> Result<(), Error> {
    let asked: Vec<_> = peers.iter().copied().collect();
    let stays = |vtep: &IpAddr| peers.contains(vtep);
    measure(host, start, &asked, PATIENTLY, stays)
        .await
        .map(drop)
}

/// Measures some ways, and notes what came of it beside what is known of others that are to stay.
async fn measure(
    host: &Host,
    start: Start,
    asked: &[IpAddr],
    patience: Duration,
    stays: impl Fn(&IpAddr) -> bool,
) -> Result<Paths, Error> {
    let (from, mtu) = start;
    let sizes = match netlink::probe(from, asked, mtu, patience).await {
        Ok(sizes) => sizes,
        Err(error) => {
            cni::log(&format!("ways to other hosts are not measured: {error}"));
            vec![None; asked.len()]
        }
    };
    let _lock = host.lock(NAME)?;
    let before = load(host)?;
    let mut paths = if before.from == Some(start) {
        before.clone()
    } else {
        Paths {
            from: Some(start),
            ..Paths::default()
        }
    };
    paths.sizes.retain(|vtep, _| stays(vtep));
    for (vtep, size) in asked.iter().zip(sizes) {
        let known = paths.sizes.insert(*vtep, size);
        if let Some(packet) = size.filter(|size| *size < mtu && known != Some(Some(*size))) {
            let inner = packet.saturating_sub(overhead(from));
            cni::log(&format!(
                "the way to {vtep} carries packets of {packet} bytes, the underlay {mtu}: containers that are made from now on \
                 get an MTU of {inner}"
            ));
        }
    }
    if paths != before {
        host.paths.save(NAME, &paths)?;
    }
    Ok(paths)
}

fn load(host: &Host) -> Result<Paths, Error> {
    Ok(readable(&host.paths, NAME)?.unwrap_or_default())
}

/// What a network's containers are given on this host, as was last measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Bytes of the largest packet that a container may send to any other.
    pub mtu: u32,
    /// The ways that make it less than the underlay's.
    pub narrow: Vec<Narrow>,
}

/// What this host knows of the ways of a network; none where nothing was measured here.
pub fn known(snapshot: &NetworkSnapshot, node: &str) -> Result<Option<Carried>, Error> {
    known_on(&Host::open()?, snapshot, node)
}

fn known_on(host: &Host, snapshot: &NetworkSnapshot, node: &str) -> Result<Option<Carried>, Error> {
    let paths = load(host)?;
    Ok(paths.from.map(|start| {
        let narrow = paths.narrow(&peers(snapshot, node, start.0));
        Carried {
            mtu: least(&narrow, start),
            narrow,
        }
    }))
}

/// Containers of a network that send larger packets than some way to another host carries, in words; none where all ways
/// carry what is sent. A container whose namespace cannot be entered is left out.
pub(crate) async fn outgrown(
    host: &Host,
    records: impl Iterator<Item = &Record>,
    snapshot: &NetworkSnapshot,
    node: &str,
) -> Result<Option<String>, Error> {
    let carried = known_on(host, snapshot, node)?;
    let Some(carried) = carried.filter(|carried| !carried.narrow.is_empty()) else {
        return Ok(None);
    };
    let Some(large) = larger(records, carried.mtu).await else {
        return Ok(None);
    };
    let ways = carried.narrow.iter().take(SHOWN);
    let ways: Vec<_> = ways.map(|way| way.vtep.to_string()).collect();
    Ok(Some(format!(
        "the way to {} carries packets of {} bytes inside the tunnel, and these have a larger MTU, as they were made before \
         that was known: {}; what they send in one piece may be lost there; mend the way, or make them anew",
        ways.join(", "),
        carried.mtu,
        large
    )))
}

/// Containers of a network whose MTU is larger than `most` bytes, in words.
pub(crate) async fn larger(records: impl Iterator<Item = &Record>, most: u32) -> Option<String> {
    let mut large = Vec::new();
    for record in records {
        let mtu = mtu_inside(record).await;
        large.extend(mtu.filter(|mtu| *mtu > most).map(|mtu| {
            let Attachment {
                container, ifname, ..
            } = &record.attachment;
            format!("{ifname} of container {container} ({mtu})")
        }));
    }
    if large.is_empty() {
        return None;
    }
    let more = large.len().saturating_sub(SHOWN);
    large.truncate(SHOWN);
    if more > 0 {
        large.push(format!("{more} more"));
    }
    Some(large.join(", "))
}

/// The MTU of an attachment's interface in its container.
async fn mtu_inside(record: &Record) -> Option<u32> {
    let container = Netns::open(&record.netns).ok();
    let container = container.filter(|it| it.id() == record.netns_id)?;
    let inside = Rtnl::open(&container).ok()?;
    let link = inside.link(&record.attachment.ifname).await;
    link.ok().flatten().map(|link| link.mtu)
}
