//! Notifications of the kernel that something was changed on the host, in a sandbox or in the egress namespace. Their contents do not
//! matter, because the repair checks all of our objects.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use overlay::follow::kernel_notices::{Notices, Source, sources};
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_local},
    time::sleep,
};

/// How long a listener rests after a notification that counts. Later ones wait in its socket, and the kernel reports those that do
/// not fit there as lost.
const REST: Duration = Duration::from_millis(50);

/// The listeners.
#[derive(Default)]
pub struct Kernel {
    listeners: BTreeMap<Source, Vec<JoinHandle<()>>>,
    told: Rc<Told>,
}

/// What the listeners share.
#[derive(Default)]
struct Told {
    touched: Cell<bool>,
    notify: Notify,
}

impl Kernel {
    /// Listens to the namespaces that exist now, and to no others. If some fail, returns the first error and listens to the rest.
    pub fn listen(&mut self) -> Result<(), plugin::Error> {
        let sources = sources()?;
        self.listeners.retain(|source, listeners| {
            let stays = sources.contains(source);
            if !stays {
                listeners.iter().for_each(JoinHandle::abort);
            }
            // One that failed is opened again.
            stays && !listeners.iter().any(JoinHandle::is_finished)
        });
        let mut failed = Ok(());
        for source in sources {
            if self.listeners.contains_key(&source) {
                continue;
            }
            match source.listen() {
                Ok(notices) => {
                    let told = &self.told;
                    let start = |notices| spawn_local(hear(notices, told.clone()));
                    self.listeners
                        .insert(source, notices.into_iter().map(start).collect());
                    // A namespace that was made again may have been damaged before its listener was open.
                    self.told.tell();
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed
    }

    /// Waits until something is changed.
    pub async fn told(&self) {
        self.told.notify.notified().await;
    }

    /// Whether something was changed since the last call.
    pub fn take(&self) -> bool {
        self.told.touched.take()
    }
}

impl Told {
    fn tell(&self) {
        self.touched.set(true);
        self.notify.notify_one();
    }
}

async fn hear(mut notices: Notices, told: Rc<Told>) {
    while let Ok(concerns) = notices.next().await {
        if concerns {
            told.tell();
            sleep(REST).await;
        }
    }
}
