//! A container ends on a host whose settings cannot be used any more: a token was moved away, a certificate has gone, a
//! store's name was misspelt. DEL needs none of them. The release waits on the host until a verb finds the store.

use integration::{Attachment, Backend, Direct, Finished, Lab, conflist, ipamconf};
use serde_json::{Value, json};

/// Settings of the host that no verb can use, each with what the log has to say of it.
fn unusable() -> Vec<(String, &'static str)> {
    let over = |store: Value| json!({ "store": store }).to_string();
    let tls = |key: &str| {
        let mut store = json!({ "url": "consuls://192.168.1.5:8501" });
        for key in key.split(' ') {
            store[key] = "/nonexist".into();
        }
        over(store)
    };
    vec![
        (
            over(json!({ "url": "consul://192.168.1.5:8500", "tokenFile": "/nonexist" })),
            "/nonexist",
        ),
        (tls("caFile"), "/nonexist"),
        (tls("certFile keyFile"), "/nonexist"),
        (tls("certFile"), "given together"),
        (over(json!({ "url": "x://" })), "x://"),
        (over(json!({ "url": "dir://relative" })), "dir://relative"),
        (over(json!({ "prefix": "/" })), "prefix"),
        (over(json!({ "urll": 1 })), "urll"),
        (json!({ "node": { "name": "a/b" } }).to_string(), "a/b"),
        ("broken".to_owned(), "config.json"),
    ]
}

/// Says that it succeeded without a word but for the log.
fn postponed(said: &Finished, word: &str) {
    assert!(said.status.success(), "{word}: {said}");
    assert_eq!(said.stdout, "", "{word}");
    assert!(said.stderr.contains("release postponed"), "{word}: {said}");
    assert!(said.stderr.contains(word), "{word}: {said}");
}

/// The keys of all leases, also of networks whose records are apart.
fn leases(lab: &Lab) -> Vec<String> {
    let (_, keys) = lab.consul().request("GET", "/v1/kv/crosshost?keys", "");
    let mut keys: Vec<String> = serde_json::from_str(&keys).expect("keys");
    keys.retain(|key| key.contains("/leases/"));
    keys
}

#[test]
fn a_lease_is_given_back_when_the_settings_are_sound_again() {
    let lab = Lab::new(1, Backend::Consul);
    let (host, direct) = (lab.host(1), Direct::on(lab.host(1)));
    for dir in ["", "/srv/apart"] {
        let conf = ipamconf("net1", json!({ "subnet": "10.1.0.0/24", "dataDir": dir }));
        for (settings, word) in unusable() {
            direct.given("c1", &conf);
            host.write("/etc/crosshost/config.json", settings.clone());
            direct.add("c2", &conf).refused(7, &[word]);
            for _ in 0..2 {
                postponed(&direct.call("DEL", "c1", &conf).run(), word);
            }
            host.configure(&lab.store_url());
            host.sync();
            let listed = host.listed("endpoint ls --local");
            assert_eq!(listed, json!([]), "{settings}");
            assert_eq!(leases(&lab), Vec::<String>::new(), "{settings}");
        }
    }
}

#[test]
fn a_container_of_the_overlay_goes_too() {
    let lab = Lab::with_network(1, Backend::Consul, &conflist("ov_net1", "10.0.0.0/24"));
    let host = lab.host(1);
    let before = lab.footprints();
    for (number, (settings, word)) in unusable().into_iter().enumerate() {
        let attached = Attachment::new(host, &format!("t{number}"), "ov_net1");
        host.write("/etc/crosshost/config.json", settings);
        attached.detach().ok();
        let left = attached.container.link("eth0");
        assert_eq!(left, Value::Null, "{word}");
        attached.container.remove();
        host.configure(&lab.store_url());
        host.sync();
        assert_eq!(leases(&lab), Vec::<String>::new(), "{word}");
    }
    lab.assert_same_as(&before, "with all containers gone");
}
