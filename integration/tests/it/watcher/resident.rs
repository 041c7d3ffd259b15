//! `crosshost sync --watch`: what a host learns though no verb comes by, and what it costs to have it resident. Each scenario
//! has a host without one, or a time without one, to show that it is the watcher that did it.

use std::time::{Duration, Instant};

use crate::ownership::{asking, block_of, home};
use crate::store_reader;
use integration::{
    Attachment, Backend, ConsulCluster, Direct, Host, Lab, OUTSIDE, conflist, ipamconf, spend,
    stays,
};
use serde_json::{Value, json};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";
/// A watcher hears of a change in milliseconds; this is for a machine that has much else to do.
const NEWS: Duration = Duration::from_secs(2);
/// A repair comes within a second, this is for a machine that has much else to do; the fixed look comes after half a minute.
const REPAIR: Duration = Duration::from_secs(20);
/// A try after the store was away comes within half a minute.
const BACK: Duration = Duration::from_secs(45);

/// Hosts of which the first two know each other and have a block of the network; the others are unknown.
fn lab(hosts: u8) -> Lab {
    let lab = Lab::new(hosts, Backend::Consul);
    create_network(&lab);
    lab
}

fn create_network(lab: &Lab) {
    for host in &lab.hosts()[..2] {
        host.sync();
    }
    lab.host(1).create_network(NETWORK, SUBNET);
    lab.install(&conflist(NETWORK, SUBNET));
}

/// The node record of a host, with its revision.
fn node(lab: &Lab, host: &Host) -> Option<(u64, Value)> {
    let target = format!("/v1/kv/crosshost/v1/nodes/{}", host.name());
    let (status, said) = lab.consul().request("GET", &target, "");
    let pairs: Value = serde_json::from_str(&said).unwrap_or_default();
    (status == 200).then(|| (pairs[0]["ModifyIndex"].as_u64().expect("an index"), pairs))
}

#[test]
fn an_unknown_host_is_reached_from_where_a_watcher_runs_and_forgotten_when_it_is_removed() {
    let lab = lab(3);
    let [one, two, three] = [1, 2, 3].map(|number| lab.host(number));
    let t1 = Attachment::new(one, "t1", NETWORK);
    let t2 = Attachment::new(two, "t2", NETWORK);
    let watcher = one.watch();

    let t3 = Attachment::new(three, "t3", NETWORK);
    watcher.until(NEWS, "sending to docker03", || one.sends_to(NETWORK, three));
    assert!(t1.container.pings(t3.address, &[]));
    assert!(
        !two.sends_to(NETWORK, three),
        "no watcher, and no verb since"
    );
    assert!(!t2.container.pings(t3.address, &[]));

    // And a network that came to this host while the watcher ran: docker02 gets its first one now.
    let watcher_of_two = two.watch();
    watcher_of_two.until(NEWS, "sending to docker03", || two.sends_to(NETWORK, three));
    t2.detach().ok();
    let again = Attachment::new(two, "t4", NETWORK);
    watcher.until(NEWS, "on with t4", || {
        t1.container.pings(again.address, &[])
    });

    let remove = "node rm docker03 --force";
    one.crosshost(remove).ok();
    for (host, watcher) in [(one, &watcher), (two, &watcher_of_two)] {
        watcher.until(NEWS, "through with docker03", || {
            !host.sends_to(NETWORK, three)
        });
    }
    assert!(t1.container.pings(again.address, &[]), "the others stay");
    // It lives, and with a watcher of its own it says so, and is a host like before.
    let late = three.watch();
    late.until(NEWS, "known again", || node(&lab, three).is_some());
    for (host, watcher) in [(one, &watcher), (two, &watcher_of_two)] {
        watcher.until(NEWS, "sending to docker03", || {
            host.sends_to(NETWORK, three)
        });
    }
    assert!(t1.container.pings(t3.address, &[]));
    one.crosshost(remove).ok();
    late.until(NEWS, "known again", || node(&lab, three).is_some());
    assert_eq!(
        late.times_said("somebody has removed it"),
        1,
        "{}",
        late.said()
    );
}

