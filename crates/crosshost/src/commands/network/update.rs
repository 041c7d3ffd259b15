//! `crosshost network update`: changes what hosts and running containers can follow.

use std::net::IpAddr;

use cluster::{NetworkChange, NetworkSpec};
use ipam::Range;

use super::{create::labels, feasible, keep_conflists, summary};
use crate::{
    cli::Update,
    exit::Usage,
    session::{Result, Session},
};

/// The change that the options describe.
fn change(options: &Update) -> Result<NetworkChange> {
    let usage = |why: String| -> Result<NetworkChange> { Err(Usage(why).into()) };
    let is_in = |gateway: &IpAddr| options.subnet.iter().any(|it| it.contains(*gateway));
    if let Some(gateway) = options.gateway.iter().find(|it| !is_in(it)) {
        return usage(format!("--gateway {gateway}: lies in no --subnet"));
    }
    let subnets = options.subnet.iter().map(|subnet| Range {
        subnet: *subnet,
        range_start: None,
        range_end: None,
        gateway: (options.gateway.iter().copied()).find(|gateway| subnet.contains(*gateway)),
        exclude: Vec::new(),
    });
    let change = NetworkChange {
        subnets: subnets.collect(),
        mtu: options.mtu,
        labels: labels(&options.label)?,
        without_labels: options.label_rm.iter().cloned().collect(),
    };
    if change == NetworkChange::default() {
        let why = "want one of --subnet, --mtu, --label, --label-rm";
        return usage(why.to_owned());
    }
    Ok(change)
}

/// Changes a network in place. This host has followed when it returns; the others do as soon as their watcher hears of it.
pub async fn update(session: &Session, options: &Update) -> Result<String> {
    let change = change(options)?;
    let (cluster, name) = session.cluster_of(&options.name)?;
    let failed = |error: plugin::Error| error.to_string();
    let host = overlay::state::host::Host::open().map_err(failed)?;
    let taken = overlay::egress::taken(&host).await.map_err(failed)?;
    let spec = NetworkSpec {
        name: name.to_owned(),
        ranges: vec![change.subnets.clone()],
        mtu: change.mtu,
        ..NetworkSpec::default()
    };
    for says in feasible::examine(session, &host, &spec, &taken).await? {
        cni::log(&format!("network {name}: {says}"));
    }
    let network = cluster.change_network(name, &change).await?;
    if !network.conflist && (change.mtu.is_some() || !change.subnets.is_empty()) {
        let why = "is refused from now on (code 103) until it says the same";
        cni::log(&format!(
            "network {name}: a conflist that names mtu or ipam.ranges {why}"
        ));
    }
    keep_conflists(session).await;
    let here = overlay::segment::sandbox::networks().map_err(failed)?;
    if here.contains(&name.to_owned())
        && let Err(error) =
            overlay::maintain::sync::sync_network(&cluster, &session.settings, name).await
    {
        cni::log(&format!("network {name}: not yet here: {error}"));
    }
    let line = summary(&network, session.scope()).join("  ");
    Ok(format!("{}\n", cni::line(line)))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{self, Arguments, Command};

    fn changed(options: &str) -> Result<NetworkChange> {
        let line = format!("crosshost network update n {options}");
        let Some(Command::Network(cli::Network::Update(update))) =
            Arguments::try_parse_from(line.split_whitespace())?.command
        else {
            panic!("another command")
        };
        change(&update)
    }

    #[test]
    fn options_say_what_changes() {
        let change = changed(
            "--subnet 10.0.1.0/24 --subnet 10.0.2.0/24 --gateway 10.0.2.254 --mtu 1400 --label a=b --label-rm c",
        );
        let change = change.unwrap();
        let gateways: Vec<_> = change.subnets.iter().map(|it| it.gateway).collect();
        assert_eq!(gateways, [None, "10.0.2.254".parse().ok()]);
        assert_eq!((change.mtu, change.labels["a"].as_str()), (Some(1400), "b"));
        assert!(change.without_labels.contains("c"));
        for (options, words) in [
            ("", "want one of"),
            ("--gateway 10.0.2.254", "--gateway 10.0.2.254"),
            ("--label =b", "--label =b"),
        ] {
            let refused = changed(options).unwrap_err().to_string();
            assert!(refused.contains(words), "{options}: {refused}");
        }
    }
}
