//! The path MTU to another host, measured by ICMP echoes that must not be fragmented.
//!
//! An interface's MTU is only that of the first link. Behind it may be a tunnel that carries less and drops larger packets
//! silently. If an echo with the size of the interface's MTU is answered, both directions carry that size; if only a small
//! one is, sizes in between are tried. A host that answers neither is down, or a firewall drops echoes.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt},
};
use tokio::{net::UdpSocket, time};

use crate::{Error, error::Refusal};

/// Bytes of the small packet: every host must accept 576 with IPv4 (RFC 791), and every link carries 1280 with IPv6 (RFC 8200).
const LEAST_V4: u32 = 576;
const LEAST_V6: u32 = 1280;
/// Bytes of an ICMP echo's header.
const ICMP: u32 = 8;
/// How many sizes are tried at once between one that came back and one that did not.
const STEPS: u32 = 16;
/// How many targets are asked at once, and bytes that hold all that they may answer before we listen.
const CROWD: usize = 200;
const BUFFER: usize = 8 << 20;

/// Size in bytes of the largest IP packet, at most `mtu`, that reaches each of `targets` from `from` and comes back; `None`
/// for a target that does not answer, or has another version of IP. Waits up to `patience` for each round of answers.
pub async fn probe(
    from: IpAddr,
    targets: &[IpAddr],
    mtu: u32,
    patience: Duration,
) -> Result<Vec<Option<u32>>, Error> {
    let failed = |error: io::Error| Refusal::from(error).on(format!("ICMP echo from {from}"));
    let line = Line::open(from).map_err(failed)?;
    let mut found = Vec::with_capacity(targets.len());
    for crowd in targets.chunks(CROWD) {
        found.extend(line.measure(crowd, mtu, patience).await.map_err(failed)?);
    }
    Ok(found)
}

/// What is known of one path: packets of `low` bytes come back, packets larger than `high` do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    low: u32,
    high: u32,
}

impl Span {
    /// The sizes to try next, with the largest possible one; none if the size is known.
    fn sizes(self) -> impl Iterator<Item = u32> {
        let step = (self.high - self.low).div_ceil(STEPS).max(1);
        let known = self.low;
        std::iter::successors(Some(self.high), move |size| size.checked_sub(step))
            .take_while(move |size| *size > known)
    }

    /// The span after only the sizes in `back` came back.
    fn narrow(self, back: &BTreeSet<u32>) -> Self {
        let low = back.last().copied().unwrap_or(self.low).max(self.low);
        let lost = self.sizes().filter(|size| *size > low).min();
        Self {
            low,
            high: lost.map_or(self.high, |lost| lost - 1),
        }
    }
}

/// A raw socket that sends echoes and receives the answers.
struct Line {
    /// tokio treats it as any datagram socket.
    socket: UdpSocket,
    from: IpAddr,
    /// Identifies our echoes.
    ident: u16,
}

