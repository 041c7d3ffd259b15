//! One command makes a network that every host can use: its subnet is chosen, and each host has a conflist of it.

use std::{collections::BTreeSet, time::Duration};

use integration::{Attachment, Backend, Host, Lab, conflist, stays, until};
use serde_json::json;

const FOLDER: &str = "/etc/cni/net.d";

fn files(host: &Host) -> Vec<String> {
    let listed = host.run(&["ls", "-A", FOLDER]).stdout;
    listed.lines().map(str::to_owned).collect()
}

fn subnets(host: &Host, network: &str) -> Vec<String> {
    let shown = host.listed(&["network", "inspect", network]);
    let subnets = shown["subnets"].as_array().expect("subnets").iter();
    subnets
        .map(|it| it.as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_subnet_is_chosen_that_neither_a_network_nor_the_host_has() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    let create = |words: &str| host.crosshost(&format!("network create {words}"));
    create("first").ok().says(&["first", "10.0.0.0/24"]);
    host.script("ip route add 10.0.1.0/25 via 192.168.1.1");
    create("second").ok().says(&["10.0.2.0/24"]);
    create("named --subnet 10.0.3.0/24").ok();
    create("-d overlay third").ok().says(&["10.0.4.0/24"]);
    let dual = create("dual --ipv6").ok().stdout;
    assert!(dual.contains("10.0.5.0/24,fd"), "{dual}");
    create("first").failed().warns(&["exists already"]);

    let pools = json!({ "defaultAddressPools": [{ "base": "10.7.0.0/23", "size": 24 }] });
    host.keep_conflists(&pools);
    create("a").ok().says(&["10.7.0.0/24"]);
    create("b").ok().says(&["10.7.1.0/24"]);
    let none = create("c").failed();
    none.warns(&["network.defaultAddressPools", "10.7.0.0/23", "free"]);
    // A pool that is none is named, and nothing is made.
    host.keep_conflists(&json!({ "defaultAddressPools": [{ "base": "10.7.0.0/24", "size": 16 }] }));
    create("c")
        .failed()
        .warns(&["network.defaultAddressPools[0]", "size: 16"]);
    assert_eq!(
        host.crosshost("network ls -q --filter name=c")
            .failed()
            .stdout,
        ""
    );
}

#[test]
fn what_cannot_work_on_the_creating_host_is_said_at_creation() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    let create = |words: &str| host.crosshost(&format!("network create {words}"));
    let refused = create("large --mtu 1500").failed();
    refused.warns(&["--mtu 1500", "carries 1450 bytes"]);
    create("large --mtu 1450").ok();
    host.script("ip route add 10.5.0.0/16 via 192.168.1.1");
    let routed = "routed --subnet 10.5.1.0/24";
    create(&format!("{routed} --egress gateway"))
        .failed()
        .warns(&["--subnet 10.5.1.0/24", "10.5.0.0/16"]);
    create(routed).ok().warns(&["10.5.0.0/16"]);
    create("neighbours -d macvlan -o parent=ens9 --subnet 10.6.0.0/24")
        .ok()
        .warns(&["parent ens9: this host has no such interface"]);
    let all = "large\nneighbours\nrouted\n";
    assert_eq!(host.crosshost("network ls -q").ok().stdout, all);
}

#[test]
fn inspect_shows_to_a_person_what_it_says_in_json() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    host.crosshost(
        "network create all --subnet 10.3.0.0/24 --gateway 10.3.0.254 --ip-range 10.3.0.64/26 --aux-address a=10.3.0.70 \
         --egress-subnet 172.25.0.0/16 --mtu 1400 --vxlan-port 4790 --block-prefix 30 --reclaim-after 900 --label team=blue",
    )
    .ok();
    let json = host.listed("network inspect all");
    assert_eq!(json["egressSubnet"], "172.25.0.0/16", "{json:#}");
    assert_eq!(json["reclaimAfter"], 900, "{json:#}");
    host.crosshost("network inspect all").ok().says(&[
        "network all: vni 4097, subnets 10.3.0.0/24, gateway 10.3.0.254, scope local\n",
        "driver overlay, mtu 1400, UDP port 4790, egress gwbridge with subnet 172.25.0.0/16\n",
        "addresses 10.3.0.64 to 10.3.0.127 of 10.3.0.0/24, gateway 10.3.0.254, without 10.3.0.70/32\n",
        "blocks of /30\n",
        "without contact for 900 s",
        "labels team=blue\n",
        "conflist: written",
        "no endpoints",
    ]);
}

