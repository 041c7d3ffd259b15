//! SIGKILL at each call by which ADD and DEL of `portmap` change anything; and many of them at once.

use std::time::Duration;

use crate::portmap::published;
use crate::portmap::published::{Published, fetch_at, network, port, port_mappings, rules};
use integration::{Backend, Finished, Host, Lab, Programs, Running};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
/// netlink; documents; what 127.0.0.1 needs.
const CALLS: [&str; 5] = ["sendto", "write", "rename", "unlink", "mkdir"];

struct Case<'lab> {
    lab: &'lab Lab,
    conf: Value,
    other: Published<'lab>,
}

impl<'lab> Case<'lab> {
    fn new(lab: &'lab Lab, web: &Published<'_>, other: Published<'lab>) -> Self {
        let udp = json!({ "hostPort": 53, "containerPort": 53, "protocol": "udp" });
        let conf = json!({
            "cniVersion": "1.0.0",
            "name": "br",
            "type": "portmap",
            "prevResult": web.result,
            "runtimeConfig": port_mappings(&json!([port(8080, 80), udp])),
        });
        Self { lab, conf, other }
    }

    fn host(&self) -> &'lab Host {
        self.lab.host(1)
    }

    fn call(&self, verb: &str) -> Finished {
        let call = self.host().call("portmap", verb).id("killed");
        call.netns("/run/netns/web").conf(&self.conf).run()
    }

    /// The verb, which gets SIGKILL at its call of `name` of that number.
    fn killed(&self, verb: &str, name: &str, number: usize) -> Finished {
        let mut command = self.host().namespace().command("strace");
        command
            .args([
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={name}"),
                "-e",
            ])
            .arg(format!("inject={name}:signal=SIGKILL:when={number}"))
            .arg("--")
            .arg(Programs::product("portmap"))
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", Programs::cni_path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_CONTAINERID", "killed")
            .env("CNI_NETNS", "/run/netns/web");
        Running::start(command, self.conf.to_string().as_bytes()).wait(LIMIT)
    }

    fn is_reached(&self, port: u16) -> bool {
        let far = self.lab.host(2).namespace();
        fetch_at(far, self.host().vtep(), port).starts_with(self.other.container.name())
    }
}

#[test]
fn at_each_call_of_add_and_del() {
    let lab = Lab::new(2, Backend::Dir);
    let host = lab.host(1);
    // The bridge's address of IPv6 would become usable, and a route, while this goes on.
    let mut net = network("bridge", "br", 1);
    net["plugins"][0]["ipam"]["ranges"] = json!([[{ "subnet": "10.1.0.0/24" }]]);
    host.install(&net);
    let other = Published::new(host, "other", "br", &json!([port(9090, 80)]));
    let _server = other.serves(80);
    let web = Published::new(host, "web", "br", &json!([]));
    let case = Case::new(&lab, &web, other);
    let before = host.footprint();
    let mut kills = 0;
    // A DEL repairs what a killed verb left, with a sync between the two and without.
    for (verb, synced) in [("ADD", true), ("ADD", false), ("DEL", true), ("DEL", false)] {
        for name in CALLS {
            for number in 1.. {
                let what = format!("{verb} killed at {name} number {number}, synced: {synced}");
                if verb == "DEL" {
                    case.call("ADD").ok();
                }
                let killed = case.killed(verb, name, number);
                if killed.status.success() {
                    case.call("DEL").ok();
                    break;
                }
                kills += 1;
                if synced {
                    // What sync makes of it is whole: all is there, or nothing.
                    host.sync();
                    let published = rules(host).contains("br/eth0/killed");
                    let listed = host.listed("port ls").to_string();
                    assert_eq!(published, listed.contains("killed"), "{what}: {listed}");
                }
                if verb == "ADD" && number % 2 == 0 {
                    let added = case.call("ADD");
                    assert!(added.status.success(), "{what}, then {added}");
                    case.call("CHECK").ok();
                }
                let del = case.call("DEL");
                assert!(del.status.success(), "{what}, then {del}");
                let now = host.footprint();
                now.assert_same_as(&before, &format!("{what}, then DEL"));
            }
        }
    }
    assert!(kills > 40, "only {kills}");
    assert!(case.is_reached(9090));
    case.other.again("check").ok();
}

/// With no other port on the host: what is made for the first one is made after its document.
#[test]
fn the_first_add_of_a_host_leaves_no_table() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&network("bridge", "br", 1));
    let web = Published::new(host, "web", "br", &json!([]));
    let other = Published::new(host, "other", "br", &json!([]));
    let case = Case::new(&lab, &web, other);
    for name in CALLS {
        for number in 1.. {
            let killed = case.killed("ADD", name, number);
            case.call("DEL").ok();
            assert_eq!(rules(host), "", "ADD killed at {name} number {number}");
            if killed.status.success() {
                break;
            }
        }
    }
}

/// The next verb repairs what a killed one left: also what others have published, which was flushed before it.
#[test]
fn an_add_killed_after_a_flush_gives_no_port_of_others_away() {
    let lab = Lab::new(2, Backend::Dir);
    let host = lab.host(1);
    host.install(&network("bridge", "br", 1));
    let other = Published::new(host, "other", "br", &json!([port(9090, 80)]));
    let _server = other.serves(80);
    let web = Published::new(host, "web", "br", &json!([]));
    let case = Case::new(&lab, &web, other);
    host.container("late");
    let mut lost = Vec::new();
    for number in 1.. {
        host.script("nft flush ruleset");
        let killed = case.killed("ADD", "sendto", number);
        if killed.status.success() {
            break;
        }
        if published::add(host, "late", &json!([port(9090, 80)]))
            .status
            .success()
        {
            lost.push(number);
        }
        host.cnitool("del", "br", "late", "eth0").ok();
        case.call("DEL").ok();
    }
    assert!(
        lost.is_empty(),
        "port 9090 was given away, killed at sendto {lost:?}"
    );
}

#[test]
fn many_at_once_beside_a_program_that_flushes_and_adds_rules() {
    let lab = Lab::new(2, Backend::Dir);
    let host = lab.host(1);
    host.install(&network("bridge", "br", 1));
    let mut stranger = host.namespace().command("sh");
    stranger.args([
        "-c",
        "for i in $(seq 200); do nft add table ip other; nft delete table ip other; done",
    ]);
    let stranger = Running::start(stranger, b"");
    let webs: Vec<_> = (0..20)
        .map(|number| Published::new(host, &format!("c{number}"), "br", &json!([])))
        .collect();
    let calls = |verb: &'static str| {
        let started: Vec<_> = (0..20)
            .zip(&webs)
            .map(|(number, web)| {
                let conf = json!({
                    "cniVersion": "1.0.0",
                    "name": "br",
                    "type": "portmap",
                    "prevResult": web.result,
                    // Two of them want the same.
                    "runtimeConfig": port_mappings(&json!([port(8000 + number % 19, 80)])),
                });
                let call = host.call("portmap", verb).id(&format!("c{number}"));
                call.netns("/run/netns/c1").conf(&conf).start()
            })
            .collect();
        let ended = started.into_iter().map(|call| call.wait(LIMIT));
        ended.filter(|ended| ended.status.success()).count()
    };
    assert_eq!(calls("ADD"), 19, "one port has one container");
    assert_eq!(host.listed("port ls").as_array().map(Vec::len), Some(38));
    assert_eq!(calls("DEL"), 20);
    assert!(stranger.wait(LIMIT).status.success());
    assert_eq!(rules(host), "");
}
