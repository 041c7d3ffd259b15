//! Who may read and write the store. Containers reach it by NAT as this host does, so only Consul's access control keeps them
//! from it. And a host whose token may write the records of other hosts can send their traffic elsewhere.
//!
//! A right to write is asked for by deleting a record at a revision that no record has. That changes nothing.

use std::net::IpAddr;
use std::time::Duration;

use cluster::{Cluster, Node, Records, Resolved};
use overlay::maintain::findings::{Check, Findings};
use store::Error as StoreError;

use crate::session::Result;

/// The page that has the policies.
const PAGE: &str = "docs/security.md";
/// Stands for other nodes where the store has no other.
const ANOTHER: &str = "another-host";

/// Reports a store that answers without a token, and a token that may write the records of other hosts.
pub async fn examine(
    settings: &Resolved,
    cluster: &Cluster<'_>,
    nodes: &Records<String, Node>,
    findings: &mut Findings,
) -> Result<()> {
    let store = settings.store_ref();
    let url = settings.store.url.as_deref().unwrap_or_default();
    if url.starts_with("dir://") {
        return Ok(());
    }
    let anybody = anybody(settings).await?;
    if anybody != Rights::default() {
        let may = match (anybody.read, anybody.write) {
            (_, true) => "change all records",
            _ => "read all records",
        };
        let is_here = is_on_this_host_alone(url);
        let who = if is_here {
            "every program of this host"
        } else {
            "every program that reaches its address, containers too,"
        };
        let says = format!(
            "store {store}: {who} may {may} without a token; turn on Consul's access control: {PAGE}"
        );
        if anybody.write && !is_here {
            findings.wrong(Check::StoreAccess, says, "");
        } else {
            findings.note(Check::StoreAccess, says, "");
        }
        return Ok(());
    }
    let other = nodes.keys().find(|name| **name != settings.node);
    let other = other.map_or(ANOTHER, String::as_str);
    if may_write(cluster, other).await? {
        let says = format!(
            "store {store}: the token of this host may change the records of other hosts, such as node {other}; \
             a policy for each host: {PAGE}"
        );
        findings.note(Check::StoreAccess, says, "");
    } else {
        let says = format!(
            "store {store}: closed without a token; the token of this host may change no record of another host"
        );
        findings.ok(Check::StoreAccess, says);
    }
    Ok(())
}

/// How long a client without a token waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a client may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rights {
    read: bool,
    write: bool,
}

/// What a client may do that has neither token nor client certificate.
async fn anybody(settings: &Resolved) -> Result<Rights> {
    let mut nobody = settings.clone();
    nobody.store.token = None;
    nobody.store.token_file = None;
    nobody.store.cert_file = None;
    nobody.store.key_file = None;
    nobody.store.timeout = PATIENCE;
    let store = nobody.open_store()?;
    let cluster = Cluster::new(&*store, nobody.layout.clone());
    // A store that asks for a client certificate ends the connection. This host's own client was just answered.
    let is_let_in = |error: cluster::Error| match error {
        cluster::Error::Store(StoreError::Denied { .. } | StoreError::Tls { .. }) => Ok(false),
        cluster::Error::Store(error) if error.is_away() => Ok(false),
        error => Err(error),
    };
    Ok(Rights {
        read: cluster.nodes().await.map(|_| true).or_else(is_let_in)?,
        write: may_write(&cluster, &settings.node)
            .await
            .or_else(is_let_in)?,
    })
}

/// Whether the store lets a client write the record of this node.
async fn may_write(cluster: &Cluster<'_>, node: &str) -> std::result::Result<bool, cluster::Error> {
    match cluster.may_write(node).await {
        Ok(()) => Ok(true),
        Err(cluster::Error::Store(StoreError::Denied { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a store's address leads to this host alone: a socket, or a loopback address.
fn is_on_this_host_alone(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return is_loopback(url);
    };
    scheme.ends_with("unix") || is_loopback(rest)
}

fn is_loopback(authority: &str) -> bool {
    let authority = authority.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_and_a_loopback_address_are_reached_from_this_host_alone() {
        for url in [
            "consul://127.0.0.1:8500",
            "consuls://localhost:8501",
            "http://[::1]:8500",
            "consul+unix:///run/consul.sock",
            "unix:///run/consul.sock",
            "127.0.0.1:8500",
        ] {
            assert!(is_on_this_host_alone(url), "{url}");
        }
        for url in [
            "consul://192.168.1.11:8500",
            "consuls://consul.example:8501",
            "consul://[fd00::1]:8500",
            "consul:8500",
        ] {
            assert!(!is_on_this_host_alone(url), "{url}");
        }
    }
}
