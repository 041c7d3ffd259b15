//! `crosshost sync`: this host is known, its forwarding follows the news, and the store knows what it missed.

use std::path::Path;

use cluster::Node;
use journal::clock;
use overlay::maintain::sync::Synced;

use crate::session::{Result, Session};

/// What is said of published ports that were mended.
pub const PORTS: &str = "published ports: mended";

/// What was done, and what could not be.
pub struct Done {
    /// The networks whose sandboxes were brought to the news.
    pub networks: Vec<Synced>,
    /// Whether published ports were not in the kernel as they should be.
    pub ports: bool,
    /// What of these could not be brought there.
    behind: Vec<plugin::Error>,
    /// What else could not be done, with what it is of.
    late: Vec<(String, cluster::Error)>,
}

impl Done {
    /// What could not be done, in one line; nothing if all was.
    pub fn late(&self) -> Option<String> {
        let named = |(what, failure): &(String, cluster::Error)| failure.about(what);
        let behind = self.behind.iter().map(ToString::to_string);
        let mut late: Vec<_> = behind.chain(self.late.iter().map(named)).collect();
        late.dedup();
        (!late.is_empty()).then(|| late.join("; "))
    }

    /// Whether that is because the store went away.
    pub fn is_away(&self) -> bool {
        self.late.iter().any(|(_, error)| error.is_away())
            || self
                .behind
                .iter()
                .any(|error| error.code == cni::code::AGAIN)
    }
}

/// Does all of it once, for an operator.
pub async fn sync(session: &Session) -> Result<String> {
    let done = once(session, true).await?;
    if let Some(late) = done.late() {
        return Err(late.into());
    }
    let mut lines: Vec<_> = done.networks.iter().map(line).collect();
    lines.extend(done.ports.then(|| PORTS.to_owned()));
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

/// Does all of it once; with `contact` the store also learns that this host was here just now.
pub async fn once(session: &Session, contact: bool) -> Result<Done> {
    admitted()?;
    let (cluster, settings) = (session.cluster(), &session.settings);
    let failed = |error: plugin::Error| error.to_string();
    // Of this host alone, whatever the store says.
    let ports = portmap::repair().await;
    let (node_view, realms) = tokio::join!(cluster.node_view(&settings.node), cluster.realms());
    let node_view = node_view?;
    // Refused where this name is another host's: nothing more is done then.
    let forwarding = Box::pin(overlay::maintain::sync::sync(
        &cluster, settings, &node_view,
    ))
    .await
    .map_err(failed)?;
    let late = ipam_kv::sync(settings, node_view, realms)
        .await
        .map_err(failed)?;
    // Networks that the store had lost may be there again just now.
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
        // The verbs write a known node's record only where it changed; that this host was here just now is said here. After
        // them: a host whose name is another's has been refused by its tunnel address, and whether the store was put back to
        // an earlier state shows in the record as it was.
        let node = Node {
            name: settings.node.clone(),
            // What the settings name may have been refused just now.
            vtep: journal::tunnel::vtep(),
            boot_id: clock::boot_id()?,
            machine_id: clock::machine_id(),
            last_contact: clock::unix(),
            version: Some(cni::build::VERSION.to_owned()),
            commit: Some(cni::build::COMMIT.to_owned()),
        };
        cluster.register(&node).await?;
    }
    let ports = ports.unwrap_or_else(|error| {
        behind.push(error);
        false
    });
    Ok(Done {
        networks,
        ports,
        behind,
        late,
    })
}
