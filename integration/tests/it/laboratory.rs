//! The laboratory itself, proven with other people's plugins: Debian's bridge and host-local through
//! the real cnitool, and a real Consul. If these fail, no other scenario's verdict counts.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::store_reader;
use integration::{
    Backend, Container, Host, LIMIT, Lab, OUTSIDE, Running, Server, inhabited, until,
};
use serde_json::{Value, json};

fn bridge_conflist(subnet: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "reference",
        "plugins": [{
            "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": subnet }]] },
        }],
    })
}

fn attach<'a>(host: &'a Host, name: &str) -> (Container<'a>, IpAddr) {
    let container = host.container(name);
    let result = host.cnitool("add", "reference", name, "eth0").ok().json();
    let address = result["ips"][0]["address"].as_str().unwrap();
    let address = address.split('/').next().unwrap().parse().unwrap();
    (container, address)
}

#[test]
fn reference_plugins_work_on_a_host_and_leave_it_as_it_was() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.install(&bridge_conflist("10.9.0.0/24"));
    // What the first ADD makes and no DEL of these plugins removes: the bridge and nat chains.
    attach(host, "first");
    host.cnitool("del", "reference", "first", "eth0").ok();
    host.run("ip netns delete first").ok();
    let before = host.footprint();

    let (t1, _) = attach(host, "t1");
    let (_t2, second) = attach(host, "t2");
    assert!(t1.pings(second, &[]), "two containers on one bridge");
    assert!(t1.pings("192.168.1.1".parse().unwrap(), &[]), "the router");
    assert_eq!(t1.tcp_get(OUTSIDE).unwrap(), host.vtep(), "masqueraded");
    assert_eq!(t1.answers_to_broadcast("10.9.0.255"), [second]);
    assert_eq!(t1.link("eth0")["mtu"], 1500);
    let differs = host.footprint().since(&before);
    assert!(
        differs.iter().any(|line| line.contains("/run/netns/t1")),
        "{differs:?}"
    );

    for name in ["t1", "t2"] {
        host.cnitool("del", "reference", name, "eth0").ok();
        host.run(&["ip", "netns", "delete", name]).ok();
    }
    host.assert_same_as(&before, "after the last DEL");
}

#[test]
fn hosts_are_machines_of_their_own() {
    let lab = Lab::new(2, Backend::Dir);
    let (one, two) = (lab.host(1), lab.host(2));
    let boot_id = |host: &Host| {
        let said = host.run("cat /proc/sys/kernel/random/boot_id");
        said.ok().stdout.trim().to_owned()
    };
    assert_eq!(boot_id(one), one.boot_id());
    assert_ne!(boot_id(one), boot_id(two));

    for folder in ["/run", "/etc/crosshost", "/etc/cni/net.d", "/var/lib/cni"] {
        one.write(&format!("{folder}/mark"), "docker01");
        assert!(
            !two.namespace().path(format!("{folder}/mark")).exists(),
            "{folder}"
        );
        assert!(!Path::new(folder).join("mark").exists(), "{folder}");
    }
    one.write("/dev/shm/store/mark", "for all");
    assert!(
        two.namespace().path("/dev/shm/store/mark").exists(),
        "the shared store"
    );
    assert_eq!(lab.stored_files().len(), 1);

    let (t1, _t2) = (one.container("same"), two.container("same"));
    assert!(t1.link("lo")["ifname"] == "lo");
    let said = one.run(&["ping", "-c1", "-W2", two.vtep()]);
    said.ok();
    let outside = one.namespace().net();
    let heard = outside.run(|| {
        let connection = std::net::TcpStream::connect(OUTSIDE).unwrap();
        std::io::read_to_string(connection).unwrap()
    });
    assert_eq!(heard, one.vtep());
}

#[test]
fn consul_answers_and_the_proxy_counts() {
    let lab = Lab::new(1, Backend::Consul);
    consul_works(&lab);
}

#[test]
fn the_oldest_consul_answers_too() {
    let lab = Lab::new(1, Backend::OldestConsul);
    consul_works(&lab);
}

