//! SIGKILL at the calls by which ADD and DEL change anything, of the kernel and of the store: DEL then cleans completely,
//! ADD works afterwards, and another attachment of the network never notices.
//!
//! strace kills as the call is entered, at the N-th of its name, for N from 1 until the verb completes. It counts for each
//! thread by itself. The victims are the process that is both plugins, and, where they are two, each of them. Where
//! `killed_anywhere` throws dice, this is the same in each run. Why a real kernel and no recording one: `docs/decisions/0009-killed-for-real.md`.

use std::time::Duration;

use crate::store_reader;
use integration::{
    Attachment, Backend, Container, Finished, Footprint, Lab, Programs, Running, conflist, netconf,
};
use serde_json::Value;
use tempfile::TempDir;

const NETWORK: &str = "n0";
const SUBNET: &str = "10.0.0.0/24";
const ID: &str = "killed-0123456789";
const LIMIT: Duration = Duration::from_secs(30);

/// netlink; documents of the journal and records of the `dir` store; links and folders of both.
const CALLS: [&str; 5] = ["sendto", "write", "rename", "unlink", "mkdir"];
/// Namespaces, their mounts, threads in them, the start of the IPAM plugin. Some are made by threads, so that strace follows
/// `overlay` to these and to the IPAM plugin.
const THREADED: [&str; 6] = ["unshare", "mount", "umount2", "setns", "clone3", "rmdir"];
/// A request to Consul: head and body by one call.
const REQUEST: &str = "writev";

/// Each victim of a verb: either plugin in a process of its own, and the process that is both.
const VICTIMS: [&str; 3] = ["overlay", "ipam-kv", BOTH];
const BOTH: &str = "both";

#[test]
fn the_first_add_on_a_host() {
    sweep("ADD", 0);
}

#[test]
fn an_add_beside_others() {
    sweep("ADD", 2);
}

#[test]
fn a_del_beside_others() {
    sweep("DEL", 2);
}

#[test]
fn the_last_del_on_a_host() {
    sweep("DEL", 0);
}

#[test]
fn each_request_of_an_add_to_consul() {
    each_request("ADD", false);
}

#[test]
fn each_request_of_an_add_that_creates_its_network_on_consul() {
    each_request("ADD", true);
}

#[test]
fn each_request_of_a_del_to_consul() {
    each_request("DEL", false);
}

/// Kills `verb` on a host with so many other attachments, at every call.
fn sweep(verb: &'static str, others: usize) {
    let lab = Lab::new(1, Backend::Dir);
    let case = Case::new(&lab, verb, others);
    let mut kills = 0;
    for victim in VICTIMS {
        for name in CALLS {
            kills += case.each_kill(victim, name, 1..);
        }
    }
    for name in THREADED {
        kills += case.each_kill("overlay", name, 1..);
    }
    assert!(kills >= 10, "only {kills} calls of {verb}");
}

/// Kills `verb` at every request that it makes to Consul; with `anew` on a network of its own each time, which it creates.
fn each_request(verb: &'static str, anew: bool) {
    let lab = Lab::new(1, Backend::Consul);
    let mut case = Case::new(&lab, verb, 0);
    let mut kills = 0;
    for (which, victim) in VICTIMS.iter().enumerate() {
        for number in 1.. {
            if anew {
                case.network = format!("{victim}{number}");
                case.subnet = format!("10.{number}.{which}.0/24");
            }
            let killed = case.each_kill(victim, REQUEST, number..=number);
            if killed == 0 {
                break;
            }
            kills += killed;
        }
    }
    let least = if anew { 8 } else { 1 };
    assert!(kills >= least, "only {kills} requests of {verb}");
}

struct Case<'lab> {
    lab: &'lab Lab,
    /// Where `ipam-kv` is a process of its own.
    apart: TempDir,
    others: Vec<Attachment<'lab>>,
    container: Container<'lab>,
    network: String,
    subnet: String,
    verb: &'static str,
    before: Footprint,
}

