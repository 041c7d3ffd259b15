//! Input that is wrong, each kind once: the answer is one CNI error object with the right code that
//! names the key and the value, it comes in bounded time, and nothing on the host or in the store moved.

use std::time::Duration;

use crate::faults::unchanged::{BOTH, Bench, faults, good, with, without};
use integration::{Backend, Call, LIMIT, Lab, Programs, until};
use serde_json::{Value, json};

/// What is wrong, a case a line: the plugins; a key of the configuration, a variable, or `stdin`; its value; the codes that are
/// right; words that the answer has.
const CASES: &str = r#"
    both    | stdin                   | { cniVersion: 1.0.0 }               | 6       |
    both    | stdin                   |                                     | 6       |
    both    | stdin                   | [1, 2]                              | 6 7     |
    overlay | /mtu                    | "large"                             | 7       | mtu large
    both    | /ipam                   | 5                                   | 7       | ipam 5
    both    | /ipam/ranges            | { "subnet": "10.0.0.0/24" }         | 7       | ipam.ranges
    overlay | /vni                    | 16777216                            | 7       | vni 16777216
    both    | /cniVersion             | "9.9.9"                             | 1       | 9.9.9 1.1.0
    both    | /cniVersion             | "latest"                            | 1 6     | latest
    both    | /name                   | "../ov_net1"                        | 7       | name ../ov_net1
    both    | /ipam/ranges/0/0/subnet | "10.0.0.0/33"                       | 7       | subnet 10.0.0.0/33
    both    | /ipam/ranges/0/0/subnet | "ten"                               | 7       | subnet ten
    both    | /ipam/ranges/0/0/subnet | "10.0.0.5/24"                       | 7       | subnet 10.0.0.5/24
    both    | /ipam/ranges/0/0/gateway | "10.9.9.9"                         | 7       | gateway 10.9.9.9
    overlay | /ipam/type              | "nowhere-ipam"                      | 5 7 own | nowhere-ipam
    both    | /store                  | { "url": "redis://10.0.0.1" }       | 7       | store.url redis://10.0.0.1
    overlay | /egres                  | "none"                              | 7       | egres did~you~mean~egress?
    overlay | /egress                 | { "mode": "gwbridge", "subnt": "172.20.0.0/16" } | 7 | egress.subnt did~you~mean~subnet?
    overlay | /node                   | { "vtpe": "192.168.1.11" }          | 7       | node.vtpe did~you~mean~vtep?
    both    | /store                  | { "Prefx": "other" }                | 7       | store.Prefx did~you~mean~prefix?
    both    | /ipam/rangs             | [[{ "subnet": "10.7.0.0/24" }]]     | 7       | ipam.rangs did~you~mean~ranges?
    both    | /ipam/ranges            | [[{ "subnet": "10.0.0.0/24", "rangeEndd": "10.0.0.9" }]] | 7 | ipam.ranges[0][0].rangeEndd did~you~mean~rangeEnd?
    overlay | /ipam/type              | "host-local"                        | 7       | ipam.type host-local ipamScope
    overlay | /ipamScope              | "hosts"                             | 7       | ipamScope hosts
    overlay | CNI_NETNS               |                                     | 4       | CNI_NETNS
    overlay | CNI_NETNS               | /run/netns/absent                   | 3 8     | /run/netns/absent
    overlay | CNI_NETNS               | /etc/hostname                       | 3 8     | /etc/hostname
    overlay | CNI_NETNS               | /proc/self/ns/net                   | 8       | /proc/self/ns/net
    overlay | CNI_NETNS               | /proc/self/ns/mnt                   | 8       | /proc/self/ns/mnt
    overlay | CNI_NETNS               | /proc/self/ns/pid                   | 8       | /proc/self/ns/pid
    overlay | CNI_IFNAME              | taken0                              | 4 own   | taken0
    both    | CNI_IFNAME              | sixteen-letters-                    | 4       | CNI_IFNAME sixteen-letters-
    both    | CNI_CONTAINERID         | ../../etc/passwd                    | 4       | CNI_CONTAINERID ../../etc/passwd
    both    | CNI_CONTAINERID         |                                     | 4       | CNI_CONTAINERID
    both    | CNI_COMMAND             | FOO                                 | 4       | CNI_COMMAND FOO