fn consul_works(lab: &Lab) {
    let consul = lab.consul();
    let proxy = consul.proxy();
    let put = consul.request("PUT", "/v1/kv/a?cas=0", "blue");
    assert_eq!(put.0, 200);

    let asked = ask(lab.host(1), "192.168.1.5:18500", "GET /v1/kv/a?raw", "");
    assert!(asked.ends_with("\r\n\r\nblue"), "{asked}");
    let read = json!([{ "KV": { "Verb": "get-tree", "Key": "a" } }]).to_string();
    ask(lab.host(1), "192.168.1.5:18500", "PUT /v1/txn", &read);
    let write = json!([{ "KV": { "Verb": "set", "Key": "b", "Value": "" } }]).to_string();
    ask(lab.host(1), "192.168.1.5:18500", "PUT /v1/txn", &write);

    let seen = proxy.take();
    let reads: Vec<_> = seen.iter().map(integration::Request::is_read).collect();
    assert_eq!(reads, [true, true, false], "{seen:?}");
    assert!(!seen[2].is_conditional(), "a blind write is seen as one");
    assert_eq!(seen[0].from.to_string(), "192.168.1.11");
    assert!(proxy.take().is_empty());
}

#[test]
fn a_guarded_consul_gives_rights_by_token() {
    let lab = Lab::new(1, Backend::GuardedConsul);
    let consul = lab.consul();
    let token = consul.token("reader", r#"key_prefix "" { policy = "read" }"#);
    let put = format!("PUT /v1/kv/a HTTP/1.0\r\nX-Consul-Token: {token}\r\nX-A: b");
    let denied = ask(lab.host(1), "192.168.1.5:8500", &put, "x");
    assert!(denied.contains("403"), "{denied}");
}

#[test]
fn an_impostor_says_what_it_is_told() {
    let lab = Lab::new(1, Backend::Consul);
    let _impostor: Server = lab
        .consul()
        .impostor(18600, b"HTTP/1.1 200 OK\r\n\r\n<html>");
    let heard = ask(lab.host(1), "192.168.1.5:18600", "GET /", "");
    assert!(heard.ends_with("<html>"), "{heard}");
}

fn ask(host: &Host, server: &str, request: &str, body: &str) -> String {
    use std::io::{Read, Write};
    host.namespace().net().run(|| {
        let mut connection = std::net::TcpStream::connect(server).unwrap();
        let length = body.len();
        // In one piece: who answers after the first one may hang up before the next.
        let request = format!(
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = connection.read_to_string(&mut answer);
        answer
    })
}

const VICTIM: &str = "CROSSHOST_LAB_VICTIM";

/// Not a test of its own: the process that the next test kills.
#[test]
fn victim() {
    if std::env::var_os(VICTIM).is_some() {
        let lab = Lab::new(2, Backend::Consul);
        let said = lab.identities().join(" ");
        std::fs::write(std::env::var_os(VICTIM).unwrap(), said).unwrap();
        loop {
            std::thread::park();
        }
    }
}

#[test]
fn a_killed_test_process_leaves_nothing() {
    let note = tempfile::NamedTempFile::new().unwrap();
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "laboratory::victim"])
        .env(VICTIM, note.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut identities = String::new();
    until(LIMIT, "a laboratory", || {
        assert!(test.try_wait().unwrap().is_none(), "the victim ended early");
        identities = std::fs::read_to_string(note.path()).unwrap();
        !identities.is_empty()
    });
    let namespaces: Vec<_> = identities.split(' ').map(str::to_owned).collect();
    assert!(
        namespaces
            .iter()
            .all(|namespace| inhabited().contains(namespace))
    );
    test.kill().unwrap();
    test.wait().unwrap();
    until(LIMIT, "gone", || {
        let inhabited = inhabited();
        !namespaces.iter().any(|one| inhabited.contains(one))
    });
}

#[test]
#[should_panic(expected = "still running after")]
fn a_command_that_hangs_fails_the_test() {
    let lab = Lab::new(1, Backend::Dir);
    let mut command = lab.host(1).namespace().command("sleep");
    command.arg("1000");
    Running::start(command, b"").wait(std::time::Duration::from_millis(100));
}

#[test]
fn consulrs_reads_what_consul_holds() {
    let lab = Lab::new(0, Backend::GuardedConsul);
    assert!(store_reader::records(&lab).is_empty());
    let key = "/v1/kv/crosshost/v1/leases/ov_net1/fd00::2";
    lab.consul().request("PUT", key, r#"{"node":"docker01"}"#);
    let records = store_reader::records(&lab);
    assert_eq!(records["leases/ov_net1/fd00::2"], r#"{"node":"docker01"}"#);
}
