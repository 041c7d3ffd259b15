//! `crosshost gc`: for runtimes that call neither DEL nor GC. On all networks it removes what belongs to containers that are gone,
//! as their DEL would have done.
//!
//! An address that `ipam-kv` gave out under another interface plugin stays: nothing here tells whether its container runs. The ports
//! of such a container go if the result of that plugin named the host's end of a veth pair.

use cluster::LocalStore as _;
use ipam_kv::local_store::FsLocalStore;
use journal::Attachment;
use overlay::{
    maintain::stale,
    state::{attachment::Record, host::Host},
};

use crate::{
    commands::sync,
    connect,
    exit::ReportFailed,
    session::{Result, Session},
};

/// Removes what a DEL of the other plugins of the chain would have removed.
pub async fn release(attachment: &Attachment) -> std::result::Result<(), plugin::Error> {
    portmap::forget(attachment)?;
    ipam_kv::forget(attachment).await
}

/// What is left of a container that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Orphan {
    /// An attachment of `overlay`, with all that the other plugins of the chain did for it.
    Attached(Box<Record>),
    /// Published ports of an attachment of another interface plugin.
    Published(Box<portmap::record::Record>),
}

impl Orphan {
    /// All orphans of this host. `told` hears of what cannot be judged.
    pub async fn all(
        host: &Host,
        told: &dyn Fn(String),
    ) -> std::result::Result<Vec<Self>, plugin::Error> {
        let attached = stale::all(host, told).await?.into_iter();
        let mut all: Vec<_> = attached.map(|it| Self::Attached(Box::new(it))).collect();
        let published = portmap::stale::all().await?.into_iter();
        all.extend(published.map(|it| Self::Published(Box::new(it))));
        Ok(all)
    }

    /// Removes it like a DEL; false if a verb of its container was quicker.
    pub async fn take_down(&self, host: &Host) -> std::result::Result<bool, plugin::Error> {
        match self {
            Self::Attached(record) => stale::take_down(host, record, release).await,
            Self::Published(record) => portmap::stale::take_down(record),
        }
    }

    /// What it is of.
    pub fn attachment(&self) -> &Attachment {
        match self {
            Self::Attached(record) => &record.attachment,
            Self::Published(record) => &record.attachment,
        }
    }

    /// The path of the namespace that is gone.
    fn netns(&self) -> String {
        let path = match self {
            Self::Attached(record) => Some(&record.netns),
            Self::Published(record) => record.life.as_ref().map(|life| &life.netns),
        };
        path.map_or_else(String::new, |path| path.display().to_string())
    }
}

/// Removes from the store what is left of networks of which it has no record, or lists it.
async fn leftovers(session: &Session, dry: bool) -> Result<Vec<String>> {
    let (node, boot) = (&session.settings.node, journal::clock::boot_id()?);
    let mut said = Vec::new();
    for cluster in session.clusters().await? {
        let files = FsLocalStore::new(cluster.data_dir());
        for (name, leftovers) in cluster.leftovers().await? {
            // The lease of a container of this host that is gone: nothing here holds the address.
            let is_void = |lease: &cluster::Lease| {
                let local_lease = files.lease(&name, &lease.owner());
                lease.node == *node
                    && lease.boot_id == boot
                    && matches!(local_lease, Ok(cluster::Noted::Nothing))
            };
            let called = cluster.full_name(&name);
            if dry {
                said.extend(
                    leftovers
                        .keys
                        .iter()
                        .map(|key| format!("{key}: no network {called}\n")),
                );
                continue;
            }
            match cluster.sweep(&name, &is_void).await {
                Ok(0) => {}
                Ok(keys) => said.push(format!("network {called}: {keys} keys left in the store\n")),
                // The hosts of its containers write it again.
                Err(error @ cluster::Error::Forgotten { .. }) => cni::log(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(said)
}

/// Removes what is left, or lists it.
pub async fn sweep(session: &Session, dry: bool) -> Result<String> {
    if !dry {
        sync::admitted()?;
    }
    let failed = |error: plugin::Error| error.to_string();
    let host = Host::open().map_err(failed)?;
    let (mut said, mut failures) = (Vec::new(), false);
    for orphan in Orphan::all(&host, &|why| cni::log(&why))
        .await
        .map_err(failed)?
    {
        let done = if dry {
            Ok(true)
        } else {
            orphan.take_down(&host).await
        };
        let (attachment, netns) = (orphan.attachment(), orphan.netns());
        let line = match done {
            Ok(true) => format!("{attachment}: {netns} is gone"),
            Ok(false) => continue,
            Err(error) => {
                failures = true;
                format!("{attachment}: failed: {error}")
            }
        };
        said.push(format!("{}\n", cni::line(line)));
    }
    if !dry {
        // Those under other interface plugins: overlay has a record of the others.
        let (lines, failed) = Box::pin(connect::sweep()).await?;
        failures |= !failed.is_empty();
        let failed = failed.into_iter().map(cni::line);
        said.extend(lines.into_iter().chain(failed).map(|line| line + "\n"));
    }
    for network in stale::lone(&host).map_err(failed)? {
        let done = if dry {
            Ok(true)
        } else {
            stale::release_host(&host, &network, release).await
        };
        match done {
            Ok(true) => said.push(format!("network {network}: this host's own address\n")),
            Ok(false) => {}
            Err(error) => {
                failures = true;
                said.push(format!("network {network}: failed: {error}\n"));
            }
        }
    }
    // The store is told now, or with the next sync.
    if !dry && !said.is_empty() {
        let late = sync::once(session, false).await;
        if let Some(late) = late.map_or_else(|error| Some(error.to_string()), |done| done.late()) {
            cni::log(&format!("the store was not told yet: {late}"));
        }
    }
    match leftovers(session, dry).await {
        Ok(swept) => said.extend(swept),
        Err(error) => {
            failures = true;
            said.push(format!("the store: {error}\n"));
        }
    }
    let said = said.concat();
    if failures {
        return Err(ReportFailed(said).into());
    }
    Ok(said)
}
