//! Egress: the way out of a container, a second NIC on a host-local bridge whose traffic is masqueraded.
//!
//! One NIC for a container however many networks it has; it goes with the last of them. The bridge and the nftables
//! table go with the last container. Who has which address stands in a document of the host, never in the store: the
//! addresses mean nothing beyond it.

mod ledger;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use cni::Error;
use ipnetwork::{IpNetwork, Ipv4Network};
use journal::Attachment;
use netlink::{Bridge, LinkChange, Netns, Port, Veth, VethEnd};
use nft::Nft;

use crate::{
    code,
    forwarding::mac_of,
    host::Host,
    kernel, local,
    names::{self, EGRESS_BRIDGE, EGRESS_NIC},
};

pub use ledger::{Lease, Ledger, Nic};

/// The document's name, and its lock's.
const NAME: &str = "egress";
/// Owner of our element in the nftables set.
const OWNER: &str = "egress bridge";
/// What the nftables table depends on.
const RULES: nft::Config<'_> = nft::Config {
    egress_bridge: EGRESS_BRIDGE,
};
/// MTU of the egress NICs in bytes.
pub(crate) const MTU: u32 = 1500;

/// The egress document.
pub fn ledger(host: &Host) -> Result<Option<Ledger>, Error> {
    host.egress.load(NAME).map_err(|error| local(&error))
}

/// Gives the container its way out: the bridge, the masquerade and, with its first attachment, the NIC (down).
pub async fn ensure(
    host: &Host,
    attachment: &Attachment,
    wanted: Option<IpNetwork>,
    container: &Netns,
) -> Result<Nic, Error> {
    let _lock = host.lock(NAME)?;
    let mut ledger = match ledger(host)? {
        Some(ledger) => ledger,
        None => begin(host, wanted).await?,
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != IpNetwork::V4(ledger.subnet)) {
        let why = format!(
            "egress.subnet: {wanted}: this host's egress bridge has {} in use",
            ledger.subnet
        );
        return Err(Error::new(code::DIFFERS, why));
    }
    let nic = ledger
        .enter(&attachment.container_hash(), &attachment.hash())
        .ok_or_else(|| {
            Error::new(
                code::POOL,
                format!(
                    "egress subnet {}: no address is left on this host",
                    ledger.subnet
                ),
            )
        })?;
    host.egress
        .save(NAME, &ledger)
        .map_err(|error| local(&error))?;
    let bridge = ensure_bridge(host, &ledger).await?;
    ensure_rules(host, &mut ledger)?;
    if nic.new {
        // Whatever a killed ADD left of it.
        host.rtnl
            .remove_link(&names::egress_port(attachment))
            .await
            .map_err(|error| kernel(&error))?;
        let group = names::group(attachment);
        let mac = Some(mac_of(nic.address.ip().into()));
        let peer = VethEnd {
            name: EGRESS_NIC.to_owned(),
            mac,
            mtu: MTU,
            group,
            up: false,
        };
        let name = names::egress_port(attachment);
        let veth = Veth {
            name,
            mac: None,
            mtu: MTU,
            master: Some(bridge),
            group: 0,
            peer,
        };
        host.rtnl
            .create_veth(&veth, container)
            .await
            .map_err(|error| kernel(&error))?;
        isolate(host, &veth.name).await?;
    }
    Ok(nic)
}

/// A new document: of the bridge that stands although `/run` was lost, or of one to be made.
async fn begin(host: &Host, wanted: Option<IpNetwork>) -> Result<Ledger, Error> {
    let (leases, rules) = (BTreeMap::new(), None);
    if let Some(bridge) = host
        .rtnl
        .link(EGRESS_BRIDGE)
        .await
        .map_err(|error| kernel(&error))?
    {
        let addresses = host
            .rtnl
            .addresses(Some(bridge.index))
            .await
            .map_err(|error| kernel(&error))?;
        let own = addresses.iter().find_map(|(_, address)| match address {
            IpNetwork::V4(v4) => Ipv4Network::new(v4.network(), v4.prefix()).ok(),
            IpNetwork::V6(_) => None,
        });
        if let Some(subnet) = own {
            return Ok(Ledger {
                subnet,
                leases,
                adopted: true,
                rules,
            });
        }
    }
    Ok(Ledger {
        subnet: choose_subnet(host, wanted).await?,
        leases,
        adopted: false,
        rules,
    })
}

