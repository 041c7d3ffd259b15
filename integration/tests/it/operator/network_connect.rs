//! A running container joins a further network by command, and leaves one: `network connect` and `disconnect`.

use std::time::Duration;

use integration::{Attachment, Backend, Container, Finished, Host, Lab, until};
use serde_json::{Value, json};

/// For what comes by itself, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(30);

/// `crosshost network WORDS` where the plugins are found.
#[track_caller]
pub fn network(host: &Host, words: &str) -> Finished {
    let path = format!("CNI_PATH={}", host.cni_path());
    let crosshost = host.program("crosshost");
    let crosshost = crosshost.to_str().expect("a path");
    let mut line = vec!["env", &path, crosshost, "network"];
    line.extend(words.split(' '));
    host.run(&line)
}

/// The networks `ov_net1` and `ov_net2`, with subnets 10.0.0.0/24 and 10.0.1.0/24, on hosts that keep conflists.
fn prepared(hosts: u8, backend: Backend) -> Lab {
    let lab = Lab::registered(hosts, backend);
    for host in lab.hosts() {
        host.keep_conflists(&json!({}));
    }
    for name in ["ov_net1", "ov_net2"] {
        lab.host(1).crosshost(&["network", "create", name]).ok();
    }
    lab.sync();
    lab
}

fn interfaces(container: &Container<'_>) -> Vec<String> {
    let links = container.ip("link");
    let links = links.as_array().expect("links").iter();
    let names = links.map(|it| it["ifname"].as_str().unwrap_or_default().to_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// What the host's containers hold: interface and address.
pub fn held(host: &Host) -> Vec<(String, String)> {
    let held = host.listed("endpoint ls --local");
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let held = held.as_array().expect("a list").iter();
    held.map(|it| (text(&it["ifname"]), text(&it["address"])))
        .collect()
}

#[test]
fn a_running_container_joins_and_leaves_a_network() {
    let lab = prepared(2, Backend::Consul);
    let [one, two] = [1, 2].map(|number| lab.host(number));
    let t1 = Attachment::new(one, "t1", "ov_net1");
    let t2 = Attachment::new(two, "t2", "ov_net2");
    let netns = t1.container.netns();

    let asked = format!("connect --ip 10.0.1.77 --mac 02:42:00:00:00:77 ov_net2 {netns}");
    assert_eq!(network(one, &asked).ok().stdout, "eth1 10.0.1.77/24\n");
    assert_eq!(interfaces(&t1.container), ["eth0", "eth1", "gw0", "lo"]);
    let eth1 = t1.container.link("eth1");
    assert_eq!(eth1["address"], "02:42:00:00:00:77", "{eth1:#}");
    assert!(t2.container.pings("10.0.1.77".parse().unwrap(), &[]));
    assert!(t1.container.pings(t2.address, &[]));
    // Its id is that of its first attachment.
    let endpoints = one.listed("endpoint ls");
    let ids: Vec<_> = (endpoints.as_array().expect("a list").iter())
        .filter(|it| it["node"] == "docker01")
        .map(|it| it["containerID"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{endpoints:#}");
    let doctor = one.crosshost("doctor").stdout;
    assert!(!doctor.contains("orphan"), "{doctor}");

    // A container is on a network once.
    network(one, &format!("connect ov_net2 {}", ids[0]))
        .failed()
        .warns(&["eth1", "is connected already"]);
    // A runtime's GC knows nothing of it, and spares it.
    let conflist = one
        .run(&["cat", "/etc/cni/net.d/ov_net2.conflist"])
        .ok()
        .json();
    let mut plugin = conflist["plugins"][0].clone();
    plugin["cniVersion"] = "1.1.0".into();
    plugin["name"] = "ov_net2".into();
    plugin["cni.dev/valid-attachments"] = json!([]);
    one.call("overlay", "GC").conf(&plugin).run().ok();
    assert!(t2.container.pings("10.0.1.77".parse().unwrap(), &[]));

    // By the id, or the beginning of it, as by the path.
    network(one, &format!("disconnect ov_net2 {}", &ids[0][..14])).ok();
    assert_eq!(interfaces(&t1.container), ["eth0", "gw0", "lo"]);
    assert_eq!(held(one).len(), 1);
    network(one, &format!("disconnect ov_net2 {netns}"))
        .failed()
        .warns(&["is not connected to network ov_net2"]);
    // Also from the one that the runtime attached it to; its DEL finds nothing then.
    network(one, &format!("disconnect ov_net1 {netns}")).ok();
    assert_eq!(interfaces(&t1.container), ["lo"]);
    t1.end();
    t2.end();
}

#[test]
fn what_was_connected_goes_with_its_container() {
    let lab = prepared(1, Backend::Dir);
    let host = lab.host(1);
    let before = host.footprint();
    // One that is on no network of ours.
    let other = host.container("other");
    let said = network(host, &format!("connect ov_net1 {}", other.netns()));
    assert!(said.ok().stdout.starts_with("eth0 10.0.0."));
    let watcher = host.watch();
    other.remove();
    until(SOON, "swept", || held(host).is_empty());
    drop(watcher);

    // Without a watcher, by `gc`.
    let t1 = Attachment::new(host, "t1", "ov_net1");
    network(host, &format!("connect ov_net2 {}", t1.container.netns())).ok();
    t1.container.remove();
    t1.detach().ok();
    assert_eq!(held(host).len(), 1, "the runtime's DEL is of its own");
    let orphan = host.crosshost("doctor").failed();
    orphan.says(&["eth1 of container", "crosshost gc"]);
    host.crosshost("gc").ok().says(&["eth1 of container"]);
    assert!(held(host).is_empty());
    host.assert_same_as(&before, "after the last container");
    let left = host.run(&["ls", "-A", "/run/crosshost/connected"]).stdout;
    assert_eq!(left, "");
}

#[test]
fn a_refused_connection_leaves_nothing() {
    let lab = prepared(1, Backend::Dir);
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", "ov_net1");
    let netns = t1.container.netns();
    for (words, why) in [
        (format!("connect nowhere {netns}"), "nowhere"),
        (
            "connect ov_net2 nobody".to_owned(),
            "container nobody: no running container",
        ),
        (
            "connect ov_net2 /run/netns/none".to_owned(),
            "/run/netns/none",
        ),
        (
            "connect ov_net2 /proc/self/ns/net".to_owned(),
            "own network namespace",
        ),
        (format!("connect --ip 10.9.9.9 ov_net2 {netns}"), "10.9.9.9"),
        (format!("connect --interface eth0 ov_net2 {netns}"), "eth0"),
    ] {
        network(host, &words).failed().warns(&[why]);
    }
    assert_eq!(held(host).len(), 1);
    assert_eq!(interfaces(&t1.container), ["eth0", "gw0", "lo"]);
    let left = host.run(&["ls", "-A", "/run/crosshost/connected"]).stdout;
    assert_eq!(left, "");
    t1.end();
}
