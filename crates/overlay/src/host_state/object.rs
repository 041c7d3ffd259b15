//! The objects of a description, and how each differs from what is there. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use ipnetwork::IpNetwork;
use netlink::{Change, Forwarding, Link, Mac, Port, Route, Sysctl};
use nft::guard::{Elements, GUARD, Seen};

use super::Observed;
use crate::segment::forwarding::{Translations, changes};

/// One thing that should be in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    /// A link that is up.
    Link(LinkSpec),
    /// An address of a link.
    Address {
        /// The link.
        link: String,
        /// The address.
        address: IpNetwork,
        /// Whether the kernel makes no route to the address's network with it.
        bare: bool,
    },
    /// A route. Only what it names is compared.
    Route {
        /// It goes by one of these links, by any if there are none. It is made by the first.
        links: Vec<String>,
        /// The route; its `dev` does not count.
        route: Route,
    },
    /// A setting. One of IPv6 or of `br_netfilter` that the kernel does not have is as it should be.
    Sysctl {
        /// The link whose setting it is, if it is one's.
        link: Option<String>,
        /// Its name.
        key: Sysctl,
        /// Its value.
        value: &'static str,
    },
    /// Forwarding entries of a bridge and of a port of it.
    Entries {
        /// The bridge.
        bridge: &'static str,
        /// The port.
        port: String,
        /// These.
        entries: Forwarding,
        /// Whether there are no others.
        only: bool,
    },
    /// The destination MACs that the nftables table of the bridge rewrites: these and no others.
    Rewrite(Translations),
    /// The table of the bridge that lets containers send as themselves only.
    Guard {
        /// The bridge's port to the other hosts, or to this one.
        trusted: &'static str,
        /// What it says of each container's port.
        ports: Elements,
        /// The ports of which it is not known what it should say. It says nothing of any other.
        spared: BTreeSet<String>,
    },
    /// The configured neighbours of a link.
    Neighbours {
        /// The link.
        link: String,
        /// These.
        entries: Forwarding,
        /// Whether there are no others.
        only: bool,
    },
}

/// A link as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LinkSpec {
    /// Its name.
    pub(crate) name: String,
    /// How it is made where it is gone.
    pub(crate) kind: Kind,
    /// Its MAC, where that matters.
    pub(crate) mac: Option<Mac>,
    /// Its MTU.
    pub(crate) mtu: Mtu,
    /// The bridge of which it is a port.
    pub(crate) bridge: Option<&'static str>,
    /// The flags of that port, where they matter.
    pub(crate) port: Port,
}

/// How a link is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not from these descriptions: a verb makes it.
    #[default]
    Given,
    /// With the other end of its pair, which another description has.
    WithOtherEnd,
    /// A bridge that begins with this MAC.
    Bridge(Option<Mac>),
    /// A VXLAN device.
    Vxlan(Tunnel),
    /// A pair whose other end, down at first, is in the namespace beyond.
    Veth {
        /// Name of the other end.
        peer: String,
        /// Its MAC.
        mac: Mac,
    },
}

/// The tunnel side of a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tunnel {
    /// The network.
    pub(crate) network: String,
    /// VXLAN network identifier.
    pub(crate) vni: u32,
    /// UDP port of all ends.
    pub(crate) port: u16,
    /// This host's tunnel address.
    pub(crate) local: IpAddr,
    /// Index of the underlay link on the host, where it is known.
    pub(crate) underlay: Option<u32>,
}

/// Which MTU a link should have, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mtu {
    /// Whatever it has; a link that is made has this one.
    #[default]
    Any,
    /// This one when it is made, whatever it has later.
    First(u32),
    /// This one.
    Exactly(u32),
    /// This one, or a larger one that it had before.
    AtLeast(u32),
}

/// How an object differs from what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deviation {
    /// In words.
    pub(crate) what: String,
    /// Whether [`super::apply`] can put it right.
    pub(crate) is_curable: bool,
    /// How many changes it takes.
    pub(crate) steps: usize,
}

