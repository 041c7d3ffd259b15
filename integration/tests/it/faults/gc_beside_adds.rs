//! GC beside other verbs: what is just being added is no garbage, though the runtime that lists does not know of it.

use std::time::Duration;

use crate::held_addresses;
use crate::store_reader::{self, assert_no_lease};
use integration::{
    Backend, Direct, LIMIT, Lab, Programs, address_of, ipamconf, netconf, spend, until,
};
use serde_json::json;

const NETWORK: &str = "n1";
const SUBNET: &str = "10.0.0.0/24";

/// An ADD waits for the store while a GC that lists only another container runs; when both are done the address is the
/// container's, and no other is given it.
#[test]
fn what_waits_for_the_store_is_no_garbage() {
    let lab = Lab::new(1, Backend::Consul);
    let conf = ipamconf(NETWORK, json!({ "ranges": [[{ "subnet": SUBNET }]] }));
    let host = Direct::on(lab.host(1));
    host.given("a", &conf);
    let proxy = lab.consul().proxy();
    lab.host(1).configure(&proxy.url());
    lab.consul().pause();
    let slow = host.call("ADD", "slow", &conf).start();
    proxy.await_request_of("ipam-kv");
    let mut listed = conf.clone();
    listed["cniVersion"] = "1.1.0".into();
    listed["cni.dev/valid-attachments"] = json!([{ "containerID": "a", "ifname": "eth0" }]);
    let collected = host.call("GC", "", &listed).netns("").ifname("").start();
    // It gets as far as it does while the store says nothing.
    spend(Duration::from_millis(500));
    lab.consul().resume();
    let added = slow.wait(Duration::from_secs(30)).ok();
    collected.wait(Duration::from_secs(30));

    let given = integration::addresses_in(&added.json()).remove(0);
    let given = given.split('/').next().expect("an address");
    let local = lab.host(1).listed("endpoint ls --local");
    assert!(local.to_string().contains(given), "{local}");
    lab.host(1).sync();
    let thief = host
        .call("ADD", "thief", &conf)
        .env("CNI_ARGS", format!("IP={given}"))
        .run();
    thief.refused(108, &[given, "slow"]);
}

/// The same of a whole attachment, of which the IPAM plugin's part is done and the interface plugin's is not.
#[test]
fn what_is_half_added_is_no_garbage() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let script = format!(
        "#!/bin/sh\n{}\nstatus=$?\nif [ $CNI_COMMAND = ADD ]; then touch /run/slow/added; read -r go </run/slow/go; fi\nexit $status\n",
        Programs::product("ipam-kv").display()
    );
    host.write_program("/run/slow/ipam-kv", script);
    host.script("mkfifo /run/slow/go");
    let conf = netconf(NETWORK, SUBNET, "1.1.0");
    let call = |verb, conf| {
        let call = host.call("overlay", verb).id("comes").conf(conf);
        call.env("CNI_PATH", format!("/run/slow:{}", Programs::cni_path()))
    };
    let container = host.container("comes");
    let netns = container.netns();
    let adding = call("ADD", &conf).netns(&netns).ifname("eth0").start();
    let added = host.namespace().path("/run/slow/added");
    until(LIMIT, "half added", || added.exists());
    host.call("overlay", "GC").conf(&conf).run().ok();
    assert!(adding.is_alive(), "GC does not wait for the ADD");
    host.script("echo >/run/slow/go");
    let added = adding.wait(Duration::from_secs(30)).ok();

    let address = address_of(&added.json(), "eth0");
    assert!(held_addresses::alone(&lab, "after both").contains_key(&address));
    let leases = held_addresses::by_leases(&store_reader::records(&lab), NETWORK);
    assert!(leases.contains_key(&address), "{leases:?}");
    call("DEL", &conf).netns(&netns).ifname("eth0").run().ok();
    assert_no_lease(&lab, "after the DEL");
}
