//! `crosshost port`: which ports of this host lead to which containers, according to `portmap`'s records.

use portmap::{
    mapping::ports,
    record::{Record, Run},
};
use serde_json::{Value, json};

use crate::{
    cli::Output,
    output::{json as printed, table},
    session::Result,
};

/// All published ports of this host.
pub fn list(output: Output) -> Result<String> {
    let mut records = plugin::all_readable(&portmap::table::records())?;
    records.sort_by_key(|record| record.since);
    let all: Vec<_> = records
        .iter()
        .flat_map(|record| record.runs.iter().map(move |run| (record, run)))
        .collect();
    if output.json {
        return Ok(printed(
            &all.iter().map(|(record, run)| value(record, run)).collect(),
        ));
    }
    let rows: Vec<_> = all.iter().map(|(record, run)| row(record, run)).collect();
    let headings = ["HOST PORT", "LEADS TO", "NETWORK", "CONTAINER", "INTERFACE"];
    Ok(table(headings, &rows))
}

fn row(record: &Record, run: &Run) -> [String; 5] {
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
    [
        format!("{address}:{port}{}/{protocol}", last(port)),
        format!("{}{}", run.to, last(run.to.port())),
        attachment.network.clone(),
        attachment.container.clone(),
        attachment.ifname.clone(),
    ]
}

fn value(record: &Record, run: &Run) -> Value {
    let attachment = &record.attachment;
    json!({
        "hostIP": run.address, "hostPort": run.port, "protocol": run.protocol.as_str(),
        "containerIP": run.to.ip(), "containerPort": run.to.port(), "count": run.count,
        "network": attachment.network, "containerID": attachment.container, "ifname": attachment.ifname,
    })
}
