//! This host, as one verb sees it: its namespace and socket, its documents, its place on the underlay.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use cluster::{
    Cluster, NetworkSpec, News, Node, Place, Records, Resolved, Stored, no_tunnel_address,
};
use ipnetwork::IpNetwork;
use journal::{Attachment, Journal, Lock, Unreadable};
use netlink::{Link, Netns, Rtnl};
use plugin::{Error, readable};

use crate::{
    egress::Ledger,
    firewall::{foreign_rules, table::Table},
    follow::{
        membership::Membership,
        watcher_lease::{self, Following},
    },
    host_link::Foothold,
    segment::{
        forwarding::Translations,
        path_mtu::Paths,
        sandbox::{self, Users},
    },
    state::attachment::Record,
};

/// Longest wait for another verb of this host.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that VXLAN adds to a packet: inner Ethernet 14, VXLAN 8, UDP 8, and the outer IP header.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;

/// What all verbs need of the host.
pub struct Host {
    /// The host's own namespace.
    pub netns: Netns,
    /// A socket in it.
    pub rtnl: Rtnl,
    /// Attachments.
    pub records: Journal<Record>,
    /// The news that each network's sandbox forwards by.
    pub news: Journal<News>,
    /// Of which store each network's documents are.
    pub places: Journal<Place>,
    /// On which networks this host forwards, as the store was told.
    pub members: Journal<Membership>,
    /// Who uses which sandbox.
    pub users: Journal<Users>,
    /// What each sandbox readdresses.
    pub translations: Journal<Translations>,
    /// Who has which egress address.
    pub egress: Journal<Ledger>,
    /// What this host has of its own on each segment.
    pub footholds: Journal<Foothold>,
    /// What the firewall's table should have.
    pub firewall: Journal<Table>,
    /// What the ways to other hosts carry.
    pub paths: Journal<Paths>,
    /// Which networks a watcher follows.
    pub following: Journal<Following>,
}

/// Where the tunnels leave this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Our tunnel address.
    pub vtep: IpAddr,
}

impl Underlay {
    /// MTU of a segment over this underlay.
    pub fn segment_mtu(&self) -> u32 {
        self.mtu.saturating_sub(overhead(self.vtep))
    }
}

/// Bytes that a tunnel from this address adds to a packet.
pub(crate) fn overhead(vtep: IpAddr) -> u32 {
    if vtep.is_ipv4() {
        OVERHEAD_V4
    } else {
        OVERHEAD_V6
    }
}

impl Host {
    /// Opens what a verb needs. Must run inside the runtime.
    pub fn open() -> Result<Self, Error> {
        let netns = Netns::current()?;
        let rtnl = Rtnl::here(&netns)?;
        let root = Path::new(journal::ROOT);
        Ok(Self {
            netns,
            rtnl,
            records: Journal::new(root, "journal/overlay"),
            news: Journal::new(root, "news"),
            places: Journal::new(root, "place"),
            members: Journal::new(root, "acks"),
            users: Journal::new(root, "sandbox"),
            translations: Journal::new(root, "macs").of_maps(),
            egress: Journal::new(root, "egress"),
            footholds: Journal::new(root, "foothold"),
            firewall: Journal::new(root, "firewall"),
            paths: Journal::new(root, "paths"),
            following: watcher_lease::documents(),
        })
    }

    /// Before an ADD makes anything: refused where a newer version's layout is in use here.
    pub(crate) fn begin_layout() -> Result<(), Error> {
        let (version, commit) = (cni::build::VERSION, cni::build::COMMIT);
        journal::layout::begin(Path::new(journal::ROOT), version, commit).map_err(Error::from)
    }

    /// Keeps other verbs off a network's sandbox on this host.
    pub fn lock_network(&self, network: &str) -> Result<Lock, Error> {
        self.lock(&format!("network-{network}"))
    }

