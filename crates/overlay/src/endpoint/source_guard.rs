//! The source guard: what a container's port may send is what its attachment has, on the segment and on the egress bridge. The rules are
//! in `crates/nft/src/guard/guard.nft`, the reasons in docs/decisions/0024-source-guard.md.
//!
//! What an attachment has is in its record, because the container, which could be asked, may lie. An attachment without that in its record
//! was made by an earlier version, and its port stays open.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipam::Mac;
use journal::{Attachment, Found};
use netlink::{Forward, Forwarding, Netns, Port, RaisedPort};
use nft::guard::{self, Elements, Guard, Seen, Sources};
use plugin::{Error, readable};
use serde::{Deserialize, Serialize};

use crate::{
    config::Conf,
    endpoint::desired::link_local_of,
    host_state::{self, Known, Object, Observed},
    names::{self, VXLAN},
    segment::{desired, sandbox::Sandbox},
    state::{attachment::Stage, host::Host},
};

/// How many frames a second a port may send to groups of receivers, or to all, if the configuration does not say.
pub const GROUP_RATE: u32 = 1000;

/// What the port of an attachment may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permitted {
    /// The attachment's MAC.
    pub mac: Mac,
    /// Its addresses, with the link-local one; `None` with `spoofchk: false`, where frames may name any sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<BTreeSet<IpAddr>>,
    /// How many frames a second it may send to groups of receivers, or to all.
    pub group_rate: u32,
}

impl Permitted {
    /// What a new attachment with this MAC and these addresses may send; with `has_v6` also from the link-local address.
    pub(crate) fn of(conf: &Conf, mac: netlink::Mac, ips: &[IpAddr], has_v6: bool) -> Self {
        let ips = ips.iter().copied();
        let itself = Self::itself(mac, ips, has_v6, conf.group_rate);
        Self {
            addresses: itself.addresses.filter(|_| conf.spoofchk),
            ..itself
        }
    }

    /// To send as itself only, by this MAC and these addresses; with `has_v6` also by the link-local address.
    pub(crate) fn itself(
        mac: netlink::Mac,
        addresses: impl Iterator<Item = IpAddr>,
        has_v6: bool,
        group_rate: u32,
    ) -> Self {
        let link_local = link_local_of(mac).filter(|_| has_v6);
        Self {
            mac: Mac(mac.0),
            addresses: Some(addresses.chain(link_local.map(|it| it.ip())).collect()),
            group_rate,
        }
    }

    /// Why nothing of an interface with this MAC passes the port; `None` if it does.
    pub(crate) fn mutes(&self, mac: netlink::Mac) -> Option<String> {
        let own = netlink::Mac(self.mac.0);
        let is_muted = self.addresses.is_some() && mac != own;
        is_muted.then(|| {
            format!(
                "the interface has MAC {mac}, and its port lets {own} alone pass: no other plugin may set its MAC (tuning: mac)"
            )
        })
    }

    /// As rules know it, for the port of this name.
    pub(crate) fn on(&self, port: &str) -> guard::Port {
        let only = self.addresses.as_ref().map(|addresses| Sources {
            mac: self.mac.0,
            addresses: addresses.clone(),
        });
        guard::Port {
            name: port.to_owned(),
            only,
            group_rate: self.group_rate,
        }
    }

    /// The flags of its port. The bridge knows where the container's MAC is, so nothing else is sent to it, and it need not be listened to.
    /// A port that may send anything has other MACs behind it: what is for them is sent to it with all that the bridge does not know, and
    /// what it says of its addresses is passed on to the other hosts instead of being answered here.
    pub(crate) fn flags(&self) -> Port {
        let is_open = self.addresses.is_none();
        Port {
            learning: Some(false),
            flood: Some(is_open),
            neigh_suppress: Some(is_open),
            ..Port::default()
        }
    }

    /// What the host knows of it as a neighbour, so that it asks, and believes, nobody; nothing of one that may send anything.
    pub(crate) fn neighbours(&self) -> impl Iterator<Item = Forward> + use<> {
        let mac = netlink::Mac(self.mac.0);
        let addresses = self.addresses.clone().unwrap_or_default().into_iter();
        let of_host = |it: &IpAddr| !matches!(it, IpAddr::V6(it) if it.is_unicast_link_local());
        addresses
            .filter(of_host)
            .map(move |addr| Forward::Neigh { addr, mac })
    }

    /// The bridge's entry for it.
    pub(crate) fn entries(&self) -> Forwarding {
        let mac = netlink::Mac(self.mac.0);
        [Forward::Port { mac }].into()
    }
}

