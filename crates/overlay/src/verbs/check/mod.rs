//! CHECK: the attachment is what its result says, and what carries it on this host is as the last news say. The first
//! deviation ends it, and is named. What later plugins of the chain changed is in the result; what they added is no business
//! of ours.
//!
//! A runtime that is told of a deviation destroys the container. So what the host as a whole lacks of ours is put back first, as
//! each verb does: the nftables table, the egress bridge, the host's own links to the segment. And neither the
//! rules of others nor what the ways to other hosts carry are judged here: `crosshost doctor` tells of them.

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
    names::{self, EGRESS_NIC},
    state::{attachment::Stage, host::Host},
};

/// What was mended is said on standard error. Where it could not be, what is there is judged all the same.
fn put_back(what: &str, mended: Result<bool, Error>) {
    match mended {
        Ok(false) => {}
        Ok(true) => cni::log(&format!(
            "{what}: was not as it should be, and was put back"
        )),
        Err(error) => cni::log(&format!("{what}: {error}")),
    }
}

/// What a look finds: what deviates, if anything does.
type Found = Result<Option<String>, Error>;

pub(crate) async fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let attachment = plugin::attachment(call)?;
    let previous = call.conf.prev_result.as_ref();
    let previous = previous.ok_or_else(|| Error::config("prevResult: missing; CHECK needs it"))?;
    let previous = &previous.result;
    let host = Host::open()?;
    // What a newer version made this one can neither judge nor put back, and no container is to be destroyed for that.
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
    match found? {
        Document::Readable(record) if record.stage == Stage::Made => {
            if record.netns_id != container.id() {
                let made = record.netns.display();
                let what = format!("CNI_NETNS is another namespace than it was made in ({made})");
                return deviation(Some(what));
            }
        }
        // What it says is only that the ADD came to its end, and there is a result of it.
        Document::Unreadable(unreadable) => cni::log(&unreadable.to_string()),
        Document::Absent | Document::Readable(_) => {
            return deviation(Some("this host has no finished record of it".to_owned()));
        }
    }
    let has_egress = previous.interfaces.iter().any(|i| i.name == EGRESS_NIC);
    if has_egress {
        put_back("way out", egress::repair(&host).await);
    }
    let space = Space::of_container(&host, &container, &inside);
    let wanted = desired::inside(&attachment.ifname, previous);
    let seen = nic::look(&space, &wanted).await?;
    deviation(deviations(&wanted, &seen).next().map(|first| first.what))?;
    let mtu = seen.link(&attachment.ifname).map_or(0, |own| own.mtu);
    deviation(segment::look(&host, &conf, &attachment, mtu).await?)?;
    if has_egress {
        let port = names::egress_port(&attachment);
        deviation(egress::deviation(&host, &attachment, &port).await?)?;
    }
    Ok(Delegate::find(call, &conf.ipam)?.check()?)
}
