//! The floor of the benchmark: the kernel work of one ADD and one DEL, and nothing else.
//!
//! `floor add` asks the kernel for what `overlay` with `ipam-kv` asks for one attachment with both NICs, with as few messages
//! as possible: a process of its own, one blocking socket per namespace, one message at a time (sending several before their
//! answers was measured and gains nothing). No JSON, no store, no journal, no lock, no undo, no async runtime, no request that
//! could be left out. The plugins must account for what they need beyond this time. Comparable only if built like them:
//! release, `-C target-feature=+crt-static`.
//!
//!     floor setup | teardown     sandbox namespace and egress bridge, by `ip`, since nobody measures it
//!     floor add NETNS NUMBER     attach the container at path NETNS as the NUMBER-th one, 2 to 65000
//!     floor del NETNS            both its NICs, as one link group in one message
//!
//! It is an example of this crate, although it does not use it, because only this crate has the netlink crates. It does not
//! bring `lo` up.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process::Command;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SANDBOX: &str = "/run/netns/floor";
const BRIDGE: &str = "br0";
const EGRESS_BRIDGE: &str = "fl-egress";
/// First two bytes of the addresses on the segment and on the egress bridge; both are /16.
const SEGMENT: [u8; 2] = [10, 77];
const EGRESS: [u8; 2] = [172, 31];
const MTU: u32 = 1450;
const EGRESS_MTU: u32 = 1500;
/// The link group of both NICs in the container.
const GROUP: u32 = 0xf100;

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["setup"] => setup(),
        ["add", container, number] => add(container, number.parse()?),
        ["del", container] => del(container),
        ["teardown"] => teardown(),
        _ => Err("floor: setup | add NETNS NUMBER | del NETNS | teardown".into()),
    }
}

fn add(container: &str, number: u16) -> Result<()> {
    let container = File::open(container)?;
    let mut host = Channel::open()?;
    let egress_bridge = host.index(EGRESS_BRIDGE)?;

    enter(&File::open(SANDBOX)?)?;
    let mut sandbox = Channel::open()?;
    let bridge = sandbox.index(BRIDGE)?;
    let inside = address(SEGMENT, number);
    sandbox.veth(&Veth {
        port: &format!("flp{number}"),
        bridge,
        name: "eth0",
        address: inside,
        mtu: MTU,
        container: container.as_raw_fd(),
    })?;

    let way_out = address(EGRESS, number);
    let port = format!("fle{number}");
    host.veth(&Veth {
        port: &port,
        bridge: egress_bridge,
        name: "gw0",
        address: way_out,
        mtu: EGRESS_MTU,
        container: container.as_raw_fd(),
    })?;
    host.isolate(&port)?;

    enter(&container)?;
    let mut container = Channel::open()?;
    for (name, address) in [("eth0", inside), ("gw0", way_out)] {
        // As `overlay` does on a network without IPv6, before the link is up.
        fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        let index = container.index(name)?;
        container.raise(index)?;
        container.address(index, address)?;
        if name == "gw0" {
            container.default_route(index, self::address(EGRESS, 1))?;
        }
    }
    Ok(())
}

fn del(container: &str) -> Result<()> {
    enter(&File::open(container)?)?;
    let mut group = LinkMessage::default();
    group.attributes.push(LinkAttribute::Group(GROUP));
    Channel::open()?.tell("group", RouteNetlinkMessage::DelLink(group), 0)
}

/// The sandbox has its tunnel device, because each further bridge port is work for the others. UDP port and VNI are not those
/// of the product, so that both can be on one machine.
fn setup() -> Result<()> {
    let [a, b] = EGRESS;
    run(&format!(
        "ip netns add floor
         ip link add vxlan0 netns floor type vxlan id 7777 dstport 14789 local 127.0.0.1 nolearning
         ip -n floor link add {BRIDGE} mtu {MTU} type bridge mcast_snooping 0
         ip -n floor link set vxlan0 mtu {MTU} master {BRIDGE} up
         ip -n floor link set {BRIDGE} up
         ip link add {EGRESS_BRIDGE} type bridge mcast_snooping 0
         ip addr add {a}.{b}.0.1/16 dev {EGRESS_BRIDGE}
         ip link set {EGRESS_BRIDGE} up"
    ))
}

fn teardown() -> Result<()> {
    run(&format!("ip link del {EGRESS_BRIDGE}; ip netns del floor"))
}

fn run(script: &str) -> Result<()> {
    let done = Command::new("sh").args(["-ec", script]).status()?;
    done.success().then_some(()).ok_or(script.into())
}

fn enter(namespace: &File) -> Result<()> {
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

fn address([a, b]: [u8; 2], number: u16) -> Ipv4Addr {
    let [c, d] = number.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

/// A blocking rtnetlink socket, which stays in the namespace where it was opened.
struct Channel(Socket);

/// A pair: a port of a bridge here, a NIC there.
struct Veth<'a> {
    port: &'a str,
    bridge: u32,
    name: &'a str,
    /// Only the MAC comes from it.
    address: Ipv4Addr,
    mtu: u32,
    container: RawFd,
}

impl Channel {
    fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    fn veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        let mut mac = vec![0x02, 0x42];
        mac.extend(veth.address.octets());
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(veth.name.to_owned()),
            LinkAttribute::NetNsFd(veth.container),
            LinkAttribute::Address(mac),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::Group(GROUP),
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
        ];
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes = vec![
            LinkAttribute::IfName(veth.port.to_owned()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::Controller(veth.bridge),
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.tell(
            veth.port,
            RouteNetlinkMessage::NewLink(link),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    fn isolate(&mut self, port: &str) -> Result<()> {
        let isolated = InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(true)]);
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(port.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(isolated),
            ]),
        ];
        self.tell(port, RouteNetlinkMessage::NewLink(link), 0)
    }

    fn raise(&mut self, index: u32) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.tell("link up", RouteNetlinkMessage::SetLink(link), 0)
    }

    fn address(&mut self, index: u32, address: Ipv4Addr) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 16;
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(address.into()),
            AddressAttribute::Address(address.into()),
        ];
        self.tell(
            "address",
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    fn default_route(&mut self, index: u32, gateway: Ipv4Addr) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
            RouteAttribute::Oif(index),
        ];
        self.tell(
            "default route",
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// The index of the link of that name.
    fn index(&mut self, name: &str) -> Result<u32> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.send(RouteNetlinkMessage::GetLink(link), 0)?;
        match self.receive()? {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                Ok(link.header.index)
            }
            other => Err(format!("{name}: {other:?}").into()),
        }
    }

    fn tell(&mut self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        match self.receive()? {
            NetlinkPayload::Error(answer) if answer.code.is_none() => Ok(()),
            NetlinkPayload::Error(answer) => Err(format!("{what}: {}", answer.to_io()).into()),
            other => Err(format!("{what}: {other:?}").into()),
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        Ok(())
    }

    fn receive(&mut self) -> Result<NetlinkPayload<RouteNetlinkMessage>> {
        let mut bytes = Vec::with_capacity(16 << 10);
        self.0.recv(&mut bytes, 0)?;
        Ok(NetlinkMessage::deserialize(&bytes)?.payload)
    }
}
