//! A link as the kernel sends it (`struct ifinfomsg` and attributes, uapi `linux/if_link.h`), decoded as far as it is used
//! here. The library decodes everything that any kind of device can have: slower, and more code than the rest of this crate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{
    DecodeError, NlasIterator, parse_string, parse_u8, parse_u16_be, parse_u32,
};

use crate::{Link, Mac, Port, VxlanInfo};

/// Bytes of `struct ifinfomsg`: family, padding, type, index, flags, change.
const HEADER: usize = 16;
/// `IFF_UP`.
const UP: u32 = 1;

const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const MASTER: u16 = 10;
const INFO: u16 = 18;
const ALIAS: u16 = 20;
const GROUP: u16 = 27;

const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_PORT_KIND: u16 = 4;
const INFO_PORT_DATA: u16 = 5;

const PORT_STATE: u16 = 1;
const PORT_HAIRPIN: u16 = 4;
const PORT_LEARNING: u16 = 8;
const PORT_FLOOD: u16 = 9;
const PORT_SUPPRESS: u16 = 32;
const PORT_ISOLATED: u16 = 33;

/// `BR_STATE_FORWARDING`
const FORWARDING: u8 = 3;

const VXLAN_ID: u16 = 1;
const VXLAN_LINK: u16 = 3;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT_RANGE: u16 = 10;
const VXLAN_PORT: u16 = 15;
const VXLAN_LOCAL6: u16 = 17;
/// Attributes in which all devices that share a socket must agree: UDP checksums, remote checksum offload, group policies,
/// flow-based metadata, GPE, filters of VNIs.
const VXLAN_PECULIAR: [u16; 6] = [20, 22, 23, 25, 27, 30];

