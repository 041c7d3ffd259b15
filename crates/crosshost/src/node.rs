//! `crosshost node`: ls, rm.

use journal::clock;
use serde_json::json;

use crate::{
    command::{Result, Session, Words},
    table::{json, table},
};

/// All hosts.
pub async fn list(session: &Session, words: &Words) -> Result<String> {
    let nodes = session.cluster().nodes().await?;
    let vtep = |node: &cluster::Node| {
        node.vtep
            .map_or_else(|| "-".to_owned(), |vtep| vtep.to_string())
    };
    if words.json {
        let described = |node: &cluster::Node| json!({"name": node.name, "vtep": node.vtep, "bootId": node.boot_id, "machineId": node.machine_id, "lastContact": node.last_contact});
        return Ok(json(
            &nodes.iter().map(|node| described(&node.record)).collect(),
        ));
    }
    let now = clock::unix();
    let rows: Vec<_> = nodes
        .iter()
        .map(|node| {
            let node = &node.record;
            [
                node.name.clone(),
                vtep(node),
                node.boot_id.clone(),
                ago(now.saturating_sub(node.last_contact)),
            ]
        })
        .collect();
    Ok(table(["NAME", "VTEP", "BOOT ID", "LAST CONTACT"], &rows))
}

/// A span of time in the unit that fits it best.
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86400),
    }
}

/// Forgets a host that will not come back; one that still has endpoints with `--force` only.
pub async fn remove(session: &Session, words: &Words) -> Result<String> {
    let name = words.name()?;
    session.cluster().remove_node(name, words.force).await?;
    Ok(format!("{name}\n"))
}
