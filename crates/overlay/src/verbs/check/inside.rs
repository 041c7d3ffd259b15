//! The container's side: its interfaces, addresses and routes are those of the result.

use std::collections::BTreeSet;

use cni::{CniResult, Interface};
use netlink::{Link, Route, Rtnl};
use plugin::Error;

/// The kernel's number of its main table, which is also what 0 stands for.
const MAIN: u32 = 254;

/// Looks at all of it; the MTU of the interface `ifname`, or what deviates.
pub(super) async fn look(
    rtnl: &Rtnl,
    ifname: &str,
    previous: &CniResult,
) -> Result<Result<u32, String>, Error> {
    let links = rtnl.links().await?;
    let addresses = rtnl.addresses(None).await;
    let addresses: BTreeSet<_> = addresses?.into_iter().collect();
    let routes = rtnl.routes().await?;

    let find = |name: &str| links.iter().find(|link| link.name == name);
    let Some(own) = find(ifname) else {
        return Ok(Err(format!("{ifname}: is gone")));
    };
    let mut ours = BTreeSet::from([own.index]);
    let wanted = previous.interfaces.iter().enumerate();
    for (index, interface) in wanted.filter(|(_, i)| i.sandbox.is_some()) {
        let name = &interface.name;
        let Some(link) = find(name) else {
            return Ok(Err(format!("{name}: is gone")));
        };
        if let Some(what) = differs(link, interface) {
            return Ok(Err(format!("{name}: {what}")));
        }
        ours.insert(link.index);
        for ip in previous.ips.iter().filter(|ip| ip.interface == Some(index)) {
            if !addresses.contains(&(link.index, ip.address)) {
                return Ok(Err(format!("{name}: lacks address {}", ip.address)));
            }
        }
    }
    let route = previous.routes.iter().find_map(|route| {
        let (dst, same) = (route.dst, |there: &&Route| {
            (there.dst.network(), there.dst.prefix()) == (route.dst.network(), route.dst.prefix())
        });
        let found: Vec<_> = routes.iter().filter(same).collect();
        if found.iter().any(|there| is(there, route, &ours)) {
            return None;
        }
        Some(match found.first() {
            None => format!("route to {dst} is gone"),
            Some(there) => format!(
                "route to {dst} is not as in the result: {}",
                told(there, &links)
            ),
        })
    });
    Ok(route.map_or(Ok(own.mtu), Err))
}

/// What of a link is not as in the result.
fn differs(link: &Link, wanted: &Interface) -> Option<String> {
    if !link.up {
        return Some("is down".to_owned());
    }
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if let Some(wanted) = &wanted.mac
        && !mac.eq_ignore_ascii_case(wanted)
    {
        return Some(format!("has MAC {mac}, not {wanted}"));
    }
    let mtu = wanted.mtu.filter(|mtu| *mtu != link.mtu)?;
    Some(format!("has MTU {}, not {mtu}", link.mtu))
}

/// Whether a route is the one of the result, as far as that says.
fn is(there: &Route, wanted: &cni::Route, ours: &BTreeSet<u32>) -> bool {
    fn fits<T: PartialEq + Copy>(wanted: Option<T>, there: Option<T>) -> bool {
        wanted.is_none() || wanted == there
    }
    let table = wanted
        .table
        .map(|table| if table == 0 { MAIN } else { table });
    // IPv6 has no scopes.
    let scope = wanted.scope.filter(|_| wanted.dst.is_ipv4());
    ours.contains(&there.dev)
        && fits(wanted.gw, there.gateway)
        && fits(wanted.mtu, there.mtu)
        && fits(wanted.advmss, there.advmss)
        && fits(wanted.priority, there.priority)
        && fits(table, there.table)
        && fits(scope, there.scope)
}

/// A route in the words of `ip route`.
fn told(route: &Route, links: &[Link]) -> String {
    let name = links.iter().find(|link| link.index == route.dev);
    let name = name.map_or("?", |link| link.name.as_str());
    let words = [
        route.gateway.map(|gateway| format!("via {gateway}")),
        Some(format!("dev {name}")),
        route.priority.map(|priority| format!("metric {priority}")),
        route
            .table
            .filter(|table| *table != MAIN)
            .map(|table| format!("table {table}")),
        route.mtu.map(|mtu| format!("mtu {mtu}")),
        route.advmss.map(|advmss| format!("advmss {advmss}")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
