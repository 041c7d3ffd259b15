//! Networks: a network is created once for all hosts, and refused if it would collide with another one.
//!
//! Each creation and removal swaps one record, `subnets`, so two hosts cannot create overlapping networks at the same moment.
//! Networks are created rarely, and attachments never touch that record.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipam::RangeSet;
use ipnetwork::IpNetwork;
use serde::Serialize;
use store::{Entry, Key, Op, Outcome};

use crate::{
    ATTEMPTS, CHUNK, Cluster, Egress, Error, Macvlan, Network, NetworkState, Records, Stored,
    Versioned,
    config::settings::DEFAULT_PREFIX,
    operations::subnet_choice::SubnetChoice,
    records::{RemovedRecord, SubnetsRecord, VXLAN_PORT, VniRecord, decode, encode, subnets},
    stored,
};

/// The first VNI that is chosen; lower ones are left to operators. Docker chooses from 4096 on.
const FIRST_VNI: u32 = 4097;
/// The last VNI: 24 bits (RFC 7348).
const LAST_VNI: u32 = (1 << 24) - 1;

/// A network as a conflist or an operator describes it. What is absent follows from the store's record, or is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// The id for a new network, which distinguishes it from others of this name: any word that is used only once.
    pub id: Option<String>,
    /// Whether it is a VXLAN segment, which needs an identifier of its own.
    pub segment: bool,
    /// Checked ranges; empty: those in the store.
    pub ranges: Vec<RangeSet>,
    /// How further ranges are found for a new network.
    pub choice: Option<SubnetChoice>,
    /// VXLAN network identifier.
    pub vni: Option<u32>,
    /// Block length in bits.
    pub block_prefix: Option<u8>,
    /// MTU of the containers' interfaces.
    pub mtu: Option<u32>,
    /// UDP port of the tunnels.
    pub vxlan_port: Option<u16>,
    /// The way out.
    pub egress: Option<Egress>,
    /// The networks that it may meet.
    pub reaches: Option<BTreeSet<String>>,
    /// Seconds after which a silent node loses its blocks.
    pub reclaim_after: Option<u64>,
    /// The device of its containers, if it is a network of the reference plugin `macvlan`.
    pub macvlan: Option<Macvlan>,
    /// Whether each host writes a conflist for it.
    pub conflist: bool,
    /// The operator's words about it.
    pub labels: BTreeMap<String, String>,
    /// VNIs of other networks on this host, which the store may have lost. They are not chosen.
    pub in_use: BTreeSet<u32>,
}

/// Whether a network was created or existed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It was created.
    New(Versioned<Network>),
    /// The store has it, and it agrees with the spec.
    Present(Versioned<Network>),
}

/// The networks that were removed, by name.
#[derive(Debug, Clone, Default)]
pub struct Removed(BTreeMap<String, RemovedRecord>);

impl Removed {
    /// Whether the network of this name with this id was removed. Not if what is noted of that name cannot be read.
    pub fn has(&self, name: &str, id: &str) -> bool {
        self.0.get(name).is_some_and(|removed| removed.has_id(id))
    }
}

