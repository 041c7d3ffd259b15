//! Makes, changes or removes the kernel's objects where they differ from a description: the writing half of ADD, repair and sync.
//! `object.rs` says what differs.

use netlink::{
    Bridge, Change, Forward, Link, LinkChange, Port, Route, Sysctl, Veth, VethEnd, Vxlan,
};

use super::{Deviation, Kind, LinkSpec, Object, Observed, Space};
use crate::{
    endpoint::source_guard,
    segment::{mac_rewrite, vxlan_conflict},
    vanished,
};
use plugin::Error;

/// Applies each object that differs from what was seen, in the order of the description, and says how many changes that
/// took. What cannot be made here is left.
pub(crate) async fn apply(
    space: &Space<'_>,
    objects: &[Object],
    seen: &mut Observed,
) -> Result<usize, Error> {
    let mut changes = 0;
    // To enter a namespace costs a thread: sysctls that follow each other are written together.
    let mut sysctls = Vec::new();
    for object in objects {
        let Some(Deviation {
            steps,
            is_curable: true,
            ..
        }) = object.differs(seen)
        else {
            continue;
        };
        changes += steps;
        if let Object::Sysctl { key, value, .. } = object {
            sysctls.push((key.clone(), *value));
            continue;
        }
        write(space, &mut sysctls, seen)?;
        match object {
            Object::Link(spec) => link(space, spec, objects, seen).await?,
            Object::Address { .. } | Object::Route { .. } => layer_3(space, object, seen).await?,
            Object::Entries { bridge, port, .. } => {
                let steps = object.steps(seen);
                on_port(space, seen, (bridge, port), &steps).await?;
            }
            Object::Rewrite(macs) => seen.rewrites = mac_rewrite::set(space.netns, macs)?,
            Object::Guard {
                trusted,
                ports,
                spared,
            } => source_guard::set(space.netns, trusted, ports, spared)?,
            Object::Neighbours { link, .. } => {
                let steps = object.steps(seen);
                let link = index(seen, link)?;
                space.rtnl.change(link, 0, &steps).await?;
            }
            Object::Sysctl { .. } => {}
        }
    }
    write(space, &mut sysctls, seen)?;
    Ok(changes)
}

/// Fixes in their places the entries that versions up to 1.0.0 made, and nothing else; how many there were.
pub(crate) async fn fix(
    space: &Space<'_>,
    objects: &[Object],
    seen: &mut Observed,
) -> Result<usize, Error> {
    let mut fixed = 0;
    for object in objects {
        let Object::Entries { bridge, port, .. } = object else {
            continue;
        };
        let there = seen.entries.get(port).cloned().unwrap_or_default();
        let mut steps = object.steps(seen);
        steps.retain(|step| match step {
            Change::Add(Forward::Port { mac }) => there.contains(&Forward::Loose { mac: *mac }),
            _ => false,
        });
        if steps.is_empty() {
            continue;
        }
        on_port(space, seen, (bridge, port), &steps).await?;
        let entries = seen.entries.entry(port.clone()).or_default();
        for step in &steps {
            if let Change::Add(Forward::Port { mac }) = step {
                entries.remove(&Forward::Loose { mac: *mac });
                entries.insert(Forward::Port { mac: *mac });
            }
        }
        fixed += steps.len();
    }
    Ok(fixed)
}

