//! The host link: what the host itself has on a segment. If the network is the way out of its containers, the host answers for the
//! gateway addresses, like every other host and with the same MAC. If `hostAccess` is on, it has an address of its own, leased
//! like a container's. Both are possible at once.
//!
//! Each is a veth pair between the host and the bridge of the sandbox. Each has its own MAC, which follows from its address, so
//! that the forwarding entries of other hosts are right. A document says what should exist. It is written before that is made,
//! and removed after the lease was given back. All of this happens under the network's lock, and lasts as long as the sandbox.

mod desired;

use std::{collections::BTreeSet, net::IpAddr};

use cluster::Network;
use cni::Delegate;
use ipnetwork::IpNetwork;
use journal::{Attachment, Found, Lock};
use netlink::{Change, Forwarding, Mac};
use serde::{Deserialize, Serialize};

use crate::{
    egress,
    endpoint::source_guard::{self, Permitted},
    firewall::table,
    host_state::{self, Deviation, Known, Object, Observed, Space, deviations},
    names::{self, HOST},
    segment::{
        forwarding::{answered_here, mac_of},
        sandbox::{self, Sandbox},
    },
    state::host::Host,
};
use plugin::{Error, code, readable};

/// What the host should have on one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostLink {
    /// What the host has a route to.
    subnets: Vec<IpNetwork>,
    /// The addresses for which every host answers; none where containers leave otherwise.
    gateways: BTreeSet<IpAddr>,
    /// Whether the host has addresses of its own.
    access: bool,
    /// These; none until the IPAM plugin has given them.
    addresses: Vec<IpNetwork>,
}

/// What an attachment wants of its host.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HostLinkSpec {
    /// The host is its gateway.
    pub(crate) gateway: bool,
    /// The host has an address on the segment.
    pub(crate) access: bool,
}

impl HostLinkSpec {
    /// The key of the configuration by which it is wanted.
    fn key(self) -> &'static str {
        if self.gateway {
            "egress: gateway"
        } else {
            "hostAccess: true"
        }
    }
}

impl HostLink {
    /// Whether the IPAM plugin has still to give the host's own addresses.
    pub(crate) fn lacks_addresses(&self) -> bool {
        self.access && self.addresses.is_empty()
    }

    /// The MAC of the gateway: of a pair that of the IPv4 address.
    fn gateway_mac(&self) -> Option<Mac> {
        let first = self.gateways.iter().min_by_key(|address| address.is_ipv6());
        first.map(|address| mac_of(*address))
    }

    /// The host's own addresses.
    pub(crate) fn own(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNetwork::ip)
    }

    /// The ports of the segment's bridge that this takes.
    pub(crate) fn ports(&self, network: &str) -> Vec<String> {
        let pairs = self.pairs(network).into_iter();
        pairs.map(|pair| pair.name).collect()
    }
}

/// What the host should have on the network. A document that cannot be read counts as absent.
pub(crate) fn load(host: &Host, network: &str) -> Result<Option<HostLink>, Error> {
    readable(&host.host_links, network)
}

/// Whether the host may have something on the network: the document exists, whether or not it can be read.
pub(crate) fn may_be(host: &Host, network: &str) -> Result<bool, Error> {
    let found = host.host_links.load(network);
    Ok(found? != Found::Absent)
}

fn save(host: &Host, network: &str, host_link: &HostLink) -> Result<(), Error> {
    let saved = host.host_links.save(network, host_link);
    saved.map_err(Error::from)
}

/// The `wanted` entries of a network's sandbox, where this host answers for the gateway itself.
pub(crate) fn entries(
    host: &Host,
    network: &str,
    mut wanted: Forwarding,
) -> Result<Forwarding, Error> {
    if let Some(host_link) = load(host, network)?
        && let Some(mac) = host_link.gateway_mac()
    {
        answered_here(&mut wanted, &host_link.gateways, mac);
    }
    Ok(wanted)
}

