//! Registers this host in the store, and creates the network if there is none, before the host takes part in it.

use std::net::IpAddr;

use cluster::{Cluster, NetworkSnapshot, NetworkSpec, Node, Records, Resolved, Stored};
use plugin::Error;

use crate::state::host::Host;

impl Host {
    /// The snapshot of a network, after this host has registered itself with its address and boot, and has created the network
    /// if there was none. Also whether it had to register itself. Fails if the network differs from `spec`.
    pub async fn prepare(
        &self,
        cluster: &Cluster<'_>,
        settings: &Resolved,
        spec: &NetworkSpec,
    ) -> Result<(NetworkSnapshot, bool), Error> {
        let mut snapshot = cluster.snapshot(&spec.name).await?;
        let vtep = self.underlay(settings).await?.vtep;
        let registered = self.enrol(cluster, settings, &snapshot.nodes, vtep).await?;
        if snapshot.network.is_none() {
            let spec = NetworkSpec {
                in_use: self.vnis()?,
                ..spec.clone()
            };
            cluster.ensure_network(&spec).await?;
        }
        if registered || snapshot.network.is_none() {
            snapshot = cluster.snapshot(&spec.name).await?;
        }
        let network = snapshot.ready_network(&spec.name)?;
        spec.agree(&network.record)?;
        if network.record.vni.is_none() {
            return Err(no_segment(&spec.name));
        }
        Ok((snapshot, registered))
    }

    /// Registers this node with its tunnel address unless `nodes` have it as it is; returns whether that was needed. Fails if
    /// another host has the address.
    pub async fn enrol(
        &self,
        cluster: &Cluster<'_>,
        settings: &Resolved,
        nodes: &Records<String, Node>,
        vtep: IpAddr,
    ) -> Result<bool, Error> {
        journal::tunnel::note(vtep)?;
        let (name, node) = (&settings.node, node(settings, vtep)?);
        let known = nodes.get(name);
        let present = known.and_then(Stored::readable).map(|node| &node.record);
        let same_boot = present.filter(|present| present.boot_id == node.boot_id);
        if same_boot.is_some_and(|present| present.vtep == node.vtep) {
            return Ok(false);
        }
        Cluster::refuse_double(nodes, &node, journal::clock::booted())?;
        cluster.register(&node).await?;
        if let Some(wrong) = same_boot {
            let had = match wrong.vtep {
                Some(vtep) => format!("tunnel address {vtep}, which is not its own"),
                None => "no tunnel address that another host can use".to_owned(),
            };
            cni::log(&format!("node {name}: the store had {had}; mended"));
        }
        if let Some(Stored::Unreadable(unreadable)) = known {
            if unreadable.is_newer {
                let why = &unreadable.why;
                cni::log(&format!("node {name}: its record stays as it is: {why}"));
                return Ok(false);
            }
            cni::log(&format!(
                "node {name}: its record could not be read; mended"
            ));
        }
        Ok(true)
    }
}

/// The error of a network that only has addresses.
pub(crate) fn no_segment(network: &str) -> Error {
    let why = format!(
        "network {network}: has no VXLAN segment: it was made for another interface plugin"
    );
    Error::new(crate::code::DIFFERS, why)
}

/// This host's record with this tunnel address.
pub(crate) fn node(settings: &Resolved, vtep: IpAddr) -> Result<Node, Error> {
    let boot_id = journal::clock::boot_id();
    Ok(Node {
        name: settings.node.clone(),
        vtep: Some(vtep),
        boot_id: boot_id.map_err(|error| Error::io(format!("boot id: {error}")))?,
        machine_id: journal::clock::machine_id(),
        last_contact: journal::clock::unix(),
        version: Some(cni::build::VERSION.to_owned()),
        commit: Some(cni::build::COMMIT.to_owned()),
    })
}