#[test]
fn a_host_keeps_conflists_in_each_folder_that_it_names() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    let folders = [FOLDER, "/opt/cni/config"];
    host.keep_conflists(&json!({ "conflistDirs": folders }));
    // Nomad looks for names in lower case.
    host.crosshost("network create Ov_Net1")
        .ok()
        .warns(&["Nomad", "lower case"]);
    let there = |folder: &str| {
        let file = format!("{folder}/Ov_Net1.conflist");
        host.run(&["test", "-e", &file]).status.success()
    };
    assert!(folders.iter().all(|it| there(it)));
    host.crosshost("network rm Ov_Net1").ok();
    assert!(!folders.iter().any(|it| there(it)));
}

#[test]
fn hosts_that_create_at_the_same_moment_choose_different_subnets() {
    let lab = Lab::registered(2, Backend::Consul);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let host = lab.host(1 + number % 2);
            scope.spawn(move || host.crosshost(&format!("network create net{number}")).ok());
        }
    });
    let chosen: BTreeSet<_> = (0..8)
        .flat_map(|number| subnets(lab.host(1), &format!("net{number}")))
        .collect();
    let wanted: BTreeSet<_> = (0..8).map(|third| format!("10.0.{third}.0/24")).collect();
    assert_eq!(chosen, wanted);
}

#[test]
fn a_network_is_there_on_every_host_until_it_is_removed() {
    let lab = Lab::registered(3, Backend::Consul);
    let [one, two, three] = [1, 2, 3].map(|number| lab.host(number));
    for host in [one, two] {
        host.keep_conflists(&json!({}));
    }
    let watcher = two.watch();
    let _without = three.watch();
    one.crosshost("network create ov_net1 --label team=blue")
        .ok();
    assert_eq!(files(one), ["ov_net1.conflist"], "when the command returns");
    let soon = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
    until(soon, "on the other host", || {
        files(two) == ["ov_net1.conflist"]
    });
    let containers = [one, two].map(|host| Attachment::new(host, "t", "ov_net1"));
    let [t1, t2] = &containers;
    assert!(t1.container.pings(t2.address, &[]));
    assert_eq!(files(three), [""; 0], "it is not configured to keep any");

    // The command says which containers are in the way, on whichever host.
    let refused = one.crosshost("network rm ov_net1").failed();
    refused.warns(&["docker01", "docker02"]);
    assert_eq!(files(one), ["ov_net1.conflist"]);
    integration::end_all(containers);
    one.crosshost("network rm ov_net1").ok();
    assert_eq!(files(one), [""; 0], "when the command returns");
    until(soon, "gone from the other host", || files(two).is_empty());

    // Doctor knows what a host has missed.
    drop(watcher);
    one.crosshost("network create missed").ok();
    let missed = "/etc/cni/net.d/missed.conflist";
    let said = |says: &str| two.crosshost("doctor").failed().says(&[says]);
    said(&format!("wrong  {missed}: is missing; run: crosshost sync"));
    two.sync();
    let doctor = two.crosshost("doctor").stdout;
    assert!(doctor.contains("the conflists of all networks"), "{doctor}");
    one.crosshost("network update missed --label team=red").ok();
    said(&format!(
        "wrong  {missed}: is out of date; run: crosshost sync"
    ));
    one.crosshost("network rm missed").ok();
    said(&format!("wrong  {missed}: its network was removed"));
    let _watcher = two.watch();
    until(soon, "the watcher mends that", || files(two).is_empty());

    // One of the same name, with another id, and one that a host hears of by its sync alone.
    one.crosshost("network create ov_net1 --subnet 10.9.0.0/24")
        .ok();
    until(soon, "there again", || files(two) == ["ov_net1.conflist"]);
    three.keep_conflists(&json!({}));
    three
        .sync()
        .says(&["/etc/cni/net.d/ov_net1.conflist: written"]);
    assert_eq!(files(three), ["ov_net1.conflist"]);
}

