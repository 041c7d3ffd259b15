//! The commands. Each has a file.

pub(crate) mod doctor;
pub(crate) mod endpoint;
pub(crate) mod gc;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod port;
pub(crate) mod sync;
