//! A conflist that names another store than the host's own settings, by which `crosshost sync` goes: what a host has of a
//! network is of the store of its conflist, and no other one is told of it. Here the stores are two places in one Consul,
//! so that both can be read.

use std::io::Read;
use std::sync::mpsc;
use std::time::Duration;

use integration::{Attachment, Backend, Direct, Lab, Running, Server, conflist, ipamconf};
use serde_json::{Value, json};

/// Nobody listens there.
const NOBODY: &str = "consul://192.168.1.5:1";

/// The network `net1`, in the host's own store.
fn own() -> Value {
    ipamconf("net1", json!({ "subnet": "10.1.0.0/24" }))
}

/// The same in another one.
fn other() -> Value {
    let mut conf = own();
    conf["store"] = json!({ "prefix": "other" });
    conf
}

/// What a store has of networks: its keys but those of nodes.
fn of_networks(lab: &Lab, prefix: &str) -> Vec<String> {
    let (status, keys) = lab
        .consul()
        .request("GET", &format!("/v1/kv/{prefix}/?keys"), "");
    if status == 404 {
        return Vec::new();
    }
    let mut keys: Vec<String> = serde_json::from_str(&keys).expect("keys");
    keys.retain(|key| !key.contains("/nodes/"));
    keys
}

fn leases(lab: &Lab, prefix: &str) -> usize {
    let keys = of_networks(lab, prefix).into_iter();
    keys.filter(|key| key.contains("/leases/")).count()
}

