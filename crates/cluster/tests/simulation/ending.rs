//! The end of a run, which shows whether anything was lost: everything is healed, all containers go, and then the pool must
//! give out every one of its addresses from any host.

use std::{collections::BTreeSet, net::IpAddr, rc::Rc};

use cluster::BlockRecord;

use crate::{
    executor::slot,
    invariants::Violation,
    runtime::{settle, sync_all},
    scenario::owner,
    verbs,
    world::World,
};

/// Longest that any verb may take, in ms.
const PATIENCE: u64 = 4_000_000;
/// How often an ADD follows the advice of its refusals: each of its addresses has an owner that answers, and members that must
/// drop it.
const TRIES: u32 = 4;
/// How often hosts sync and wait before an address counts as lost.
const ROUNDS: u32 = 8;

/// Heals everything, empties the cluster and fills it again.
pub async fn end(world: &Rc<World>) {
    {
        let mut weather = world.weather.borrow_mut();
        weather.calm = true;
        weather.away = false;
        weather.cut_off.clear();
    }
    world.say(|| "all is healed".into());
    let begun = world.executor.now();
    while world.is_busy() {
        world.executor.sleep(1000).await;
        if world.executor.now() - begun > PATIENCE {
            let stuck = world.at_work();
            let stuck: Vec<_> = stuck.iter().map(|process| world.spell(process)).collect();
            return world
                .accuse(|| Violation::Failed(format!("never ended: {}", stuck.join(", "))));
        }
    }
    // Messages under way arrive, and removals end.
    world.executor.sleep(200_000).await;
    bury_the_dead(world).await;
    finish_removals(world).await;
    sync_all(world, 2).await;
    world.check_all();
    empty(world).await;
    if world.chance(500) {
        remove(world).await;
    }
    for network in world.scenario.networks() {
        if world.violation.borrow().is_none() {
            refill(world, network).await;
        }
    }
}

/// Removes the empty networks: nothing of them is left or comes back, neither in the store nor on a host.
async fn remove(world: &Rc<World>) {
    for network in world.scenario.networks() {
        let (give, take) = slot();
        verbs::remove_network(world, network, Some(give));
        settle(world, take.await);
        if world.chance(500) {
            continue;
        }
        world.executor.sleep(61_000).await;
    }
    sync_all(world, 2).await;
    for network in world.scenario.networks() {
        let own = world.layout.network(network).unwrap();
        let back = world.store.borrow().get(&own).is_some();
        let kept = |host: &usize| world.host(*host).part(network).is_used();
        let kept: Vec<_> = world.live().into_iter().filter(kept).collect();
        let leftovers = world.leftovers(network);
        if back || !kept.is_empty() || !leftovers.is_empty() {
            world.accuse(|| {
                let leftovers = leftovers.join(", ");
                let kept = format!("documents on {kept:?}");
                Violation::Revived(format!("{network}: back: {back}; {leftovers}; {kept}"))
            });
        }
    }
}

/// Hosts that are down come back, or are removed for good.
async fn bury_the_dead(world: &Rc<World>) {
    for host in world.hosts() {
        if world.host(host).up {
            continue;
        }
        if world.chance(500) && world.live().len() > 1 {
            let (give, take) = slot();
            verbs::remove_node(world, host, Some(give));
            settle(world, take.await);
        } else {
            world.boot(host);
        }
    }
}

/// Killed removals are finished, or reverted if there are containers.
async fn finish_removals(world: &Rc<World>) {
    for network in world.scenario.networks() {
        let own = world.layout.network(network).unwrap();
        let present = world.store.borrow().get(&own).cloned();
        let present = present.map(|it| cluster::decode::<cluster::Network>(&it).unwrap());
        // A removal that was killed after it deleted the record has left keys, and its operator saw that it failed.
        let left = present.is_none() && !world.leftovers(network).is_empty();
        if left || present.is_some_and(|it| it.record.is_being_removed()) {
            let (give, take) = slot();
            verbs::remove_network(world, network, Some(give));
            let _ = take.await;
        }
    }
}