impl Deviation {
    /// One that a change cures.
    pub(crate) fn of(what: String) -> Self {
        Self {
            what,
            is_curable: true,
            steps: 1,
        }
    }
}

/// What of these objects is not as described, in their order. What a link lacks that is gone itself is not told.
pub(crate) fn deviations<'o>(
    objects: &'o [Object],
    seen: &'o Observed,
) -> impl Iterator<Item = Deviation> + 'o {
    let is_told = |object: &&Object| object.link().is_none_or(|link| seen.link(link).is_some());
    let told = objects.iter().filter(is_told);
    told.filter_map(|object| object.differs(seen))
}

impl Mtu {
    /// Of a link that is made.
    pub(super) fn first(self) -> u32 {
        match self {
            Self::Any => 0,
            Self::First(mtu) | Self::Exactly(mtu) | Self::AtLeast(mtu) => mtu,
        }
    }

    /// The one to be set on a link that has `mtu`, if that is wrong.
    pub(super) fn wrong(self, mtu: u32) -> Option<u32> {
        match self {
            Self::Exactly(wanted) if mtu != wanted => Some(wanted),
            Self::AtLeast(least) if mtu < least => Some(least),
            _ => None,
        }
    }
}

impl Object {
    /// The link that it belongs to, if it is no link itself.
    pub(super) fn link(&self) -> Option<&str> {
        match self {
            Self::Address { link, .. } | Self::Neighbours { link, .. } => Some(link),
            Self::Route { links, .. } => links.first().map(String::as_str),
            Self::Entries { port, .. } => Some(port),
            Self::Sysctl { link, .. } => link.as_deref(),
            Self::Link(_) | Self::Rewrite(_) | Self::Guard { .. } => None,
        }
    }

    /// Whether it is this link, or belongs to it.
    pub(crate) fn is_of(&self, name: &str) -> bool {
        match self {
            Self::Link(spec) => spec.name == name,
            _ => self.link() == Some(name),
        }
    }

    /// How it differs from what is there; `None` where it is as described.
    pub(crate) fn differs(&self, seen: &Observed) -> Option<Deviation> {
        let place = seen.place;
        let one = Deviation::of;
        match self {
            Self::Link(spec) => {
                let what = spec.differs(seen)?;
                Some(Deviation {
                    is_curable: spec.kind != Kind::Given || seen.link(&spec.name).is_some(),
                    ..one(format!("{}{place}: {what}", spec.name))
                })
            }
            Self::Address { link, address, .. } => {
                let index = seen.link(link).map(|link| link.index);
                let is_there =
                    index.is_some_and(|index| seen.addresses.contains(&(index, *address)));
                (!is_there).then(|| one(format!("{link}{place}: lacks address {address}")))
            }
            Self::Route { links, route } => {
                let what = seen.lacks_route(links, route)?;
                Some(one(format!("route to {}{place}: {what}", route.dst)))
            }
            Self::Sysctl { key, value, .. } => {
                let what = match seen.sysctls.get(key) {
                    Some(Some(found)) if found == value => return None,
                    Some(Some(found)) => format!("is {found}, not {value}"),
                    Some(None) if key.is_optional() => return None,
                    _ => format!("is not {value}"),
                };
                Some(one(format!("{key}{place}: {what}")))
            }
            Self::Entries { .. } | Self::Neighbours { .. } => {
                let steps = self.steps(seen);
                let first = match steps.first()? {
                    Change::Add(entry) => format!("no {entry}"),
                    Change::Remove(entry) => entry.to_string(),
                };
                let what = match steps.len() - 1 {
                    0 => format!("has {first}"),
                    more => format!(
                        "has {first}, and {more} entries more that are not as they should be"
                    ),
                };
                Some(Deviation {
                    steps: steps.len(),
                    ..one(match self {
                        Self::Neighbours { link, .. } => format!("{link}{place}: {what}"),
                        _ => format!("forwarding{place}: {what}"),
                    })
                })
            }
            Self::Guard { ports, spared, .. } => {
                let what = unguarded(&seen.guard, ports, spared)?;
                Some(one(format!("nftables table bridge {GUARD}{place}: {what}")))
            }
            Self::Rewrite(_) => (!seen.rewrites).then(|| {
                let what = "does not rewrite the MACs that it should";
                one(format!("nftables table bridge crosshost{place}: {what}"))
            }),
        }
    }

