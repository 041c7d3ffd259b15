//! Documents of networks that were removed from the store. A removal runs on one host; each other host forgets the network with
//! its next sync, once no container of it is left there.

use cluster::{Cluster, NodeView, Resolved};
use plugin::Error;

use crate::{
    follow::{follower, membership, store_check},
    segment::sandbox,
    state::host::Host,
};

/// Forgets all networks that were removed. A failure keeps none of the others.
pub(crate) async fn forget(
    host: &Host,
    cluster: &Cluster<'_>,
    settings: &Resolved,
    node_view: &NodeView,
) -> Vec<Error> {
    let names = host.snapshots.names().and_then(|mut names| {
        names.extend(host.store_refs.names()?);
        Ok(names)
    });
    let mut names = match names {
        Ok(names) => names,
        Err(error) => return vec![error.into()],
    };
    names.sort();
    names.dedup();
    names.retain(|name| node_view.networks.get(name).is_none());
    let mut failures = Vec::new();
    for name in names {
        let forgotten = forget_network(host, cluster, settings, &name).await;
        failures.extend(forgotten.err());
    }
    failures
}

/// Forgets one network, if the store says that it was removed: a network that the store has only lost keeps its VNI here.
async fn forget_network(
    host: &Host,
    cluster: &Cluster<'_>,
    settings: &Resolved,
    network: &str,
) -> Result<(), Error> {
    let there = store_check::noted(host, network)?;
    if there.is_some_and(|there| !there.has_same_name(&settings.store_ref())) {
        return Ok(());
    }
    let _lock = host.lock_network(network)?;
    if host.has_users(network)?
        || membership::load(host, network)?.is_some()
        || sandbox::open(network)?.is_some()
    {
        return Ok(());
    }
    let copy = follower::copy(host, network)?;
    if let Some(known) = copy.and_then(|copy| copy.network)
        && !cluster.was_removed(&known.record).await?
    {
        return Ok(());
    }
    host.snapshots.remove(network)?;
    Ok(host.store_refs.remove(network)?)
}