/// Notes that the container's NIC works.
pub fn opened(host: &Host, attachment: &Attachment) -> Result<(), Error> {
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
    }
    host.egress
        .save(NAME, &ledger)
        .map_err(|error| local(&error))
}

/// Mends the bridge, its ports and the masquerade, if containers here have a way out; whether something was wrong.
pub async fn mend(host: &Host) -> Result<bool, Error> {
    let _lock = host.lock(NAME)?;
    let Some(mut ledger) = ledger(host)?.filter(|ledger| !ledger.leases.is_empty()) else {
        return Ok(false);
    };
    let links = || async { host.rtnl.links().await.map_err(|error| kernel(&error)) };
    let found = links()
        .await?
        .into_iter()
        .find(|link| link.name == EGRESS_BRIDGE);
    let mut wrong = found.is_none();
    let bridge = ensure_bridge(host, &ledger).await?;
    for link in links().await? {
        let is_port = link.name.starts_with(names::EGRESS_PORT);
        let change = LinkChange {
            up: (!link.up).then_some(true),
            master: (is_port && link.master != Some(bridge)).then_some(bridge),
            ..LinkChange::default()
        };
        if (!is_port && link.index != bridge) || change == LinkChange::default() {
            continue;
        }
        let changed = host.rtnl.set_link(link.index, &change).await;
        changed.map_err(|error| kernel(&error))?;
        if is_port {
            isolate(host, &link.name).await?;
        }
        wrong = true;
    }
    wrong |= !rules_stand(&ledger)?;
    ensure_rules(host, &mut ledger)?;
    Ok(wrong)
}

/// Whether the table is whole. That somebody changed rules of his own is nothing wrong.
fn rules_stand(ledger: &Ledger) -> Result<bool, Error> {
    let firewall = |error: nft::Error| Error::new(code::KERNEL, error.to_string());
    let mut nft = Nft::open().map_err(firewall)?;
    if ledger.rules == Some(nft.generation().map_err(firewall)?) {
        return Ok(true);
    }
    Ok(nft.status(&RULES).map_err(firewall)? == nft::Status::Complete)
}

/// Ports of the bridge do not talk to each other.
async fn isolate(host: &Host, port: &str) -> Result<(), Error> {
    let isolated = Port {
        isolated: Some(true),
        ..Port::default()
    };
    let done = host.rtnl.set_port(port, &isolated).await;
    done.map_err(|error| kernel(&error))
}

/// The bridge with its address, each made where it lacks, and forwarding.
async fn ensure_bridge(host: &Host, ledger: &Ledger) -> Result<u32, Error> {
    forward_v4()?;
    let found = host
        .rtnl
        .link(EGRESS_BRIDGE)
        .await
        .map_err(|error| kernel(&error))?;
    let bridge = if let Some(bridge) = found {
        bridge
    } else {
        let mac = Some(mac_of(ledger.gateway().into()));
        let spec = Bridge {
            name: EGRESS_BRIDGE.to_owned(),
            mac,
            mtu: MTU,
            group: 0,
        };
        host.rtnl
            .create_bridge(&spec)
            .await
            .map_err(|error| kernel(&error))?
    };
    let address = Ipv4Network::new(ledger.gateway(), ledger.subnet.prefix());
    let address = address.map_err(|error| Error::config(format!("egress.subnet: {error}")))?;
    host.rtnl
        .add_address(bridge.index, address.into())
        .await
        .map_err(|error| kernel(&error))?;
    Ok(bridge.index)
}

/// The masquerade, looked at again only after somebody changed rules on this host.
fn ensure_rules(host: &Host, ledger: &mut Ledger) -> Result<(), Error> {
    let firewall = |error: nft::Error| Error::new(code::KERNEL, error.to_string());
    let mut nft = Nft::open().map_err(firewall)?;
    let before = nft.generation().map_err(firewall)?;
    if ledger.rules == Some(before) {
        return Ok(());
    }
    nft.ensure(&RULES).map_err(firewall)?;
    nft.add_egress(ledger.subnet.into(), OWNER)
        .map_err(firewall)?;
    // Unchanged all the while, so whole at this count. Else the next ADD looks again.
    ledger.rules =
        Some(before).filter(|before| nft.generation().is_ok_and(|after| after == *before));
    host.egress
        .save(NAME, ledger)
        .map_err(|error| local(&error))
}

