//! Paths: what the ways to the other hosts of a network carry, and what that leaves a container.
//!
//! The underlay's MTU says what its first cable carries; a way may carry less. So this host measures the way to each other
//! host when it first has to do with it, and all of them anew with each sync. A container that is made then gets an MTU
//! that comes through everywhere; one that was made before keeps its own. The segment itself, which only passes on what
//! containers send, keeps the underlay's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use cluster::News;
use cni::Error;
use serde::{Deserialize, Serialize};

use crate::{
    forwarding::peers,
    host::{Host, overhead},
    local, readable,
};

/// The document's name, and its lock's.
const NAME: &str = "paths";
/// How long an ADD waits for an answer of a host that it has not met before.
const BRIEFLY: Duration = Duration::from_millis(100);
/// How long a sync does, which meets all of them at once.
const PATIENTLY: Duration = Duration::from_millis(300);

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
    news: &News,
    node: &str,
    segment: Start,
) -> Result<u32, Error> {
    let (vtep, segment) = segment;
    let start = (vtep, segment + overhead(vtep));
    let peers = peers(news, node, vtep);
    let mut paths = load(host)?;
    let known = |paths: &Paths| {
        paths.from == Some(start) && peers.iter().all(|peer| paths.sizes.contains_key(peer))
    };
    if !known(&paths) {
        paths = measure(host, start, &peers, BRIEFLY).await?;
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
    {
        let _lock = host.lock(NAME)?;
        let mut paths = load(host)?;
        paths.sizes.retain(|vtep, _| peers.contains(vtep));
        save(host, &paths)?;
    }
    measure(host, start, peers, PATIENTLY).await.map(drop)
}

/// Measures the ways to `peers` that are not known, or to all of them for who is patient.
async fn measure(
    host: &Host,
    start: Start,
    peers: &BTreeSet<IpAddr>,
    patience: Duration,
) -> Result<Paths, Error> {
    let before = load(host)?;
    let new = |peer: &&IpAddr| {
        patience == PATIENTLY || before.from != Some(start) || !before.sizes.contains_key(*peer)
    };
    let asked: Vec<_> = peers.iter().filter(new).copied().collect();
    let (from, mtu) = start;
    let sizes = match netlink::probe(from, &asked, mtu, patience).await {
        Ok(sizes) => sizes,
        Err(error) => {
            cni::log(&format!("ways to other hosts are not measured: {error}"));
            vec![None; asked.len()]
        }
    };
    let _lock = host.lock(NAME)?;
    let mut paths = load(host)?;
    if paths.from != Some(start) {
        paths = Paths {
            from: Some(start),
            ..Paths::default()
        };
    }
    for (vtep, size) in asked.into_iter().zip(sizes) {
        let known = paths.sizes.insert(vtep, size);
        if let Some(packet) = size.filter(|size| *size < mtu && known != Some(Some(*size))) {
            let inner = packet.saturating_sub(overhead(from));
            cni::log(&format!(
                "the way to {vtep} carries packets of {packet} bytes, the underlay {mtu}: containers that are made from now on \
                 get an MTU of {inner}"
            ));
        }
    }
    save(host, &paths)?;
    Ok(paths)
}

fn load(host: &Host) -> Result<Paths, Error> {
    Ok(readable(&host.paths, NAME)?.unwrap_or_default())
}

fn save(host: &Host, paths: &Paths) -> Result<(), Error> {
    if load(host)? == *paths {
        return Ok(());
    }
    host.paths.save(NAME, paths).map_err(|error| local(&error))
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
pub fn known(news: &News, node: &str) -> Result<Option<Carried>, Error> {
    let host = Host::open()?;
    let paths = load(&host)?;
    Ok(paths.from.map(|start| {
        let narrow = paths.narrow(&peers(news, node, start.0));
        Carried {
            mtu: least(&narrow, start),
            narrow,
        }
    }))
}