/// What is known of the ports of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// What may come from a port, by its name.
    pub(crate) permitted: BTreeMap<String, Permitted>,
    /// Ports of which that is not known: a verb is at work, or a record cannot be read.
    pub(crate) spared: BTreeSet<String>,
}

impl Ports {
    /// The object that says it to the kernel.
    pub(crate) fn guard(&self, trusted: &'static str) -> Object {
        let ports = self.permitted.iter();
        let ports = ports.map(|(name, permitted)| (name.clone(), permitted.on(name).elements()));
        Object::Guard {
            trusted,
            ports: ports.collect(),
            spared: self.spared.clone(),
        }
    }
}

/// What the records say of the ports of a network's sandbox. The caller holds the network's lock.
pub(crate) fn on_segment(host: &Host, network: &str) -> Result<Ports, Error> {
    let users = readable(&host.users, network)?.unwrap_or_default();
    let mut ports = Ports::default();
    for hash in users.0 {
        let port = names::port_of(&hash);
        match host.records.load(&hash)? {
            Found::Readable(record) if record.stage == Stage::Made => {
                let permitted = record.port.map(|permitted| (port, permitted));
                ports.permitted.extend(permitted);
            }
            // An ADD is at work, or was killed.
            Found::Readable(_) | Found::Absent | Found::Unreadable(_) => {
                ports.spared.insert(port);
            }
        }
    }
    Ok(ports)
}

/// All that should be in the sandbox for the guard: of these links those that are its ports, and the table.
pub(crate) fn describe(ports: &Ports, links: &[netlink::Link]) -> Vec<Object> {
    let stands = |name: &str| links.iter().any(|link| link.name == name);
    let standing = ports.permitted.iter().filter(|(name, _)| stands(name));
    let mut objects: Vec<_> = standing
        .flat_map(|(name, permitted)| desired::guarded_port(name, permitted))
        .collect();
    objects.push(ports.guard(VXLAN));
    objects
}

/// Makes the guard of a network's sandbox what the records say; how much was wrong. The caller holds the network's lock.
pub(crate) async fn repair(host: &Host, network: &str, sandbox: &Sandbox) -> Result<usize, Error> {
    let ports = on_segment(host, network)?;
    let links = sandbox.rtnl.links().await?;
    let objects = describe(&ports, &links);
    let known = Known {
        links,
        has_all: true,
        beyond: None,
    };
    let space = sandbox.space(host);
    let mut seen = Observed::beside(known, &space, &objects).await?;
    host_state::apply(&space, &objects, &mut seen).await
}

/// A new port of a network's sandbox, which is down until it is known what may come from it.
pub(crate) struct NewPort(Guard);

impl NewPort {
    /// Opens what is needed to let it send, before that is known.
    pub(crate) fn open(sandbox: &Sandbox) -> Result<Self, Error> {
        Ok(Self(open(&sandbox.netns, VXLAN)?))
    }

    /// Lets the attachment's port send what it may, and raises it.
    pub(crate) async fn admit(
        mut self,
        host: &Host,
        sandbox: &Sandbox,
        attachment: &Attachment,
        permitted: &Permitted,
    ) -> Result<(), Error> {
        let name = names::port(attachment);
        let network = &attachment.network;
        if !self.0.admit(&permitted.on(&name))? {
            // The table is new, or was damaged, or knows the port from a removal that was killed.
            let _lock = host.lock_network(network)?;
            let mut ports = on_segment(host, network)?;
            ports.spared.remove(&name);
            ports.permitted.insert(name.clone(), permitted.clone());
            let table = [ports.guard(VXLAN)];
            let mut nothing = Observed::default();
            host_state::apply(&sandbox.space(host), &table, &mut nothing).await?;
        }
        let port = RaisedPort {
            index: names::port_index(attachment),
            bridge: sandbox.bridge,
            entries: permitted.entries(),
            settings: permitted.flags(),
        };
        let raised = sandbox.rtnl.raise_port(&port).await;
        raised.map_err(Error::from)
    }
}

/// The table of a namespace.
pub(crate) fn open(netns: &Netns, trusted: &'static str) -> Result<Guard, Error> {
    let opened = netns.run(|| Guard::open(trusted));
    opened?.map_err(Error::from)
}

/// What a namespace has of it.
pub(crate) fn look(netns: &Netns, trusted: &'static str) -> Result<Seen, Error> {
    open(netns, trusted)?.look().map_err(Error::from)
}