"#;

#[test]
fn is_answered_by_a_cni_error_and_changes_nothing() {
    let lab = Lab::new(1, Backend::Dir);
    let bench = Bench::new(&lab);
    bench.container.run("ip link add taken0 type bridge").ok();
    let mut wrong = Vec::new();
    let mut judge = |plugin: &str, what: &str, call: Call<'_>, codes: &str, says: &str| {
        let before = bench.state();
        let said = call.run();
        let says: Vec<_> = says.split(' ').map(|it| it.replace('~', " ")).collect();
        let mut faults = faults(&said, codes, &says);
        if said.took > Duration::from_secs(2) {
            faults.push(format!("took {:?}", said.took));
        }
        faults.extend(bench.changed_since(&before));
        if !faults.is_empty() {
            wrong.push(format!("{plugin}, {what}: {}\n  {said}", faults.join("; ")));
        }
    };
    for line in CASES.trim().lines() {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let [which, key, value, codes, says] = columns[..] else {
            panic!("five columns: {line}")
        };
        for plugin in &BOTH[..if which == "both" { 2 } else { 1 }] {
            let call = bench.add(plugin);
            let call = match key {
                "stdin" => call.stdin(value),
                "CNI_NETNS" => call.netns(value),
                "CNI_IFNAME" => call.ifname(value),
                "CNI_CONTAINERID" => call.id(value),
                "CNI_COMMAND" => call.env("CNI_COMMAND", value),
                pointer => call.conf(&with(pointer, value.parse().expect("JSON"))),
            };
            judge(plugin, line, call, codes, says);
        }
    }
    for plugin in BOTH {
        let mut judge = |what, conf, codes, says| {
            judge(plugin, what, bench.add(plugin).conf(&conf), codes, says);
        };
        judge("no ipam", without("ipam"), "7", "ipam");
        // A name after which no file can be named, and the longest name that the specification has.
        let words = "network~name 247~bytes";
        judge(
            "248 bytes",
            with("/name", json!("n".repeat(248))),
            "7",
            words,
        );
        judge(
            "255 bytes",
            with("/name", json!("n".repeat(255))),
            "7",
            words,
        );
        let large = with("/padding", json!("x".repeat(10_000_000)));
        judge("10 MB of standard input", large, "5 6 7", "");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The bench itself is sound: unchanged input attaches.
    bench.add("overlay").run().ok();
}

#[test]
fn the_longest_network_name_works_from_its_creation_to_its_removal() {
    let lab = Lab::new(1, Backend::Dir);
    let (host, name) = (lab.host(1), "n".repeat(247));
    let container = host.container("t1");
    let before = host.footprint();
    let (too_long, subnet) = (format!("{name}n"), ["--subnet", "10.1.0.0/24"]);
    let refused = host.crosshost(&["network", "create", &too_long, subnet[0], subnet[1]]);
    assert!(refused.failed().stderr.contains("247 bytes"));
    assert_eq!(host.listed("network ls"), json!([]));
    host.crosshost(&["network", "create", &name, subnet[0], subnet[1]])
        .ok();
    let mut conf = with("/name", json!(name));
    conf["cniVersion"] = "1.1.0".into();
    conf["ipam"] = json!({ "type": "ipam-kv" });
    let call = |verb: &str, conf: &Value| container.call(verb, conf).id("c1").run().ok();
    call("STATUS", &conf);
    conf["prevResult"] = call("ADD", &conf).json();
    call("CHECK", &conf);
    host.sync();
    conf["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "eth0" }]);
    call("GC", &conf);
    call("CHECK", &conf);
    call("DEL", &conf);
    host.crosshost(&["network", "rm", &name]).ok();
    host.assert_same_as(&before, "after its removal");
    // What can never have been made is removed without a word.
    conf["name"] = too_long.into();
    for verb in ["DEL", "GC"] {
        call(verb, &conf);
    }
}

#[test]
fn portmap_refuses_a_key_that_nearly_is_one_of_its_own_and_lets_others_pass() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let container = host.container("t1");
    let conf = json!({
        "cniVersion": "1.0.0", "name": "n", "type": "portmap", "mode": "theirs", "vlan": 7,
        "prevResult": { "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.2/24" }] },
    });
    let add = |conf: &Value| {
        let call = host.call("portmap", "ADD").id("c1").conf(conf);
        call.netns(&container.netns()).run()
    };
    add(&conf).ok();
    for (key, meant) in [
        ("snatt", "snat"),
        ("masqall", ""),
        ("conditionV4", "conditionsV4"),
    ] {
        let mut conf = conf.clone();
        conf[key] = Value::Null;
        let said = add(&conf);
        match meant {
            "" => drop(said.ok()),
            meant => drop(said.refused(7, &[key, meant])),
        }
    }
    let mut long = conf.clone();
    long["name"] = "n".repeat(248).into();
    add(&long).refused(7, &["247 bytes"]);
}

