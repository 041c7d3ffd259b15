//! The kernel's network objects: namespaces, links, addresses, routes, forwarding entries, rate limits, sysctls, sockets.
//!
//! Everything that the plugins know of rtnetlink is here, and none of its types are public: that family of crates breaks its
//! API every few months. A [`Netns`] is an open namespace. An [`Rtnl`] is a socket that was opened in a namespace and is used
//! from outside, so the process itself never changes its namespace. A caller opens one for the host, one for the sandbox and
//! one for the container, and passes them on.
//!
//! A verb's name says what it does if the object is there already: `create_` fails ([`Error::is_exists`]), `add_address`,
//! `change` and `set_` can be repeated, `remove_` returns whether there was something. Errors carry the kernel's own
//! sentence. There is no unsafe code: rustix moves the thread into the namespace and back, and tokio takes over the socket
//! that the thread opened there.

mod address;
mod attribute;
mod conntrack;
mod create;
mod decode;
mod dialogue;
mod entry;
mod error;
mod forwarding;
mod link;
mod listeners;
mod mac;
mod message;
mod mounts;
mod netns;
mod notices;
mod path_mtu;
mod qdisc;
mod reserved_port;
mod route;
mod rtnl;
mod sysctl;
mod traffic;

pub use conntrack::{End, Flows, forget, forget_all_of};
pub use create::{Bridge, Veth, VethEnd, Vxlan};
pub use error::Error;
pub use forwarding::{Change, Forward, Forwarding};
pub use link::{Link, LinkChange, Port, RaisedPort, VxlanInfo, index_of, name_of};
pub use listeners::{Listener, SocketOwner, bound_to_udp, listeners, socket_owners};
pub use mac::Mac;
pub use mounts::{Elsewhere, sees_all_processes};
pub use netns::{Netns, NetnsError};
pub use notices::{Notices, Scope};
pub use path_mtu::probe;
pub use qdisc::{Bucket, Shaped};
pub use reserved_port::ReservedPort;
pub use route::{Hop, Route};
pub use rtnl::Rtnl;
pub use sysctl::Sysctl;
