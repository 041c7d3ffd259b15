//! `crosshost sync`: this host is known, its forwarding follows the news, and the store knows what it missed.

use std::path::Path;

use anyhow::{Result, anyhow, bail};

use crate::command::Session;

/// Does all of it once.
pub async fn sync(session: &Session) -> Result<String> {
    let (cluster, settings) = (session.cluster(), &session.settings);
    let failed = |error: cni::Error| anyhow!(error.to_string());
    let mut lines = Vec::new();
    for done in overlay::sync::sync(&cluster, settings)
        .await
        .map_err(failed)?
    {
        lines.push(format!(
            "network {}: {} forwarding entries changed",
            done.network, done.changes
        ));
    }
    let mut late = Vec::new();
    for ledger in ipam_kv::desk::ledgers(Path::new(journal::ROOT)).all()? {
        let network = &ledger.network.record.name;
        let failures = ipam_kv::sync(&cluster, settings, network)
            .await
            .map_err(failed)?;
        late.extend(
            failures
                .iter()
                .map(|failure| format!("network {network}: {failure}")),
        );
    }
    if !late.is_empty() {
        bail!("{}", late.join("; "));
    }
    lines.push(format!("node {}: in sync\n", settings.node));
    Ok(lines.join("\n"))
}