/// Lets the host forward. Read first: on most hosts somebody did so long ago, and a write tells all interfaces.
fn forward_v4() -> Result<(), Error> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let fail = |error: std::io::Error| Error::new(code::KERNEL, format!("{path}: {error}"));
    if std::fs::read_to_string(path).map_err(fail)?.trim() == "1" {
        Ok(())
    } else {
        std::fs::write(path, "1").map_err(fail)
    }
}

/// The wanted subnet, or the first of Docker's customary ones that nothing on this host is on the way to.
async fn choose_subnet(host: &Host, wanted: Option<IpNetwork>) -> Result<Ipv4Network, Error> {
    let mut taken: Vec<IpNetwork> = host
        .rtnl
        .routes()
        .await
        .map_err(|e| kernel(&e))?
        .iter()
        .map(|route| route.dst)
        .collect();
    taken.extend(
        host.rtnl
            .addresses(None)
            .await
            .map_err(|e| kernel(&e))?
            .iter()
            .map(|(_, address)| *address),
    );
    taken.retain(|network| network.prefix() > 0);
    let free = |subnet: IpNetwork| ipam::overlapping(&[subnet], &taken).map(|(_, other)| other);
    if let Some(IpNetwork::V4(wanted)) = wanted {
        return match free(wanted.into()) {
            None => Ok(wanted),
            Some(other) => Err(Error::new(
                code::DIFFERS,
                format!("egress.subnet: {wanted}: this host has {other} already"),
            )),
        };
    }
    let customary =
        (18..32u8).filter_map(|n| Ipv4Network::new(Ipv4Addr::new(172, n, 0, 0), 16).ok());
    let mut customary = customary.filter(|subnet| {
        free(IpAddr::V4(subnet.ip()).into()).is_none() && free((*subnet).into()).is_none()
    });
    let none = || {
        Error::config(
            "egress.subnet: none of 172.18.0.0/16 to 172.31.0.0/16 is free on this host; name one",
        )
    };
    customary.next().ok_or_else(none)
}

/// Takes the attachment off the egress bridge; the bridge and the table go with the last container of the host.
pub async fn leave(host: &Host, attachment: &Attachment) -> Result<(), Error> {
    let _lock = host.lock(NAME)?;
    let mut known = ledger(host)?;
    let gone = known
        .as_mut()
        .is_none_or(|ledger| ledger.leave(&attachment.hash()));
    if gone {
        let port = names::egress_port(attachment);
        host.rtnl
            .remove_link(&port)
            .await
            .map_err(|error| kernel(&error))?;
    }
    if let Some(ledger) = known.as_ref().filter(|ledger| !ledger.leases.is_empty()) {
        return host
            .egress
            .save(NAME, ledger)
            .map_err(|error| local(&error));
    }
    // The document may have been lost with /run: the kernel knows whether containers are left.
    let Some(bridge) = host
        .rtnl
        .link(EGRESS_BRIDGE)
        .await
        .map_err(|error| kernel(&error))?
    else {
        return host.egress.remove(NAME).map_err(|error| local(&error));
    };
    let links = host.rtnl.links().await.map_err(|error| kernel(&error))?;
    if links.iter().any(|link| link.master == Some(bridge.index)) {
        return match &known {
            Some(ledger) => host
                .egress
                .save(NAME, ledger)
                .map_err(|error| local(&error)),
            None => Ok(()),
        };
    }
    let firewall = |error: nft::Error| Error::new(code::KERNEL, error.to_string());
    // The socket stays open for now: to close it is to wait until the kernel has taken the table apart.
    let mut nft = Nft::open().map_err(firewall)?;
    nft.remove_table().map_err(firewall)?;
    host.rtnl
        .remove_link(EGRESS_BRIDGE)
        .await
        .map_err(|error| kernel(&error))?;
    host.egress.remove(NAME).map_err(|error| local(&error))
}
