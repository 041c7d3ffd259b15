//! The netlink socket: sends requests and receives their answers, in order.
//!
//! A netlink socket belongs to the namespace in which it was opened, whatever thread uses it. So the thread that opens it
//! is inside the namespace only for that, and the socket is used from outside. rtnetlink's own connection task is not used: it loses the error that
//! ends a dump, waits for ever after a receive overrun, sends one request a wake-up and does not decode the kernel's error
//! text. Only rtnetlink's message builders are used; messages are exchanged here.

use std::fmt;
use std::io;

use crate::message::Message;
use futures_util::lock::Mutex;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
    NetlinkPayload,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use rustix::io::Errno;
use tokio::runtime::Handle;

use crate::error::Refusal;
use crate::{Netns, NetnsError};

/// Requests in one send. The kernel queues the answers during the send, and drops those that do not fit into the receive
/// buffer: of acknowledgements 256 fit into the default 208 KiB, 384 do not (measured on 6.18).
const WINDOW: usize = 64;
/// The kernel sends a dump in pieces of at most 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// How often a dump is repeated because something changed meanwhile.
const DUMP_ATTEMPTS: usize = 10;

/// A route netlink socket that belongs to one namespace. Concurrent calls take turns.
pub struct Rtnl {
    wire: Mutex<Wire>,
}

impl fmt::Debug for Rtnl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rtnl").finish_non_exhaustive()
    }
}

fn failed(netns: &Netns, source: io::Error) -> NetnsError {
    NetnsError::Io {
        path: netns.path().to_owned(),
        what: "open a netlink socket".to_owned(),
        source,
    }
}

/// Runs `open` inside the namespace; the socket is for the runtime of the calling thread.
pub(crate) fn born_in(
    netns: &Netns,
    open: impl FnOnce() -> io::Result<TokioSocket>,
) -> Result<TokioSocket, NetnsError> {
    Handle::try_current().map_err(|e| failed(netns, io::Error::other(e)))?;
    netns.run(open)?.map_err(|e| failed(netns, e))
}

/// A socket of the namespace in which the calling thread is.
fn socket() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().set_ext_ack(true)?;
    // Without it each refusal returns the whole request.
    socket.socket_mut().set_cap_ack(true)?;
    // Without it the kernel ignores a dump's filters (since 4.20).
    socket.socket_mut().set_netlink_get_strict_chk(true)?;
    Ok(socket)
}

impl Rtnl {
    /// Opens a socket in `netns`. Must be called inside a tokio runtime with I/O enabled, which then drives the socket.
    pub fn open(netns: &Netns) -> Result<Self, NetnsError> {
        Ok(Self::with_socket(born_in(netns, socket)?))
    }

    /// The same in the calling thread's namespace `netns`.
    pub fn here(netns: &Netns) -> Result<Self, NetnsError> {
        Ok(Self::with_socket(socket().map_err(|e| failed(netns, e))?))
    }

    fn with_socket(socket: TokioSocket) -> Self {
        let wire = Wire {
            socket,
            sequence: 0,
        };
        Self {
            wire: Mutex::new(wire),
        }
    }

    /// One request that changes something.
    pub(crate) async fn request(&self, message: Message, flags: u16) -> Result<(), Refusal> {
        let answers = self
            .wire
            .lock()
            .await
            .exchange(vec![(message, flags)], drop)
            .await?;
        answers.into_iter().try_for_each(|answer| answer.end)
    }

    /// Many requests that change something; each window of them goes out in one send. One result per request.
    pub(crate) async fn request_all(
        &self,
        requests: Vec<(Message, u16)>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let mut wire = self.wire.lock().await;
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let window = requests.by_ref().take(WINDOW).collect();
            results.extend(
                wire.exchange(window, drop)
                    .await?
                    .into_iter()
                    .map(|answer| answer.end),
            );
        }
        Ok(results)
    }

    /// One object.
    pub(crate) async fn get(&self, message: Message) -> Result<Message, Refusal> {
        let mut object = None;
        let mut wire = self.wire.lock().await;
        let answers = wire
            .exchange(vec![(message, 0)], |found| object = Some(found))
            .await?;
        answers.into_iter().try_for_each(|answer| answer.end)?;
        object.ok_or_else(|| Refusal::new(Errno::BADMSG, "the kernel's answer was not understood"))
    }

    /// All objects of a kind, mapped by `pick` one by one because there may be very many. Objects that cannot be decoded are
    /// left out, so that an unusual device of the host does not hide ours.
    pub(crate) async fn dump<T, All: Default + Extend<T>>(
        &self,
        message: Message,
        pick: impl Fn(Message) -> Option<T>,
    ) -> Result<All, Refusal> {
        let mut wire = self.wire.lock().await;
        for _ in 0..DUMP_ATTEMPTS {
            let mut picked = All::default();
            let request = vec![(message.clone(), NLM_F_DUMP)];
            let answers = wire
                .exchange(request, |object| picked.extend(pick(object)))
                .await?;
            for answer in answers {
                answer.end?;
                if !answer.interrupted {
                    return Ok(picked);
                }
            }
        }
        Err(Refusal::new(
            Errno::INTR,
            "changed each time while it was read",
        ))
    }
}