fn write(
    space: &Space<'_>,
    sysctls: &mut Vec<(Sysctl, &'static str)>,
    seen: &mut Observed,
) -> Result<(), Error> {
    if sysctls.is_empty() {
        return Ok(());
    }
    space.netns.set_sysctls(sysctls)?;
    let values = sysctls.drain(..);
    let values = values.map(|(key, value)| (key, Some(value.to_owned())));
    seen.sysctls.extend(values);
    Ok(())
}

async fn layer_3(space: &Space<'_>, object: &Object, seen: &Observed) -> Result<(), Error> {
    let rtnl = space.rtnl;
    let done = match object {
        Object::Address {
            link,
            address,
            bare: true,
        } => rtnl.add_bare_address(index(seen, link)?, *address).await,
        Object::Address { link, address, .. } => {
            rtnl.add_address(index(seen, link)?, *address).await
        }
        Object::Route { links, route } => {
            let by = links.get(..1).unwrap_or_default();
            let dev = by.first().map_or(Ok(0), |link| index(seen, link))?;
            let route = Route { dev, ..*route };
            // Only our own is replaced: another program's route to the same subnet stays, and is an error.
            let added = if seen.routes(by, route.dst).next().is_some() {
                rtnl.replace_route(&route).await
            } else {
                rtnl.add_route(&route).await
            };
            match added {
                // The default route that a container has from another network stays.
                Err(error) if error.is_exists() && route.dst.prefix() == 0 => Ok(()),
                added => added,
            }
        }
        _ => Ok(()),
    };
    Ok(done?)
}

async fn link(
    space: &Space<'_>,
    spec: &LinkSpec,
    objects: &[Object],
    seen: &mut Observed,
) -> Result<(), Error> {
    let there = seen.link(&spec.name);
    let fits = there.is_some_and(|link| spec.misfit(link, seen).is_none());
    if !fits {
        let made = make(space, spec, seen).await?;
        seen.made(made, objects);
    }
    let link = seen.link(&spec.name).ok_or_else(|| vanished(&spec.name))?;
    let change = LinkChange {
        up: (!link.up).then_some(true),
        mtu: spec.mtu.wrong(link.mtu),
        master: match spec.bridge {
            Some(bridge) if spec.is_off_bridge(link, seen) => Some(index(seen, bridge)?),
            _ => None,
        },
        mac: spec.mac.filter(|mac| link.mac != Some(*mac)),
        ..LinkChange::default()
    };
    // A port that joins its bridge begins with the flags of all ports. Only where they differ: the kernel tells all listeners of
    // it, also the watcher that looks.
    let joins = change.master.is_some();
    let set_port = spec.port != Port::default() && (joins || spec.has_wrong_flag(link));
    let link = seen
        .link_mut(&spec.name)
        .ok_or_else(|| vanished(&spec.name))?;
    if change != LinkChange::default() {
        space.rtnl.set_link(link.index, &change).await?;
        link.up = true;
        link.mtu = change.mtu.unwrap_or(link.mtu);
        link.master = change.master.or(link.master);
        link.mac = change.mac.or(link.mac);
    }
    if set_port {
        space.rtnl.set_port(&spec.name, &spec.port).await?;
        link.port = spec.port.clone();
    }
    Ok(())
}

/// Makes a link in the place of what is there of it, as a port of its bridge.
async fn make(space: &Space<'_>, spec: &LinkSpec, seen: &Observed) -> Result<Link, Error> {
    let (rtnl, host, name) = (space.rtnl, space.host, spec.name.clone());
    let mtu = spec.mtu.first();
    if seen.link(&name).is_some() {
        rtnl.remove_link(&name).await?;
    }
    let master = spec.bridge.map(|bridge| index(seen, bridge)).transpose()?;
    match &spec.kind {
        Kind::Given | Kind::WithOtherEnd => return Err(vanished(&name)),
        Kind::Bridge(mac) => {
            let (mac, group) = (*mac, 0);
            let bridge = Bridge {
                name,
                mac,
                mtu,
                group,
            };
            let made = rtnl.create_bridge(&bridge).await;
            return Ok(made?);
        }
        Kind::Vxlan(tunnel) => {
            let vxlan = Vxlan {
                name,
                vni: tunnel.vni,
                port: tunnel.port,
                source_ports: nft::TUNNEL_SOURCE_PORTS,
                local: tunnel.local,
                underlay: tunnel.underlay.unwrap_or_default(),
                mtu,
                master,
            };
            vxlan_conflict::create(host, &tunnel.network, &vxlan, space.netns).await?;
        }
        Kind::Veth { peer, mac } => {
            host.rtnl.remove_link(peer).await?;
            let veth = Veth {
                index: None,
                name,
                mac: None,
                mtu,
                master,
                group: 0,
                up: true,
                peer: VethEnd {
                    name: peer.clone(),
                    mac: Some(*mac),
                    mtu,
                    group: 0,
                    up: false,
                },
            };
            rtnl.create_veth(&veth, &host.netns).await?;
        }
    }
    let made = rtnl.link(&spec.name).await?;
    made.ok_or_else(|| vanished(&spec.name))
}

/// Changes the entries of a bridge's port. One that has gone since it was looked at, with its container, has none any more.
async fn on_port(
    space: &Space<'_>,
    seen: &Observed,
    (bridge, port): (&str, &str),
    steps: &[Change],
) -> Result<(), Error> {
    let (of_bridge, of_port) = (index(seen, bridge)?, index(seen, port)?);
    match space.rtnl.change(of_bridge, of_port, steps).await {
        Err(error) if error.is_gone() => match space.rtnl.link(port).await? {
            Some(_) => Err(error.into()),
            None => Ok(()),
        },
        done => Ok(done?),
    }
}

fn index(seen: &Observed, name: &str) -> Result<u32, Error> {
    let link = seen.link(name).ok_or_else(|| vanished(name))?;
    Ok(link.index)
}
