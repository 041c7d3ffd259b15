//! The egress bridge's namespace: the bridge, the containers' ports, and the port to the host.
//!
//! The host's firewall must not see frames on their way over the bridge. Where `br_netfilter` is loaded, as by Docker and
//! Kubernetes, it would: on a bridge in the host's namespace the host's rules send a packet from port to port, which
//! isolated ports refuse, before routing and FORWARD of the host have seen it. Here nobody has rules; on the host there is one
//! ordinary interface.
//!
//! Versions up to commit 505b5ca had bridge and ports among the host's interfaces. Containers that such a version attached
//! keep that form until their DEL ([`Form`]): verbs and repair go on with it, new containers join it, and the host gets a
//! namespace when the bridge has no container any more.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use journal::Attachment;
use netlink::{Bridge, Link, LinkChange, Mac, Netns, Port, Rtnl, Sysctl, Veth, VethEnd};
use plugin::{Error, code};

use super::MTU;
use crate::{
    names::{self, BRIDGE, EGRESS_BRIDGE, EGRESS_PORT, UPLINK},
    state::host::Host,
    vanished,
};

/// No address that the host did not give, and no firewall for frames, whatever is the default of new namespaces. A
/// `br_netfilter` that is loaded later begins with its own default here, and finds no rules.
const SETTINGS: [(Sysctl, &str); 4] = [
    (Sysctl::new("ipv6/conf/default/disable_ipv6"), "1"),
    (Sysctl::new("bridge/bridge-nf-call-iptables"), "0"),
    (Sysctl::new("bridge/bridge-nf-call-ip6tables"), "0"),
    (Sysctl::new("bridge/bridge-nf-call-arptables"), "0"),
];

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
        // Ports tell, not the bridge: it may have been removed, and one without ports serves nobody.
        if has_ports(&host.rtnl).await? {
            return Ok(Self::OnHost);
        }
        Ok(Self::Apart)
    }

    /// The bridge's name.
    fn bridge(self) -> &'static str {
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

/// The open bridge, whole.
pub(super) struct Inside {
    /// Where it is.
    pub(super) form: Form,
    /// A socket there.
    pub(super) rtnl: Rtnl,
    /// Index of the bridge.
    pub(super) bridge: u32,
    /// The host's interface.
    pub(super) link: Link,
    /// Whether something had to be made or mended.
    pub(super) mended: bool,
}

/// A socket where the egress bridge and the containers' ports are, `None` if there is no such place.
pub(crate) async fn open(host: &Host) -> Result<Option<Rtnl>, Error> {
    match Form::find(host).await? {
        Form::Apart => open_apart(),
        Form::OnHost => on_host(host).map(Some),
    }
}

/// A socket of its own in the host's namespace.
fn on_host(host: &Host) -> Result<Rtnl, Error> {
    Rtnl::here(&host.netns).map_err(Error::from)
}

