//! ADD: writes the record, makes links while the IPAM plugin runs, gives addresses, forwards, answers. Or undoes all of it.

use std::{net::IpAddr, path::Path};

use cluster::{
    Cluster, EgressMode, Network, NetworkSnapshot,
    forwarder::{Known, Plugged, Update},
};
use cni::{Call, CniResult, Delegate, Tell};
use ipnetwork::IpNetwork;
use journal::Attachment;
use netlink::{Mac, Netns, Rtnl};
use plugin::{Error, all_readable, code};

use crate::{
    config::Conf,
    egress::{self, Nic},
    endpoint::{
        bandwidth, container, nic,
        source_guard::{NewPort, Permitted},
        subnet_routes,
    },
    firewall::table,
    follow::follower::Follower,
    host_link::{self, HostLink},
    host_state::Space,
    maintain::teardown,
    names::{self, BRIDGE, EGRESS_BRIDGE, EGRESS_NIC},
    segment::{
        path_mtu, port_ready,
        sandbox::{self, Sandbox},
    },
    state::{
        attachment::{Answered, Process, Record, Stage},
        earlier,
        host::Host,
    },
    verbs::gc,
};

/// How often an ADD starts again because the network was made anew meanwhile.
const ATTEMPTS: u32 = 3;
/// The largest number of addresses of an attachment: each costs several messages to the kernel.
const MOST_ADDRESSES: usize = 64;
/// The smallest MTU of an interface with IPv6, in bytes (RFC 8200).
const LEAST_V6: u32 = 1280;

/// What an ADD works with.
struct Work<'a> {
    call: &'a Call,
    conf: &'a Conf,
    attachment: &'a Attachment,
    host: &'a Host,
    cluster: &'a Cluster<'a>,
    follower: Follower<'a>,
    container: &'a Netns,
    inside: &'a Rtnl,
    ipam: &'a Delegate<'a>,
}

/// What an ADD has made before its container has an address.
struct Made {
    sandbox: Sandbox,
    new_port: NewPort,
    /// Of the container's interface.
    mtu: u32,
    nic: Option<Nic>,
    /// Where the egress bridge is, if the container has a new NIC on it.
    egress: Option<egress::Plugged>,
    host_link: HostLink,
}

pub(crate) async fn add(call: &Call, caller: Option<Process>, tell: Tell<'_>) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let attachment = plugin::attachment(call)?;
    let ipam = Delegate::find(call, &conf.ipam)?;
    let host = Host::open()?;
    let (container, inside) = container::open(call, &host)?;
    let store = conf.settings.open_store()?;
    let cluster = Cluster::new(&*store, conf.settings.layout.clone());

    let _alone = host.lock_container(&attachment)?;
    cni::caller_listens()?;
    Host::begin_layout()?;
    earlier::clear(&host, &conf, &attachment, (&container, &inside), &ipam).await?;
    refuse_taken_names(&host, &attachment, (&container, &inside)).await?;

    let record = Record {
        attachment: attachment.clone(),
        netns: container.path().to_owned(),
        netns_id: container.id(),
        stage: Stage::Making,
        answered: None,
        bandwidth: conf.bandwidth,
        port: None,
    };
    let work = Work {
        call,
        conf: &conf,
        attachment: &attachment,
        host: &host,
        cluster: &cluster,
        follower: Follower {
            host: &host,
            cluster: &cluster,
            settings: &conf.settings,
            network: &conf.spec.name,
        },
        container: &container,
        inside: &inside,
        ipam: &ipam,
    };
    conf.settings.refuse_another_store()?;
    work.follower.admit().await?;
    for _ in 0..ATTEMPTS {
        let known = work.follower.known(&conf.spec).await?;
        host.records.save(&attachment.hash(), &record)?;
        gc::in_peace(&host, &attachment.network)?;
        match work.make(&known).await {
            Ok(Some((result, permitted))) => {
                if let Err(unheard) = tell(&result) {
                    work.undo(&record).await;
                    return Err(unheard.into());
                }
                // After the answer: an attachment that the runtime did not learn of is no duplicate for the next ADD.
                let made = Record {
                    stage: Stage::Made,
                    answered: caller.map(Answered::now),
                    port: Some(permitted),
                    ..record
                };
                if let Err(error) = host.records.save(&attachment.hash(), &made) {
                    cni::log(&format!("{attachment}: {error}"));
                }
                return Ok(());
            }
            // Our snapshot was of an earlier network of this name. What was made by it is removed.
            Ok(None) => work.undo(&record).await,
            Err(error) => {
                work.undo(&record).await;
                return Err(error);
            }
        }
    }
    Err(Error::again(format!(
        "network {}: made anew at each of {ATTEMPTS} attempts",
        attachment.network
    )))
}

