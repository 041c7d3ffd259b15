//! Admission, for STATUS: would the store refuse each ADD of this host on a network? Writes nothing.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    Cluster, Error, Network, NetworkSpec, Node, Versioned,
    operations::{networks::refuse_overlap, nodes::is_another},
    records::{SubnetsRecord, decode},
    stored,
};

impl Cluster<'_> {
    /// Fails with the error with which every ADD on the network of `spec` would end. Otherwise returns the network, if the
    /// store has it. `is_used`: containers of this host are on it, so this host would restore it if the store has lost it. One
    /// read, or two if an ADD would create the network.
    pub async fn admit(
        &self,
        spec: &NetworkSpec,
        node: &Node,
        is_used: bool,
    ) -> Result<Option<Versioned<Network>>, Error> {
        let (networks, nodes) = (self.layout.networks()?, self.layout.nodes()?);
        let own = self.layout.network(&spec.name)?;
        let keys = [own.clone(), self.layout.node(&node.name)?];
        let entries = self.store.read(&keys).await?;
        let known = entries.iter().find_map(|it| stored::node(it, &nodes));
        let known = known.as_ref().and_then(|(_, known)| known.readable());
        if let Some(other) = known.filter(|known| is_another(&known.record, node)) {
            return Err(Error::NodeTaken(Box::new(other.record.clone())));
        }
        if let Some((_, network)) = entries.iter().find_map(|it| stored::network(it, &networks)) {
            let network = network.or_refuse(&own)?;
            network.record.takes_attachments()?;
            spec.agree(&network.record)?;
            return Ok(Some(network));
        }
        if is_used {
            return Ok(None);
        }
        if spec.ranges.is_empty() {
            return Err(Error::NoRanges(spec.name.clone()));
        }
        let (vnis, all) = (self.layout.vnis()?, self.layout.subnets()?);
        let entries = self.store.read(&[vnis, all.clone(), networks]).await?;
        if spec.segment {
            self.free_vni(spec, &entries)?;
        }
        let all = entries.iter().find(|entry| entry.key == all);
        let all = all.map(decode::<SubnetsRecord>).transpose()?;
        let mut all = all.map(|all| all.record).unwrap_or_default();
        self.add_subnets(&mut all, &entries)?;
        refuse_overlap(spec, &all)?;
        Ok(None)
    }

    /// Whether the store lets this host write leases of the network: asks it to remove a lease that no attachment has.
    pub async fn may_lease(&self, network: &str) -> Result<(), Error> {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let key = self.layout.lease(network, nobody)?;
        self.store.delete(&key, u64::MAX).await?;
        Ok(())
    }
}
