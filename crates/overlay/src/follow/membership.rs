//! Membership: that this host forwards on a network, as the store was told.
//!
//! An address changes its home only after every member has dropped the old one. So a host joins before it reads the
//! news that it forwards by, and leaves only when it forwards no more. The document says how far that is. It is
//! written before the store is told, so that a verb that is killed meanwhile leaves no member that nobody knows of; and
//! what the store could not be told, for example because a DEL has no settings, it is told by the next verb or sync.
//!
//! Verbs join side by side without waiting for each other: no lock is held while the store is asked. The
//! revision of the join tells whose counts, and a leave counts only for the join that it is of.

use std::{collections::BTreeSet, net::IpAddr};

use cluster::{Acknowledgement, Cluster, Versioned};
use journal::{Found, Unreadable};
use plugin::Error;
use serde::{Deserialize, Serialize};

use crate::{segment::forwarding::Trust, state::host::Host};

/// How often a join begins anew because somebody left meanwhile.
const ATTEMPTS: u32 = 8;

/// That this host forwards on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// The network.
    pub network: String,
    /// Our record in the store as we know it; absent while a join is under way, or after one was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Versioned<Acknowledgement>>,
    /// Whether the local copy of the news was read since the join. Only such a copy is forwarded by when the store is
    /// away.
    #[serde(default)]
    pub follows: bool,
    /// Addresses that containers here got while the store was away and that the copy has elsewhere.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub local: BTreeSet<IpAddr>,
    /// Whether nothing is forwarded any more and the store is still to be told so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

impl Membership {
    /// Our record in the store, if we are a member for all we know.
    pub fn joined(&self) -> Option<&Versioned<Acknowledgement>> {
        self.own.as_ref().filter(|_| !self.left)
    }

    /// How far the local copy of the news can be relied on.
    pub fn trust(&self) -> Trust<'_> {
        match self.joined() {
            Some(_) if self.follows => Trust::Homes { local: &self.local },
            _ => Trust::Floods,
        }
    }

    fn revision(&self) -> u64 {
        self.own.as_ref().map_or(0, |own| own.revision)
    }

    /// After the store took our join at `own`; whether we are a member now. Not so if somebody left meanwhile: that
    /// may have been after our join.
    fn learn(&mut self, own: &Versioned<Acknowledgement>) -> bool {
        if self.left {
            return false;
        }
        if self.revision() < own.revision {
            self.own = Some(own.clone());
            self.follows = false;
        }
        true
    }
}

/// The document of a network. One that cannot be read is as good as a join that was killed: the store may know of us.
pub fn load(host: &Host, network: &str) -> Result<Option<Membership>, Error> {
    let found = host.members.load(network);
    Ok(match found? {
        Found::Absent => None,
        Found::Readable(member) => Some(member),
        Found::Unreadable(unreadable) => Some(unknown(&unreadable)),
    })
}

/// Whether there is a document that cannot be read.
pub fn is_lost(host: &Host, network: &str) -> Result<bool, Error> {
    let found = host.members.load(network)?;
    Ok(matches!(found, Found::Unreadable(_)))
}

/// The documents of all networks.
pub fn all(host: &Host) -> Result<Vec<Membership>, Error> {
    let all = host.members.all()?;
    let unknown = all.unreadable.iter().map(unknown);
    Ok(all.readable.into_iter().chain(unknown).collect())
}

fn unknown(unreadable: &Unreadable) -> Membership {
    cni::log(&unreadable.to_string());
    Membership {
        network: unreadable.name(),
        ..Membership::default()
    }
}

/// Changes the document, `None` being that there is none; what `change` says.
pub fn update<T>(
    host: &Host,
    network: &str,
    change: impl FnOnce(&mut Option<Membership>) -> T,
) -> Result<T, Error> {
    let _lock = host.lock(&format!("acks-{network}"))?;
    let before = load(host, network)?;
    let mut after = before.clone();
    let said = change(&mut after);
    match &after {
        _ if after == before => {}
        Some(member) => host.members.save(network, member)?,
        None => host.members.remove(network)?,
    }
    Ok(said)
}