    /// Keeps other verbs off a container, over all its networks.
    pub fn lock_container(&self, attachment: &Attachment) -> Result<Lock, Error> {
        Ok(self.lock(&of_container(attachment))?.passing())
    }

    /// The same without waiting; `None` if a verb of the container is running.
    pub fn lock_idle_container(&self, attachment: &Attachment) -> Result<Option<Lock>, Error> {
        let idle = self.records.try_lock(&of_container(attachment));
        Ok(idle?.map(Lock::passing))
    }

    /// A lock of this host.
    pub fn lock(&self, name: &str) -> Result<Lock, Error> {
        self.records.lock(name, PATIENCE).map_err(Error::from)
    }

    /// Whether an attachment uses a network's sandbox.
    pub fn has_users(&self, network: &str) -> Result<bool, Error> {
        let users = readable(&self.users, network)?;
        Ok(users.is_some_and(|users| !users.0.is_empty()))
    }

    /// Whether attachments use a network's sandbox, also where the list of them was lost with `/run`: their ports tell.
    pub async fn needs_sandbox(&self, network: &str) -> Result<bool, Error> {
        if self.has_users(network)? {
            return Ok(true);
        }
        match sandbox::open(network)? {
            Some(rtnl) => sandbox::has_ports(&rtnl).await,
            None => Ok(false),
        }
    }

    /// The documents of this host that cannot be read, but for the attachments' records: what they said comes from the kernel
    /// and the store again.
    pub fn lost(&self) -> Result<Vec<Unreadable>, Error> {
        let all = [
            self.news.all().map(|it| it.unreadable),
            self.places.all().map(|it| it.unreadable),
            self.members.all().map(|it| it.unreadable),
            self.users.all().map(|it| it.unreadable),
            self.translations.all().map(|it| it.unreadable),
            self.egress.all().map(|it| it.unreadable),
            self.footholds.all().map(|it| it.unreadable),
            self.firewall.all().map(|it| it.unreadable),
            self.paths.all().map(|it| it.unreadable),
            self.following.all().map(|it| it.unreadable),
            watcher_lease::heard().all().map(|it| it.unreadable),
            journal::tunnel::unreadable(),
        ];
        let mut lost = Vec::new();
        for unreadable in all {
            lost.extend(unreadable?);
        }
        Ok(lost)
    }

    /// The identifiers of all networks that this host knows: none of them is another network's, also where the store has lost
    /// its records.
    pub fn vnis(&self) -> Result<BTreeSet<u32>, Error> {
        let news = self.news.all_readable(&|it| cni::log(&it.to_string()));
        let news = news?.into_iter();
        let vnis = news.filter_map(|news| news.network?.record.vni);
        Ok(vnis.collect())
    }

    /// Keeps the news of a network for the next verb.
    pub fn keep(&self, network: &str, news: &News) -> Result<(), Error> {
        let _lock = self.lock(&format!("news-{network}"))?;
        self.news.save(network, news).map_err(Error::from)
    }

