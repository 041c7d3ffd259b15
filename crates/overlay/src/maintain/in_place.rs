//! What running containers follow when their network's record changes (`crosshost network update`): a lower MTU, and routes to
//! further subnets. New ones have both from their ADD.
//!
//! Only a sync does this, and only on a network that has an MTU of its own or several subnets of one version of IP: what somebody
//! sets in a container afterwards stays until then.

use cluster::Network;
use cni::CniResult;
use journal::Attachment;
use netlink::{LinkChange, Netns, Route, Rtnl};
use plugin::{Error, all_readable};

use crate::{
    endpoint::{nic::LINK_SCOPE, subnet_routes},
    follow::follower,
    state::{
        attachment::{Record, Stage},
        host::Host,
    },
};

/// Brings the containers of the network on this host up to date with its record. Returns how many were not so.
pub(crate) async fn follow(host: &Host, network: &Network) -> Result<usize, Error> {
    let versions = |is_v4: bool| {
        let subnets = network.subnets().into_iter();
        subnets.filter(|it| it.is_ipv4() == is_v4).count()
    };
    if network.mtu.is_none() && versions(true) < 2 && versions(false) < 2 {
        return Ok(0);
    }
    let mut changed = 0;
    for record in all_readable(&host.records)? {
        if record.attachment.network != network.name || record.stage != Stage::Made {
            continue;
        }
        // One that is gone is no failure of the network.
        match follow_one(&record, network).await {
            Ok(true) => changed += 1,
            Ok(false) => {}
            Err(error) => cni::log(&format!("{}: {error}", record.attachment)),
        }
    }
    Ok(changed)
}

/// Whether anything in the container was changed.
async fn follow_one(record: &Record, network: &Network) -> Result<bool, Error> {
    let netns = Netns::open(&record.netns)?;
    if netns.id() != record.netns_id {
        return Ok(false);
    }
    let rtnl = Rtnl::open(&netns)?;
    let Some(link) = rtnl.link(&record.attachment.ifname).await? else {
        return Ok(false);
    };
    let mut changed = false;
    if let Some(mtu) = network.mtu.filter(|mtu| *mtu < link.mtu) {
        let lower = LinkChange {
            mtu: Some(mtu),
            ..LinkChange::default()
        };
        rtnl.set_link(link.index, &lower).await?;
        changed = true;
    }
    let addresses = rtnl.addresses(Some(link.index)).await?;
    let own: Vec<_> = addresses.into_iter().map(|(_, address)| address).collect();
    let subnets = network.subnets();
    let is_of_network = |it: &&ipnetwork::IpNetwork| subnets.iter().any(|of| of.contains(it.ip()));
    let own: Vec<_> = own.iter().filter(is_of_network).copied().collect();
    let missing = subnet_routes::missing(network, &own);
    if missing.is_empty() {
        return Ok(changed);
    }
    let routes = rtnl.routes().await?;
    for subnet in missing {
        // One that somebody has made otherwise stays.
        if routes.iter().all(|route| route.dst != subnet) {
            let route = Route {
                scope: Some(LINK_SCOPE),
                ..Route::new(subnet, None, link.index)
            };
            rtnl.add_route(&route).await?;
            changed = true;
        }
    }
    Ok(changed)
}

/// The result of an ADD as its container should be now: with the MTU of the network's record, if it was lowered since and the
/// container has followed.
pub(crate) async fn expected(
    host: &Host,
    attachment: &Attachment,
    inside: &Rtnl,
    result: &CniResult,
) -> Result<CniResult, Error> {
    let mut result = result.clone();
    let copy = follower::copy(host, &attachment.network)?;
    let lowered = copy.and_then(|copy| copy.network?.record.mtu);
    let own = |it: &&mut cni::Interface| it.name == attachment.ifname && it.sandbox.is_some();
    if let Some(lowered) = lowered
        && let Some(interface) = result.interfaces.iter_mut().find(own)
        && interface.mtu.is_some_and(|mtu| mtu > lowered)
        && let Some(link) = inside.link(&attachment.ifname).await?
        && link.mtu == lowered
    {
        interface.mtu = Some(lowered);
    }
    Ok(result)
}
