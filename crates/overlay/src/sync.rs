//! Sync: this host is known, its sandboxes forward as the news say, and the others know that they do. What every ADD
//! does in passing, for all networks of the host at once; and what a verb could not tell the store is told.

use cluster::{Cluster, News, Resolved};
use cni::Error;
use netlink::Netns;

use crate::{
    egress, failed, firewall,
    host::{Host, Underlay},
    kernel, local, membership, names,
    news::{Follower, Heard},
    sandbox,
};

/// What a sync did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// The network.
    pub network: String,
    /// How many forwarding entries were not as the news say.
    pub changes: usize,
}

/// Registers this host and brings each of its sandboxes to the news.
pub async fn sync(cluster: &Cluster<'_>, settings: &Resolved) -> Result<Vec<Synced>, Error> {
    let host = Host::open()?;
    let nodes = cluster.nodes().await.map_err(failed)?;
    let nodes = nodes
        .into_iter()
        .map(|node| (node.record.name.clone(), node))
        .collect();
    let underlay = host.underlay(settings).await?;
    let nodes = News {
        nodes,
        ..News::default()
    };
    let registered = host.enrol(cluster, settings, &nodes, underlay.vtep).await?;
    let mut done = Vec::new();
    for network in Netns::list(&names::sandboxes()).map_err(|error| kernel(&error))? {
        let follower = Follower {
            host: &host,
            cluster,
            settings,
            network: &network,
        };
        let changes = follow(&follower, &underlay, Doubt::of(registered)).await?;
        done.extend(changes.map(|changes| Synced { network, changes }));
    }
    egress::mend(&host).await?;
    firewall::mend(&host)?;
    leave(&host, cluster, settings).await?;
    Ok(done)
}

/// Brings the sandbox of one network to the news, for who has heard that there are some: the store was there a moment
/// ago and is not asked whether it still knows what this host told it. `None` where there is nothing to be brought.
pub async fn sync_network(
    cluster: &Cluster<'_>,
    settings: &Resolved,
    network: &str,
) -> Result<Option<Synced>, Error> {
    let host = Host::open()?;
    let underlay = host.underlay(settings).await?;
    let follower = Follower {
        host: &host,
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

/// Whether the store may have forgotten that this host forwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// It has not.
    None,
    /// It is to be asked.
    Some,
    /// It has: it had forgotten the host itself.
    Certain,
}

impl Doubt {
    fn of(registered: bool) -> Self {
        if registered {
            Self::Certain
        } else {
            Self::Some
        }
    }
}

/// Brings one sandbox to the news; `None` where there is nothing to be brought.
async fn follow(
    follower: &Follower<'_>,
    underlay: &Underlay,
    doubt: Doubt,
) -> Result<Option<usize>, Error> {
    let (host, network) = (follower.host, follower.network);
    let _lock = host.lock_network(network)?;
    // Listed before it was locked: its last user may have gone with it since, or been killed while leaving.
    if !has_users(host, network)? {
        sandbox::remove_unused(host, network).await?;
        return Ok(None);
    }
    let away = || Error::again(format!("network {network}: the store went away"));
    let anew = match doubt {
        Doubt::None => false,
        Doubt::Some => !follower.is_known().await?,
        Doubt::Certain => true,
    };
    let Heard::News(mut reading) = follower.hear(anew).await? else {
        return Err(away());
    };
    if follower.is_older(&reading)? {
        let Heard::News(again) = follower.hear(true).await? else {
            return Err(away());
        };
        reading = again;
    }
    // A network that the store has lost still serves the containers it has; there is nothing newer to say.
    let Some(record) = reading.news.network.clone().map(|network| network.record) else {
        return Ok(None);
    };
    let sandbox = sandbox::ensure(host, &record, underlay).await?;
    follower.follow(&sandbox, reading, &[]).await.map(Some)
}

/// Leaves the networks that have no sandbox here: a verb could not tell the store, or was killed before it did.
async fn leave(host: &Host, cluster: &Cluster<'_>, settings: &Resolved) -> Result<(), Error> {
    for member in host.members.all().map_err(|error| local(&error))? {
        let network = &member.network;
        {
            let _lock = host.lock_network(network)?;
            if has_users(host, network)? || sandbox::open(network)?.is_some() {
                continue;
            }
            membership::leave(host, network)?;
        }
        membership::tell(host, cluster, network, &settings.node).await?;
    }
    // A join that this host does not know of came back with a store that was put back.
    let node = &settings.node;
    for (network, join) in cluster.joins_of(node).await.map_err(failed)? {
        let _lock = host.lock_network(&network)?;
        if !has_users(host, &network)? && membership::load(host, &network)?.is_none() {
            let left = cluster.leave(&network, node, &join).await;
            left.map_err(failed)?;
        }
    }
    Ok(())
}

pub(crate) fn has_users(host: &Host, network: &str) -> Result<bool, Error> {
    let users = host.users.load(network).map_err(|error| local(&error))?;
    Ok(users.is_some_and(|users| !users.0.is_empty()))
}
