//! What the plugins have in common beyond the specification: the runtime of a verb, the reading of a local document, the attachments
//! that no runtime knows ([`connected`]), and [`Error`], which gives every error of the libraries its CNI error code.
//!
//! The libraries do not know CNI, and `cni` does not know them. They meet here, once for all plugins and the operator's
//! command. A plugin enables the features whose libraries it uses, so that none gets a dependency that it does not need.

pub mod connected;
mod error;

use std::future::Future;

use cni::Call;
use journal::{Attachment, Journal, Unreadable};
use serde::{Serialize, de::DeserializeOwned};

#[cfg(feature = "cluster")]
pub use error::code_of;
pub use error::{Error, code};

/// Runs a verb or a command to its end on one thread.
///
/// # Errors
///
/// Its own, and code 5 if the kernel refuses what a runtime needs.
pub fn run<T, E: From<Error>>(verb: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    runtime
        .map_err(|error| Error::io(format!("async runtime: {error}")))?
        .block_on(verb)
}

/// The document of that name. One that cannot be read counts as absent, and is named on standard error.
///
/// # Errors
///
/// What the file system refuses.
pub fn readable<T: Serialize + DeserializeOwned>(
    documents: &Journal<T>,
    name: &str,
) -> Result<Option<T>, Error> {
    Ok(documents.load_readable(name, &report_unreadable)?)
}

/// All documents that can be read; the others are named on standard error.
///
/// # Errors
///
/// What the file system refuses.
pub fn all_readable<T: Serialize + DeserializeOwned>(
    documents: &Journal<T>,
) -> Result<Vec<T>, Error> {
    Ok(documents.all_readable(&report_unreadable)?)
}

/// Names a document that cannot be read, on standard error.
pub fn report_unreadable(unreadable: &Unreadable) {
    cni::log(&unreadable.to_string());
}

/// The attachment that a call is about.
///
/// # Errors
///
/// Code 4 in verbs that are not about one.
pub fn attachment(call: &Call) -> Result<Attachment, Error> {
    let (container, ifname) = call.attachment()?;
    Ok(Attachment {
        network: call.conf.name.to_string(),
        container: container.to_string(),
        ifname: ifname.to_string(),
    })
}
