//! The host's end of a pair: what limits it, what of that is missing, and how it is put there.

use std::collections::{BTreeMap, BTreeSet};

use netlink::{Link, LinkChange, Rtnl, Shaped};
use plugin::Error;

use super::{Bandwidth, Rate};
use crate::{names, vanished};

/// What a port should have.
pub(super) struct Wanted {
    /// Its name.
    pub(super) port: String,
    /// Its limits.
    pub(super) limits: Bandwidth,
}

/// A namespace of ours with all that limits ports in it.
pub(super) struct Seen<'a> {
    rtnl: &'a Rtnl,
    links: Vec<Link>,
    buckets: BTreeMap<u32, Shaped>,
}

impl<'a> Seen<'a> {
    pub(super) async fn look(rtnl: &'a Rtnl) -> Result<Self, Error> {
        Ok(Self {
            rtnl,
            links: rtnl.links().await?,
            buckets: rtnl.buckets().await?,
        })
    }

    fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// What of the limits of a port is not as wanted, if anything; of a port that is gone nothing is.
    async fn lack(&self, wanted: &Wanted) -> Result<Option<String>, Error> {
        let Wanted { port, limits } = wanted;
        let Some(link) = self.link(port) else {
            return Ok(None);
        };
        let differs =
            |link: &Link, wanted: Option<Rate>| match (self.buckets.get(&link.index), wanted) {
                (None, Some(_)) => Some("has no token bucket"),
                (Some(found), Some(rate)) if !rate.bucket(link.mtu).is(found) => {
                    Some("has another token bucket than it should")
                }
                (Some(found), None) if found.ours => {
                    Some("has a token bucket that was not asked for")
                }
                _ => None,
            };
        if let Some(what) = differs(link, limits.ingress) {
            return Ok(Some(format!("{port} {what}: the ingress rate is not kept")));
        }
        let name = names::ifb(port);
        let (ifb, rate) = match (self.link(&name), limits.egress) {
            (None, None) => return Ok(None),
            (Some(_), None) => {
                return Ok(Some(format!(
                    "{name} is there though no rate was asked for"
                )));
            }
            (Some(ifb), Some(rate)) if ifb.up => (ifb, rate),
            (there, Some(_)) => {
                let how = if there.is_some() { "down" } else { "gone" };
                let what =
                    format!("{name} is {how}: nothing that the container sends by {port} passes");
                return Ok(Some(what));
            }
        };
        let to = self.rtnl.redirection(link.index).await;
        if to? != Some(ifb.index) {
            let what =
                format!("{name} does not get what {port} receives: the egress rate is not kept");
            return Ok(Some(what));
        }
        // The ifb has the MTU with which it was made.
        let ifb = Link {
            mtu: link.mtu,
            ..ifb.clone()
        };
        let what = differs(&ifb, Some(rate));
        Ok(what.map(|what| format!("{name} {what}: the egress rate is not kept")))
    }

    /// Makes the limits of the ports what they should be, those of which is known what that is, and removes what ports left
    /// that are gone; whether something was wrong. The first
    /// failure is told after the others were looked at.
    pub(super) async fn repair(&self, all: &[Wanted]) -> Result<bool, Error> {
        let (mut mended, mut failed) = (false, None);
        for wanted in all {
            if self.lack(wanted).await?.is_none() {
                continue;
            }
            let Err(error) = shape(self.rtnl, &wanted.port, wanted.limits).await else {
                mended = true;
                continue;
            };
            // A DEL may have taken it away meanwhile.
            let port = self.rtnl.link(&wanted.port).await;
            if port?.is_some() {
                failed.get_or_insert(error);
            }
        }
        let names = self.links.iter().map(|link| link.name.as_str());
        let (ifbs, others): (Vec<_>, Vec<_>) = names.partition(|name| names::is_ifb(name));
        let kept: BTreeSet<_> = others.into_iter().map(names::ifb).collect();
        for left in ifbs.into_iter().filter(|name| !kept.contains(*name)) {
            let removed = self.rtnl.remove_link(left).await;
            mended |= removed?;
        }
        failed.map_or(Ok(mended), Err)
    }

    /// What is wrong with the first of these ports, if anything is.
    pub(super) async fn first_lack(&self, all: &[Wanted]) -> Result<Option<String>, Error> {
        for wanted in all {
            if let Some(lack) = self.lack(wanted).await? {
                return Ok(Some(lack));
            }
        }
        Ok(None)
    }
}

/// Gives a port just these limits, whatever it had; a port that is gone is an error.
pub(super) async fn shape(rtnl: &Rtnl, port: &str, wanted: Bandwidth) -> Result<(), Error> {
    let shaped = limit(rtnl, port, wanted).await;
    shaped.map_err(|error| Error::new(error.code, format!("{port}: {}", error.msg)))
}

async fn limit(rtnl: &Rtnl, port: &str, wanted: Bandwidth) -> Result<(), Error> {
    let ifb = names::ifb(port);
    let link = found(rtnl, port).await?;
    let set = async {
        match wanted.ingress {
            Some(rate) => rtnl.set_bucket(link.index, &rate.bucket(link.mtu)).await?,
            None => drop(rtnl.remove_bucket(link.index).await?),
        }
        if wanted.egress.is_none() {
            rtnl.remove_redirection(link.index).await?;
            rtnl.remove_link(&ifb).await?;
        }
        Ok::<_, Error>(())
    };
    set.await?;
    let Some(rate) = wanted.egress else {
        return Ok(());
    };
    match rtnl.create_ifb(&ifb, link.mtu).await {
        Err(error) if !error.is_exists() => return Err(without_ifb(error)),
        _ => {}
    }
    let device = found(rtnl, &ifb).await?;
    let set = async {
        rtnl.set_bucket(device.index, &rate.bucket(link.mtu))
            .await?;
        if !device.up {
            let up = LinkChange {
                up: Some(true),
                ..LinkChange::default()
            };
            rtnl.set_link(device.index, &up).await?;
        }
        rtnl.redirect(link.index, device.index).await
    };
    set.await.map_err(Error::from)
}

fn without_ifb(error: netlink::Error) -> Error {
    let mut told = Error::from(error);
    told.msg.push_str(
        "; an egress rate needs the kernel's modules ifb, act_mirred, cls_u32 and sch_ingress",
    );
    told
}

async fn found(rtnl: &Rtnl, name: &str) -> Result<Link, Error> {
    let link = rtnl.link(name).await?;
    link.ok_or_else(|| vanished(name))
}
