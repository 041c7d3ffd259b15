//! Routes: which of those that are there is meant, and how it differs. Pure.

use ipnetwork::IpNetwork;
use netlink::Route;

use super::Observed;

impl Observed {
    /// The routes to a subnet by one of these links.
    pub(super) fn routes<'s>(
        &'s self,
        links: &'s [String],
        dst: IpNetwork,
    ) -> impl Iterator<Item = &'s Route> {
        let by = move |route: &&Route| {
            let mut links = links.iter().filter_map(|link| self.link(link));
            links.any(|link| link.index == route.dev)
        };
        let dst = (dst.network(), dst.prefix());
        let routes = self.routes.iter();
        let routes = routes.filter(move |it| (it.dst.network(), it.dst.prefix()) == dst);
        routes.filter(move |route| links.is_empty() || by(route))
    }

    /// What is there in the place of a route by one of these links, if it is not there.
    pub(super) fn lacks_route(&self, links: &[String], wanted: &Route) -> Option<String> {
        if self.routes(links, wanted.dst).any(|it| fits(it, wanted)) {
            return None;
        }
        let mut there = self
            .routes(links, wanted.dst)
            .chain(self.routes(&[], wanted.dst));
        let Some(there) = there.next() else {
            return Some("is gone".to_owned());
        };
        let mut all = self.links.iter();
        let by = all.find(|link| link.index == there.dev);
        let by = by.map_or("?", |link| link.name.as_str());
        let wanted = spell(wanted, links.first().map(String::as_str));
        Some(format!("is {}, not {wanted}", spell(there, Some(by))))
    }
}

/// The kernel's number of its main table, which is also what 0 stands for.
const MAIN: u32 = 254;

/// Whether a route is the wanted one, as far as that says.
fn fits(there: &Route, wanted: &Route) -> bool {
    fn fits<T: PartialEq + Copy>(wanted: Option<T>, there: Option<T>) -> bool {
        wanted.is_none() || wanted == there
    }
    let table = |table: u32| if table == 0 { MAIN } else { table };
    // IPv6 has no scopes.
    let scope = wanted.scope.filter(|_| wanted.dst.is_ipv4());
    fits(wanted.gateway, there.gateway)
        && fits(wanted.mtu, there.mtu)
        && fits(wanted.advmss, there.advmss)
        && fits(wanted.priority, there.priority)
        && fits(wanted.source, there.source)
        && fits(wanted.table.map(table), there.table)
        && fits(scope, there.scope)
}

/// A route by a link in the words of `ip route`.
fn spell(route: &Route, link: Option<&str>) -> String {
    let table = route.table.filter(|table| ![0, MAIN].contains(table));
    let words = [
        route.gateway.map(|gateway| format!("via {gateway}")),
        link.map(|link| format!("dev {link}")),
        route.source.map(|source| format!("src {source}")),
        route.priority.map(|priority| format!("metric {priority}")),
        table.map(|table| format!("table {table}")),
        route.mtu.map(|mtu| format!("mtu {mtu}")),
        route.advmss.map(|advmss| format!("advmss {advmss}")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
