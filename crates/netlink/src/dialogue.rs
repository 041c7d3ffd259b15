//! A socket of another netlink family than rtnetlink, for one question or a few: blocking, in the network namespace of the thread
//! that opens it.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;

use crate::error::Refusal;

/// Lengths of `struct nlmsghdr`, and where in it are length, type, flags and number.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel builds dumps in pieces of at most 32 KiB.
const RECEIVE: usize = 64 << 10;

/// An open socket.
pub(crate) struct Dialogue {
    socket: Socket,
    number: u32,
}

impl Dialogue {
    /// `protocol` as in netlink(7).
    pub(crate) fn open(protocol: isize) -> Result<Self, Refusal> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, number: 0 })
    }

    /// Asks for all of something; `hear` gets what is behind the header of each message of the answer.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        hear: impl FnMut(&[u8]),
    ) -> Result<(), Refusal> {
        self.exchange(kind, NLM_F_DUMP, body, hear)
    }

    /// Tells the kernel to do something.
    pub(crate) fn tell(&mut self, kind: u16, body: &[u8]) -> Result<(), Refusal> {
        self.exchange(kind, NLM_F_ACK, body, |_| {})
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut hear: impl FnMut(&[u8]),
    ) -> Result<(), Refusal> {
        self.number = self.number.wrapping_add(1);
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend(self.number.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        self.socket.send(&message, 0)?;
        let mut bytes = Vec::with_capacity(RECEIVE);
        loop {
            bytes.clear();
            match self.socket.recv(&mut bytes, 0) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            let mut rest = bytes.as_slice();
            while let Some((message, behind)) = split(rest) {
                rest = behind;
                let (header, body) = message.split_at(HEADER);
                if header[8..12] != self.number.to_ne_bytes() {
                    continue;
                }
                match u16::from_ne_bytes([header[4], header[5]]) {
                    NLMSG_DONE | NLMSG_ERROR => return ended(body),
                    _ => hear(body),
                }
            }
        }
    }
}

/// The first message, and what is behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    let message = bytes.get(..length).filter(|_| length >= HEADER)?;
    let behind = bytes.get(length.next_multiple_of(4)..);
    Some((message, behind.unwrap_or_default()))
}

fn ended(body: &[u8]) -> Result<(), Refusal> {
    let code = body
        .first_chunk()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    if code < 0 {
        let errno = Errno::from_raw_os_error(-code);
        return Err(Refusal::from(std::io::Error::from(errno)));
    }
    Ok(())
}