#[test]
fn changes_are_followed_again_after_the_store_was_stopped() {
    let lab = Lab::new(3, Backend::Dir);
    let mut cluster = ConsulCluster::start(&lab);
    for host in lab.hosts() {
        host.configure(&cluster.url(1));
    }
    create_network(&lab);
    let [one, two, three] = [1, 2, 3].map(|number| lab.host(number));
    let t1 = Attachment::new(one, "t1", NETWORK);
    let gone = Attachment::new(one, "t2", NETWORK);
    let t2 = Attachment::new(two, "t2", NETWORK);
    let watcher = one.watch();

    for server in 1..=cluster.size() {
        cluster.server_mut(server).kill();
    }
    watcher.until(BACK, "aware of it", || {
        watcher.times_said("the store is away") == 1
    });
    watcher.await_told("STATUS=the store is away", NEWS);
    gone.detach().ok();
    stays(Duration::from_secs(3), "alive", || watcher.is_alive());
    assert!(t1.container.pings(t2.address, &[]), "what runs goes on");
    for server in 1..=cluster.size() {
        cluster.server_mut(server).restart();
    }
    cluster.await_all();
    watcher.until(BACK, "aware of it", || {
        watcher.times_said("the store is back") == 1
    });
    watcher.await_told("STATUS=in sync", BACK);
    // No verb has run here since: the watcher has told the store what the DEL could not.
    let gone = gone.address.to_string();
    watcher.until(BACK, "telling the store of the DEL", || {
        let leases = two.listed("endpoint ls");
        let mut leases = leases.as_array().into_iter().flatten();
        leases.all(|lease| lease["address"] != gone)
    });

    let t3 = Attachment::new(three, "t3", NETWORK);
    watcher.until(NEWS, "sending to docker03", || one.sends_to(NETWORK, three));
    assert!(t1.container.pings(t3.address, &[]));
    let said = watcher.said();
    for words in ["the store is away", "the store is back"] {
        assert_eq!(watcher.times_said(words), 1, "a line for a change: {said}");
    }
    assert!(said.lines().count() < 10, "and not one for a try: {said}");
}

#[test]
fn a_store_that_has_forgotten_everything_is_told_again() {
    let lab = lab(2);
    let attached = [1, 2].map(|number| Attachment::new(lab.host(number), "t1", NETWORK).address);
    let watchers = [1, 2].map(|number| lab.host(number).watch());
    let before = store_reader::records_but_nodes(&lab);
    lab.consul().empty();
    for (number, watcher) in [1, 2].into_iter().zip(&watchers) {
        let host = lab.host(number);
        watcher.until(BACK, "known again", || node(&lab, host).is_some());
    }
    for address in attached {
        let key = format!("leases/{NETWORK}/{address}");
        watchers[0].until(BACK, "told again", || {
            store_reader::records_but_nodes(&lab).contains_key(&key)
        });
        assert!(before.contains_key(&key));
    }
}

#[test]
fn damage_is_mended_while_no_verb_runs_and_the_store_is_away() {
    let mut lab = lab(2);
    let (network, way_out);
    {
        let [t1, t2] = Attachment::on_each(&lab, NETWORK);
        (network, way_out) = (t2.address, t1.container.address("gw0"));
        assert!(t1.container.tcp_get(OUTSIDE).is_ok());
    }
    let watcher = lab.host(1).watch();
    lab.consul_mut().kill();
    let host = lab.host(1);
    let t1 = host.existing("t1");
    let works = || t1.pings(network, &[]) && t1.tcp_get(OUTSIDE).is_ok();

    let damages = [
        "nsenter --net=/run/crosshost/netns/ov_net1 bridge fdb flush dev vxlan0
         nft flush ruleset",
        "nsenter --net=/run/crosshost/netns/ov_net1 ip link delete br0
         nsenter --net=/run/crosshost/netns/ov_net1 ip link delete vxlan0
         ip link delete ch-egress",
    ];
    for damage in damages {
        // Too soon for a packet to show it: `repairs.rs`.
        let lines = ["forwarding entries changed", "egress was damaged"];
        let told = || lines.map(|words| watcher.times_said(words));
        let before = told();
        // Held, so that it does not mend the one while the other is being done.
        watcher.held(host, damage);
        // One look may find the rules gone where it looks for the network's part of them, or for the way out's.
        watcher.until(REPAIR, "mended", || told() != before);
        watcher.until(REPAIR, "whole again", works);
    }
    assert_eq!(t1.address("gw0"), way_out);
    assert!(
        watcher.times_said("forwarding entries changed") >= 2,
        "{}",
        watcher.said()
    );
    assert!(
        watcher.times_said("egress was damaged") >= 1,
        "{}",
        watcher.said()
    );
}

