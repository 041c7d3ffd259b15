//! What is right on this host and what is wrong, with the command that would mend it. Covers what [`crate::maintain::repair`]
//! repairs, and also what no repair may change because it belongs to other programs. Changes nothing, and asks no store.

use std::net::IpAddr;

use cluster::{Network, NetworkSnapshot, Resolved, StoreRef};
use ipnetwork::IpNetwork;
use netlink::{Mac, Netns, Sysctl};
use nft::guard::Guard;
use plugin::Error;

use crate::{
    egress::{self, Ledger},
    endpoint::{bandwidth, desired, nic, source_guard},
    firewall::{foreign_rules, table},
    follow::{follower, membership, store_check},
    host_link::{self, HostLinkSpec},
    host_state::{Observed, deviations},
    maintain::{
        findings::{Check, Findings, State},
        network::{self, Described},
        stale,
    },
    names::{self, EGRESS_BRIDGE, EGRESS_NIC},
    segment::{
        path_mtu,
        sandbox::{self, Sandbox},
    },
    state::{
        attachment::{Record, Stage},
        host::Host,
        underlay::Underlay,
    },
};

/// What mends most of it.
pub const SYNC: &str = "crosshost sync";
/// The largest number of hosts whose route is examined.
const PEERS: usize = 256;

/// Examines this host. Without settings, neither the underlay nor any network.
pub async fn examine(settings: Option<&Resolved>, findings: &mut Findings) -> Result<(), Error> {
    let host = Host::open()?;
    match host.rtnl.has_vxlan().await {
        Ok(true) => {}
        Ok(false) => findings.wrong(
            Check::Vxlan,
            "this kernel has no VXLAN".to_owned(),
            "modprobe vxlan",
        ),
        Err(error) => findings.wrong(Check::Vxlan, error.to_string(), ""),
    }
    if let Err(error) = Guard::probe() {
        findings.wrong(Check::SourceGuard, error.to_string(), "");
    }
    if let Some(settings) = settings {
        examine_networks(&host, settings, findings).await?;
    }
    examine_mounts(findings)?;
    match table::deviation(&host) {
        Ok(None) => findings.ok(
            Check::NftablesTable,
            "nftables table inet crosshost: as it should be".to_owned(),
        ),
        Ok(Some(what)) => {
            let says = format!("nftables table inet crosshost: {what}");
            findings.wrong(Check::NftablesTable, says, SYNC);
        }
        Err(error) => findings.wrong(Check::NftablesTable, error.msg.clone(), ""),
    }
    let looked = examine_egress(&host, findings).await;
    findings.failed(Check::Egress, looked);
    for unreadable in host.lost()? {
        findings.lost(&unreadable);
    }
    examine_records(&host, findings).await
}

/// What is mounted in a mount namespace that other programs of this host do not share.
fn examine_mounts(findings: &mut Findings) -> Result<(), Error> {
    let folder = names::sandboxes();
    let mut hidden = Vec::new();
    for network in sandbox::networks_elsewhere()? {
        let process = Netns::elsewhere(&folder, &network);
        hidden.extend(process.map(|process| (format!("network {network}: its sandbox"), process)));
    }
    let (folder, bridge) = names::egress_netns();
    let egress = Netns::elsewhere(&folder, bridge);
    hidden.extend(
        egress.map(|process| ("the containers' way out: its namespace".to_owned(), process)),
    );
    for (what, process) in hidden {
        let says = format!(
            "{what} was made in another mount namespace, that of {process}, and other programs of this host do not see it: \
             remove PrivateTmp=, PrivateMounts= and their like from its service"
        );
        findings.wrong(Check::MountNamespace, says, SYNC);
    }
    Ok(())
}

/// The underlay, and each network on it.
async fn examine_networks(
    host: &Host,
    settings: &Resolved,
    findings: &mut Findings,
) -> Result<(), Error> {
    match host.underlay(settings).await {
        Ok(underlay) => {
            let Underlay {
                name, mtu, vtep, ..
            } = &underlay;
            let segment = underlay.segment_mtu();
            findings.ok(Check::Underlay, format!(
                "underlay {name}: tunnel address {vtep}, MTU {mtu}, {segment} inside the tunnels"
            ));
            for network in sandbox::networks()? {
                let looked = examine_network(host, settings, &underlay, &network, findings).await;
                findings.failed(Check::Sandbox, looked);
            }
        }
        Err(error) => findings.wrong(
            Check::Underlay,
            error.msg.clone(),
            "edit /etc/crosshost/config.json",
        ),
    }
    Ok(())
}

