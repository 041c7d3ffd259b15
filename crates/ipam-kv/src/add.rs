//! ADD: choose, note, publish, answer.

use std::net::IpAddr;

use cluster::{Cluster, Published};
use cni::{Call, CniResult, Error, Ip, Tell};
use ipam::{Choice, Range, RangeSet};
use ipnetwork::IpNetwork;
use journal::{Attachment, clock};

use crate::{
    code,
    conf::{Conf, failed},
    desk::{Desk, lock_attachment},
    ledger::{COOL_DOWN, Entry, Ledger, Stage},
};

/// How often a choice that the store refused is made again.
const ATTEMPTS: u32 = 16;

pub(crate) async fn add(call: &Call, tell: Tell<'_>) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let attachment = Conf::attachment(call)?;
    let store = conf.settings.open_store().map_err(failed)?;
    let cluster = Cluster::new(&*store, conf.settings.layout.clone());
    let desk = Desk::new(&cluster, &conf.settings, &attachment.network)?;

    let _alone = lock_attachment(&attachment)?;
    cni::caller_listens()?;
    let (leased, ledger) = lease(&desk, &conf, &attachment).await?;
    let told = answer(&conf, &ledger, &leased).and_then(|result| tell(&result));
    if told.is_err() {
        let addresses: Vec<_> = leased.iter().map(|(address, _)| *address).collect();
        desk.give_back(&addresses).await?;
        return told;
    }
    // Told first: addresses of which nobody learnt are no duplicate for the next ADD. What fails from here on is no
    // reason to call the ADD failed.
    let noted = desk.update(|ledger| {
        for (address, revision) in &leased {
            if let Some(entry) = ledger.leases.get_mut(address) {
                entry.stage = Stage::Held(*revision);
            }
        }
    });
    // The store is there: tell it what it missed, if anything. What it does not take stays noted.
    let store_is_there = leased.iter().all(|(_, revision)| revision.is_some());
    let replayed = match &noted {
        Ok(Some(ledger)) if store_is_there && !ledger.unpublished().is_empty() => {
            desk.replay().await.map(drop)
        }
        _ => Ok(()),
    };
    if let Err(error) = noted.and(replayed) {
        cni::log(&format!("{attachment}: {error}"));
    }
    Ok(())
}

/// What a killed ADD of this attachment left, to be given back; what a finished one holds is a duplicate.
fn left_behind(ledger: &Ledger, attachment: &Attachment) -> Result<Vec<IpAddr>, Error> {
    let mut left = Vec::new();
    for address in ledger.of(attachment) {
        match ledger.leases[&address].stage {
            Stage::Chosen => left.push(address),
            // Waits for the store, and is in nobody's way.
            Stage::Freeing(_) => {}
            Stage::Held(_) => {
                let why = format!("{attachment}: exists already and holds {address}; DEL it first");
                return Err(Error::new(code::DUPLICATE, why));
            }
        }
    }
    Ok(left)
}

