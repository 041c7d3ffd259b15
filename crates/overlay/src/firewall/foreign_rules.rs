//! What firewall rules of other programs do to the tunnels and to the containers' egress ([`ruleset`]). They do not reach the
//! segment itself, which is in its sandbox. Nothing is changed here: the host's owner decides what its firewall lets pass.

use std::net::IpAddr;

use plugin::Error;
use ruleset::Obstacle;

use crate::state::{host::Host, underlay::Underlay};

/// Nobody's addresses (RFC 5737, RFC 3849): the way to them is the default route.
pub(crate) const BEYOND: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// What stops the containers' way out over a version of IP, by this link of the host.
pub async fn egress(host: &Host, link: &str, v6: bool) -> Result<Vec<Obstacle>, Error> {
    let links = host.rtnl.links().await?;
    let hop = host.rtnl.route_to(BEYOND[usize::from(v6)]).await.ok();
    let out = hop.and_then(|hop| links.iter().find(|link| link.index == hop.dev));
    let out = out.map(|link| (link.name.as_str(), link.index));
    // Before there is a bridge it has no index, and no rule can be about it but by its name.
    let bridge = links.iter().find(|it| it.name == link);
    let bridge = (link, bridge.map_or(0, |bridge| bridge.index));
    Ok(ruleset::egress(bridge, out, v6)?)
}

/// What stops the tunnels' packets, of UDP to `port`, that come to this host or leave it.
pub fn tunnel(underlay: &Underlay, port: u16) -> Result<Vec<Obstacle>, Error> {
    let link = (underlay.name.as_str(), underlay.index);
    Ok(ruleset::tunnel(link, port, underlay.vtep.is_ipv6())?)
}