impl Line {
    fn open(from: IpAddr) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, protocol) = match from {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let socket = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
        // Do not fragment, and ignore the kernel's cached path MTU.
        match from {
            IpAddr::V4(_) => {
                sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::PROBE)?;
            }
            IpAddr::V6(_) => {
                sockopt::set_ipv6_mtu_discover(&socket, sockopt::Ipv6PathMtuDiscovery::PROBE)?;
            }
        }
        sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
        bind(&socket, &SocketAddr::new(from, 0))?;
        let ident = RandomState::new().hash_one(std::process::id());
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            from,
            ident: ident
                .to_le_bytes()
                .first_chunk()
                .map_or(0, |two| u16::from_le_bytes(*two)),
        })
    }

    /// Bytes before the payload of an echo.
    fn overhead(&self) -> u32 {
        ICMP + if self.from.is_ipv4() { 20 } else { 40 }
    }

    async fn measure(
        &self,
        targets: &[IpAddr],
        mtu: u32,
        patience: Duration,
    ) -> io::Result<Vec<Option<u32>>> {
        let least = if self.from.is_ipv4() {
            LEAST_V4
        } else {
            LEAST_V6
        };
        let ends = [mtu, least.min(mtu)];
        let wanted = (0..targets.len())
            .map(|target| (target, ends.to_vec()))
            .collect::<Vec<_>>();
        let back = self.ask(targets, &wanted, patience).await?;
        let mut spans: Vec<_> = back
            .iter()
            .map(|back| {
                back.last().map(|low| Span {
                    low: *low,
                    high: mtu,
                })
            })
            .collect();
        loop {
            let open: Vec<_> = (spans.iter().enumerate())
                .filter_map(|(target, span)| span.map(|span| (target, span.sizes().collect())))
                .filter(|(_, sizes): &(_, Vec<u32>)| !sizes.is_empty())
                .collect();
            if open.is_empty() {
                return Ok(spans.iter().map(|span| span.map(|span| span.low)).collect());
            }
            let back = self.ask(targets, &open, patience).await?;
            for (target, _) in open {
                if let (Some(Some(span)), Some(back)) = (spans.get_mut(target), back.get(target)) {
                    *span = span.narrow(back);
                }
            }
        }
    }

    /// Sends echoes of the `wanted` sizes, and waits until the largest of each target has come back, or for `patience`.
    /// Returns the sizes that came back, by target.
    async fn ask(
        &self,
        targets: &[IpAddr],
        wanted: &[(usize, Vec<u32>)],
        patience: Duration,
    ) -> io::Result<Vec<BTreeSet<u32>>> {
        let mut sent = Vec::new();
        let mut back = vec![BTreeSet::new(); targets.len()];
        let mut missing = BTreeSet::new();
        let until = time::Instant::now() + patience;
        for (target, sizes) in wanted {
            let (Some(address), Some(largest)) = (targets.get(*target), sizes.iter().max()) else {
                continue;
            };
            for size in sizes {
                let number = u16::try_from(sent.len()).unwrap_or(u16::MAX);
                if self.send(*address, number, *size).await {
                    missing.insert((*target, *largest));
                }
                sent.push((*target, *size));
            }
        }
        while !missing.is_empty() {
            let Ok(heard) = time::timeout_at(until, self.receive()).await else {
                break;
            };
            let (number, address) = heard?;
            let echo = sent.get(usize::from(number)).copied();
            let Some((target, size)) = echo.filter(|(of, _)| targets.get(*of) == Some(&address))
            else {
                continue;
            };
            if let Some(back) = back.get_mut(target) {
                back.insert(size);
            }
            missing.remove(&(target, size));
        }
        Ok(back)
    }

    /// Sends an echo in a packet of `size` bytes; returns whether it could leave this host.
    async fn send(&self, target: IpAddr, number: u16, size: u32) -> bool {
        if target.is_ipv4() != self.from.is_ipv4() {
            return false;
        }
        let payload = usize::try_from(size.saturating_sub(self.overhead())).unwrap_or(0);
        let echo = request(target.is_ipv4(), self.ident, number, payload);
        // No route, too large for the first link, dropped on output: no answer will come.
        self.socket
            .send_to(&echo, SocketAddr::new(target, 0))
            .await
            .is_ok()
    }

    /// The next answer to one of our echoes: its number, and its sender.
    async fn receive(&self) -> io::Result<(u16, IpAddr)> {
        loop {
            let mut packet = [0; 128];
            let (length, from) = match self.socket.recv_from(&mut packet).await {
                Ok(heard) => heard,
                // An ICMP error about an earlier echo, which will not come back.
                Err(error) if is_of_an_echo(&error) => continue,
                Err(error) => return Err(error),
            };
            let packet = packet.get(..length).unwrap_or_default();
            if let Some(number) = answer(self.from.is_ipv4(), self.ident, packet) {
                return Ok((number, from.ip()));
            }
        }
    }
}