/// The interface name must be free in the container, and so must the egress NIC's unless it is ours. A namespace of this
/// host's own is no container.
async fn refuse_taken_names(
    host: &Host,
    attachment: &Attachment,
    (container, inside): (&Netns, &Rtnl),
) -> Result<(), Error> {
    let links = inside.links().await?;
    let present = |name: &str| links.iter().any(|link| link.name == name);
    if present(BRIDGE) {
        container::refuse_ours(container)?;
    }
    let new_egress = egress::known(host).await?;
    let new_egress = new_egress.is_none_or(|ledger| ledger.is_last(attachment));
    let ifname = attachment.ifname.as_str();
    let taken = if present(ifname) || ifname == EGRESS_NIC {
        ifname
    } else if new_egress && present(EGRESS_NIC) {
        EGRESS_NIC
    } else {
        return Ok(());
    };
    Err(Error::new(
        code::IFNAME,
        format!("CNI_IFNAME: {taken}: the container has an interface of that name"),
    ))
}

/// Frames for a MAC that the sandbox's own links have would end there. Code 7.
async fn refuse_mac_of_sandbox(sandbox: &Sandbox, network: &str, mac: Mac) -> Result<(), Error> {
    let links = sandbox.rtnl.links().await?;
    let own = |link: &&netlink::Link| !link.name.starts_with(names::PORT) && link.mac == Some(mac);
    links.iter().find(own).map_or(Ok(()), |link| {
        let name = &link.name;
        let why = format!("{name} in the sandbox of network {network} has it; want another");
        Err(Error::config(format!("mac: {mac}: {why}")))
    })
}

fn is_link_local(subnet: IpNetwork) -> bool {
    matches!(subnet.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast())
}

fn has_v6(network: &Network) -> bool {
    network.subnets().iter().any(IpNetwork::is_ipv6)
}