/// A socket in the egress bridge's namespace, whichever mount namespace that is mounted in; `None` if there is none.
fn open_apart() -> Result<Option<Rtnl>, Error> {
    let (folder, name) = names::egress_netns();
    let found = Netns::find(&folder, name)?;
    let opened = found.map(|netns| Rtnl::open(&netns)).transpose();
    opened.map_err(Error::from)
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

/// Makes what there is not of bridge and the host's interface, which gets this MAC, in the form that the host has. The
/// caller holds the egress lock.
pub(super) async fn ensure(host: &Host, mac: Mac) -> Result<Inside, Error> {
    match Form::find(host).await? {
        Form::Apart => ensure_apart(host, mac).await,
        Form::OnHost => ensure_on_host(host, mac).await,
    }
}

/// The bridge of an earlier version, made anew where somebody removed it.
async fn ensure_on_host(host: &Host, mac: Mac) -> Result<Inside, Error> {
    let (link, mended) = if let Some(link) = outside(host).await? {
        let right = link.up && link.mtu == MTU;
        (link, !right)
    } else {
        let spec = Bridge {
            name: EGRESS_BRIDGE.to_owned(),
            mac: Some(mac),
            mtu: MTU,
            group: 0,
        };
        let made = host.rtnl.create_bridge(&spec).await;
        (made?, true)
    };
    Ok(Inside {
        form: Form::OnHost,
        rtnl: on_host(host)?,
        bridge: link.index,
        link,
        mended,
    })
}

/// Namespace, bridge, and the pair that leads to the host.
async fn ensure_apart(host: &Host, mac: Mac) -> Result<Inside, Error> {
    refuse_hidden(host).await?;
    let (folder, name) = names::egress_netns();
    let netns = Netns::create(&folder, name)?;
    let rtnl = Rtnl::open(&netns)?;
    let mut mended = false;
    let found = rtnl.link(BRIDGE).await?;
    let bridge = match found {
        Some(bridge) if bridge.up => bridge,
        Some(bridge) => {
            mended = true;
            raise(&rtnl, &bridge).await?;
            bridge
        }
        None => {
            mended = true;
            netns.set_sysctls(&SETTINGS)?;
            let spec = Bridge {
                name: BRIDGE.to_owned(),
                mac: None,
                mtu: MTU,
                group: 0,
            };
            let made = rtnl.create_bridge(&spec).await;
            made?
        }
    };
    let uplink = rtnl.link(UPLINK).await?;
    let link = outside(host).await?;
    // One end without the other is of a pair whose other end is elsewhere: of a namespace that was lost.
    let whole = uplink.is_some() && link.as_ref().is_some_and(is_veth);
    if !whole {
        mended = true;
        connect(host, &rtnl, bridge.index, mac).await?;
    } else if let Some(uplink) = uplink.filter(|it| !is_right(it, bridge.index, false)) {
        mended = true;
        put_right(&rtnl, &uplink, bridge.index, false).await?;
    }
    let link = if whole { link } else { outside(host).await? };
    let link = link.ok_or_else(|| vanished(EGRESS_BRIDGE))?;
    Ok(Inside {
        form: Form::Apart,
        rtnl,
        bridge: bridge.index,
        mended: mended || !link.up || link.mtu != MTU,
        link,
    })
}

/// The host's interface, if it stands.
pub(super) async fn outside(host: &Host) -> Result<Option<Link>, Error> {
    let link = host.rtnl.link(EGRESS_BRIDGE).await;
    link.map_err(Error::from)
}

/// The pair of the host's interface, down, and the bridge's port, in the place of what is left of it.
async fn connect(host: &Host, rtnl: &Rtnl, bridge: u32, mac: Mac) -> Result<(), Error> {
    for (rtnl, name) in [(&host.rtnl, EGRESS_BRIDGE), (rtnl, UPLINK)] {
        let removed = rtnl.remove_link(name).await;
        removed?;
    }
    let veth = Veth {
        index: None,
        name: UPLINK.to_owned(),
        mac: None,
        mtu: MTU,
        master: Some(bridge),
        group: 0,
        peer: VethEnd {
            name: EGRESS_BRIDGE.to_owned(),
            mac: Some(mac),
            mtu: MTU,
            group: 0,
            up: false,
        },
    };
    let made = rtnl.create_veth(&veth, &host.netns).await;
    made.map_err(Error::from)
}

pub(super) fn is_veth(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}

/// Removes the host's interface and the namespace.
pub(super) async fn remove(host: &Host) -> Result<(), Error> {
    // The kernel empties a namespace at its leisure; the interface must be gone now.
    let removed = host.rtnl.remove_link(EGRESS_BRIDGE).await;
    removed?;
    let (folder, name) = names::egress_netns();
    let removed = Netns::remove(&folder, name);
    removed.map(drop).map_err(Error::from)
}

/// What of the bridge and the host's port of it, or of this container's port, is not as it should be, if anything.
pub(super) async fn deviation(host: &Host, port: Option<&str>) -> Result<Option<String>, Error> {
    let form = Form::find(host).await?;
    let Some(rtnl) = open(host).await? else {
        return Ok(Some("the egress bridge's namespace is gone".to_owned()));
    };
    let links = rtnl.links().await?;
    let find = |name: &str| links.iter().find(|link| link.name == name);
    let told = |name: &str, what: &str| Ok(Some(format!("{name}{}: {what}", form.place())));
    let bridge = match find(form.bridge()) {
        None => return told(form.bridge(), "is gone"),
        Some(bridge) if !bridge.up => return told(form.bridge(), "is down"),
        Some(bridge) => bridge.index,
    };
    for (name, isolated) in [(form.uplink(), false), (port, true)] {
        let Some(name) = name else { continue };
        match find(name) {
            None => return told(name, "is gone"),
            Some(link) if link.master != Some(bridge) => {
                return told(name, "was taken off the bridge");
            }
            Some(link) if !link.up => return told(name, "is down"),
            Some(link) if link.mtu != MTU => {
                return told(name, &format!("has MTU {}, not {MTU}", link.mtu));
            }
            Some(link) if is_isolated(link) != isolated => {
                let what = if isolated {
                    "is not isolated"
                } else {
                    "is isolated"
                };
                return told(name, what);
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

impl Inside {
    /// Puts the containers' ports on the bridge again that it lost, for example because it was removed and made anew, and
    /// isolates those that are not; whether there were any.
    pub(super) async fn plug_again(&self) -> Result<bool, Error> {
        let links = self.rtnl.links().await?;
        let lost: Vec<_> = links
            .iter()
            .filter(|link| is_port(link) && !is_right(link, self.bridge, true))
            .collect();
        for port in &lost {
            put_right(&self.rtnl, port, self.bridge, true).await?;
        }
        Ok(!lost.is_empty())
    }

    /// Makes the container's pair in the place of what a killed ADD left of it: an isolated port, and the NIC, down.
    pub(super) async fn plug(
        &self,
        attachment: &Attachment,
        peer: VethEnd,
        container: &Netns,
    ) -> Result<(), Error> {
        let name = names::egress_port(attachment);
        let removed = self.rtnl.remove_link(&name).await;
        removed?;
        let veth = Veth {
            index: None,
            name,
            mac: None,
            mtu: MTU,
            master: Some(self.bridge),
            group: 0,
            peer,
        };
        let made = self.rtnl.create_veth(&veth, container).await;
        made.map_err(|error| Error::new(code::KERNEL, format!("{EGRESS_BRIDGE}: {error}")))?;
        isolate(&self.rtnl, &veth.name, true).await
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

/// By its whole name: an interface of the host that only begins like one is somebody else's.
fn is_port(link: &Link) -> bool {
    let hash = link.name.strip_prefix(EGRESS_PORT);
    hash.is_some_and(|hash| hash.len() == 12 && hash.bytes().all(|it| it.is_ascii_hexdigit()))
}

fn is_isolated(link: &Link) -> bool {
    link.port.isolated == Some(true)
}

/// Whether a port of the bridge carries what it should; the host's reaches all others, a container's is isolated.
fn is_right(port: &Link, bridge: u32, isolated: bool) -> bool {
    let carries = port.master == Some(bridge) && port.up && port.mtu == MTU;
    carries && is_isolated(port) == isolated
}

/// Makes it so.
async fn put_right(rtnl: &Rtnl, port: &Link, bridge: u32, isolated: bool) -> Result<(), Error> {
    let change = LinkChange {
        master: Some(bridge),
        up: Some(true),
        mtu: Some(MTU),
        ..LinkChange::default()
    };
    let plugged = rtnl.set_link(port.index, &change).await;
    plugged?;
    isolate(rtnl, &port.name, isolated).await
}

/// Isolated ports of the bridge do not talk to each other, but to the host's.
async fn isolate(rtnl: &Rtnl, port: &str, isolated: bool) -> Result<(), Error> {
    let isolated = Port {
        isolated: Some(isolated),
        ..Port::default()
    };
    let done = rtnl.set_port(port, &isolated).await;
    done.map_err(Error::from)
}

pub(super) async fn raise(rtnl: &Rtnl, link: &Link) -> Result<(), Error> {
    let up = LinkChange {
        up: Some(true),
        mtu: Some(MTU),
        ..LinkChange::default()
    };
    let raised = rtnl.set_link(link.index, &up).await;
    raised.map_err(Error::from)
}
