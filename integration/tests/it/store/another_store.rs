//! A host has one store. A conflist that names another one is refused; what was made with another store, by an earlier version or
//! before the configuration changed, is given back to that store, and no other one is told of it. Here the stores are
//! prefixes in one Consul, so that all can be read.

use std::io::Read;
use std::sync::mpsc;
use std::time::Duration;

use integration::{Attachment, Backend, Direct, Host, Lab, Running, Server, conflist, ipamconf};
use serde_json::{Value, json};

/// No program listens there.
const NO_STORE: &str = "consul://192.168.1.5:1";

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

/// Settings without a store of the host's own, as on a host on which the conflists alone name it.
fn no_configuration(host: &Host) {
    host.configure_store(&json!({}));
}

/// The network `net1` in the other store, whose URL the host's configuration does not have.
fn whole(lab: &Lab) -> Value {
    let mut conf = other();
    conf["store"]["url"] = json!(lab.store_url());
    conf
}

#[test]
fn a_conflist_that_names_another_store_than_the_configuration_is_refused() {
    let lab = Lab::new(1, Backend::Consul);
    let host = lab.host(1);
    let direct = Direct::on(host);
    let both = ["prefix other", "prefix crosshost", "one store"];
    direct.add("c1", &other()).refused(7, &both);
    let mut elsewhere = own();
    elsewhere["store"] = json!({ "url": NO_STORE });
    let urls = [NO_STORE, &lab.store_url(), "one store"];
    direct.add("c1", &elsewhere).refused(7, &urls);
    let status = direct.call("STATUS", "", &other()).netns("").ifname("");
    status.run().refused(50, &both);
    // The same store in other words is none of it.
    let mut same = own();
    same["store"] = json!({ "url": lab.store_url(), "prefix": "crosshost" });
    assert_eq!(direct.given("c1", &same), ["10.1.0.2/24"]);
    direct.call("DEL", "c1", &own()).run().ok();

    let mut conf = conflist("ov_net1", "10.0.0.0/24");
    conf["plugins"][0]["store"] = json!({ "prefix": "other" });
    host.install(&conf);
    let container = host.container("t9");
    let said = host
        .cnitool("add", "ov_net1", container.name(), "eth0")
        .failed();
    let text = format!("{}{}", said.stdout, said.stderr);
    for word in both {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert_eq!(of_networks(&lab, "other"), [""; 0]);
    let said = host.crosshost("doctor").failed();
    assert!(said.stdout.contains("prefix other"), "{}", said.stdout);
}

#[test]
fn without_a_configuration_the_first_store_in_use_is_the_host_s() {
    let lab = Lab::new(1, Backend::Consul);
    let host = lab.host(1);
    no_configuration(host);
    let direct = Direct::on(host);
    let second = |mut conf: Value| {
        conf["name"] = json!("net2");
        conf["ipam"]["subnet"] = json!("10.2.0.0/24");
        conf
    };
    assert_eq!(direct.given("c1", &whole(&lab)), ["10.1.0.2/24"]);
    assert_eq!(direct.given("c2", &second(whole(&lab))), ["10.2.0.2/24"]);
    // Also a command goes by it, and tells it what it has not heard.
    let mut away = whole(&lab);
    away["store"]["url"] = json!(NO_STORE);
    direct.call("DEL", "c1", &away).run().ok();
    assert_eq!(leases(&lab, "other"), 2);
    host.sync();
    assert_eq!(leases(&lab, "other"), 1);
    let listed = host.crosshost("network ls").ok().stdout;
    assert!(
        listed.contains("net1") && listed.contains("net2"),
        "{listed}"
    );

    // Another one is refused while the first is in use, whatever the network.
    let mut another = own();
    another["store"] = json!({ "url": lab.store_url(), "prefix": "third" });
    let both = ["net2", "prefix other", "prefix third", "one store"];
    direct
        .add("c3", &second(another.clone()))
        .refused(103, &both);
    another["name"] = json!("net3");
    another["ipam"]["subnet"] = json!("10.3.0.0/24");
    direct.add("c3", &another).refused(103, &both);
    let status = direct.call("STATUS", "", &another).netns("").ifname("");
    status.run().refused(50, &both);
    assert_eq!(of_networks(&lab, "third"), [""; 0]);
    direct.call("DEL", "c2", &second(whole(&lab))).run().ok();
    assert_eq!(direct.given("c3", &another), ["10.3.0.2/24"]);
    assert_eq!((leases(&lab, "other"), leases(&lab, "third")), (0, 1));

    // Without the secret a command cannot go there, and no request is made.
    direct.call("DEL", "c3", &another).run().ok();
    let add = direct.call("ADD", "c4", &another);
    add.env("CONSUL_HTTP_TOKEN", "s3cret").run().ok();
    let said = host.crosshost("sync").failed().stderr;
    for word in ["network net3", "prefix third", "dir:///var/lib/crosshost"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    let noted = host.run("cat /run/crosshost/ledger/net3.json");
    assert!(!noted.ok().stdout.contains("s3cret"));
}

/// As an earlier version left it, which took a conflist with a store of its own beside the host's.
#[test]
fn what_was_made_with_another_store_is_given_back_to_that_store() {
    let lab = Lab::new(1, Backend::Consul);
    let host = lab.host(1);
    no_configuration(host);
    let direct = Direct::on(host);
    for container in ["c1", "c2", "c3"] {
        direct.given(container, &whole(&lab));
    }
    host.configure(&lab.store_url());
    let before = of_networks(&lab, "other");
    let both = ["prefix other", "prefix crosshost"];
    direct.add("c4", &other()).refused(7, &both);
    direct.add("c4", &own()).refused(103, &both);
    // Neither store is told anything by the host's own settings.
    let said = host.crosshost("sync").failed().stderr;
    for word in ["net1"].into_iter().chain(both) {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    direct.call("DEL", "c1", &own()).run().ok();
    assert_eq!(of_networks(&lab, "other"), before);
    assert_eq!(of_networks(&lab, "crosshost"), [""; 0]);
    // Its conflist gives it back: a DEL its own, a GC also what was only noted.
    direct.call("DEL", "c2", &other()).run().ok();
    assert_eq!(leases(&lab, "other"), 2);
    let gc = direct.call("GC", "", &other()).netns("").ifname("");
    gc.run().ok();
    assert_eq!(leases(&lab, "other"), 0);
    host.sync();
    assert_eq!(direct.given("c4", &own()), ["10.1.0.2/24"]);
    assert_eq!(leases(&lab, "crosshost"), 1);

    // The same store by another way in is the same.
    let proxy = lab.consul().proxy();
    host.configure(&proxy.url());
    assert_eq!(direct.given("c5", &own()), ["10.1.0.3/24"]);
    host.sync();
    direct.call("DEL", "c4", &own()).run().ok();
    assert_eq!(leases(&lab, "crosshost"), 1);
    host.configure(&lab.store_url());
    direct.call("DEL", "c5", &own()).run().ok();
    assert_eq!(leases(&lab, "crosshost"), 0);
}

#[test]
fn a_sandbox_of_another_store_keeps_its_traffic_and_is_left_to_its_conflist() {
    let lab = Lab::new(2, Backend::Consul);
    let mut conf = conflist("ov_net1", "10.0.0.0/24");
    conf["plugins"][0]["store"] = json!({ "url": lab.store_url(), "prefix": "other" });
    for host in lab.hosts() {
        no_configuration(host);
        host.install(&conf);
    }
    let one = Attachment::new(lab.host(1), "t1", "ov_net1");
    let two = Attachment::new(lab.host(2), "t2", "ov_net1");
    lab.host(1).sync();
    one.container.ping(two.address, &[]).ok();
    let acks = || {
        let keys = of_networks(&lab, "other").into_iter();
        keys.filter(|key| key.contains("/acks/")).count()
    };
    assert_eq!(acks(), 2);

    // By the store of a configuration that came later nothing is made or undone.
    lab.host(1).configure(&lab.store_url());
    lab.host(1)
        .crosshost("sync")
        .failed()
        .warns(&["prefix other"]);
    one.container.ping(two.address, &[]).ok();
    lab.host(1).install(&conflist("ov_net1", "10.0.0.0/24"));
    let third = lab.host(1).container("t3");
    let said = lab.host(1).cnitool("add", "ov_net1", third.name(), "eth0");
    let said = said.failed();
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(text.contains("prefix other"), "{text}");
    one.container.ping(two.address, &[]).ok();
    assert_eq!(of_networks(&lab, "crosshost"), [""; 0]);
    // A DEL is, and the store of its conflist hears of it.
    lab.host(1).install(&conf);
    one.detach().ok();
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
    assert!(heard.try_recv().is_err(), "no request was made");
}