impl<'lab> Case<'lab> {
    /// On a host that has been on the network, beside so many other attachments.
    fn new(lab: &'lab Lab, verb: &'static str, others: usize) -> Self {
        let host = lab.host(1);
        host.install(&conflist(NETWORK, SUBNET));
        let names = ["other1", "other2"].into_iter().take(others);
        let others: Vec<_> = names
            .map(|name| Attachment::new(host, name, NETWORK))
            .collect();
        let container = host.container("t1");
        let before = host.footprint();
        let case = Self {
            lab,
            apart: Programs::with_ipam_apart(),
            others,
            container,
            network: NETWORK.to_owned(),
            subnet: SUBNET.to_owned(),
            verb,
            before,
        };
        // The first ADD ever on this host also leaves what is meant to stay: the network, a block.
        case.call("ADD").ok();
        case.call("DEL").ok();
        case
    }

    fn conf(&self) -> Value {
        netconf(&self.network, &self.subnet, "1.0.0")
    }

    fn call(&self, verb: &str) -> Finished {
        self.container.call(verb, &self.conf()).id(ID).run()
    }

    /// Kills `victim` at these calls of `name`, until it makes no more; how often it died.
    fn each_kill(&self, victim: &str, name: &str, calls: impl Iterator<Item = usize>) -> usize {
        let mut kills = 0;
        for number in calls {
            let what = format!("{victim} killed in {} at {name} number {number}", self.verb);
            if self.verb == "DEL" {
                let add = self.call("ADD");
                assert!(add.status.success(), "before {what}: {add}");
            }
            let killed = self.killed(victim, name, number);
            let del = self.call("DEL");
            assert!(del.status.success(), "{what}, {killed}, then {del}");
            self.assert_clean(&format!("{what}, {killed}, then DEL"));
            if killed.status.success() {
                return kills;
            }
            kills += 1;
            if self.verb == "ADD" {
                let add = self.call("ADD");
                assert!(add.status.success(), "{what}, DEL, then {add}");
                self.call("DEL").ok();
                self.assert_clean(&format!("{what}, DEL, ADD, DEL"));
            }
        }
        kills
    }

    /// The verb, whose `victim` gets SIGKILL at its call of `name` of that number.
    fn killed(&self, victim: &str, name: &str, number: usize) -> Finished {
        let namespace = self.lab.host(1).namespace();
        let follow = if victim != "overlay" || THREADED.contains(&name) {
            "-f"
        } else {
            // One of them must be said.
            "-q"
        };
        let (trace, inject) = (
            format!("trace={name}"),
            format!("inject={name}:signal=SIGKILL:when={number}"),
        );
        let traced = [
            "-qq",
            follow,
            "-o",
            "/dev/null",
            "-e",
            &trace,
            "-e",
            &inject,
        ];
        let overlay = Programs::product("overlay");
        let (mut command, path) = if victim == "ipam-kv" {
            let plugin = Programs::product(victim);
            let script = format!(
                "#!/bin/sh\nexec strace {} -- {}\n",
                traced.join(" "),
                plugin.display()
            );
            let folder = "/run/traced";
            self.lab
                .host(1)
                .write_program(&format!("{folder}/{victim}"), script);
            (namespace.command(overlay), folder.to_owned())
        } else {
            let mut command = namespace.command("strace");
            command.args(traced).arg("--").arg(overlay);
            let apart = || Programs::cni_path_of(self.apart.path());
            let path = if victim == BOTH {
                Programs::cni_path()
            } else {
                apart()
            };
            (command, path)
        };
        command
            .env("CNI_COMMAND", self.verb)
            .env("CNI_PATH", path)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_CONTAINERID", ID)
            .env("CNI_NETNS", self.container.netns());
        Running::start(command, self.conf().to_string().as_bytes()).wait(LIMIT)
    }

    /// Nothing of the victim's attachment is left, and all of the others' is there.
    fn assert_clean(&self, when: &str) {
        let now = self.lab.host(1).footprint();
        now.assert_same_as(&self.before, when);
        assert_eq!(self.container.link("eth0"), Value::Null, "{when}");
        let others = self.others.iter().map(|other| other.address.to_string());
        assert_eq!(
            store_reader::leased(self.lab, &self.network),
            others.collect(),
            "{when}"
        );
        if let [one, other] = &self.others[..] {
            assert!(one.container.pings(other.address, &[]), "{when}");
        }
    }
}
