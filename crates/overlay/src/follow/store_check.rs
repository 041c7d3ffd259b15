//! A host has one store. An ADD that would use a second one is refused while containers on this host were made with the
//! first, and nothing that was read from one store is told to another.

use cluster::{Cluster, Resolved, StoreRef};
use plugin::Error;

use crate::state::host::Host;

/// Refuses an ADD that would use a second store on this host. What was read from another store is removed if no container
/// needs it.
pub(crate) async fn admit(
    host: &Host,
    cluster: &Cluster<'_>,
    settings: &Resolved,
    network: &str,
) -> Result<(), Error> {
    let here = settings.store_ref();
    if noted(host, network)?.as_ref() == Some(&here) {
        return Ok(());
    }
    refuse(host, cluster, settings, network).await?;
    for other in known(host, network, &here)? {
        if let Documents::Of(there) = documents(host, cluster, settings, &other).await? {
            let _lock = host.lock_network(&other)?;
            if host.has_users(&other)? {
                return Err(there.refuse(&other, &here).into());
            }
            host.snapshots.remove(&other)?;
            host.members.remove(&other)?;
            host.places.remove(&other)?;
        }
    }
    note(host, network, &here)
}

/// Refuses what [`admit`] would refuse. Changes nothing.
pub(crate) async fn refuse(
    host: &Host,
    cluster: &Cluster<'_>,
    settings: &Resolved,
    network: &str,
) -> Result<(), Error> {
    let here = settings.store_ref();
    for network in known(host, network, &here)? {
        if host.has_users(&network)?
            && let Documents::Of(there) = documents(host, cluster, settings, &network).await?
        {
            return Err(there.refuse(&network, &here).into());
        }
    }
    Ok(())
}

/// The network, and others of this host for which another store than `here` is noted.
fn known(host: &Host, network: &str, here: &StoreRef) -> Result<Vec<String>, Error> {
    let mut known = vec![network.to_owned()];
    for name in host.places.names()? {
        let is_another = |there: &StoreRef| there.is_another(here);
        if name != network && noted(host, &name)?.as_ref().is_some_and(is_another) {
            known.push(name);
        }
    }
    Ok(known)
}

/// Refuses to tell the store at hand of a network whose documents were read from another store: a configuration was
/// changed, or an older version took a conflist with a store of its own.
pub(crate) async fn same_store(
    host: &Host,
    cluster: &Cluster<'_>,
    settings: &Resolved,
    network: &str,
) -> Result<(), Error> {
    let here = settings.store_ref();
    match documents(host, cluster, settings, network).await? {
        Documents::Of(there) => Err(there.refuse(network, &here).into()),
        Documents::OfHere { renamed: true } => note(host, network, &here),
        Documents::OfHere { renamed: false } => Ok(()),
    }
}

/// From which store the documents of a network were read.
enum Documents {
    /// From the store at hand, or from one that cannot be told from it while that is away.
    OfHere {
        /// It had another name when they were written.
        renamed: bool,
    },
    /// From another store.
    Of(StoreRef),
}

async fn documents(
    host: &Host,
    cluster: &Cluster<'_>,
    settings: &Resolved,
    network: &str,
) -> Result<Documents, Error> {
    let here = settings.store_ref();
    let there = noted(host, network)?;
    let Some(there) = there.filter(|there| !there.is_called_as(&here)) else {
        return Ok(Documents::OfHere { renamed: false });
    };
    let present = match cluster.network(network).await {
        Err(error) if error.is_away() => return Ok(Documents::OfHere { renamed: false }),
        present => present?.map(|present| present.record),
    };
    let known = host.snapshots.load_readable(network, &|_| ())?;
    let known = known.and_then(|snapshot| snapshot.network).zip(present);
    if known.is_some_and(|(known, present)| present.is_same(&known.record)) {
        return Ok(Documents::OfHere { renamed: true });
    }
    Ok(Documents::Of(there))
}

/// The store that is noted for a network; `None` also if the note cannot be read.
pub(crate) fn noted(host: &Host, network: &str) -> Result<Option<StoreRef>, Error> {
    let noted = host.places.load_readable(network, &|_| ());
    noted.map_err(Error::from)
}

/// Several verbs may find at once that nothing is noted yet.
fn note(host: &Host, network: &str, store_ref: &StoreRef) -> Result<(), Error> {
    let _lock = host.lock(&format!("place-{network}"))?;
    let saved = host.places.save(network, store_ref);
    saved.map_err(Error::from)
}