    /// What brings the entries to what they should be; nothing of another object.
    pub(super) fn steps(&self, seen: &Observed) -> Vec<Change> {
        let nothing = Forwarding::new();
        let (entries, present, only) = match self {
            Self::Entries {
                port,
                entries,
                only,
                ..
            } => (entries, seen.entries.get(port), only),
            Self::Neighbours {
                link,
                entries,
                only,
            } => (entries, seen.neighbours.get(link), only),
            _ => return Vec::new(),
        };
        let present = present.unwrap_or(&nothing);
        let mut steps = changes(entries, present);
        steps.retain(|step| *only || matches!(step, Change::Add(_)));
        steps
    }
}

impl LinkSpec {
    fn differs(&self, seen: &Observed) -> Option<String> {
        let Some(link) = seen.link(&self.name) else {
            return Some("is gone".to_owned());
        };
        if let Some(what) = self.misfit(link, seen) {
            return Some(what);
        }
        let mac = self.mac.filter(|mac| link.mac != Some(*mac));
        let mtu = self.mtu.wrong(link.mtu);
        Some(if !link.up {
            "is down".to_owned()
        } else if self.is_off_bridge(link, seen) {
            "was taken off the bridge".to_owned()
        } else if let Some(mtu) = mtu {
            format!("has MTU {}, not {mtu}", link.mtu)
        } else if let Some(mac) = mac {
            let has = link.mac.map_or("none".to_owned(), |mac| mac.to_string());
            format!("has MAC {has}, not {mac}")
        } else {
            self.wrong_flag(link)?
        })
    }

    /// What of a link cannot be changed and is wrong: it has to be made anew.
    pub(super) fn misfit(&self, link: &Link, seen: &Observed) -> Option<String> {
        match &self.kind {
            Kind::Given | Kind::WithOtherEnd => None,
            Kind::Bridge(_) => {
                let is_bridge = link.kind.as_deref() == Some("bridge");
                (!is_bridge).then(|| "is no bridge".to_owned())
            }
            Kind::Vxlan(tunnel) => tunnel.differs(link),
            // A pair is whole if the other end is in the namespace beyond.
            Kind::Veth { peer, .. } => {
                let is_veth = |link: &Link| link.kind.as_deref() == Some("veth");
                if !is_veth(link) {
                    return Some("is no veth".to_owned());
                }
                let mut beyond = seen.beyond.iter();
                let whole = beyond.any(|link| link.name == *peer && is_veth(link));
                (!whole).then(|| format!("its other end {peer} is gone"))
            }
        }
    }

    pub(super) fn is_off_bridge(&self, link: &Link, seen: &Observed) -> bool {
        self.bridge.is_some_and(|bridge| {
            let bridge = seen.link(bridge).map(|bridge| bridge.index);
            bridge.is_none() || link.master != bridge
        })
    }

    fn wrong_flag(&self, link: &Link) -> Option<String> {
        let (wanted, has) = (&self.port, &link.port);
        let flags = [
            ("neigh_suppress", wanted.neigh_suppress, has.neigh_suppress),
            ("learning", wanted.learning, has.learning),
            ("isolated", wanted.isolated, has.isolated),
            ("hairpin", wanted.hairpin, has.hairpin),
            ("flood", wanted.flood, has.flood),
        ];
        let is_wrong = |wanted: Option<bool>, has| wanted.is_some_and(|_| wanted != has);
        let mut flags = flags.into_iter();
        let (flag, wanted, _) = flags.find(|(_, wanted, has)| is_wrong(*wanted, *has))?;
        let wanted = if wanted? { "off" } else { "on" };
        Some(format!("as a port of the bridge has {flag} {wanted}"))
    }

