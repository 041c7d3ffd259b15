//! `crosshost sync`: this host is known, its forwarding follows the news, and the store knows what it missed.

use cluster::Node;
use journal::clock;

use crate::command::{Result, Session};

/// Does all of it once.
pub async fn sync(session: &Session) -> Result<String> {
    let (cluster, settings) = (session.cluster(), &session.settings);
    let failed = |error: cni::Error| error.to_string();
    let mut lines = Vec::new();
    // Refused where this name is another host's: nothing more is done then.
    let forwarding = overlay::sync::sync(&cluster, settings);
    let forwarding = forwarding.await.map_err(failed)?;
    for done in forwarding.done {
        lines.push(format!(
            "network {}: {} forwarding entries changed",
            done.network, done.changes
        ));
    }
    let late = ipam_kv::sync(settings).await.map_err(failed)?;
    // The verbs write a known node's record only where it changed; that this host was here just now is said here. After
    // them: a host whose name is another's has been refused by its tunnel address, and whether the store was put back to
    // an earlier state shows in the record as it was.
    let node = Node {
        name: settings.node.clone(),
        vtep: settings.vtep,
        boot_id: clock::boot_id()?,
        machine_id: clock::machine_id(),
        last_contact: clock::unix(),
    };
    cluster.register(&node).await?;
    let named = |(what, failure): &(String, cluster::Error)| {
        let (what, failure) = (format!("{what}: "), failure.to_string());
        if failure.starts_with(&what) {
            failure
        } else {
            what + &failure
        }
    };
    let mut late: Vec<_> = (forwarding.failures.into_iter().map(failed))
        .chain(late.iter().map(named))
        .collect();
    late.dedup();
    if !late.is_empty() {
        return Err(late.join("; ").into());
    }
    lines.push(format!("node {}: in sync\n", settings.node));
    Ok(lines.join("\n"))
}
