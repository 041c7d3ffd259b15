//! The end of a run, where it shows whether anything was lost: all is healed, all containers go, and then the pool must
//! give out every one of its addresses, from whichever host asks.

use std::{collections::BTreeSet, net::IpAddr, rc::Rc};

use cluster::{BlockRecord, Holder};

use crate::{
    executor::slot,
    invariants::Violation,
    runtime::{settle, sync_all},
    scenario::NETWORK,
    verbs,
    world::World,
};

/// Longest that any verb may take, in ms.
const PATIENCE: u64 = 4_000_000;
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
            let stuck: Vec<_> = world
                .hosts()
                .flat_map(|h| world.host(h).processes.clone())
                .collect();
            let stuck: Vec<_> = stuck.iter().map(|process| world.spell(process)).collect();
            return world
                .accuse(|| Violation::Failed(format!("never ended: {}", stuck.join(", "))));
        }
    }
    // What is under way arrives, and what is being removed is.
    world.executor.sleep(200_000).await;
    bury_the_dead(world).await;
    sync_all(world, 2).await;
    world.check_all();
    empty(world).await;
    if world.violation.borrow().is_none() {
        refill(world).await;
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

async fn empty(world: &Rc<World>) {
    for host in world.live() {
        let owed: Vec<_> = world.host(host).owed.iter().cloned().collect();
        for holder in owed {
            let (give, take) = slot();
            verbs::del(world, host, holder, Some(give));
            settle(world, take.await);
        }
        let (give, take) = slot();
        verbs::gc(world, host, Some(give));
        settle(world, take.await);
    }
    // Requests that nobody follows up are forgotten after a quarter of an hour.
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

/// What the store must not have for ever when all containers are gone: leases, and addresses under way between hosts.
fn remains(world: &World) -> Vec<String> {
    let store = world.store.borrow();
    let leases = store.within(&[world.layout.leases(NETWORK).unwrap()]);
    let mut remains: Vec<_> = leases.iter().map(|lease| lease.key.to_string()).collect();
    for entry in store.within(&[world.layout.blocks(NETWORK).unwrap()]) {
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
fn offered(world: &World) -> BTreeSet<IpAddr> {
    let ranges = world.scenario.spec.ranges.first().into_iter().flatten();
    let of = |range: &ipam::Range| {
        let size = 1u128 << (32 - range.subnet.prefix());
        let range = range.clone();
        (0..size)
            .filter_map(move |n| ipam::nth(range.subnet.network(), n).filter(|a| range.offers(*a)))
    };
    ranges.flat_map(of).collect()
}

async fn refill(world: &Rc<World>) {
    let offered = offered(world);
    let mut given = BTreeSet::new();
    let (mut rounds, mut number) = (0, 0);
    // Hosts that got none: they ask again when all have.
    let mut refused = BTreeSet::new();
    while given.len() < offered.len() && rounds < ROUNDS && world.violation.borrow().is_none() {
        let mut progress = false;
        let mut said = String::new();
        for host in world.live() {
            if refused.contains(&host) {
                continue;
            }
            number += 1;
            let holder = Holder {
                container: format!("f{number}"),
                ifname: "eth0".into(),
            };
            let (give, take) = slot();
            verbs::add(world, host, holder.clone(), Vec::new(), Some(give));
            match take.await {
                Ok(addresses) => {
                    progress = true;
                    given.extend(
                        addresses
                            .into_iter()
                            .filter(|address| offered.contains(address)),
                    );
                }
                Err(error) => {
                    said = error;
                    refused.insert(host);
                    let (give, take) = slot();
                    verbs::del(world, host, holder, Some(give));
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
