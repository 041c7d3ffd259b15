//! STATUS: could an ADD be served here? Changes nothing.
//!
//! It says no (code 50) where each ADD would be refused, with the words of that ADD, and nowhere else: a runtime that hears no may evict
//! containers that run, or leave the DEL of those that end out. So it is no reason that rules of others let nothing pass
//! of the tunnels or of the way out (`crosshost doctor` tells of these), nor what the next DEL on this host would mend.

use std::{path::Path, time::Duration};

use cluster::{Cluster, EgressMode, Network};
use cni::{Call, Command, Delegate};
use ipnetwork::IpNetwork;
use nft::guard::Guard;
use plugin::{Error, code, code_of};

use crate::{
    config::Conf,
    egress,
    follow::follower::{self, Follower},
    host_link,
    segment::{sandbox, vxlan_conflict},
    state::{host::Host, registration, underlay::Underlay},
};

/// STATUS is polled: it answers within a second.
const PATIENCE: Duration = Duration::from_millis(800);

pub(crate) async fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let ipam = Delegate::find(call, &conf.ipam)?.start(Command::Status);
    let ready = ready(&conf).await.map_err(|error| {
        let details = format!("an ADD would end with code {}", error.code);
        Error::not_ready(error.msg.clone()).with_details(details)
    });
    // It must end before we do, whatever it is to say.
    ready.and(ipam.finish().map_err(Error::from))
}

/// What an ADD would be refused for, but for addresses.
async fn ready(conf: &Conf) -> Result<(), Error> {
    journal::has_room()?;
    let host = Host::open()?;
    journal::layout::admit(Path::new(journal::ROOT), cni::build::BUILD)?;
    let underlay = host.underlay(&conf.settings).await?;
    let has_vxlan = host.rtnl.has_vxlan().await;
    if !has_vxlan? {
        let why = "this host's kernel has no VXLAN, and no module vxlan that it could load";
        return Err(Error::new(code::KERNEL, why));
    }
    let nft = nft::Nft::open().and_then(|mut nft| nft.generation());
    nft.map_err(|error| Error::new(code::KERNEL, format!("nftables: {error}")))?;
    Guard::probe()?;

    let network = admitted(conf, &host, &underlay).await?;
    let (name, record) = (&conf.spec.name, network.as_ref());
    if sandbox::open(name)?.is_none() {
        let vni = record.map_or(conf.spec.vni, |record| record.vni);
        let port = record.map_or(conf.spec.vxlan_port, |record| record.vxlan_port);
        let port = port.unwrap_or(cluster::VXLAN_PORT);
        let v6 = underlay.vtep.is_ipv6();
        let clash = vxlan_conflict::find(&host, vni.unwrap_or_default(), port, v6).await?;
        if let Some(other) = clash {
            let why = format!("network {name}: {other}");
            return Err(Error::new(code::KERNEL, why));
        }
    }
    let egress = record.and_then(|record| record.egress.clone());
    let egress = conf.spec.egress.clone().or(egress);
    let mode = egress.as_ref().map(|egress| egress.mode);
    let ranges = record.map_or(&conf.spec.ranges, |record| &record.ranges);
    let subnets: Vec<_> = ranges.iter().flatten().map(|range| range.subnet).collect();
    if mode.is_none_or(|mode| mode == EgressMode::GwBridge) {
        let wanted = egress::Wanted {
            subnet: egress.and_then(|egress| egress.subnet),
            beside: subnets.clone(),
            ..egress::Wanted::default()
        };
        egress::refuse(&host, &wanted).await?;
    }
    if mode != Some(EgressMode::None) {
        egress::refuse_forwarding(subnets.iter().any(IpNetwork::is_ipv6))?;
    }
    let spec = host_link::HostLinkSpec {
        gateway: mode == Some(EgressMode::Gateway),
        access: conf.host_access,
    };
    host_link::refuse(&host, name, spec, &subnets).await
}

/// The network, if it exists. An error if the store, or this host's snapshot while the store is away, would refuse any ADD.
async fn admitted(conf: &Conf, host: &Host, underlay: &Underlay) -> Result<Option<Network>, Error> {
    let name = &conf.spec.name;
    let mut settings = conf.settings.clone();
    settings.store.timeout = PATIENCE;
    let store = settings.open_store()?;
    let cluster = Cluster::new(&*store, settings.layout.clone());
    settings.refuse_another_store()?;
    let follower = Follower {
        host,
        cluster: &cluster,
        settings: &settings,
        network: name,
    };
    follower.refuse_second_store().await?;

    let copy = follower::copy(host, name)?;
    let known = copy.as_ref().and_then(|copy| copy.network.as_ref());
    let known = known.map(|known| &known.record);
    let known = known.filter(|known| known.vni.is_some() && conf.spec.agree(known).is_ok());
    let node = registration::node(&settings, underlay.vtep)?;
    // A host that is known and has a copy only reads.
    let is_known = copy.as_ref().is_some_and(|copy| {
        let own = copy.nodes.known(&node.name).map(|own| &own.record);
        own.is_some_and(|own| (&own.boot_id, own.vtep) == (&node.boot_id, node.vtep))
    });
    let asked = async {
        if known.is_none() || !is_known {
            cluster.may_write(&node.name).await?;
        }
        if !is_known {
            let nodes = cluster.nodes().await?;
            Cluster::refuse_double(&nodes, &node, journal::clock::booted())?;
        }
        let is_used = known.is_some() && host.has_users(name).unwrap_or(true);
        cluster.admit(&conf.spec, &node, is_used).await
    };
    let network = match asked.await {
        Ok(network) => network.map(|network| network.record),
        Err(error) if error.is_away() && known.is_some() => known.cloned(),
        Err(error) => {
            let msg = error.about(&format!("network {name}"));
            return Err(Error::new(code_of(&error), msg));
        }
    };
    match network {
        Some(network) if network.vni.is_none() => Err(registration::no_segment(name)),
        network => Ok(network),
    }
}
