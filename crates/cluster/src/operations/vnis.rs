//! VNI records. A creation chooses a free VNI and writes this record in the network's own transaction (`networks.rs`); here it is
//! written again. A network's own record has its VNI; the VNI record ensures that no other network takes it. If a VNI record is
//! lost or names another network, the hosts of the network write it again.

use store::Op;

use crate::{
    Cluster, Error, Network, NetworkState, Stored, Versioned,
    records::{VniRecord, encode},
    stored,
};

/// A network whose VNI record is missing or names another network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnclaimedVni {
    /// The network.
    pub network: String,
    /// Its identifier.
    pub vni: u32,
    /// Another network that has the same VNI.
    pub other: Option<String>,
}

impl Cluster<'_> {
    /// Writes the network's VNI record if it is lost, damaged, or names a network with another VNI. Returns whether it was
    /// written. `network` is as the store has it.
    pub async fn claim_vni(&self, network: &Versioned<Network>) -> Result<bool, Error> {
        let name = &network.record.name;
        let Some(vni) = network.record.vni else {
            return Ok(false);
        };
        if network.record.state == NetworkState::Removing {
            return Ok(false);
        }
        let key = self.layout.vni(vni)?;
        let present = self.store.get(&key).await?;
        let value = encode(&VniRecord {
            network: name.clone(),
        })?;
        let claim = match present.as_ref().map(Stored::<VniRecord>::of) {
            None => Op::Create { key, value },
            Some(noted) if noted.is_newer() => return Ok(false),
            Some(noted) => {
                if let Some(noted) = noted.readable()
                    && (noted.record.network == *name
                        || self.may_have(&noted.record.network, vni).await?)
                {
                    return Ok(false);
                }
                Op::Swap {
                    key,
                    value,
                    revision: noted.revision(),
                }
            }
        };
        let check = Op::Check {
            key: self.layout.network(name)?,
            revision: network.revision,
        };
        Ok(self.done(&[check, claim]).await?.is_some())
    }

    /// Whether a network has this VNI, or its record cannot be read.
    async fn may_have(&self, network: &str, vni: u32) -> Result<bool, Error> {
        if !self.layout.can_name(network) {
            return Ok(false);
        }
        match self.network(network).await {
            Ok(network) => Ok(network.is_some_and(|it| it.record.vni == Some(vni))),
            Err(Error::Record { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// All networks whose VNI record is missing or names another network. Records of a newer version are left out.
    pub async fn unclaimed_vnis(&self) -> Result<Vec<UnclaimedVni>, Error> {
        let (networks, vnis) = (self.layout.networks()?, self.layout.vnis()?);
        let entries = self.store.read(&[networks.clone(), vnis]).await?;
        let known: Vec<_> = entries
            .iter()
            .filter_map(|entry| stored::network(entry, &networks))
            .collect();
        let has = |network: &str, vni| {
            known.iter().any(|(name, it)| {
                name == network && it.readable().is_some_and(|it| it.record.vni == Some(vni))
            })
        };
        let mut unclaimed = Vec::new();
        for (name, network) in &known {
            let Some(vni) = network.readable().and_then(|it| it.record.vni) else {
                continue;
            };
            let key = self.layout.vni(vni)?;
            let noted = entries.iter().find(|entry| entry.key == key);
            let noted = noted.map(Stored::<VniRecord>::of);
            if noted.as_ref().is_some_and(Stored::is_newer) {
                continue;
            }
            let noted = noted.as_ref().and_then(Stored::readable);
            let noted = noted.map(|noted| noted.record.network.clone());
            if noted.as_ref() != Some(name) {
                unclaimed.push(UnclaimedVni {
                    network: name.clone(),
                    vni,
                    other: noted.filter(|other| has(other, vni)),
                });
            }
        }
        Ok(unclaimed)
    }
}