/// Makes it complete, with what is said of these ports.
pub(crate) fn set(
    netns: &Netns,
    trusted: &'static str,
    ports: &Elements,
    spared: &BTreeSet<String>,
) -> Result<(), Error> {
    let done = open(netns, trusted)?.set(ports, spared);
    done.map_err(Error::from)
}

/// Takes out of it what it says of a port that is gone; `known` is what its record says. Nothing where there is no table.
pub(crate) fn release(
    netns: &Netns,
    trusted: &'static str,
    port: &str,
    known: Option<&Permitted>,
) -> Result<(), Error> {
    let known = known.map(|permitted| permitted.on(port));
    let done = open(netns, trusted)?.release(port, known.as_ref());
    done.map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_state::deviations;

    const MAC: Mac = Mac([0x02, 0x42, 10, 0, 0, 2]);

    fn permitted(spoofchk: bool) -> Permitted {
        let addresses = [[10, 0, 0, 2].into()].into();
        Permitted {
            mac: MAC,
            addresses: Some(addresses).filter(|_| spoofchk),
            group_rate: GROUP_RATE,
        }
    }

    /// What the kernel has where all of it is right.
    fn whole(permitted: &Permitted) -> Observed {
        let link = |index, name: &str, port| netlink::Link {
            index,
            name: name.to_owned(),
            up: true,
            master: Some(1).filter(|_| index > 1),
            port,
            ..netlink::Link::default()
        };
        let links = vec![
            link(1, "br0", Port::default()),
            link(2, "chp1", permitted.flags()),
        ];
        let elements = [("chp1".to_owned(), permitted.on("chp1").elements())];
        Observed {
            links,
            entries: [("chp1".to_owned(), permitted.entries())].into(),
            guard: Seen {
                is_complete: true,
                elements: elements.into(),
            },
            ..Observed::default()
        }
    }

    fn told(permitted: &Permitted, damage: fn(&mut Observed)) -> String {
        let mut seen = whole(permitted);
        damage(&mut seen);
        let ports = Ports {
            permitted: [("chp1".to_owned(), permitted.clone())].into(),
            spared: ["chp2".to_owned()].into(),
        };
        let objects = describe(&ports, &seen.links);
        let first = deviations(&objects, &seen).next();
        first.map_or(String::new(), |first| first.what)
    }

    type Damage = fn(&mut Observed);

    #[test]
    fn each_damage_of_a_guarded_port_is_named() {
        let table: [(Damage, &str); 8] = [
            (|_| (), ""),
            (
                |seen| seen.links[1].port.learning = Some(true),
                "chp1: as a port of the bridge has learning on",
            ),
            (
                |seen| seen.links[1].port.flood = Some(true),
                "chp1: as a port of the bridge has flood on",
            ),
            (
                |seen| seen.links[1].port.neigh_suppress = Some(true),
                "chp1: as a port of the bridge has neigh_suppress on",
            ),
            (
                |seen| seen.entries.clear(),
                "forwarding: has no bridge entry 02:42:0a:00:00:02",
            ),
            (
                |seen| seen.guard.is_complete = false,
                "nftables table bridge crosshost-guard: gone or changed by another program",
            ),
            (
                |seen| seen.guard.elements.clear(),
                "nftables table bridge crosshost-guard: does not hold chp1 to its own addresses",
            ),
            // A port that is gone has left its elements; one whose ADD is at work is spared.
            (
                |seen| {
                    let its = seen.guard.elements["chp1"].clone();
                    seen.guard.elements.insert("chp2".to_owned(), its.clone());
                    seen.guard.elements.insert("chp3".to_owned(), its);
                },
                "nftables table bridge crosshost-guard: speaks of chp3, of which it should not",
            ),
        ];
        for (damage, says) in table {
            assert_eq!(told(&permitted(true), damage), says);
        }
    }

    #[test]
    fn an_open_port_has_a_budget_and_its_entry_alone() {
        let open = permitted(false);
        assert_eq!(told(&open, |_| ()), "");
        assert_eq!(open.on("chp1").elements().len(), 1);
        assert_eq!(permitted(true).on("chp1").elements().len(), 4);
        let flags = open.flags();
        assert_eq!(
            (flags.learning, flags.flood, flags.neigh_suppress),
            (Some(false), Some(true), Some(true))
        );
        let closed = told(&open, |seen| seen.links[1].port.flood = Some(false));
        assert_eq!(closed, "chp1: as a port of the bridge has flood off");
    }
}
