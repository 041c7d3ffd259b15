//! A container: a named network namespace of a host, with the few things a test does inside.
//!
//! The name outlives the namespace: a scenario may remove the namespace and still call DEL.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::call::Call;
use crate::host::Host;
use crate::lab::{at, tcp_get};
use crate::namespace::Net;
use crate::run::{Finished, run};
use crate::words::Words;

/// A container's network namespace on one host.
pub struct Container<'host> {
    host: &'host Host,
    name: String,
}

impl<'host> Container<'host> {
    #[track_caller]
    pub(crate) fn create(host: &'host Host, name: &str) -> Self {
        let container = Container::existing(host, name);
        host.namespace().run(&["ip", "netns", "add", name]).ok();
        // Off by default in Linux; a broadcast ping is how a scenario sees who shares the segment.
        container.sysctl("net/ipv4/icmp_echo_ignore_broadcasts", "0");
        container
    }

    pub(crate) fn existing(host: &'host Host, name: &str) -> Self {
        Container {
            host,
            name: name.to_owned(),
        }
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host it runs on.
    pub fn host(&self) -> &'host Host {
        self.host
    }

    /// The namespace's path on the host, as `CNI_NETNS` gives it.
    pub fn netns(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// The namespace itself.
    #[track_caller]
    pub fn net(&self) -> Net {
        let name = format!("{} on {}", self.name, self.host.name());
        Net::open(&self.host.namespace().path(self.netns()), &name)
    }

    /// Removes the namespace, as a runtime may before it says DEL.
    #[track_caller]
    pub fn remove(&self) {
        self.host
            .namespace()
            .run(&["ip", "netns", "delete", &self.name])
            .ok();
    }

    /// A command inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.host.namespace().command("nsenter");
        command
            .arg(format!("--net={}", self.netns()))
            .args(["--", program]);
        command
    }

    /// Runs `words` inside, to the end.
    #[track_caller]
    pub fn run(&self, words: &(impl Words + ?Sized)) -> Finished {
        let words = words.words();
        let mut command = self.command(words[0]);
        command.args(&words[1..]);
        run(command)
    }

    /// What `ip -json WORDS` says inside.
    #[track_caller]
    pub fn ip(&self, words: &(impl Words + ?Sized)) -> Value {
        let words = [&["ip", "-details", "-json"], &words.words()[..]].concat();
        self.run(&words).ok().json()
    }

    /// The link called `name`, as `ip -json` gives it, or null.
    #[track_caller]
    pub fn link(&self, name: &str) -> Value {
        named(&self.ip("link"), name)
    }

    /// A call of `overlay` for `eth0` of this container, with its name as the id.
    #[track_caller]
    pub fn call(&self, verb: &str, conf: &Value) -> Call<'host> {
        let call = self.host.call("overlay", verb).id(&self.name);
        call.netns(&self.netns()).conf(conf)
    }

    /// The first IPv4 address of the interface `name`, without its prefix length.
    #[track_caller]
    pub fn address(&self, name: &str) -> Option<IpAddr> {
        let links = named(&self.ip("-4 address"), name);
        let address = links["addr_info"][0]["local"].as_str()?;
        Some(address.parse().expect("an address from ip"))
    }

    /// One echo request of `extra` options; whether it was answered within two seconds.
    #[track_caller]
    pub fn pings(&self, address: IpAddr, extra: &[&str]) -> bool {
        self.ping(address, extra).status.success()
    }

    /// The same with all that ping said.
    #[track_caller]
    pub fn ping(&self, address: IpAddr, extra: &[&str]) -> Finished {
        let address = address.to_string();
        let words = [&["ping", "-n", "-c1", "-W2"], extra, &[&address]].concat();
        self.run(&words)
    }

    /// Everyone who answers a broadcast ping to `address` within two seconds, sorted.
    #[track_caller]
    pub fn answers_to_broadcast(&self, address: &str) -> Vec<IpAddr> {
        let words = ["ping", "-n", "-b", "-c2", "-i0.5", "-w2", address];
        let said = self.run(&words).stdout;
        let mut answers: Vec<IpAddr> = said
            .lines()
            .filter_map(|line| line.split("bytes from ").nth(1)?.split(':').next())
            .map(|address| address.parse().expect("an address from ping"))
            .collect();
        answers.sort();
        answers.dedup();
        answers
    }

    /// What a TCP server says that speaks first, such as the one at [`crate::OUTSIDE`].
    #[track_caller]
    pub fn tcp_get(&self, server: &str) -> std::io::Result<String> {
        let server: SocketAddr = at(server);
        tcp_get(&self.net(), server)
    }

    /// Sets a sysctl, given as a path below `/proc/sys`.
    #[track_caller]
    pub fn sysctl(&self, path: &str, value: &str) {
        let file = Path::new("/proc/sys").join(path);
        self.net()
            .run(|| std::fs::write(&file, value))
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

/// The entry of an `ip -json` listing whose `ifname` is `name`, or null.
fn named(listing: &Value, name: &str) -> Value {
    listing
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["ifname"] == name)
        .cloned()
        .unwrap_or_default()
}
