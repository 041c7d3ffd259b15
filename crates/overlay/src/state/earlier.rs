//! What an earlier ADD of the same attachment left: a duplicate stands in the way, the rest is cleared away.

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

/// A finished attachment of the same key that stands, and that its runtime knows of, is a duplicate. What an ADD left that was
/// killed, whose runtime was killed before it knew, or whose container's namespace was made anew without a DEL, is taken down.
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
        // Its container may run.
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
    teardown::links(host, attachment, Some(&record), None).await?;
    ipam.del()?;
    host_link::release(host, &attachment.network, conf.host_access, ipam).await?;
    teardown::forget(host, attachment)
}

/// Whether the links of a finished attachment are in this container. A namespace that was made anew may have the number of the old
/// one, but not its links; and of a pair whose one end went the other went too.
async fn stands(record: &Record, (container, inside): (&Netns, &Rtnl)) -> Result<bool, Error> {
    if record.netns_id != container.id() {
        return Ok(false);
    }
    let attachment = &record.attachment;
    let port = match sandbox::open(&attachment.network)? {
        Some(rtnl) => rtnl.link(&names::port(attachment)).await,
        None => Ok(None),
    };
    let own = inside.link(&attachment.ifname).await;
    let own = own?;
    let is_ours = own.is_some_and(|own| own.group == names::group(attachment));
    Ok(is_ours || port?.is_some())
}
