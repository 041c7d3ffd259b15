//! What conntrack remembers of a port: a client of UDP that never stops sending is of one connection for ever, and would be
//! heard by whoever had the port when it began. So what is known of the port is forgotten when it comes to a container and
//! when it is taken away. A connection of TCP ends by itself.

use crate::{mapping::Protocol, record::Record};

/// Forgets what has the record's ports as its destination. Best effort: without it a packet goes astray, no more.
pub(crate) fn forget(record: &Record) {
    let runs = record
        .runs
        .iter()
        .filter(|run| run.protocol != Protocol::Tcp);
    let flows: Vec<_> = runs
        .map(|run| netlink::Flows {
            v6: run.to.is_ipv6(),
            protocol: run.protocol.number(),
            address: run.address,
            ports: run.port..=run.port.saturating_add(run.count - 1),
        })
        .collect();
    if flows.is_empty() {
        return;
    }
    if let Err(error) = netlink::forget(&flows) {
        cni::log(&format!("{}: {error}", record.attachment));
    }
}