/// Notes what an attachment wants of its host, beside what others wanted; the caller holds the network's lock. What
/// [lacks](HostLink::lacks_addresses) addresses then gets them by [`lease`], and all of it is made by [`apply`].
pub(crate) async fn note(
    host: &Host,
    network: &Network,
    spec: HostLinkSpec,
) -> Result<HostLink, Error> {
    let name = &network.name;
    let before = load(host, name)?;
    let mut host_link = before.clone().unwrap_or_default();
    if before.is_none() && !spec.gateway && !spec.access {
        return Ok(host_link);
    }
    if spec.gateway {
        let ranges = network.ranges.iter().flatten();
        host_link.gateways = ranges.filter_map(|range| range.gateway).collect();
    }
    host_link.access |= spec.access;
    host_link.subnets = network.subnets();
    let key = spec.key();
    if host_link.subnets.is_empty() || (spec.gateway && host_link.gateways.is_empty()) {
        let why = "no subnet with a gateway is known of the network; give it ipam.ranges";
        return Err(Error::config(format!("{key}: {why}")));
    }
    if !may_be(host, name)? {
        refuse_taken(host, name, key, &host_link.subnets).await?;
    }
    if before.as_ref() != Some(&host_link) {
        save(host, name, &host_link)?;
    }
    Ok(host_link)
}

/// Leases the host's own addresses, as it was noted that it wants them. The caller does not hold the network's lock, so that
/// all else on the network goes on while the IPAM plugin runs.
pub(crate) fn lease(
    host: &Host,
    network: &str,
    noted: HostLink,
    ipam: &Delegate<'_>,
) -> Result<HostLink, Error> {
    let _alone = lock_lease(host, network)?;
    let known = load(host, network)?;
    if let Some(known) = known.filter(|known| !known.lacks_addresses()) {
        return Ok(known);
    }
    let ipam = of_host(network, ipam)?;
    // Gives back what a killed ADD was given and did not note.
    ipam.del()?;
    let given = ipam.add()?;
    let addresses: Vec<_> = given.ips.iter().map(|ip| ip.address).collect();
    if addresses.is_empty() {
        return Err(Error::decode("hostAccess: the IPAM plugin gave no address"));
    }
    let _lock = host.lock_network(network)?;
    let known = load(host, network)?.unwrap_or(noted);
    let host_link = HostLink {
        access: true,
        addresses,
        ..known
    };
    save(host, network, &host_link)?;
    Ok(host_link)
}

/// Excludes other verbs from leasing the host's own addresses, and from giving them back. Taken before the network's lock.
fn lock_lease(host: &Host, network: &str) -> Result<Lock, Error> {
    host.lock(&format!("host-lease-{network}"))
}

/// The IPAM plugin, asked for the host's own attachment to the network.
fn of_host<'a>(network: &str, ipam: &Delegate<'a>) -> Result<Delegate<'a>, Error> {
    let own = attachment(network);
    let netns = names::sandboxes().join(network);
    Ok(ipam.on_behalf(&own.container, &own.ifname, &netns)?)
}

/// The host's own attachment to the network, by which its lease is known.
pub(crate) fn attachment(network: &str) -> Attachment {
    Attachment {
        network: network.to_owned(),
        container: HOST.to_owned(),
        ifname: names::host_link(network),
    }
}

/// Refuses subnets that are this host's already in another way. Code 103.
async fn refuse_taken(
    host: &Host,
    network: &str,
    key: &str,
    subnets: &[IpNetwork],
) -> Result<(), Error> {
    // Links of ours are left from a document that was lost.
    for name in [names::host_link(network), names::gateway_link(network)] {
        host.rtnl.remove_link(&name).await?;
    }
    refuse_overlap(host, network, key, subnets).await
}

/// Refuses what [`note`] would refuse of a first attachment that wants this. Changes nothing.
pub(crate) async fn refuse(
    host: &Host,
    network: &str,
    spec: HostLinkSpec,
    subnets: &[IpNetwork],
) -> Result<(), Error> {
    let key = spec.key();
    let own = [names::host_link(network), names::gateway_link(network)];
    let links = host.rtnl.links().await?;
    let is_there = may_be(host, network)? || links.iter().any(|it| own.contains(&it.name));
    if is_there || !(spec.gateway || spec.access) {
        return Ok(());
    }
    refuse_overlap(host, network, key, subnets).await
}