/// The socket and the number of the last request.
struct Wire {
    socket: TokioSocket,
    sequence: u32,
}

/// The answer to one request.
#[derive(Debug)]
struct Answer {
    interrupted: bool,
    ended: bool,
    end: Result<(), Refusal>,
}

impl Wire {
    /// Sends the requests (message, flags) in one datagram and waits for the end of each answer; `receive` gets the objects.
    /// A call that is dropped half-way leaves answers behind, which the next call recognizes by their old numbers.
    async fn exchange(
        &mut self,
        requests: Vec<(Message, u16)>,
        mut receive: impl FnMut(Message),
    ) -> Result<Vec<Answer>, Refusal> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        let mut answers = Vec::with_capacity(requests.len());
        for (message, flags) in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let mut request = NetlinkMessage::from(message);
            request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
            request.header.sequence_number = self.sequence;
            request.finalize();
            let start = datagram.len();
            datagram.resize((start + request.buffer_len()).next_multiple_of(4), 0);
            request.serialize(&mut datagram[start..]);
            answers.push(Answer::default());
        }
        self.socket.send(&datagram).await?;

        let mut received = Vec::with_capacity(RECEIVE_BUFFER);
        while answers.iter().any(|answer| !answer.ended) {
            received.clear();
            self.socket.recv(&mut received).await?;
            let mut rest = received.as_slice();
            while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
                let len = buffer.length() as usize;
                let number = buffer.sequence_number().wrapping_sub(first);
                if let Some(answer) = answers.get_mut(number as usize) {
                    answer.take(&rest[..len]).into_iter().for_each(&mut receive);
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
        Ok(answers)
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            interrupted: false,
            ended: false,
            end: Ok(()),
        }
    }
}

impl Answer {
    /// Takes one message of the answer, and returns the object in it; one that cannot be decoded is skipped.
    fn take(&mut self, bytes: &[u8]) -> Option<Message> {
        let message = NetlinkMessage::<Message>::deserialize(bytes).ok()?;
        let flags = message.header.flags;
        self.interrupted |= flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => return Some(inner),
            NetlinkPayload::Error(error) => {
                self.ended = true;
                if error.code.is_some() {
                    self.end = Err(Refusal::from_error(error.raw_code(), &error.header, flags));
                }
            }
            NetlinkPayload::Done(done) => {
                self.ended = true;
                if done.code < 0 {
                    self.end = Err(Refusal::from_done(done.code, &done.extended_ack));
                }
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DoneMessage, NetlinkHeader};
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    fn answer(payload: NetlinkPayload<Message>, flags: u16) -> Answer {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.header.flags = flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let mut answer = Answer::default();
        let object = matches!(message.payload, NetlinkPayload::InnerMessage(_));
        assert_eq!(answer.take(&bytes).is_some(), object);
        answer
    }

    #[test]
    fn a_dump_that_ends_in_an_error_is_no_short_list() {
        let mut done = DoneMessage::default();
        assert_eq!(answer(NetlinkPayload::Done(done.clone()), 0).end, Ok(()));
        done.code = -4;
        let failed = answer(NetlinkPayload::Done(done), 0);
        assert!(failed.ended && failed.end.is_err_and(|refusal| refusal.is(Errno::INTR)));
    }

    #[test]
    fn an_interrupted_dump_is_seen() {
        let link = || NetlinkPayload::InnerMessage(Message::NewLink(LinkMessage::default()));
        let whole = answer(link(), 0);
        assert!(!whole.interrupted && !whole.ended);
        assert!(answer(link(), NLM_F_DUMP_INTR).interrupted);
    }

    #[test]
    fn garbage_is_skipped() {
        let mut answer = Answer::default();
        for len in 0..64 {
            assert_eq!(answer.take(&vec![0xff; len]), None);
        }
        assert!(!answer.ended);
    }
}
