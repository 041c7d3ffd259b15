//! The locks of this host. They keep verbs of other containers and networks out of what one verb changes.

use std::time::Duration;

use journal::{Attachment, Lock};
use plugin::Error;

use crate::state::host::Host;

/// Longest wait for another verb of this host.
const PATIENCE: Duration = Duration::from_secs(20);
impl Host {
    /// Excludes other verbs from a network's sandbox on this host.
    pub fn lock_network(&self, network: &str) -> Result<Lock, Error> {
        self.lock(&format!("network-{network}"))
    }

    /// Excludes other verbs from a container, on all its networks.
    pub fn lock_container(&self, attachment: &Attachment) -> Result<Lock, Error> {
        Ok(self.lock(&of_container(attachment))?.passing())
    }

    /// The same without waiting; `None` if a verb of the container is running.
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
