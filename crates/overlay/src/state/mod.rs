//! What this host remembers: attachments, networks, the locks of both.

pub mod attachment;
pub(crate) mod earlier;
pub mod host;
