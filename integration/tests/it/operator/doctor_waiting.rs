//! `crosshost doctor` of what is not this host's firewall: whom an address that changes hands waits for, what a killed ADD
//! left, what the store was not told, and a store that is away or refuses the host.

use std::time::Duration;

use crate::doctor_report::ask;
use crate::ownership::block_of;
use integration::{
    Attachment, Backend, Direct, Host, LIMIT, Lab, Programs, conflist, ipamconf, netconf, until,
};
use serde_json::json;

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";
/// No program listens there.
const NO_STORE: &str = "consul://192.168.1.5:1";

fn lab(hosts: u8, backend: Backend) -> Lab {
    let lab = Lab::registered(hosts, backend);
    lab.host(1).create_network(NETWORK, SUBNET);
    lab.install(&conflist(NETWORK, SUBNET));
    lab
}

/// An address goes from host to host by the word of its owner, and of all that forward: the watchers of two of them do not
/// run, so it stands, and the third one's doctor says for whom, one after the other.
#[test]
fn an_address_that_changes_hands_waits_for_hosts_that_are_named() {
    let lab = lab(3, Backend::Consul);
    let attached: Vec<_> = (lab.hosts().iter())
        .map(|host| Attachment::new(host, "t", NETWORK))
        .collect();
    lab.sync();
    let watcher = lab.host(1).watch();
    assert_eq!(waits(lab.host(1)), [""; 0]);
    let wanted = block_of(&lab, NETWORK, lab.host(2)).nth(5);
    let container = lab.host(1).container("static");
    let asked = || {
        let mut conf = netconf(NETWORK, SUBNET, "1.0.0");
        conf["runtimeConfig"] = json!({ "ips": [wanted.to_string()] });
        container.call("ADD", &conf).run()
    };
    asked().refused(108, &[&wanted.to_string(), "docker02"]);
    for (owner, at) in [("docker02", 2), ("docker03", 3)] {
        let said = waits(lab.host(1));
        let [one] = said.as_slice() else {
            panic!("{said:?}")
        };
        let words = [
            wanted.to_string(),
            format!("waits for {owner}"),
            format!("crosshost sync  # on {owner}"),
        ];
        assert!(words.iter().all(|word| one.contains(word)), "{one}");
        // What it waits for is in the way, and nothing else: the same from any other host.
        assert_eq!(waits(lab.host(3)), said);
        lab.host(at).sync();
        // The owner consents, and the address has no home; this host's watcher and the owner follow.
        let by_others = |line: &String| {
            ["docker01", owner]
                .iter()
                .any(|it| line.contains(&format!("waits for {it}")))
        };
        watcher.until(Duration::from_secs(10), "followed", || {
            lab.host(2).sync();
            !waits(lab.host(1)).iter().any(by_others)
        });
    }
    assert_eq!(waits(lab.host(1)), [""; 0]);
    asked().ok();
    drop(watcher);
    drop(attached);
}

/// What waits, as the doctor of this host says.
#[track_caller]
fn waits(host: &Host) -> Vec<String> {
    let notes = ask(host).lines("note");
    notes
        .into_iter()
        .filter(|it| it.contains("waits for"))
        .collect()
}

#[test]
fn what_a_killed_add_left_is_told_and_its_verb_clears_it_away() {
    let lab = lab(1, Backend::Dir);
    let host = lab.host(1);
    // An IPAM plugin that never ends, and so does not notice that its caller is gone.
    host.write_program(
        "/run/slow/ipam-kv",
        "#!/bin/sh\n[ $CNI_COMMAND = ADD ] && touch /run/slow/reached && exec sleep 60\nexec true\n",
    );
    let container = host.container("killed");
    let call = |verb: &str| {
        let call = container.call(verb, &netconf(NETWORK, SUBNET, "1.0.0"));
        call.env("CNI_PATH", format!("/run/slow:{}", Programs::cni_path()))
    };
    let adding = call("ADD").start();
    let reached = host.namespace().path("/run/slow/reached");
    until(LIMIT, "at its IPAM plugin", || reached.exists());
    // Its way out may be half made in this moment.
    until(LIMIT, "well", || ask(host).lines("wrong").is_empty());
    adding.kill();
    adding.wait(Duration::from_secs(10));
    let mend = ask(host).wrong(&["eth0 of container killed", "its ADD was killed"]);
    assert_eq!(mend, "", "it is the runtime's");
    // Its container lives: no sweep's business.
    assert_eq!(host.crosshost("gc").ok().stdout, "");
    ask(host).wrong(&["eth0 of container killed"]);
    call("DEL").run().ok();
    ask(host).assert_well();
}

