//! Egress: the way out of a container, a second NIC on a host-local bridge whose traffic is masqueraded.
//!
//! A container has one such NIC, on however many networks it is, until it leaves the last of them. The bridge has a namespace of its
//! own, and the host has one interface on it (`inside`). Both are removed with the last container. A document of the host lists the
//! addresses. They are never in the store, as they mean nothing on other hosts.

mod bridge;
mod desired;
mod inside;
mod ledger;
mod subnet;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnetwork::{IpNetwork, Ipv4Network};
use journal::Attachment;
use netlink::{Change, Netns, NetnsError, Rtnl, VethEnd};
use plugin::{Error, all_readable, code, readable};

use crate::{
    endpoint::bandwidth,
    firewall::table,
    host_state::Deviation,
    names::{self, EGRESS_NIC},
    state::{attachment::Record, host::Host},
};

use bridge::Look;
pub(crate) use bridge::{forward, refuse_forwarding, switches};
use inside::Inside;
pub(crate) use inside::open;
pub use ledger::{Lease, Ledger, Nic, Nic6};
pub use subnet::taken;

/// The document's name, and its lock's.
const NAME: &str = "egress";
/// Owner of our element in the nftables set.
const OWNER: &str = "egress bridge";
/// MTU of the egress NICs in bytes.
pub(crate) const MTU: u32 = 1500;

/// What an attachment needs of the egress bridge.
#[derive(Debug, Default)]
pub struct Wanted {
    /// This subnet.
    pub subnet: Option<IpNetwork>,
    /// A way out over IPv6, too.
    pub v6: bool,
    /// Subnets that the container reaches by other interfaces. None can be the bridge's.
    pub beside: Vec<IpNetwork>,
    /// Subnets of all networks, which containers may join later. A new bridge gets none of them.
    pub others: Vec<IpNetwork>,
}

/// The egress document. One that cannot be read counts as lost: the kernel tells what it said.
pub fn ledger(host: &Host) -> Result<Option<Ledger>, Error> {
    readable(&host.egress, NAME)
}

/// Where a container's new port on the egress bridge is.
pub struct Plugged {
    /// A socket there.
    pub(crate) rtnl: Rtnl,
    /// The ports that have to forward before the container has its way out.
    pub(crate) ports: Vec<String>,
}

/// The same. If it was lost, it is restored from the kernel and the containers' records.
pub(crate) async fn known(host: &Host) -> Result<Option<Ledger>, Error> {
    let _lock = host.lock(NAME)?;
    known_alone(host).await
}

/// The same; the caller holds the lock.
async fn known_alone(host: &Host) -> Result<Option<Ledger>, Error> {
    if let Some(ledger) = ledger(host)? {
        return Ok(Some(ledger));
    }
    let Some((subnet, subnet6)) = bridge::subnets(host).await? else {
        return Ok(None);
    };
    let mut ledger = Ledger::new(subnet, subnet6);
    let seen = inside::ports(host).await?;
    let mut strangers = seen.clone().unwrap_or_default();
    for record in all_readable(&host.records)? {
        let port = names::egress_port(&record.attachment);
        // A container that cannot be entered stays unknown.
        let addresses = addresses_in(&record).await.unwrap_or_else(|error| {
            cni::log(&format!("{}: its way out: {error}", record.attachment));
            Vec::new()
        });
        let is_plugged = seen.as_ref().is_some_and(|ports| ports.contains(&port));
        if ledger.recall(&record.attachment, &addresses, is_plugged) {
            strangers.remove(&port);
        }
    }
    // If the bridge's namespace is hidden, there may be others.
    ledger.adopted = seen.is_none() || !strangers.is_empty();
    if !ledger.leases.is_empty() {
        host.egress.save(NAME, &ledger)?;
    }
    Ok(Some(ledger))
}

