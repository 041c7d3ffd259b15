//! The kernel's own word that something was touched: on the host, in each sandbox and in the egress namespace. What it was is
//! nobody's question here: the repair looks at all that is ours.

use std::{cell::Cell, collections::BTreeMap, rc::Rc, time::Duration};

use overlay::follow::kernel_notices::{Notices, Source, sources};
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_local},
    time::sleep,
};

/// How long a listener rests after a notice that counts: what comes meanwhile waits in its socket, and what does not fit there
/// is told as lost.
const REST: Duration = Duration::from_millis(50);

/// All that is listened to.
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
    /// Listens to what there is now, and to nothing else; an error is of the first namespace that cannot be listened to, the
    /// others are.
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
                    // Made anew, it may have been damaged before anybody listened.
                    self.told.tell();
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed
    }

    /// Waits until something is touched.
    pub async fn told(&self) {
        self.told.notify.notified().await;
    }

    /// Whether something was touched since the last call.
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
