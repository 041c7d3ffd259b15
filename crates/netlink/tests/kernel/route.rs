//! Addresses, routes and the kernel's routing decision.

use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink::{Hop, Link, Netns, Route, Rtnl};

use crate::kit::{Lab, addr, json, run, sh, veth};

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

async fn eth0(ns: &Netns, nl: &Rtnl) -> Link {
    nl.create_veth(&veth("eth0", "far", None, 0), ns)
        .await
        .unwrap();
    let link = nl.link("eth0").await.unwrap().unwrap();
    for address in ["10.0.0.2/24", "fd00::2/64"] {
        nl.add_address(link.index, net(address)).await.unwrap();
    }
    link
}

#[test]
fn addresses_are_added_once_and_without_detection() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        let nl = Rtnl::open(&ns).unwrap();
        let link = eth0(&ns, &nl).await;
        nl.add_address(link.index, net("10.0.0.2/24"))
            .await
            .unwrap();
        nl.add_address(link.index, net("fd00::2/64")).await.unwrap();
        let of_link = nl.addresses(Some(link.index)).await.unwrap();
        assert!(
            of_link.contains(&(link.index, net("10.0.0.2/24"))),
            "{of_link:?}"
        );
        assert!(
            of_link.contains(&(link.index, net("fd00::2/64"))),
            "{of_link:?}"
        );
        assert!(of_link.iter().all(|(index, _)| *index == link.index));
        assert!(
            nl.addresses(None).await.unwrap().len() > of_link.len(),
            "the far end has a link-local one"
        );
        let shown = sh(&ns, "ip -o address show dev eth0");
        assert!(shown.contains("10.0.0.2/24 brd 10.0.0.255"), "{shown}");
        assert!(shown.contains("fd00::2/64 scope global nodad"), "{shown}");
        let error = nl.add_address(9999, net("10.0.0.2/24")).await.unwrap_err();
        assert!(
            error.is_gone()
                && error
                    .to_string()
                    .starts_with("address 10.0.0.2/24 on link 9999: "),
            "{error}"
        );
    });
}

#[test]
fn routes_come_back_as_they_were_added() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        let nl = Rtnl::open(&ns).unwrap();
        let dev = eth0(&ns, &nl).await.index;
        let full = Route {
            mtu: Some(1300),
            advmss: Some(1200),
            priority: Some(50),
            table: Some(1000),
            scope: Some(0),
            ..Route::new(net("192.0.2.0/24"), Some(addr("10.0.0.1")), dev)
        };
        let wanted = [
            full,
            Route {
                table: Some(7),
                priority: Some(60),
                scope: Some(0),
                ..Route::new(net("fd01::/64"), Some(addr("fd00::1")), dev)
            },
            Route {
                table: Some(254),
                scope: Some(0),
                ..Route::new(net("0.0.0.0/0"), Some(addr("10.0.0.1")), dev)
            },
            Route {
                table: Some(254),
                scope: Some(253),
                ..Route::new(net("198.51.100.0/24"), None, dev)
            },
        ];
        for route in &wanted {
            nl.add_route(route).await.unwrap();
        }
        let routes = nl.routes().await.unwrap();
        for route in &wanted {
            assert!(routes.contains(route), "{route:?} in {routes:#?}");
        }
        assert!(routes.iter().all(|route| route.table != Some(255)));
        let seen = &json(&ns, "ip -j route show table 1000")[0];
        assert_eq!(
            (seen["dst"].as_str(), seen["gateway"].as_str()),
            (Some("192.0.2.0/24"), Some("10.0.0.1"))
        );
        assert_eq!(
            seen["metrics"][0],
            serde_json::json!({"mtu": 1300, "advmss": 1200})
        );

        let again = nl.add_route(&wanted[2]).await.unwrap_err();
        assert!(again.is_exists());
        assert_eq!(
            again.to_string(),
            format!("route to 0.0.0.0/0 via 10.0.0.1 on link {dev}: File exists (EEXIST)")
        );
        // Host bits in the destination are ours to remove; without a gateway the scope is the link.
        nl.add_route(&Route::new(net("203.0.113.9/24"), None, dev))
            .await
            .unwrap();
        let on_link = Route {
            table: Some(254),
            scope: Some(253),
            ..Route::new(net("203.0.113.0/24"), None, dev)
        };
        assert!(nl.routes().await.unwrap().contains(&on_link));
        let mixed = Route::new(net("fd02::/64"), Some(addr("10.0.0.1")), dev);
        assert!(
            nl.add_route(&mixed)
                .await
                .unwrap_err()
                .to_string()
                .ends_with("(EINVAL)")
        );
    });
}

#[test]
fn the_kernel_says_where_a_packet_goes() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        let nl = Rtnl::open(&ns).unwrap();
        let dev = eth0(&ns, &nl).await.index;
        nl.add_route(&Route::new(net("0.0.0.0/0"), Some(addr("10.0.0.1")), dev))
            .await
            .unwrap();
        // The kernel routes an IPv6 address to itself from a work queue, soon after it was added;
        // only then can packets leave from it.
        let own = addr("fd00::2");
        let limit = Instant::now() + Duration::from_secs(20);
        while nl.route_to(own).await.unwrap().is_to_one {
            assert!(Instant::now() < limit, "{own} never became local");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let near = Hop {
            dev,
            source: Some(addr("10.0.0.2")),
            gateway: None,
            is_to_one: true,
        };
        assert_eq!(nl.route_to(addr("10.0.0.9")).await.unwrap(), near);
        let far = Hop {
            gateway: Some(addr("10.0.0.1")),
            ..near
        };
        assert_eq!(nl.route_to(addr("192.0.2.1")).await.unwrap(), far);
        let six = nl.route_to(addr("fd00::9")).await.unwrap();
        assert_eq!((six.dev, six.source), (dev, Some(addr("fd00::2"))));
        assert!(nl.route_to(addr("fd99::1")).await.is_err());
        for nobody in ["10.0.0.2", "10.0.0.255", "224.0.0.9"] {
            let hop = nl.route_to(addr(nobody)).await.unwrap();
            assert!(!hop.is_to_one, "{nobody}: {hop:?}");
        }
    });
}
