//! The host's side of the segment: bridge, tunnel device and port in the sandbox, what it forwards and readdresses.
//! `crosshost sync` mends all of it. Who may send to the tunnel, and what the host itself has on the segment, are of the host
//! as a whole, and are put back before they are judged.

use journal::Attachment;
use netlink::Link;

use super::{Found, put_back};
use crate::{
    config::Conf,
    endpoint::bandwidth,
    firewall::table,
    follow::{
        follower,
        membership::{self, Membership},
    },
    host_link,
    names::{self, BRIDGE, VXLAN},
    segment::{
        forwarding::{Trust, changes, desired, translations},
        mac_rewrite,
        sandbox::{self, Sandbox},
    },
    state::host::Host,
};

/// Looks at all of it, for a container whose interface has this MTU.
pub(super) async fn look(host: &Host, conf: &Conf, attachment: &Attachment, mtu: u32) -> Found {
    let network = &attachment.network;
    let _lock = host.lock_network(network)?;
    let Some(rtnl) = sandbox::open(network)? else {
        return Ok(Some("the sandbox is gone".to_owned()));
    };
    let links = rtnl.links().await?;
    let find = |name: &str| links.iter().find(|link| link.name == name);
    let port = names::port(attachment);
    let found = [BRIDGE, VXLAN, &port].map(|name| (name, find(name)));
    if let Some((name, _)) = found.iter().find(|(_, link)| link.is_none()) {
        return Ok(Some(format!("{name} in the sandbox: is gone")));
    }
    let [(_, Some(bridge)), (_, Some(vxlan)), (_, Some(port))] = found else {
        return Ok(None);
    };
    let carries = |link: &&Link| link.name == BRIDGE || link.master == Some(bridge.index);
    for link in [bridge, vxlan, port] {
        let what = match link {
            link if !link.up => "is down",
            link if !carries(&link) => "was taken off the bridge",
            _ => continue,
        };
        return Ok(Some(format!("{} in the sandbox: {what}", link.name)));
    }
    for (carrier, most) in [(VXLAN, vxlan.mtu), (&port.name, port.mtu)] {
        if mtu > most {
            let what = format!(
                "{carrier} in the sandbox: carries {most} bytes, the container sends {mtu}"
            );
            return Ok(Some(what));
        }
    }
    if let Some(what) = bandwidth::deviation(host, network, &rtnl, Some(attachment)).await? {
        return Ok(Some(format!("{what} in the sandbox")));
    }
    let Some(snapshot) = follower::copy(host, network)? else {
        return Ok(None);
    };
    let Some(record) = snapshot.network.as_ref().map(|network| &network.record) else {
        return Ok(None);
    };
    let underlay = host.underlay(&conf.settings).await?;
    let spec = sandbox::wanted(record, &underlay, bridge.index);
    if let Some(what) = sandbox::differs(vxlan, &spec) {
        return Ok(Some(format!("{VXLAN} in the sandbox: {what}")));
    }
    let flags = (vxlan.port.neigh_suppress, vxlan.port.learning);
    if flags != (Some(true), Some(false)) {
        let what = "learns on the bridge, or does not answer for remote neighbours";
        return Ok(Some(format!("{VXLAN} in the sandbox: {what}")));
    }
    let (bridge, vxlan) = (bridge.index, vxlan.index);
    let sandbox = Sandbox {
        rtnl,
        bridge,
        vxlan,
        mtu: spec.mtu,
        end: sandbox::end(&spec),
        stood: true,
        replugged: false,
    };
    put_back(
        "tunnels' guard",
        table::guard(host, network, sandbox.end, &snapshot),
    );
    put_back(
        "links of the host",
        host_link::mend(host, network, &sandbox).await,
    );
    let node = &conf.settings.node;
    if !mac_rewrite::is(network, &translations(&snapshot, node))? {
        let what = "table bridge crosshost in the sandbox: does not readdress what it should";
        return Ok(Some(what.to_owned()));
    }
    let (wants, inside) = (conf.wants(record), (&sandbox.rtnl, bridge));
    if let Some(what) = host_link::deviation(host, network, wants, inside, sandbox.mtu).await? {
        return Ok(Some(what));
    }
    // How far the news count is lost: the next verb or sync says so again, and forwards by that.
    if membership::is_lost(host, network)? {
        return Ok(None);
    }
    let member = membership::load(host, network)?;
    let trust = member.as_ref().map_or(Trust::Floods, Membership::trust);
    let present = sandbox.rtnl.forwarding(bridge, vxlan).await;
    let present = present?;
    let wanted = desired(&snapshot, node, underlay.vtep, trust);
    let wanted = host_link::entries(host, network, wanted)?;
    let step = changes(&wanted, &present).into_iter().next();
    Ok(step
        .map(|step| format!("forwarding: {step:?} is due in the sandbox; crosshost sync mends it")))
}
