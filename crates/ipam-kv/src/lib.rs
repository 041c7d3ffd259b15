//! `ipam-kv`: addresses from the shared store, as a CNI IPAM plugin under any interface plugin.
//!
//! The protocol in one paragraph. A host owns blocks of each network (`cluster`). Inside them it chooses alone, under
//! a lock of the host, from a [`ledger`] under `/run/crosshost`: what it owns, what is in use, what was freed when.
//! The choice is in the ledger before anything else happens; then one conditional write publishes it; then the
//! ledger notes that it stands. A verb killed in between leaves a ledger entry that the attachment's next verb
//! undoes. With the store away an address of an own block is given out all the same, and published when the store
//! is back; a released one is remembered and released then. The other side of every race is in the store's
//! conditions: a block that is no longer ours refuses the lease, a lease of somebody else is never deleted.
//!
//! | file | what |
//! |---|---|
//! | [`conf`] | the configuration: `host-local`'s words |
//! | [`ledger`] | what this host holds of a network, pure |
//! | [`desk`] | ledger, locks and store of one verb |
//! | `add`, `del`, `check`, `gc`, `status` | the verbs |

mod add;
mod check;
pub mod conf;
mod del;
pub mod desk;
mod gc;
pub mod ledger;
mod status;

use cni::{Call, ContainerId, Error, IfName, Tell};

pub use desk::sync;

/// Error codes of our own (`docs/errors.md`); those of the shared records are in `cluster::Error::code`.
pub mod code {
    /// The attachment exists already.
    pub const DUPLICATE: u32 = 100;
    /// The requested address cannot be given: held by another, or not in the pool.
    pub const ADDRESS: u32 = 108;
    /// CHECK found a deviation.
    pub const DEVIATION: u32 = 110;
}

/// The plugin.
pub struct IpamKv;

impl cni::Plugin for IpamKv {
    const NAME: &str = "ipam-kv";

    fn add(&self, call: &Call, tell: Tell<'_>) -> Result<(), Error> {
        run(add::add(call, tell))
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        run(del::del(call))
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        check::check(call)
    }

    fn gc(&self, call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error> {
        run(gc::gc(call, valid))
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        run(status::status(call))
    }
}

/// Runs a verb on a runtime of its own: one thread, built only now that the configuration has been read.
fn run<T>(verb: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    runtime
        .map_err(|error| Error::io(format!("async runtime: {error}")))?
        .block_on(verb)
}
