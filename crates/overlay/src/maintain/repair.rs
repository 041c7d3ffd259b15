//! Restores the sandboxes and the egress bridge to the last known records, without the store. So what another program deleted
//! or changed comes back without a verb. Also decides whether records that a watcher has read are newer than the snapshots.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{NetworkSnapshot, Node, Records, Resolved, Stored};
use ipam::Block;
use plugin::Error;

use crate::{
    egress,
    endpoint::bandwidth,
    firewall::table,
    follow::follower,
    host_link,
    maintain::{
        network::{self, Described},
        sync::Synced,
    },
    segment::{
        mac_rewrite,
        sandbox::{self, Sandbox},
    },
    state::{host::Host, underlay::Underlay},
};

/// What a repair found.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What was wrong, by network; those that were right are not in it.
    pub networks: Vec<Synced>,
    /// Whether the way out of the containers was wrong.
    pub egress: bool,
    /// Whether the store has to be asked: it has another tunnel address of this host, or a network has no snapshot here.
    pub outdated: bool,
    /// What could not be mended, and why.
    pub failures: Vec<Error>,
}

/// Repairs everything of ours on this host, and continues where something cannot be repaired. Asks no other host.
pub async fn repair(settings: &Resolved) -> Result<Repaired, Error> {
    let mut repaired = Repaired::default();
    let mut networks = sandbox::networks()?;
    networks.extend(sandbox::networks_elsewhere()?);
    if networks.is_empty() {
        return Ok(repaired);
    }
    let host = Host::open()?;
    // First, because the guard of each network would also restore the masquerade, and so hide that it was missing.
    match egress::repair(&host).await {
        Ok(mended) => repaired.egress = mended,
        Err(error) => repaired.failures.push(error),
    }
    let underlay = match host.underlay(settings).await {
        Ok(underlay) => underlay,
        Err(error) => {
            repaired.failures.push(error);
            return Ok(repaired);
        }
    };
    for network in networks {
        match repair_network(&host, settings, &underlay, &network).await {
            Ok(None) => repaired.outdated = true,
            Ok(Some(0)) => {}
            Ok(Some(changes)) => repaired.networks.push(Synced { network, changes }),
            Err(error) => repaired.failures.push(error),
        }
    }
    Ok(repaired)
}

/// Repairs one sandbox. Returns how much was wrong, or `None` if only the store knows what would be right.
async fn repair_network(
    host: &Host,
    settings: &Resolved,
    underlay: &Underlay,
    network: &str,
) -> Result<Option<usize>, Error> {
    let _lock = host.lock_network(network)?;
    if !host.needs_sandbox(network).await? {
        return Ok(Some(0));
    }
    let Some(copy) = follower::copy(host, network)? else {
        return Ok(None);
    };
    let Some(record) = copy.network.as_ref().map(|network| &network.record) else {
        return Ok(None);
    };
    // Other hosts know the right address of this host, or its record cannot be read.
    let is_right = |node: &Node| node.vtep == Some(underlay.vtep);
    let known = copy.nodes.get(&settings.node);
    if !known.is_some_and(|known| known.last_read().is_none_or(is_right)) {
        return Ok(None);
    }
    let sandbox = sandbox::ensure(host, record, underlay).await?;
    let described = network::describe(host, record, &copy, underlay, &settings.node)?;
    let unguarded = table::guard(host, (network, &settings.node), &sandbox, &copy)?;
    let was_off = host_link::repair(host, network, &sandbox).await?;
    let changes = repair_forwarding(host, &sandbox, &described, network).await?;
    let unlimited = bandwidth::repair(host, network, &sandbox.rtnl).await?;
    let wrong = [unguarded, was_off, unlimited];
    let wrong = wrong.into_iter().filter(|it| *it).count();
    Ok(Some(sandbox.changes + changes + wrong))
}

/// Repairs the forwarding entries and the rewritten MACs of a sandbox. Returns how much was wrong.
async fn repair_forwarding(
    host: &Host,
    sandbox: &Sandbox,
    described: &Described,
    network: &str,
) -> Result<usize, Error> {
    let [_, entries] = &described.forwarding;
    // A table that no document notes was removed with the repair of the sandbox.
    if !mac_rewrite::note(host, network, &described.macs)? {
        return sandbox.apply(host, std::slice::from_ref(entries)).await;
    }
    let changes = sandbox.apply(host, &described.forwarding).await?;
    mac_rewrite::forget(host, network, &described.macs)?;
    Ok(changes)
}

/// The snapshots by which this host forwards, for a watcher to compare with.
pub struct Known {
    copies: BTreeMap<String, NetworkSnapshot>,
}

impl Known {
    /// The snapshot of one network, or of all.
    pub fn load(network: Option<&str>) -> Result<Self, Error> {
        let host = Host::open()?;
        let networks = match network {
            Some(network) => vec![network.to_owned()],
            None => sandbox::networks()?,
        };
        let mut copies = BTreeMap::new();
        for network in networks {
            let copy = follower::copy(&host, &network)?.unwrap_or_default();
            copies.insert(network, copy);
        }
        Ok(Self { copies })
    }

