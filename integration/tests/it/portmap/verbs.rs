//! The verbs of `portmap` beside ADD that works: what is refused, what is repaired, what is left.

use crate::doctor_report::ask;
use crate::portmap::published;
use crate::portmap::published::{
    Published, add, fetch_at, lab, network, port, port_mappings, rules,
};
use integration::{Backend, Host, Lab, Running};
use serde_json::{Value, json};
use std::time::Duration;

/// What is published, in nft's words.
fn published(host: &Host) -> String {
    let all = rules(host);
    let lines = all.lines().filter(|line| line.contains("comment"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_port_has_one_container_and_the_refusal_names_it() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let before = rules(host);
    host.container("late");
    // As podman's conmon does for the container that has the port: what is in the way is the container.
    let holder = published::serve(host.namespace().net(), "holder", 8080);
    let id = before.split("br/eth0/").nth(1).expect("an owner");
    let id = id.split('"').next().expect("its id").to_owned();
    for asked in [
        json!([port(8000, 80), port(8080, 80)]),
        json!([{ "hostIP": host.vtep(), "hostPort": 8080, "containerPort": 80 }]),
        json!(["8070-8090:70-90"]),
    ] {
        let said = add(host, "late", &asked).failed().stderr;
        assert!(said.contains("8080/tcp: eth0 of container "), "{said}");
        assert!(
            said.contains(&id) && said.contains("on network br has it"),
            "{said}"
        );
        host.cnitool("del", "br", "late", "eth0").ok();
        assert_eq!(rules(host), before, "nothing was changed");
    }
    // Another protocol, or another port, is free.
    let udp = json!({ "hostPort": 8080, "containerPort": 80, "protocol": "udp" });
    add(host, "late", &json!([udp, port(8081, 80)])).ok();
    web.again("check").ok();
    web.again("del").ok();
    // Now it is free, and a late DEL of its last holder takes nothing from its next one.
    drop(holder);
    host.cnitool("del", "br", "late", "eth0").ok();
    add(host, "late", &json!([port(8080, 80)])).ok();
    let mine = published(host);
    web.again("del").ok();
    assert_eq!(published(host), mine);
    host.cnitool("del", "br", "late", "eth0").ok();
    assert_eq!(rules(host), "");
}

/// A killed and a refused ADD that come again.
#[test]
fn an_add_that_comes_again_and_fails_late_leaves_what_worked() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([]));
    let add = |ports: &Value| web.alone("ADD", "c1", ports);
    let fetch = |port| fetch_at(lab.host(2).namespace(), host.vtep(), port);
    let _servers = [80, 81].map(|port| web.serves(port));
    let one = json!([port(8080, 80)]);
    add(&one).ok();
    let before = published(host);
    let listed = host.listed("port ls");
    let unchanged = |what: &str| {
        assert_eq!(published(host), before, "{what}");
        assert_eq!(host.listed("port ls"), listed, "{what}");
        assert!(fetch(8080).starts_with("web "), "{what}");
        host.sync();
        assert_eq!(published(host), before, "{what}: what sync makes of it");
    };
    let other = json!([port(8080, 81), port(8081, 81)]);
    // The last thing that the kernel is told: let 127.0.0.1 lead there.
    host.script(
        "key=/proc/sys/net/ipv4/conf/br1/route_localnet
         echo 0 > $key; echo 0 > /run/zero
         mount --bind /run/zero $key; mount -o remount,bind,ro $key",
    );
    add(&other).refused(107, &["route_localnet"]);
    host.script("umount /proc/sys/net/ipv4/conf/br1/route_localnet");
    unchanged("the kernel refuses");
    // No place to note it.
    host.script(
        "cp -a /run/crosshost /run/copy
         mount -t tmpfs -o size=1m full /run/crosshost
         cp -a /run/copy/. /run/crosshost/
         dd if=/dev/zero of=/run/crosshost/filler bs=4096 2>/dev/null || true",
    );
    add(&other).refused(5, &["No space left on device"]);
    host.script("rm /run/crosshost/filler");
    unchanged("no space");
    // And one that succeeds takes the place of the first.
    add(&other).ok();
    assert!(fetch(8080).starts_with("web ") && fetch(8081).starts_with("web "));
    add(&one).ok();
    assert_eq!(published(host), before);
    web.alone("DEL", "c1", &one).ok();
    assert_eq!(rules(host), "");
}

