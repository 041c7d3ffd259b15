//! An ADD of an attachment that this host has made already: refused while it stands and its runtime knows of it, and begun
//! anew where the container's namespace is another, or where the runtime was killed before it learnt of the first one.

use std::{os::unix::fs::MetadataExt as _, time::Duration};

use crate::store_reader;
use integration::{
    Attachment, Backend, Container, Finished, Host, Lab, Programs, Running, address_of, conflist,
    netconf, until,
};
use serde_json::json;

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";
const LIMIT: Duration = Duration::from_mins(1);

fn call(container: &Container<'_>, verb: &str) -> Finished {
    let conf = netconf(NETWORK, SUBNET, "1.0.0");
    container.call(verb, &conf).id("c1").run()
}

/// The port of the only attachment but `near`'s, if the sandbox still has it.
fn ports(host: &Host) -> usize {
    host.in_sandbox(NETWORK, "ip -o link")
        .matches(": chp")
        .count()
}

/// The links of a removed namespace go a while after it.
fn wait_for_ports(host: &Host, wanted: usize) {
    until(LIMIT, &format!("{wanted} ports"), || ports(host) == wanted);
}

fn is_inside(process: &Running, container: &Container<'_>) -> bool {
    let own = format!("/proc/{}/ns/net", process.pid());
    let inode = |path: &std::path::Path| std::fs::metadata(path).map(|it| it.ino()).ok();
    inode(own.as_ref()) == inode(&container.host().namespace().path(container.netns()))
}

#[test]
fn a_namespace_that_was_made_anew_without_a_del_is_attached_again() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&conflist(NETWORK, SUBNET));
    let near = Attachment::new(host, "near", NETWORK);
    let untouched = host.footprint();
    let attached = |container: &Container<'_>, what: &str| {
        let result = call(container, "ADD").ok().json();
        let address = address_of(&result, "eth0");
        assert!(near.container.pings(address, &[]), "{what}");
        assert_eq!(
            store_reader::leased(&lab, NETWORK).len(),
            2,
            "{what}: one lease each"
        );
        assert_eq!(ports(host), 2, "{what}: one port each");
        call(container, "ADD").refused(100, &["c1", "DEL it first"]);
        assert!(near.container.pings(address, &[]), "{what}, still");
    };
    let first = host.container("t1");
    attached(&first, "at first");

    first.remove();
    attached(
        &host.container("t1"),
        "while the old one is being cleared away",
    );

    host.existing("t1").remove();
    wait_for_ports(host, 1);
    // By now the kernel may give the new one the number of the old one.
    attached(&host.container("t1"), "when the old one is gone");

    let old = host.existing("t1");
    let mut sleeper = old.command("sleep");
    sleeper.arg("600");
    let holder = Running::start(sleeper, b"");
    while !is_inside(&holder, &old) {
        assert!(holder.is_alive(), "sleep ended");
    }
    old.remove();
    let last = host.container("t1");
    attached(&last, "while a process keeps the old one");
    holder.kill();

    call(&last, "DEL").ok();
    last.remove();
    host.assert_same_as(&untouched, "after DEL");
}

#[test]
fn an_interface_that_somebody_removed_is_made_again() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let container = host.container("t1");
    call(&container, "ADD").ok();
    container.run("ip link del eth0").ok();
    let result = call(&container, "ADD").ok().json();
    assert_eq!(container.address("eth0"), Some(address_of(&result, "eth0")));
    assert_eq!(store_reader::leased(&lab, NETWORK).len(), 1);
    call(&container, "DEL").ok();
}

/// `cnitool VERB` with a plugin behind `overlay` that the test writes.
fn cnitool(host: &Host, verb: &str) -> Running {
    let mut command = host.namespace().command(Programs::cnitool());
    command
        .args([verb, NETWORK, "/run/netns/t1"])
        .env("NETCONFPATH", "/etc/cni/net.d")
        .env("CNI_PATH", format!("/run/behind:{}", Programs::cni_path()))
        .env("CNI_IFNAME", "eth0");
    Running::start(command, b"")
}

fn behind(host: &Host, script: &str) {
    host.write_program("/run/behind/behind", script);
}

