//! Ports that are taken by a socket which receives nothing.
//!
//! Programs find out which ports are free by the sockets of the host: they read `/proc/net/tcp` and `/proc/net/udp`, or try to
//! bind. A published port has no socket, because nftables translates its packets before they come to one. A [`ReservedPort`] is
//! a socket for such programs. It is bound to an interface that never exists (`SO_BINDTOIFINDEX`, which does not look for the
//! interface; kernel: `net/core/sock.c`). So other programs cannot bind the port, the kernel does not choose it as a source
//! port, and a packet that is not translated finds no socket and is refused, as if there were none.

use std::{io, net::SocketAddr, num::NonZeroU32};

use socket2::{Domain, Protocol, Socket, Type};

/// The largest index that an interface can have. The kernel counts from 1.
pub(crate) const NO_INTERFACE: u32 = i32::MAX.cast_unsigned();

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A port of this host, reserved until this is dropped.
#[derive(Debug)]
pub struct ReservedPort {
    _socket: Socket,
}

impl ReservedPort {
    /// Whether ports of this IP protocol can be reserved: of TCP and UDP.
    pub fn is_possible(protocol: u8) -> bool {
        [TCP, UDP].contains(&protocol)
    }

    /// Reserves a port in the network namespace of the calling thread. The unspecified address stands for all addresses of its
    /// version of IP; any other need not be one of this host's.
    ///
    /// # Errors
    ///
    /// What the kernel says; [`io::ErrorKind::AddrInUse`] if a socket has the port.
    pub fn take(protocol: u8, at: SocketAddr) -> io::Result<Self> {
        let (kind, protocol) = match protocol {
            TCP => (Type::STREAM, Protocol::TCP),
            UDP => (Type::DGRAM, Protocol::UDP),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
        let nowhere = NonZeroU32::new(NO_INTERFACE);
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        } else {
            socket.set_freebind_v4(true)?;
        }
        // Connections that a program had on this port, and that the kernel still remembers, are in nobody's way. Other listeners
        // are, whatever options they set.
        socket.set_reuse_address(kind == Type::STREAM)?;
        // Bound first: of an interface that does not exist the kernel accepts no address of IPv6.
        socket.bind(&at.into())?;
        if at.is_ipv6() {
            socket.bind_device_by_index_v6(nowhere)?;
        } else {
            socket.bind_device_by_index_v4(nowhere)?;
        }
        if kind == Type::STREAM {
            socket.listen(0)?;
        }
        Ok(Self { _socket: socket })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        time::Duration,
    };

    use super::*;
    use crate::Netns;

    /// In a namespace of this thread's own, whose loopback interface is up.
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

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn others_see_it_and_cannot_bind_it_and_nothing_arrives() {
        alone(|| {
            let tcp = ReservedPort::take(TCP, at("0.0.0.0:8080")).unwrap();
            let _udp = ReservedPort::take(UDP, at("0.0.0.0:8080")).unwrap();
            let _tcp6 = ReservedPort::take(TCP, at("[::]:8080")).unwrap();
            // Addresses that this host lacks.
            let _bound = ReservedPort::take(TCP, at("192.0.2.7:81")).unwrap();
            let _bound6 = ReservedPort::take(UDP, at("[2001:db8::7]:81")).unwrap();

            let seen = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            assert!(seen.contains(" 00000000:1F90 "), "{seen}");
            let seen = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap();
            assert!(seen.contains(" 00000000:1F90 "), "{seen}");
            let taken = |error: io::Error| error.kind() == io::ErrorKind::AddrInUse;
            // This also sets SO_REUSEADDR.
            assert!(TcpListener::bind("127.0.0.1:8080").is_err_and(taken));
            assert!(TcpListener::bind("[::1]:8080").is_err_and(taken));
            assert!(UdpSocket::bind("127.0.0.1:8080").is_err_and(taken));
            assert!(ReservedPort::take(TCP, at("0.0.0.0:8080")).is_err_and(taken));

            for client in ["127.0.0.1:8080", "[::1]:8080"] {
                let refused = TcpStream::connect_timeout(&at(client), Duration::from_secs(5));
                let kind = refused.unwrap_err().kind();
                assert_eq!(kind, io::ErrorKind::ConnectionRefused, "{client}");
            }
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect("127.0.0.1:8080").unwrap();
            client.send(b"?").unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let kind = client.recv(&mut [0]).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::ConnectionRefused);

            // For a program that asks who would receive packets there, nobody would.
            for protocol in [TCP, UDP] {
                assert_eq!(crate::listeners(protocol, &(1..=u16::MAX)).unwrap(), []);
            }

            drop(tcp);
            let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
            assert!(ReservedPort::take(TCP, at("0.0.0.0:8080")).is_err_and(taken));
            drop(listener);
        });
    }

    /// A server that closes first leaves its port to `TIME_WAIT` for a minute.
    #[test]
    fn the_end_of_a_connection_is_not_in_the_way() {
        alone(|| {
            let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
            let client = TcpStream::connect("127.0.0.1:8080").unwrap();
            drop(listener.accept().unwrap());
            drop((client, listener));
            let seen = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            assert!(seen.contains(":1F90 "), "{seen}");
            ReservedPort::take(TCP, at("0.0.0.0:8080")).unwrap();
        });
    }

    #[test]
    fn other_protocols_have_no_sockets() {
        assert!(!ReservedPort::is_possible(132));
        let error = ReservedPort::take(132, at("0.0.0.0:8080")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
