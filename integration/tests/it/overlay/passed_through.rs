//! What `overlay` hands on: routes with all that CNI 1.1 has for them and name service from the IPAM plugin to container and
//! result, ranges and aliases from the runtime to whoever knows them.

use integration::{Backend, Container, Lab, addresses_in, netconf, ranges};
use serde_json::{Value, json};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";

fn add(container: &Container<'_>, conf: &Value) -> Value {
    container.call("ADD", conf).run().ok().json()
}

fn del(container: &Container<'_>, conf: &Value) {
    container.call("DEL", conf).run().ok();
}

#[test]
fn routes_are_installed_with_all_their_fields_and_in_the_result() {
    let lab = Lab::new(1, Backend::Dir);
    let container = lab.host(1).container("t1");
    let mut conf = netconf(NETWORK, SUBNET, "1.1.0");
    conf["ipam"]["ranges"] = ranges(&format!("{SUBNET} fd00:5::/64"));
    let asked = json!([
        { "dst": "10.9.0.0/16" },
        { "dst": "10.8.0.0/16", "gw": "10.0.0.9", "mtu": 1300, "advmss": 1200, "priority": 77, "table": 100 },
        { "dst": "10.7.0.0/16", "scope": 253 },
        { "dst": "10.6.0.7/16", "gw": "10.0.0.9" },
        { "dst": "fd00:9::/64", "mtu": 1280, "priority": 33 },
    ]);
    conf["ipam"]["routes"] = asked.clone();
    let result = add(&container, &conf);

    let show = |words: &[&str]| container.run(&[&["ip"], words].concat()).ok().stdout;
    for (words, route) in [
        (
            &["route", "show", "10.9.0.0/16"][..],
            "via 10.0.0.1 dev eth0",
        ),
        (
            &["route", "show", "table", "100"],
            "10.8.0.0/16 via 10.0.0.9 dev eth0 proto static metric 77 mtu 1300 advmss 1200",
        ),
        (
            &["route", "show", "10.7.0.0/16"],
            "dev eth0 proto static scope link",
        ),
        (&["route", "show", "10.6.0.0/16"], "via 10.0.0.9 dev eth0"),
        (
            &["-6", "route", "show", "fd00:9::/64"],
            "via fd00:5::1 dev eth0 proto static metric 33 mtu 1280",
        ),
    ] {
        let shown = show(words);
        assert!(shown.contains(route), "want {route:?}: {shown}");
    }
    let mut wanted = asked;
    wanted[0]["gw"] = "10.0.0.1".into();
    wanted[4]["gw"] = "fd00:5::1".into();
    let told = result["routes"].as_array().expect("routes");
    for route in wanted.as_array().expect("routes") {
        assert!(told.contains(route), "want {route}: {result:#}");
    }
    conf["prevResult"] = result;
    container.call("CHECK", &conf).run().ok();
    del(&container, &conf);
}

#[test]
fn name_service_is_the_ipam_plugins() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let resolver = "nameserver 10.0.0.53\ndomain example.org\nsearch a.example.org b.example.org\noptions ndots:2\n";
    host.write("/etc/resolver.conf", resolver);
    let container = host.container("t1");
    let mut conf = netconf(NETWORK, SUBNET, "1.1.0");
    conf["ipam"]["resolvConf"] = "/etc/resolver.conf".into();
    let dns = json!({
        "nameservers": ["10.0.0.53"],
        "domain": "example.org",
        "search": ["a.example.org", "b.example.org"],
        "options": ["ndots:2"],
    });
    assert_eq!(add(&container, &conf)["dns"], dns);
    del(&container, &conf);
    // What the configuration says of name service itself counts before it, in every version.
    let own = json!({ "nameservers": ["192.168.1.10"], "search": ["own.example.org"] });
    conf["dns"] = own.clone();
    for version in ["0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        conf["cniVersion"] = version.into();
        assert_eq!(add(&container, &conf)["dns"], own, "{version}");
        del(&container, &conf);
    }
}

#[test]
fn ranges_narrow_the_choice_and_aliases_are_left_to_others() {
    let lab = Lab::new(1, Backend::Dir);
    let container = lab.host(1).container("t1");
    let mut conf = netconf(NETWORK, SUBNET, "1.1.0");
    let range = json!({ "subnet": SUBNET, "rangeStart": "10.0.0.40", "rangeEnd": "10.0.0.50" });
    conf["runtimeConfig"] = json!({
        "ipRanges": [[range]],
        // As nerdctl and podman send them: names of the container, by network or not.
        "aliases": { NETWORK: ["web", "www"] },
    });
    conf["args"] = json!({ "cni": { "aliases": ["web"] } });
    let result = add(&container, &conf);
    assert_eq!(addresses_in(&result)[0], "10.0.0.40/24");
    del(&container, &conf);
    conf["runtimeConfig"]["aliases"] = json!(["web"]);
    add(&container, &conf);
    del(&container, &conf);
}

#[test]
fn an_ipam_plugin_of_this_host_alone_is_used_where_the_configuration_says_so() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.create_network(NETWORK, SUBNET);
    let container = host.container("t1");
    let mut conf = netconf(NETWORK, SUBNET, "1.0.0");
    conf["ipam"] = json!({ "type": "host-local", "ranges": [[{ "subnet": "10.0.0.64/26" }]], "dataDir": "/run/local" });
    conf["ipamScope"] = "host".into();
    assert_eq!(addresses_in(&add(&container, &conf))[0], "10.0.0.66/26");
    // What exists is checked and removed whatever its next ADD may say.
    conf.as_object_mut().expect("an object").remove("ipamScope");
    conf["egres"] = "none".into();
    del(&container, &conf);
}