#[test]
fn a_file_of_somebody_else_or_that_somebody_changed_stays_as_it_is() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    host.keep_conflists(&json!({}));
    let read = |name: &str| host.run(&["cat", &format!("{FOLDER}/{name}")]).ok().stdout;
    // By hand, for a network of that name.
    host.install(&conflist("mine", "10.1.0.0/24"));
    let mine = read("mine.conflist");
    host.crosshost("network create mine --subnet 10.1.0.0/24")
        .ok();
    // In the place of ours.
    host.write(
        &format!("{FOLDER}/taken.conflist"),
        r#"{"name":"x","plugins":[]}"#,
    );
    let told = host.crosshost("network create taken").ok();
    told.warns(&["/etc/cni/net.d/taken.conflist: is not the conflist of network taken"]);
    // Ours, changed.
    host.crosshost("network create changed").ok();
    host.script("sed -i s/bandwidth/mac/ /etc/cni/net.d/changed.conflist");
    let changed = read("changed.conflist");
    host.crosshost("sync")
        .failed()
        .warns(&["changed.conflist: was changed", "taken.conflist"]);
    host.crosshost("doctor").failed().says(&[
        "wrong  /etc/cni/net.d/changed.conflist: was changed",
        "wrong  /etc/cni/net.d/taken.conflist: is not the conflist of network taken",
        "note   /etc/cni/net.d/mine.conflist: the conflist of network mine, not written",
    ]);
    for name in ["mine", "taken", "changed"] {
        host.crosshost(&["network", "rm", name]).ok();
    }
    assert_eq!(read("mine.conflist"), mine);
    assert_eq!(read("changed.conflist"), changed);
    assert_eq!(
        files(host),
        ["changed.conflist", "mine.conflist", "taken.conflist"]
    );
}

#[test]
fn a_conflist_outlives_what_the_store_has_lost() {
    let lab = Lab::registered(1, Backend::Consul);
    let host = lab.host(1);
    host.keep_conflists(&json!({}));
    host.crosshost("network create ov_net1").ok();
    let container = Attachment::new(host, "t", "ov_net1");
    lab.consul().empty();
    let _watcher = host.watch();
    until(Duration::from_secs(20), "restored", || {
        host.crosshost("network ls -q").stdout == "ov_net1\n"
    });
    stays(Duration::from_millis(300), "there", || {
        files(host) == ["ov_net1.conflist"]
    });
    container.end();
}

#[test]
fn networks_are_removed_several_at_once_and_pruned() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    for name in ["a", "b", "c", "d"] {
        host.crosshost(&["network", "create", name, "--label", &format!("of={name}")])
            .ok();
    }
    host.install(&conflist("by_hand", "10.9.0.0/24"));
    Attachment::new(host, "t0", "by_hand").end();
    let used = {
        host.install(&json!({
            "cniVersion": "1.0.0", "name": "c",
            "plugins": [{ "type": "overlay", "ipam": { "type": "ipam-kv" } }],
        }));
        Attachment::new(host, "t1", "c")
    };
    let some = host.crosshost("network rm a nowhere b").failed();
    assert_eq!(some.stdout, "a\nb\n", "what could be removed");
    some.warns(&["nowhere"]);
    let names = |words: &str| host.crosshost(words).ok().stdout;
    assert_eq!(names("network prune --dry-run"), "d\n");
    assert_eq!(names("network prune --dry-run --filter label!=of=d"), "");
    let said = host.crosshost("network prune");
    assert_eq!(said.status.code(), Some(2), "nobody can be asked: {said}");
    assert_eq!(names("network prune --force"), "d\n");
    assert_eq!(names("network ls -q"), "by_hand\nc\n");
    assert_eq!(names("network list -q --filter label=of=c"), "c\n");
    used.end();
}
