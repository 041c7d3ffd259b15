//! Of which store a network's documents here are. A conflist may name another store than the host's own settings do: what a
//! sandbox forwards by is read from the one, and only that one is told.

use cluster::{Cluster, Resolved, StoreRef};
use plugin::Error;

use crate::state::host::Host;

/// Whether a verb may begin on a network; the documents of another store go if nothing here rests on them. Code 103 if
/// something does.
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
    let Some(there) = elsewhere(host, cluster, settings, network).await? else {
        return note(host, network, &here);
    };
    let _lock = host.lock_network(network)?;
    if host.has_users(network)? {
        return Err(there.refuse(network, &here).into());
    }
    host.snapshots
        .remove(network)
        .and_then(|()| host.members.remove(network))?;
    note(host, network, &here)
}

/// Refuses what [`admit`] would refuse. Changes nothing.
pub(crate) async fn refuse(
    host: &Host,
    cluster: &Cluster<'_>,
    settings: &Resolved,
    network: &str,
) -> Result<(), Error> {
    match documents(host, cluster, settings, network).await? {
        Documents::Of(there) if host.has_users(network)? => {
            Err(there.refuse(network, &settings.store_ref()).into())
        }
        _ => Ok(()),
    }
}

/// The other store that the documents of a network are of; `None` if they are of the one at hand, or if that is away, so that
/// it is told nothing. Asks only where the store is called otherwise than before.
pub(crate) async fn elsewhere(
    host: &Host,
    cluster: &Cluster<'_>,
    settings: &Resolved,
    network: &str,
) -> Result<Option<StoreRef>, Error> {
    match documents(host, cluster, settings, network).await? {
        Documents::Of(there) => Ok(Some(there)),
        Documents::OfHere { renamed } => {
            if renamed {
                note(host, network, &settings.store_ref())?;
            }
            Ok(None)
        }
    }
}

/// Of which store the documents of a network are.
enum Documents {
    /// Of that at hand, or of one that cannot be told from it while that is away.
    OfHere {
        /// It was called otherwise when they were written.
        renamed: bool,
    },
    /// Of another one.
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

/// What is noted of a network; one that cannot be read is as good as none.
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