/// One network's sandbox, compared with the snapshot by which it forwards.
async fn examine_network(
    host: &Host,
    settings: &Resolved,
    underlay: &Underlay,
    network: &str,
    findings: &mut Findings,
) -> Result<(), Error> {
    let _lock = host.lock_network(network)?;
    let mut wrong =
        |why: &str| findings.wrong(Check::Sandbox, format!("network {network}: {why}"), SYNC);
    if !host.needs_sandbox(network).await? {
        wrong("its sandbox has no containers any more");
        return Ok(());
    }
    // Nothing is complete while the first ADD runs, or after it was killed.
    let records = host.records.all_readable(&|_| ())?;
    if !records.iter().any(|record| is_made(record, network)) {
        return Ok(());
    }
    let Some(copy) = follower::copy(host, network)? else {
        wrong("this host has no snapshot of its records");
        return Ok(());
    };
    let Some(record) = copy.network.as_ref().map(|network| &network.record) else {
        wrong("this host's snapshot has no such network");
        return Ok(());
    };
    let known = copy.nodes.known(&settings.node);
    if known.is_none_or(|known| known.record.vtep != Some(underlay.vtep)) {
        wrong("others know this host by another tunnel address than its own");
    }
    let Some((netns, rtnl)) = sandbox::open_netns(network)? else {
        wrong("its sandbox is gone");
        return Ok(());
    };
    let described = network::describe(host, record, &copy, underlay, &settings.node)?;
    let made = || records.iter().filter(|record| is_made(record, network));
    let ports = made().map(|record| network::port(&names::port(&record.attachment), underlay));
    let ports: Vec<_> = ports.collect();
    let guard = source_guard::describe(
        &source_guard::on_segment(host, network)?,
        &rtnl.links().await?,
    );
    let all = [
        &described.segment[..],
        &ports,
        &guard,
        &described.forwarding,
    ]
    .concat();
    let seen = Observed::of(&sandbox::space(host, &netns, &rtnl), &all).await?;
    for (check, objects) in [
        (Check::Sandbox, &described.segment[..]),
        (Check::BridgePort, &ports),
        (Check::SourceGuard, &guard),
        (Check::Forwarding, &described.forwarding),
    ] {
        findings.deviate(
            check,
            &format!("network {network}"),
            deviations(objects, &seen),
        );
    }
    let end = sandbox::end(record, underlay.vtep);
    let Some(sandbox) = Sandbox::seen((netns, rtnl), &seen, end, 0) else {
        return Ok(());
    };
    let sandbox = Sandbox {
        mtu: underlay.segment_mtu(),
        ..sandbox
    };
    examine_host_link(host, &sandbox, network, findings).await?;
    for made in made() {
        examine_nic(host, &settings.node, made, &copy, &described, findings).await?;
    }
    if let Some(what) = bandwidth::deviation(host, network, &sandbox.rtnl, None).await? {
        findings.wrong(Check::Bandwidth, format!("network {network}: {what}"), SYNC);
    }
    examine_mtu(record, sandbox.mtu, underlay, findings);
    if deviations(&described.forwarding, &seen).next().is_none() {
        findings.ok(
            Check::Forwarding,
            format!("network {network}: forwards as its snapshot says"),
        );
    }
    examine_way_in(host, underlay, record, &copy, findings).await;
    if let Some(large) = path_mtu::larger(made(), sandbox.mtu).await {
        let says = format!(
            "network {network}: this host carries packets of {} bytes inside the tunnel, and these have a larger MTU: {large}; \
             what they send in one piece is lost; give {} its MTU back, or DEL and ADD them",
            sandbox.mtu, underlay.name
        );
        findings.wrong(Check::PathMtu, says, "");
    } else if let Some(what) = path_mtu::outgrown(host, made(), &copy, &settings.node).await? {
        findings.note(Check::PathMtu, format!("network {network}: {what}"), "");
    }
    Ok(())
}

