//! Consul is stopped for a while, really: its servers are killed, or one of them is stopped where it stands and answers
//! no request any more. Hosts go on from their own blocks, each knows what the store does not, and afterwards the store hears of
//! it once and in order, whatever is done first.
//!
//! The store is a cluster, since a lone Consul of the laboratory forgets all when it is killed; that is
//! `restored.rs`. What a host does that cannot find its store at all is `away.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::held_addresses;
use crate::held_addresses::Held;
use crate::store_reader;
use integration::{Backend, ConsulCluster, Direct, Finished, Host, Lab, Request, ipamconf};
use serde_json::{Value, json};

/// An agent that is down is given up after a second and a half of trying; a busy machine adds to that.
const REFUSED: Duration = Duration::from_secs(5);
/// All that a verb may spend on its store, ten seconds, and its own work on a busy machine.
const BUDGET: Duration = Duration::from_secs(13);
/// No program listens there.
const NO_STORE: &str = "consul://192.168.1.6:1";
const AWAY: &str = "192.168.1.6:8500";

/// A pool whose blocks of eight are all whole.
fn conf() -> Value {
    let range = json!({ "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.8" });
    ipamconf("net1", json!({ "ranges": [[range]] }))
}

/// Hosts on the network `net1`, each with a block, whose agent is server 1.
fn site(hosts: u8) -> (Lab, ConsulCluster) {
    let lab = Lab::new(hosts, Backend::Dir);
    let cluster = ConsulCluster::start(&lab);
    for host in lab.hosts() {
        host.configure(&cluster.url(1));
        host.sync();
    }
    (lab, cluster)
}

fn kill_all(cluster: &mut ConsulCluster) {
    for server in 1..=cluster.size() {
        cluster.server_mut(server).kill();
    }
}

fn restart_all(cluster: &mut ConsulCluster) {
    for server in 1..=cluster.size() {
        cluster.server_mut(server).restart();
    }
    cluster.await_all();
}

fn leases(cluster: &ConsulCluster) -> BTreeMap<IpAddr, Held> {
    held_addresses::by_leases(&store_reader::through_consulrs(cluster.server(1)), "net1")
}

/// For each lease when it was made and when last changed, as revisions of the store.
fn revisions(cluster: &ConsulCluster) -> BTreeMap<IpAddr, (u64, u64)> {
    let below = "crosshost/v1/leases/net1/";
    let (_, all) = (cluster.server(1)).request("GET", &format!("/v1/kv/{below}?recurse"), "");
    let all: Vec<Value> = serde_json::from_str(&all).expect("a listing");
    let one = |one: &Value| {
        let address = one["Key"].as_str()?.strip_prefix(below)?.parse().ok()?;
        Some((
            address,
            (one["CreateIndex"].as_u64()?, one["ModifyIndex"].as_u64()?),
        ))
    };
    all.iter()
        .map(|it| one(it).expect("a lease with revisions"))
        .collect()
}

/// What one host wrote of leases, in order; each write must have a condition.
fn written(requests: &[Request], host: &Host) -> Vec<String> {
    let mut all = Vec::new();
    let of_host = |request: &&Request| request.from.to_string() == host.vtep();
    for request in requests.iter().filter(of_host) {
        assert!(request.is_read() || request.is_conditional(), "{request:?}");
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        for operation in body.as_array().into_iter().flatten() {
            let word = |key: &str| operation["KV"][key].as_str().unwrap_or_default();
            let lease = word("Key").strip_prefix("crosshost/v1/leases/net1/");
            match (word("Verb"), lease) {
                ("cas", Some(address)) => all.push(format!("create {address}")),
                ("delete-cas", Some(address)) => all.push(format!("delete {address}")),
                _ => {}
            }
        }
    }
    all
}

/// What the host says that it holds: address, container and state.
fn local(host: &Host) -> Vec<[String; 3]> {
    let listed = host.listed("endpoint ls --local");
    let row = |row: &Value| {
        ["address", "containerID", "state"].map(|key| row[key].as_str().expect("text").to_owned())
    };
    listed.as_array().into_iter().flatten().map(row).collect()
}

/// A host and what it told of its containers.
struct Teller<'host> {
    direct: Direct<'host>,
    running: BTreeMap<IpAddr, Held>,
}

impl<'host> Teller<'host> {
    fn on(host: &'host Host) -> Self {
        Teller {
            direct: Direct::on(host),
            running: BTreeMap::new(),
        }
    }