/// Of a container without ports there is nothing in the kernel, and nfnetlink may be out of reach: on a kernel without nftables the
/// DEL of each container would fail for ever, and with it those of the plugins before this one.
#[test]
fn the_del_of_a_container_without_ports_touches_nothing() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    // As on a host whose documents were lost: what has no document may be in the table.
    host.script("rm -f /run/crosshost/journal/portmap/complete");
    let before = host.footprint();
    for asked in [json!({}), json!({ "portMappings": [] }), Value::Null] {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "br", "type": "portmap", "runtimeConfig": asked,
        });
        let calls = "/run/calls";
        let plugin = integration::Programs::product("portmap");
        let mut del = host.namespace().command("strace");
        del.args(["-f", "-e", "trace=socket", "-o", calls])
            .arg(plugin);
        del.env("CNI_COMMAND", "DEL").env("CNI_CONTAINERID", "c1");
        del.env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", integration::Programs::cni_path());
        let del = Running::start(del, conf.to_string().as_bytes());
        del.wait(Duration::from_secs(30)).ok();
        let calls = host.run(&["cat", calls]).ok().stdout;
        assert!(!calls.contains("AF_NETLINK"), "{asked}: {calls}");
    }
    host.script("rm /run/calls");
    host.assert_same_as(&before, "after the DELs");
    web.again("del").ok();
    assert_eq!(rules(host), "");
}

#[test]
fn gc_takes_what_is_not_listed_and_nothing_else() {
    let lab = lab();
    let host = lab.host(1);
    host.install(&network("bridge", "other", 2));
    let stays = Published::new(host, "stays", "br", &json!([port(8080, 80)]));
    let _goes = Published::new(host, "goes", "br", &json!([port(8081, 80)]));
    let apart = Published::new(host, "apart", "other", &json!([port(8082, 80)]));
    let all = published(host);
    let id_of = |port: &str| {
        let of = all
            .split(&format!("tcp . {port} comment \""))
            .nth(1)
            .expect("a port");
        let words = of.split('"').next().expect("a comment");
        words.rsplit('/').next().expect("an id").to_owned()
    };
    let gc = |valid: &Value| {
        let conf = json!({ "cniVersion": "1.1.0", "name": "br", "type": "portmap", "cni.dev/valid-attachments": valid });
        host.call("portmap", "GC").conf(&conf).run().ok();
    };
    let listed = json!([{ "containerID": id_of("8080"), "ifname": "eth0" }]);
    gc(&listed);
    let left = published(host);
    assert!(
        left.contains("8080") && left.contains("8082") && !left.contains("8081"),
        "{left}"
    );
    stays.again("check").ok();
    apart.again("check").ok();
    // Of records that are lost the kernel tells whose they are.
    host.script("rm -r /run/crosshost/journal/portmap");
    gc(&listed);
    assert_eq!(published(host), left);
    gc(&Value::Null);
    let left = published(host);
    assert!(!left.contains("8080") && left.contains("8082"), "{left}");
    // So does a DEL, while this host has no record at all.
    host.script("rm -rf /run/crosshost/journal/portmap");
    apart.again("del").ok();
    assert_eq!(published(host), "");
}

