//! A store that refuses, lies, is silent or knows us too little: the answer is one CNI error object that
//! names the store, it comes in bounded time, holds no secret, and nothing moved.

use std::time::Duration;

use crate::faults::unchanged::{BOTH, Bench, faults, good, with};
use integration::{Backend, Lab};
use serde_json::json;

#[test]
fn does_not_answer_as_it_should() {
    let lab = Lab::new(1, Backend::Consul);
    let bench = Bench::new(&lab);
    let consul = lab.consul();
    let _html = consul.impostor(
        18601,
        b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>",
    );
    let _ssh = consul.impostor(18602, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
    let _silent = consul.impostor(18603, b"");
    let (away, garbled) = ("11", "5 6 own");
    let cases = [
        ("refuses connections", "192.168.1.5:18699", away, 4),
        ("answers with a web page", "192.168.1.5:18601", garbled, 15),
        ("is an SSH server", "192.168.1.5:18602", garbled, 15),
        ("says nothing", "192.168.1.5:18603", away, 15),
    ];
    let mut wrong = Vec::new();
    for (what, address, codes, seconds) in cases {
        for plugin in BOTH {
            lab.host(1).configure(&lab.store_url());
            let before = bench.state();
            lab.host(1).configure(&format!("consul://{address}"));
            // A host that knows its blocks would serve the ADD without the store, so this network is new.
            let mut conf = with("/name", json!("ov_new"));
            conf["ipam"]["ranges"][0][0]["subnet"] = "10.1.0.0/24".into();
            let said = bench.add(plugin).conf(&conf).run();
            lab.host(1).configure(&lab.store_url());
            let mut faults = faults(&said, codes, &[address]);
            if said.took > Duration::from_secs(seconds) {
                faults.push(format!("took {:?}", said.took));
            }
            faults.extend(bench.changed_since(&before));
            if !faults.is_empty() {
                wrong.push(format!(
                    "{plugin}, store {what}: {}\n  {said}",
                    faults.join("; ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn does_not_give_the_token_the_rights() {
    let lab = Lab::new(1, Backend::GuardedConsul);
    let consul = lab.consul();
    let host = lab.host(1);
    let use_token = |token: &str| {
        host.write("/etc/crosshost/token", token);
        host.configure_store(&json!({
            "url": lab.store_url(), "tokenFile": "/etc/crosshost/token",
        }));
    };
    let everything = consul.token("all", r#"key_prefix "crosshost/" { policy = "write" }"#);
    use_token(&everything);
    let bench = Bench::new(&lab);
    bench.add("overlay").run().ok();
    let del = |name: &str| host.call(name, "DEL").id("c1").conf(&good());
    del("overlay").run().ok();
    let before = bench.state();

    let reader = consul.token("reader", r#"key_prefix "" { policy = "read" }"#);
    use_token(&reader);
    for plugin in BOTH {
        let mut conf = with("/name", json!("ov_new"));
        conf["ipam"]["ranges"][0][0]["subnet"] = "10.1.0.0/24".into();
        let said = bench.add(plugin).conf(&conf).run();
        let mut faults = faults(&said, "7 own", &["192.168.1.5:8500", "token"]);
        if said.took > Duration::from_secs(4) {
            faults.push(format!("took {:?}", said.took));
        }
        if said.stdout.contains(&reader) || said.stderr.contains(&reader) {
            faults.push("the token is in a message".to_owned());
        }
        use_token(&everything);
        faults.extend(bench.changed_since(&before));
        use_token(&reader);
        assert!(
            faults.is_empty(),
            "{plugin}: {}\n  {said}",
            faults.join("; ")
        );
    }
}
