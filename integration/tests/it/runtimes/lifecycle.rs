//! What the scenarios with nerdctl and podman share: their network, a container on it, and that nothing is left.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use integration::{Footprint, Host, Lab, Runtime, comes_within, workspace};
use serde_json::{Value, json};

/// A shipped configuration.
#[track_caller]
pub fn shipped(file: &str) -> Value {
    let shipped = std::fs::read_to_string(workspace().join("cni-conf").join(file));
    shipped.expect("a file").parse().expect("JSON")
}

/// The shipped network of both versions of IP with published ports; `number` tells its subnets from others'.
#[track_caller]
pub fn conflist(name: &str, number: u8) -> Value {
    let mut conflist = shipped("nerdctl.conflist");
    conflist["name"] = name.into();
    if number > 0 {
        conflist["plugins"][0]["ipam"]["ranges"] = json!([
            [{ "subnet": format!("10.0.{number}.0/24") }],
            [{ "subnet": format!("fd00:{number}::/64") }],
        ]);
    }
    conflist
}

/// A runtime on each host, the hosts known to each other, the networks `ov_net1` and `ov_net2`; and what there is then.
#[track_caller]
pub fn prepared<'lab, R: Runtime<'lab>>(lab: &'lab Lab) -> (Vec<R>, Vec<Footprint>) {
    let runtimes: Vec<_> = lab.hosts().iter().map(R::start).collect();
    for runtime in &runtimes {
        runtime.processes().crosshost("sync").ok();
        runtime.host().install(&conflist("ov_net1", 0));
        runtime.host().install(&conflist("ov_net2", 1));
    }
    (runtimes, lab.footprints())
}

/// `run -d --name NAME WORDS busybox`.
#[track_caller]
pub fn run<'lab, R: Runtime<'lab>>(runtime: &R, name: &str, words: &[&str]) {
    let line = [&["run", "-d", "--name", name], words, &[R::IMAGE]].concat();
    runtime.client(&line).ok();
}

/// `ip WORDS` in a container's network namespace. Not by `exec`: nerdctl's now and then ends before all that was said is through.
#[track_caller]
pub fn ip_in<'lab>(runtime: &impl Runtime<'lab>, name: &str, words: &[&str]) -> String {
    said_in(runtime, name, &[&["ip"], words].concat())
}

/// What a program of this machine prints in a container's network namespace.
#[track_caller]
pub fn said_in<'lab>(runtime: &impl Runtime<'lab>, name: &str, words: &[&str]) -> String {
    let known = runtime.client(&["inspect", name]).ok().json();
    let pid = known[0]["State"]["Pid"].to_string();
    let inside = ["nsenter", "-t", &pid, "-n"];
    let said = runtime.processes().run(&[&inside, words].concat());
    said.ok().stdout
}

/// The first IPv4 address of a container's interface.
#[track_caller]
pub fn address_on<'lab>(runtime: &impl Runtime<'lab>, name: &str, ifname: &str) -> String {
    let said = ip_in(runtime, name, &["-4", "address", "show", "dev", ifname]);
    let address = said
        .split_whitespace()
        .skip_while(|word| *word != "inet")
        .nth(1);
    let address = address.unwrap_or_else(|| panic!("no address of {ifname} in {said}"));
    address.split('/').next().unwrap_or_default().to_owned()
}

/// Insists that a container reaches an address.
#[track_caller]
pub fn assert_reached<'lab>(from: &impl Runtime<'lab>, name: &str, address: &str) {
    let ping = ["exec", name, "ping", "-c", "1", "-W", "2", address];
    from.client(&ping).ok();
}

/// What a web server answers to a host. It may still be starting: a container runs before its command listens.
pub fn page_at(host: &Host, address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().expect("an address and a port");
    let patience = Duration::from_secs(3);
    let net = host.namespace().net();
    let mut page = None;
    comes_within(patience, || {
        let answer = net.run(|| -> std::io::Result<String> {
            let mut connection = TcpStream::connect_timeout(&address, patience)?;
            connection.set_read_timeout(Some(patience))?;
            connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer)?;
            Ok(answer)
        });
        let answer = answer.unwrap_or_default();
        page = answer
            .split_once("\r\n\r\n")
            .map(|(_, page)| page.to_owned());
        page.is_some()
    });
    page
}

/// Insists that each host is as it was and that the store has no lease.
#[track_caller]
pub fn assert_nothing_left<'lab>(lab: &Lab, runtimes: &[impl Runtime<'lab>], before: &[Footprint]) {
    lab.assert_same_as(before, "after the last container");
    for runtime in runtimes {
        let all = runtime.client("ps -aq").ok().stdout;
        assert_eq!(all, "", "containers of {}", runtime.host().name());
    }
    assert_no_lease(lab);
}

/// What a host's containers have of addresses, as the host itself knows it.
#[track_caller]
pub fn held_by(host: &Host) -> Vec<Value> {
    let held = host.listed("endpoint ls --local");
    held.as_array().expect("a list").clone()
}

/// Insists that the store has no lease.
#[track_caller]
pub fn assert_no_lease(lab: &Lab) {
    let endpoints = lab.host(1).listed("endpoint ls");
    assert_eq!(endpoints.as_array().map(Vec::len), Some(0), "{endpoints:#}");
}