#[test]
fn networks_of_one_container_do_not_disturb_each_other() {
    let lab = Lab::new(2, Backend::Dir);
    let host = lab.host(1);
    for (number, (under, name)) in
        (1..).zip([("overlay", "ov1"), ("overlay", "ov2"), ("bridge", "br")])
    {
        host.install(&network(under, name, number));
    }
    // A runtime gives the same list to each network.
    let list = json!([port(8080, 80)]);
    let one = Published::new(host, "web", "ov1", &list);
    let _server = one.serves(80);
    let two = Published::of(host.existing("web"), "ov2", "eth1", &list);
    let reached = || fetch_at(lab.host(2).namespace(), host.vtep(), 8080).starts_with("web ");
    assert!(reached());
    let check = |published: &Published<'_>, ifname: &str| {
        let (network, asked) = (&published.network, &published.asked);
        host.cnitool_asking("check", network, ("web", ifname), asked)
            .ok();
    };
    check(&one, "eth0");
    check(&two, "eth1");
    host.cnitool_asking("del", "ov1", ("web", "eth0"), &one.asked)
        .ok();
    assert!(reached(), "the second network has it");
    check(&two, "eth1");
    let again = json!([port(8080, 80), port(8081, 80)]);
    Published::of(host.existing("web"), "ov1", "eth0", &again);
    // Its gateway takes the way out of the container, whose other networks are no longer as they were.
    let three = Published::of(host.existing("web"), "br", "eth2", &list);
    host.cnitool_asking("del", "ov2", ("web", "eth1"), &two.asked)
        .ok();
    host.cnitool_asking("del", "ov1", ("web", "eth0"), &port_mappings(&again))
        .ok();
    // The bridge alone is left, and the container leaves by it.
    assert!(reached(), "the third network has it");
    host.cnitool_asking("del", "br", ("web", "eth2"), &three.asked)
        .ok();
    assert_eq!(rules(host), "");
}

#[test]
fn an_add_that_comes_again_replaces_its_ports_or_changes_nothing() {
    let lab = lab();
    let (host, far) = (lab.host(1), lab.host(2).namespace());
    let web = Published::new(host, "web", "br", &json!([]));
    let _server = web.serves(80);
    let call = |verb, asked: Value| web.alone(verb, "c1", &asked);
    let first = json!([port(8080, 80)]);
    call("ADD", first.clone()).ok();
    let other = Published::new(host, "other", "br", &json!([port(8090, 80)]));
    let before = rules(host);
    let taken = json!([port(8081, 80), port(8090, 80)]);
    let says = ["8090/tcp: eth0 of container "];
    call("ADD", taken).refused(111, &says);
    assert_eq!(rules(host), before, "a refused one");
    call("CHECK", first).ok();

    let second = json!([port(8081, 80)]);
    call("ADD", second.clone()).ok();
    call("CHECK", second.clone()).ok();
    assert_eq!(fetch_at(far, host.vtep(), 8080), "ConnectionRefused");
    assert!(fetch_at(far, host.vtep(), 8081).starts_with("web "));
    let key = "/proc/sys/net/ipv4/conf/br1/route_localnet";
    let open = || host.run(&["cat", key]).ok().stdout;
    assert_eq!(open(), "1\n");
    call("DEL", second).ok();
    other.again("del").ok();
    web.again("del").ok();
    assert_eq!((rules(host), open()), (String::new(), "0\n".to_owned()));
}

#[test]
fn a_del_works_although_somebody_made_a_set_of_another_kind() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    host.script(
        "nft flush chain inet crosshost ports-postrouting
         nft delete set inet crosshost hairpin4
         nft add set inet crosshost hairpin4 '{ type mark; }'",
    );
    web.again("del").ok();
    assert_eq!(rules(host), "");
}

#[test]
fn a_record_that_cannot_be_read_hides_no_other_and_goes_with_a_gc() {
    let lab = lab();
    let host = lab.host(1);
    Published::new(host, "one", "br", &json!([port(8080, 80)]));
    let folder = "/run/crosshost/journal/portmap";
    host.script(&format!("for it in {folder}/*.json; do : > $it; done"));
    Published::new(host, "two", "br", &json!([port(8081, 80)]));
    host.crosshost("port ls").ok().says(&[":8081/tcp"]);
    let conf = json!({ "cniVersion": "1.1.0", "name": "br", "type": "portmap", "cni.dev/valid-attachments": [] });
    host.call("portmap", "GC").conf(&conf).run().ok();
    assert_eq!(rules(host), "");
    let left = host.run(&["sh", "-c", &format!("ls {folder}/*.json || true")]);
    assert_eq!(left.stdout, "");
}

