//! CHECK: the container is as the result of its chain says, and this host's side as the newest snapshot says. It reports the first
//! deviation. What later plugins of the chain changed is in the result; what they added is ignored. But a MAC that the source guard does
//! not know is one, whoever set it: no frame of the container passes.
//!
//! A runtime that is told of a deviation destroys the container. So what belongs to the host as a whole is repaired first, as each
//! verb does: the nftables table, the egress bridge, the host's own links to the segment. The rules of other programs and the path
//! MTU to other hosts are not judged here: `crosshost doctor` reports them.

mod segment;

use std::path::Path;

use cni::{Call, Delegate};
use journal::Found as Document;
use plugin::{Error, code};

use crate::{
    config::Conf,
    egress,
    endpoint::{container, desired, nic},
    host_state::{Space, deviations},
    maintain::in_place,
    names::{self, EGRESS_NIC},
    state::{attachment::Stage, host::Host},
};

/// Says on standard error what was repaired, or why it was not. CHECK goes on in both cases.
fn put_back(what: &str, mended: Result<bool, Error>) {
    match mended {
        Ok(false) => {}
        Ok(true) => cni::log(&format!(
            "{what}: was not as it should be, and was put back"
        )),
        Err(error) => cni::log(&format!("{what}: {error}")),
    }
}

/// The first deviation, if there is one.
type Found = Result<Option<String>, Error>;

pub(crate) async fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let attachment = plugin::attachment(call)?;
    let previous = call.conf.prev_result.as_ref();
    let previous = previous.ok_or_else(|| Error::config("prevResult: missing; CHECK needs it"))?;
    let previous = &previous.result;
    let host = Host::open()?;
    // This version can neither judge nor repair what a newer one made, and no container may be destroyed for that.
    if let Err(newer) = journal::layout::admit(Path::new(journal::ROOT), cni::build::BUILD) {
        cni::log(&newer.to_string());
        return Ok(());
    }
    let (container, inside) = container::open(call, &host)?;
    let deviation = |what: Option<String>| match what {
        None => Ok(()),
        Some(what) => Err(Error::new(code::DEVIATION, format!("{attachment}: {what}"))),
    };
    let found = host.records.load(&attachment.hash());
    let port = match found? {
        Document::Readable(record) if record.stage == Stage::Made => {
            if record.netns_id != container.id() {
                let made = record.netns.display();
                let what = format!("CNI_NETNS is another namespace than it was made in ({made})");
                return deviation(Some(what));
            }
            record.port
        }
        // It would only say that the ADD was finished, which the result says, too.
        Document::Unreadable(unreadable) => {
            cni::log(&unreadable.to_string());
            None
        }
        Document::Absent | Document::Readable(_) => {
            return deviation(Some("this host has no finished record of it".to_owned()));
        }
    };
    let has_egress = previous.interfaces.iter().any(|i| i.name == EGRESS_NIC);
    if has_egress {
        put_back("way out", egress::repair(&host).await);
    }
    let space = Space::of_container(&host, &container, &inside);
    let expected = in_place::expected(&host, &attachment, &inside, previous).await?;
    let wanted = desired::inside(&attachment.ifname, &expected);
    let seen = nic::look(&space, &wanted).await?;
    deviation(deviations(&wanted, &seen).next().map(|first| first.what))?;
    let mac = seen.link(&attachment.ifname).and_then(|own| own.mac);
    deviation(port.zip(mac).and_then(|(port, mac)| port.mutes(mac)))?;
    let mtu = seen.link(&attachment.ifname).map_or(0, |own| own.mtu);
    deviation(segment::look(&host, &conf, &attachment, mtu).await?)?;
    if has_egress {
        let port = names::egress_port(&attachment);
        deviation(egress::deviation(&host, &attachment, &port).await?)?;
    }
    Ok(Delegate::find(call, &conf.ipam)?.check()?)
}
