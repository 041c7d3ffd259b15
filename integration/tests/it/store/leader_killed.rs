//! The leader of a Consul cluster is killed in the middle of two hundred ADDs: no container waits longer than the
//! election takes, none fails, none gets another's address.
//!
//! The hosts talk to the two other servers, as the client agents of a production site would, and these have no leader
//! for a while. An ADD that needs nothing but a lease may go on without the store; one whose host needs another block
//! has to wait for the next leader. Which of the ADDs meet the gap is chance; that some do is asserted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::held_addresses;
use crate::held_addresses::Held;
use crate::store_reader;
use integration::{
    Backend, Call, ConsulCluster, Container, Finished, LIMIT, Lab, address_of, netconf, until,
};

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/22";
const ADDS: usize = 200;
const WORKERS: usize = 24;
/// So many ADDs are over when the leader is killed.
const BEFORE: usize = 70;
/// How long an election may take at all, on a busy machine.
const ELECTION: Duration = Duration::from_secs(15);
/// What an ADD may take beyond the time in which there is no leader: one attempt more at the store, which asks again
/// seldomer the longer it is away, and its own work beside that of the others.
const BEYOND: Duration = Duration::from_secs(5);

/// One ADD: when it began, and how it ended.
struct Added {
    container: usize,
    begun: Instant,
    finished: Finished,
}

#[test]
fn no_container_waits_longer_than_the_election_and_none_gets_an_address_of_another() {
    let lab = Lab::new(3, Backend::Dir);
    let mut cluster = ConsulCluster::start(&lab);
    let (first, _) = cluster.await_leader(ELECTION);
    let others: Vec<_> = (1..=cluster.size()).filter(|it| *it != first).collect();
    for (host, server) in lab.hosts().iter().zip(others.iter().cycle()) {
        host.configure(&cluster.url(*server));
        host.sync();
    }
    lab.host(1).create_network(NETWORK, SUBNET);
    let untouched = lab.footprints();
    let containers = containers(&lab);

    let (next, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let added = Mutex::new(Vec::new());
    let (killed, (leader, election)) = std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let container = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = containers.get(container) else {
                        return;
                    };
                    let begun = Instant::now();
                    let finished = call(one, "ADD").run();
                    over.fetch_add(1, Ordering::Relaxed);
                    added.lock().expect("no panic").push(Added {
                        container,
                        begun,
                        finished,
                    });
                }
            });
        }
        until(LIMIT, "under way", || {
            over.load(Ordering::Relaxed) >= BEFORE
        });
        // Only the main thread may start servers, and so it is the one that kills them.
        let killed = Instant::now();
        cluster.server_mut(first).kill();
        (killed, cluster.await_leader(ELECTION))
    });
    let added = added.into_inner().expect("no panic");
    assert_ne!(leader, first, "one of the others leads");

    let met = added.iter().filter(|one| {
        let ended = one.begun + one.finished.took;
        ended > killed && one.begun < killed + election
    });
    let met = met.count();
    let longest = added.iter().map(|one| one.finished.took).max();
    let longest = longest.expect("some ADD");
    println!("election {election:?}; {met} ADDs met it; longest ADD {longest:?}");
    assert!(met >= WORKERS, "only {met} ADDs met the election");

    let given = given(&containers, added);
    assert!(
        longest < election + BEYOND,
        "an ADD took {longest:?}, the election {election:?}"
    );
    assert_eq!(held_addresses::alone(&lab, "after the ADDs"), given);

    lab.sync();
    let records = store_reader::through_consulrs(cluster.server(leader));
    assert_eq!(
        held_addresses::by_leases(&records, NETWORK),
        given,
        "the leases"
    );

    for_each(&containers, |one| {
        call(one, "DEL").run().ok();
        one.remove();
    });
    lab.sync();
    lab.assert_same_as(&untouched, "after the DELs");
    let records = store_reader::through_consulrs(cluster.server(leader));
    assert_eq!(
        held_addresses::by_leases(&records, NETWORK),
        BTreeMap::new()
    );

    cluster.server_mut(first).restart();
    cluster.await_all();
    let rejoined = store_reader::through_consulrs(cluster.server(first));
    assert_eq!(rejoined, records, "what the killed server missed");
}

/// Two hundred containers, spread over the hosts in turn.
fn containers(lab: &Lab) -> Vec<Container<'_>> {
    let name = |number: usize| format!("c{number:03}");
    let containers: Vec<_> = (0..ADDS)
        .map(|number| lab.hosts()[number % lab.hosts().len()].existing(&name(number)))
        .collect();
    for_each(&containers, |one| {
        one.host().container(one.name());
    });
    containers
}

/// Does `work` for each container, a few at a time.
fn for_each(containers: &[Container<'_>], work: impl Fn(&Container<'_>) + Sync) {
    std::thread::scope(|scope| {
        for some in containers.chunks(containers.len().div_ceil(8)) {
            let work = &work;
            scope.spawn(move || some.iter().for_each(work));
        }
    });
}

/// What the ADDs told: each must have succeeded, with an address that no other was told.
fn given(containers: &[Container<'_>], added: Vec<Added>) -> BTreeMap<IpAddr, Held> {
    assert_eq!(added.len(), containers.len());
    let mut given = BTreeMap::new();
    for one in added {
        let container = &containers[one.container];
        let address = address_of(&one.finished.ok().json(), "eth0");
        let before = given.insert(address, Held::by(container));
        assert_eq!(before, None, "{address} was given twice");
    }
    given
}

/// A call of `overlay` for the container, whose id is its name.
fn call<'host>(container: &Container<'host>, verb: &str) -> Call<'host> {
    container.call(verb, &netconf(NETWORK, SUBNET, "1.0.0"))
}
