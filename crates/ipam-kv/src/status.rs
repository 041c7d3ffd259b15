//! STATUS: could an ADD get an address? Not when the store is away and this host has no room of its own, nor when the pool
//! is exhausted.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use cluster::{BlockState, Cluster, NetworkSpec};
use cni::{Call, Error};
use ipam::RangeSet;

use crate::{
    conf::{Conf, failed},
    desk::Desk,
};

/// STATUS is polled: it answers within a second.
const PATIENCE: Duration = Duration::from_millis(800);

pub(crate) async fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let mut settings = conf.settings.clone();
    settings.store.timeout = PATIENCE;
    let desk = Desk::new(settings)?;
    let open = desk.open();
    if open
        .allocator(&conf.spec.name)
        .has_room()
        .await
        .map_err(failed)?
    {
        return Ok(());
    }
    match shared_room(open.cluster(), &conf.spec).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::not_ready(format!(
            "network {}: address pool exhausted",
            conf.spec.name
        ))),
        Err(error) => Err(Error::not_ready(format!(
            "network {}: {error}",
            conf.spec.name
        ))),
    }
}

/// Whether the store has room for one address of each set: a block that is nobody's, or an address that nobody holds.
async fn shared_room(cluster: &Cluster<'_>, spec: &NetworkSpec) -> Result<bool, cluster::Error> {
    let news = cluster.news(&spec.name).await?;
    let Some(network) = &news.network else {
        // To be made by the first ADD, if the configuration says how.
        return if spec.ranges.is_empty() {
            Err(cluster::Error::NoNetwork(spec.name.clone()))
        } else {
            Ok(true)
        };
    };
    let network = &news.ready_network(&spec.name).map(|_| network)?.record;
    let taken: BTreeSet<_> = news
        .blocks
        .iter()
        .filter(|(_, block)| block.record.state == BlockState::Owned)
        .map(|(block, _)| *block)
        .collect();
    let free = |set: &&RangeSet| {
        set.iter().any(|range| {
            range
                .free_block(network.block_prefix(range), &taken, 0)
                .is_some()
        })
    };
    let full: Vec<&RangeSet> = network.ranges.iter().filter(|set| !free(set)).collect();
    if full.is_empty() {
        return Ok(true);
    }
    let leases = cluster.leases(&spec.name).await?;
    let held: BTreeSet<IpAddr> = leases.into_iter().map(|(address, _)| address).collect();
    let unheard = |set: &&RangeSet| {
        let blocks = news.blocks.keys();
        blocks.flat_map(|block| block.addresses()).any(|address| {
            set.iter().any(|range| range.offers(address)) && !held.contains(&address)
        })
    };
    Ok(full.iter().all(unheard))
}