    /// Finds the underlay: the named address or interface, else where the route to the store leaves, else where the
    /// default route does.
    pub async fn underlay(&self, settings: &Resolved) -> Result<Underlay, Error> {
        let links = self.rtnl.links().await?;
        let addresses = self.rtnl.addresses(None).await?;
        let on = |link: &Link| {
            addresses
                .iter()
                .find(|(index, a)| *index == link.index && is_global(*a))
                .map(|(_, a)| a.ip())
        };
        let named = settings.underlay.as_ref();
        let (link, vtep) = match (named, settings.vtep) {
            (Some(name), vtep) => {
                let link = links.iter().find(|link| link.name == *name);
                let link = link.ok_or_else(|| {
                    Error::config(format!(
                        "node.underlay: {name}: no such interface on this host"
                    ))
                })?;
                let own = vtep.map_or_else(
                    || on(link),
                    |vtep| has(&addresses, vtep, Some(link.index)).map(|_| vtep),
                );
                let missing = || match vtep {
                    Some(vtep) => Error::config(format!(
                        "node.vtep: {vtep}: not an address of interface {name}"
                    )),
                    None => Error::config(format!("node.underlay: {name}: has no address")),
                };
                (link, own.ok_or_else(missing)?)
            }
            (None, Some(vtep)) => {
                let index = has(&addresses, vtep, None);
                let link = index.and_then(|index| links.iter().find(|link| link.index == index));
                (
                    link.ok_or_else(|| {
                        Error::config(format!("node.vtep: {vtep}: not an address of this host"))
                    })?,
                    vtep,
                )
            }
            (None, None) => self.by_route(settings, &links, &addresses).await?,
        };
        if link.name == "lo" {
            let key = named.map_or_else(
                || format!("node.vtep: {vtep}: an address of lo"),
                |name| format!("node.underlay: {name}"),
            );
            let why = "the loopback interface reaches no other host";
            return Err(Error::config(format!("{key}: {why}")));
        }
        if let Some(why) = no_tunnel_address(vtep) {
            let key = if settings.vtep.is_some() {
                format!("node.vtep: {vtep}")
            } else {
                format!("underlay {}: its address {vtep}", link.name)
            };
            return Err(Error::config(format!("{key} {why}")));
        }
        Ok(Underlay {
            index: link.index,
            name: link.name.clone(),
            mtu: link.mtu,
            vtep,
        })
    }

    /// Whether this host has the address.
    pub async fn has_address(&self, address: IpAddr) -> Result<bool, Error> {
        let addresses = self.rtnl.addresses(None).await;
        let addresses = addresses?;
        Ok(has(&addresses, address, None).is_some())
    }

    async fn by_route<'l>(
        &self,
        settings: &Resolved,
        links: &'l [Link],
        addresses: &[(u32, IpNetwork)],
    ) -> Result<(&'l Link, IpAddr), Error> {
        let nowhere = || {
            Error::config("node.vtep: no route leaves this host; name node.underlay or node.vtep")
        };
        // Any address beyond the host does for the default route: nothing is sent. That of IPv6 counts where its link has no
        // IPv4: where the other default route is away for a while the tunnels stay where they are.
        let store = store_address(settings.store.url.as_deref().unwrap_or_default());
        let store = store.filter(|store| !store.is_loopback()).into_iter();
        let [v4, v6] = foreign_rules::BEYOND;
        let first = store.chain([v4]).map(|target| (target, false));
        for (target, without_v4) in first.chain([(v6, true)]) {
            let Ok(hop) = self.rtnl.route_to(target).await else {
                continue;
            };
            let has_v4 = addresses
                .iter()
                .any(|(index, it)| *index == hop.dev && it.is_ipv4() && is_global(*it));
            let link = links
                .iter()
                .find(|link| link.index == hop.dev && link.name != "lo");
            let source = hop.source.filter(|source| is_global((*source).into()));
            if let Some(found) = link.zip(source).filter(|_| !(without_v4 && has_v4)) {
                return Ok(found);
            }
        }
        Err(nowhere())
    }

    /// The news of a network, made true where this host has a part in it: the node is known with its address and
    /// boot, and the network exists as wanted. Also whether the node had to be made known.
    pub async fn prepare(
        &self,
        cluster: &Cluster<'_>,
        settings: &Resolved,
        spec: &NetworkSpec,
    ) -> Result<(News, bool), Error> {
        let mut news = cluster.news(&spec.name).await?;
        let vtep = self.underlay(settings).await?.vtep;
        let registered = self.enrol(cluster, settings, &news.nodes, vtep).await?;
        if news.network.is_none() {
            let spec = NetworkSpec {
                in_use: self.vnis()?,
                ..spec.clone()
            };
            cluster.ensure_network(&spec).await?;
        }
        if registered || news.network.is_none() {
            news = cluster.news(&spec.name).await?;
        }
        let network = news.ready_network(&spec.name)?;
        spec.agree(&network.record)?;
        if network.record.vni.is_none() {
            return Err(no_segment(&spec.name));
        }
        Ok((news, registered))
    }

    /// Makes this node known with its tunnel address unless it is among these `nodes` as it is; says whether that was needed.
    /// Refused where another host has that address.
    pub async fn enrol(
        &self,
        cluster: &Cluster<'_>,
        settings: &Resolved,
        nodes: &Records<String, Node>,
        vtep: IpAddr,
    ) -> Result<bool, Error> {
        journal::tunnel::note(vtep)?;
        let (name, node) = (&settings.node, node(settings, vtep)?);
        let known = nodes.get(name);
        let present = known.and_then(Stored::readable).map(|node| &node.record);
        let same_boot = present.filter(|present| present.boot_id == node.boot_id);
        if same_boot.is_some_and(|present| present.vtep == node.vtep) {
            return Ok(false);
        }
        Cluster::refuse_double(nodes, &node, journal::clock::booted())?;
        cluster.register(&node).await?;
        if let Some(wrong) = same_boot {
            let had = match wrong.vtep {
                Some(vtep) => format!("tunnel address {vtep}, which is not its own"),
                None => "no tunnel address that another host can use".to_owned(),
            };
            cni::log(&format!("node {name}: the store had {had}; mended"));
        }
        if let Some(Stored::Opaque(opaque)) = known {
            if opaque.is_newer {
                let why = &opaque.why;
                cni::log(&format!("node {name}: its record stays as it is: {why}"));
                return Ok(false);
            }
            cni::log(&format!(
                "node {name}: its record could not be read; mended"
            ));
        }
        Ok(true)
    }
}

