//! The locks of this host. They keep verbs of other containers and networks out of what one verb changes.

use std::time::Duration;

use journal::{Attachment, Lock};
use plugin::Error;

use crate::state::host::Host;

/// Longest wait for another verb of this host.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a removal waits for an ADD of its attachment before it ends the IPAM plugin of that ADD.
const PROMPT: Duration = Duration::from_secs(2);

impl Host {
    /// Excludes other verbs from a network's sandbox on this host.
    pub fn lock_network(&self, network: &str) -> Result<Lock, Error> {
        self.lock(&format!("network-{network}"))
    }

    /// Excludes other verbs from a container, on all its networks.
    pub fn lock_container(&self, attachment: &Attachment) -> Result<Lock, Error> {
        Ok(self.lock(&of_container(attachment))?.passing())
    }

    /// The same for the removal of an attachment. An ADD of it that does not end by itself waits for its IPAM plugin: that is killed,
    /// and the ADD undoes what it made.
    pub fn lock_for_removal(&self, attachment: &Attachment) -> Result<Lock, Error> {
        let name = of_container(attachment);
        match self.records.lock(&name, PROMPT) {
            Ok(lock) => return Ok(lock.passing()),
            Err(journal::Error::Busy { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.end_ipam(attachment);
        self.lock_container(attachment)
    }

    /// Kills the IPAM plugins that still work for an ADD of the attachment which the runtime has given up.
    pub fn end_ipam(&self, attachment: &Attachment) {
        let ended = cni::end_abandoned(&attachment.container, &attachment.ifname);
        if ended > 0 {
            let why = "the runtime has given up its ADD";
            cni::log(&format!("{attachment}: IPAM plugin killed: {why}"));
        }
    }

    /// The lock on a container without waiting; `None` if a verb of the container is running.
    pub fn lock_idle_container(&self, attachment: &Attachment) -> Result<Option<Lock>, Error> {
        let idle = self.records.try_lock(&of_container(attachment));
        Ok(idle?.map(Lock::passing))
    }

    /// A lock of this host.
    pub fn lock(&self, name: &str) -> Result<Lock, Error> {
        self.records.lock(name, PATIENCE).map_err(Error::from)
    }
}

/// The name of the lock on a container.
fn of_container(attachment: &Attachment) -> String {
    format!("container-{}", attachment.container_hash())
}
