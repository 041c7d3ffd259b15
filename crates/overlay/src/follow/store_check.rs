//! A host has one store. An ADD that would use a second one is refused while containers on this host were made with the
//! first, and nothing that was read from one store is told to another. A conflist that names another store than the configuration is
//! refused before that, by `Resolved::refuse_another_store` (`cluster/src/config/settings.rs`).

use cluster::StoreRef;
use plugin::Error;

use crate::{follow::follower::Follower, state::host::Host};

impl Follower<'_> {
    /// Refuses an ADD that would use a second store on this host. What was read from another store is removed if no container
    /// needs it.
    pub(crate) async fn admit(&self) -> Result<(), Error> {
        let (host, here) = (self.host, self.settings.store_ref());
        if noted(host, self.network)?.as_ref() == Some(&here) {
            return Ok(());
        }
        self.refuse_second_store().await?;
        for other in self.compared(&here)? {
            if let Documents::Of(there) = self.documents(&other).await? {
                let _lock = host.lock_network(&other)?;
                if host.has_users(&other)? {
                    return Err(there.refuse(&other, &here).into());
                }
                host.snapshots.remove(&other)?;
                host.members.remove(&other)?;
                host.store_refs.remove(&other)?;
            }
        }
        note(host, self.network, &here)
    }

    /// Refuses what [`admit`](Self::admit) would refuse. Changes nothing.
    pub(crate) async fn refuse_second_store(&self) -> Result<(), Error> {
        let here = self.settings.store_ref();
        for network in self.compared(&here)? {
            if self.host.has_users(&network)?
                && let Documents::Of(there) = self.documents(&network).await?
            {
                return Err(there.refuse(&network, &here).into());
            }
        }
        Ok(())
    }

    /// Refuses to tell the store at hand of a network whose documents were read from another store: a configuration was
    /// changed, or an older version took a conflist with a store of its own.
    pub(crate) async fn same_store(&self) -> Result<(), Error> {
        let here = self.settings.store_ref();
        match self.documents(self.network).await? {
            Documents::Of(there) => Err(there.refuse(self.network, &here).into()),
            Documents::OfHere { renamed: true } => note(self.host, self.network, &here),
            Documents::OfHere { renamed: false } => Ok(()),
        }
    }

    /// The network, and others of this host for which another store than `here` is noted.
    fn compared(&self, here: &StoreRef) -> Result<Vec<String>, Error> {
        let mut known = vec![self.network.to_owned()];
        for name in self.host.store_refs.names()? {
            let is_another = |there: &StoreRef| there.is_another(here);
            if name != self.network && noted(self.host, &name)?.as_ref().is_some_and(is_another) {
                known.push(name);
            }
        }
        Ok(known)
    }

    async fn documents(&self, network: &str) -> Result<Documents, Error> {
        let here = self.settings.store_ref();
        let there = noted(self.host, network)?;
        let Some(there) = there.filter(|there| !there.has_same_name(&here)) else {
            return Ok(Documents::OfHere { renamed: false });
        };
        let present = match self.cluster.network(network).await {
            Err(error) if error.is_away() => return Ok(Documents::OfHere { renamed: false }),
            present => present?.map(|present| present.record),
        };
        let known = self.host.snapshots.load_readable(network, &|_| ())?;
        let known = known.and_then(|snapshot| snapshot.network).zip(present);
        if known.is_some_and(|(known, present)| present.is_same(&known.record)) {
            return Ok(Documents::OfHere { renamed: true });
        }
        Ok(Documents::Of(Box::new(there)))
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
    Of(Box<StoreRef>),
}

/// The store that is noted for a network; `None` also if the note cannot be read.
pub(crate) fn noted(host: &Host, network: &str) -> Result<Option<StoreRef>, Error> {
    let noted = host.store_refs.load_readable(network, &|_| ());
    noted.map_err(Error::from)
}

/// Several verbs may find at once that nothing is noted yet.
fn note(host: &Host, network: &str, store_ref: &StoreRef) -> Result<(), Error> {
    let _lock = host.lock(&format!("place-{network}"))?;
    let saved = host.store_refs.save(network, store_ref);
    saved.map_err(Error::from)
}
