//! SIGKILL at the calls by which ADD and DEL change anything, of the kernel and of the store: DEL then cleans completely,
//! ADD works afterwards, and another attachment of the network never notices.
//!
//! strace kills as the call is entered, at the N-th of its name, for N from 1 until the verb completes: of the rare calls
//! each, of the frequent ones every fourth, each case beginning at another one. It counts for each thread by itself, so
//! that `overlay` and the `ipam-kv` that it runs are victims of their own. Where `killed_anywhere` throws dice, this is
//! the same in each run.
#![allow(clippy::expect_used, reason = "a test: it stops where it broke")]

mod reader;

use std::time::Duration;

use integration::{
    Attachment, Backend, Container, Finished, Footprint, Lab, Programs, Running, conflist, netconf,
};
use serde_json::Value;

const NETWORK: &str = "n0";
const SUBNET: &str = "10.0.0.0/24";
const ID: &str = "killed-0123456789";
const LIMIT: Duration = Duration::from_secs(30);

/// netlink; documents of the journal and records of the `dir` store; links and folders of both.
const FREQUENT: [&str; 5] = ["sendto", "write", "rename", "unlink", "mkdir"];
/// Namespaces, their mounts, threads in them, the start of the IPAM plugin. Some are made by threads, so that strace follows
/// `overlay` to these and to the IPAM plugin.
const RARE: [&str; 6] = ["unshare", "mount", "umount2", "setns", "clone3", "rmdir"];
const STEP: usize = 4;

#[test]
fn the_first_add_on_a_host() {
    sweep("ADD", 0, 1);
}

#[test]
fn an_add_beside_others() {
    sweep("ADD", 2, 2);
}

#[test]
fn a_del_beside_others() {
    sweep("DEL", 2, 3);
}

#[test]
fn the_last_del_on_a_host() {
    sweep("DEL", 0, 4);
}

/// Kills `verb` on a host with so many other attachments, at every rare call and at the frequent ones from `first` on.
fn sweep(verb: &'static str, others: usize, first: usize) {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&conflist(NETWORK, SUBNET));
    let names = ["other1", "other2"].into_iter().take(others);
    let others: Vec<_> = names
        .map(|name| Attachment::new(host, name, NETWORK))
        .collect();
    let container = host.container("t1");
    let conf = netconf(NETWORK, SUBNET, "1.0.0");
    let before = host.footprint();
    let case = Case {
        lab: &lab,
        others,
        container,
        conf,
        verb,
        before,
    };
    // The first ADD ever on this host also leaves what is meant to stay: the network, a block.
    case.call("ADD").ok();
    case.call("DEL").ok();

    let mut kills = 0;
    for victim in ["overlay", "ipam-kv"] {
        for name in FREQUENT {
            kills += case.each_kill(victim, name, (first..).step_by(STEP));
        }
    }
    for name in RARE {
        kills += case.each_kill("overlay", name, 1..);
    }
    assert!(kills >= 10, "only {kills} calls of {verb}");
}

struct Case<'lab> {
    lab: &'lab Lab,
    others: Vec<Attachment<'lab>>,
    container: Container<'lab>,
    conf: Value,
    verb: &'static str,
    before: Footprint,
}

impl Case<'_> {
    fn call(&self, verb: &str) -> Finished {
        let call = self.lab.host(1).call("overlay", verb).id(ID);
        call.netns(&self.container.netns()).conf(&self.conf).run()
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
        let space = self.lab.host(1).space();
        let follow = if victim == "ipam-kv" || RARE.contains(&name) {
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
        let (mut command, path) = if victim == "overlay" {
            let mut command = space.command("strace");
            command.args(traced).arg("--").arg(overlay);
            (command, Programs::cni_path())
        } else {
            let plugin = Programs::product(victim);
            let script = format!(
                "#!/bin/sh\nexec strace {} -- {}\n",
                traced.join(" "),
                plugin.display()
            );
            let folder = "/run/traced";
            space.write(&format!("{folder}/{victim}"), script);
            space.script(&format!("chmod +x {folder}/{victim}"));
            (space.command(overlay), folder.to_owned())
        };
        command
            .env("CNI_COMMAND", self.verb)
            .env("CNI_PATH", path)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_CONTAINERID", ID)
            .env("CNI_NETNS", self.container.netns());
        Running::start(command, self.conf.to_string().as_bytes()).wait(LIMIT)
    }

    /// Nothing of the victim's attachment is left, and all of the others' is there.
    fn assert_clean(&self, when: &str) {
        let now = self.lab.host(1).footprint();
        now.assert_same_as(&self.before, when);
        assert_eq!(self.container.link("eth0"), Value::Null, "{when}");
        let others = self.others.iter().map(|other| other.address.to_string());
        assert_eq!(
            reader::leased(self.lab, NETWORK),
            others.collect(),
            "{when}"
        );
        if let [one, other] = &self.others[..] {
            assert!(one.container.pings(other.address, &[]), "{when}");
        }
    }
}
