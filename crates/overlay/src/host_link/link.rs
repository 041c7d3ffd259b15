//! One link of the host to a segment: a veth pair whose one end is the host's and whose other a port of the bridge.

use std::{collections::BTreeSet, net::IpAddr};

use ipnetwork::IpNetwork;
use netlink::{Change, Forward, LinkChange, Mac, Route, Rtnl, Sysctl, Veth, VethEnd};
use plugin::Error;

use crate::{egress, state::host::Host, vanished};

/// A link as it should be; its two ends have the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: String,
    /// Of the host's end.
    pub(super) mac: Mac,
    pub(super) addresses: Vec<IpNetwork>,
    /// Subnets, and the address from which the host speaks to each.
    pub(super) routes: Vec<(IpNetwork, IpAddr)>,
}

/// A sandbox's socket and the index of its bridge.
type Inside<'a> = (&'a Rtnl, u32);

impl Wanted {
    /// What it lacks, in words, on a segment of this MTU; `None` if nothing.
    pub(super) async fn lacks(
        &self,
        host: &Host,
        inside: Inside<'_>,
        mtu: u32,
    ) -> Result<Option<String>, Error> {
        let (sandbox, bridge) = inside;
        let name = &self.name;
        let link = host.rtnl.link(name).await?;
        let Some(link) = link else {
            return Ok(Some(format!("the host's link {name} is gone")));
        };
        if !link.up {
            return Ok(Some(format!("the host's link {name} is down")));
        }
        if link.mac != Some(self.mac) {
            return Ok(Some(format!(
                "the host's link {name} has not the MAC {}",
                self.mac
            )));
        }
        if link.mtu != mtu {
            let has = link.mtu;
            return Ok(Some(format!(
                "the host's link {name} has MTU {has}, not {mtu}"
            )));
        }
        let port = sandbox.link(name).await?;
        let Some(port) = port.filter(|port| port.up && port.master == Some(bridge)) else {
            return Ok(Some(format!(
                "port {name} of the sandbox is gone, down or off the bridge"
            )));
        };
        if port.mtu != mtu {
            let has = port.mtu;
            return Ok(Some(format!(
                "port {name} of the sandbox has MTU {has}, not {mtu}"
            )));
        }
        let present = host.rtnl.addresses(Some(link.index)).await;
        let present: BTreeSet<_> = present?.into_iter().collect();
        let missing = self
            .addresses
            .iter()
            .find(|it| !present.contains(&(link.index, **it)));
        if let Some(address) = missing {
            return Ok(Some(format!(
                "the host's link {name} lacks address {address}"
            )));
        }
        let routes = host.rtnl.routes().await?;
        let is_there = |(subnet, source): &&(IpNetwork, IpAddr)| {
            routes.iter().any(|route| {
                route.dst == *subnet && route.dev == link.index && route.source == Some(*source)
            })
        };
        if let Some((subnet, _)) = self.routes.iter().find(|route| !is_there(route)) {
            return Ok(Some(format!(
                "the host's route to {subnet} by {name} is gone"
            )));
        }
        let entries = sandbox.forwarding(bridge, port.index).await;
        let pinned = entries?.contains(&self.entry());
        Ok((!pinned).then(|| format!("bridge entry {} of port {name} is gone", self.mac)))
    }

    /// The bridge knows for ever that the MAC is here: what it does not know it floods to all hosts.
    fn entry(&self) -> Forward {
        Forward::Port { mac: self.mac }
    }

    /// Makes it, in the place of what there is of it.
    pub(super) async fn make(
        &self,
        host: &Host,
        inside: Inside<'_>,
        mtu: u32,
    ) -> Result<(), Error> {
        let (sandbox, bridge) = inside;
        let name = &self.name;
        for rtnl in [&host.rtnl, sandbox] {
            let removed = rtnl.remove_link(name).await;
            removed?;
        }
        let peer = VethEnd {
            name: name.clone(),
            mac: Some(self.mac),
            mtu,
            group: 0,
            up: false,
        };
        let veth = Veth {
            index: None,
            name: name.clone(),
            mac: None,
            mtu,
            master: Some(bridge),
            group: 0,
            peer,
        };
        let made = sandbox.create_veth(&veth, &host.netns).await;
        made?;
        let port = found(sandbox, name).await?;
        let pinned = sandbox
            .change(bridge, port, &[Change::Add(self.entry())])
            .await;
        pinned?;
        self.quiet()?;
        let link = found(&host.rtnl, name).await?;
        for address in &self.addresses {
            let added = host.rtnl.add_bare_address(link, *address).await;
            added?;
        }
        let up = LinkChange {
            up: Some(true),
            ..LinkChange::default()
        };
        let raised = host.rtnl.set_link(link, &up).await;
        raised?;
        for (subnet, source) in &self.routes {
            let route = Route {
                source: Some(*source),
                ..Route::new(*subnet, None, link)
            };
            let added = host.rtnl.add_route(&route).await;
            added?;
        }
        Ok(())
    }

    /// Before it is up: the link answers for its own addresses alone, and asks from these (the host may have two links to
    /// the segment, with different MACs); what comes by one may be answered by the other; nobody's router advertisement
    /// counts.
    fn quiet(&self) -> Result<(), Error> {
        let key = |family, name| Sysctl::of_link(family, &self.name, name);
        for (name, value) in [
            ("rp_filter", "2"),
            ("arp_ignore", "1"),
            ("arp_announce", "2"),
        ] {
            egress::set(&key("ipv4", name), value)?;
        }
        let disable = key("ipv6", "disable_ipv6");
        if !self.addresses.iter().any(IpNetwork::is_ipv6) {
            // Without IPv6 on the network there is none on the link, nor where the host has none at all.
            return match disable.read()? {
                Some(_) => egress::set(&disable, "1"),
                None => Ok(()),
            };
        }
        for (name, value) in [
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("keep_addr_on_down", "1"),
        ] {
            egress::set(&key("ipv6", name), value)?;
        }
        egress::set(&disable, "0")
    }
}

/// The index of a link that was made a moment ago.
async fn found(rtnl: &Rtnl, name: &str) -> Result<u32, Error> {
    let link = rtnl.link(name).await?;
    Ok(link.ok_or_else(|| vanished(name))?.index)
}
