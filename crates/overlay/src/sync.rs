//! Sync: this host is known, and its sandboxes forward as the news say. What every ADD does in passing, for all
//! networks of the host at once.

use cluster::{Cluster, News, Resolved};
use cni::Error;
use netlink::Netns;

use crate::{failed, host::Host, kernel, local, names, sandbox};

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
    host.enrol(
        cluster,
        settings,
        &News {
            nodes,
            ..News::default()
        },
        underlay.vtep,
    )
    .await?;
    let mut done = Vec::new();
    for network in Netns::list(&names::sandboxes()).map_err(|error| kernel(&error))? {
        let _lock = host.lock_network(&network)?;
        // Listed before it was locked: its last user may have gone with it since, or been killed while leaving.
        if host
            .users
            .load(&network)
            .map_err(|error| local(&error))?
            .is_none_or(|users| users.0.is_empty())
        {
            sandbox::remove_unused(&host, &network).await?;
            continue;
        }
        let news = cluster.news(&network).await.map_err(failed)?;
        // A network that the store has lost still serves the containers it has; there is nothing newer to say.
        let Some(record) = news.network.as_ref().map(|network| &network.record) else {
            continue;
        };
        let sandbox = sandbox::ensure(&host, record, &underlay).await?;
        let changes = sandbox.reconcile(record, &news, &settings.node).await?;
        host.keep(&network, &news)?;
        done.push(Synced { network, changes });
    }
    Ok(done)
}
