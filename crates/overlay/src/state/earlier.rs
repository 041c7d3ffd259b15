//! What an earlier ADD of the same attachment left. A duplicate is refused. What a killed ADD left is undone (by
//! `maintain/teardown.rs`, as DEL does).

use cni::Delegate;
use journal::{Attachment, Found};
use netlink::{Netns, Rtnl};
use plugin::{Error, code};

use crate::{
    config::Conf,
    host_link,
    maintain::teardown,
    names,
    segment::sandbox,
    state::{
        attachment::{Answered, Record, Stage},
        host::Host,
    },
};

/// A finished attachment with the same key is a duplicate if its links exist and its runtime knows of it. Otherwise the ADD or
/// its runtime was killed, or the container's namespace was made again without a DEL: what it left is removed.
pub(crate) async fn clear(
    host: &Host,
    conf: &Conf,
    attachment: &Attachment,
    container: (&Netns, &Rtnl),
    ipam: &Delegate<'_>,
) -> Result<(), Error> {
    let found = host.records.load(&attachment.hash());
    let record = match found? {
        Found::Absent => return Ok(()),
        Found::Readable(record) => record,
        // Its container may be running.
        Found::Unreadable(unreadable) => {
            let why = format!("{attachment}: may exist already; DEL it first: {unreadable}");
            return Err(Error::new(code::DUPLICATE, why));
        }
    };
    let known = |answered: Answered| answered.is_remembered(attachment);
    if record.stage == Stage::Made
        && stands(&record, container).await?
        && record.answered.is_none_or(known)
    {
        return Err(Error::new(
            code::DUPLICATE,
            format!("{attachment}: exists already; DEL it first"),
        ));
    }
    if record.stage == Stage::Making {
        host.end_ipam(attachment);
    }
    teardown::links(host, attachment, Some(&record), None).await?;
    ipam.del()?;
    host_link::release(host, &attachment.network, conf.host_access, ipam).await?;
    teardown::forget(host, attachment)
}

/// Whether the links of a finished attachment are in this container. A new namespace may have the number of an old one, but not
/// its links. If one end of a pair is gone, so is the other.
async fn stands(record: &Record, (container, inside): (&Netns, &Rtnl)) -> Result<bool, Error> {
    if record.netns_id != container.id() {
        return Ok(false);
    }
    let attachment = &record.attachment;
    let port = match sandbox::open(&attachment.network)? {
        Some(rtnl) => rtnl.link(&names::port(attachment)).await,
        None => Ok(None),
    };
    let own = inside.link(&attachment.ifname).await?;
    let is_ours = own.is_some_and(|own| own.group == names::group(attachment));
    Ok(is_ours || port?.is_some())
}
