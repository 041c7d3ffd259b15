//! A MAC that a container asks for, though other hosts compute MACs from addresses: which hosts learn of it and when, and that
//! none of them loses the container, or the next one at its address.

use std::{net::IpAddr, time::Duration};

use crate::store_reader;
use integration::{
    Attachment, Backend, Call, Container, Finished, Host, Lab, address_of, conflist, detach_all,
    netconf, position_of, until,
};
use serde_json::{Value, json};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";
const ASKED: &str = "02:11:22:33:44:55";
/// Shows where the hosts of a segment send frames, in its sandbox.
const FDB: &str = "bridge fdb show dev vxlan0";
/// No program listens there.
const NO_STORE: &str = "consul://192.168.1.5:1";

fn lab(hosts: u8, backend: Backend) -> Lab {
    let lab = Lab::with_network(hosts, backend, &conflist(NETWORK, SUBNET));
    lab.host(1).create_network(NETWORK, SUBNET);
    lab
}

/// A call about a container of this name, with what its runtime asks for.
fn call<'h>(container: &Container<'h>, verb: &str, asked: &Value) -> Call<'h> {
    let mut conf = netconf(NETWORK, SUBNET, "1.0.0");
    for (key, value) in asked.as_object().into_iter().flatten() {
        conf[key] = value.clone();
    }
    container.call(verb, &conf)
}

fn asking() -> Value {
    json!({ "runtimeConfig": { "mac": ASKED } })
}

/// A container that asks; its address.
#[track_caller]
fn attach<'h>(host: &'h Host, name: &str, asked: &Value) -> (Container<'h>, IpAddr) {
    let container = host.container(name);
    let result = call(&container, "ADD", asked).run().ok().json();
    let address = address_of(&result, "eth0");
    (container, address)
}

fn detach(container: &Container<'_>) -> Finished {
    call(container, "DEL", &json!({})).run()
}

