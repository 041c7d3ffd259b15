//! Sync: registers this host, makes its sandboxes forward by the newest records, and acknowledges that in the store. Every ADD does
//! this for its own network; sync does it for all of them, and writes to the store what a verb could not.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    Cluster, Node, NodeView, Resolved, Versioned,
    forwarder::{Doubt, Update},
};
use plugin::Error;

use crate::{
    egress,
    endpoint::bandwidth,
    firewall::table,
    follow::{
        follower::{self, Follower},
        membership,
    },
    host_link,
    maintain::{in_place, teardown},
    segment::{forwarding::peers, path_mtu, sandbox},
    state::{host::Host, removed, underlay::Underlay},
};

/// What a sync did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The network.
    pub network: String,
    /// How many objects and forwarding entries of its sandbox were not as the records say.
    pub changes: usize,
}

/// What a sync did, and what it could not do.
#[derive(Debug)]
pub struct Outcome {
    /// The networks that forward by the newest records.
    pub done: Vec<Synced>,
    /// Why others do not.
    pub failures: Vec<Error>,
}

/// Registers this host with its tunnel address, and makes each of its sandboxes forward by the newest records. A host that has
/// neither a sandbox nor a tunnel address in its record may only allocate addresses. It needs no underlay, and without one its
/// record is left to the IPAM plugin. After an error this host must do nothing else.
pub async fn sync(
    cluster: &Cluster<'_>,
    settings: &Resolved,
    node_view: &NodeView,
) -> Result<Outcome, Error> {
    let host = Host::open()?;
    let nodes = &node_view.nodes;
    let mut sandboxes = sandbox::networks()?;
    sandboxes.extend(sandbox::networks_elsewhere()?);
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    match host.underlay(settings).await {
        Ok(underlay) => {
            let registered = host.enrol(cluster, settings, nodes, underlay.vtep).await?;
            let doubt = if registered {
                Doubt::Certain
            } else {
                Doubt::Some
            };
            for network in &sandboxes {
                let follower = Follower {
                    host: &host,
                    cluster,
                    settings,
                    network,
                };
                match follow(&follower, &underlay, doubt).await {
                    Ok(changes) => done.extend(changes.map(|changes| Synced {
                        network: network.clone(),
                        changes,
                    })),
                    Err(error) => failures.push(error),
                }
            }
            let looked = look_at_paths(&host, settings, &underlay, &sandboxes).await;
            failures.extend(looked.err());
        }
        Err(error) => {
            let has_vtep = |node: &Versioned<Node>| node.record.vtep.is_some();
            let known = nodes.get(&settings.node);
            let forwards = known.is_some_and(|it| it.readable().is_none_or(has_vtep));
            let named = settings.underlay.is_some() || settings.vtep.is_some();
            if forwards || named || !sandboxes.is_empty() {
                failures.push(error);
            }
        }
    }
    failures.extend(egress::repair(&host).await.err());
    failures.extend(table::repair(&host).err());
    failures.extend(leave(&host, cluster, settings, &node_view.joins).await);
    failures.extend(removed::forget(&host, cluster, settings, node_view).await);
    Ok(Outcome { done, failures })
}

/// Measures the path MTU to all hosts of these networks.
async fn look_at_paths(
    host: &Host,
    settings: &Resolved,
    underlay: &Underlay,
    networks: &[String],
) -> Result<(), Error> {
    if networks.is_empty() {
        return Ok(());
    }
    let mut all = BTreeSet::new();
    for network in networks {
        let snapshot = follower::copy(host, network)?.unwrap_or_default();
        all.extend(peers(&snapshot, &settings.node, underlay.vtep));
    }
    path_mtu::measure_anew(host, (underlay.vtep, underlay.mtu), &all).await
}

/// Leaves the network, if it has no sandbox here.
async fn leave_unused(follower: &Follower<'_>) -> Result<(), Error> {
    let (host, network) = (follower.host, follower.network);
    {
        let _lock = host.lock_network(network)?;
        if host.has_users(network)? || sandbox::open(network)?.is_some() {
            return Ok(());
        }
        membership::leave(host, network)?;
    }
    follower.same_store().await?;
    follower.tell_leave().await
}

