//! The egress bridge's namespace: the bridge, the containers' ports, and the port to the host.
//!
//! The host's firewall must not see frames on their way over the bridge. Where `br_netfilter` is loaded, as by Docker and
//! Kubernetes, it would: on a bridge in the host's namespace the host's rules send a packet from port to port, which
//! isolated ports refuse, before routing and FORWARD of the host have seen it. In this namespace there are no rules, and on the host
//! there is one ordinary interface.
//!
//! Versions up to commit 505b5ca had bridge and ports among the host's interfaces. Containers that such a version attached
//! keep that form until their DEL ([`Form`]): verbs and repair go on with it, new containers join it, and the host gets a
//! namespace when the bridge has no container any more.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use journal::Attachment;
use netlink::{Forwarding, Link, Netns, RaisedPort, Rtnl, Veth, VethEnd};

use super::{Ledger, MTU, bridge::Look, desired};
use crate::{
    endpoint::source_guard::{self, Permitted},
    host_state::{self, Deviation, Known, Object, Observed, Space, deviations},
    names::{self, BRIDGE, EGRESS_BRIDGE, EGRESS_PORT, UPLINK},
    segment::forwarding::mac_of,
    state::host::Host,
    vanished,
};
use plugin::{Error, code};

/// How long the kernel may take to empty a namespace that was unmounted.
const TEARDOWN: Duration = Duration::from_secs(3);

/// Where the egress bridge and the containers' ports are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In a namespace of their own.
    Apart,
    /// Among the host's interfaces, as versions up to commit 505b5ca made them; the bridge is `ch-egress` itself.
    OnHost,
}

impl Form {
    /// The one that this host has, or would get with its first container.
    pub(super) async fn find(host: &Host) -> Result<Self, Error> {
        let outside = outside(host).await?;
        if outside.as_ref().is_some_and(is_veth) || (outside.is_none() && open_apart()?.is_some()) {
            return Ok(Self::Apart);
        }
        // The ports tell, not the bridge: that may have been removed, and without ports it serves no container.
        if has_ports(&host.rtnl).await? {
            return Ok(Self::OnHost);
        }
        Ok(Self::Apart)
    }

    /// The bridge's name.
    pub(super) fn bridge(self) -> &'static str {
        match self {
            Self::Apart => BRIDGE,
            Self::OnHost => EGRESS_BRIDGE,
        }
    }

    /// The port of the bridge that leads to the host, if the host is not on the bridge itself.
    pub(super) fn uplink(self) -> Option<&'static str> {
        (self == Self::Apart).then_some(UPLINK)
    }

    /// How messages say where an interface is.
    fn place(self) -> &'static str {
        match self {
            Self::Apart => " in the egress namespace",
            Self::OnHost => "",
        }
    }
}

/// Where the bridge is.
pub(super) struct Inside {
    /// In which form.
    pub(super) form: Form,
    netns: Netns,
    /// A socket there.
    pub(super) rtnl: Rtnl,
    /// Index of the bridge, where it is known.
    bridge: u32,
    /// Index of the host's interface, where it is known.
    pub(super) outside: u32,
    /// How many objects had to be made or mended.
    pub(super) changes: usize,
}

/// A socket where the egress bridge and the containers' ports are, `None` if there is no such place.
pub(crate) async fn open(host: &Host) -> Result<Option<Rtnl>, Error> {
    Ok(Inside::open(host).await?.map(|inside| inside.rtnl))
}

/// The host's namespace with a socket of its own.
fn on_host(host: &Host) -> Result<(Netns, Rtnl), Error> {
    let netns = Netns::current()?;
    let rtnl = Rtnl::here(&host.netns)?;
    Ok((netns, rtnl))
}

/// The egress bridge's namespace, whichever mount namespace that is mounted in, with a socket; `None` if there is none.
fn open_apart() -> Result<Option<(Netns, Rtnl)>, Error> {
    let (folder, name) = names::egress_netns();
    let found = Netns::find(&folder, name)?;
    let Some(netns) = found else {
        return Ok(None);
    };
    let rtnl = Rtnl::open(&netns)?;
    Ok(Some((netns, rtnl)))
}

