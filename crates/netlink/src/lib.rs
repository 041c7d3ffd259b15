//! The kernel's network objects, as idempotent verbs: namespaces, links, addresses, routes, forwarding entries.

mod address;
mod create;
mod error;
mod forwarding;
mod link;
mod mac;
mod netns;
mod route;
mod rtnl;

pub use create::{Bridge, Veth, VethEnd, Vxlan};
pub use error::Error;
pub use forwarding::{Change, Forward, Forwarding};
pub use link::{Link, LinkChange, Port, VxlanInfo};
pub use mac::Mac;
pub use netns::{Netns, NetnsError};
pub use route::{Hop, Route};
pub use rtnl::Rtnl;
