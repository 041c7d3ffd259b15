//! No space where a host keeps its journal: ADD says which file it cannot write and leaves nothing of the container; what
//! it cannot undo without a place to note it is in the journal. DEL removes what it can and says the same, STATUS answers, and
//! with space again everything works.

use crate::store_reader;
use integration::{Backend, Call, Container, Finished, Host, Lab, netconf};
use serde_json::Value;

const NETWORK: &str = "n0";
const SUBNET: &str = "10.0.0.0/24";

/// What an error says that names the file.
const FULL: [&str; 2] = ["/run/crosshost", "No space left on device"];

/// A host whose `/run/crosshost` is a file system of 16 pages.
fn lab() -> Lab {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.create_network(NETWORK, SUBNET);
    host.script(
        "mkdir -p /run/crosshost
         mount -t tmpfs -o size=128k full /run/crosshost",
    );
    lab
}

/// Takes all space but so many pages.
fn fill(host: &Host, free: usize) {
    host.script(&format!(
        "cd /run/crosshost
         dd if=/dev/zero of=filler bs=4096 2>/dev/null || true
         size=$(stat -c %s filler)
         truncate -s $((size - {free} * 4096)) filler"
    ));
}

fn empty(host: &Host) {
    host.script("rm -f /run/crosshost/filler");
}

fn call<'lab>(container: &Container<'lab>, verb: &str) -> Call<'lab> {
    let version = if verb == "STATUS" { "1.1.0" } else { "1.0.0" };
    let call = container.call(verb, &netconf(NETWORK, SUBNET, version));
    call.id("full-0123456789")
}

/// DEL, which may need space for what others still hold; at the latest with space again it is done.
fn deleted(host: &Host, del: impl Fn() -> Finished) {
    let first = del();
    if !first.status.success() {
        first.refused(5, &FULL);
    }
    empty(host);
    del().ok();
}

/// With ever more space, until ADD finds enough: so that it fails at each of its documents in turn.
fn adds_on_a_full_disk(lab: &Lab, container: &Container<'_>) {
    let host = lab.host(1);
    let leased = store_reader::leased(lab, NETWORK);
    let before = host.footprint();
    for free in 0..32 {
        let what = format!("with {free} pages free");
        fill(host, free);
        let status = call(container, "STATUS").run();
        let is_ready = status.status.success();
        assert!(free > 0 || !is_ready, "{what}: {status}");
        if !is_ready {
            status.refused(50, &FULL);
        }
        let add = call(container, "ADD").run();
        if add.status.success() {
            assert!(is_ready, "{what}: STATUS said no, and ADD works");
            deleted(host, || call(container, "DEL").run());
            host.assert_same_as(&before, &what);
            assert_eq!(store_reader::leased(lab, NETWORK), leased, "{what}");
            return;
        }
        let said = add.to_string();
        add.refused(5, &FULL);
        let left = host.footprint().since(&before);
        // What could not be undone without a place to note it: no link of the container, and the journal knows.
        let link =
            |line: &String| line.starts_with("+ link") && !line.contains("\"ch-egress\" \"veth\"");
        let known = |line: &String| line.starts_with("+ file /run/crosshost/journal/overlay/");
        assert!(!left.iter().any(link), "{what}: {said}: {left:#?}");
        assert!(
            left.is_empty() || left.iter().any(known),
            "{what}: {said}: {left:#?}"
        );
        assert_eq!(container.link("eth0"), Value::Null, "{what}");
        deleted(host, || call(container, "DEL").run());
        host.assert_same_as(&before, &what);
        assert_eq!(store_reader::leased(lab, NETWORK), leased, "{what}");
    }
    panic!("never enough space");
}

#[test]
fn the_first_add_on_a_full_disk() {
    let lab = lab();
    let host = lab.host(1);
    let container = host.container("t1");
    adds_on_a_full_disk(&lab, &container);
    call(&container, "ADD").run().ok();
    call(&container, "DEL").run().ok();
}

#[test]
fn a_full_disk_beside_containers_that_run() {
    let lab = lab();
    let host = lab.host(1);
    let [one, other, container] = ["one", "other", "t1"].map(|name| host.container(name));
    let before = host.footprint();
    for (attached, id) in [(&one, "one"), (&other, "other")] {
        call(attached, "ADD").id(id).run().ok();
    }
    adds_on_a_full_disk(&lab, &container);
    let address = other.address("eth0").expect("an address");
    assert!(one.pings(address, &[]));

    // Full to the last byte, for an ordinary DEL and for the one that takes the sandbox away.
    for (attached, id, left) in [(&one, "one", 1), (&other, "other", 0)] {
        fill(host, 0);
        deleted(host, || call(attached, "DEL").id(id).run());
        assert_eq!(store_reader::leased(&lab, NETWORK).len(), left);
    }
    host.assert_same_as(&before, "after all DELs");
    call(&container, "ADD").run().ok();
    call(&container, "DEL").run().ok();
}