impl NetworkSpec {
    /// Fails if the spec differs from `network`. The error has both values.
    pub fn agree(&self, network: &Network) -> Result<(), Error> {
        let spell_ranges = |ranges: &[RangeSet]| serde_json::to_string(ranges).unwrap_or_default();
        let asked: [(&'static str, Option<String>, Option<String>); 8] = [
            (
                "vni",
                self.vni.map(|v| v.to_string()),
                network.vni.map(|v| v.to_string()),
            ),
            (
                "mtu",
                self.mtu.map(|v| v.to_string()),
                network
                    .mtu
                    .map(|v| v.to_string())
                    .or(self.mtu.map(|v| v.to_string())),
            ),
            (
                "vxlanPort",
                self.vxlan_port.map(|v| v.to_string()),
                Some(network.vxlan_port.unwrap_or(VXLAN_PORT).to_string()),
            ),
            (
                "egress",
                self.egress.as_ref().map(spell),
                network.egress.as_ref().or(self.egress.as_ref()).map(spell),
            ),
            (
                "reaches",
                self.reaches.as_ref().map(spell),
                network
                    .reaches
                    .as_ref()
                    .or(self.reaches.as_ref())
                    .map(spell),
            ),
            (
                "ipam.blockPrefix",
                self.block_prefix.map(|v| v.to_string()),
                network.block_prefix.map(|v| v.to_string()),
            ),
            (
                "ipam.reclaimAfter",
                self.reclaim_after.map(|v| v.to_string()),
                network.reclaim_after.map(|v| v.to_string()),
            ),
            (
                "ipam.ranges",
                (!self.ranges.is_empty()).then(|| spell_ranges(&self.ranges)),
                Some(spell_ranges(&network.ranges)),
            ),
        ];
        for (key, wanted, have) in asked {
            if let Some(wanted) = wanted
                && Some(&wanted) != have.as_ref()
            {
                let have = have.unwrap_or_else(|| "not set".to_owned());
                return Err(Error::Differs {
                    name: self.name.clone(),
                    key,
                    wanted,
                    have,
                });
            }
        }
        Ok(())
    }

    fn into_network(self, vni: Option<u32>) -> Network {
        let Self {
            name,
            id,
            ranges,
            block_prefix,
            mtu,
            vxlan_port,
            egress,
            reaches,
            reclaim_after,
            macvlan,
            conflist,
            labels,
            ..
        } = self;
        Network {
            name,
            id,
            vni,
            ranges,
            block_prefix,
            mtu,
            vxlan_port,
            egress,
            reaches,
            reclaim_after,
            macvlan,
            conflist,
            labels,
            state: NetworkState::Ready,
            restoring: None,
        }
    }
}

fn spell<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl Cluster<'_> {
    /// The network as the store has it.
    pub async fn network(&self, name: &str) -> Result<Option<Versioned<Network>>, Error> {
        let (networks, own) = (self.layout.networks()?, self.layout.network(name)?);
        let Some(entry) = self.store.get(&own).await? else {
            return Ok(None);
        };
        let stored = stored::network(&entry, &networks);
        stored
            .map(|(_, network)| network.or_refuse(&own))
            .transpose()
    }

    /// All networks, by name.
    pub async fn networks(&self) -> Result<Records<String, Network>, Error> {
        let networks = self.layout.networks()?;
        let entries = self.store.read(std::slice::from_ref(&networks)).await?;
        let all = entries
            .iter()
            .filter_map(|it| stored::network(it, &networks));
        Ok(all.collect())
    }

    /// Waits until a network was written or removed after `index`, at most for `wait`; the index to go on from. Index 0 returns at once.
    pub async fn watch_networks(&self, index: u64, wait: Duration) -> Result<u64, Error> {
        let all = self.layout.networks()?;
        let heard = self.store.watch(&all, index, wait).await?;
        Ok(heard.index)
    }

    /// Which networks were removed.
    pub async fn removed(&self) -> Result<Removed, Error> {
        let all = self.layout.all_removed()?;
        let entries = self.store.read(std::slice::from_ref(&all)).await?;
        let records = entries.iter().filter_map(|entry| {
            let name = stored::name_below(entry, &all)?;
            let removed = Stored::<RemovedRecord>::of(entry);
            Some((name.to_owned(), removed.readable()?.record.clone()))
        });
        Ok(Removed(records.collect()))
    }

    /// The subnets of all networks.
    pub async fn all_subnets(&self) -> Result<Vec<IpNetwork>, Error> {
        let record = self.store.get(&self.layout.subnets()?).await?;
        let record = record.map(|entry| decode::<SubnetsRecord>(&entry));
        let networks = record.transpose()?.map(|record| record.record.networks);
        Ok(networks
            .unwrap_or_default()
            .into_values()
            .flatten()
            .collect())
    }

