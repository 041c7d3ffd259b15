//! A container's NIC on a network, and the limits of its rate.

pub mod bandwidth;
pub(crate) mod container;
pub(crate) mod desired;
pub(crate) mod nic;
pub mod source_guard;
pub(crate) mod subnet_routes;
