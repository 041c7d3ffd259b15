//! The netlink socket.

use crate::{Netns, NetnsError};

/// A route netlink socket that belongs to one namespace, whoever uses it.
#[derive(Debug)]
pub struct Rtnl {}

impl Rtnl {
    /// Opens a socket that was born in `netns`. Must be called inside a tokio runtime, which then drives the socket.
    pub fn open(netns: &Netns) -> Result<Self, NetnsError> {
        todo!("{netns:?}")
    }
}