    /// Creates the network in one transaction, or finds that it exists as the spec describes it. Leftovers of an earlier
    /// network of this name are removed first. Each registered node is given a block in the same transaction, so that all hosts
    /// know the home of the first attachment's address on any host. If there are more nodes than fit, the first ones get
    /// theirs, and [`Self::finish_network`] gives the others theirs.
    pub async fn ensure_network(&self, spec: &NetworkSpec) -> Result<Created, Error> {
        let name = &spec.name;
        let (own, all) = (self.layout.network(name)?, self.layout.subnets()?);
        let (nodes, networks) = (self.layout.nodes()?, self.layout.networks()?);
        let removed = self.layout.removed(name)?;
        for _ in 0..ATTEMPTS {
            let mut keys = self.leftover_keys(name)?.to_vec();
            keys.extend([networks.clone(), nodes.clone(), removed.clone()]);
            let entries = self.store.read(&keys).await?;
            let find = |key: &Key| entries.iter().find(|entry| entry.key == *key);
            if let Some(entry) = find(&own) {
                let present = stored::network(entry, &networks);
                let Some((_, present)) = present else {
                    continue;
                };
                let present = present.or_refuse(&own)?;
                spec.agree(&present.record)?;
                return Ok(Created::Present(present));
            }
            if !spec.has_ranges() {
                return Err(Error::NoRanges(name.clone()));
            }
            let leftovers = self.leftovers_of(name, &entries, &|_| false)?;
            if !leftovers.is_empty() {
                self.remove_leftovers(&own, &leftovers).await?;
                continue;
            }
            let vni = if spec.segment {
                Some(self.free_vni(spec, &entries)?)
            } else {
                None
            };
            let mut chosen = spec.clone();
            let (subnets_op, _) = self.swap_subnets(find(&all), |record| {
                self.add_subnets(record, &entries)?;
                chosen.choose(record)?;
                refuse_overlap(&chosen, record)?;
                let subnets = subnets(&chosen.ranges);
                record.networks.insert(name.clone(), subnets);
                Ok(())
            })?;
            let mut network = chosen.into_network(vni);
            // If the network with this id was removed while this verb was at work, the new one needs another id. If the record
            // of removals cannot be read, no host restores a network of this name, so any id will do.
            let noted = find(&removed).map(Stored::<RemovedRecord>::of);
            let noted = noted.as_ref().and_then(Stored::readable);
            if let Some(noted) = noted.filter(|noted| noted.record.has(&network)) {
                let times = noted.record.ids.len();
                network.id = network.id.map(|id| format!("{id}-{times}"));
            }
            let names = entries
                .iter()
                .filter_map(|entry| stored::name_below(entry, &nodes));
            let mut preallocated = self.preallocated(&network, names, &BTreeMap::new())?;
            let room = CHUNK - if vni.is_some() { 3 } else { 2 };
            if preallocated.len() > room {
                network.state = NetworkState::Creating;
                preallocated.truncate(room);
            }
            let mut ops = vec![
                subnets_op,
                Op::Create {
                    key: own.clone(),
                    value: encode(&network)?,
                },
            ];
            if let Some(vni) = vni {
                ops.push(Op::Create {
                    key: self.layout.vni(vni)?,
                    value: encode(&VniRecord {
                        network: name.clone(),
                    })?,
                });
            }
            ops.extend(preallocated);
            let Outcome::Done(revisions) = self.store.apply(&ops).await? else {
                continue;
            };
            return Ok(Created::New(Versioned {
                record: network,
                revision: revisions[1],
            }));
        }
        Err(Error::Contended(own.as_str().to_owned()))
    }

    /// Creates a network that must not exist yet, or finishes a creation that was killed or timed out.
    pub async fn create_network(&self, spec: &NetworkSpec) -> Result<Network, Error> {
        let created = match self.ensure_network(spec).await {
            Ok(Created::New(network)) => network.record,
            Ok(Created::Present(network)) if network.record.state == NetworkState::Creating => {
                network.record
            }
            Ok(Created::Present(_)) | Err(Error::Differs { .. }) => {
                return Err(Error::Exists(spec.name.clone()));
            }
            Err(error) => return Err(error),
        };
        match created.state {
            NetworkState::Creating => Ok(self.finish_network(&spec.name).await?.record),
            _ => Ok(created),
        }
    }