/// Chooses and publishes until the store agrees; the addresses in the order of the range sets, with the revisions of
/// their leases, none while the store is away.
async fn lease(
    desk: &Desk<'_>,
    conf: &Conf,
    attachment: &Attachment,
) -> Result<(Vec<(IpAddr, Option<u64>)>, Ledger), Error> {
    let network = &attachment.network;
    let lease = desk.lease(attachment);
    for _ in 0..ATTEMPTS {
        let (addresses, guard, ledger) = {
            let lock = desk.lock()?;
            let mut ledger = desk.ready_ledger(&conf.spec).await?;
            let left = left_behind(&ledger, attachment)?;
            if !left.is_empty() {
                drop(lock);
                desk.give_back(&left).await?;
                continue;
            }
            let addresses = choose(desk, conf, network, &mut ledger).await?;
            for address in &addresses {
                ledger.freed.remove(address);
                ledger.leases.insert(
                    *address,
                    Entry {
                        lease: lease.clone(),
                        stage: Stage::Chosen,
                    },
                );
            }
            desk.save(&ledger)?;
            let guard = ledger
                .guard(&addresses)
                .ok_or_else(|| Error::io("ledger: an address in no block of ours"))?;
            (addresses, guard, ledger)
        };
        let revisions: Vec<Option<u64>> = match desk
            .cluster
            .publish(network, &addresses, &lease, &guard)
            .await
        {
            Ok(Published::Done(revisions)) => revisions.into_iter().map(Some).collect(),
            // Invariant 8: with the store away the host goes on from its own blocks.
            Err(error) if error.is_away() => vec![None; addresses.len()],
            refused => {
                let _lock = desk.lock()?;
                let mut ledger = desk.ready_ledger(&conf.spec).await?;
                if refused.is_ok() {
                    // Nothing was written.
                    ledger.leases.retain(|address, entry| {
                        !(addresses.contains(address) && entry.lease == lease)
                    });
                } else {
                    // Something may have been: to be released when the store makes sense again.
                    ledger.give_back(&addresses);
                }
                let outcome = learn(desk, conf, refused, &mut ledger).await;
                desk.save(&ledger)?;
                outcome?;
                continue;
            }
        };
        return Ok((addresses.into_iter().zip(revisions).collect(), ledger));
    }
    Err(Error::again(format!(
        "network {network}: the store refused each of {ATTEMPTS} choices"
    )))
}

/// Takes from a refusal what makes the next choice better, or gives up.
async fn learn(
    desk: &Desk<'_>,
    conf: &Conf,
    refused: Result<Published, cluster::Error>,
    ledger: &mut Ledger,
) -> Result<(), Error> {
    match refused.map_err(failed)? {
        Published::Taken(address, holder) if conf.requested.contains(&address) => {
            let cluster::Lease {
                node,
                container,
                ifname,
                ..
            } = &holder.record;
            let who = format!("held by {ifname} of container {container} on node {node}");
            Err(Error::new(
                code::ADDRESS,
                format!("address {address}: {who}"),
            ))
        }
        Published::Taken(address, holder) => {
            ledger.adopt(address, holder);
            Ok(())
        }
        _ => desk.refresh(&conf.spec, ledger).await.map_err(failed),
    }
}

/// One address for each range set: the requested one, or the allocator's choice.
async fn choose(
    desk: &Desk<'_>,
    conf: &Conf,
    network: &str,
    ledger: &mut Ledger,
) -> Result<Vec<IpAddr>, Error> {
    let sets = ledger.network.record.ranges.clone();
    let serves = |set: &RangeSet, address: IpAddr| set.iter().any(|range| range.offers(address));
    if let Some(stray) = conf
        .requested
        .iter()
        .find(|address| !sets.iter().any(|set| serves(set, **address)))
    {
        let pools: Vec<_> = sets
            .iter()
            .flatten()
            .map(|r| format!("{}-{}", r.start(), r.end()))
            .collect();
        let why = format!(
            "requested address {stray}: not in network {network} ({})",
            pools.join(", ")
        );
        return Err(Error::new(code::ADDRESS, why));
    }
    let mut addresses = Vec::new();
    for set in &sets {
        let mut asked = conf
            .requested
            .iter()
            .copied()
            .filter(|address| serves(set, *address));
        addresses.push(match (asked.next(), asked.next()) {
            (Some(one), Some(other)) => {
                let why = format!("requested addresses {one} and {other}: network {network} gives one of their kind");
                return Err(Error::new(code::ADDRESS, why));
            }
            (Some(address), None) => requested(desk, network, set, address, ledger).await?,
            (None, _) => allocated(desk, network, set, ledger).await?,
        });
    }
    Ok(addresses)
}

