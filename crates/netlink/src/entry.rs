//! A neighbour or FDB entry as the kernel sends it (`struct ndmsg` and attributes, uapi `linux/neighbour.h`), decoded as far
//! as forwarding needs it. A sandbox with many neighbours has tens of thousands of them, and each ADD reads them all; the
//! library copies each attribute of each.

use std::net::IpAddr;

use netlink_packet_core::{DecodeError, NlasIterator, parse_u32};

use crate::Mac;

/// Bytes of `struct ndmsg`: family, padding, link, state, flags, type.
const HEADER: usize = 12;

const DESTINATION: u16 = 1;
const ADDRESS: u16 = 2;
const MASTER: u16 = 9;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `AF_BRIDGE` for an FDB entry, else the address family.
    pub(crate) family: u8,
    /// Index of the link.
    pub(crate) link: u32,
    /// `NUD_` bits.
    pub(crate) state: u16,
    /// `NTF_` bits.
    pub(crate) flags: u8,
    pub(crate) mac: Option<Mac>,
    /// A neighbour's address, or the destination of a VXLAN device's FDB entry.
    pub(crate) destination: Option<IpAddr>,
    /// Index of an FDB entry's bridge.
    pub(crate) master: Option<u32>,
}

impl Entry {
    /// From the payload of an `RTM_NEWNEIGH`.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let (header, attributes) = payload
            .split_at_checked(HEADER)
            .ok_or("an entry of less than 12 bytes")?;
        let mut entry = Self {
            family: header[0],
            link: parse_u32(&header[4..8])?,
            state: u16::from_ne_bytes([header[8], header[9]]),
            flags: header[10],
            mac: None,
            destination: None,
            master: None,
        };
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                DESTINATION => entry.destination = address(value),
                ADDRESS => entry.mac = value.try_into().ok().map(Mac),
                MASTER => entry.master = Some(parse_u32(value)?),
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// An address tells its family by its length.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::neighbour::{
        NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    };

    use super::*;

    fn bytes() -> Vec<u8> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = 7;
        message.header.state = NeighbourState::Noarp;
        message.header.flags = NeighbourFlags::Own;
        let destination: IpAddr = "192.0.2.3".parse().unwrap();
        message.attributes = vec![
            NeighbourAttribute::LinkLayerAddress(vec![2, 0x42, 10, 0, 0, 9]),
            NeighbourAttribute::Controller(5),
            NeighbourAttribute::Port(4789),
            NeighbourAttribute::Destination(destination.into()),
        ];
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    #[test]
    fn what_the_library_writes_is_read() {
        let entry = Entry {
            family: 7,
            link: 7,
            state: 0x40,
            flags: 2,
            mac: Some(Mac([2, 0x42, 10, 0, 0, 9])),
            destination: Some("192.0.2.3".parse().unwrap()),
            master: Some(5),
        };
        assert_eq!(Entry::decode(&bytes()).unwrap(), entry);
        assert_eq!(
            address(&[0xfd; 16]),
            Some("fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd".parse().unwrap())
        );
        assert_eq!(address(&[1; 5]), None);
    }

    #[test]
    fn whatever_is_cut_or_broken_is_no_panic() {
        let whole = bytes();
        for len in 0..whole.len() {
            let _ = Entry::decode(&whole[..len]);
        }
        assert!(Entry::decode(&whole[..HEADER - 1]).is_err());
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            let _ = Entry::decode(&broken);
        }
    }
}
