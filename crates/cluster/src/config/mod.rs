//! Settings of a host, and the conflist: where the store is, and which keys of it are in use.

pub(crate) mod conflist;
pub(crate) mod data_dir;
pub(crate) mod environment;
pub(crate) mod network_defaults;
pub(crate) mod settings;
pub(crate) mod store_ref;