/// The allocator's choice, from a new block where ours have nothing ready.
async fn allocated(
    desk: &Desk<'_>,
    network: &str,
    set: &[Range],
    ledger: &mut Ledger,
) -> Result<IpAddr, Error> {
    let (ready, cooling) = pick(set, ledger);
    if let Some(address) = ready {
        return Ok(address);
    }
    let claimed = claim(desk, network, set, ledger).await;
    match (pick(set, ledger).0, cooling, claimed) {
        (Some(address), ..) | (None, Some(address), _) => Ok(address),
        (None, None, Err(error @ cluster::Error::NoBlock { .. })) => {
            let why = format!("network {network}: address pool exhausted: {error}");
            Err(Error::new(error.code(), why))
        }
        (None, None, Err(error)) => Err(failed(error)),
        (None, None, Ok(())) => Err(Error::again(format!(
            "network {network}: claimed a block without a free address"
        ))),
    }
}

/// The first ready address of the set's ranges, and the first one that only cools down.
fn pick(set: &[Range], ledger: &Ledger) -> (Option<IpAddr>, Option<IpAddr>) {
    let (held, now) = (ledger.held(), clock::uptime());
    let mut cooling = None;
    for range in set {
        match held.choose(range, now, COOL_DOWN) {
            Choice::Ready(address) => return (Some(address), cooling),
            Choice::Cooling(address) => cooling = cooling.or(Some(address)),
            Choice::Full => {}
        }
    }
    (None, cooling)
}

/// Learns which blocks we have by now, and claims one more if those have no room either.
async fn claim(
    desk: &Desk<'_>,
    network: &str,
    set: &[Range],
    ledger: &mut Ledger,
) -> Result<(), cluster::Error> {
    let mut news = desk.cluster.news(network).await?;
    ledger.network = news.ready_network(network)?.clone();
    ledger.blocks = news.blocks_of(desk.node);
    if pick(set, ledger).0.is_none() {
        desk.cluster
            .claim_block(network, desk.node, set, &mut news)
            .await?;
        ledger.blocks = news.blocks_of(desk.node);
    }
    Ok(())
}

/// An address that the runtime asked for: in a block of ours, or in one that is nobody's yet.
async fn requested(
    desk: &Desk<'_>,
    network: &str,
    set: &[Range],
    address: IpAddr,
    ledger: &mut Ledger,
) -> Result<IpAddr, Error> {
    if let Some(holder) = ledger.leases.get(&address).map(|entry| &entry.lease) {
        let who = format!(
            "held by {} of container {} on node {}",
            holder.ifname, holder.container, holder.node
        );
        return Err(Error::new(
            code::ADDRESS,
            format!("address {address}: {who}"),
        ));
    }
    if ledger.guard(&[address]).is_none() {
        let range = set.iter().find(|range| range.offers(address));
        let range = range.ok_or_else(|| {
            Error::new(code::ADDRESS, format!("address {address}: not in the pool"))
        })?;
        let mut news = desk.cluster.news(network).await.map_err(failed)?;
        desk.cluster
            .claim_block_of(network, desk.node, address, range, &mut news)
            .await
            .map_err(failed)?;
        ledger.network = news.ready_network(network).map_err(failed)?.clone();
        ledger.blocks = news.blocks_of(desk.node);
    }
    Ok(address)
}

/// The result: addresses with their pools' lengths and gateways, routes and resolver as configured.
fn answer(
    conf: &Conf,
    ledger: &Ledger,
    leased: &[(IpAddr, Option<u64>)],
) -> Result<CniResult, Error> {
    let mut ips = Vec::new();
    for (address, _) in leased {
        let mut ranges = ledger.network.record.ranges.iter().flatten();
        let range = ranges.find(|range| range.subnet.contains(*address));
        let range = range.ok_or_else(|| {
            Error::again(format!(
                "address {address}: its network was changed meanwhile"
            ))
        })?;
        let network = IpNetwork::new(*address, range.subnet.prefix());
        let network =
            network.map_err(|error| Error::config(format!("address {address}: {error}")))?;
        ips.push(Ip {
            gateway: range.gateway,
            ..Ip::new(network)
        });
    }
    Ok(CniResult {
        ips,
        routes: conf.routes.clone(),
        dns: conf.dns.clone(),
        ..CniResult::default()
    })
}