impl Link {
    /// From the payload of an `RTM_NEWLINK`.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let word = |at: usize| match payload.get(at..at + 4) {
            Some(bytes) => parse_u32(bytes),
            None => Err("a link of less than 16 bytes".into()),
        };
        let mut link = Self {
            index: word(4)?,
            up: word(8)? & UP != 0,
            ..Self::default()
        };
        for attribute in NlasIterator::new(payload.get(HEADER..).unwrap_or_default()) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                NAME => link.name = parse_string(value)?,
                ADDRESS => link.mac = value.try_into().ok().map(Mac),
                MTU => link.mtu = parse_u32(value)?,
                MASTER => link.master = Some(parse_u32(value)?),
                GROUP => link.group = parse_u32(value)?,
                ALIAS => link.alias = Some(parse_string(value)?),
                INFO => link.decode_info(value)?,
                _ => {}
            }
        }
        Ok(link)
    }

    fn decode_info(&mut self, info: &[u8]) -> Result<(), DecodeError> {
        let mut is_port = false;
        for attribute in NlasIterator::new(info) {
            let attribute = attribute?;
            match attribute.kind() {
                INFO_KIND => self.kind = Some(parse_string(attribute.value())?),
                // The kind comes before its data.
                INFO_DATA if self.kind.as_deref() == Some("vxlan") => {
                    self.vxlan = Some(VxlanInfo::decode(attribute.value())?);
                }
                INFO_PORT_KIND => is_port = parse_string(attribute.value())? == "bridge",
                INFO_PORT_DATA if is_port => {
                    (self.port, self.forwards) = Port::decode(attribute.value())?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Port {
    /// Also whether it lets frames pass.
    fn decode(data: &[u8]) -> Result<(Self, bool), DecodeError> {
        let (mut port, mut forwards) = (Self::default(), false);
        for attribute in NlasIterator::new(data) {
            let attribute = attribute?;
            let flag = match attribute.kind() {
                PORT_STATE => {
                    forwards = parse_u8(attribute.value())? == FORWARDING;
                    continue;
                }
                PORT_HAIRPIN => &mut port.hairpin,
                PORT_LEARNING => &mut port.learning,
                PORT_FLOOD => &mut port.flood,
                PORT_SUPPRESS => &mut port.neigh_suppress,
                PORT_ISOLATED => &mut port.isolated,
                _ => continue,
            };
            *flag = Some(parse_u8(attribute.value())? > 0);
        }
        Ok((port, forwards))
    }
}

impl VxlanInfo {
    fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        let mut vxlan = Self::default();
        for attribute in NlasIterator::new(data) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                VXLAN_ID => vxlan.vni = parse_u32(value)?,
                VXLAN_PORT => vxlan.port = parse_u16_be(value)?,
                VXLAN_PORT_RANGE => {
                    let (low, high) = value.split_at_checked(2).unwrap_or_default();
                    vxlan.source_ports = (parse_u16_be(low)?, parse_u16_be(high)?);
                }
                VXLAN_LINK => vxlan.underlay = parse_u32(value)?,
                VXLAN_LEARNING => vxlan.learning = parse_u8(value)? > 0,
                VXLAN_LOCAL => vxlan.local = address::<4, Ipv4Addr>(value),
                VXLAN_LOCAL6 => vxlan.local = address::<16, Ipv6Addr>(value),
                // Flags; some of them always exist and have a value.
                kind if VXLAN_PECULIAR.contains(&kind) => {
                    vxlan.peculiar |= value.first().is_none_or(|on| *on > 0);
                }
                _ => {}
            }
        }
        Ok(vxlan)
    }
}

fn address<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(value: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; N] = value.try_into().ok()?;
    Some(A::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Emitable as _;
    use netlink_packet_route::link::{
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVxlan, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage,
    };

    fn bytes(attributes: Vec<LinkAttribute>) -> Vec<u8> {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::Running;
        message.attributes = attributes;
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn vxlan() -> Vec<u8> {
        let data = vec![
            InfoVxlan::Id(4097),
            InfoVxlan::Link(3),
            InfoVxlan::Local(Ipv4Addr::new(192, 168, 1, 11)),
            InfoVxlan::Learning(false),
            InfoVxlan::Port(4789),
            InfoVxlan::PortRange((512, 1024)),
        ];
        bytes(vec![
            LinkAttribute::IfName("vxlan0".into()),
            LinkAttribute::Mtu(1450),
            LinkAttribute::Address(vec![2, 0x42, 10, 0, 0, 2]),
            LinkAttribute::Controller(5),
            LinkAttribute::Group(9),
            LinkAttribute::IfAlias("ours".into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(data)),
            ]),
        ])
    }

    #[test]
    fn what_the_library_writes_is_read() {
        let link = Link::decode(&vxlan()).unwrap();
        let wanted = Link {
            index: 7,
            name: "vxlan0".into(),
            mac: Some(Mac([2, 0x42, 10, 0, 0, 2])),
            mtu: 1450,
            up: true,
            kind: Some("vxlan".into()),
            master: Some(5),
            group: 9,
            alias: Some("ours".into()),
            vxlan: Some(VxlanInfo {
                vni: 4097,
                port: 4789,
                source_ports: (512, 1024),
                local: Some([192, 168, 1, 11].into()),
                underlay: 3,
                learning: false,
                peculiar: false,
            }),
            port: Port::default(),
            forwards: false,
        };
        assert_eq!(link, wanted);
        let plain = Link::decode(&bytes(vec![LinkAttribute::IfName("lo".into())])).unwrap();
        assert_eq!(
            (plain.name.as_str(), plain.kind, plain.vxlan),
            ("lo", None, None)
        );
    }

    #[test]
    fn a_bridge_port_tells_what_it_does() {
        let data = vec![
            InfoBridgePort::State(netlink_packet_route::link::BridgePortState::Forwarding),
            InfoBridgePort::Learning(false),
            InfoBridgePort::NeighSupress(true),
            InfoBridgePort::Isolated(true),
            InfoBridgePort::HairpinMode(false),
            InfoBridgePort::UnicastFlood(false),
        ];
        let info = |kind| {
            bytes(vec![LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(kind),
                LinkInfo::PortData(InfoPortData::BridgePort(data.clone())),
            ])])
        };
        let port = Port {
            neigh_suppress: Some(true),
            learning: Some(false),
            isolated: Some(true),
            hairpin: Some(false),
            flood: Some(false),
        };
        let link = Link::decode(&info(InfoPortKind::Bridge)).unwrap();
        assert_eq!((link.port, link.forwards), (port, true));
        let other = Link::decode(&info(InfoPortKind::Bond)).unwrap();
        let nothing = (Port::default(), false);
        assert_eq!(
            (other.port, other.forwards),
            nothing,
            "of another kind of port"
        );
    }

    #[test]
    fn less_than_a_message_is_refused_and_never_more_than_that() {
        let whole = vxlan();
        for len in 0..whole.len() {
            let _ = Link::decode(&whole[..len]);
        }
        assert!(Link::decode(&whole[..HEADER - 5]).is_err());
        for at in HEADER..whole.len() {
            let mut broken = whole.clone();
            broken[at] = 0xff;
            let _ = Link::decode(&broken);
        }
    }
}