async fn empty(world: &Rc<World>) {
    for host in world.live() {
        let owed: Vec<_> = world.host(host).owed.iter().cloned().collect();
        for owner in owed {
            let (give, take) = slot();
            verbs::del(world, host, owner, Some(give));
            settle(world, take.await);
        }
        for network in world.scenario.networks() {
            let (give, take) = slot();
            verbs::gc(world, host, network, Some(give));
            settle(world, take.await);
        }
    }
    // Requests that are not continued are deleted after a quarter of an hour.
    let pauses = [
        1_000_000, 1_000, 1_000_000, 1_000, 61_000, 61_000, 61_000, 61_000,
    ];
    for pause in pauses {
        world.executor.sleep(pause).await;
        sync_all(world, 1).await;
        if remains(world).is_empty() {
            return;
        }
    }
    let remains = remains(world).join(", ");
    world.accuse(|| Violation::Lost(format!("{remains} stay")));
}

/// What must not stay in the store when all containers are gone: leases, and addresses that change hands.
fn remains(world: &World) -> Vec<String> {
    let store = world.store.borrow();
    let leases = store.within(&[world.layout.all_leases().unwrap()]);
    let mut remains: Vec<_> = leases.iter().map(|lease| lease.key.to_string()).collect();
    for entry in store.within(&[world.layout.all_blocks().unwrap()]) {
        if entry.key.last().parse::<ipam::Mac>().is_ok() {
            remains.push(entry.key.to_string());
            continue;
        }
        let record: BlockRecord = serde_json::from_slice(&entry.value).unwrap();
        if !record.exclusions.is_empty() {
            remains.push(format!("{}: {:?}", entry.key, record.exclusions));
        }
    }
    remains
}

/// All addresses that the first range set offers: the small one.
fn offered(world: &World, network: &str) -> BTreeSet<IpAddr> {
    let ranges = &world.scenario.spec(network).ranges;
    let ranges = ranges.first().into_iter().flatten();
    let of = |range: &ipam::Range| {
        let size = 1u128 << (32 - range.subnet.prefix());
        let range = range.clone();
        (0..size)
            .filter_map(move |n| ipam::nth(range.subnet.network(), n).filter(|a| range.offers(*a)))
    };
    ranges.flat_map(of).collect()
}

/// An ADD, and what its refusal advises: sync the hosts that it waits for, then try again. Without watchers nothing else makes
/// them answer: an ADD that fails acknowledges nothing.
async fn add_as_advised(
    world: &Rc<World>,
    host: usize,
    owner: &cluster::LeaseOwner,
) -> Result<Vec<IpAddr>, String> {
    let mut tries = 0..TRIES;
    loop {
        let (give, take) = slot();
        verbs::add(world, host, owner.clone(), Vec::new(), Some(give));
        match take.await {
            Err(refusal) if refusal.contains("crosshost sync") && tries.next().is_some() => {
                sync_all(world, 1).await;
            }
            ended => return ended,
        }
    }
}

async fn refill(world: &Rc<World>, network: &str) {
    let offered = offered(world, network);
    let own = world.layout.network(network).unwrap();
    let mut absent = world.store.borrow().get(&own).is_none();
    let mut given = BTreeSet::new();
    let (mut rounds, mut number) = (0, 0);
    // Hosts that got none try again when all others have theirs.
    let mut refused = BTreeSet::new();
    while given.len() < offered.len() && rounds < ROUNDS && world.violation.borrow().is_none() {
        let mut progress = false;
        let mut said = String::new();
        for host in world.live() {
            if refused.contains(&host) {
                continue;
            }
            number += 1;
            let owner = owner(network, format!("f{number}"));
            match add_as_advised(world, host, &owner).await {
                Ok(addresses) => {
                    absent = false;
                    progress = true;
                    given.extend(
                        addresses
                            .into_iter()
                            .filter(|address| offered.contains(address)),
                    );
                }
                Err(error) if std::mem::take(&mut absent) => {
                    world.accuse(|| Violation::Lost(format!("{network} cannot be made: {error}")));
                }
                Err(error) => {
                    said = error;
                    refused.insert(host);
                    let (give, take) = slot();
                    verbs::del(world, host, owner, Some(give));
                    settle(world, take.await);
                }
            }
        }
        if progress {
            rounds = 0;
        } else {
            rounds += 1;
            refused.clear();
            world.executor.sleep(61_000).await;
            sync_all(world, 1).await;
        }
        if rounds == ROUNDS {
            let lost: Vec<_> = offered.difference(&given).collect();
            world.accuse(|| Violation::Lost(format!("{lost:?} cannot be had: {said}")));
        }
    }
    world.check_all();
}