impl Work<'_> {
    /// Makes everything; `None` if the store meanwhile has another network of this name than `known` says.
    async fn make(&self, known: &Known) -> Result<Option<(CniResult, Permitted)>, Error> {
        let network = &self.conf.spec.name;
        let record = &known.snapshot.ready_network(network)?.record;
        let asking = self.ipam.start(cni::Command::Add);
        let (made, heard) = tokio::join!(
            self.plug(&known.snapshot, record),
            self.follower.fresh(known)
        );
        // Also if the kernel refused: the IPAM plugin must end before its work can be undone.
        let given = asking.result();
        let Made {
            sandbox,
            new_port,
            mtu,
            nic,
            egress,
            host_link,
        } = made?;
        let mut heard = heard?;
        if matches!(heard, Update::Replaced) {
            return Ok(None);
        }
        let mut given = given?;
        self.refuse_count(given.ips.len())?;
        let by_gateway = self.conf.host_link(record).gateway;
        if by_gateway {
            nic::leave_by_gateway(&mut given)?;
        } else {
            subnet_routes::add(&mut given, record);
        }
        let computed = nic::computed_mac(&given.ips)?;
        let asked = self.conf.mac.filter(|mac| mac.0 != computed.0);
        let mac = asked.map_or(computed, |mac| Mac(mac.0));
        if asked.is_some() {
            refuse_mac_of_sandbox(&sandbox, network, mac).await?;
        }
        let netns = self.call.netns.as_deref().unwrap_or(Path::new(""));
        // An internal network has no link on the host. No other link has the name that the host's own would have.
        let outside = match &nic {
            Some(_) => EGRESS_BRIDGE.to_owned(),
            None if by_gateway => names::gateway_link(network),
            None => names::host_link(network),
        };
        let given_ips: Vec<_> = given.ips.iter().map(|ip| ip.address.ip()).collect();
        let netns = netns.display().to_string();
        let mut result = nic::result(self.attachment, outside, &netns, mac, mtu, given, nic);
        let permitted = Permitted::of(self.conf, mac, &given_ips, has_v6(record));
        new_port
            .admit(self.host, &sandbox, self.attachment, &permitted)
            .await?;
        host_link::meet(self.host, network, &host_link, &permitted).await?;
        let made = (&result, mac);
        nic::apply(&self.space(), self.attachment, made, nic, has_v6(record)).await?;
        if let Some(nic) = nic.filter(Nic::is_unfinished) {
            egress::opened(self.host, self.attachment, nic.v6.is_some())?;
        }
        let snapshot = match &heard {
            Update::Snapshot(reading) => &reading.snapshot,
            _ => &known.snapshot,
        };
        if !self.is_registered(snapshot, sandbox.end.ip()).await? {
            heard = self.follower.read(true).await?.of_network(known);
        }
        {
            let _lock = self.host.lock_network(network)?;
            let follower = &self.follower;
            let addresses: Vec<_> = given_ips.into_iter().chain(host_link.own()).collect();
            let plugged = Plugged {
                addresses: &addresses,
                mac: asked,
            };
            let applied = follower.add(&sandbox, heard, known, plugged).await?;
            if applied.is_none() {
                return Ok(None);
            }
            if let Some(reaches) = &self.conf.spec.reaches
                && record.reaches.is_none()
            {
                table::meet(self.host, network, reaches)?;
            }
        }
        self.wait_for_ports(&sandbox, &host_link, egress.as_ref())
            .await?;
        nic::drop_refused(self.inside, &mut result).await?;
        Ok(Some((self.told(result), permitted)))
    }

    /// The container's namespace.
    fn space(&self) -> Space<'_> {
        Space::of_container(self.host, self.container, self.inside)
    }

    /// Code 6 for an answer of the IPAM plugin with no address, or with more than an attachment may have.
    fn refuse_count(&self, addresses: usize) -> Result<(), Error> {
        let why = match addresses {
            0 => "gave no address".to_owned(),
            1..=MOST_ADDRESSES => return Ok(()),
            many => format!("gave {many} addresses; {MOST_ADDRESSES} are the most"),
        };
        let ipam = &self.conf.ipam;
        Err(Error::decode(format!("IPAM plugin {ipam}: {why}")))
    }

    /// The result with what the configuration and earlier plugins say.
    fn told(&self, mut result: CniResult) -> CniResult {
        if self.conf.dns != cni::Dns::default() {
            result.dns = self.conf.dns.clone();
        }
        match &self.call.conf.prev_result {
            Some(previous) => nic::after(&previous.result, result),
            None => result,
        }
    }

    /// Whether this node was registered as it is, so that the other hosts knew it when the snapshot was read. If not, it is
    /// registered now, if the store can be reached.
    async fn is_registered(&self, snapshot: &NetworkSnapshot, vtep: IpAddr) -> Result<bool, Error> {
        let settings = &self.conf.settings;
        let nodes = &snapshot.nodes;
        match self.host.enrol(self.cluster, settings, nodes, vtep).await {
            Ok(needed) => Ok(!needed),
            Err(error) if error.code == cni::code::AGAIN => {
                cni::log(&format!("{}: {error}", self.attachment));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The kernel's part that needs no address of the container: sandbox, what the host has on it, veth pair, egress NIC.
    async fn plug(&self, known: &NetworkSnapshot, network: &Network) -> Result<Made, Error> {
        let (sandbox, host_link) = self.segment(known, network).await?;
        let mtu = sandbox::mtu(network, self.conf.spec.mtu, sandbox.mtu)?;
        let (node, segment) = (&self.conf.settings.node, (sandbox.end.ip(), sandbox.mtu));
        let carried = path_mtu::carried(self.host, known, node, segment).await?;
        let has_v6 = has_v6(network);
        // An interface with less has no IPv6 at all: there what is too large for one host is lost on the way to it.
        let mtu = mtu.min(carried.max(if has_v6 { LEAST_V6 } else { 0 }));
        nic::plug(&sandbox, self.attachment, mtu, self.container).await?;
        let new_port = NewPort::open(&sandbox)?;
        bandwidth::limit(&sandbox.rtnl, self.attachment, self.conf.bandwidth).await?;
        let (nic, egress) = match self.conf.spec.egress.clone().or(network.egress.clone()) {
            Some(egress) if egress.mode != EgressMode::GwBridge => {
                egress::refuse_meeting(self.host, self.attachment, &network.subnets())?;
                (None, None)
            }
            egress => {
                let wanted = egress::Wanted {
                    subnet: egress.and_then(|egress| egress.subnet),
                    v6: has_v6,
                    beside: self.subnets_inside(network).await?,
                    others: self.subnets_elsewhere().await?,
                };
                let (host, container) = (self.host, self.container);
                let ensured = egress::ensure(host, self.attachment, &wanted, container);
                let (nic, plugged) = ensured.await?;
                (Some(nic), plugged)
            }
        };
        let mut links = vec![self.attachment.ifname.as_str()];
        links.extend(nic.filter(Nic::is_unfinished).map(|_| EGRESS_NIC));
        nic::quiet(&self.space(), &links, has_v6).await?;
        Ok(Made {
            sandbox,
            new_port,
            mtu,
            nic,
            egress,
            host_link,
        })
    }

    /// The network's sandbox with the host's own links in it.
    async fn segment(
        &self,
        known: &NetworkSnapshot,
        network: &Network,
    ) -> Result<(Sandbox, HostLink), Error> {
        let (host, name) = (self.host, &network.name);
        let mut lock = host.lock_network(name)?;
        let mut sandbox = self.sandbox(known, network).await?;
        let mut host_link = host_link::note(host, network, self.conf.host_link(network)).await?;
        if host_link.lacks_addresses() {
            drop(lock);
            host_link = host_link::lease(host, name, host_link, self.ipam)?;
            lock = host.lock_network(name)?;
            // Another verb may have made it anew meanwhile.
            if !sandbox.still_stands(host, network).await? {
                sandbox = self.sandbox(known, network).await?;
                sandbox.stood = false;
            }
        }
        sandbox.stood &= !host_link::apply(host, name, &host_link, &sandbox).await?;
        drop(lock);
        Ok((sandbox, host_link))
    }

    /// The subnets that the container reaches by other interfaces than its egress NIC, with those of the network that it joins.
    async fn subnets_inside(&self, network: &Network) -> Result<Vec<IpNetwork>, Error> {
        let links = self.inside.links().await?;
        let gw0 = links.iter().find(|link| link.name == EGRESS_NIC);
        let routes = self.inside.routes().await?;
        let others = routes.iter().filter(|route| {
            let dst = route.dst;
            gw0.is_none_or(|gw0| gw0.index != route.dev) && dst.prefix() > 0 && !is_link_local(dst)
        });
        let others = others.map(|route| route.dst);
        Ok(network.subnets().into_iter().chain(others).collect())
    }

    /// The subnets of all networks that are known where an egress bridge is still to be made: containers may join them later.
    async fn subnets_elsewhere(&self) -> Result<Vec<IpNetwork>, Error> {
        if egress::ledger(self.host)?.is_some() {
            return Ok(Vec::new());
        }
        let copies = all_readable(&self.host.snapshots)?.into_iter();
        let known = copies.filter_map(|snapshot| Some(snapshot.network?.record.subnets()));
        let mut subnets: Vec<_> = known.flatten().collect();
        match self.cluster.all_subnets().await {
            Ok(all) => subnets.extend(all),
            Err(error) => cni::log(&format!("subnets of other networks: {error}")),
        }
        Ok(subnets)
    }

    /// Waits until the bridges pass what the container sends and receives.
    async fn wait_for_ports(
        &self,
        sandbox: &Sandbox,
        host_link: &HostLink,
        egress: Option<&egress::Plugged>,
    ) -> Result<(), Error> {
        let attachment = self.attachment;
        let mut ports = vec![names::port(attachment)];
        if !sandbox.stood {
            ports.push(names::VXLAN.to_owned());
            ports.extend(host_link.ports(&attachment.network));
        }
        for port in ports {
            port_ready::forwards(&sandbox.rtnl, &port).await?;
        }
        if let Some(egress) = egress {
            for port in &egress.ports {
                port_ready::forwards(&egress.rtnl, port).await?;
            }
        }
        Ok(())
    }

    /// The network's sandbox, found or made; the caller holds the network's lock. One that stands over another address, interface or
    /// MTU than the host's present ones is made anew.
    async fn sandbox(&self, known: &NetworkSnapshot, network: &Network) -> Result<Sandbox, Error> {
        sandbox::enter(self.host, &network.name, &self.attachment.hash())?;
        let underlay = match self.host.underlay(&self.conf.settings).await {
            Ok(underlay) => underlay,
            // Refused in the settings: STATUS says so, too.
            Err(refused) if self.conf.settings.vtep.is_some() => return Err(refused),
            Err(unknown) => {
                let own = known.nodes.get(&self.conf.settings.node);
                let own = own.and_then(|node| node.last_read()?.vtep);
                return match own {
                    Some(vtep) if self.host.has_address(vtep).await? => {
                        sandbox::find_as_is(self.host, network, vtep)
                            .await?
                            .ok_or(unknown)
                    }
                    _ => Err(unknown),
                };
            }
        };
        match sandbox::find(self.host, network, &underlay).await? {
            Some(sandbox) => Ok(sandbox),
            None => sandbox::ensure(self.host, network, &underlay).await,
        }
    }

    /// Removes what an ADD made that cannot be finished. The error of the ADD is returned, not that of the removal; what remains is
    /// in the journal for the runtime's DEL.
    async fn undo(&self, record: &Record) {
        let links = teardown::links(
            self.host,
            self.attachment,
            Some(record),
            self.call.netns.as_deref(),
        )
        .await;
        let addresses = self.ipam.del().map_err(Error::from);
        let (network, access) = (&self.attachment.network, self.conf.host_access);
        let released = host_link::release(self.host, network, access, self.ipam).await;
        let undone = links
            .and(addresses)
            .and(released)
            .and_then(|()| teardown::forget(self.host, self.attachment));
        if let Err(error) = undone {
            cni::log(&format!("{}: undo: {error}", self.attachment));
        }
        teardown::farewell(self.host, self.call).await;
    }
}
