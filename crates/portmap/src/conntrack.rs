//! What conntrack remembers of a port: a client of UDP that never stops sending is of one connection for ever, and would be
//! heard by whoever had the port when it began. So what is known of the port is forgotten when it comes to a container and
//! when it is taken away. A connection of TCP ends by itself. What this host only forwards to the same port of others is left
//! alone.

use std::net::IpAddr;
use std::sync::Arc;

use netlink::{End, Flows};

use crate::{
    mapping::Protocol,
    record::{Record, Run},
};

/// Forgets who sends to the records' ports at these addresses of the host, whoever answered so far.
pub(crate) fn forget_clients(records: &[Record], local: &[IpAddr]) {
    let local: Arc<[IpAddr]> = local.into();
    forget(records, |run| {
        End::To(run.address.map_or_else(|| local.clone(), |it| [it].into()))
    });
}

/// Forgets who is answered by the record's container.
pub(crate) fn forget_answered(record: &Record) {
    let one = std::slice::from_ref(record);
    forget(one, |run| End::AnsweredBy(run.to.ip()));
}

/// Best effort: without it a packet goes astray, no more.
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
