//! `crosshost port`: which ports of this host lead to which containers, according to `portmap`'s records.

use std::{collections::BTreeMap, str::FromStr};

use portmap::{
    mapping::ports,
    record::{Record, Run},
};
use serde_json::{Value, json};

use crate::{
    cli::{self, Listing},
    commands::endpoint,
    containers,
    output::{json as printed, lines, table},
    session::Result,
};

/// A condition on published ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Of a container on this network.
    Network(String),
    /// Of the container with this name, or whose id begins so.
    Container(String),
    /// This port of the host.
    Port(u16),
    /// By this protocol.
    Protocol(String),
}

impl cli::Filter for Filter {
    const HELP: &'static str = "Only ports with network=NAME, container=NAME or the beginning of its id, port=NUMBER on the host, \
                                or protocol=NAME; may be repeated, and all must hold";
    const QUIET: &'static str = "Print the ports of the host alone";
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some(("network", name)) => Ok(Self::Network(name.to_owned())),
            Some(("container", name)) => Ok(Self::Container(name.to_owned())),
            Some(("protocol", name)) => Ok(Self::Protocol(name.to_owned())),
            Some(("port", number)) => {
                let number = number.parse().map_err(|error| format!("{number}: {error}"));
                Ok(Self::Port(number?))
            }
            _ => Err("want network=, container=, port= or protocol=".to_owned()),
        }
    }
}

/// The names of containers by their ids.
type Names = BTreeMap<String, String>;

impl Filter {
    fn admits(&self, record: &Record, run: &Run, names: &Names) -> bool {
        let attachment = &record.attachment;
        match self {
            Self::Network(name) => attachment.network == *name,
            Self::Container(typed) => {
                let name = names.get(&attachment.container);
                containers::is_called(typed, &attachment.container, name.map(String::as_str))
            }
            Self::Port(number) => ports(run.port, run.count).contains(number),
            Self::Protocol(name) => run.protocol.as_str() == name,
        }
    }
}

/// All published ports of this host.
pub fn list(listing: &Listing<Filter>, whole: bool) -> Result<String> {
    let mut records = plugin::all_readable(&portmap::table::records())?;
    let names = endpoint::names()?;
    records.sort_by_key(|record| record.since);
    let all = records
        .iter()
        .flat_map(|record| record.runs.iter().map(move |run| (record, run)));
    let all: Vec<_> = all
        .filter(|(record, run)| {
            let mut filters = listing.filter.iter();
            filters.all(|filter| filter.admits(record, run, &names))
        })
        .collect();
    if listing.output.json {
        let values = all.iter().map(|(record, run)| value(record, run, &names));
        return Ok(printed("ports", values.collect()));
    }
    let rows: Vec<_> = all
        .iter()
        .map(|(record, run)| row(record, run, &names, whole))
        .collect();
    if listing.quiet {
        return Ok(lines(rows.iter().map(|row| &row[0])));
    }
    let headings = [
        "HOST PORT",
        "LEADS TO",
        "NETWORK",
        "CONTAINER",
        "NAME",
        "INTERFACE",
    ];
    Ok(table(headings, &rows))
}

fn row(record: &Record, run: &Run, names: &Names, whole: bool) -> [String; 6] {
    let last = |first: u16| match run.count {
        1 => String::new(),
        count => format!("-{}", ports(first, count).end()),
    };
    let any = if run.to.is_ipv6() { "[::]" } else { "0.0.0.0" };
    let address = match run.address {
        None => any.to_owned(),
        Some(address) if address.is_ipv6() => format!("[{address}]"),
        Some(address) => address.to_string(),
    };
    let (port, protocol) = (run.port, run.protocol.as_str());
    let attachment = &record.attachment;
    let name = names.get(&attachment.container);
    [
        format!("{address}:{port}{}/{protocol}", last(port)),
        format!("{}{}", run.to, last(run.to.port())),
        attachment.network.clone(),
        containers::shown(&attachment.container, whole),
        name.cloned().unwrap_or_else(|| "-".to_owned()),
        attachment.ifname.clone(),
    ]
}

fn value(record: &Record, run: &Run, names: &Names) -> Value {
    let attachment = &record.attachment;
    json!({
        "hostIP": run.address, "hostPort": run.port, "protocol": run.protocol.as_str(),
        "containerIP": run.to.ip(), "containerPort": run.to.port(), "count": run.count,
        "network": attachment.network, "containerID": attachment.container,
        "containerName": names.get(&attachment.container), "ifname": attachment.ifname,
    })
}