/// Refuses where the namespace lives and cannot be found: its file is bare, and the host's interface has its other end in it.
/// One that was unmounted takes the interface with it, for which the kernel needs a moment.
pub(super) async fn refuse_hidden(host: &Host) -> Result<(), Error> {
    let (folder, name) = names::egress_netns();
    let begun = Instant::now();
    while Netns::is_bare(&folder, name)
        && outside(host).await?.as_ref().is_some_and(is_veth)
        && open_apart()?.is_none()
    {
        if begun.elapsed() > TEARDOWN {
            let path = folder.join(name);
            let why = format!(
                "network namespace {}: made in another mount namespace, which cannot be seen from here; run this there, or remove PrivateTmp=, PrivateMounts= and their like from the service that made it",
                path.display()
            );
            return Err(Error::new(code::DIFFERS, why));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The host's interface, if it stands.
pub(super) async fn outside(host: &Host) -> Result<Option<Link>, Error> {
    let link = host.rtnl.link(EGRESS_BRIDGE).await;
    link.map_err(Error::from)
}

pub(super) fn is_veth(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}

/// Removes the host's interface and the namespace.
pub(super) async fn remove(host: &Host) -> Result<(), Error> {
    // The kernel empties a namespace at its leisure; the interface must be gone now.
    host.rtnl.remove_link(EGRESS_BRIDGE).await?;
    let (folder, name) = names::egress_netns();
    let removed = Netns::remove(&folder, name);
    removed.map(drop).map_err(Error::from)
}

impl Inside {
    fn of(form: Form, netns: Netns, rtnl: Rtnl) -> Self {
        Self {
            form,
            netns,
            rtnl,
            bridge: 0,
            outside: 0,
            changes: 0,
        }
    }

    /// In the form that the host has; `None` where its namespace is gone.
    pub(super) async fn open(host: &Host) -> Result<Option<Self>, Error> {
        let form = Form::find(host).await?;
        let place = match form {
            Form::Apart => open_apart()?,
            Form::OnHost => Some(on_host(host)?),
        };
        Ok(place.map(|(netns, rtnl)| Self::of(form, netns, rtnl)))
    }

    /// The same, with a new namespace where there is none.
    pub(super) async fn open_or_make(host: &Host) -> Result<Self, Error> {
        let form = Form::find(host).await?;
        if form == Form::OnHost {
            let (netns, rtnl) = on_host(host)?;
            return Ok(Self::of(form, netns, rtnl));
        }
        refuse_hidden(host).await?;
        let (folder, name) = names::egress_netns();
        let netns = Netns::create(&folder, name)?;
        let rtnl = Rtnl::open(&netns)?;
        Ok(Self::of(form, netns, rtnl))
    }

    fn space<'a>(&'a self, host: &'a Host) -> Space<'a> {
        Space {
            netns: &self.netns,
            rtnl: &self.rtnl,
            place: self.form.place(),
            host,
        }
    }

    fn described(&self, ledger: &Ledger) -> Vec<Object> {
        desired::bridge(self.form, mac_of(ledger.gateway().into()))
    }

    /// What holds the containers to their own addresses: the bridge's entries of the host and of these ports, and the table. A bridge of
    /// an earlier version, among the host's interfaces, has no guard.
    fn guard(&self, ledger: &Ledger, standing: &BTreeSet<&str>) -> Vec<Object> {
        if self.form == Form::OnHost {
            return Vec::new();
        }
        let ports = desired::ports(ledger);
        let its = ports.permitted.iter();
        let its = its.filter(|(name, _)| standing.contains(name.as_str()));
        let entries = its.map(|(name, permitted)| desired::port_entry(name, permitted));
        [desired::uplink_entry(mac_of(ledger.gateway().into()))]
            .into_iter()
            .chain(entries)
            .chain([ports.guard(UPLINK)])
            .collect()
    }

    /// Makes or mends what the bridge lacks, given what was seen on the host; how many changes that took.
    pub(super) async fn apply(
        &mut self,
        host: &Host,
        ledger: &Ledger,
        look: Look,
        outside: &Observed,
    ) -> Result<usize, Error> {
        let mut all = self.described(ledger);
        let mut known = Known {
            beyond: Some(outside),
            ..Known::default()
        };
        if look == Look::AtAll {
            known.links = self.rtnl.links().await?;
            known.has_all = true;
            let ports = known.links.iter().filter(|link| is_port(link));
            all.extend(ports.map(|port| desired::container_port(self.form, &port.name)));
        } else {
            let mut links = all.clone();
            links.retain(|object| matches!(object, Object::Link(_)));
            let seen = Observed::beside(known, &self.space(host), &links).await?;
            if deviations(&links, &seen).next().is_none() {
                self.bridge = seen.link(self.form.bridge()).map_or(0, |it| it.index);
                return Ok(0);
            }
            known = Known {
                links: seen.links().to_vec(),
                has_all: true,
                beyond: Some(outside),
            };
        }
        let names = known.links.iter().map(|link| link.name.as_str());
        all.extend(self.guard(ledger, &names.collect()));
        let space = self.space(host);
        let mut seen = Observed::beside(known, &space, &all).await?;
        let changes = host_state::apply(&space, &all, &mut seen).await?;
        self.bridge = seen.link(self.form.bridge()).map_or(0, |it| it.index);
        Ok(changes)
    }

    /// What of the bridge, and of these ports of containers, is not as it should be, given what was seen on the host.
    pub(super) async fn deviating(
        &self,
        host: &Host,
        ledger: &Ledger,
        ports: &[String],
        outside: &Observed,
    ) -> Result<Vec<Deviation>, Error> {
        let mut all = self.described(ledger);
        let names: BTreeSet<_> = ports.iter().map(String::as_str).collect();
        let ports = ports.iter();
        all.extend(ports.map(|port| desired::container_port(self.form, port)));
        all.extend(self.guard(ledger, &names));
        let known = Known {
            beyond: Some(outside),
            ..Known::default()
        };
        let seen = Observed::beside(known, &self.space(host), &all).await?;
        Ok(deviations(&all, &seen).collect())
    }

    /// Makes the container's pair in the place of what a killed ADD left of it: a port from which may come what is permitted, and the NIC,
    /// down.
    pub(super) async fn plug(
        &self,
        host: &Host,
        (ledger, permitted): (&Ledger, &Permitted),
        attachment: &Attachment,
        peer: VethEnd,
        container: &Netns,
    ) -> Result<(), Error> {
        let name = names::egress_port(attachment);
        if self.form == Form::Apart {
            self.admit(host, ledger, &name, permitted).await?;
        }
        let of_apart = names::egress_port_index(attachment);
        let veth = Veth {
            index: Some(of_apart).filter(|_| self.form == Form::Apart),
            name,
            mac: None,
            mtu: MTU,
            master: Some(self.bridge),
            group: 0,
            up: false,
            peer,
        };
        let failed = |error| Error::new(code::KERNEL, format!("{EGRESS_BRIDGE}: {error}"));
        let mut made = self.rtnl.create_veth(&veth, container).await;
        let is_taken = made.as_ref().is_err_and(netlink::Error::is_exists);
        if is_taken && self.rtnl.remove_link(&veth.name).await? {
            made = self.rtnl.create_veth(&veth, container).await;
        }
        made.map_err(failed)?;
        let port = match self.form {
            Form::OnHost => RaisedPort {
                index: self.index_of(&veth.name).await?,
                bridge: self.bridge,
                entries: Forwarding::new(),
                settings: desired::ISOLATED,
            },
            Form::Apart => RaisedPort {
                index: of_apart,
                bridge: self.bridge,
                entries: permitted.entries(),
                settings: desired::GUARDED,
            },
        };
        let raised = self.rtnl.raise_port(&port).await;
        raised.map_err(Error::from)
    }

    async fn index_of(&self, name: &str) -> Result<u32, Error> {
        let link = self.rtnl.link(name).await?;
        Ok(link.ok_or_else(|| vanished(name))?.index)
    }

    /// Lets the port of that name send what it may, before it is made.
    async fn admit(
        &self,
        host: &Host,
        ledger: &Ledger,
        name: &str,
        permitted: &Permitted,
    ) -> Result<(), Error> {
        let mut guard = source_guard::open(&self.netns, UPLINK)?;
        if guard.admit(&permitted.on(name))? {
            return Ok(());
        }
        // The table is new, or was damaged, or knows the port from a removal that was killed.
        let mut ports = desired::ports(ledger);
        ports.spared.remove(name);
        ports.permitted.insert(name.to_owned(), permitted.clone());
        let table = [ports.guard(UPLINK)];
        let mut nothing = Observed::default();
        host_state::apply(&self.space(host), &table, &mut nothing).await?;
        Ok(())
    }

    /// Forgets what the port of that name may send, after it is gone.
    pub(super) fn release(&self, name: &str, known: Option<&Permitted>) -> Result<(), Error> {
        if self.form == Form::OnHost {
            return Ok(());
        }
        source_guard::release(&self.netns, UPLINK, name, known)
    }
}

/// Whether containers have ports on the bridge.
pub(super) async fn has_ports(rtnl: &Rtnl) -> Result<bool, Error> {
    let links = rtnl.links().await?;
    Ok(links.iter().any(is_port))
}

/// The names of the containers' ports; `None` where the namespace is not to be seen.
pub(super) async fn ports(host: &Host) -> Result<Option<BTreeSet<String>>, Error> {
    let Some(rtnl) = open(host).await? else {
        return Ok(None);
    };
    let links = rtnl.links().await?;
    let ports = links.into_iter().filter(is_port);
    Ok(Some(ports.map(|port| port.name).collect()))
}

/// By the whole name: an interface of the host that only begins in the same way belongs to another program.
fn is_port(link: &Link) -> bool {
    let hash = link.name.strip_prefix(EGRESS_PORT);
    hash.is_some_and(|hash| hash.len() == 12 && hash.bytes().all(|it| it.is_ascii_hexdigit()))
}