/// That a network is of addresses alone.
pub(crate) fn no_segment(network: &str) -> Error {
    let why = format!(
        "network {network}: has no VXLAN segment: it was made for another interface plugin"
    );
    Error::new(crate::code::DIFFERS, why)
}

/// This host's record with this tunnel address.
pub(crate) fn node(settings: &Resolved, vtep: IpAddr) -> Result<Node, Error> {
    let boot_id = journal::clock::boot_id();
    Ok(Node {
        name: settings.node.clone(),
        vtep: Some(vtep),
        boot_id: boot_id.map_err(|error| Error::io(format!("boot id: {error}")))?,
        machine_id: journal::clock::machine_id(),
        last_contact: journal::clock::unix(),
        version: Some(cni::build::VERSION.to_owned()),
        commit: Some(cni::build::COMMIT.to_owned()),
    })
}

/// The name of the lock on a container.
fn of_container(attachment: &Attachment) -> String {
    format!("container-{}", attachment.container_hash())
}

fn has(addresses: &[(u32, IpNetwork)], wanted: IpAddr, link: Option<u32>) -> Option<u32> {
    let on = |(index, address): &&(u32, IpNetwork)| {
        address.ip() == wanted && link.is_none_or(|link| link == *index)
    };
    addresses.iter().find(on).map(|(index, _)| *index)
}

/// An address that other hosts can reach: not loopback, not link-local.
fn is_global(address: IpNetwork) -> bool {
    match address.ip() {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// The address in a store's URL, if it is one and not a name.
fn store_address(url: &str) -> Option<IpAddr> {
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    let place = place.split('/').next()?;
    let socket: Result<SocketAddr, _> = place.parse();
    socket
        .map(|socket| socket.ip())
        .ok()
        .or_else(|| place.trim_matches(['[', ']']).parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_address_is_read_from_its_url() {
        let found = [
            "consul://192.168.1.5:8500",
            "192.168.1.5",
            "consuls://[fd00::5]:8501/x",
            "consul://name:8500",
            "dir:///x",
        ];
        let found = found.map(|url| store_address(url).map(|address| address.to_string()));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                some("192.168.1.5"),
                some("192.168.1.5"),
                some("fd00::5"),
                None,
                None
            ]
        );
    }
}
