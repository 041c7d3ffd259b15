//! The interfaces by which clients reach this host, and whether the kernel forwards their packets.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use journal::{Attachment, Journal};
use netlink::{Netns, Route, Rtnl, Sysctl};
use plugin::Error;
use ruleset::Obstacle;

use crate::record::{Record, Run};

/// The beginning of the names of `overlay`'s interfaces, which lead to containers.
const OURS: &str = "ch";
const FORWARD4: Sysctl = Sysctl::new("ipv4/ip_forward");
const FORWARD6: Sysctl = Sysctl::new("ipv6/conf/all/forwarding");

/// The interfaces of this host, with what tells external ones from those to containers.
pub(crate) struct Ingress {
    links: Vec<netlink::Link>,
    routes: Vec<Route>,
    addresses: Vec<(u32, ipnetwork::IpNetwork)>,
}

impl Ingress {
    /// Reads them from the kernel.
    pub(crate) async fn read() -> Result<Self, Error> {
        let here = Netns::current()?;
        let rtnl = Rtnl::here(&here)?;
        Ok(Self {
            links: rtnl.links().await?,
            routes: rtnl.routes().await?,
            addresses: rtnl.addresses(None).await?,
        })
    }

    /// Names and indices of the interfaces by which clients on other machines may arrive, for containers behind `via`. When
    /// unsure, treats an interface as external: blocking its traffic may be intentional.
    pub(crate) fn interfaces(&self, via: &str, v6: bool) -> Vec<(&str, u32)> {
        let ingress = self.links.iter().filter(|link| {
            let leads_on = self.is_the_default_way(link.index, v6);
            let may_be = match link.kind.as_deref() {
                // A bridge that has only veth ports leads to containers.
                Some("bridge") => {
                    self.has_nic(link.index) && self.has_address(link.index, v6, false)
                }
                // The host's end of a container's pair has at most an address without a network.
                Some("veth") => {
                    let is_inner = link.name == via || is_ours(&link.name);
                    !is_inner && self.has_address(link.index, v6, true)
                }
                _ => link.name != "lo" && self.has_address(link.index, v6, false),
            };
            link.up && (leads_on || may_be)
        });
        ingress
            .map(|link| (link.name.as_str(), link.index))
            .collect()
    }

    /// The kernel settings that keep packets from the record's ports or replies from clients, with the commands that change
    /// them.
    pub(crate) fn forwarding_off(&self, record: &Record) -> Vec<Obstacle> {
        let forwarded = record.runs.iter().filter(|run| !run.is_local());
        let keys: BTreeSet<_> = forwarded.filter_map(|run| self.key(run)).collect();
        let blocked = |key: Sysctl| Obstacle {
            certain: true,
            why: format!("{key} is 0: this host forwards nothing to containers"),
            remedy: format!("sysctl -w {}", ruleset::quoted(&format!("{key}=1"))),
            chain: key.to_string(),
        };
        keys.into_iter().map(blocked).collect()
    }

    /// The setting that stops the run's packets, or all replies.
    fn key(&self, run: &Run) -> Option<Sysctl> {
        let v6 = run.to.is_ipv6();
        let ingress = self.interfaces(&run.via, v6);
        let first = ingress.first()?.0;
        let stuck = if !forwards(&run.via, v6) {
            run.via.as_str()
        } else if !ingress.iter().any(|(name, _)| forwards(name, v6)) {
            first
        } else {
            return None;
        };
        Some(match v6 {
            true => FORWARD6,
            false if FORWARD4.is("0") => FORWARD4,
            false => of_link(stuck),
        })
    }

    fn is_the_default_way(&self, link: u32, v6: bool) -> bool {
        let mut routes = self.routes.iter();
        routes.any(|it| it.dev == link && it.dst.is_ipv6() == v6 && it.dst.prefix() == 0)
    }

    fn has_nic(&self, bridge: u32) -> bool {
        let mut links = self.links.iter();
        let is_nic = |kind: Option<&str>| !matches!(kind, Some("veth" | "tun"));
        links.any(|link| link.master == Some(bridge) && is_nic(link.kind.as_deref()))
    }

    /// Whether it has an address of that version that other hosts reach; if `of_network`, one with a network.
    fn has_address(&self, link: u32, v6: bool, of_network: bool) -> bool {
        self.addresses.iter().any(|(index, address)| {
            let whole = if v6 { 128 } else { 32 };
            let is_near = match address.ip() {
                IpAddr::V6(address) => address.is_unicast_link_local(),
                IpAddr::V4(address) => address.is_link_local(),
            };
            let has_network = address.prefix() < whole;
            *index == link && address.is_ipv6() == v6 && !is_near && (has_network || !of_network)
        })
    }
}

/// Whether an interface of this host is one of `overlay`'s.
pub(crate) fn is_ours(link: &str) -> bool {
    link.starts_with(OURS)
}

/// Whether `overlay` has no record of the attachment on this host.
pub(crate) fn is_absent_from_overlay(attachment: &Attachment) -> bool {
    let records = Journal::<serde_json::Value>::new(Path::new(journal::ROOT), "journal/overlay");
    records.is_absent(&attachment.hash())
}

/// Whether a setting may keep the record's packets from being forwarded, so that it is worth a closer look.
pub(crate) fn may_not_forward(record: &Record) -> bool {
    let mut forwarded = record.runs.iter().filter(|run| !run.is_local());
    forwarded.any(|run| {
        let v6 = run.to.is_ipv6();
        if v6 { FORWARD6 } else { FORWARD4 }.is("0") || !forwards(&run.via, v6)
    })
}

/// Whether the kernel forwards packets that arrive by this interface.
fn forwards(link: &str, v6: bool) -> bool {
    if !v6 {
        return !of_link(link).is("0");
    }
    // Since Linux 6.17. Before, one setting applies to all interfaces.
    let forced = Sysctl::of_link("ipv6", link, "force_forwarding").read();
    let is_forced = forced.is_ok_and(|value| value.is_some_and(|value| value != "0"));
    !FORWARD6.is("0") || is_forced
}

fn of_link(link: &str) -> Sysctl {
    Sysctl::of_link("ipv4", link, "forwarding")
}
