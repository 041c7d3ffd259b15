//! The host's side of the segment: bridge, tunnel device and port in the sandbox, what it forwards and rewrites. `crosshost sync`
//! repairs all of it. The guard of the tunnel and the host's own links belong to the host as a whole, and are repaired before they
//! are compared.

use journal::Attachment;

use super::{Found, put_back};
use crate::{
    config::Conf,
    endpoint::{bandwidth, source_guard},
    firewall::table,
    follow::follower,
    host_link,
    host_state::{self, Mtu, Observed, deviations},
    maintain::network,
    names::{self, VXLAN},
    segment::{
        desired,
        sandbox::{self, Sandbox},
    },
    state::host::Host,
};

/// Compares all of it, for a container whose interface has this MTU.
pub(super) async fn look(host: &Host, conf: &Conf, attachment: &Attachment, mtu: u32) -> Found {
    let network = &attachment.network;
    let _lock = host.lock_network(network)?;
    let Some((netns, rtnl)) = sandbox::open_netns(network)? else {
        return Ok(Some("the sandbox is gone".to_owned()));
    };
    let port = names::port(attachment);
    let copy = follower::copy(host, network)?;
    let record = copy.as_ref().and_then(|copy| copy.network.as_ref());
    let known = copy.as_ref().zip(record.map(|network| &network.record));
    // Without a snapshot it is not known what else there should be.
    let Some((copy, record)) = known else {
        let mut wanted = desired::links_of_any();
        wanted.push(desired::port(&port, Mtu::AtLeast(mtu)));
        let space = sandbox::space(host, &netns, &rtnl);
        let seen = Observed::of(&space, &wanted).await?;
        return Ok(first(deviations(&wanted, &seen)));
    };
    let underlay = host.underlay(&conf.settings).await?;
    let described = network::describe(host, record, copy, &underlay, &conf.settings.node)?;
    let links = [&described.segment[..], &[network::port(&port, &underlay)]].concat();
    let space = sandbox::space(host, &netns, &rtnl);
    let mut seen = Observed::of(&space, &links).await?;
    // A module that was loaded meanwhile, or an earlier version, has them otherwise.
    let settings = desired::without_firewall();
    let quieted = host_state::apply(&space, &settings, &mut seen).await;
    put_back(
        "br_netfilter in the sandbox",
        quieted.map(|changes| changes > 0),
    );
    if let Some(what) = first(deviations(&links, &seen)) {
        return Ok(Some(what));
    }
    let end = sandbox::end(record, underlay.vtep);
    let Some(sandbox) = Sandbox::seen((netns, rtnl), &seen, end, 0) else {
        return Ok(None);
    };
    if mtu > sandbox.mtu {
        let what = format!(
            "{VXLAN} in the sandbox: carries {} bytes, the container sends {mtu}",
            sandbox.mtu
        );
        return Ok(Some(what));
    }
    if let Some(what) = bandwidth::deviation(host, network, &sandbox.rtnl, Some(attachment)).await?
    {
        return Ok(Some(format!("{what} in the sandbox")));
    }
    put_back(
        "tunnels' guard",
        table::guard(host, (network, &conf.settings.node), &sandbox, copy),
    );
    put_back(
        "links of the host",
        host_link::repair(host, network, &sandbox).await,
    );
    let guarded = source_guard::repair(host, network, &sandbox).await;
    put_back("source guard", guarded.map(|changes| changes > 0));
    let links = host_link::deviating(host, network, conf.host_link(record), &sandbox).await?;
    if let Some(what) = first(links.into_iter()) {
        return Ok(Some(what));
    }
    let [rewrite, _] = &described.forwarding;
    let forwarding = if described.is_lost {
        std::slice::from_ref(rewrite)
    } else {
        &described.forwarding[..]
    };
    let mut seen = sandbox.look(host, forwarding).await?;
    let fixed = host_state::fix(&sandbox.space(host), forwarding, &mut seen).await;
    put_back("bridge entries", fixed.map(|fixed| fixed > 0));
    Ok(first(deviations(forwarding, &seen)))
}

/// The first deviation, with the command that repairs it.
fn first(mut found: impl Iterator<Item = crate::host_state::Deviation>) -> Option<String> {
    let first = found.next()?;
    Some(if first.is_curable {
        format!("{}; crosshost sync mends it", first.what)
    } else {
        first.what
    })
}