    fn host(&self) -> &'host Host {
        self.direct.host()
    }

    /// A new container's address, told within `limit`.
    #[track_caller]
    fn add(&mut self, id: &str, limit: Duration) -> IpAddr {
        let said = self.direct.add(id, &conf()).ok();
        assert!(said.took < limit, "{said}");
        let address = integration::addresses_in(&said.json()).remove(0);
        let address = address.trim_end_matches("/24").parse().expect("an address");
        let held = Held {
            host: self.host().name().to_owned(),
            container: id.to_owned(),
        };
        let before = self.running.insert(address, held);
        assert_eq!(before, None, "{address} was given twice");
        address
    }

    #[track_caller]
    fn del(&mut self, id: &str, limit: Duration) {
        let said = self.direct.call("DEL", id, &conf()).run().ok();
        assert!(said.took < limit, "{said}");
        self.running.retain(|_, held| held.container != id);
    }

    /// What a host does that Consul has left: a container goes, one comes, one comes and goes, and two are made anew.
    fn go_on_alone(&mut self, before: &[IpAddr]) -> Alone {
        self.del("c2", REFUSED);
        let c2 = self.add("c2", REFUSED);
        let first = self.add("c4", REFUSED);
        let brief = self.add("c5", REFUSED);
        self.del("c5", REFUSED);
        self.del("c4", REFUSED);
        let c4 = self.add("c4", REFUSED);
        // What the store still has for somebody is not given to anybody, the same container or another.
        let mut all = [before, &[c2, first, brief, c4]].concat();
        all.sort_unstable();
        let (freed, new) = ("freed, not yet in the store", "not yet in the store");
        let row = |address: IpAddr| {
            let (container, state) = match address {
                _ if address == c2 => ("c2", new),
                _ if address == before[1] => ("c2", freed),
                _ if address == c4 => ("c4", new),
                _ if address == first => ("c4", freed),
                _ if address == brief => ("c5", freed),
                _ if address == before[0] => ("c1", "published"),
                _ => ("c3", "published"),
            };
            [address.to_string(), container.to_owned(), state.to_owned()]
        };
        assert_eq!(
            local(self.host()),
            all.into_iter().map(row).collect::<Vec<_>>()
        );
        Alone {
            wanted: [
                format!("delete {}", before[1]),
                format!("create {c2}"),
                format!("create {c4}"),
            ],
            made: [c2, c4],
        }
    }
}

/// What the store has to hear of a host: the writes in order, and the leases that they make.
struct Alone {
    wanted: [String; 3],
    made: [IpAddr; 2],
}

#[test]
fn what_hosts_did_while_consul_was_stopped_is_told_once_and_in_order_by_whatever_comes_next() {
    let (lab, mut cluster) = site(3);
    let mut tellers: Vec<_> = lab.hosts().iter().map(Teller::on).collect();
    let three = |teller: &mut Teller<'_>| ["c1", "c2", "c3"].map(|id| teller.add(id, REFUSED));
    let before: Vec<_> = tellers.iter_mut().map(three).collect();
    let known = revisions(&cluster);
    assert_eq!(known.len(), 9);

    kill_all(&mut cluster);
    let alone: Vec<_> = std::thread::scope(|scope| {
        let both = tellers.iter_mut().zip(&before);
        let go = both.map(|(teller, before)| scope.spawn(|| teller.go_on_alone(before)));
        let going: Vec<_> = go.collect();
        let end = |one: std::thread::ScopedJoinHandle<'_, _>| one.join().expect("it went on");
        going.into_iter().map(end).collect()
    });
    restart_all(&mut cluster);
    assert_eq!(
        revisions(&cluster),
        known,
        "the store was away and lost nothing"
    );

    // Each host tells it by another verb; the address of an ADD comes first, as its container waits.
    let proxy = cluster.server(1).proxy();
    for teller in &tellers {
        teller.host().configure(&proxy.url());
    }
    let next = tellers[0].add("c6", REFUSED);
    tellers[1].del("never", REFUSED);
    lab.host(3).sync();
    let requests = proxy.take();
    let first = vec![format!("create {next}")];
    for ((host, alone), ahead) in lab.hosts().iter().zip(&alone).zip([first, vec![], vec![]]) {
        let wanted = [&ahead[..], &alone.wanted].concat();
        assert_eq!(written(&requests, host), wanted, "{}", host.name());
    }
    let running: BTreeMap<_, _> = tellers.iter().flat_map(|it| it.running.clone()).collect();
    assert_eq!(leases(&cluster), running);
    for host in lab.hosts() {
        assert!(
            local(host).iter().all(|row| row[2] == "published"),
            "{:?}",
            local(host)
        );
    }

    // Nothing is told again, and what the store had was left as it was.
    let told = revisions(&cluster);
    for (teller, alone) in tellers.iter_mut().zip(&alone) {
        teller.host().sync();
        teller.del("never", REFUSED);
        assert_eq!(written(&proxy.take(), teller.host()), [""; 0]);
        let [c2, c4] = alone.made.map(|address| told[&address]);
        assert!(c2.0 < c4.0, "in their order: {c2:?} {c4:?}");
    }
    assert_eq!(revisions(&cluster), told);
    for (address, (made, changed)) in told {
        assert_eq!(made, changed, "{address} was written once");
        let was = known.get(&address);
        assert!(was.is_none_or(|was| *was == (made, changed)), "{address}");
    }
}

