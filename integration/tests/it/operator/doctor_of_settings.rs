//! `crosshost doctor` of a first step that went wrong: settings that cannot be read, no store that other hosts share, another
//! store than the runtime's, keys without a meaning, files that others can change. Each is reported, and all the rest with it.

use crate::doctor_report::ask;
use integration::{Attachment, Backend, Host, Lab, conflist};
use serde_json::json;

const NETWORK: &str = "ov_net1";
const CONFIG: &str = "/etc/crosshost/config.json";

fn lab() -> Lab {
    Lab::with_network(1, Backend::Dir, &conflist(NETWORK, "10.0.0.0/24"))
}

/// What was looked at without the store.
#[track_caller]
fn looks_at_the_rest(host: &Host, ids: &[&str]) {
    let found = ask(host).ids();
    for id in ids {
        assert!(found.contains(&(*id).to_owned()), "no {id} in {found:?}");
    }
}

#[test]
fn settings_that_cannot_be_read_are_one_finding_of_many() {
    let lab = lab();
    let host = lab.host(1);
    let attached = Attachment::new(host, "t1", NETWORK);
    let good = host.run(&["cat", CONFIG]).ok().stdout;
    for (bad, named) in [
        ("{ \"store\": ", CONFIG),
        ("{ \"stroe\": {} }", "stroe: unknown key"),
        ("{ \"node\": { \"vtep\": \"x\" } }", "node.vtep"),
        ("[]", CONFIG),
    ] {
        host.write(CONFIG, bad);
        ask(host).wrong(&["settings", CONFIG, named]);
        assert_eq!(ask(host).of("settings").len(), 1);
        looks_at_the_rest(host, &["watcher", "nftables-table", "egress"]);
        // Damage of this host's own is told all the same.
        host.script("nft delete table inet crosshost");
        ask(host).wrong(&["nftables table inet crosshost"]);
        host.write(CONFIG, &good);
        host.sync();
        ask(host).assert_well();
    }
    let mut config: serde_json::Value = serde_json::from_str(&good).expect("JSON");
    for url in [
        "consul://192.168.1.5:8500?token=hunter2",
        "consul://a:hunter2@192.168.1.5",
    ] {
        config["store"] = json!({ "url": url });
        host.write(CONFIG, config.to_string());
        let said = host.crosshost("doctor").failed();
        let said = said.stdout + &said.stderr;
        assert!(
            said.contains("store.url") && !said.contains("hunter2"),
            "{said}"
        );
    }
    config["store"] =
        json!({ "url": "consul://192.168.1.11:8500", "tokenFile": "/etc/crosshost/token" });
    host.write(CONFIG, config.to_string());
    for prepare in ["true", "mkdir /etc/crosshost/token"] {
        host.script(prepare);
        let found = ask(host);
        found.wrong(&[
            "store consul://192.168.1.11:8500",
            "token file /etc/crosshost/token",
        ]);
        looks_at_the_rest(
            host,
            &[
                "watcher",
                "underlay",
                "forwarding",
                "nftables-table",
                "egress",
            ],
        );
    }
    host.write(CONFIG, &good);
    attached.detach().ok();
}

#[test]
fn a_store_that_no_other_host_shares_is_told_and_its_networks_are_local() {
    let lab = lab();
    let host = lab.host(1);
    let config = json!({ "node": { "name": host.name(), "vtep": host.vtep() } });
    host.write(CONFIG, config.to_string());
    host.sync();
    let create = "network create alone --subnet 10.5.0.0/24";
    assert!(host.crosshost(create).ok().stdout.ends_with("local\n"));
    let found = ask(host);
    found.assert_well();
    found.noted(&[
        "dir:///var/lib/crosshost",
        "no network reaches another host",
        "store.url",
        CONFIG,
    ]);
    assert_eq!(found.of("store-scope").len(), 1);
    assert_eq!(host.listed("network ls")[0]["scope"], "local");
    assert_eq!(host.listed("network inspect alone")["scope"], "local");
    host.crosshost("network inspect alone")
        .ok()
        .says(&["scope local"]);

    let lab = Lab::registered(1, Backend::Consul);
    assert!(ask(lab.host(1)).of("store-scope").is_empty());
}