#[test]
fn a_runtime_killed_in_the_middle_of_its_chain_may_ask_again_and_no_other_may() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let mut conf = conflist(NETWORK, SUBNET);
    // The reference plugins of Debian know no 1.1.0.
    conf.as_object_mut()
        .expect("an object")
        .remove("cniVersions");
    let plugins = conf["plugins"].as_array_mut().expect("plugins");
    plugins.push(json!({ "type": "behind" }));
    host.install(&conf);
    let container = host.container("t1");
    let untouched = host.footprint();
    let leases = || store_reader::leased(&lab, NETWORK);

    behind(
        host,
        "#!/bin/sh\necho $$ > /run/behind/reached\nexec sleep 600\n",
    );
    let runtime = cnitool(host, "add");
    let reached = host.namespace().path("/run/behind/reached");
    until(LIMIT, "at the plugin behind", || {
        assert!(runtime.is_alive(), "cnitool ended");
        std::fs::read_to_string(&reached).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let before = leases();
    assert_eq!(before.len(), 1);
    // Another one is refused while the first lives.
    behind(host, "#!/bin/sh\nexec /usr/lib/cni/tuning\n");
    let refused = || cnitool(host, "add").wait(LIMIT).failed().stderr;
    assert!(refused().contains("DEL it first"));
    assert_eq!(leases(), before);
    runtime.kill();
    runtime.wait(LIMIT);
    host.script("kill $(cat /run/behind/reached)");

    let result = cnitool(host, "add").wait(LIMIT).ok().json();
    assert_eq!(container.address("eth0"), Some(address_of(&result, "eth0")));
    assert_eq!(leases().len(), 1);
    // cnitool has ended, but libcni has the result.
    assert!(refused().contains("DEL it first"));
    cnitool(host, "check").wait(LIMIT).ok();
    cnitool(host, "del").wait(LIMIT).ok();
    host.assert_same_as(&untouched, "after DEL");
}

/// The plugin is at work on, with the runtime's end of its pipe held by others, and answers after its caller has ended.
#[test]
fn a_runtime_killed_before_it_was_answered_may_ask_again() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&conflist(NETWORK, SUBNET));
    let container = host.container("t1");
    let namespace = host.namespace();
    namespace.script("mkfifo /run/conf");
    let plugin = Programs::product("overlay").display().to_string();
    let mut runtime = namespace.command("sh");
    // One that waits for its child: a shell would hand its own process over to a last command.
    let script = format!("{plugin} < /run/conf > /run/answer & echo $! > /run/plugin; wait; true");
    runtime
        .args(["-c", &script])
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_NETNS", container.netns())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", Programs::cni_path());
    let runtime = Running::start(runtime, b"");
    let mut input = std::fs::OpenOptions::new()
        .write(true)
        .open(namespace.path("/run/conf"))
        .expect("the plugin's standard input");
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let pid = namespace.path("/run/plugin").display().to_string();
    let is_waiting = || {
        let stat = read(&format!("/proc/{}/stat", read(&pid).trim()));
        stat.contains("(overlay) S")
    };
    until(LIMIT, "waiting for its configuration", || {
        assert!(runtime.is_alive(), "the runtime ended");
        is_waiting()
    });
    let plugin = read(&pid);
    runtime.kill();
    runtime.wait(LIMIT);
    let conf = netconf(NETWORK, SUBNET, "1.0.0").to_string();
    std::io::Write::write_all(&mut input, conf.as_bytes()).expect("written");
    drop(input);
    until(LIMIT, "ended", || !is_there(plugin.trim()));
    let answer = std::fs::read(namespace.path("/run/answer")).expect("an answer");
    let told: serde_json::Value = serde_json::from_slice(&answer).expect("a result");
    assert_eq!(container.address("eth0"), Some(address_of(&told, "eth0")));

    // libcni was killed as it began to keep the result.
    let kept = format!("/var/lib/cni/results/{NETWORK}-c1-eth0");
    namespace.script(&format!("mkdir -p /var/lib/cni/results; : > {kept}"));
    let result = call(&container, "ADD").ok().json();
    assert_eq!(container.address("eth0"), Some(address_of(&result, "eth0")));
    assert_eq!(store_reader::leased(&lab, NETWORK).len(), 1);
    call(&container, "DEL").ok();
    namespace.script(&format!("rm {kept}"));
}

/// Whether a process lives; one that has ended may be unreaped.
fn is_there(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
