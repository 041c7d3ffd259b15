//! The socket: its namespace, answers to several callers, calls that are dropped.

use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future::{join, join3};
use netlink::{Netns, Rtnl};

use crate::kit::{Lab, addr, bridge, run, sh};

#[test]
fn without_a_runtime_it_is_an_error() {
    assert!(
        Rtnl::open(&Netns::current().unwrap())
            .unwrap_err()
            .to_string()
            .contains("open a netlink socket")
    );
}

#[test]
fn a_socket_sees_the_namespace_it_was_born_in() {
    let lab = Lab::new();
    let (a, b) = (lab.netns("a"), lab.netns("b"));
    run(async {
        let (a_nl, b_nl) = (Rtnl::open(&a).unwrap(), Rtnl::open(&b).unwrap());
        a_nl.create_bridge(&bridge("only-in-a")).await.unwrap();
        let (in_a, in_b) = join(a_nl.link("only-in-a"), b_nl.link("only-in-a")).await;
        assert!(in_a.unwrap().is_some());
        assert!(in_b.unwrap().is_none());
    });
    sh(&a, "ip link show only-in-a");
}

#[test]
fn several_callers_take_turns() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        let nl = Rtnl::open(&ns).unwrap();
        // The kernel refuses a second dump on a socket (EBUSY) while one is under way.
        let (links, routes, addresses) = join3(nl.links(), nl.routes(), nl.addresses(None)).await;
        assert_eq!(links.unwrap()[0].name, "lo");
        assert!(routes.unwrap().is_empty() && addresses.unwrap().is_empty());
    });
}

#[test]
fn answers_to_a_dropped_call_are_not_taken_for_anothers() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        Rtnl::open(&ns)
            .unwrap()
            .create_bridge(&bridge("br0"))
            .await
            .unwrap();
        let nl = Rtnl::open(&ns).unwrap();
        // The first poll learns that the socket can be written to, the second one sends.
        let mut dropped = Box::pin(nl.links());
        for _ in 0..2 {
            assert!(
                dropped
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(dropped);
        assert_eq!(nl.link("br0").await.unwrap().unwrap().name, "br0");
        assert!(nl.link("br1").await.unwrap().is_none());
        assert_eq!(nl.links().await.unwrap().len(), 2);
    });
}

#[test]
fn errors_say_what_was_tried_and_what_the_kernel_said() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    run(async {
        let nl = Rtnl::open(&ns).unwrap();
        let error = nl.route_to(addr("192.0.2.1")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "route to 192.0.2.1: Network is unreachable (ENETUNREACH)"
        );
        let error = nl
            .create_bridge(&bridge("a-name-too-long-for-linux"))
            .await
            .unwrap_err()
            .to_string();
        // The sentence is the kernel's (ext-ack).
        assert_eq!(
            error,
            "bridge a-name-too-long-for-linux: Attribute failed policy validation (ERANGE)"
        );
        nl.create_bridge(&bridge("br0")).await.unwrap();
        let error = nl.create_bridge(&bridge("br0")).await.unwrap_err();
        assert!(error.is_exists() && !error.is_gone());
        assert_eq!(error.to_string(), "bridge br0: File exists (EEXIST)");
    });
}