/// Runtime and shell have an environment each.
#[test]
fn containers_that_were_made_with_another_store_are_told_with_both() {
    let lab = lab();
    let host = lab.host(1);
    let attached = Attachment::new(host, "t1", NETWORK);
    assert!(ask(host).of("store-of-containers").is_empty());
    host.configure("dir:///var/lib/crosshost");
    host.crosshost("sync");
    let found = ask(host);
    found.wrong(&[
        "network ov_net1",
        "dir:///dev/shm/store (prefix crosshost)",
        "dir:///var/lib/crosshost (prefix crosshost)",
        "store.url",
    ]);
    assert_eq!(found.of("store-of-containers").len(), 1);
    host.configure(&lab.store_url());
    attached.detach().ok();
    assert!(ask(host).of("store-of-containers").is_empty());
}

#[test]
fn keys_without_a_meaning_are_listed_by_file_and_path() {
    let lab = lab();
    let host = lab.host(1);
    assert!(ask(host).of("conflist").is_empty());
    let mut conf = conflist("strange", "10.6.0.0/24");
    conf["plugins"][0]["comment"] = "of the operator".into();
    conf["plugins"][0]["ipam"]["owner"] = "me".into();
    host.install(&conf);
    host.script("mkdir /etc/cni/net.d/default");
    host.write(
        "/etc/cni/net.d/default/bridge.conf",
        r#"{"type": "bridge", "isGateway": true, "name": "b", "ipam": {"type": "ipam-kv", "rangs": []}}"#,
    );
    host.write("/etc/cni/net.d/broken.conflist", "{");
    let found = ask(host);
    found.noted(&["/etc/cni/net.d/strange.conflist", "comment, ipam.owner"]);
    found.noted(&["/etc/cni/net.d/default/bridge.conf", "ipam.rangs"]);
    found.wrong(&["/etc/cni/net.d/broken.conflist"]);
    assert_eq!(found.of("conflist").len(), 3);
    host.script("rm /etc/cni/net.d/broken.conflist");
    // The specification wants them to pass.
    let attached = Attachment::new(host, "t1", "strange");
    attached.detach().ok();
}

#[test]
fn files_that_others_can_change_or_must_not_read_are_told() {
    let lab = lab();
    let host = lab.host(1);
    let attached = Attachment::new(host, "t1", NETWORK);
    host.script("touch /etc/crosshost/token; chmod 644 /etc/crosshost/token");
    host.configure_store(&json!({ "url": lab.store_url(), "tokenFile": "/etc/crosshost/token" }));
    for (spoil, words) in [
        ("true", ["/etc/crosshost/token", "secret"]),
        (
            "chmod 666 /etc/crosshost/config.json",
            ["/etc/crosshost/config.json", "mode 0666"],
        ),
        (
            "chown 1000 /etc/crosshost/config.json",
            ["/etc/crosshost/config.json", "user 1000"],
        ),
        ("chmod 1777 /run/crosshost", ["/run/crosshost", "mode 1777"]),
        ("chown 1000 /run/crosshost", ["/run/crosshost", "user 1000"]),
        (
            "chown 1000 /etc/crosshost/token",
            ["/etc/crosshost/token", "user 1000"],
        ),
        ("chmod 777 /etc/crosshost", ["/etc/crosshost:", "mode 0777"]),
        (
            "chmod 666 /etc/cni/net.d/ov_net1.conflist",
            ["/etc/cni/net.d/ov_net1.conflist", "mode 0666"],
        ),
        ("chmod 1777 /etc/cni/net.d", ["/etc/cni/net.d:", "as root"]),
        ("chmod 777 /dev/shm/store", ["/dev/shm/store", "mode 0777"]),
        (
            "chown 65534 /dev/shm/store",
            ["/dev/shm/store", "user 65534"],
        ),
    ] {
        host.script(spoil);
        let mend = ask(host).wrong(&words);
        host.script(&mend);
        assert!(ask(host).of("permissions").is_empty(), "after {mend}");
    }
    ask(host).assert_well();
    attached.detach().ok();
}