/// As of kube-proxy's kube-ipvs0: more than are looked at one by one.
#[test]
fn among_hundreds_of_addresses_a_port_of_one_is_found_taken() {
    let lab = lab();
    let host = lab.host(1);
    host.script("for n in $(seq 250); do ip address add 10.9.8.$n/32 dev lo; ip address add 10.9.9.$n/32 dev lo; done");
    let of_one = json!({ "hostIP": "10.9.9.77", "hostPort": 8080, "containerPort": 80 });
    let one = Published::new(host, "one", "br", &json!([of_one]));
    host.container("all");
    let said = add(host, "all", &json!(["8000-8100:8000-8100"])).failed();
    let says = "8080/tcp: eth0 of container ";
    assert!(said.stderr.contains(says), "{said}");
    host.cnitool("del", "br", "all", "eth0").ok();
    one.again("check").ok();
    one.again("del").ok();
    add(host, "all", &json!([port(8080, 80)])).ok();
    add(host, "one", &json!([of_one])).failed().warns(&[says]);
    for name in ["one", "all"] {
        host.cnitool("del", "br", name, "eth0").ok();
    }
    assert_eq!(rules(host), "");
}

/// Somebody emptied `/run/crosshost`, and containers came since.
#[test]
fn a_del_takes_ports_whose_record_is_lost_also_beside_others() {
    let lab = lab();
    let host = lab.host(1);
    let old = Published::new(host, "old", "br", &json!([port(8080, 80)]));
    host.script("rm -r /run/crosshost/journal/portmap");
    let lost = ["br/eth0/", "record on this host is lost"];
    ask(host).noted(&lost);
    let new = Published::new(host, "new", "br", &json!([port(8081, 80)]));
    ask(host).noted(&lost);
    old.again("del").ok();
    let notes = ask(host).lines("note");
    assert!(!notes.iter().any(|it| it.contains("lost")), "{notes:?}");
    let left = published(host);
    assert!(!left.contains("8080"), "{left}");
    new.again("del").ok();
    assert_eq!(rules(host), "");
}

/// The words of an element whose record is lost name all of a container, or its beginning.
#[test]
fn a_container_has_no_ports_of_one_whose_name_its_own_begins_with() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([]));
    let call = |id: &str| web.alone("ADD", id, &json!([port(8080, 80)]));
    call("web").ok();
    host.script("rm /run/crosshost/journal/portmap/*");
    call("web1").refused(111, &["8080/tcp: "]);
}

/// With the record unreadable a DEL has all of it taken away, as with one that can be read.
#[test]
fn the_last_del_takes_the_table_although_the_record_cannot_be_read() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    host.script("for it in /run/crosshost/journal/portmap/*; do : > $it; done");
    web.again("del").ok();
    assert_eq!(rules(host), "");
}

#[test]
fn a_full_disk_holds_up_no_del() {
    let lab = lab();
    let host = lab.host(1);
    host.script("mkdir -p /run/crosshost; mount -t tmpfs -o size=128k full /run/crosshost");
    let web = Published::new(host, "web", "br", &json!([]));
    let call = |verb| web.alone(verb, "c1", &json!([port(8080, 80)]));
    call("ADD").ok();
    host.script("dd if=/dev/zero of=/run/crosshost/filler bs=4096 2>/dev/null || true");
    let _ = call("DEL");
    let left = published(host);
    assert!(!left.contains("8080"), "DEL removes what it can: {left}");
}

/// What a record says is taken, whatever somebody did to the map.
#[test]
fn a_port_whose_element_is_gone_is_not_given_away() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    host.container("late");
    host.script("nft flush map inet crosshost ports4; nft flush map inet crosshost ports6");
    let added = add(host, "late", &json!([port(8080, 80)]));
    host.sync();
    web.again("check").ok();
    assert!(!added.status.success(), "both have it: {added}");
}

/// As often as it can.
#[test]
fn an_add_works_while_another_program_flushes_all_rules() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let mut storm = host.namespace().command("sh");
    storm.args([
        "-c",
        "for n in $(seq 400); do nft flush ruleset; sleep 0.005; done",
    ]);
    let storm = Running::start(storm, b"");
    let verb = |verb, n: u16| web.alone(verb, "c1", &json!([port(9000 + n, 80)]));
    for n in 0..100 {
        // "Try again later" is an answer too, where each of its own tries meets a flush.
        let mut said = verb("ADD", n);
        while !said.status.success() && said.json()["code"] == 11 {
            said = verb("ADD", n);
        }
        said.ok();
        verb("DEL", n).ok();
    }
    storm.wait(Duration::from_mins(1)).ok();
    host.sync();
    web.again("check").ok();
}