    pub(super) fn has_wrong_flag(&self, link: &Link) -> bool {
        self.wrong_flag(link).is_some()
    }
}

impl Tunnel {
    fn differs(&self, link: &Link) -> Option<String> {
        let Some(info) = &link.vxlan else {
            return Some("is no VXLAN device".to_owned());
        };
        let local = info
            .local
            .map_or("none".to_owned(), |local| local.to_string());
        let underlay = self.underlay.unwrap_or(info.underlay);
        // A device of an earlier version sends from any port, until it goes with its last container.
        let source_ports = match info.source_ports {
            (0, 0) => (0, 0),
            _ => nft::TUNNEL_SOURCE_PORTS,
        };
        let range = |(first, end): (u16, u16)| format!("{first} to {}", end.saturating_sub(1));
        let values = [
            ("VNI", info.vni.to_string(), self.vni.to_string()),
            ("UDP port", info.port.to_string(), self.port.to_string()),
            (
                "source ports",
                range(info.source_ports),
                range(source_ports),
            ),
            ("local address", local, self.local.to_string()),
            (
                "underlay link",
                info.underlay.to_string(),
                underlay.to_string(),
            ),
            ("learning", info.learning.to_string(), false.to_string()),
        ];
        let mut values = values.into_iter();
        let (what, has, wants) = values.find(|(_, has, wants)| has != wants)?;
        Some(format!("has {what} {has}, not {wants}"))
    }
}

impl Object {
    /// A setting of a link.
    pub(crate) fn setting(family: &str, link: &str, name: &str, value: &'static str) -> Self {
        Self::Sysctl {
            link: Some(link.to_owned()),
            key: Sysctl::of_link(family, link, name),
            value,
        }
    }

    /// The settings by which a link has the addresses of IPv6 that it is given, and no others: the kernel makes none, and no
    /// router's advertisement counts. Without `v6` it has no IPv6: no link-local address, and no multicast joins and router
    /// solicitations, which would be flooded to every host.
    pub(crate) fn quiet(link: &str, v6: bool) -> Vec<Self> {
        let settings: &[_] = if v6 {
            &[
                ("addr_gen_mode", "1"),
                ("accept_ra", "0"),
                ("keep_addr_on_down", "1"),
                // The last: an interface that is up gets an address with it.
                ("disable_ipv6", "0"),
            ]
        } else {
            &[("disable_ipv6", "1")]
        };
        let settings = settings.iter();
        settings
            .map(|(name, value)| Self::setting("ipv6", link, name, value))
            .collect()
    }

    /// A setting of a whole namespace.
    pub(crate) fn of_namespace(key: Sysctl, value: &'static str) -> Self {
        let link = None;
        Self::Sysctl { link, key, value }
    }
}

impl Observed {
    /// The link of that name.
    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

/// What the table that guards ports does wrong.
fn unguarded(seen: &Seen, ports: &Elements, spared: &BTreeSet<String>) -> Option<String> {
    if !seen.is_complete {
        return Some("gone or changed by another program".to_owned());
    }
    let mut wrong = ports
        .iter()
        .filter(|(name, wanted)| seen.elements.get(*name) != Some(*wanted));
    if let Some((name, _)) = wrong.next() {
        return Some(format!("does not hold {name} to its own addresses"));
    }
    let mut others = seen.elements.keys();
    let other = others.find(|name| !ports.contains_key(*name) && !spared.contains(*name))?;
    Some(format!("speaks of {other}, of which it should not"))
}