/// Makes the sandbox of one network forward by the newest records, after a watch has reported a change. The store answered a
/// moment ago, so it is not asked whether it still has what this host wrote. `None` if nothing had to be done.
pub async fn sync_network(
    cluster: &Cluster<'_>,
    settings: &Resolved,
    network: &str,
) -> Result<Option<Synced>, Error> {
    let host = &Host::open()?;
    let underlay = host.underlay(settings).await?;
    let follower = Follower {
        host,
        cluster,
        settings,
        network,
    };
    let changes = follow(&follower, &underlay, Doubt::None).await?;
    Ok(changes.map(|changes| Synced {
        network: network.to_owned(),
        changes,
    }))
}

/// Makes one sandbox forward by the newest records. `None` if nothing had to be done.
async fn follow(
    follower: &Follower<'_>,
    underlay: &Underlay,
    doubt: Doubt,
) -> Result<Option<usize>, Error> {
    follower.same_store().await?;
    let (host, network) = (follower.host, follower.network);
    let _lock = host.lock_network(network)?;
    // It was listed before it was locked. Since then its last user may have removed it, or been killed while it left.
    if !host.needs_sandbox(network).await? {
        teardown::remove_unused(host, network).await?;
        return Ok(None);
    }
    let reading = match follower.read_for_sync(doubt).await? {
        Update::Snapshot(reading) => reading,
        Update::StoreAway(why) => {
            go_on_alone(follower, underlay).await?;
            return Err(Error::again(format!("network {network}: {why}")));
        }
        // A network that the store has lost still serves its containers. There are no newer records.
        Update::Replaced | Update::Unchanged => {
            go_on_alone(follower, underlay).await?;
            return Ok(None);
        }
    };
    let Some(record) = reading
        .snapshot
        .network
        .clone()
        .map(|network| network.record)
    else {
        return Ok(None);
    };
    let sandbox = sandbox::ensure(host, &record, underlay).await?;
    let was_off = host_link::repair(host, network, &sandbox).await?;
    let changes = follower.sync(&sandbox, reading).await?;
    let unlimited = bandwidth::repair(host, network, &sandbox.rtnl).await?;
    let behind = in_place::follow(host, &record).await?;
    let mended = usize::from(was_off) + usize::from(unlimited) + behind;
    Ok(Some(sandbox.changes + changes + mended))
}

/// Floods if this host is not a member any more and could not become one again, because homes in its snapshot may have ended.
async fn go_on_alone(follower: &Follower<'_>, underlay: &Underlay) -> Result<(), Error> {
    let copy = follower::copy(follower.host, follower.network)?;
    let Some(network) = copy.and_then(|copy| copy.network) else {
        return Ok(());
    };
    match sandbox::find(follower.host, &network.record, underlay).await? {
        Some(sandbox) => follower.sync_alone(&sandbox).await,
        None => Ok(()),
    }
}

/// Leaves the networks that have no sandbox here, because a verb could not write that to the store or was killed before it did.
/// Returns the errors; the other networks are left all the same.
async fn leave(
    host: &Host,
    cluster: &Cluster<'_>,
    settings: &Resolved,
    joins: &BTreeMap<String, u64>,
) -> Vec<Error> {
    let members = match membership::all(host) {
        Ok(members) => members,
        Err(error) => return vec![error],
    };
    let mut failures = Vec::new();
    for member in members {
        let follower = Follower {
            host,
            cluster,
            settings,
            network: &member.network,
        };
        failures.extend(leave_unused(&follower).await.err());
    }
    // A join that this host does not know came back when the store was restored.
    for (network, join) in joins {
        let left = leave_unknown(host, cluster, &settings.node, network, *join);
        failures.extend(left.await.err());
    }
    failures
}

async fn leave_unknown(
    host: &Host,
    cluster: &Cluster<'_>,
    node: &str,
    network: &str,
    join: u64,
) -> Result<(), Error> {
    let _lock = host.lock_network(network)?;
    if host.has_users(network)? || membership::load(host, network)?.is_some() {
        return Ok(());
    }
    cluster
        .leave(network, node, join)
        .await
        .map_err(Error::from)
}