async fn refuse_overlap(
    host: &Host,
    network: &str,
    key: &str,
    subnets: &[IpNetwork],
) -> Result<(), Error> {
    let taken = egress::taken(host).await?;
    match ipam::overlapping(subnets, &taken) {
        None => Ok(()),
        Some((subnet, other)) => Err(Error::new(
            code::DIFFERS,
            format!("{key}: subnet {subnet} of network {network}: this host has {other} already"),
        )),
    }
}

/// Repairs what the host should have on the network; whether something was wrong. The caller holds the lock.
pub(crate) async fn repair(host: &Host, network: &str, sandbox: &Sandbox) -> Result<bool, Error> {
    let Some(host_link) = load(host, network)? else {
        return Ok(false);
    };
    let changed = apply(host, network, &host_link, sandbox).await?;
    let introduced = introduce(host, network, &host_link).await?;
    Ok(changed || introduced > 0)
}

/// Lets the host know its containers on the network; how much it did not. The caller holds the network's lock.
async fn introduce(host: &Host, network: &str, host_link: &HostLink) -> Result<usize, Error> {
    let ports = source_guard::on_segment(host, network)?;
    let known = desired::neighbours(&host_link.pairs(network), &ports);
    let space = Space::of_host(host);
    let mut seen = Observed::of(&space, &known).await?;
    host_state::apply(&space, &known, &mut seen).await
}

/// Lets the host know a new container of its own on the network.
pub(crate) async fn meet(
    host: &Host,
    network: &str,
    host_link: &HostLink,
    permitted: &Permitted,
) -> Result<(), Error> {
    let known: Vec<_> = permitted.neighbours().map(Change::Add).collect();
    for name in host_link.ports(network) {
        if let Some(link) = host.rtnl.link(&name).await? {
            host.rtnl.change(link.index, 0, &known).await?;
        }
    }
    Ok(())
}

/// Lets it forget one.
pub(crate) async fn part(host: &Host, network: &str, permitted: &Permitted) -> Result<(), Error> {
    let known: Vec<_> = permitted.neighbours().map(Change::Remove).collect();
    let mut has_any = false;
    for name in [names::host_link(network), names::gateway_link(network)] {
        if let Some(link) = host.rtnl.link(&name).await? {
            has_any = true;
            host.rtnl.change(link.index, 0, &known).await?;
        }
    }
    if has_any {
        egress::end_connections(permitted.addresses.as_ref().unwrap_or(&BTreeSet::new()));
    }
    Ok(())
}

/// Makes or repairs what was noted and leased; whether something was wrong. The caller holds the network's lock.
pub(crate) async fn apply(
    host: &Host,
    network: &str,
    host_link: &HostLink,
    sandbox: &Sandbox,
) -> Result<bool, Error> {
    let mut changed = false;
    if !host_link.gateways.is_empty() {
        egress::forward(host, host_link.gateways.iter().any(IpAddr::is_ipv6)).await?;
        let subnets = host_link.subnets.iter().copied().collect();
        changed |= table::masquerade(host, &names::gateway_link(network), subnets)?;
    }
    let mut links = Links::look(host, network, host_link, sandbox).await?;
    let (inside, outside) = (sandbox.space(host), Space::of_host(host));
    let made = host_state::apply(&inside, &links.inside, &mut links.seen_inside).await?;
    if made > 0 {
        let seen = &mut links.seen_outside;
        seen.renew(&outside, &links.outside).await?;
    }
    let mut mended = host_state::apply(&outside, &links.outside, &mut links.seen_outside).await?;
    if made + mended > 0 {
        // A link that was made anew knows nobody.
        mended += introduce(host, network, host_link).await?;
    }
    Ok(changed || made + mended > 0)
}

/// The host's links to a segment, as they should be and as they are.
struct Links {
    inside: Vec<Object>,
    seen_inside: Observed,
    outside: Vec<Object>,
    seen_outside: Observed,
}

impl Links {
    async fn look(
        host: &Host,
        network: &str,
        host_link: &HostLink,
        sandbox: &Sandbox,
    ) -> Result<Self, Error> {
        let (pairs, mtu) = (host_link.pairs(network), sandbox.mtu);
        let (inside, outside) = (desired::inside(&pairs, mtu), desired::outside(&pairs, mtu));
        let seen_outside = Observed::of(&Space::of_host(host), &outside).await?;
        let known = Known {
            beyond: Some(&seen_outside),
            ..sandbox.known()
        };
        let seen_inside = Observed::beside(known, &sandbox.space(host), &inside).await?;
        Ok(Self {
            inside,
            seen_inside,
            outside,
            seen_outside,
        })
    }
}