/// Whether the error is about a packet that was sent earlier.
fn is_of_an_echo(error: &io::Error) -> bool {
    let of = [
        Errno::MSGSIZE,
        Errno::HOSTUNREACH,
        Errno::NETUNREACH,
        Errno::CONNREFUSED,
        Errno::INTR,
    ];
    of.iter()
        .any(|errno| Some(errno.raw_os_error()) == error.raw_os_error())
}

/// An ICMP echo request (RFC 792, 4443). The kernel computes the checksum for IPv6.
fn request(v4: bool, ident: u16, number: u16, payload: usize) -> Vec<u8> {
    let mut echo = vec![if v4 { 8 } else { 128 }, 0, 0, 0];
    echo.extend(ident.to_be_bytes());
    echo.extend(number.to_be_bytes());
    echo.resize(echo.len() + payload, 0);
    if v4 {
        let mut sum: u32 = (echo.chunks(2))
            .map(|two| u32::from(two[0]) << 8 | u32::from(two.get(1).copied().unwrap_or(0)))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let [.., high, low] = (!sum).to_be_bytes();
        echo[2..4].copy_from_slice(&[high, low]);
    }
    echo
}

/// The number of an answer to one of our echoes, from a packet of a raw socket, which has the header in IPv4 only.
fn answer(v4: bool, ident: u16, packet: &[u8]) -> Option<u16> {
    let header = if v4 {
        usize::from(packet.first()? & 0xf) * 4
    } else {
        0
    };
    let echo: &[u8; 8] = packet.get(header..)?.first_chunk()?;
    let reply = if v4 { 0 } else { 129 };
    let ours = echo[0] == reply && echo[4..6] == ident.to_be_bytes();
    ours.then(|| u16::from_be_bytes([echo[6], echo[7]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a path that carries `truth` bytes is found to carry, and in how many rounds.
    fn search(low: u32, high: u32, truth: u32) -> (u32, u32) {
        let (mut span, mut rounds) = (Span { low, high }, 0);
        loop {
            let back: BTreeSet<_> = span.sizes().filter(|size| *size <= truth).collect();
            if span.sizes().next().is_none() {
                return (span.low, rounds);
            }
            span = span.narrow(&back);
            rounds += 1;
        }
    }

    #[test]
    fn every_size_is_found_in_a_few_rounds() {
        for truth in 576..=1500 {
            let (found, rounds) = search(576, 1500, truth);
            assert_eq!(found, truth);
            assert!(rounds <= 4, "{truth}: {rounds} rounds");
        }
        assert!(search(576, 9000, 8999).1 <= 5);
        assert_eq!(search(1280, 1280, 1280), (1280, 0));
    }

    #[test]
    fn a_lost_echo_costs_a_round_and_not_the_size() {
        let span = Span {
            low: 576,
            high: 1500,
        };
        let back = span.sizes().filter(|size| *size != 1500 - 58).collect();
        assert_eq!(
            span.narrow(&back),
            Span {
                low: 1500,
                high: 1500
            }
        );
    }

    #[test]
    fn echoes_sum_up_to_nothing_and_are_told_from_others() {
        let echo = request(true, 0x1234, 7, 33);
        let sum: u32 = (echo.chunks(2))
            .map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0)))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        let mut packet = vec![0x46; 24];
        packet.extend([0, 0, 0, 0, 0x12, 0x34, 0, 7]);
        assert_eq!(answer(true, 0x1234, &packet), Some(7));
        assert_eq!(answer(true, 0x1235, &packet), None);
        assert_eq!(answer(true, 0x1234, &packet[..30]), None);
        assert_eq!(answer(false, 1, &[129, 0, 0, 0, 0, 1, 2, 3]), Some(0x203));
        assert_eq!(answer(false, 1, &[128, 0, 0, 0, 0, 1, 2, 3]), None);
    }
}
