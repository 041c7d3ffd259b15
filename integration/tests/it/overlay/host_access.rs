//! Hosts that are on the segment themselves: each reaches every container on every host and is reached, as kubelets and their
//! probes need it, and its address is leased like a container's.

use std::time::Duration;

use crate::overlay::host_on_segment;
use crate::overlay::host_on_segment::{
    DUAL, V4, V6, addresses, lab, link, network, on_link, seen_as, serve,
};
use crate::store_reader::{self, assert_no_lease};
use integration::{Attachment, Container, Lab, Programs, detach_all, until};
use serde_json::{Value, json};

fn access(subnets: &str, egress: &str) -> Value {
    network(subnets, &json!({ "hostAccess": true, "egress": egress }))
}

/// Every host and every container reach all containers and hosts, each as itself.
fn assert_all_meet(lab: &Lab, attached: &[Attachment<'_>], when: &str) {
    let _servers: Vec<_> = attached.iter().map(serve).collect();
    for host in lab.hosts() {
        let own = on_link(host, "chh");
        for one in attached {
            for address in addresses(one) {
                let same = own.iter().find(|own| own.is_ipv4() == address.is_ipv4());
                let seen = seen_as(&host.namespace().net(), address);
                assert_eq!(seen.as_ref(), same, "{when}: {} to {address}", host.name());
            }
            for own in &own {
                let reached = one.container.pings(*own, &[]);
                assert!(
                    reached,
                    "{when}: {} to {own} of {}",
                    one.address,
                    host.name()
                );
            }
        }
    }
    for one in attached {
        for other in attached.iter().filter(|other| other.address != one.address) {
            for (own, address) in addresses(one).into_iter().zip(addresses(other)) {
                assert_eq!(seen_as(&one.container.net(), address), Some(own), "{when}");
            }
        }
    }
}

#[test]
fn hosts_and_containers_meet_whatever_the_way_out() {
    for (subnets, egress) in [
        (V4, "gwbridge"),
        (V6, "none"),
        (DUAL, "none"),
        (V4, "gateway"),
        (V6, "gateway"),
        (DUAL, "gateway"),
    ] {
        let when = format!("{subnets:?}, {egress}");
        let lab = lab(2, &access(subnets, egress));
        let untouched = lab.footprints();
        let attached: [_; 2] = Attachment::on_each(&lab, "n");
        assert_all_meet(&lab, &attached, &when);
        for host in lab.hosts() {
            // A host that wants strict checks for all its links gets them for none that leads to the segment.
            host.script("echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
        }
        assert_all_meet(&lab, &attached, &format!("{when}, strict"));
        for one in &attached {
            one.check().ok();
            one.end();
        }
        lab.assert_same_as(&untouched, &format!("{when}: after the last DEL"));
        assert_no_lease(&lab, &when);
    }
}

#[test]
fn the_hosts_address_is_listed_kept_by_gc_and_given_back_with_the_last_container() {
    let conf = access(DUAL, "none");
    let lab = lab(1, &conf);
    let host = lab.host(1);
    let untouched = host.footprint();
    let [t1, t2] = ["t1", "t2"].map(|name| Attachment::new(host, name, "n"));
    let own = on_link(host, "chh");
    let listed = || {
        let all = host.listed("endpoint ls");
        let all = all.as_array().expect("a list").clone();
        let own = all
            .iter()
            .filter(|one| one["containerID"] == "crosshost-host");
        let mut own: Vec<_> = own
            .map(|one| {
                assert_eq!(one["ifname"], link(host, "chh").as_str());
                let address = one["address"].as_str().expect("text");
                address.parse::<std::net::IpAddr>().expect("an address")
            })
            .collect();
        own.sort();
        own
    };
    assert_eq!(listed(), own);

    let mut valid = host_on_segment::netconf(&conf);
    let collect = |conf: &Value| host.call("overlay", "GC").conf(conf).run().ok();
    t2.detach().ok();
    let journal = "cat /run/crosshost/journal/overlay/*";
    let record = host.run(&["sh", "-c", journal]).ok().json();
    let id = &record["attachment"]["containerID"];
    valid["cni.dev/valid-attachments"] = json!([{ "containerID": id, "ifname": "eth0" }]);
    collect(&valid);
    assert_eq!(listed(), own, "kept");
    assert!(t1.container.pings(own[0], &[]));

    valid["cni.dev/valid-attachments"] = json!([]);
    collect(&valid);
    assert_no_lease(&lab, "a GC that takes the last container");
    for attached in [t1, t2] {
        attached.container.remove();
    }
    host.assert_same_as(&untouched, "after GC");
}

/// The host's own link belongs to no container: CHECK puts it back, and reports no deviation.
#[test]
fn what_somebody_broke_is_put_back_by_check_and_by_sync() {
    let lab = lab(2, &access(DUAL, "gwbridge"));
    let attached: [_; 2] = Attachment::on_each(&lab, "n");
    let host = lab.host(1);
    let (name, own) = (link(host, "chh"), on_link(host, "chh"));
    let check = || host.cnitool("check", "n", "t1", "eth0").ok();
    for damage in [
        format!("ip link delete {name}"),
        format!("ip address flush dev {name} scope global"),
        "ip -6 route delete fd00:1::/64".to_owned(),
    ] {
        let mends: [&dyn Fn(); 2] = [&|| drop(check()), &|| {
            drop(host.sync());
        }];
        for mend in mends {
            host.script(&damage);
            mend();
            assert_eq!(check().stderr, "", "{damage}: not all of it");
            assert_eq!(on_link(host, "chh"), own, "the same addresses");
            assert_all_meet(&lab, &attached, &damage);
        }
    }
    detach_all(attached);
}

#[test]
fn del_needs_neither_store_nor_namespace() {
    let lab = lab(1, &access(V4, "gateway"));
    let host = lab.host(1);
    let untouched = host.footprint();
    let t1 = Attachment::new(host, "t1", "n");
    host.configure("consul://192.168.1.5:8500");
    t1.container.remove();
    t1.detach().ok();
    t1.detach().ok();
    host.assert_same_as(&untouched, "after a DEL without the store");
    host.configure(&lab.store_url());
    host.sync();
    assert_no_lease(&lab, "after a sync");
}

#[test]
fn after_a_reboot_the_hosts_address_is_void() {
    let lab = lab(1, &access(V4, "gateway"));
    let host = lab.host(1);
    let before = Attachment::new(host, "t1", "n");
    assert_eq!(store_reader::leased(&lab, "n").len(), 2);
    host.reboot();
    drop(before);
    let after = Attachment::new(host, "t2", "n");
    let own = on_link(host, "chh").remove(0);
    let wanted = [own.to_string(), after.address.to_string()];
    assert_eq!(store_reader::leased(&lab, "n"), wanted.into());
    after.detach().ok();
    assert_no_lease(&lab, "after the DEL");
}

#[test]
fn documents_lost_under_a_running_container_cost_it_nothing() {
    let lab = lab(1, &access(V4, "none"));
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", "n");
    host.script("cd /run/crosshost && rm -rf journal ledger sandbox foothold news");
    let t2 = Attachment::new(host, "t2", "n");
    assert_all_meet(&lab, &[t1, t2], "after the loss");
    for name in ["t1", "t2"] {
        host.cnitool("del", "n", name, "eth0").ok();
    }
    assert_no_lease(&lab, "after both DELs");
}

#[test]
fn what_the_runtime_asks_for_is_not_the_hosts() {
    let conf = access(V4, "none");
    let lab = lab(1, &conf);
    let host = lab.host(1);
    let container = host.container("t1");
    let mac = "02:11:22:33:44:55";
    for (args, asked) in [
        (format!("IP=10.0.0.50;MAC={mac}"), json!({})),
        (
            String::new(),
            json!({ "ips": ["10.0.0.50/24"], "mac": mac }),
        ),
    ] {
        let mut conf = host_on_segment::netconf(&conf);
        conf["runtimeConfig"] = asked;
        let call = |verb: &str| {
            container
                .call(verb, &conf)
                .id("asks")
                .env("CNI_ARGS", &args)
                .run()
                .ok()
        };
        call("ADD");
        let given = container.address("eth0").expect("an address");
        assert_eq!(given.to_string(), "10.0.0.50");
        assert_eq!(container.link("eth0")["address"], mac);
        assert_ne!(on_link(host, "chh"), [given]);
        call("DEL");
        assert_no_lease(&lab, "after the DEL");
    }
}

#[test]
fn a_killed_add_is_repaired() {
    let conf = access(DUAL, "gateway");
    let lab = lab(1, &conf);
    let host = lab.host(1);
    let conf = host_on_segment::netconf(&conf);
    let container: Container<'_> = host.container("t1");
    let call = |verb: &str| container.call(verb, &conf).id("killed-0123456789");
    let lifetime = call("ADD").run().ok().took;
    call("DEL").run().ok();
    let untouched = host.footprint();
    for step in 0..24 {
        let after = lifetime.mul_f64((f64::from(step) * 0.618_034).fract());
        let when = format!("killed after {after:?}");
        let killed = call("ADD").start();
        killed.kill_after(after);
        let killed = killed.wait(Duration::from_secs(30));
        // One that was killed after its answer may stand.
        if step % 2 == 0 && killed.stdout.is_empty() {
            let again = call("ADD").run();
            assert!(again.status.success(), "{when}: {again}");
            assert!(container.pings(on_link(host, "chh")[0], &[]), "{when}");
        }
        call("DEL").run().ok();
        host.assert_same_as(&untouched, &when);
        assert_no_lease(&lab, &when);
    }
}

/// An IPAM plugin that gives one address to containers, and another to the host itself when it is told to.
const SLOW: &str = r#"#!/bin/sh
cat > /dev/null
[ "$CNI_COMMAND" = ADD ] || exit 0
address=10.0.0.7
if [ "$CNI_CONTAINERID" = crosshost-host ]; then
    address=10.0.0.9
    touch /run/slow/reached
    while [ ! -e /run/slow/go ]; do sleep 0.05; done
fi
echo '{ "cniVersion": "1.1.0", "ips": [{ "address": "'$address'/24" }] }'
"#;

/// What takes its time is not under the network's lock.
#[test]
fn a_slow_ipam_plugin_of_the_host_holds_up_no_other_verb_on_the_network() {
    let conflist = access(V4, "gwbridge");
    let lab = lab(1, &conflist);
    let host = lab.host(1);
    host.write_program("/run/slow/slow-ipam", SLOW);
    let mut conf = host_on_segment::netconf(&conflist);
    conf["ipam"] = json!({ "type": "slow-ipam", "subnet": V4 });
    let container = host.container("t1");
    let call = |verb: &str| {
        let path = format!("/run/slow:{}", Programs::cni_path());
        container.call(verb, &conf).env("CNI_PATH", path)
    };
    let adding = call("ADD").start();
    let reached = host.namespace().path("/run/slow/reached");
    until(Duration::from_mins(1), "at the host's lease", || {
        reached.exists()
    });
    let synced = host.crosshost("sync");
    assert!(synced.took < Duration::from_secs(15), "{synced}");
    synced.ok();
    host.write("/run/slow/go", "");
    adding.wait(Duration::from_mins(1)).ok();
    let own: Vec<std::net::IpAddr> = vec![[10, 0, 0, 9].into()];
    assert_eq!(on_link(host, "chh"), own);
    call("DEL").run().ok();
    let left = host.run("ip -br link").ok().stdout;
    assert!(!left.contains("chh"), "{left}");
}