#[test]
fn a_store_that_is_away_is_told_and_so_is_what_it_was_not() {
    let lab = lab(1, Backend::Consul);
    let host = lab.host(1);
    let direct = Direct::on(host);
    let conf = ipamconf("net1", json!({ "subnet": "10.1.0.0/24" }));
    direct.given("c1", &conf);
    host.configure(NO_STORE);
    direct.call("DEL", "c1", &conf).run().ok();
    let found = ask(host);
    found.wrong(&["store consul://192.168.1.5:1"]);
    assert_eq!(found.wrong(&["net1", "1 released"]), "crosshost sync");
    host.configure(&lab.store_url());
    assert_eq!(
        ask(host).lines("wrong").len(),
        1,
        "what is still to be told"
    );
    host.sync();
    ask(host).assert_well();
}

#[test]
fn a_host_that_the_store_does_not_know_or_lets_in_is_told() {
    let lab = Lab::new(1, Backend::GuardedConsul);
    let host = lab.host(1);
    ask(host).wrong(&["store consul://"]);
    host.configure_store(&json!({ "url": lab.store_url(), "tokenFile": "/etc/crosshost/token" }));
    ask(host).wrong(&["store consul://", "token file /etc/crosshost/token"]);
    let token = lab.consul().management_token().expect("of a guarded one");
    host.write("/etc/crosshost/token", token);
    host.script("chmod 600 /etc/crosshost/token");
    let store = json!({ "url": lab.store_url(), "tokenFile": "/etc/crosshost/token" });
    host.configure_store(&store);
    assert_eq!(
        ask(host).wrong(&["not registered in the store"]),
        "crosshost sync"
    );
    host.sync();
    ask(host).assert_well();

    let mut config: serde_json::Value = json!({ "store": store });
    config["node"] = json!({ "name": host.name(), "vtep": "192.168.1.99" });
    host.write("/etc/crosshost/config.json", config.to_string());
    ask(host).wrong(&["node.vtep: 192.168.1.99", "not an address of this host"]);
}

/// A container on a network of MTU 1550, with which all is well.
#[track_caller]
fn on_a_big_network(host: &Host) -> Attachment<'_> {
    host.crosshost("network create big --subnet 10.0.9.0/24 --mtu 1550")
        .ok();
    host.install(&conflist("big", "10.0.9.0/24"));
    let attached = Attachment::new(host, "t1", "big");
    ask(host).assert_well();
    attached
}

#[test]
fn an_mtu_that_the_underlay_does_not_carry_is_told_with_the_one_that_would_do() {
    let lab = lab(1, Backend::Dir);
    let host = lab.host(1);
    host.script("ip link set ens3 mtu 1600");
    let attached = on_a_big_network(host);
    host.script("ip link set ens3 mtu 1500");
    host.sync();
    let mend = ask(host).wrong(&["network big", "mtu is 1550", "1450"]);
    host.script(&mend);
    host.sync();
    ask(host).assert_well();
    attached.detach().ok();
}

/// The kernel takes almost any name for an interface, and a command that is printed to be pasted holds it.
#[test]
fn a_command_to_paste_is_one_command_whatever_an_interface_is_called() {
    for name in ["e;reboot;", "$(x)", "it's", "e\u{1b}[7m"] {
        let lab = lab(1, Backend::Dir);
        let host = lab.host(1);
        let script = "ip link set ens3 down; ip link set ens3 name \"$1\"; ip link set dev \"$1\" mtu 1600 up
                      ip route replace default via 192.168.1.1";
        host.run(&["sh", "-euc", script, "sh", name]).ok();
        let attached = on_a_big_network(host);
        let narrow = ["ip", "link", "set", "dev", name, "mtu", "1500"];
        host.run(&narrow).ok();
        host.sync();
        let mend = ask(host).wrong(&["network big", "mtu is 1550"]);
        assert!(!mend.contains('\u{1b}'), "{mend:?}");
        host.run(&["bash", "-euc", &mend]).ok();
        host.sync();
        ask(host).assert_well();
        let shown = host.crosshost("doctor").ok().stdout;
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        attached.detach().ok();
    }
}