/// The addresses of the egress NIC in the container of a record; none where there is no such NIC, or no such container.
async fn addresses_in(record: &Record) -> Result<Vec<IpNetwork>, Error> {
    let container = match Netns::open(&record.netns) {
        Ok(container) if container.id() == record.netns_id => container,
        Ok(_) | Err(NetnsError::Gone { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let rtnl = Rtnl::open(&container)?;
    let nic = rtnl.link(EGRESS_NIC).await;
    let Some(nic) = nic? else {
        return Ok(Vec::new());
    };
    let addresses = rtnl.addresses(Some(nic.index)).await?;
    Ok(addresses.into_iter().map(|(_, address)| address).collect())
}

/// Gives the container its way out: the bridge, the masquerade and, with its first attachment, the NIC (down). Also where
/// that was plugged.
pub async fn ensure(
    host: &Host,
    attachment: &Attachment,
    wanted: &Wanted,
    container: &Netns,
) -> Result<(Nic, Option<Plugged>), Error> {
    let _lock = host.lock(NAME)?;
    let mut ledger = match known_alone(host).await? {
        Some(ledger) => ledger,
        None => Ledger::new(subnet::choose(host, wanted).await?, None),
    };
    let v6 = wanted.v6;
    refuse_another(ledger.subnet, wanted.subnet)?;
    let mut look = Look::AtLinks;
    if v6 && ledger.subnet6.is_none() {
        ledger.subnet6 = Some(subnet::choose_v6(host, wanted).await?);
        // All containers on the bridge may use theirs from now on.
        look = Look::AtAll;
    }
    refuse_overlap(&ledger, ledger.gateway(), &wanted.beside)?;
    let (container_hash, hash) = (attachment.container_hash(), attachment.hash());
    let mut nic = ledger.enter(&container_hash, &hash, v6, &wanted.beside);
    if nic.is_none() {
        end_connections(&ledger.renew());
        nic = ledger.enter(&container_hash, &hash, v6, &wanted.beside);
    }
    let nic = nic.ok_or_else(|| {
        Error::new(
            code::POOL,
            format!(
                "egress subnet {}: no address is left on this host",
                ledger.subnet
            ),
        )
    })?;
    refuse_overlap(&ledger, nic.address.ip(), &wanted.beside)?;
    host.egress.save(NAME, &ledger)?;
    let inside = bridge::ensure(host, &ledger, look).await?;
    table::masquerade(host, OWNER, ledger.subnets())?;
    if !nic.new {
        bandwidth::limit_egress(host, &inside.rtnl, &ledger, attachment, false).await?;
        return Ok((nic, None));
    }
    let peer = VethEnd {
        name: EGRESS_NIC.to_owned(),
        mac: Some(nic.mac()),
        mtu: MTU,
        group: names::group(attachment),
        up: false,
    };
    let permitted = desired::permitted(&ledger, nic.address.ip());
    let known: Vec<_> = permitted.neighbours().map(Change::Add).collect();
    host.rtnl.change(inside.outside, 0, &known).await?;
    let lease = (&ledger, &permitted);
    inside
        .plug(host, lease, attachment, peer, container)
        .await?;
    bandwidth::limit_egress(host, &inside.rtnl, &ledger, attachment, true).await?;
    let uplink = inside.form.uplink().map(str::to_owned);
    let plugged = Plugged {
        rtnl: inside.rtnl,
        ports: uplink
            .into_iter()
            .chain([names::egress_port(attachment)])
            .collect(),
    };
    Ok((nic, Some(plugged)))
}

/// Whether the egress bridge is one that an earlier version made among the host's interfaces.
pub(crate) async fn is_on_host(host: &Host) -> Result<bool, Error> {
    Ok(inside::Form::find(host).await? == inside::Form::OnHost)
}

/// Refuses what [`ensure`] would refuse to any container. Changes nothing.
pub(crate) async fn refuse(host: &Host, wanted: &Wanted) -> Result<(), Error> {
    inside::refuse_hidden(host).await?;
    let ledger = match ledger(host)? {
        Some(ledger) => ledger,
        None => match bridge::subnets(host).await? {
            Some((subnet, subnet6)) => Ledger::new(subnet, subnet6),
            None => Ledger::new(subnet::choose(host, wanted).await?, None),
        },
    };
    refuse_another(ledger.subnet, wanted.subnet)?;
    refuse_overlap(&ledger, ledger.gateway(), &wanted.beside)
}

fn refuse_another(subnet: Ipv4Network, wanted: Option<IpNetwork>) -> Result<(), Error> {
    match wanted.filter(|wanted| *wanted != IpNetwork::V4(subnet)) {
        None => Ok(()),
        Some(wanted) => {
            let why =
                format!("egress.subnet: {wanted}: this host's egress bridge has {subnet} in use");
            Err(Error::new(code::DIFFERS, why))
        }
    }
}

/// Refuses subnets of a network that has no way out by the bridge, where the container has one by another network. Code 103.
pub fn refuse_meeting(
    host: &Host,
    attachment: &Attachment,
    subnets: &[IpNetwork],
) -> Result<(), Error> {
    let Some(ledger) = ledger(host)? else {
        return Ok(());
    };
    let container = attachment.container_hash();
    let own = ledger
        .leases
        .iter()
        .find(|(_, it)| it.container == container);
    own.map_or(Ok(()), |(own, _)| refuse_overlap(&ledger, *own, subnets))
}

/// Refuses what would be in the way of the gateway or of the container's own address: one container cannot reach the same addresses
/// in two ways. A smaller subnet beside these is not in the way. Code 103.
fn refuse_overlap(ledger: &Ledger, own: Ipv4Addr, beside: &[IpNetwork]) -> Result<(), Error> {
    let v4 = [ledger.gateway(), own];
    let v6 = v4.map(|v4| ledger.counterpart(v4)).into_iter().flatten();
    let mut ours = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
    let found = ours.find_map(|ours| {
        let other = beside.iter().find(|subnet| subnet.contains(ours))?;
        Some((ours, other))
    });
    let Some((ours, other)) = found else {
        return Ok(());
    };
    let why = format!(
        "egress.subnet: {}: {ours} of this host's egress bridge is in {other}, which the container reaches otherwise; \
         another one takes effect when this host's last container with a way out has gone",
        ledger.subnet
    );
    Err(Error::new(code::DIFFERS, why))
}

/// Mends the bridge, its ports and what hides it, if containers here have a way out; whether something was wrong.
pub async fn repair(host: &Host) -> Result<bool, Error> {
    let _lock = host.lock(NAME)?;
    let known = known_alone(host).await?;
    let Some(ledger) = known.filter(|ledger| !ledger.leases.is_empty()) else {
        return Ok(false);
    };
    let inside = bridge::ensure(host, &ledger, Look::AtAll).await?;
    let unlimited = bandwidth::repair_egress(host, &inside.rtnl, &ledger).await?;
    let exposed = table::masquerade(host, OWNER, ledger.subnets())?;
    Ok(inside.changes > 0 || unlimited || exposed)
}

/// What of the way out of all containers is not as it should be, but for the host's own switches and rules.
pub(crate) async fn deviating(host: &Host, ledger: &Ledger) -> Result<Vec<Deviation>, Error> {
    let _lock = host.lock(NAME)?;
    // Of one that is not open yet an ADD is at work, or was killed.
    let open = ledger.leases.values().filter(|lease| lease.open);
    let ports = open.map(|lease| names::egress_port_of(&lease.container));
    let ports: Vec<_> = ports.collect();
    let mut found = bridge::deviating(host, ledger, &ports).await?;
    let unlimited = bandwidth::egress_deviation(host, ledger, None).await?;
    found.extend(unlimited.map(Deviation::of));
    Ok(found)
}

/// What of the way out of a container, whose port on the bridge is `port`, is not as it should be, if anything. Touches nothing.
pub async fn deviation(
    host: &Host,
    attachment: &Attachment,
    port: &str,
) -> Result<Option<String>, Error> {
    let _lock = host.lock(NAME)?;
    let container = attachment.container_hash();
    let known = known_alone(host).await?.filter(|ledger| {
        let mut leases = ledger.leases.values();
        leases.any(|lease| lease.container == container)
    });
    let Some(ledger) = known else {
        return Ok(Some("this host has no note of its way out".to_owned()));
    };
    let found = bridge::deviating(host, &ledger, &[port.to_owned()]).await?;
    if let Some(first) = found.into_iter().next() {
        return Ok(Some(first.what));
    }
    if let Some(what) = bandwidth::egress_deviation(host, &ledger, Some(&container)).await? {
        return Ok(Some(what));
    }
    let v6 = ledger.subnet6.is_some();
    not_let_out(host, OWNER, ledger.subnets(), v6)
}

/// Why the host does not let out these subnets of an owner under its own addresses, if it does not: a switch that is off, or
/// no masquerade.
pub(crate) fn not_let_out(
    host: &Host,
    owner: &str,
    subnets: BTreeSet<IpNetwork>,
    v6: bool,
) -> Result<Option<String>, Error> {
    if let Some(switch) = bridge::switched_off(v6)? {
        return Ok(Some(format!("{switch}: is off")));
    }
    let exposed = table::exposed(host, owner, subnets)?;
    Ok(
        exposed
            .map(|subnet| format!("nftables table inet crosshost: does not masquerade {subnet}")),
    )
}

/// Notes that the container's NIC works, with `v6` also by its address of IPv6.
pub fn opened(host: &Host, attachment: &Attachment, v6: bool) -> Result<(), Error> {
    let _lock = host.lock(NAME)?;
    let Some(mut ledger) = ledger(host)? else {
        return Ok(());
    };
    let container = attachment.container_hash();
    for lease in ledger
        .leases
        .values_mut()
        .filter(|lease| lease.container == container)
    {
        lease.open = true;
        lease.open6 |= v6;
    }
    host.egress.save(NAME, &ledger).map_err(Error::from)
}

/// Ends all connections of these addresses by this host, before other containers have the addresses: who goes on with one of these would
/// reach that container, past all that guards it. If it fails, they last as long as the other end goes on.
pub(crate) fn end_connections(addresses: &BTreeSet<IpAddr>) {
    if let Err(error) = netlink::forget_all_of(addresses) {
        cni::log(&error.to_string());
    }
}

/// Takes the attachment off the egress bridge; the bridge and the table go with the last container of the host.
pub async fn leave(host: &Host, attachment: &Attachment) -> Result<(), Error> {
    let _lock = host.lock(NAME)?;
    let was_noted = ledger(host)?.is_some();
    let mut known = known_alone(host).await?;
    let container = attachment.container_hash();
    let leased = known.as_ref().and_then(|ledger| {
        let mut leases = ledger.leases.iter();
        let (address, _) = leases.find(|(_, lease)| lease.container == container)?;
        Some(desired::permitted(ledger, *address))
    });
    let gone = known
        .as_mut()
        .is_none_or(|ledger| ledger.leave(&attachment.hash()) || ledger.is_stranger(attachment));
    let bridge = Inside::open(host).await?;
    let port = names::egress_port(attachment);
    if let Some(inside) = bridge.as_ref().filter(|_| gone) {
        for link in [&names::ifb(&port), &port] {
            inside.rtnl.remove_link(link).await?;
        }
        inside.release(&port, leased.as_ref())?;
    }
    if let Some(permitted) = leased.filter(|_| gone)
        && let Some(outside) = inside::outside(host).await?
    {
        let neighbours: Vec<_> = permitted.neighbours().map(Change::Remove).collect();
        host.rtnl.change(outside.index, 0, &neighbours).await?;
    }
    let save = |ledger: &Ledger| {
        let saved = host.egress.save(NAME, ledger);
        saved.map_err(Error::from)
    };
    let is_last = known.as_ref().is_none_or(|it| it.leases.is_empty());
    if let Some(ledger) = known.as_mut().filter(|it| is_last || it.has_many_spent()) {
        end_connections(&ledger.renew());
    }
    if let Some(ledger) = known.as_ref().filter(|_| !is_last) {
        save(ledger)?;
        return match bridge.filter(|_| !gone) {
            Some(inside) => {
                bandwidth::limit_egress(host, &inside.rtnl, ledger, attachment, false).await
            }
            None => Ok(()),
        };
    }
    // The document may have been lost with /run: the kernel knows whether containers are left. Where it cannot be asked,
    // since the namespace is hidden as well, an interface of that name stays.
    let has_ports = if let Some(inside) = &bridge {
        inside::has_ports(&inside.rtnl).await?
    } else {
        // With no interface either there is nothing but what a killed ADD was about to write.
        let found = host.rtnl.link(names::EGRESS_BRIDGE).await?;
        !was_noted && found.as_ref().is_some_and(inside::is_veth)
    };
    if has_ports {
        return known.as_ref().map_or(Ok(()), save);
    }
    let _open = table::stop_masquerading(host, OWNER)?;
    inside::remove(host).await?;
    host.egress.remove(NAME).map_err(Error::from)
}
