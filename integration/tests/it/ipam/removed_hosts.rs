//! A host that an operator removes (`crosshost node rm`): its blocks are others' at once. By that the operator has said that
//! it is dead, so what its containers hold is given to others too. It may live on all the same: when it comes back it
//! registers anew, uses nothing that is another's by now, and names each container that has lost its address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::ipam::small_pool::{
    NETWORK, all_of_the_pool, check, del, fill_at_once, four_blocks, holders, node_record,
    two_hosts,
};
use crate::ownership::{asking, fill, following, held_locally, home, ip, nothing_is_left_over};
use crate::store_reader;
use integration::{Attachment, Backend, Direct, Lab, conflist, ipamconf};
use serde_json::{Value, json};

const REMOVE: [&str; 3] = ["node", "rm", "docker01"];

/// The records in which a node has something or is named: its own, and those of its blocks, leases and ledgers.
fn traces(lab: &Lab, node: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (key, text) in store_reader::records(lab) {
        let record: Value = serde_json::from_str(&text).expect("a record");
        let has = record["node"] == node && record["state"] != "returned";
        if has || key.ends_with(&format!("/{node}")) {
            found.push(key);
        }
    }
    found
}

#[test]
fn a_removed_hosts_blocks_are_others_at_once_to_the_last_address() {
    let lab = two_hosts();
    let conf = four_blocks(None);
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    let old: Vec<_> = fill(one, &conf, 0..10);
    let before = store_reader::records_but_nodes(&lab);
    let said = two.host().crosshost(&REMOVE).failed().stderr;
    let first = format!("{} of network net1, eth0 of container docker01-0", old[0]);
    for word in ["docker01", "has 10 endpoint(s)", &first, "--force"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert_eq!(store_reader::records_but_nodes(&lab), before);
    assert_ne!(traces(&lab, "docker01"), [""; 0]);

    let force = [&REMOVE[..], &["--force"]].concat();
    assert_eq!(two.host().crosshost(&force).ok().stdout, "docker01\n");
    assert_eq!(traces(&lab, "docker01"), [""; 0]);
    two.host()
        .crosshost(&force)
        .failed()
        .warns(&["node docker01: not registered"]);
    let given = fill_at_once(two, &conf, "heir");
    assert_eq!(
        given.values().copied().collect::<BTreeSet<_>>(),
        all_of_the_pool()
    );

    // It comes back: all containers that run there have lost their addresses, and are told so one by one.
    let told = holders(&lab);
    one.add("more", &conf)
        .refused(102, &["exhausted", "on node docker02"]);
    assert_eq!(holders(&lab), told);
    let said = one.host().crosshost("sync").failed().stderr;
    for (number, address) in old.iter().enumerate() {
        let id = format!("docker01-{number}");
        let word =
            format!("address {address} of container {id} here is another node's in the store");
        assert!(said.contains(&word), "no {word:?} in {said}");
        let (_, heir) = &told[address];
        let other = format!("eth0 of container {heir} on node docker02");
        check(one, &id, *address, &conf).refused(110, &[&id, &address.to_string(), &other]);
    }
    for number in 0..old.len() {
        del(one, &format!("docker01-{number}"), &conf);
        assert_eq!(holders(&lab), told, "nothing of the heirs' is released");
    }
    one.host().sync();
    assert_eq!(held_locally(one.host()), []);
    nothing_is_left_over(&lab, NETWORK, 32);

    // What the others let go it can have as anybody.
    for id in ["heir3", "heir4"] {
        del(two, id, &conf);
    }
    one.add("more", &conf)
        .refused(102, &["waits for node docker02"]);
    two.host().sync();
    let more = ip(&one.given("more", &conf)[0]);
    assert!([given["heir3"], given["heir4"]].contains(&more), "{more}");
    nothing_is_left_over(&lab, NETWORK, 31);
}

#[test]
fn a_removed_host_that_comes_back_is_registered_anew_and_keeps_what_no_other_took() {
    let lab = two_hosts();
    let conf = ipamconf(NETWORK, json!({ "subnet": "10.1.0.0/24" }));
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    let old = fill(one, &conf, 0..10);
    two.given("own", &conf);
    let force = [&REMOVE[..], &["--force"]].concat();
    two.host().crosshost(&force).ok();
    // Of the two blocks of before the first is another's by now, who uses one of its addresses.
    let heir = asking(&conf, &[old[0]]);
    assert_eq!(two.given("heir", &heir), [format!("{}/24", old[0])]);
    assert_eq!(home(&lab, NETWORK, old[1]).as_deref(), Some("docker02"));
    assert_eq!(home(&lab, NETWORK, old[9]), None);
    assert_eq!(node_record(&lab, one.host()), None);
    let first = &old[..6];
    assert_eq!(home(&lab, NETWORK, first[5]).as_deref(), Some("docker02"));

    let anew = ip(&one.given("anew", &conf)[0]);
    assert!(!old.contains(&anew), "{anew} runs here already");
    assert_eq!(home(&lab, NETWORK, anew).as_deref(), Some("docker01"));
    let record = node_record(&lab, one.host()).expect("a record");
    assert!(
        record.contains("version") && record.contains("commit"),
        "{record}"
    );
    // The other host does not use them and lets go; what it does use is lost.
    two.host().sync();
    let lost = format!("address {} of container docker01-0 here", old[0]);
    let said = one.host().crosshost("sync").failed().stderr;
    assert!(said.contains(&lost), "{said}");
    for number in 1..old.len() {
        let other = format!("container docker01-{number} ");
        assert!(!said.contains(&other), "{said}");
    }
    let now = holders(&lab);
    let held = |address: &IpAddr| (now[address].0.as_str(), now[address].1.as_str());
    assert_eq!(held(&old[0]), ("docker02", "heir"));
    for (number, address) in old.iter().enumerate().skip(1) {
        let id = format!("docker01-{number}");
        assert_eq!(held(address), ("docker01", id.as_str()));
        assert_eq!(home(&lab, NETWORK, *address).as_deref(), Some("docker01"));
        check(one, &id, *address, &conf).ok();
    }
    // The container is made anew, as its runtime has to be told.
    del(one, "docker01-0", &conf);
    one.given("docker01-0", &conf);
    one.host().sync();
    // From here on both give only what is theirs.
    let mut given: BTreeSet<_> = holders(&lab).into_keys().collect();
    for host in &hosts {
        for address in fill(host, &conf, 20..40) {
            assert!(given.insert(address), "{address} twice");
        }
    }
    nothing_is_left_over(&lab, NETWORK, 13 + 40);
}

#[test]
fn a_removed_host_that_holds_nothing_uses_nothing_of_before() {
    let lab = two_hosts();
    let conf = four_blocks(None);
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    fill(one, &conf, 0..1);
    del(one, "docker01-0", &conf);
    // It was heard of just now.
    let said = two.host().crosshost(&REMOVE).failed().stderr;
    for word in [
        "node docker01: heard of ",
        "s ago",
        "registers anew",
        "--force",
    ] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    let force = [&REMOVE[..], &["--force"]].concat();
    two.host().crosshost(&force).ok();
    assert_eq!(traces(&lab, "docker01"), [""; 0]);
    let given = fill_at_once(two, &conf, "heir");
    assert_eq!(
        given.values().copied().collect::<BTreeSet<_>>(),
        all_of_the_pool()
    );
    let told = holders(&lab);
    // Its own documents say that it has a block with room.
    one.add("back", &conf).refused(102, &["exhausted"]);
    assert_eq!(holders(&lab), told);
    assert!(node_record(&lab, one.host()).is_some(), "registered anew");
    del(two, "heir9", &conf);
    following(&[two.host()], || one.given("back", &conf));
    nothing_is_left_over(&lab, NETWORK, 32);
}

#[test]
fn a_host_that_has_anothers_name_collects_none_of_its_leases() {
    let lab = two_hosts();
    let [one, two] = [1, 2].map(|number| Direct::on(lab.host(number)));
    let conf = four_blocks(None);
    let address = ip(&one.given("kept", &conf)[0]);
    let before = holders(&lab);
    // As a machine that was cloned, or that somebody configured in haste.
    let twin = json!({
        "store": { "url": lab.store_url() }, "node": { "name": "docker01", "vtep": lab.host(2).vtep() },
    });
    let config = lab.host(2).namespace();
    config.write("/etc/crosshost/config.json", twin.to_string());
    let mut all = conf.clone();
    all["cni.dev/valid-attachments"] = json!([]);
    let gc = two.call("GC", "", &all).netns("").ifname("").run();
    assert_eq!(holders(&lab), before, "{gc}");
    two.call("DEL", "kept", &conf).run();
    assert_eq!(holders(&lab), before);
    two.add("more", &conf)
        .refused(103, &["docker01", "is another host"]);
    assert!(holders(&lab).contains_key(&address));
}

/// The tunnel address is the route's then, which `overlay` alone finds; and a runtime such as nerdctl says DEL before each ADD.
#[test]
fn nor_does_one_whose_settings_name_no_tunnel_address() {
    let lab = Lab::new(2, Backend::Dir);
    let [one, two] = [1, 2].map(|number| lab.host(number));
    let twin = json!({ "store": { "url": lab.store_url() }, "node": { "name": "docker01" } });
    for host in lab.hosts() {
        let config = "/etc/crosshost/config.json";
        host.write(config, twin.to_string());
        host.install(&conflist("net1", "10.0.0.0/24"));
    }
    let kept = Attachment::new(one, "kept", "net1");
    let before = store_reader::records(&lab);
    two.container("more");
    for verb in ["del", "gc"] {
        two.cnitool(verb, "net1", "more", "eth0").ok();
        assert_eq!(store_reader::records(&lab), before, "{verb}");
    }
    two.cnitool("add", "net1", "more", "eth0")
        .failed()
        .warns(&["docker01: is another host"]);
    assert!(holders(&lab).contains_key(&kept.address));

    // The host itself is known after a reboot, whichever verb comes first.
    let boot_id = one.reboot();
    one.container("late");
    for verb in ["del", "add"] {
        one.cnitool(verb, "net1", "late", "eth0").ok();
    }
    let leases = store_reader::records(&lab).into_iter();
    let leases: Vec<_> = leases
        .filter(|(key, _)| key.starts_with("leases/"))
        .collect();
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert!(leases[0].1.contains(&boot_id), "{leases:?}");
}