/// What this host keeps for itself is no container, though it is a network namespace.
#[test]
fn a_sandbox_is_no_container() {
    let lab = Lab::new(1, Backend::Dir);
    let bench = Bench::new(&lab);
    bench.add("overlay").run().ok();
    let host = lab.host(1);
    let sandbox = "/run/crosshost/netns/ov_net1";
    host.script(&format!(
        "touch /run/copy; mount --bind {sandbox} /run/copy"
    ));
    let egress = "/run/crosshost/egress-netns/ch-egress";
    let before = bench.state();
    for path in [sandbox, "/run/copy", egress] {
        let add = bench.add("overlay").id("c2").netns(path).run();
        add.refused(8, &[path, "no container"]);
        assert_eq!(bench.changed_since(&before), [""; 0], "{path}");
    }
    host.script("umount /run/copy");
}

/// Copies and links of a plugin under another name that ends in the plugin's are the plugin itself.
#[test]
fn a_plugin_that_is_its_own_ipam_plugin_is_refused_at_once() {
    let lab = Lab::new(1, Backend::Dir);
    let bench = Bench::new(&lab);
    let (host, own) = (lab.host(1), Programs::product("overlay"));
    host.script(&format!(
        "mkdir /run/again; cp {0} /run/again/copied-overlay; ln -s {0} /run/again/linked-overlay",
        own.display()
    ));
    let path = format!("/run/again:{}", Programs::cni_path());
    for again in ["copied-overlay", "linked-overlay"] {
        let conf = with("/ipam/type", json!(again));
        let before = bench.state();
        let add = bench
            .add("overlay")
            .env("CNI_PATH", &path)
            .conf(&conf)
            .run();
        add.refused(7, &["IPAM plugin"]);
        assert_eq!(bench.changed_since(&before), [""; 0], "{again}");
        let mut conf = conf;
        conf["cniVersion"] = "1.1.0".into();
        let status = host
            .call("overlay", "STATUS")
            .env("CNI_PATH", &path)
            .conf(&conf);
        status.run().refused(7, &["IPAM plugin"]);
        // Nor do the other verbs go round.
        for verb in ["CHECK", "DEL", "GC"] {
            let mut conf = conf.clone();
            conf["prevResult"] = json!({ "cniVersion": "1.1.0", "ips": [] });
            conf["cni.dev/valid-attachments"] = json!([]);
            let call = host.call("overlay", verb).id("c1").conf(&conf);
            let call = call.netns(&bench.container.netns());
            let said = call.env("CNI_PATH", &path).run();
            // There is nothing to remove, so DEL and GC are done.
            assert_eq!(said.status.success(), verb != "CHECK", "{said}");
            assert!(said.took < Duration::from_secs(5), "{said}");
        }
    }
}

