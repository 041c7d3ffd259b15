//! `crosshost network ls`: the networks of the store.

use std::str::FromStr;

use cluster::Network;
use serde_json::json;

use super::{described, driver, state, summary};
use crate::{
    cli::{self, Listing},
    output::{json, lines, table},
    session::{Result, Session},
};

/// A condition on networks: `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Part of the name.
    Name(String),
    /// A label, with this value if there is one.
    Label(String, Option<String>),
    /// Not that label.
    NotLabel(String, Option<String>),
    /// What makes it.
    Driver(String),
    /// `global` or `local`.
    Scope(String),
}

impl cli::Filter for Filter {
    const HELP: &'static str = "Only networks with name=PART of it, label=KEY[=VALUE], label!=KEY[=VALUE], driver=DRIVER or \
                                scope=SCOPE; may be repeated, and all must hold";
    const QUIET: &'static str = "Print the names alone";
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let known = "want name=, label=, label!=, driver= or scope=";
        let (key, value) = text.split_once('=').ok_or(known)?;
        let label = || match value.split_once('=') {
            Some((label, value)) => (label.to_owned(), Some(value.to_owned())),
            None => (value.to_owned(), None),
        };
        let owned = value.to_owned();
        match key {
            "name" => Ok(Self::Name(owned)),
            "driver" => Ok(Self::Driver(owned)),
            "scope" => Ok(Self::Scope(owned)),
            "label" => {
                let (label, value) = label();
                Ok(Self::Label(label, value))
            }
            "label!" => {
                let (label, value) = label();
                Ok(Self::NotLabel(label, value))
            }
            _ => Err(known.to_owned()),
        }
    }
}

impl Filter {
    /// Whether a network fulfils it.
    pub fn admits(&self, network: &Network, scope: &str) -> bool {
        let has = |label: &String, value: &Option<String>| {
            let found = network.labels.get(label);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        };
        match self {
            Self::Name(part) => network.name.contains(part),
            Self::Driver(wanted) => driver(network) == wanted,
            Self::Scope(wanted) => scope == wanted,
            Self::Label(label, value) => has(label, value),
            Self::NotLabel(label, value) => !has(label, value),
        }
    }
}

/// All networks.
pub async fn list(session: &Session, asked: &Listing<Filter>) -> Result<String> {
    let (mut values, mut listed, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    for cluster in session.clusters().await? {
        let networks = cluster.networks().await?;
        for (name, network) in networks.readable() {
            let network = network.record.clone();
            let mut filters = asked.filter.iter();
            if !filters.all(|filter| filter.admits(&network, session.scope())) {
                continue;
            }
            values.push(described(&network, session.scope(), cluster.data_dir()));
            listed.push((cluster.full_name(name), network));
        }
        // Nothing is known of these but the name.
        let unfiltered = asked.filter.is_empty();
        for (name, it) in networks.unreadable().filter(|_| unfiltered) {
            let called = cluster.full_name(name);
            values.push(json!({"name": called, "state": "unreadable", "unreadable": it.why}));
            unreadable.push(called);
        }
    }
    if asked.quiet {
        let names = listed.iter().map(|(called, _)| called).chain(&unreadable);
        return Ok(lines(names));
    }
    if asked.output.json {
        return Ok(json("networks", values.into()));
    }
    Ok(shown(&listed, &unreadable, session.scope()))
}

/// The networks and their names as a table, with a column for the state if one of them is not ready. Networks whose records cannot
/// be read have only a name.
fn shown(networks: &[(String, Network)], unreadable: &[String], scope: &str) -> String {
    let rows: Vec<_> = networks
        .iter()
        .map(|(called, network)| {
            let [_, vni, subnets, scope] = summary(network, scope);
            [called.clone(), vni, subnets, scope]
        })
        .collect();
    let is_well = |(_, network): &(String, Network)| state(network).is_empty();
    if unreadable.is_empty() && networks.iter().all(is_well) {
        return table(["NAME", "VNI", "SUBNETS", "SCOPE"], &rows);
    }
    let rows: Vec<_> = rows
        .into_iter()
        .zip(networks)
        .map(|([name, vni, subnets, scope], (_, network))| {
            [name, vni, subnets, scope, state(network).to_owned()]
        })
        .chain(
            unreadable
                .iter()
                .map(|name| [name.as_str(), "-", "-", scope, "unreadable"].map(str::to_owned)),
        )
        .collect();
    table(["NAME", "VNI", "SUBNETS", "SCOPE", "STATE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_docker() {
        let network: Network = serde_json::from_value(json!({
            "name": "ov_net1", "vni": 4097, "ranges": [], "labels": {"a": "b", "c": ""},
        }))
        .unwrap();
        for (text, admits) in [
            ("name=net1", true),
            ("name=net2", false),
            ("label=a", true),
            ("label=a=b", true),
            ("label=a=c", false),
            ("label!=a", false),
            ("label!=d", true),
            ("driver=overlay", true),
            ("driver=macvlan", false),
            ("scope=global", true),
            ("scope=local", false),
        ] {
            let filter: Filter = text.parse().unwrap();
            assert_eq!(filter.admits(&network, "global"), admits, "{text}");
        }
        for bad in ["name", "id=x", ""] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_state_is_shown_only_where_a_network_is_not_as_it_should_be() {
        let network = |state: &str| -> Network {
            serde_json::from_value(json!({"name": "n", "vni": 4097, "ranges": [], "state": state}))
                .unwrap()
        };
        let [ready, removing] = ["ready", "removing"].map(|state| ("n".to_owned(), network(state)));
        assert_eq!(
            shown(std::slice::from_ref(&ready), &[], "global"),
            "NAME  VNI   SUBNETS  SCOPE\nn     4097           global\n"
        );
        assert_eq!(
            shown(&[ready, removing], &[], "local"),
            "NAME  VNI   SUBNETS  SCOPE  STATE\nn     4097           local\n\
             n     4097           local  removing\n"
        );
    }
}
