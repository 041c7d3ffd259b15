//! Bandwidth: the rates at which a container may receive and send, by the capability `bandwidth` or by the key of that name.
//!
//! The words are those of the reference plugin `bandwidth`: *ingress* goes towards the container, *egress* comes from it; rates
//! are in bits a second, bursts in bits. That plugin cannot stand behind this one: the host's ends of our pairs are in namespaces
//! that it does not look into.
//!
//! The limit is on the host's end of each pair, where the container cannot reach it: a token bucket for what that end sends,
//! and for what it receives that of an ifb, to which all of it goes. `eth0` and `gw0` have their ends in two namespaces, and
//! nothing that the kernel offers shapes over two of them: so the rates hold for each of these interfaces by itself
//! (docs/decisions/0014-bandwidth.md). `gw0`, which a container has once, gets the lowest rates of the attachments that use it.
//!
//! The rates are in the attachment's record before anything is made. Buckets go with their links; the ifb is named after the port.

mod asked;
mod port;

use journal::Attachment;
use netlink::Rtnl;
use plugin::{Error, readable};

pub use asked::{Bandwidth, Rate};
use port::{Seen, Wanted, shape};

use crate::{
    egress::{self, Lease, Ledger},
    names,
    segment::sandbox,
    state::host::Host,
};

/// What the record of an attachment, by its hash, says; `None` if that cannot be known.
fn recorded(host: &Host, hash: &str) -> Result<Option<Bandwidth>, Error> {
    let record = readable(&host.records, hash)?;
    Ok(record.map(|record| record.bandwidth))
}

/// What the ports of a network's sandbox should have, where that can be known.
fn on_segment(host: &Host, network: &str) -> Result<Vec<Wanted>, Error> {
    let users = readable(&host.users, network)?.unwrap_or_default();
    let mut all = Vec::new();
    for hash in users.0 {
        let port = names::port_of(&hash);
        all.extend(recorded(host, &hash)?.map(|limits| Wanted { port, limits }));
    }
    Ok(all)
}

/// What a container's port on the egress bridge should have, if that can be known.
fn on_egress(host: &Host, lease: &Lease) -> Result<Option<Wanted>, Error> {
    let mut limits = Bandwidth::default();
    for hash in &lease.attachments {
        let Some(recorded) = recorded(host, hash)? else {
            return Ok(None);
        };
        limits = limits.and(recorded);
    }
    let port = names::egress_port_of(&lease.container);
    Ok(Some(Wanted { port, limits }))
}

/// The same of all of them, or of those of one container.
fn all_on_egress(host: &Host, ledger: &Ledger, of: Option<&str>) -> Result<Vec<Wanted>, Error> {
    let leases = ledger.leases.values();
    let leases = leases.filter(|lease| of.is_none_or(|container| lease.container == container));
    let all: Result<Vec<_>, _> = leases.map(|lease| on_egress(host, lease)).collect();
    Ok(all?.into_iter().flatten().collect())
}

/// Limits the container's new interface on the segment; where nothing is limited nothing is done.
pub(crate) async fn limit(
    rtnl: &Rtnl,
    attachment: &Attachment,
    limits: Bandwidth,
) -> Result<(), Error> {
    if limits.is_none() {
        return Ok(());
    }
    shape(rtnl, &names::port(attachment), limits).await
}

/// Removes what limited an attachment on its segment and did not go with its port.
pub(crate) async fn leave(attachment: &Attachment) -> Result<(), Error> {
    if let Some(rtnl) = sandbox::open(&attachment.network)? {
        let ifb = names::ifb(&names::port(attachment));
        rtnl.remove_link(&ifb).await?;
    }
    Ok(())
}

/// Makes the limits of a network's ports what the records say; whether they were not. The caller holds the network's lock.
pub(crate) async fn repair(host: &Host, network: &str, rtnl: &Rtnl) -> Result<bool, Error> {
    Seen::look(rtnl)
        .await?
        .repair(&on_segment(host, network)?)
        .await
}

/// What of the limits of a network's ports, or of that of one attachment, is not as its record says, if anything. The caller
/// holds the network's lock.
pub(crate) async fn deviation(
    host: &Host,
    network: &str,
    rtnl: &Rtnl,
    of: Option<&Attachment>,
) -> Result<Option<String>, Error> {
    let mut all = on_segment(host, network)?;
    let port = of.map(names::port);
    all.retain(|wanted| port.as_ref().is_none_or(|port| wanted.port == *port));
    Seen::look(rtnl).await?.first_lack(&all).await
}

/// Limits a container's egress NIC by all of its attachments, after one came, perhaps with a `new` NIC, or went. The caller
/// holds the egress lock.
pub(crate) async fn limit_egress(
    host: &Host,
    rtnl: &Rtnl,
    ledger: &Ledger,
    attachment: &Attachment,
    new: bool,
) -> Result<(), Error> {
    let all = all_on_egress(host, ledger, Some(&attachment.container_hash()))?;
    let same = |wanted: &Wanted| new && wanted.limits.is_none();
    if all.iter().all(same) {
        return Ok(());
    }
    Seen::look(rtnl).await?.repair(&all).await.map(drop)
}

/// [`repair`] for the egress bridge. The caller holds the egress lock.
pub(crate) async fn repair_egress(
    host: &Host,
    rtnl: &Rtnl,
    ledger: &Ledger,
) -> Result<bool, Error> {
    let all = all_on_egress(host, ledger, None)?;
    Seen::look(rtnl).await?.repair(&all).await
}

/// [`deviation`] for the egress bridge, or for one container on it. The caller holds the egress lock.
pub(crate) async fn egress_deviation(
    host: &Host,
    ledger: &Ledger,
    of: Option<&str>,
) -> Result<Option<String>, Error> {
    let all = all_on_egress(host, ledger, of)?;
    match egress::open(host).await? {
        Some(rtnl) => Seen::look(&rtnl).await?.first_lack(&all).await,
        None => Ok(None),
    }
}
