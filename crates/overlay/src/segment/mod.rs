//! A network on this host: its sandbox (bridge and VXLAN device) and the forwarding to other hosts.

pub(crate) mod desired;
pub mod forwarding;
pub mod mac_rewrite;
pub mod path_mtu;
pub(crate) mod port_ready;
pub mod sandbox;
pub(crate) mod vxlan_conflict;