    /// The VNI that the spec asks for, or the first free one for this prefix. `entries` are all VNI records and all networks: a
    /// network's VNI counts as taken even if its VNI record is lost.
    pub(crate) fn free_vni(&self, spec: &NetworkSpec, entries: &[Entry]) -> Result<u32, Error> {
        let (vnis, networks) = (self.layout.vnis()?, self.layout.networks()?);
        let mut taken = BTreeMap::new();
        for entry in entries {
            if let Some(vni) = stored::name_below(entry, &vnis).and_then(|it| it.parse().ok()) {
                let other = match Stored::<VniRecord>::of(entry) {
                    Stored::Readable(taken) => taken.record.network,
                    Stored::Unreadable(_) => {
                        format!("unknown (record {} cannot be read)", entry.key)
                    }
                };
                taken.insert(vni, other);
            }
            if let Some((name, network)) = stored::network(entry, &networks)
                && let Some(vni) = network.readable().and_then(|it| it.record.vni)
            {
                taken.insert(vni, name);
            }
        }
        if let Some(vni) = spec.vni {
            return match taken.remove(&vni) {
                None => Ok(vni),
                Some(other) => Err(Error::VniTaken {
                    name: spec.name.clone(),
                    vni,
                    other,
                }),
            };
        }
        let first = first_vni(self.layout.prefix());
        let mut all = (first..=LAST_VNI).chain(FIRST_VNI..first);
        let free = all.find(|vni| !taken.contains_key(vni) && !spec.in_use.contains(vni));
        free.ok_or_else(|| Error::Contended(vnis.as_str().to_owned()))
    }

    /// Adds to the record of subnets those of networks among `entries` that it lacks, for example because it was deleted after
    /// it could not be read. Fails if one of these networks cannot be read.
    pub(crate) fn add_subnets(
        &self,
        record: &mut SubnetsRecord,
        entries: &[Entry],
    ) -> Result<(), Error> {
        let networks = self.layout.networks()?;
        for entry in entries {
            let Some((name, network)) = stored::network(entry, &networks) else {
                continue;
            };
            if record.networks.contains_key(&name) {
                continue;
            }
            let network = network.or_refuse(&entry.key).map_err(|error| match error {
                Error::Record { key, why } => Error::Record {
                    key,
                    why: format!("{why}; its subnets are unknown, so no network can be created"),
                },
                error => error,
            })?;
            let subnets = subnets(&network.record.ranges);
            record.networks.insert(name, subnets);
        }
        Ok(())
    }

    /// The write that changes the record of all subnets as it was read.
    pub(crate) fn swap_subnets(
        &self,
        present: Option<&Entry>,
        change: impl FnOnce(&mut SubnetsRecord) -> Result<(), Error>,
    ) -> Result<(Op, SubnetsRecord), Error> {
        let key = self.layout.subnets()?;
        let mut record = present.map(decode::<SubnetsRecord>).transpose()?;
        let revision = record.as_ref().map(|r| r.revision);
        let mut record = record.take().map(|r| r.record).unwrap_or_default();
        change(&mut record)?;
        let value = encode(&record)?;
        let op = match revision {
            None => Op::Create { key, value },
            Some(revision) => Op::Swap {
                key,
                value,
                revision,
            },
        };
        Ok((op, record))
    }
}

/// Whether the record of all subnets exists and cannot be read.
pub(crate) fn is_unreadable(subnets: Option<&Entry>) -> bool {
    let subnets = subnets.map(Stored::<SubnetsRecord>::of);
    subnets.is_some_and(|it| it.readable().is_none())
}

pub(crate) fn refuse_overlap(spec: &NetworkSpec, record: &SubnetsRecord) -> Result<(), Error> {
    let ours = subnets(&spec.ranges);
    for (other, theirs) in record
        .networks
        .iter()
        .filter(|(other, _)| **other != spec.name)
    {
        if let Some((subnet, other_subnet)) = ipam::overlapping(&ours, theirs) {
            return Err(Error::Overlap {
                name: spec.name.clone(),
                subnet: subnet.to_string(),
                other: other.clone(),
                other_subnet: other_subnet.to_string(),
            });
        }
    }
    Ok(())
}

/// Where the choice of a VNI begins. A host in two clusters, with different prefixes or data directories, has the VNIs of both.
/// Stored values depend on this hash (FNV-1a), so it must not change.
fn first_vni(prefix: &str) -> u32 {
    if prefix == DEFAULT_PREFIX {
        return FIRST_VNI;
    }
    let hash = prefix.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    FIRST_VNI + hash % (LAST_VNI - FIRST_VNI + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prefix_has_a_place_of_its_own_where_its_identifiers_begin() {
        assert_eq!(first_vni("crosshost"), 4097);
        let others = ["other", "crosshost/data/-2fsrv-2fa"].map(first_vni);
        assert_eq!(others, [9_051_838, 9_243_649]);
    }
}