#[test]
fn a_service_manager_hears_how_things_stand_and_ends_it_without_a_trace() {
    let lab = lab(2);
    let host = lab.host(1);
    let untouched = lab.footprints();
    let mut watcher = host.watch_with(|command| {
        command.env("WATCHDOG_USEC", "1000000");
    });
    assert!(
        watcher.ready().contains("STATUS=in sync"),
        "{}",
        watcher.ready()
    );
    watcher.await_told("WATCHDOG=1", Duration::from_secs(3));
    watcher.await_told("WATCHDOG=1", Duration::from_secs(3));
    let lock = host.namespace().path("/run/crosshost/locks/watcher");
    assert!(lock.exists());

    // SIGHUP is what `systemctl reload` sends: a sync, and the node's last contact with it.
    let before = node(&lab, host).expect("known").0;
    watcher.hang_up();
    watcher.until(NEWS, "in touch", || {
        node(&lab, host).expect("known").0 > before
    });

    let ended = watcher.stop().ok();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), ""));
    watcher.await_told("STOPPING=1", NEWS);
    assert!(!lock.exists(), "no lock is left");
    lab.assert_same_as(&untouched, "after the watcher");
}

#[test]
fn a_second_watcher_of_a_host_is_refused() {
    let lab = lab(2);
    let first = lab.host(1).watch();
    let refused = lab.host(1).crosshost("sync --watch").failed();
    for words in ["another", "/run/crosshost/locks/watcher"] {
        assert!(refused.stderr.contains(words), "{refused}");
    }
    assert!(first.is_alive());
    // A sync and another host's watcher are none.
    lab.host(1).sync();
    let _other = lab.host(2).watch();
    // One that was killed does not stand in the way.
    drop(first);
    lab.host(1).watch();
}

#[test]
fn an_address_of_its_block_is_granted_by_a_watcher() {
    let lab = Lab::new(2, Backend::Consul);
    let conf = ipamconf("net1", json!({ "ranges": [[{ "subnet": "10.1.0.0/24" }]] }));
    let hosts = Direct::on_all(&lab);
    for host in &hosts {
        host.given("own", &conf);
    }
    let block = block_of(&lab, "net1", lab.host(1));
    let wanted = |n| asking(&conf, &[block.nth(n)]);
    hosts[1]
        .add("early", &wanted(4))
        .refused(108, &["docker01"]);
    let _watcher = lab.host(1).watch();
    hosts[1].given("late", &wanted(5));
    assert_eq!(
        home(&lab, "net1", block.nth(5)).as_deref(),
        Some("docker02")
    );
}

#[test]
fn a_watcher_shows_up_where_a_silent_host_would_lose_its_blocks() {
    let lab = Lab::new(2, Backend::Consul);
    let range = json!([[{ "subnet": "10.1.0.0/24" }]]);
    let conf = ipamconf("net1", json!({ "ranges": range, "reclaimAfter": 12 }));
    Direct::on(lab.host(1)).given("own", &conf);
    Direct::on(lab.host(2)).given("own", &conf);
    let watcher = lab.host(1).watch();
    let contact = |number| node(&lab, lab.host(number)).expect("known").0;
    for _ in 0..2 {
        let (before, silent) = (contact(1), contact(2));
        watcher.until(Duration::from_secs(8), "in touch", || contact(1) > before);
        assert_eq!(contact(2), silent, "no watcher, and no verb since");
    }
}

#[test]
fn an_idle_watcher_costs_nothing_and_a_contact_of_another_host_wakes_no_watcher() {
    let lab = lab(2);
    let host = lab.host(1);
    let proxy = lab.consul().proxy();
    host.configure(&proxy.url());
    let _attached = [1, 2].map(|number| Attachment::new(lab.host(number), "t1", NETWORK));
    let watcher = host.watch();
    watcher.settle();
    let revision = node(&lab, host).expect("known").0;
    proxy.take();

    let before = watcher.cpu();
    let begun = Instant::now();
    for _ in 0..3 {
        lab.host(2).sync();
        spend(Duration::from_secs(2));
    }
    let used = watcher.cpu().saturating_sub(before);
    let share = used.as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(share < 0.01, "{used:?} in {:?}", begun.elapsed());
    let memory = watcher.peak_memory();
    assert!(memory < 10_000_000, "{memory} bytes");
    // Queries and no reading, and nothing is written that would wake the others in turn.
    let asked = proxy.take();
    assert!(!asked.is_empty(), "the contacts were heard");
    for request in &asked {
        let is_query =
            request.method == "GET" && request.target.contains("/v1/nodes?recurse=&index=");
        assert!(is_query, "{request:?}");
    }
    assert_eq!(node(&lab, host).expect("known").0, revision);
    println!("idle: {share:.4} of a processor, {memory} bytes at most");
}
