//! CHECK: the attachment is what its result says, and the sandbox forwards as the last news say.

use std::{collections::BTreeSet, path::Path};

use cni::{Call, CniResult, Delegate, Error};
use journal::Attachment;
use netlink::{Netns, Rtnl};

use crate::{
    code,
    conf::Conf,
    foothold,
    forwarding::{Trust, answered_here, changes, desired},
    host::Host,
    kernel, local,
    membership::{self, Membership},
    names::{self, BRIDGE, VXLAN},
    record::Stage,
    sandbox,
};

pub(crate) async fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let attachment = Conf::attachment(call)?;
    let previous = call.conf.prev_result.as_ref();
    let previous = previous.ok_or_else(|| Error::config("prevResult: missing; CHECK needs it"))?;
    let host = Host::open()?;
    let record = host
        .records
        .load(&attachment.hash())
        .map_err(|error| local(&error))?;
    if record.is_none_or(|record| record.stage != Stage::Made) {
        return deviation(&attachment, "this host has no finished record of it");
    }
    inside(call, &attachment, previous).await?;
    segment(&host, &conf, &attachment).await?;
    Delegate::find(call, &conf.ipam)?.check()
}

fn deviation(attachment: &Attachment, what: impl std::fmt::Display) -> Result<(), Error> {
    Err(Error::new(code::DEVIATION, format!("{attachment}: {what}")))
}

/// The container's interfaces of the result are there, up, with their MACs and addresses. What later plugins of the
/// chain changed is in the result; what they added is no business of ours.
async fn inside(call: &Call, attachment: &Attachment, previous: &CniResult) -> Result<(), Error> {
    let container = Netns::open(call.netns.as_deref().unwrap_or(Path::new("")))
        .map_err(|error| kernel(&error))?;
    let rtnl = Rtnl::open(&container).map_err(|error| kernel(&error))?;
    let links = rtnl.links().await.map_err(|error| kernel(&error))?;
    let present: BTreeSet<_> = rtnl
        .addresses(None)
        .await
        .map_err(|error| kernel(&error))?
        .into_iter()
        .collect();
    let routes = rtnl.routes().await.map_err(|error| kernel(&error))?;
    for (index, interface) in previous
        .interfaces
        .iter()
        .enumerate()
        .filter(|(_, i)| i.sandbox.is_some())
    {
        let name = &interface.name;
        let Some(link) = links.iter().find(|link| link.name == *name) else {
            return deviation(attachment, format!("{name}: is gone"));
        };
        if !link.up {
            return deviation(attachment, format!("{name}: is down"));
        }
        let mac = link.mac.map(|mac| mac.to_string());
        if interface.mac.as_ref().is_some_and(|wanted| {
            !mac.as_ref()
                .is_some_and(|mac| mac.eq_ignore_ascii_case(wanted))
        }) {
            return deviation(
                attachment,
                format!(
                    "{name}: has MAC {}, not {}",
                    mac.unwrap_or_default(),
                    interface.mac.as_deref().unwrap_or_default()
                ),
            );
        }
        for ip in previous.ips.iter().filter(|ip| ip.interface == Some(index)) {
            if !present.contains(&(link.index, ip.address)) {
                return deviation(attachment, format!("{name}: lacks address {}", ip.address));
            }
        }
    }
    let missing = previous
        .routes
        .iter()
        .find(|wanted| !routes.iter().any(|route| route.dst == wanted.dst));
    missing.map_or(Ok(()), |route| {
        deviation(attachment, format!("route to {} is gone", route.dst))
    })
}

/// The sandbox has bridge, tunnel device and our port, and forwards as it should.
async fn segment(host: &Host, conf: &Conf, attachment: &Attachment) -> Result<(), Error> {
    let Some(rtnl) = sandbox::open(&attachment.network)? else {
        return deviation(attachment, "the sandbox is gone");
    };
    let links = rtnl.links().await.map_err(|error| kernel(&error))?;
    let find = |name: &str| links.iter().find(|link| link.name == name && link.up);
    let (Some(bridge), Some(vxlan), Some(port)) =
        (find(BRIDGE), find(VXLAN), find(&names::port(attachment)))
    else {
        return deviation(
            attachment,
            format!("{BRIDGE}, {VXLAN} or the container's port is gone or down in the sandbox"),
        );
    };
    if port.master != Some(bridge.index) || vxlan.master != Some(bridge.index) {
        return deviation(
            attachment,
            format!("a port of {BRIDGE} in the sandbox was taken off it"),
        );
    }
    let Some(news) = host
        .news
        .load(&attachment.network)
        .map_err(|error| local(&error))?
    else {
        return Ok(());
    };
    let Some(network) = &news.network else {
        return Ok(());
    };
    let (wants, inside) = (conf.wants(&network.record), (&rtnl, bridge.index));
    if let Some(lack) = foothold::deviation(host, &attachment.network, wants, inside).await? {
        return deviation(attachment, format!("{lack}; crosshost sync mends it"));
    }
    let member = membership::load(host, &attachment.network)?;
    let trust = member.as_ref().map_or(Trust::Floods, Membership::trust);
    let vtep = host.underlay(&conf.settings).await?.vtep;
    let present = rtnl
        .forwarding(bridge.index, vxlan.index)
        .await
        .map_err(|error| kernel(&error))?;
    let mut wanted = desired(&news, &conf.settings.node, vtep, trust);
    if let Some((gateways, mac)) = foothold::gateways(host, &attachment.network)? {
        answered_here(&mut wanted, &gateways, mac);
    }
    match changes(&wanted, &present).first() {
        None => Ok(()),
        Some(step) => deviation(
            attachment,
            format!("forwarding: {step:?} is due in the sandbox; crosshost sync mends it"),
        ),
    }
}
