//! Egress: the way out of a container, a second NIC on a host-local bridge whose traffic is masqueraded.
//!
//! One NIC for a container however many networks it has; it goes with the last of them. The bridge goes with
//! the last container. Who has which address stands in a document of the host, never in the store: the
//! addresses mean nothing beyond it.

mod bridge;
mod ledger;
mod subnet;

use std::collections::BTreeMap;

use cni::Error;
use ipnetwork::IpNetwork;
use journal::Attachment;
use netlink::{Netns, Veth, VethEnd};

use crate::{
    code, firewall,
    forwarding::mac_of,
    host::Host,
    kernel, local,
    names::{self, EGRESS_BRIDGE, EGRESS_NIC},
};

pub(crate) use bridge::{forward, set};
pub use ledger::{Lease, Ledger, Nic, Nic6};
pub(crate) use subnet::taken;

/// The document's name, and its lock's.
const NAME: &str = "egress";
/// Owner of our element in the nftables set.
const OWNER: &str = "egress bridge";
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
    v6: bool,
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
    if v6 && ledger.subnet6.is_none() {
        ledger.subnet6 = Some(subnet::choose_v6(host).await?);
    }
    let nic = ledger
        .enter(&attachment.container_hash(), &attachment.hash(), v6)
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
    let bridge = bridge::ensure(host, &ledger).await?;
    firewall::hide(host, OWNER, ledger.subnets())?;
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
            .map_err(|error| Error::new(code::KERNEL, format!("{EGRESS_BRIDGE}: {error}")))?;
        bridge::isolate(host, &veth.name).await?;
    }
    Ok(nic)
}

/// A new document: of the bridge that stands although `/run` was lost, or of one to be made.
async fn begin(host: &Host, wanted: Option<IpNetwork>) -> Result<Ledger, Error> {
    let leases = BTreeMap::new();
    if let Some((subnet, subnet6)) = bridge::subnets(host).await? {
        return Ok(Ledger {
            subnet,
            subnet6,
            leases,
            adopted: true,
        });
    }
    Ok(Ledger {
        subnet: subnet::choose(host, wanted).await?,
        subnet6: None,
        leases,
        adopted: false,
    })
}

/// Mends the bridge, its ports and what hides it, if containers here have a way out; whether something was wrong.
pub async fn mend(host: &Host) -> Result<bool, Error> {
    let _lock = host.lock(NAME)?;
    let Some(ledger) = ledger(host)?.filter(|ledger| !ledger.leases.is_empty()) else {
        return Ok(false);
    };
    let found = host.rtnl.link(EGRESS_BRIDGE).await;
    let found = found.map_err(|error| kernel(&error))?;
    let bridge = bridge::ensure(host, &ledger).await?;
    let unplugged = bridge::plug_again(host, bridge).await?;
    let exposed = firewall::hide(host, OWNER, ledger.subnets())?;
    Ok(found.is_none_or(|bridge| !bridge.up) || unplugged || exposed)
}

/// What of the way out of a container, whose port on the host is `port`, is not as it should be, if anything. Touches nothing.
pub async fn deviation(
    host: &Host,
    attachment: &Attachment,
    port: &str,
) -> Result<Option<String>, Error> {
    let _lock = host.lock(NAME)?;
    let container = attachment.container_hash();
    let known = ledger(host)?.filter(|ledger| {
        let mut leases = ledger.leases.values();
        leases.any(|lease| lease.container == container)
    });
    let Some(ledger) = known else {
        return Ok(Some("this host has no note of its way out".to_owned()));
    };
    if let Some(what) = bridge::deviation(host, &ledger, port).await? {
        return Ok(Some(what));
    }
    let exposed = firewall::exposed(host, OWNER, ledger.subnets())?;
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
    host.egress
        .save(NAME, &ledger)
        .map_err(|error| local(&error))
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
    let _open = firewall::show(host, OWNER)?;
    host.rtnl
        .remove_link(EGRESS_BRIDGE)
        .await
        .map_err(|error| kernel(&error))?;
    host.egress.remove(NAME).map_err(|error| local(&error))
}