/// Whether this host carries what the network's containers send.
fn examine_mtu(record: &Network, carried: u32, underlay: &Underlay, findings: &mut Findings) {
    let network = &record.name;
    if record.mtu.is_some_and(|mtu| mtu > carried) {
        let (mtu, most) = (record.mtu.unwrap_or_default(), carried);
        let says = format!("network {network}: its mtu is {mtu}, and this host carries {most}");
        let wanted = mtu - most + underlay.mtu;
        findings.wrong(
            Check::NetworkMtu,
            says,
            &format!(
                "ip link set dev {} mtu {wanted}",
                ruleset::quoted(&underlay.name)
            ),
        );
    }
}

/// The NIC of an attachment in its container.
async fn examine_nic(
    host: &Host,
    node: &str,
    made: &Record,
    copy: &NetworkSnapshot,
    described: &Described,
    findings: &mut Findings,
) -> Result<(), Error> {
    let network = copy.network.as_ref();
    let subnets = network.map_or_else(Vec::new, |network| network.record.subnets());
    let ifname = &made.attachment.ifname;
    let describe = |addresses: &[IpNetwork]| {
        let addresses = addresses.iter().map(IpNetwork::ip);
        let its = addresses.filter(|it| subnets.iter().any(|subnet| subnet.contains(*it)));
        let first = its.min_by_key(IpAddr::is_ipv6);
        // The MAC of an address that no record of this host has may be any.
        let first = first.filter(|it| copy.home(*it) == Some(node));
        let computed = first.map(ipam::Mac::of);
        let mac = computed.map(|mac| *described.macs.get(&mac).unwrap_or(&mac));
        desired::own(ifname, mac.map(|mac| Mac(mac.0)))
    };
    let found = nic::deviating(host, made, ifname, describe).await?;
    let of = made.attachment.to_string();
    findings.deviate(Check::ContainerNic, &of, found.into_iter());
    Ok(())
}

/// What the host itself has on the segment, and the way out of the containers whose gateway it is.
async fn examine_host_link(
    host: &Host,
    sandbox: &Sandbox,
    network: &str,
    findings: &mut Findings,
) -> Result<(), Error> {
    let found = host_link::deviating(host, network, HostLinkSpec::default(), sandbox).await?;
    findings.deviate(
        Check::HostLink,
        &format!("network {network}"),
        found.into_iter(),
    );
    for v6 in host_link::gateways(host, network)? {
        findings.blocked(foreign_rules::egress(host, &names::gateway_link(network), v6).await);
    }
    Ok(())
}

fn is_made(record: &Record, network: &str) -> bool {
    record.stage == Stage::Made && record.attachment.network == network
}

/// Whether packets of other hosts reach the tunnel.
async fn examine_way_in(
    host: &Host,
    underlay: &Underlay,
    network: &Network,
    snapshot: &NetworkSnapshot,
    findings: &mut Findings,
) {
    let port = network.vxlan_port.unwrap_or(cluster::VXLAN_PORT);
    findings.blocked(foreign_rules::tunnel(underlay, port));
    let name = &underlay.name;
    let filter = |of: &str| number(&Sysctl::of_link("ipv4", of, "rp_filter"));
    if filter("all").max(filter(name)) != Some(1) {
        return;
    }
    // Strict: a packet is dropped unless it arrives by the interface by which the answer would leave.
    let peers = snapshot
        .nodes
        .iter()
        .filter_map(|(_, node)| node.last_read()?.vtep);
    for vtep in peers
        .filter(|vtep| *vtep != underlay.vtep && vtep.is_ipv4())
        .take(PEERS)
    {
        let hop = host.rtnl.route_to(vtep).await;
        if hop.is_ok_and(|hop| hop.dev != underlay.index) {
            let says = format!(
                "rp_filter of {name} is strict, and the route to {vtep} leaves by another interface: \
                 what that host sends to tunnels is dropped"
            );
            let key = Sysctl::of_link("ipv4", name, "rp_filter");
            let mend = format!("sysctl -w {}", ruleset::quoted(&format!("{key}=2")));
            findings.wrong(Check::RpFilter, says, &mend);
        }
    }
}

fn number(sysctl: &Sysctl) -> Option<u32> {
    sysctl.read().ok()??.parse().ok()
}

