//! What this host remembers, and what it knows of itself: attachments, documents, locks, underlay, registration.

pub mod attachment;
pub(crate) mod earlier;
pub mod host;
mod locks;
pub(crate) mod registration;
pub(crate) mod removed;
pub mod underlay;
