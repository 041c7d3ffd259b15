//! A blocking socket of another netlink family than rtnetlink, for a few requests in the network namespace of the thread that
//! opens it.

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
};
use netlink_sys::{Socket, SocketAddr};

use crate::error::Refusal;

/// Length of `struct nlmsghdr`.
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

    /// Asks for all objects of a kind; `receive` gets the payload of each message.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        receive: impl FnMut(&[u8]),
    ) -> Result<(), Refusal> {
        self.exchange(kind, NLM_F_DUMP, body, receive)
    }

    /// Sends a request that changes something.
    pub(crate) fn request(&mut self, kind: u16, body: &[u8]) -> Result<(), Refusal> {
        self.exchange(kind, NLM_F_ACK, body, |_| {})
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut receive: impl FnMut(&[u8]),
    ) -> Result<(), Refusal> {
        self.number = self.number.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        header.message_type = kind;
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.number;
        let mut message = vec![0; HEADER];
        header.emit(&mut message);
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
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                let behind = (message.length() as usize).next_multiple_of(4);
                if message.sequence_number() == self.number {
                    match message.message_type() {
                        NLMSG_DONE | NLMSG_ERROR => return ended(&message),
                        _ => receive(message.payload()),
                    }
                }
                rest = rest.get(behind..).unwrap_or_default();
            }
        }
    }
}

/// Both kinds of end begin with a code, which is 0 or negative.
fn ended(message: &NetlinkBuffer<&[u8]>) -> Result<(), Refusal> {
    let Some((code, behind)) = message.payload().split_first_chunk() else {
        return Ok(());
    };
    match i32::from_ne_bytes(*code) {
        0.. => Ok(()),
        code if message.message_type() == NLMSG_ERROR => {
            Err(Refusal::from_error(code, behind, message.flags()))
        }
        code => Err(Refusal::from_done(code, behind)),
    }
}
