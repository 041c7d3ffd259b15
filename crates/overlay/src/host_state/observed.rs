//! Reads from the kernel what a description names, in few requests, so that `object.rs` can compare it without I/O.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use netlink::{Forwarding, Link, Netns, Route, Rtnl, Sysctl};

use super::{Kind, Object};
use crate::{endpoint::source_guard, segment::mac_rewrite, state::host::Host};
use plugin::Error;

/// Up to so many links are asked for by name. For more, all links of the namespace are listed.
const FEW: usize = 4;

/// A namespace in which objects are.
#[derive(Clone, Copy)]
pub(crate) struct Space<'a> {
    /// The namespace.
    pub(crate) netns: &'a Netns,
    /// A socket in it.
    pub(crate) rtnl: &'a Rtnl,
    /// How messages say where an object is: ` in the sandbox`; nothing for the host.
    pub(crate) place: &'static str,
    /// The host: in its namespace are the other ends of pairs, and the sockets of tunnels.
    pub(crate) host: &'a Host,
}

/// What a caller knows of a namespace before it looks.
#[derive(Default)]
pub(crate) struct Known<'a> {
    /// Links.
    pub(crate) links: Vec<Link>,
    /// Whether these are all that are there.
    pub(crate) has_all: bool,
    /// The host, where it was looked at for the other ends of pairs.
    pub(crate) beyond: Option<&'a Observed>,
}

impl<'a> Space<'a> {
    /// The host itself.
    pub(crate) fn of_host(host: &'a Host) -> Self {
        Self {
            netns: &host.netns,
            rtnl: &host.rtnl,
            place: "",
            host,
        }
    }

    /// A container. Messages name its interfaces alone.
    pub(crate) fn of_container(host: &'a Host, netns: &'a Netns, rtnl: &'a Rtnl) -> Self {
        Self {
            netns,
            rtnl,
            place: "",
            host,
        }
    }
}

/// What is in a namespace, as far as a description asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) place: &'static str,
    pub(crate) links: Vec<Link>,
    /// The other ends of pairs.
    pub(crate) beyond: Vec<Link>,
    /// Addresses, by the index of their link.
    pub(crate) addresses: BTreeSet<(u32, IpNetwork)>,
    pub(crate) routes: Vec<Route>,
    /// The entries of the bridge and of a port, by the port's name.
    pub(crate) entries: BTreeMap<String, Forwarding>,
    /// Values by key; `None` of a key that the kernel lacks. What is not in here was not asked for.
    pub(crate) sysctls: BTreeMap<Sysctl, Option<String>>,
    /// Whether the MACs are rewritten that should be, and no others.
    pub(crate) rewrites: bool,
    /// The table that guards the ports of the bridge.
    pub(crate) guard: nft::guard::Seen,
    /// The configured neighbours of a link, by its name.
    pub(crate) neighbours: BTreeMap<String, Forwarding>,
}

impl Observed {
    /// Looks at what these objects describe. Where none of their links is there the kernel is asked nothing else: all is to be
    /// made.
    pub(crate) async fn of(space: &Space<'_>, objects: &[Object]) -> Result<Self, Error> {
        Self::beside(Known::default(), space, objects).await
    }

    /// The same for a caller that knows something already.
    pub(crate) async fn beside(
        known: Known<'_>,
        space: &Space<'_>,
        objects: &[Object],
    ) -> Result<Self, Error> {
        let mut seen = Self {
            place: space.place,
            ..Self::default()
        };
        let names = names(objects);
        seen.links = if known.has_all {
            known.links
        } else if names.len() > FEW {
            let links = space.rtnl.links().await;
            links?
        } else {
            let is_new = |name: &&str| known.links.iter().all(|link| link.name != *name);
            let new = links(space.rtnl, names.into_iter().filter(is_new)).await?;
            [known.links, new].concat()
        };
        let specs = objects.iter().filter_map(|object| match object {
            Object::Link(spec) => Some(spec),
            _ => None,
        });
        let specs: Vec<_> = specs.collect();
        if !specs.is_empty() && specs.iter().all(|spec| seen.link(&spec.name).is_none()) {
            return Ok(seen);
        }
        seen.beyond = if let Some(beyond) = known.beyond {
            beyond.links.clone()
        } else {
            let peers = specs.iter().filter_map(|spec| match &spec.kind {
                Kind::Veth { peer, .. } => Some(peer.as_str()),
                _ => None,
            });
            links(&space.host.rtnl, peers).await?
        };
        seen.look(space, objects).await?;
        Ok(seen)
    }