#[test]
fn an_ipam_plugin_that_gives_thousands_of_addresses_is_refused() {
    let lab = Lab::new(1, Backend::Dir);
    let bench = Bench::new(&lab);
    let host = lab.host(1);
    for (number, words) in [
        (20_000, ["many", "20001 entries", "4096"]),
        (64, ["many", "65 addresses", "64"]),
    ] {
        let program = r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
printf '{"cniVersion":"1.0.0","ips":['
awk 'BEGIN { for (n = 0; n < NUMBER; n++) printf "{\"address\":\"10.1.%d.%d/32\"},", n / 200, n % 200 }'
printf '{"address":"10.0.0.2/24"}]}'
"#;
        let program = program.replace("NUMBER", &number.to_string());
        host.write_program("/run/many/many", program);
        let path = format!("/run/many:{}", Programs::cni_path());
        let before = bench.state();
        let add = bench
            .add("overlay")
            .env("CNI_PATH", path)
            .conf(&with("/ipam/type", json!("many")));
        add.run().refused(6, &words);
        assert_eq!(bench.changed_since(&before), [""; 0]);
    }
}

/// A runtime that gives up an ADD whose IPAM plugin never ends sends a DEL, which ends that plugin, with all that it started.
#[test]
fn an_ipam_plugin_that_never_ends_is_ended_by_the_del() {
    let lab = Lab::new(1, Backend::Dir);
    let bench = Bench::new(&lab);
    let host = lab.host(1);
    host.write_program(
        "/run/never/never",
        r"#!/bin/sh
case $CNI_COMMAND in
    ADD) sleep 600 & echo $$ $! >/run/never/pids.new && mv /run/never/pids.new /run/never/pids; wait ;;
    DEL) : >/run/never/deleted ;;
esac
",
    );
    let path = format!("/run/never:{}", Programs::cni_path());
    let conf = with("/ipam/type", json!("never"));
    let call = |verb: &str, id: &str| {
        let call = host.call("overlay", verb).id(id).conf(&conf);
        let call = call.netns(&bench.container.netns());
        call.env("CNI_PATH", &path)
    };
    let pids = host.namespace().path("/run/never/pids");
    let lives = || {
        let pids = std::fs::read_to_string(&pids).expect("its process ids");
        // Nobody may have reaped them yet.
        pids.split_whitespace().any(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        })
    };
    let before = bench.state();
    for is_killed in [false, true] {
        let _ = std::fs::remove_file(&pids);
        let adding = call("ADD", "c1").start();
        until(LIMIT, "at its IPAM plugin", || pids.exists());
        // Another container does not wait for it, nor does its DEL end it.
        call("DEL", "c2").run().ok();
        assert!(lives());
        if is_killed {
            adding.kill();
        }
        let deleted = call("DEL", "c1").run().ok();
        assert!(deleted.took < Duration::from_secs(10), "{deleted}");
        assert!(!lives(), "killed before: {is_killed}");
        let added = adding.wait(LIMIT);
        if !is_killed {
            added.refused(198, &["/run/never/never", "SIGKILL"]);
        }
        assert_eq!(bench.changed_since(&before), [""; 0]);
    }
    assert!(host.namespace().path("/run/never/deleted").exists());
}

#[test]
fn a_result_of_absurd_size_is_refused() {
    let lab = Lab::new(1, Backend::Dir);
    let bench = Bench::new(&lab);
    let result = bench.add("overlay").run().ok().json();
    let check = |result: &Value| {
        let mut conf = good();
        conf["prevResult"] = result.clone();
        let call = lab.host(1).call("overlay", "CHECK").id("c1");
        call.netns(&bench.container.netns()).conf(&conf).run()
    };
    check(&result).ok();
    for (list, entry) in [
        ("ips", json!({ "address": "10.9.9.9/32" })),
        ("routes", json!({ "dst": "10.9.0.0/16" })),
        ("interfaces", json!({ "name": "e" })),
    ] {
        let mut many = result.clone();
        many[list] = vec![entry; 100_000].into();
        let said = check(&many);
        said.refused(6, &["prevResult", list, "100000", "4096"]);
        // A DEL needs none of it.
        let mut conf = good();
        conf["prevResult"] = many;
        lab.host(1)
            .call("overlay", "DEL")
            .id("c9")
            .conf(&conf)
            .run()
            .ok();
    }
    check(&result).ok();
}