    /// Whether this snapshot has other blocks or MACs than the one on this host.
    pub fn is_behind(&self, network: &str, snapshot: &NetworkSnapshot) -> bool {
        let copy = self.copies.get(network);
        copy.is_none_or(|copy| {
            // A watch of the blocks also reports those outside the network's subnets.
            let network = copy.network.as_ref().map(|network| &network.record);
            let is_its = |block: &Block| network.is_none_or(|it| it.has_block(*block));
            let heard = snapshot
                .blocks
                .revisions()
                .filter(|(block, _)| is_its(block));
            !copy.blocks.revisions().eq(heard)
                || !copy.macs.revisions().eq(snapshot.macs.revisions())
        })
    }

    /// The networks that forward differently with these nodes. The time of the last contact makes no difference.
    pub fn behind(&self, nodes: &Records<String, Node>) -> Vec<String> {
        let differs = |copy: &NetworkSnapshot| {
            let owners: BTreeSet<&str> = copy.owners().collect();
            let mut names = owners.clone();
            if copy.may_be_anywhere() {
                names.extend(copy.nodes.keys().chain(nodes.keys()).map(String::as_str));
            }
            names.into_iter().any(|name| {
                let before = copy.nodes.get(name);
                let vtep = before.and_then(Stored::last_read).and_then(|it| it.vtep);
                match nodes.get(name) {
                    // The copy has it already as one whose record the store lost.
                    None if owners.contains(name) => {
                        before.is_some_and(|it| it.readable().is_some()) && vtep.is_some()
                    }
                    None => vtep.is_some(),
                    Some(Stored::Readable(now)) => now.record.vtep != vtep,
                    // A record that cannot be read changes nothing.
                    Some(Stored::Unreadable(_)) => before.is_none(),
                }
            })
        };
        let behind = self.copies.iter().filter(|(_, copy)| differs(copy));
        behind.map(|(network, _)| network.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::{BlockRecord, Lease, MacRecord, Versioned};

    fn node(name: &str, last: u8, revision: u64) -> (String, Versioned<Node>) {
        let record = Node {
            name: name.to_owned(),
            vtep: Some([192, 168, 1, last].into()),
            boot_id: "b".to_owned(),
            machine_id: None,
            last_contact: revision,
            version: None,
            commit: None,
        };
        (name.to_owned(), Versioned { record, revision })
    }

    fn blocks(revision: u64) -> Records<Block, BlockRecord> {
        let record = BlockRecord::of("docker02");
        let block = "10.0.0.8_29".parse().unwrap();
        [(block, Versioned { record, revision })].into()
    }

    fn known(blocks: Records<Block, BlockRecord>) -> Known {
        let nodes = [node("docker01", 11, 1), node("docker02", 12, 2)].into();
        let snapshot = NetworkSnapshot {
            network: None,
            nodes,
            blocks,
            ..NetworkSnapshot::default()
        };
        Known {
            copies: [("n".to_owned(), snapshot)].into(),
        }
    }

    #[test]
    fn a_contact_and_a_host_that_owns_nothing_are_no_news_of_nodes() {
        let known = known(blocks(3));
        let mut nodes: Records<_, _> = [node("docker01", 11, 7), node("docker02", 12, 8)].into();
        nodes.extend([node("docker03", 13, 9)]);
        assert_eq!(known.behind(&nodes), [""; 0]);
        nodes.extend([node("docker02", 22, 10)]);
        assert_eq!(known.behind(&nodes), ["n"]);
        nodes.remove("docker02");
        assert_eq!(known.behind(&nodes), ["n"]);
        let mut known = known;
        let before = known.copies["n"].nodes.clone();
        let lost = cluster::Unreadable {
            revision: 0,
            why: String::new(),
            is_newer: false,
            last: None,
        };
        let copy = known.copies.get_mut("n").unwrap();
        let lost = cluster::Stored::Unreadable(lost);
        copy.nodes.extend([("docker02".to_owned(), lost)]);
        copy.nodes.remember(&before);
        assert_eq!(known.behind(&nodes), [""; 0], "the copy has that already");
    }

    #[test]
    fn without_blocks_every_host_is_news() {
        let known = known(Records::default());
        let nodes = [
            node("docker01", 11, 1),
            node("docker02", 12, 2),
            node("docker03", 13, 9),
        ];
        assert_eq!(known.behind(&nodes.into()), ["n"]);
    }

    #[test]
    fn blocks_and_macs_are_news_by_their_revisions() {
        let heard = |blocks| NetworkSnapshot {
            blocks,
            ..NetworkSnapshot::default()
        };
        let known = known(blocks(3));
        assert!(!known.is_behind("n", &heard(blocks(3))));
        assert!(known.is_behind("n", &heard(blocks(4))));
        assert!(known.is_behind("n", &heard(Records::default())));
        let none = heard(blocks(3));
        assert!(known.is_behind("other", &none), "it has no copy of it");
        let lease = Lease {
            node: "docker02".to_owned(),
            boot_id: "b".to_owned(),
            container: "c".to_owned(),
            container_name: None,
            ifname: "eth0".to_owned(),
            since: 0,
            mac: None,
        };
        let record = MacRecord {
            lease,
            addresses: Vec::new(),
            returned: false,
        };
        let mut one = none;
        let (mac, revision) = ("02:11:22:33:44:55".parse().unwrap(), 5);
        one.macs.insert(mac, Versioned { record, revision });
        assert!(known.is_behind("n", &one));
    }
}