/// How the host's links to the network deviate.
pub(crate) async fn deviating(
    host: &Host,
    network: &str,
    spec: HostLinkSpec,
    sandbox: &Sandbox,
) -> Result<Vec<Deviation>, Error> {
    let host_link = load(host, network)?.unwrap_or_default();
    if spec.gateway && host_link.gateways.is_empty()
        || spec.access && host_link.addresses.is_empty()
    {
        let what = "the host has no record of its own links to the segment";
        return Ok(vec![Deviation::of(what.to_owned())]);
    }
    let links = Links::look(host, network, &host_link, sandbox).await?;
    let mut found: Vec<_> = deviations(&links.inside, &links.seen_inside).collect();
    found.extend(deviations(&links.outside, &links.seen_outside));
    let ports = source_guard::on_segment(host, network)?;
    let known = desired::neighbours(&host_link.pairs(network), &ports);
    let seen = Observed::of(&Space::of_host(host), &known).await?;
    found.extend(deviations(&known, &seen));
    if !host_link.gateways.is_empty() {
        let v6 = host_link.gateways.iter().any(IpAddr::is_ipv6);
        let subnets = host_link.subnets.into_iter().collect();
        let what = egress::not_let_out(host, &names::gateway_link(network), subnets, v6)?;
        found.extend(what.map(Deviation::of));
    }
    Ok(found)
}

/// For which versions of IP the host is the network's gateway: whether that is IPv6.
pub(crate) fn gateways(host: &Host, network: &str) -> Result<BTreeSet<bool>, Error> {
    let host_link = load(host, network)?.unwrap_or_default();
    Ok(host_link.gateways.iter().map(IpAddr::is_ipv6).collect())
}

/// Takes the host off the segment, but for its lease; the caller holds the network's lock.
pub(crate) async fn leave(host: &Host, network: &str) -> Result<(), Error> {
    for name in [names::host_link(network), names::gateway_link(network)] {
        host.rtnl.remove_link(&name).await?;
    }
    table::stop_masquerading(host, &names::gateway_link(network)).map(drop)
}

/// Gives the host's own address back where nothing of this host is on the network any more, and forgets what should be
/// there. `access`: the configuration wants one, so that there may be a lease though the document was lost.
pub(crate) async fn release(
    host: &Host,
    network: &str,
    access: bool,
    ipam: &Delegate<'_>,
) -> Result<(), Error> {
    let give_back = async || Ok(of_host(network, ipam)?.del()?);
    let released = release_by(host, network, access, give_back).await;
    released.map(drop)
}

/// The same by whatever gives the address back; whether there was anything.
pub(crate) async fn release_by(
    host: &Host,
    network: &str,
    access: bool,
    give_back: impl AsyncFnOnce() -> Result<(), Error>,
) -> Result<bool, Error> {
    if !access && !may_be(host, network)? {
        return Ok(false);
    }
    // A sandbox that stays has a container's port, whatever the list of its users says.
    let is_used = || Ok::<_, Error>(host.has_users(network)? || sandbox::open(network)?.is_some());
    {
        let _lock = host.lock_network(network)?;
        if is_used()? {
            return Ok(false);
        }
    }
    let _alone = lock_lease(host, network)?;
    let known = {
        let _lock = host.lock_network(network)?;
        if is_used()? {
            return Ok(false);
        }
        let known = load(host, network)?;
        // From here on an ADD leases anew, after this.
        if let Some(known) = known.clone().filter(|known| !known.addresses.is_empty()) {
            let addresses = Vec::new();
            save(host, network, &HostLink { addresses, ..known })?;
        }
        known
    };
    // With a document that cannot be read there may be a lease.
    if access || known.is_none_or(|known| known.access) {
        give_back().await?;
    }
    let _lock = host.lock_network(network)?;
    if !is_used()? {
        host.host_links.remove(network)?;
    }
    Ok(true)
}
