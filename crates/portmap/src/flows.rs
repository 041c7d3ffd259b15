//! What conntrack remembers of a port: a client of UDP that never stops sending is of one connection for ever, and would be
//! heard by whoever had the port when it began. So what is known of the port is forgotten when it comes to a container and
//! when it is taken away. A connection of TCP ends by itself. What this host only forwards to the same port of others is left
//! alone.

use std::net::IpAddr;

use netlink::{End, Flows};

use crate::{
    mapping::Protocol,
    record::{Record, Run},
};

/// Forgets who sends to the record's ports at these addresses of the host, whoever answered so far.
pub(crate) fn forget_clients(record: &Record, local: &[IpAddr]) {
    forget(record, |run| {
        End::To(run.address.map_or_else(|| local.to_vec(), |it| vec![it]))
    });
}

/// Forgets who is answered by the record's container.
pub(crate) fn forget_answered(record: &Record) {
    forget(record, |run| End::AnsweredBy(run.to.ip()));
}

/// Best effort: without it a packet goes astray, no more.
fn forget(record: &Record, end: impl Fn(&Run) -> End) {
    let runs = record
        .runs
        .iter()
        .filter(|run| run.protocol != Protocol::Tcp);
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
        cni::log(&format!("{}: {error}", record.attachment));
    }
}