#[test]
fn a_host_gives_out_all_that_it_has_while_consul_is_stopped_and_says_when_that_is_used_up() {
    let (lab, mut cluster) = site(2);
    let mut one = Teller::on(lab.host(2));
    // Of the block of eight three are left, so there is no spare one yet.
    for number in 0..5 {
        one.add(&format!("c{number}"), REFUSED);
    }
    kill_all(&mut cluster);
    for number in 5..8 {
        one.add(&format!("c{number}"), REFUSED);
    }
    let full: Vec<_> = one.running.keys().map(ToString::to_string).collect();
    assert_eq!(
        full,
        (16..24)
            .map(|last| format!("10.1.0.{last}"))
            .collect::<Vec<_>>()
    );
    let refused = |one: &Teller<'_>| {
        let said = one.direct.add("more", &conf());
        assert!(said.took < REFUSED, "{said}");
        said.refused(11, &[AWAY]);
        assert!(local(one.host()).iter().all(|row| row[1] != "more"));
    };
    refused(&one);
    // What is freed now is the store's word to give again.
    one.del("c0", REFUSED);
    one.del("c7", REFUSED);
    refused(&one);
    restart_all(&mut cluster);
    let next = one.add("more", REFUSED);
    assert!(!full.contains(&next.to_string()), "{next} has to rest");
    assert_eq!(leases(&cluster), one.running);
    assert!(local(one.host()).iter().all(|row| row[2] == "published"));
}

/// How a verb ended that had to do with an agent that says nothing: in time.
#[track_caller]
fn in_time(said: Finished) -> Finished {
    assert!(said.took < BUDGET, "{said}");
    said
}

#[test]
fn an_agent_that_does_not_answer_holds_no_verb_up_for_longer_than_its_budget() {
    let (lab, mut cluster) = site(3);
    let [mut one, mut two] = [1, 2].map(|host| Teller::on(lab.host(host)));
    let three = Direct::on(lab.host(3));
    one.add("c1", REFUSED);
    two.add("c1", REFUSED);
    two.add("c2", REFUSED);
    cluster.server_mut(1).pause();
    std::thread::scope(|scope| {
        scope.spawn(|| one.add("c2", BUDGET));
        scope.spawn(|| two.del("c1", BUDGET));
        scope.spawn(|| {
            // This host has not been on the network and knows no block of its own.
            let said = in_time(three.add("c1", &conf()));
            said.refused(11, &[AWAY]);
        });
        scope.spawn(|| {
            let status = lab.host(1).call("ipam-kv", "STATUS").conf(&conf());
            let said = status.id("").netns("").ifname("").run();
            assert!(said.took < Duration::from_secs(1), "{said}");
            said.ok();
        });
    });
    let states = |host| local(host).into_iter().map(|[_, id, state]| [id, state]);
    let row = |id: &str, state: &str| [id, state].map(str::to_owned);
    let of_one = states(lab.host(1)).collect::<Vec<_>>();
    let wanted = [row("c1", "published"), row("c2", "not yet in the store")];
    assert_eq!(of_one, wanted);
    let of_two = states(lab.host(2)).collect::<Vec<_>>();
    let wanted = [
        row("c1", "freed, not yet in the store"),
        row("c2", "published"),
    ];
    assert_eq!(of_two, wanted);

    // The container is gone before the agent comes to what was asked for it.
    lab.host(1).configure(NO_STORE);
    one.del("c2", REFUSED);
    lab.host(1).configure(&cluster.url(1));
    cluster.server_mut(1).resume();
    cluster.await_all();
    lab.sync();
    let running: BTreeMap<_, _> = [&one, &two]
        .iter()
        .flat_map(|it| it.running.clone())
        .collect();
    assert_eq!(leases(&cluster), running);
    three.given("c1", &conf());
}