#[test]
fn a_sync_tells_each_store_what_is_of_it_and_no_other_one() {
    let lab = Lab::new(1, Backend::Consul);
    let host = lab.host(1);
    host.crosshost(&["sync"]).ok();
    let direct = Direct::on(host);
    direct.given("c1", &other());
    direct.given("c2", &other());
    let before = of_networks(&lab, "other");
    host.crosshost(&["sync"]).ok();
    assert_eq!(of_networks(&lab, "crosshost"), [""; 0]);
    assert_eq!(of_networks(&lab, "other"), before);

    // What the store of the conflist has not heard it hears from the sync.
    let mut away = other();
    away["store"]["url"] = json!(NOBODY);
    direct.call("DEL", "c1", &away).run().ok();
    assert_eq!(leases(&lab, "other"), 2);
    host.crosshost(&["sync"]).ok();
    assert_eq!(leases(&lab, "other"), 1);
    assert_eq!(of_networks(&lab, "crosshost"), [""; 0]);

    // With a secret that is written nowhere it cannot be asked, and then nobody is.
    let add = direct.call("ADD", "c3", &other());
    add.env("CONSUL_HTTP_TOKEN", "s3cret").run().ok();
    let said = host.crosshost(&["sync"]).failed().stderr;
    for word in ["network net1", "prefix other", "prefix crosshost"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    let noted = host
        .namespace()
        .run(&["cat", "/run/crosshost/ledger/net1.json"]);
    assert!(!noted.ok().stdout.contains("s3cret"));
    assert_eq!(of_networks(&lab, "crosshost"), [""; 0]);
    direct.given("c4", &other());
    host.crosshost(&["sync"]).ok();
    assert_eq!(leases(&lab, "other"), 3);
}

#[test]
fn an_add_by_another_store_is_refused_while_anything_is_held_and_begins_anew_then() {
    let lab = Lab::new(1, Backend::Consul);
    let host = lab.host(1);
    let direct = Direct::on(host);
    assert_eq!(direct.given("c1", &other()), ["10.1.0.2/24"]);
    direct.given("c2", &other());
    let both = ["net1", "prefix other", "prefix crosshost"];
    direct.add("c3", &own()).refused(103, &both);
    let status = direct.call("STATUS", "", &own()).netns("").ifname("");
    status.run().refused(50, &both);
    // A DEL succeeds with whatever settings, and is told where it is of use.
    direct.call("DEL", "c1", &own()).run().ok();
    assert_eq!(leases(&lab, "other"), 2);
    direct.add("c3", &own()).refused(103, &both);
    host.crosshost(&["sync"]).ok();
    direct.call("DEL", "c2", &other()).run().ok();
    assert_eq!(leases(&lab, "other"), 0);
    assert_eq!(of_networks(&lab, "crosshost"), [""; 0]);
    assert_eq!(direct.given("c3", &own()), ["10.1.0.2/24"]);
    direct.add("c4", &other()).refused(103, &both);
    assert_eq!(leases(&lab, "crosshost"), 1);

    // The same store by another way in is the same.
    let proxy = lab.consul().proxy();
    host.configure(&proxy.url());
    assert_eq!(direct.given("c4", &own()), ["10.1.0.3/24"]);
    host.crosshost(&["sync"]).ok();
    direct.call("DEL", "c3", &own()).run().ok();
    assert_eq!(leases(&lab, "crosshost"), 1);
    host.configure(&lab.store_url());
    direct.call("DEL", "c4", &own()).run().ok();
    assert_eq!(leases(&lab, "crosshost"), 0);
}

#[test]
fn a_sandbox_is_of_the_store_of_its_conflist() {
    let lab = Lab::new(2, Backend::Consul);
    let mut elsewhere = conflist("ov_net1", "10.0.0.0/24");
    elsewhere["plugins"][0]["store"] = json!({ "prefix": "other" });
    for host in lab.hosts() {
        host.install(&elsewhere);
    }
    let one = Attachment::new(lab.host(1), "t1", "ov_net1");
    let two = Attachment::new(lab.host(2), "t2", "ov_net1");
    lab.host(1).crosshost(&["sync"]).ok();
    one.container.ping(two.address, &[]).ok();
    assert_eq!(of_networks(&lab, "crosshost"), [""; 0]);

    let acks = || {
        let keys = of_networks(&lab, "other").into_iter();
        keys.filter(|key| key.contains("/acks/")).count()
    };
    assert_eq!(acks(), 2);
    // By the host's own store nothing is made or undone.
    lab.host(1).install(&conflist("ov_net1", "10.0.0.0/24"));
    let third = lab.host(1).container("t3");
    let said = lab.host(1).cnitool("add", "ov_net1", third.name(), "eth0");
    let said = said.failed();
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(text.contains("prefix other"), "{text}");
    one.container.ping(two.address, &[]).ok();
    assert_eq!(of_networks(&lab, "crosshost"), [""; 0]);
    // A DEL is, and its store hears of it.
    one.detach().ok();
    lab.host(1).crosshost(&["sync"]).ok();
    assert_eq!((acks(), leases(&lab, "other")), (1, 1));
    assert_eq!(of_networks(&lab, "crosshost"), [""; 0]);
}

/// Consul's own programs speak TLS where `CONSUL_HTTP_SSL` says so. Overlooked, the token would be on the wire.
#[test]
fn no_token_goes_in_clear_where_the_environment_asks_for_tls() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    host.configure_store(&json!({}));
    let (tell, heard) = mpsc::channel();
    let address = "127.0.0.1:8500".parse().expect("an address");
    let _server = Server::start(host.namespace().net(), address, move |mut caller| {
        let mut bytes = [0; 4096];
        let count = caller.read(&mut bytes).unwrap_or_default();
        let _ = tell.send(bytes[..count].to_vec());
    });
    let ask = |more: &[(&str, &str)]| {
        let mut command = host.namespace().command(host.program("crosshost"));
        command.args(["node", "ls"]);
        command.env("CONSUL_HTTP_ADDR", "127.0.0.1:8500");
        command.env("CONSUL_HTTP_TOKEN", "s3cret");
        command.envs(more.iter().copied());
        let said = Running::start(command, b"").wait(Duration::from_mins(1));
        said.failed().stderr
    };
    ask(&[]);
    let plain = heard.recv().expect("a request");
    let has_token = |bytes: &[u8]| bytes.windows(6).any(|it| it == b"s3cret");
    assert!(has_token(&plain), "nothing asks for TLS");
    while heard.try_recv().is_ok() {}

    ask(&[("CONSUL_HTTP_SSL", "true")]);
    let first = heard.recv().expect("a connection");
    // A record of a TLS handshake (RFC 8446, section 5.1).
    assert_eq!(first.first(), Some(&22), "{first:?}");
    for bytes in heard.try_iter().chain([first]) {
        assert!(!has_token(&bytes));
    }
    let refused = ask(&[("CONSUL_HTTP_SSL", "true"), ("CONSUL_HTTP_AUTH", "a:b")]);
    assert!(refused.contains("CONSUL_HTTP_AUTH"), "{refused}");
    assert!(heard.try_recv().is_err(), "nobody was asked");
}
