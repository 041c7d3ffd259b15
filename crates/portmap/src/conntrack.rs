//! Removes connections from conntrack. A UDP client that never stops sending keeps one connection, whose packets would still
//! go to the previous owner of the port. So a port's connections are removed when it is published and when it is withdrawn.
//! TCP connections end by themselves. Connections to the same port of other hosts, which this host only forwards, are kept.

use std::net::IpAddr;
use std::sync::Arc;

use netlink::{End, Flows};

use crate::{
    mapping::Protocol,
    record::{Record, Run},
};

/// Removes connections from clients to the records' ports at this host's addresses, whatever answered so far.
pub(crate) fn forget_clients(records: &[Record], local: &[IpAddr]) {
    let local: Arc<[IpAddr]> = local.into();
    forget(records, |run| {
        End::To(run.address.map_or_else(|| local.clone(), |it| [it].into()))
    });
}

/// Removes connections that the record's container answers.
pub(crate) fn forget_answered(record: &Record) {
    let one = std::slice::from_ref(record);
    forget(one, |run| End::AnsweredBy(run.to.ip()));
}

/// Best effort: if it fails, packets go astray for a while.
fn forget(records: &[Record], end: impl Fn(&Run) -> End) {
    let runs = records.iter().flat_map(|record| &record.runs);
    let runs = runs.filter(|run| run.protocol != Protocol::Tcp);
    let flows: Vec<_> = runs
        .map(|run| Flows {
            v6: run.to.is_ipv6(),
            protocol: run.protocol.number(),
            ports: run.ports(),
            end: end(run),
        })
        .collect();
    if flows.is_empty() {
        return;
    }
    if let Err(error) = netlink::forget(&flows) {
        let whose = records.iter().map(|record| record.attachment.to_string());
        let whose: Vec<_> = whose.take(3).collect();
        cni::log(&format!("{}: {error}", whose.join(", ")));
    }
}
