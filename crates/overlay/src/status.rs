//! STATUS: could an ADD be served here and now, and could its container reach what it should?
//!
//! What an ADD would fail of is code 50. Code 51 is for what would harm the containers that run as well: rules of others that
//! let nothing pass of the tunnels, or of the way out. Where they may, nothing is said: `crosshost doctor` does.

use std::path::Path;

use cluster::EgressMode;
use cni::{Call, Delegate, Error};

use crate::{clash, conf::Conf, host::Host, kernel, local, names, news, obstacles, sandbox};

pub(crate) async fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let host = Host::open()?;
    let not_ready = |error: Error| Error::not_ready(error.msg);
    let layout = journal::layout::admit(Path::new(journal::ROOT), cni::build::BUILD);
    layout.map_err(|error| not_ready(local(&error)))?;
    let underlay = host.underlay(&conf.settings).await.map_err(not_ready)?;
    let has_vxlan = host.rtnl.has_vxlan().await;
    if !has_vxlan.map_err(|error| not_ready(kernel(&error)))? {
        let why = "this host's kernel has no VXLAN, and no module vxlan that it could load";
        return Err(Error::not_ready(why));
    }
    let nft = nft::Nft::open().and_then(|mut nft| nft.generation());
    nft.map_err(|error| Error::not_ready(format!("nftables: {error}")))?;
    let mut network = conf.spec.clone();
    let copy = news::copy(&host, &network.name).map_err(not_ready)?;
    if let Some(known) = copy.and_then(|copy| copy.network) {
        network.vni = known.record.vni;
        network.vxlan_port = known.record.vxlan_port;
        network.egress = network.egress.or(known.record.egress.clone());
        network.ranges = known.record.ranges;
    }
    let port = network.vxlan_port.unwrap_or(sandbox::VXLAN_PORT);
    if sandbox::open(&network.name).map_err(not_ready)?.is_none() {
        let (vni, v6) = (network.vni.unwrap_or_default(), underlay.vtep.is_ipv6());
        let clash = clash::find(&host, vni, port, v6).await.map_err(not_ready)?;
        if let Some(other) = clash {
            let why = format!("network {}: {other}", network.name);
            return Err(Error::not_ready(why));
        }
    }
    Delegate::find(call, &conf.ipam)?.status()?;
    // What cannot be looked at is no reason to give no containers.
    let told = |found: Result<Vec<nft::Blocked>, Error>| {
        found.unwrap_or_else(|error| {
            cni::log(&format!("rules of others: {error}"));
            vec![]
        })
    };
    let mut stopped = told(obstacles::tunnel(&underlay, port));
    let mode = network.egress.map(|egress| egress.mode);
    if mode != Some(EgressMode::None) {
        let link = match mode {
            Some(EgressMode::Gateway) => names::gateway_link(&network.name),
            _ => names::EGRESS_BRIDGE.to_owned(),
        };
        let mut subnets = network.ranges.iter().flatten().map(|range| range.subnet);
        let v6 = subnets.any(|subnet| subnet.is_ipv6()).then_some(true);
        for v6 in [false].into_iter().chain(v6) {
            let stops = obstacles::egress(&host, &link, v6).await;
            stopped.extend(told(stops));
        }
    }
    match stopped.into_iter().find(|it| it.certain) {
        Some(it) if it.allow.is_empty() => Err(Error::limited(it.why)),
        Some(it) => Err(Error::limited(it.why).with_details(format!("to allow it: {}", it.allow))),
        None => Ok(()),
    }
}
