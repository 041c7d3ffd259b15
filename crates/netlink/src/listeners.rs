//! Sockets of this host that receive packets to a port, and the processes that own them.
//!
//! The kernel lists TCP and UDP sockets by `sock_diag(7)`, without connections. For SCTP it does so only with a module that is
//! rarely loaded; the file in `/proc` has the same list. A [`ReservedPort`](crate::ReservedPort) receives nothing, and is not listed.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::Path;

use crate::Error;
use crate::attribute::find;
use crate::dialogue::Dialogue;
use crate::reserved_port::NO_INTERFACE;

const NETLINK_SOCK_DIAG: isize = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
/// Bits of the states: `TCP_LISTEN`; for UDP `TCP_CLOSE`, which means unconnected, and `TCP_ESTABLISHED`.
const LISTENS: u32 = 1 << 10;
const UNCONNECTED: u32 = 1 << 7;
const CONNECTED: u32 = 1 << 1;
/// Length of `struct inet_diag_msg`, and where in it are family, port, address, interface and inode.
const MESSAGE: usize = 72;
const PORT: usize = 4;
const ADDRESS: usize = 8;
const INTERFACE: usize = 40;
const INODE: usize = 68;
/// `INET_DIAG_SKV6ONLY`
const V6_ONLY: u16 = 11;
const ENDPOINTS: &str = "/proc/net/sctp/eps";

/// A socket that receives packets from any peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its address; unspecified means all addresses.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The socket's inode, by which `/proc/PID/fd` names it.
    pub inode: u64,
    /// An IPv6 socket that also receives IPv4.
    both: bool,
}

/// A process that has a socket open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOwner {
    /// Its id.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its name as the kernel has it.
    pub comm: String,
}

impl Listener {
    /// Whether it receives packets of this version of IP.
    pub fn is_of(&self, v6: bool) -> bool {
        self.address.is_ipv6() == v6 || self.both
    }
}

impl SocketOwner {
    /// A process by its id, if it exists.
    pub fn of(pid: u32) -> Option<Self> {
        owner(&Path::new("/proc").join(pid.to_string()))
    }
}

/// The sockets that listen on these ports, in the calling thread's network namespace; none for an unknown protocol.
pub fn listeners(protocol: u8, ports: &RangeInclusive<u16>) -> Result<Vec<Listener>, Error> {
    let mut all = match protocol {
        TCP => diagnosed(protocol, LISTENS)?,
        UDP => diagnosed(protocol, UNCONNECTED)?,
        SCTP => endpoints(&fs::read_to_string(ENDPOINTS).unwrap_or_default()),
        _ => Vec::new(),
    };
    all.retain(|it| ports.contains(&it.port));
    Ok(all)
}

/// The sockets that are bound to a UDP port, connected ones too, in the calling thread's network namespace. The kernel's own,
/// such as those of VXLAN devices, are among them, and have no owner.
pub fn bound_to_udp(port: u16) -> Result<Vec<Listener>, Error> {
    let mut all = diagnosed(UDP, UNCONNECTED | CONNECTED)?;
    all.retain(|it| it.port == port);
    Ok(all)
}

fn diagnosed(protocol: u8, states: u32) -> Result<Vec<Listener>, Error> {
    let asked = || {
        let mut all = Vec::new();
        let mut dialogue = Dialogue::open(NETLINK_SOCK_DIAG)?;
        for family in [AF_INET, AF_INET6] {
            let mut question = vec![family, protocol, 0, 0];
            question.extend(states.to_ne_bytes());
            question.extend([0; 48]);
            dialogue.dump(SOCK_DIAG_BY_FAMILY, &question, |answer| {
                all.extend(listener(answer));
            })?;
        }
        Ok(all)
    };
    asked().map_err(|refusal: crate::error::Refusal| refusal.on("list of listening sockets"))
}

fn listener(message: &[u8]) -> Option<Listener> {
    let (fixed, attributes) = message.split_at_checked(MESSAGE)?;
    let bytes = &fixed[ADDRESS..];
    if u32::from_ne_bytes(*fixed[INTERFACE..].first_chunk()?) == NO_INTERFACE {
        return None;
    }
    let v6 = fixed[0] == AF_INET6;
    // An IPv6 socket may be bound to an IPv4 address (`::ffff:192.0.2.1`): then it receives only packets to that.
    let address = if v6 {
        IpAddr::from(*bytes.first_chunk::<16>()?).to_canonical()
    } else {
        IpAddr::from(*bytes.first_chunk::<4>()?)
    };
    let only = find(attributes, V6_ONLY).is_some_and(|value| value.first() == Some(&1));
    Some(Listener {
        address,
        port: u16::from_be_bytes(*fixed[PORT..].first_chunk()?),
        inode: u32::from_ne_bytes(*fixed[INODE..].first_chunk()?).into(),
        both: address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !only,
    })
}

/// ` ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS`; a state of 10 listens.
fn endpoints(text: &str) -> Vec<Listener> {
    let listeners = text.lines().skip(1).flat_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let port = number(5).and_then(|port| u16::try_from(port).ok());
        let listens = words.get(3) == Some(&"10");
        let addresses: Vec<_> = words
            .iter()
            .skip(8)
            .filter_map(|it| it.parse().ok())
            .collect();
        let found = port.zip(number(7)).filter(|_| listens);
        found.into_iter().flat_map(move |(port, inode)| {
            let listener = move |address: IpAddr| Listener {
                address,
                port,
                inode,
                both: address == IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            addresses.clone().into_iter().map(listener)
        })
    });
    listeners.collect()
}

/// The processes that have a socket open, as far as they can be seen.
pub fn socket_owners(inode: u64) -> Vec<SocketOwner> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes()[0].is_ascii_digit();
    let processes = processes.filter_map(Result::ok).filter(|process| {
        if !is_process(&process.file_name()) {
            return false;
        }
        let files = fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten();
        files.filter_map(Result::ok).any(|file| {
            let leads = fs::read_link(file.path());
            leads.is_ok_and(|to| to.as_os_str().as_encoded_bytes() == wanted.as_bytes())
        })
    });
    processes
        .filter_map(|process| owner(&process.path()))
        .collect()
}

fn owner(process: &Path) -> Option<SocketOwner> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name may hold anything, parentheses too.
    let (before, after) = stat.rsplit_once(") ")?;
    let (pid, comm) = before.split_once(" (")?;
    Some(SocketOwner {
        pid: pid.parse().ok()?,
        parent: after.split(' ').nth(1)?.parse().ok()?,
        comm: comm.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::Netns;

    /// In a namespace of this thread's own, where nobody else listens.
    fn alone<T: Send>(f: impl FnOnce() -> T + Send) -> T {
        let dir = tempfile::tempdir().unwrap();
        let netns = Netns::create(dir.path(), "alone").unwrap();
        let done = netns.run(|| {
            let up = std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.unwrap().success());
            f()
        });
        Netns::remove(dir.path(), "alone").unwrap();
        done.unwrap()
    }

    fn told(protocol: u8) -> Vec<(String, bool, bool)> {
        let all = listeners(protocol, &(1..=65535)).unwrap();
        let mut told: Vec<_> = all
            .iter()
            .map(|it| {
                (
                    format!("{} {}", it.address, it.port),
                    it.is_of(false),
                    it.is_of(true),
                )
            })
            .collect();
        told.sort();
        told
    }

    #[test]
    fn of_tcp_those_that_listen_and_of_udp_those_connected_to_nobody() {
        alone(|| {
            let tcp = TcpListener::bind("127.0.0.1:80").unwrap();
            let _wide = TcpListener::bind("[::]:81").unwrap();
            let _connected = TcpStream::connect("127.0.0.1:80").unwrap();
            let _udp = UdpSocket::bind("0.0.0.0:53").unwrap();
            let busy = UdpSocket::bind("127.0.0.1:54").unwrap();
            busy.connect("127.0.0.1:53").unwrap();
            let one = |text: &str, v4, v6| (text.to_owned(), v4, v6);
            assert_eq!(
                told(TCP),
                [one("127.0.0.1 80", true, false), one(":: 81", true, true)]
            );
            assert_eq!(told(UDP), [one("0.0.0.0 53", true, false)]);
            assert_eq!(bound_to_udp(54).unwrap().len(), 1, "though connected");
            assert_eq!(bound_to_udp(55).unwrap(), []);
            assert_eq!(listeners(TCP, &(81..=90)).unwrap().len(), 1);
            assert_eq!(listeners(1, &(0..=65535)).unwrap(), []);

            let inode = listeners(TCP, &(80..=80)).unwrap()[0].inode;
            let holders = socket_owners(inode);
            assert_eq!(holders.len(), 1, "{holders:?}");
            assert_eq!(holders[0].pid, std::process::id());
            assert_eq!(holders[0].parent, std::os::unix::process::parent_id());
            assert_eq!(
                SocketOwner::of(std::process::id()),
                Some(holders[0].clone())
            );
            drop(tcp);
        });
    }

    #[test]
    fn one_of_ipv6_that_is_bound_to_an_address_of_ipv4_is_of_ipv4() {
        alone(|| {
            // As Java binds.
            let _mapped = TcpListener::bind("[::ffff:127.0.0.1]:80").unwrap();
            let _everywhere = UdpSocket::bind("[::ffff:0.0.0.0]:53").unwrap();
            let one = |text: &str| (text.to_owned(), true, false);
            assert_eq!(told(TCP), [one("127.0.0.1 80")]);
            assert_eq!(told(UDP), [one("0.0.0.0 53")]);
        });
    }

    #[test]
    fn endpoints_of_sctp_that_listen() {
        let text = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n\
                    ffff0 ffff1 2   10  29   36412     0 1234 10.0.0.1 10.0.0.2 \n\
                    ffff2 ffff3 0   7   30   5000      0 1235 0.0.0.0 \n";
        let all = endpoints(text);
        let told: Vec<_> = all
            .iter()
            .map(|it| format!("{} {} {}", it.address, it.port, it.inode))
            .collect();
        assert_eq!(told, ["10.0.0.1 36412 1234", "10.0.0.2 36412 1234"]);
    }
}
