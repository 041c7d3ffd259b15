//! Addresses of links.
//!
//! Made for containers: adding an address that already exists is not an error, because a verb may be repeated, and IPv6
//! addresses can be used at once. What [`Rtnl::addresses`] returns can be compared with what was added.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::message::Message;
use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::AddressMessageBuilder;
use rustix::io::Errno;

use crate::{Error, Rtnl};

impl Rtnl {
    /// Adds the address to link `index`; not an error if it has it. IPv6 addresses get no duplicate address detection: the
    /// caller knows that they are unique, and it would delay each container by a second.
    pub async fn add_address(&self, index: u32, address: IpNetwork) -> Result<(), Error> {
        self.add(index, address, AddressFlags::empty()).await
    }

    /// The same without the kernel's route to the address's network, for callers that add a better one.
    pub async fn add_bare_address(&self, index: u32, address: IpNetwork) -> Result<(), Error> {
        self.add(index, address, AddressFlags::Noprefixroute).await
    }

    async fn add(&self, index: u32, address: IpNetwork, flags: AddressFlags) -> Result<(), Error> {
        let mut message = match address {
            IpNetwork::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new()
                .address(v4.ip(), v4.prefix())
                .build(),
            IpNetwork::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new()
                .address(v6.ip(), v6.prefix())
                .build(),
        };
        message.header.index = index;
        if address.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        if !flags.is_empty() {
            // All flags: the kernel prefers this word to the header's, which has only eight bits.
            let nodad = if address.is_ipv6() {
                AddressFlags::Nodad
            } else {
                AddressFlags::empty()
            };
            message
                .attributes
                .push(AddressAttribute::Flags(flags | nodad));
        }
        match self
            .request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
            .await
        {
            Err(refusal) if refusal.is(Errno::EXIST) => Ok(()),
            added => added
                .map_err(|refusal| refusal.on(format_args!("address {address} on link {index}"))),
        }
    }

    /// Addresses of link `index`, or of all links: (link index, address with prefix length).
    pub async fn addresses(&self, index: Option<u32>) -> Result<Vec<(u32, IpNetwork)>, Error> {
        let address = |message| match message {
            Message::NewAddress(message)
                if index.is_none_or(|index| index == message.header.index) =>
            {
                Some((message.header.index, own(&message)?))
            }
            _ => None,
        };
        let question = Message::GetAddress(AddressMessage::default());
        let found = self.dump(question, address).await;
        found.map_err(|refusal| refusal.on("list of addresses"))
    }
}

/// The link's own address. On a point-to-point link `IFA_ADDRESS` is the peer's and `IFA_LOCAL` ours; most IPv6
/// addresses have no `IFA_LOCAL`.
fn own(message: &AddressMessage) -> Option<IpNetwork> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    let local = find(|attribute| {
        if let AddressAttribute::Local(ip) = attribute {
            Some(*ip)
        } else {
            None
        }
    });
    let address = find(|attribute| {
        if let AddressAttribute::Address(ip) = attribute {
            Some(*ip)
        } else {
            None
        }
    });
    IpNetwork::new(local.or(address)?, message.header.prefix_len).ok()
}