    /// Looks at what is no link.
    async fn look(&mut self, space: &Space<'_>, objects: &[Object]) -> Result<(), Error> {
        let (seen, rtnl) = (self, space.rtnl);
        let asks = |kind: fn(&Object) -> bool| objects.iter().any(kind);
        if asks(|it| matches!(it, Object::Address { .. })) {
            let found = rtnl.addresses(None).await?;
            seen.addresses = found.into_iter().collect();
        }
        if asks(|it| matches!(it, Object::Route { .. })) {
            seen.routes = rtnl.routes().await?;
        }
        let keys = objects.iter().filter_map(|object| match object {
            Object::Sysctl { key, .. } => Some(key.clone()),
            _ => None,
        });
        let keys: Vec<_> = keys.collect();
        if !keys.is_empty() {
            let values = space.netns.read_sysctls(&keys)?;
            seen.sysctls = keys.into_iter().zip(values).collect();
        }
        for object in objects {
            match object {
                Object::Entries {
                    bridge, port, only, ..
                } => {
                    let (Some(bridge), Some(link)) = (seen.link(bridge), seen.link(port)) else {
                        continue;
                    };
                    let (bridge, link) = (bridge.index, link.index);
                    let found = if *only {
                        rtnl.forwarding(bridge, link).await
                    } else {
                        rtnl.fdb(bridge, link).await
                    };
                    let found = found?;
                    seen.entries.insert(port.clone(), found);
                }
                Object::Rewrite(macs) => seen.rewrites = mac_rewrite::is(space.netns, macs)?,
                Object::Guard { trusted, .. } => {
                    seen.guard = source_guard::look(space.netns, trusted)?;
                }
                Object::Neighbours { link, .. } => {
                    let Some(index) = seen.link(link).map(|link| link.index) else {
                        continue;
                    };
                    let found = rtnl.neighbours(index).await?;
                    seen.neighbours.insert(link.clone(), found);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The links that were asked for and are there.
    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }

    /// Looks again for the links, after others made the other ends of some of them anew.
    pub(crate) async fn renew(
        &mut self,
        space: &Space<'_>,
        objects: &[Object],
    ) -> Result<(), Error> {
        for link in links(space.rtnl, names(objects).into_iter()).await? {
            let before = self.link(&link.name).map(|link| link.index);
            if before != Some(link.index) {
                self.made(link, objects);
            }
        }
        Ok(())
    }

    pub(super) fn link_mut(&mut self, name: &str) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.name == name)
    }

    /// Takes note of a link that was made. Its settings and entries are those of a new one, which differ from any described.
    pub(super) fn made(&mut self, link: Link, objects: &[Object]) {
        for object in objects {
            match object {
                Object::Sysctl { key, .. } if object.link() == Some(&link.name) => {
                    self.sysctls.remove(key);
                }
                _ => {}
            }
        }
        self.entries.remove(&link.name);
        self.neighbours.remove(&link.name);
        self.links.retain(|it| it.name != link.name);
        self.links.push(link);
    }
}

/// The links that objects describe or name.
fn names(objects: &[Object]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for object in objects {
        match object {
            Object::Link(spec) => {
                names.insert(spec.name.as_str());
                names.extend(spec.bridge);
            }
            Object::Address { link, .. } | Object::Neighbours { link, .. } => {
                names.insert(link.as_str());
            }
            Object::Route { links, .. } => names.extend(links.iter().map(String::as_str)),
            Object::Entries { bridge, port, .. } => names.extend([*bridge, port.as_str()]),
            Object::Sysctl { .. } | Object::Rewrite(_) | Object::Guard { .. } => {}
        }
    }
    names
}

/// Those of these names.
async fn links(rtnl: &Rtnl, names: impl Iterator<Item = &str>) -> Result<Vec<Link>, Error> {
    let mut links = Vec::new();
    for name in names {
        links.extend(rtnl.link(name).await?);
    }
    Ok(links)
}
