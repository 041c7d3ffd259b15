//! A plugin whose caller was killed before it began: the runtime's DEL may have come and gone by then, so the
//! orphan's ADD must make nothing.

use std::process::{Command, Stdio};

use crate::store_reader::assert_no_lease;
use integration::{Backend, Container, Host, Lab, netconf};

#[test]
fn overlay_makes_nothing_when_its_caller_is_gone() {
    nothing_is_made("overlay");
}

#[test]
fn ipam_kv_makes_nothing_when_its_caller_is_gone() {
    nothing_is_made("ipam-kv");
}

fn nothing_is_made(plugin: &str) {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    host.create_network("ov_net1", "10.0.0.0/24");
    let container = host.container("t1");
    let mut orphan = orphan(host, plugin, &container);
    let untouched = lab.footprints();

    let status = orphan.status().expect("sh");
    assert!(!status.success(), "an orphan's ADD fails");
    lab.assert_same_as(&untouched, "after an orphan's ADD");
    assert_eq!(container.address("eth0"), None);
    assert_no_lease(&lab, "after an orphan's ADD");
}

/// An ADD that begins when the reader of its standard output is gone; the shell ends with the plugin's exit code.
fn orphan(host: &Host, plugin: &str, container: &Container<'_>) -> Command {
    let conf = netconf("ov_net1", "10.0.0.0/24", "1.0.0");
    host.write("/run/conf.json", conf.to_string());
    let bin = integration::Programs::product(plugin);
    let script = "{ sleep 0.2; \"$0\" </run/conf.json; } | true";
    let mut command = host.namespace().command("bash");
    command.args(["-o", "pipefail", "-c", script]).arg(bin);
    command.stdout(Stdio::null());
    command.envs([
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "orphan-0123456789"),
        ("CNI_NETNS", &container.netns()),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", &integration::Programs::cni_path()),
    ]);
    command
}
