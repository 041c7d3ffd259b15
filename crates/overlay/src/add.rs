//! ADD: note, make beside the IPAM plugin, address, forward, answer. Or undo.

use std::path::Path;

use cluster::{Cluster, EgressMode, Network, News, Versioned};
use cni::{Call, CniResult, Delegate, Error, Tell};
use ipnetwork::IpNetwork;
use journal::Attachment;
use netlink::{Netns, NetnsError, Rtnl};

use crate::{
    code,
    conf::Conf,
    egress::{self, Nic},
    endpoint, failed,
    host::Host,
    kernel, local,
    names::EGRESS_NIC,
    record::{Record, Stage},
    sandbox::{self, Sandbox},
    teardown,
};

/// How often an ADD starts anew because the network was made anew while it was at work.
const ATTEMPTS: u32 = 3;

/// What an ADD works with.
struct Work<'a> {
    call: &'a Call,
    conf: &'a Conf,
    attachment: &'a Attachment,
    host: &'a Host,
    cluster: &'a Cluster<'a>,
    container: &'a Netns,
    inside: &'a Rtnl,
    ipam: &'a Delegate<'a>,
}

pub(crate) async fn add(call: &Call, tell: Tell<'_>) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let attachment = Conf::attachment(call)?;
    let ipam = Delegate::find(call, &conf.ipam)?;
    let host = Host::open()?;
    let path = call.netns.as_deref().unwrap_or(Path::new(""));
    let container = Netns::open(path).map_err(|error| match error {
        NetnsError::Gone { .. } => Error::netns(format!("CNI_NETNS: {error}")),
        _ => kernel(&error),
    })?;
    let store = conf.settings.open_store().map_err(failed)?;
    let cluster = Cluster::new(&*store, conf.settings.layout.clone());

    let _alone = host.lock_container(&attachment)?;
    cni::caller_listens()?;
    repair(&host, &attachment, &ipam).await?;
    let inside = Rtnl::open(&container).map_err(|error| kernel(&error))?;
    refuse_taken_names(&host, &attachment, &inside).await?;

    let record = Record {
        attachment: attachment.clone(),
        netns: path.to_owned(),
        netns_id: container.id(),
        stage: Stage::Making,
    };
    let work = Work {
        call,
        conf: &conf,
        attachment: &attachment,
        host: &host,
        cluster: &cluster,
        container: &container,
        inside: &inside,
        ipam: &ipam,
    };
    for _ in 0..ATTEMPTS {
        let known = work.known_news().await?;
        host.records
            .save(&attachment.hash(), &record)
            .map_err(|error| local(&error))?;
        match work.make(&known).await {
            Ok(Some(result)) => {
                if let Err(unheard) = tell(&result) {
                    work.undo(&record).await;
                    return Err(unheard);
                }
                // Told first: an attachment of which nobody learnt is no duplicate for the next ADD.
                let made = Record {
                    stage: Stage::Made,
                    ..record
                };
                if let Err(error) = host.records.save(&attachment.hash(), &made) {
                    cni::log(&format!("{attachment}: {error}"));
                }
                return Ok(());
            }
            // Our copy of the news was of another network of this name. What was made from it goes.
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

/// A finished attachment of the same key is a duplicate; an unfinished one is a killed ADD, and is taken down.
async fn repair(host: &Host, attachment: &Attachment, ipam: &Delegate<'_>) -> Result<(), Error> {
    let Some(record) = host
        .records
        .load(&attachment.hash())
        .map_err(|error| local(&error))?
    else {
        return Ok(());
    };
    if record.stage == Stage::Made {
        return Err(Error::new(
            code::DUPLICATE,
            format!("{attachment}: exists already; DEL it first"),
        ));
    }
    teardown::links(host, attachment, Some(&record), None).await?;
    ipam.del()?;
    teardown::forget(host, attachment)
}

/// The interface name must be free in the container, and so must the egress NIC's unless it is ours.
async fn refuse_taken_names(
    host: &Host,
    attachment: &Attachment,
    inside: &Rtnl,
) -> Result<(), Error> {
    let links = inside.links().await.map_err(|error| kernel(&error))?;
    let present = |name: &str| links.iter().any(|link| link.name == name);
    let new_egress = egress::ledger(host)?.is_none_or(|ledger| ledger.is_last(attachment));
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

impl Work<'_> {
    /// The copy of the news, if it fits the configuration; else the store's. This alone decides whether the ADD has
    /// to wait for the store before it starts.
    async fn known_news(&self) -> Result<News, Error> {
        if let Some(news) = self.copy()?.filter(|news| self.fits(news)) {
            return Ok(news);
        }
        let news = self
            .host
            .join(self.cluster, &self.conf.settings, &self.conf.spec)
            .await?;
        self.host.keep(&self.conf.spec.name, &news)?;
        Ok(news)
    }

    /// The copy of the news; one that cannot be read is as good as none.
    fn copy(&self) -> Result<Option<News>, Error> {
        match self.host.news.load(&self.conf.spec.name) {
            Err(error @ journal::Error::Unreadable { .. }) => {
                cni::log(&error.to_string());
                Ok(None)
            }
            loaded => loaded.map_err(|error| local(&error)),
        }
    }

    fn fits(&self, news: &News) -> bool {
        let network = news.ready_network(&self.conf.spec.name);
        network.is_ok_and(|network| {
            network.record.vni.is_some() && self.conf.spec.agree(&network.record).is_ok()
        })
    }

    /// Makes everything; `None` if the store meanwhile has another network of this name than `known` says.
    async fn make(&self, known: &News) -> Result<Option<CniResult>, Error> {
        let network = known.ready_network(&self.conf.spec.name).map_err(failed)?;
        let asking = self.ipam.spawn_beside();
        let (made, news) = tokio::join!(self.plug(known, network), self.fresh_news(known));
        // Also where the kernel refused: an IPAM plugin at work must end before it can be undone.
        let given = asking.wait();
        let (sandbox, mtu, nic) = made?;
        let Some(mut news) = news? else {
            return Ok(None);
        };
        let given = given?;
        if given.ips.is_empty() {
            return Err(Error::decode(format!(
                "IPAM plugin {}: gave no address",
                self.conf.ipam
            )));
        }
        let mac = endpoint::address(self.inside, self.attachment, &given, nic.is_some()).await?;
        if let Some(nic) = nic.filter(|nic| nic.new) {
            endpoint::open_egress(self.inside, &nic).await?;
            egress::opened(self.host, self.attachment)?;
        }
        match self
            .host
            .enrol(self.cluster, &self.conf.settings, &news, sandbox.vtep)
            .await
        {
            Ok(false) => {}
            Ok(true) => {
                news = self
                    .cluster
                    .news(&self.conf.spec.name)
                    .await
                    .map_err(failed)?;
            }
            Err(error) if error.code == cni::code::AGAIN => {
                cni::log(&format!("{}: {error}", self.attachment));
            }
            Err(error) => return Err(error),
        }
        let _lock = self.host.lock_network(&network.record.name)?;
        // Another ADD may have brought newer news than ours while we were at work: they must not be undone.
        if self
            .copy()?
            .is_some_and(|copy| copy != *known && copy != news)
        {
            news = self
                .cluster
                .news(&self.conf.spec.name)
                .await
                .unwrap_or(news);
        }
        if news != *known {
            self.host.keep(&self.conf.spec.name, &news)?;
        }
        sandbox
            .reconcile(&network.record, &news, &self.conf.settings.node)
            .await?;
        let netns = self
            .call
            .netns
            .as_deref()
            .unwrap_or(Path::new(""))
            .display()
            .to_string();
        Ok(Some(endpoint::result(
            self.attachment,
            &netns,
            mac,
            mtu,
            given,
            nic,
        )))
    }

    /// The kernel's part that needs no address: sandbox, veth pair, egress NIC. Also the container's MTU.
    async fn plug(
        &self,
        known: &News,
        network: &Versioned<Network>,
    ) -> Result<(Sandbox, u32, Option<Nic>), Error> {
        let network = &network.record;
        let sandbox = self.sandbox(known, network).await?;
        let mtu = sandbox::mtu(network, self.conf.spec.mtu, sandbox.mtu)?;
        endpoint::plug(&sandbox, self.attachment, mtu, self.container).await?;
        let nic = match self.conf.spec.egress.clone().or(network.egress.clone()) {
            Some(egress) if egress.mode == EgressMode::None => None,
            egress => {
                let subnet = egress.and_then(|egress| egress.subnet);
                Some(egress::ensure(self.host, self.attachment, subnet, self.container).await?)
            }
        };
        let mut links = vec![self.attachment.ifname.as_str()];
        links.extend(nic.filter(|nic| nic.new).map(|_| EGRESS_NIC));
        let has_v6 = network.subnets().iter().any(IpNetwork::is_ipv6);
        endpoint::quiet(self.container, &links, has_v6)?;
        Ok((sandbox, mtu, nic))
    }

    /// The network's sandbox, found or made. The underlay is looked for where the sandbox does not stand as it should.
    async fn sandbox(&self, known: &News, network: &Network) -> Result<Sandbox, Error> {
        let _lock = self.host.lock_network(&network.name)?;
        sandbox::enter(self.host, &network.name, &self.attachment.hash())?;
        let own = known
            .nodes
            .get(&self.conf.settings.node)
            .and_then(|node| node.record.vtep);
        let vtep = own.filter(|own| self.conf.settings.vtep.is_none_or(|named| named == *own));
        if let Some(vtep) = vtep
            && let Some(sandbox) = sandbox::find(network, vtep).await?
        {
            return Ok(sandbox);
        }
        let underlay = self.host.underlay(&self.conf.settings).await?;
        sandbox::ensure(self.host, network, &underlay).await
    }

    /// One read of news, or the copy if the store is away. `None` if the network is no longer the `known` one.
    async fn fresh_news(&self, known: &News) -> Result<Option<News>, Error> {
        let name = &self.conf.spec.name;
        let news = match self.cluster.news(name).await {
            Ok(news) => news,
            Err(error) if error.is_away() => {
                cni::log(&format!(
                    "{}: forwarding from the last news: {error}",
                    self.attachment
                ));
                return Ok(Some(known.clone()));
            }
            Err(error) => return Err(failed(error)),
        };
        let revision = |news: &News| news.network.as_ref().map(|network| network.revision);
        if revision(&news) != revision(known) {
            self.host.news.remove(name).map_err(|error| local(&error))?;
            return Ok(None);
        }
        Ok(Some(news))
    }

    /// Takes down what an ADD made that cannot be finished. Its error counts, not this one's; what stays is in the
    /// journal for the runtime's DEL.
    async fn undo(&self, record: &Record) {
        let links = teardown::links(
            self.host,
            self.attachment,
            Some(record),
            self.call.netns.as_deref(),
        )
        .await;
        let addresses = self.ipam.del();
        let undone = links
            .and(addresses)
            .and_then(|()| teardown::forget(self.host, self.attachment));
        if let Err(error) = undone {
            cni::log(&format!("{}: undo: {error}", self.attachment));
        }
    }
}
