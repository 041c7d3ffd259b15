//! `crosshost sync`: registers this host, brings its forwarding up to date, and tells the store what it has missed.

use std::path::Path;

use cluster::Node;
use journal::clock;
use overlay::maintain::sync::Synced;

use crate::{
    conflists::{self, Brought},
    session::{Result, Session},
};

/// The message after published ports were repaired.
pub const PORTS: &str = "published ports: mended";

/// What was done, and what failed.
pub struct Done {
    /// The networks whose sandboxes were brought up to date.
    pub networks: Vec<Synced>,
    /// Whether published ports were missing from the kernel's table.
    pub ports: bool,
    /// What became of this host's conflists.
    pub conflists: Brought,
    /// What of these could not be brought there.
    behind: Vec<plugin::Error>,
    /// Other failures, with what they are about.
    late: Vec<(String, cluster::Error)>,
}

impl Done {
    /// The failures in one line; `None` if there are none.
    pub fn late(&self) -> Option<String> {
        let named = |(what, failure): &(String, cluster::Error)| failure.about(what);
        let behind = self.behind.iter().map(ToString::to_string);
        let conflists = self.conflists.failures.iter().cloned();
        let named = self.late.iter().map(named).chain(conflists);
        let mut late: Vec<_> = behind.chain(named).collect();
        late.dedup();
        (!late.is_empty()).then(|| late.join("; "))
    }

    /// Whether they happened because the store went away.
    pub fn is_away(&self) -> bool {
        self.late.iter().any(|(_, error)| error.is_away())
            || self
                .behind
                .iter()
                .any(|error| error.code == cni::code::AGAIN)
    }
}

/// Syncs once, for an operator.
pub async fn sync(session: &Session) -> Result<String> {
    let done = once(session, true).await?;
    if let Some(late) = done.late() {
        return Err(late.into());
    }
    let mut lines: Vec<_> = done.networks.iter().map(line).collect();
    lines.extend(done.ports.then(|| PORTS.to_owned()));
    lines.extend(done.conflists.lines);
    lines.push(format!("node {}: in sync\n", session.settings.node));
    Ok(lines.join("\n"))
}

/// Refuses to repair what a newer version made: see [`journal::layout`].
pub fn admitted() -> Result<()> {
    let root = Path::new(journal::ROOT);
    Ok(journal::layout::admit(root, cni::build::BUILD)?)
}

/// What was done to one network.
pub fn line(done: &Synced) -> String {
    cni::line(format!(
        "network {}: {} forwarding entries changed",
        done.network, done.changes
    ))
}

/// Syncs once. With `contact` it also writes the time of this host's contact.
pub async fn once(session: &Session, contact: bool) -> Result<Done> {
    admitted()?;
    let (cluster, settings) = (session.cluster(), &session.settings);
    let failed = |error: plugin::Error| error.to_string();
    // These repairs need no store.
    let ports = portmap::repair().await;
    let (node_view, data_dirs) =
        tokio::join!(cluster.node_view(&settings.node), cluster.data_dirs());
    let node_view = node_view?;
    // Fails if this name belongs to another host. Nothing more is done then.
    let forwarding = Box::pin(overlay::maintain::sync::sync(
        &cluster, settings, &node_view,
    ))
    .await
    .map_err(failed)?;
    let late = Box::pin(ipam_kv::sync(settings, node_view, data_dirs))
        .await
        .map_err(failed)?;
    // Networks that the store had lost may have been written again a moment ago.
    let (mut networks, mut behind) = (forwarding.done, forwarding.failures);
    if behind.is_empty() {
        for network in overlay::segment::sandbox::networks().map_err(failed)? {
            if networks.iter().any(|done| done.network == network) {
                continue;
            }
            let synced = overlay::maintain::sync::sync_network(&cluster, settings, &network);
            match Box::pin(synced).await {
                Ok(done) => networks.extend(done),
                Err(error) => behind.push(error),
            }
        }
    }
    if contact {
        // The steps above write a registered node's record only if it changed, so the contact is written here. It comes last: a
        // host with another host's name has been refused by then, and the old record told whether the store was put back to
        // an earlier state.
        let node = Node {
            name: settings.node.clone(),
            // The configured address may have been refused a moment ago.
            vtep: journal::tunnel::vtep(),
            boot_id: clock::boot_id()?,
            machine_id: clock::machine_id(),
            last_contact: clock::unix(),
            version: Some(cni::build::VERSION.to_owned()),
            commit: Some(cni::build::COMMIT.to_owned()),
        };
        cluster.register(&node).await?;
    }
    let conflists = conflists::bring(session).await?;
    let ports = ports.unwrap_or_else(|error| {
        behind.push(error);
        false
    });
    Ok(Done {
        networks,
        ports,
        conflists,
        behind,
        late,
    })
}