fn computed(address: IpAddr) -> String {
    let IpAddr::V4(v4) = address else {
        panic!("{address}: of IPv4")
    };
    let [a, b, c, d] = v4.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The MAC with which the container reaches an address, having forgotten what it knew of it.
#[track_caller]
fn reaches(container: &Container<'_>, address: IpAddr) -> Option<String> {
    let text = address.to_string();
    container.run(&["ip", "neigh", "flush", "to", &text]);
    if !container.pings(address, &[]) {
        return None;
    }
    let known = container.ip(&["neigh", "show", "to", &text]);
    known[0]["lladdr"].as_str().map(str::to_owned)
}

/// The record of a MAC, as the store has it.
fn record(lab: &Lab) -> Option<Value> {
    let key = format!("blocks/{NETWORK}/{ASKED}");
    let all = store_reader::records(lab);
    all.get(&key)
        .map(|text| serde_json::from_str(text).expect("a record"))
}

#[test]
fn it_is_asked_for_in_three_places_of_which_the_first_counts() {
    let lab = lab(1, Backend::Dir);
    let host = lab.host(1);
    let other = |last: &str| format!("02:11:22:33:44:{last}");
    let cases = [
        (
            json!({ "runtimeConfig": { "mac": ASKED }, "args": { "cni": { "mac": other("66") } } }),
            format!("MAC={}", other("77")),
        ),
        (
            json!({ "runtimeConfig": { "mac": "" }, "args": { "cni": { "mac": ASKED.to_uppercase() } } }),
            format!("MAC={}", other("77")),
        ),
        (json!({}), format!("IgnoreUnknown=1;MAC={ASKED}")),
    ];
    let t1 = host.container("t1");
    let untouched = lab.footprints();
    for (asked, args) in cases {
        let with_args = |verb| call(&t1, verb, &asked).env("CNI_ARGS", &args);
        let result = with_args("ADD").run().ok().json();
        let what = format!("{asked} {args}: {result}");
        let eth0 = position_of(&result, "eth0");
        assert_eq!(result["interfaces"][eth0]["mac"], ASKED, "{what}");
        assert_eq!(t1.link("eth0")["address"], ASKED, "{what}");
        let listed = host.listed("endpoint ls");
        assert_eq!(listed[0]["mac"], ASKED, "{listed}");
        host.crosshost("endpoint ls --local").ok().says(&[ASKED]);

        let mut checked = asked.clone();
        checked["prevResult"] = result;
        call(&t1, "CHECK", &checked)
            .env("CNI_ARGS", &args)
            .run()
            .ok();
        with_args("DEL").run().ok();
        lab.assert_same_as(&untouched, "after a DEL");
    }
}

#[test]
fn what_no_container_can_have_is_refused_and_changes_nothing() {
    let lab = lab(2, Backend::Dir);
    let (held, address) = attach(lab.host(2), "holder", &asking());
    let host = lab.host(1);
    let t1 = host.container("t1");
    let untouched = lab.footprints();
    let before = store_reader::records_but_nodes(&lab);
    let runtime = |mac: &str| json!({ "runtimeConfig": { "mac": mac } });
    let far = computed(address);
    let cases = [
        (runtime("02:11:22:33:44"), "", 7, "02:11:22:33:44"),
        (runtime("01:00:5e:00:00:01"), "", 7, "01:00:5e:00:00:01"),
        (
            json!({ "args": { "cni": { "mac": "00:00:00:00:00:00" } } }),
            "",
            7,
            "args.cni.mac",
        ),
        (json!({}), "MAC=nonsense", 4, "nonsense"),
        // Of an address that another container may get, and of a container that there is.
        (runtime(&far), "", 108, far.as_str()),
        (runtime("02:42:0a:00:00:fe"), "", 108, "10.0.0.254"),
        (asking(), "", 108, "container holder on node docker02"),
    ];
    for (asked, args, code, words) in cases {
        let added = call(&t1, "ADD", &asked).env("CNI_ARGS", args).run();
        added.refused(code, &[words]);
        lab.assert_same_as(&untouched, "after a refusal");
    }
    let leases = |records: &std::collections::BTreeMap<String, String>| {
        store_reader::keys_below(records, "leases/")
    };
    assert_eq!(
        leases(&store_reader::records_but_nodes(&lab)),
        leases(&before)
    );
    // The MAC of an address goes with it, and is no exception.
    let both = json!({ "runtimeConfig": { "mac": "02:42:0a:00:00:fe", "ips": ["10.0.0.254"] } });
    call(&t1, "ADD", &both).run().ok();
    let macs = store_reader::keys_below(&store_reader::records(&lab), "blocks/");
    let macs = macs.iter().filter(|key| key.contains(':')).count();
    assert_eq!(macs, 1, "the holder's");
    for container in [&t1, &held] {
        detach(container).ok();
    }
}

#[test]
fn hosts_that_have_not_heard_of_it_reach_it_and_so_they_do_the_next_one_at_its_address() {
    let lab = lab(3, Backend::Dir);
    let far = [2, 3].map(|number| Attachment::new(lab.host(number), "far", NETWORK));
    let stays = Attachment::new(lab.host(1), "stays", NETWORK);
    lab.sync();
    let (t1, address) = attach(lab.host(1), "t1", &asking());
    let old = computed(address);
    for far in &far {
        let seen = reaches(&far.container, address);
        assert_eq!(
            seen.as_ref(),
            Some(&old),
            "{}: with an old snapshot",
            far.host().name()
        );
    }
    // docker02 hears of it, docker03 does not.
    lab.host(2).sync();
    assert_eq!(reaches(&far[0].container, address).as_deref(), Some(ASKED));
    let entries = lab.host(2).in_sandbox(NETWORK, FDB);
    assert!(
        entries.contains(&format!("{ASKED} dst 192.168.1.11")),
        "{entries}"
    );
    assert_eq!(reaches(&far[1].container, address), Some(old.clone()));
    assert_eq!(reaches(&stays.container, address).as_deref(), Some(ASKED));
    for far in &far {
        assert!(t1.pings(far.address, &[]), "{}", far.host().name());
    }

    detach(&t1).ok();
    let again = json!({ "runtimeConfig": { "ips": [address.to_string()] } });
    let (next, _) = attach(lab.host(1), "next", &again);
    for far in &far {
        let seen = reaches(&far.container, address);
        assert_eq!(
            seen.as_ref(),
            Some(&old),
            "{}: the next one",
            far.host().name()
        );
    }
    lab.sync();
    lab.sync();
    assert_eq!(record(&lab), None, "all have dropped it");
    detach(&next).ok();
    stays.detach().ok();
    detach_all(&far);
}

#[test]
fn it_moves_to_another_host_when_all_have_dropped_the_old_one() {
    let lab = lab(3, Backend::Dir);
    let far = [1, 2, 3].map(|number| Attachment::new(lab.host(number), "far", NETWORK));
    let (t1, _) = attach(lab.host(1), "t1", &asking());
    lab.sync();
    detach(&t1).ok();
    let t2 = lab.host(2).container("t2");
    let refused = call(&t2, "ADD", &asking()).run();
    refused.refused(
        108,
        &[ASKED, "node docker01", "node docker03", "crosshost sync"],
    );
    for number in [1, 3] {
        lab.host(number).sync();
    }
    let result = call(&t2, "ADD", &asking()).run().ok().json();
    let address = address_of(&result, "eth0");
    for far in &far {
        assert!(
            reaches(&far.container, address).is_some(),
            "{}",
            far.host().name()
        );
    }
    lab.sync();
    for far in &far {
        let seen = reaches(&far.container, address);
        assert_eq!(seen.as_deref(), Some(ASKED), "{}", far.host().name());
    }
    // On its own host it comes back at once, whoever is behind.
    detach(&t2).ok();
    call(&t2, "ADD", &asking()).run().ok();
    detach(&t2).ok();
    detach_all(&far);
}

#[test]
fn without_the_store_it_is_not_given_but_taken_back() {
    let lab = lab(2, Backend::Consul);
    let host = lab.host(1);
    let far = Attachment::new(lab.host(2), "far", NETWORK);
    let (t1, address) = attach(host, "t1", &asking());
    assert_eq!(record(&lab).expect("a record")["lease"]["node"], "docker01");
    host.configure(NO_STORE);
    let t2 = host.container("t2");
    let other = json!({ "runtimeConfig": { "mac": "02:11:22:33:44:66" } });
    call(&t2, "ADD", &other).run().refused(11, &[]);
    assert!(far.container.pings(address, &[]), "what runs is untouched");
    detach(&t1).ok();
    host.configure(&lab.store_url());
    assert_eq!(record(&lab).expect("a record")["returned"], Value::Null);
    lab.sync();
    lab.sync();
    assert_eq!(record(&lab), None);

    // A host that boots anew has no container that could have it.
    let (_, _) = attach(host, "t3", &asking());
    host.reboot();
    host.sync();
    assert!(record(&lab).is_none_or(|record| record["returned"] == true));
    assert_eq!(
        store_reader::leased(&lab, NETWORK),
        [far.address.to_string()].into()
    );
    far.detach().ok();
}

#[test]
fn a_lost_table_is_noticed_and_mended() {
    let lab = lab(2, Backend::Dir);
    let host = lab.host(1);
    let far = Attachment::new(lab.host(2), "far", NETWORK);
    let container = host.container("t1");
    let result = call(&container, "ADD", &asking()).run().ok().json();
    let address = address_of(&result, "eth0");
    let mut checked = asking();
    checked["prevResult"] = result;
    let check = || call(&container, "CHECK", &checked).run();
    check().ok();
    host.in_sandbox(NETWORK, "nft flush ruleset");
    assert_eq!(
        reaches(&far.container, address),
        None,
        "docker02 has not heard"
    );
    check().refused(110, &["bridge crosshost"]);
    host.sync();
    check().ok();
    assert!(reaches(&far.container, address).is_some());
    detach(&container).ok();
    far.detach().ok();
}

#[test]
fn a_watcher_hears_of_it_and_of_its_end() {
    let lab = lab(2, Backend::Consul);
    let far = Attachment::new(lab.host(2), "far", NETWORK);
    let _watcher = lab.host(2).watch();
    let sends = |what: bool| {
        let is = || lab.host(2).in_sandbox(NETWORK, FDB).contains(ASKED) == what;
        until(Duration::from_secs(5), &format!("in the table: {what}"), is);
    };
    let (t1, address) = attach(lab.host(1), "t1", &asking());
    sends(true);
    assert_eq!(reaches(&far.container, address).as_deref(), Some(ASKED));
    detach(&t1).ok();
    sends(false);
    // It has acknowledged that, so that the MAC is free for docker02.
    let (t2, _) = attach(lab.host(2), "t2", &asking());
    detach(&t2).ok();
    far.detach().ok();
}

/// Frames for it would end there.
#[test]
fn that_of_a_link_of_the_sandbox_is_refused() {
    let lab = lab(1, Backend::Dir);
    let host = lab.host(1);
    let near = host.container("near");
    call(&near, "ADD", &json!({})).run().ok();
    let container = host.container("t1");
    let before = host.footprint();
    for link in ["br0", "vxlan0"] {
        let links = host.in_sandbox(NETWORK, &["ip", "-json", "link", "show", link]);
        let links: Value = links.parse().expect("JSON");
        let mac = links[0]["address"].as_str().expect("a MAC");
        let asked = json!({ "runtimeConfig": { "mac": mac } });
        let add = call(&container, "ADD", &asked).run();
        add.refused(7, &[mac, link, "sandbox"]);
        host.assert_same_as(&before, link);
    }
}
