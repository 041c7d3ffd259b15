//! What an operator removes stays removed, though every host remembers it and has a watcher that writes again what a store has
//! lost; and what a store has lost comes back as it was, whatever is made meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store_reader;
use integration::{
    Attachment, Backend, Host, Lab, Watching, comes_within, conflist, end_all, spend, stays,
};
use serde_json::{Value, json};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";
const OTHER: &str = "ov_net2";
const OTHER_SUBNET: &str = "10.0.2.0/24";
/// For a machine that has much else to do.
const LIMIT: Duration = Duration::from_mins(1);

fn lab() -> Lab {
    Lab::with_network(3, Backend::Consul, &conflist(NETWORK, SUBNET))
}

fn create(host: &Host, network: &str, subnet: &str) {
    host.create_network(network, subnet);
}

/// What the store has of networks: their records and all that hangs on them, but not which ones were removed.
fn of_networks(lab: &Lab) -> BTreeMap<String, String> {
    let mut all = store_reader::records_but_nodes(lab);
    all.retain(|key, value| {
        let empty = key == "subnets" && value.contains(r#""networks":{}"#);
        !key.starts_with("removed/") && !empty
    });
    all
}

/// The files below `/run/crosshost` that are called after a network.
fn documents(host: &Host, network: &str) -> Vec<String> {
    let folders = ["ledger", "memory", "holding", "news", "place"];
    let folders = folders.map(|folder| format!("/run/crosshost/{folder}"));
    let mut find = vec!["find"];
    find.extend(folders.iter().map(String::as_str));
    let name = format!("{network}*");
    find.extend(["-name", &name]);
    let said = host.run(&find);
    said.stdout.lines().map(str::to_owned).collect()
}

fn rounds() -> u32 {
    let rounds = std::env::var("ROUNDS").ok();
    rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(20)
}

#[test]
fn a_removed_network_is_gone_at_once_and_stays_so_and_its_name_is_free() {
    let lab = lab();
    let _watching: Vec<_> = lab.hosts().iter().map(Host::watch).collect();
    for round in 1..=rounds() {
        create(lab.host(1), NETWORK, SUBNET);
        let attached: Vec<_> = (1..=3)
            .map(|number| Attachment::new(lab.host(number), &format!("t{number}"), NETWORK))
            .collect();
        end_all(attached);
        // What watchers do after a DEL meets the removal at another point each time.
        spend([0, 300, 1000][round as usize % 3] * Duration::from_millis(1));
        lab.host(2).crosshost(&["network", "rm", NETWORK]).ok();
        let gone = format!("gone in round {round}");
        let mut left = BTreeMap::new();
        stays(Duration::from_millis(1200), &gone, || {
            left = of_networks(&lab);
            left.is_empty()
        });
    }
    for host in lab.hosts() {
        host.sync();
        assert_eq!(documents(host, NETWORK), [""; 0], "{}", host.name());
    }
    assert_eq!(
        of_networks(&lab),
        BTreeMap::new(),
        "after a sync on each host"
    );
}

#[test]
fn a_network_that_was_removed_while_a_host_was_cut_off_is_not_restored_by_it() {
    let lab = lab();
    create(lab.host(1), NETWORK, SUBNET);
    let before = Attachment::new(lab.host(1), "t1", NETWORK);
    before.detach().ok();
    let consul = lab.consul().address().ip().to_string();
    let route = |verb: &str| {
        let words = ["ip", "route", verb, "unreachable", &consul];
        lab.host(1).run(&words).ok();
    };
    route("add");
    let stranded = Attachment::new(lab.host(1), "t2", NETWORK);
    route("del");
    // The store does not know of the container yet.
    lab.host(2).crosshost(&["network", "rm", NETWORK]).ok();
    let said = lab.host(1).crosshost("sync");
    assert!(
        said.stderr.contains("was removed while container"),
        "{said:?}"
    );
    assert_eq!(of_networks(&lab), BTreeMap::new());
    create(lab.host(2), NETWORK, SUBNET);
    lab.host(1).crosshost("sync");
    stranded.detach().ok();
    lab.host(1).sync();
    lab.host(2).crosshost(&["network", "rm", NETWORK]).ok();
    assert_eq!(of_networks(&lab), BTreeMap::new());
}

/// Waits until that is so.
#[track_caller]
fn soon(what: &str, watching: &[Watching], is_so: impl FnMut() -> bool) {
    let came = comes_within(LIMIT, is_so);
    let said: Vec<_> = watching.iter().map(Watching::said).collect();
    assert!(came.is_some(), "not {what}: {said:?}");
}

fn vni(lab: &Lab, network: &str) -> Option<Value> {
    let records = store_reader::records(lab);
    let record: Value = serde_json::from_str(records.get(&format!("networks/{network}"))?).ok()?;
    (record["restoring"] == Value::Null).then(|| record["vni"].clone())
}

/// Hosts with a container each and watchers, and a store that was emptied a moment ago `times` times.
fn wiped(times: usize, meanwhile: impl Fn(&Lab, usize, &mut dyn FnMut())) {
    let lab = lab();
    create(lab.host(1), NETWORK, SUBNET);
    let attached: Vec<_> = (1..=3)
        .map(|number| Attachment::new(lab.host(number), &format!("t{number}"), NETWORK))
        .collect();
    let watching: Vec<_> = lab.hosts().iter().map(Host::watch).collect();
    let (before, leased) = (vni(&lab, NETWORK), store_reader::leased(&lab, NETWORK));
    for time in 1..=times {
        lab.consul().empty();
        let mut restored = || {
            soon("restored", &watching, || {
                let bare = store_reader::records(&lab)
                    .into_iter()
                    .find(|(key, value)| key.starts_with("nodes/") && !value.contains(r#""vtep""#));
                assert_eq!(bare, None, "a node without its tunnel address, wipe {time}");
                store_reader::leased(&lab, NETWORK) == leased
            });
        };
        meanwhile(&lab, time, &mut restored);
        assert_eq!(
            vni(&lab, NETWORK),
            before,
            "what runs keeps its VNI, wipe {time}"
        );
        let (one, two) = (&attached[0], &attached[2]);
        soon("reached", &watching, || {
            one.container.pings(two.address, &[])
        });
    }
}

#[test]
fn a_host_with_a_tunnel_never_comes_back_without_it_to_an_emptied_store() {
    wiped(5, |_, _, restored| restored());
}

#[test]
fn a_network_made_in_an_emptied_store_takes_no_vni_of_one_that_runs() {
    wiped(4, |lab, time, restored| {
        let host = lab.host(1 + time % 3);
        host.install(&conflist(OTHER, OTHER_SUBNET));
        let added = Attachment::new(host, &format!("o{time}"), OTHER);
        restored();
        assert_ne!(vni(lab, OTHER), vni(lab, NETWORK));
        added.end();
    });
}

#[test]
fn a_network_made_by_a_host_that_knows_of_no_other_moves_to_another_vni() {
    wiped(1, |lab, _, restored| {
        // As a host does that was never on the network, before any of these comes back.
        let put = |key: &str, value: Value| {
            let target = format!("/v1/kv/crosshost/v1/{key}?cas=0");
            lab.consul().request("PUT", &target, &value.to_string())
        };
        let vni = json!({"schema": 1, "network": OTHER});
        let network = json!({"schema": 1, "name": OTHER, "id": "another", "vni": 4097, "ranges": [[
            {"subnet": OTHER_SUBNET, "rangeStart": "10.0.2.1", "rangeEnd": "10.0.2.254", "gateway": "10.0.2.1"}
        ]], "state": "ready"});
        put("vnis/4097", vni);
        put(&format!("networks/{OTHER}"), network);
        restored();
    });
}

#[test]
fn what_earlier_versions_left_of_a_removed_network_is_named_and_swept() {
    let lab = lab();
    let host = lab.host(1);
    let put = |key: &str, value: Value| {
        let target = format!("/v1/kv/crosshost/v1/{key}");
        lab.consul().request("PUT", &target, &value.to_string());
    };
    let leave = || {
        put(
            &format!("blocks/{NETWORK}/10.0.0.0_29"),
            json!({"schema": 1, "node": host.name()}),
        );
        put(
            &format!("blocks/{NETWORK}/10.0.0.8_29"),
            json!({"schema": 1, "node": "gone"}),
        );
        let boot = json!({"schema": 1, "bootID": host.boot_id()});
        put(&format!("ledgers/{NETWORK}/{}", host.name()), boot.clone());
        let mut ack = boot;
        ack["seen"] = json!(0);
        put(&format!("acks/{NETWORK}/{}", host.name()), ack);
        put("vnis/4097", json!({"schema": 1, "network": NETWORK}));
    };
    leave();
    let said = host.crosshost("doctor").stdout;
    let line = said.lines().find(|line| line.contains("no record of it"));
    let line = line.expect("a line of what is left");
    assert!(
        line.contains(NETWORK) && line.contains("crosshost gc"),
        "{line}"
    );
    let said = host.crosshost("gc --dry-run").ok().stdout;
    assert_eq!(said.lines().count(), 5, "{said}");
    assert_eq!(of_networks(&lab).len(), 5, "nothing is done in a dry run");
    let said = host.crosshost("gc").ok().stdout;
    assert_eq!(
        said,
        format!("network {NETWORK}: 5 keys left in the store\n")
    );
    assert_eq!(of_networks(&lab), BTreeMap::new());

    leave();
    create(host, NETWORK, SUBNET);
    assert_eq!(vni(&lab, NETWORK), Some(json!(4097)));
    let blocks = store_reader::keys_below(&store_reader::records(&lab), "blocks/");
    assert_eq!(blocks.len(), 3, "one for each host: {blocks:?}");
    let acks = store_reader::keys_below(&store_reader::records(&lab), "acks/");
    assert_eq!(acks, [""; 0]);
}

#[test]
fn a_clash_of_vnis_of_two_data_directories_names_the_other_network() {
    let lab = lab();
    let host = lab.host(1);
    let _one = Attachment::new(host, "t1", NETWORK);
    let mut second = conflist("ov_net3", "10.0.3.0/24");
    second["plugins"][0]["ipam"]["dataDir"] = json!("/srv/b");
    second["plugins"][0]["vni"] = vni(&lab, NETWORK).expect("a VNI");
    host.install(&second);
    host.container("t3");
    let said = host.cnitool("add", "ov_net3", "t3", "eth0");
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(
        text.contains(&format!("network {NETWORK} has it")),
        "{text}"
    );
}
