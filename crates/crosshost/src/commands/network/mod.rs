//! `crosshost network`: create, ls, inspect, update, rm, prune. `connect` and `disconnect` are in `connect/`.

mod create;
mod feasible;
mod inspect;
mod list;
mod remove;
mod update;

use cluster::{DataDir, Network, NetworkSpec, NetworkState};
use serde_json::json;

pub use self::{
    create::spec,
    inspect::inspect,
    list::{Filter, list},
    remove::{prune, remove},
    update::update,
};
use crate::{
    conflists,
    session::{Result, Session},
};

/// Creates a network.
pub async fn create(session: &Session, spec: &NetworkSpec) -> Result<String> {
    let failed = |error: plugin::Error| error.to_string();
    let host = overlay::state::host::Host::open().map_err(failed)?;
    let mut spec = NetworkSpec {
        in_use: host.vnis().map_err(failed)?,
        ..spec.clone()
    };
    let taken = overlay::egress::taken(&host).await.map_err(failed)?;
    for says in feasible::examine(session, &host, &spec, &taken).await? {
        cni::log(&format!("network {}: {says}", spec.name));
    }
    if let Some(choice) = &mut spec.choice {
        choice.avoid = taken;
    }
    let network = session.cluster().create_network(&spec).await?;
    keep_conflists(session).await;
    let line = summary(&network, session.scope()).join("  ");
    Ok(format!("{}\n", cni::line(line)))
}

/// Brings this host's conflists up to date after the store was changed. What fails is told, and is no failure of the command: the
/// network is there, or gone.
async fn keep_conflists(session: &Session) {
    let failures = match conflists::bring(session).await {
        Ok(brought) => brought.failures,
        Err(error) => vec![error.to_string()],
    };
    for failure in failures {
        cni::log(&failure);
    }
}

fn subnets(network: &Network) -> Vec<String> {
    network.subnets().iter().map(ToString::to_string).collect()
}

/// Name, VNI, subnets, scope.
fn summary(network: &Network, scope: &str) -> [String; 4] {
    let vni = network
        .vni
        .map_or_else(|| "-".to_owned(), |vni| vni.to_string());
    [
        network.name.clone(),
        vni,
        subnets(network).join(","),
        scope.to_owned(),
    ]
}

/// What makes the network, in Docker's words; `-` if only its addresses are ours, under another plugin.
fn driver(network: &Network) -> &'static str {
    match (&network.macvlan, network.vni) {
        (Some(_), _) => "macvlan",
        (None, Some(_)) => "overlay",
        (None, None) => "-",
    }
}

fn described(network: &Network, scope: &str, data_dir: &DataDir) -> serde_json::Value {
    let state = network.state;
    let mut value = json!({
        "name": network.name, "driver": driver(network), "vni": network.vni, "subnets": subnets(network), "scope": scope,
        "state": state, "labels": network.labels,
    });
    value["dataDir"] = json!(data_dir.directory());
    value
}

/// The state of a network in words; empty if it is ready.
fn state(network: &Network) -> &'static str {
    match network.state {
        _ if network.restoring.is_some() => "restoring",
        NetworkState::Ready => "",
        NetworkState::Creating => "creating",
        NetworkState::Removing => "removing",
    }
}
