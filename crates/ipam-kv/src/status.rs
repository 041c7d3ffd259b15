//! STATUS: could an ADD get an address? Not when the store is away and this host has no room of its own.

use std::time::Duration;

use cluster::Cluster;
use cni::{Call, Error};
use ipam::Choice;
use journal::clock;

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
    let store = settings.open_store().map_err(failed)?;
    let cluster = Cluster::new(&*store, conf.settings.layout.clone());
    let desk = Desk::new(&cluster, &conf.settings, &conf.spec.name)?;

    let own_room = desk.ledger()?.is_some_and(|ledger| {
        let held = ledger.held();
        let room = |range| held.choose(range, clock::uptime(), 0) != Choice::Full;
        ledger
            .network
            .record
            .ranges
            .iter()
            .all(|set| set.iter().any(room))
    });
    match cluster.news(&conf.spec.name).await {
        Ok(_) | Err(_) if own_room => Ok(()),
        Err(error) => Err(Error::not_ready(format!(
            "network {}: {error}",
            conf.spec.name
        ))),
        Ok(news) => {
            let ranges = news
                .network
                .as_ref()
                .map_or(&conf.spec.ranges, |network| &network.record.ranges);
            let taken = news.blocks.keys().copied().collect();
            let prefix = |range: &ipam::Range| {
                let default = range.default_block_prefix();
                news.network
                    .as_ref()
                    .map_or(default, |network| network.record.block_prefix(range))
            };
            let room = |set: &ipam::RangeSet| {
                set.iter()
                    .any(|range| range.free_block(prefix(range), &taken).is_some())
            };
            let full = || {
                Error::not_ready(format!(
                    "network {}: address pool exhausted",
                    conf.spec.name
                ))
            };
            if ranges.iter().all(room) {
                Ok(())
            } else {
                Err(full())
            }
        }
    }
}
