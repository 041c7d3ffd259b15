//! The result of ADD at each spec version that runtimes still speak, checked against the spec's text and
//! against what is really in the container.

use integration::{Attachment, Backend, Lab, conflist, netconf};
use serde_json::Value;

const SUBNET: &str = "10.0.0.0/24";
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn are_what_the_spec_says_at_each_version() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    for version in VERSIONS {
        let container = host.container("t1");
        let conf = netconf("ov_net1", SUBNET, version);
        let call = |verb| container.call(verb, &conf);

        let result = call("ADD").run().ok().json();
        assert_eq!(result["cniVersion"], version);
        interfaces_are_those_of_the_container(&result, &container);
        addresses_belong_to_interfaces(&result, version);
        routes_have_destinations(&result);

        let said = call("DEL").run().ok().stdout;
        assert_eq!(said, "", "DEL says nothing");
        container.remove();
    }
}

#[test]
fn come_through_cnitool_at_each_version() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    for version in VERSIONS {
        let mut list = conflist("ov_net1", SUBNET);
        list["cniVersion"] = version.into();
        list.as_object_mut().unwrap().remove("cniVersions");
        host.install(&list);
        let attached = Attachment::new(host, "t1", "ov_net1");
        assert_eq!(attached.result["cniVersion"], version);
        assert_eq!(
            attached.container.address("eth0"),
            Some(attached.address),
            "{version}"
        );
        if version != "0.3.1" {
            host.cnitool("check", "ov_net1", "t1", "eth0").ok();
        }
        attached.end();
    }
}

/// Spec, "Add Success": name, mac and sandbox of each interface; those in the container are real.
fn interfaces_are_those_of_the_container(result: &Value, container: &integration::Container) {
    let interfaces = result["interfaces"].as_array().cloned().unwrap_or_default();
    let inside: Vec<_> = interfaces
        .iter()
        .filter(|one| one["sandbox"].as_str().is_some_and(|path| !path.is_empty()))
        .collect();
    assert!(inside.iter().any(|one| one["name"] == "eth0"), "{result:#}");
    for one in inside {
        assert_eq!(one["sandbox"], container.netns(), "as CNI_NETNS had it");
        let link = container.link(one["name"].as_str().unwrap_or_default());
        assert_eq!(one["mac"], link["address"], "{one}");
    }
}

/// Spec: `version` in each address up to 0.4.0 only; `interface` is an index into `interfaces`.
fn addresses_belong_to_interfaces(result: &Value, version: &str) {
    let interfaces = result["interfaces"].as_array().map_or(0, Vec::len);
    let ips = result["ips"].as_array().cloned().unwrap_or_default();
    let eth0 = integration::address_of(result, "eth0").to_string();
    assert!(
        ips[0]["address"]
            .as_str()
            .is_some_and(|first| first.starts_with(&eth0)),
        "the overlay's address is the first: {ips:?}"
    );
    for ip in &ips {
        let index = ip["interface"].as_u64().map(usize::try_from);
        assert!(
            matches!(index, Some(Ok(index)) if index < interfaces),
            "{result:#}"
        );
        let address = ip["address"].as_str().unwrap_or_default();
        assert!(address.contains('/'), "{address} has a prefix length");
        match version {
            "0.3.1" | "0.4.0" => assert_eq!(ip["version"], "4", "{ip}"),
            _ => assert!(ip.get("version").is_none(), "{ip}"),
        }
    }
    assert!(eth0.starts_with("10.0.0."), "{eth0}");
}

fn routes_have_destinations(result: &Value) {
    for route in result["routes"].as_array().into_iter().flatten() {
        let destination = route["dst"].as_str().unwrap_or_default();
        assert!(destination.contains('/'), "{route}");
    }
}

#[test]
fn of_a_second_add_is_an_error_and_the_first_stays() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let (one, two) = (host.container("t1"), host.container("t2"));
    let conf = netconf("ov_net1", SUBNET, "1.0.0");
    let add = |id: &str, netns: &str| host.call("overlay", "ADD").id(id).netns(netns).conf(&conf);
    add("c1", &one.netns()).run().ok();
    let second = add("c2", &two.netns()).run().ok().json();
    let second = integration::address_of(&second, "eth0");
    let before = host.footprint();
    add("c1", &one.netns()).run().failed();
    host.assert_same_as(&before, "after a second ADD");
    assert!(one.pings(second, &[]), "the first ADD's interface works on");
}
