//! The other subnets of a network are on the container's link as well: a network with several in a set, or one that was given a
//! further one, is one segment. Without a route a packet would leave by the container's way out.

use cluster::Network;
use cni::CniResult;
use ipnetwork::IpNetwork;

use crate::endpoint::nic::LINK_SCOPE;

/// The subnets of the network that a container with these addresses has no route to by its addresses alone: those of the versions
/// of IP that it has.
pub(crate) fn missing(network: &Network, own: &[IpNetwork]) -> Vec<IpNetwork> {
    let is_own = |subnet: &IpNetwork| own.iter().any(|it| subnet.contains(it.ip()));
    let has_version = |subnet: &IpNetwork| own.iter().any(|it| it.is_ipv4() == subnet.is_ipv4());
    let mut subnets = network.subnets();
    subnets.retain(|subnet| !is_own(subnet) && has_version(subnet));
    subnets.dedup();
    subnets
}

/// Adds to what the IPAM plugin gave the routes to them, where it says nothing of these.
pub(crate) fn add(given: &mut CniResult, network: &Network) {
    let own: Vec<_> = given.ips.iter().map(|ip| ip.address).collect();
    for subnet in missing(network, &own) {
        if given.routes.iter().all(|route| route.dst != subnet) {
            given.routes.push(cni::Route {
                scope: Some(LINK_SCOPE),
                ..cni::Route::to(subnet)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network(ranges: &serde_json::Value) -> Network {
        serde_json::from_value(json!({ "name": "n", "vni": 4097, "ranges": ranges })).unwrap()
    }

    fn missed(ranges: &serde_json::Value, own: &[&str]) -> Vec<String> {
        let own: Vec<_> = own.iter().map(|it| it.parse().unwrap()).collect();
        let missed = missing(&network(ranges), &own);
        missed.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_container_needs_routes_to_the_subnets_that_it_is_not_in() {
        let two = json!([[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.1.0/24"}]]);
        assert_eq!(missed(&two, &["10.0.0.5/24"]), ["10.0.1.0/24"]);
        assert_eq!(missed(&two, &["10.0.1.5/24"]), ["10.0.0.0/24"]);
        let both = json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]);
        let none: [&str; 0] = [];
        assert_eq!(missed(&both, &["10.0.0.5/24", "fd00::5/64"]), none);
        assert_eq!(missed(&both, &["10.0.0.5/24"]), none, "it has no IPv6");
    }

    #[test]
    fn a_route_of_the_ipam_plugin_stays() {
        let two = json!([[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.1.0/24"}, {"subnet": "10.0.2.0/24"}]]);
        let other: IpNetwork = "10.0.2.0/24".parse().unwrap();
        let mut given = CniResult {
            ips: vec![cni::Ip::new("10.0.0.5/24".parse().unwrap())],
            routes: vec![cni::Route::to(other)],
            ..CniResult::default()
        };
        add(&mut given, &network(&two));
        let routes: Vec<_> = (given.routes.iter())
            .map(|it| (it.dst.to_string(), it.scope))
            .collect();
        let wanted = [("10.0.2.0/24", None), ("10.0.1.0/24", Some(253))];
        assert_eq!(routes, wanted.map(|(dst, scope)| (dst.to_owned(), scope)));
    }
}