/// The way out of this host's containers, if they have one.
async fn examine_egress(host: &Host, findings: &mut Findings) -> Result<(), Error> {
    let Some(ledger) = egress::ledger(host)?.filter(|ledger| !ledger.leases.is_empty()) else {
        return Ok(());
    };
    let before = findings.0.len();
    let found = egress::deviating(host, &ledger).await?;
    findings.deviate(Check::Egress, "the containers' way out", found.into_iter());
    examine_egress_nics(host, &ledger, findings).await?;
    let v6 = ledger.subnet6.is_some();
    for switch in egress::switches(v6) {
        if switch.is("0") {
            let says = format!("{switch} is 0: the containers of this host have no way out");
            findings.wrong(Check::IpForward, says, SYNC);
        }
    }
    findings.blocked(foreign_rules::egress(host, EGRESS_BRIDGE, false).await);
    if v6 {
        findings.blocked(foreign_rules::egress(host, EGRESS_BRIDGE, true).await);
    }
    let on_host = egress::is_on_host(host).await?;
    if on_host {
        let says = format!(
            "egress by {EGRESS_BRIDGE}: a bridge among this host's interfaces, as an earlier version made it; it is kept as it \
             is, and gets a namespace of its own when no container uses it any more"
        );
        findings.note(Check::Egress, says, "");
    } else if Sysctl::new("bridge/bridge-nf-call-iptables").is("1") {
        let says = "br_netfilter gives bridged frames to this host's firewall; ours are on bridges in namespaces of their own";
        findings.ok(Check::BrNetfilter, says.to_owned());
    }
    if findings.0[before..]
        .iter()
        .all(|it| it.state != State::Wrong)
    {
        findings.ok(
            Check::Egress,
            format!("egress by {EGRESS_BRIDGE}: {} is let out", ledger.subnet),
        );
    }
    Ok(())
}

/// The egress NIC of each container.
async fn examine_egress_nics(
    host: &Host,
    ledger: &Ledger,
    findings: &mut Findings,
) -> Result<(), Error> {
    let records = host.records.all_readable(&|_| ())?;
    for (address, lease) in ledger.leases.iter().filter(|(_, lease)| lease.open) {
        let is_its = |record: &&Record| lease.attachments.contains(&record.attachment.hash());
        let nic = ledger.nic(*address, lease, lease.open6);
        let Some((record, nic)) = records.iter().find(is_its).zip(nic) else {
            continue;
        };
        let found = nic::deviating(host, record, EGRESS_NIC, |_| desired::egress(nic)).await?;
        let of = format!("container {}", record.attachment.container);
        findings.deviate(Check::Egress, &of, found.into_iter());
    }
    Ok(())
}

/// The store with which the containers of each network on this host were made.
pub fn stores_in_use() -> Result<Vec<(String, StoreRef)>, Error> {
    let host = Host::open()?;
    let mut found = Vec::new();
    for network in sandbox::networks()? {
        if host.has_users(&network)?
            && let Some(store_ref) = store_check::noted(&host, &network)?
        {
            found.push((network, store_ref));
        }
    }
    Ok(found)
}

/// What remains of killed verbs, and of containers whose runtime made no DEL.
async fn examine_records(host: &Host, findings: &mut Findings) -> Result<(), Error> {
    let records = host.records.all()?;
    for unreadable in &records.unreadable {
        findings.held(&unreadable.to_string());
    }
    let orphans = stale::all(host, &|_| ()).await?;
    for Record {
        attachment, netns, ..
    } in &orphans
    {
        let netns = netns.display();
        let says = format!("{attachment}: its container is gone ({netns}), and no DEL came");
        findings.wrong(Check::Orphan, says, "crosshost gc");
    }
    for record in records.readable {
        let attachment = &record.attachment;
        if record.stage == Stage::Making
            && !orphans.contains(&record)
            && host.lock_idle_container(attachment)?.is_some()
        {
            let says =
                format!("{attachment}: its ADD was killed; its next DEL or ADD clears it away");
            findings.wrong(Check::KilledAdd, says, "");
        }
    }
    for member in membership::all(host)? {
        if member.left {
            let says = format!(
                "network {}: left by this host, which the store was not told yet",
                member.network
            );
            findings.wrong(Check::LeftNetwork, says, SYNC);
        }
    }
    Ok(())
}