/// Makes this host a member, unless it is one already; with `anew` in any case, since the store may have forgotten it.
/// The news to forward by are to be read after this, and this node is registered in this boot before. `None` where the store has
/// no such network.
pub async fn enter(
    host: &Host,
    cluster: &Cluster<'_>,
    network: &str,
    node: &str,
    anew: bool,
) -> Result<Option<Versioned<Acknowledgement>>, Error> {
    let boot_id =
        journal::clock::boot_id().map_err(|error| Error::io(format!("boot id: {error}")))?;
    let mut anew = anew;
    for _ in 0..ATTEMPTS {
        if !anew && let Some(joined) = load(host, network)?.as_ref().and_then(Membership::joined) {
            return Ok(Some(joined.clone()));
        }
        let joined = update(host, network, |member| {
            let joined = member.as_ref().and_then(Membership::joined).cloned();
            if joined.is_some() && !anew {
                return joined;
            }
            // The addresses of containers here stay theirs, whatever the store knows of us.
            let local = member.take().map(|member| member.local);
            *member = Some(Membership {
                network: network.to_owned(),
                local: local.unwrap_or_default(),
                ..Membership::default()
            });
            None
        })?;
        if joined.is_some() {
            return Ok(joined);
        }
        let own = match cluster.join(network, node, &boot_id).await {
            Err(cluster::Error::NoNetwork(_)) => return Ok(None),
            own => own?,
        };
        let joined = update(host, network, |member| {
            let member = member.as_mut()?;
            let joined = member.learn(&own);
            member.own.clone().filter(|_| joined)
        })?;
        if joined.is_some() {
            return Ok(joined);
        }
        anew = false;
    }
    Err(Error::again(format!(
        "network {network}: left by others at each of {ATTEMPTS} attempts to join"
    )))
}

/// Notes that nothing is forwarded on the network any more: its sandbox is gone. The caller holds the network's lock.
pub fn leave(host: &Host, network: &str) -> Result<(), Error> {
    update(host, network, |member| {
        if let Some(member) = member {
            member.left = true;
        }
    })
}

/// Nothing is to be told of the network any more, unless somebody has joined again.
fn forget(host: &Host, network: &str) -> Result<(), Error> {
    update(host, network, |member| {
        if member.as_ref().is_some_and(|member| member.left) {
            *member = None;
        }
    })
}

/// Tells the store that this host left the network, if that is still to be told.
pub async fn tell(
    host: &Host,
    cluster: &Cluster<'_>,
    network: &str,
    node: &str,
) -> Result<(), Error> {
    let Some(member) = load(host, network)?.filter(|member| member.left) else {
        return Ok(());
    };
    let own = if let Some(own) = member.own {
        own
    } else {
        // A join was killed, or is under way: only one of our own has a revision that we know.
        let boot_id =
            journal::clock::boot_id().map_err(|error| Error::io(format!("boot id: {error}")))?;
        let own = match cluster.join(network, node, &boot_id).await {
            // What was written of it went with the network.
            Err(cluster::Error::NoNetwork(_)) => return forget(host, network),
            own => own?,
        };
        let left = update(host, network, |member| {
            let member = member.as_mut()?;
            let left = std::mem::take(&mut member.left);
            member.learn(&own);
            member.left = left;
            Some(left)
        })?;
        // Somebody else is at it, and forwards by our join as well as by its own.
        if left == Some(false) {
            return Ok(());
        }
        own
    };
    cluster.leave(network, node, own.revision).await?;
    update(host, network, |member| {
        if member
            .as_ref()
            .is_some_and(|member| member.left && member.revision() == own.revision)
        {
            *member = None;
        }
    })
}
