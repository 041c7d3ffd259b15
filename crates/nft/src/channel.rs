//! The nfnetlink socket: questions, and batches that the kernel applies completely or not at all.
//!
//! Two properties of nfnetlink shape the rest of the crate. A batch is a transaction, so no process ever sees half of our
//! table. And a batch may carry the generation id of the ruleset: the kernel then refuses it with ERESTART if anything in
//! this network namespace was committed since. Read the id, read the rules, decide, send: that is compare-and-swap over
//! everything that was read. (net/netfilter/nfnetlink.c: `nfnetlink_rcv_batch`)

use std::os::fd::OwnedFd;

use netlink_packet_core::{
    DefaultNla, Emitable, ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkHeader, NetlinkPayload, NlasIterator, parse_string,
};
use netlink_packet_netfilter::nftables::{GenAttribute, GenMessage, NfTablesMessage};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::net::sockopt::set_socket_send_buffer_size_force;

use crate::answer::{self, Message};
use crate::error::{ENOENT, ERESTART, Error, Reason};
use crate::release;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u8 = 16;
const NFNL_BATCH_GENID: u16 = 1;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The kernel builds dumps in pieces of at most 32 KiB.
const RECEIVE_BYTES: usize = 64 << 10;
/// A batch is one datagram, which must fit into the socket's send buffer: 208 KiB, unless `net.core.wmem_default` was
/// lowered.
const ANY_SOCKET_SENDS: usize = 32 << 10;

/// An object, and the family of its table.
pub type Answer = (NetfilterProtoFamily, NfTablesMessage);

/// One step of a batch.
#[derive(Debug)]
pub(crate) struct Change {
    /// The object and the operation, for the error.
    pub(crate) what: String,
    /// Flags such as `NLM_F_CREATE`.
    pub(crate) flags: u16,
    pub(crate) message: NfTablesMessage,
}

impl Change {
    fn removes(&self) -> bool {
        use NfTablesMessage::{DeleteChain, DeleteRule, DeleteSet, DeleteSetElement, DeleteTable};
        matches!(
            self.message,
            DeleteChain(_) | DeleteRule(_) | DeleteSet(_) | DeleteSetElement(_) | DeleteTable(_)
        )
    }
}

/// The rule set's generation, counted by the kernel per network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(pub(crate) u32);

/// A socket of nfnetlink. Other crates can only read with it.
#[derive(Debug)]
pub struct Channel {
    socket: Socket,
    /// Closed after the socket, as fields are dropped in order.
    trigger: Option<OwnedFd>,
    /// Whether a batch removed something that the kernel has to free.
    has_removed: bool,
    sequence: u32,
    /// The family of our table.
    family: NetfilterProtoFamily,
    /// The last datagram that was received.
    received: Vec<u8>,
}

impl Channel {
    pub(crate) fn open() -> Result<Self, Error> {
        Self::open_for(NetfilterProtoFamily::Inet)
    }

    pub(crate) fn open_for(family: NetfilterProtoFamily) -> Result<Self, Error> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::Socket {
            what: "open".to_owned(),
            source,
        })?;
        Ok(Self {
            socket,
            trigger: None,
            has_removed: false,
            sequence: 0,
            family,
            received: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    pub(crate) fn generation(&mut self) -> Result<Generation, Error> {
        let what = "read the generation of the rules";
        let question = NfTablesMessage::GetGen(GenMessage { attributes: vec![] });
        for answer in self.get(what, question)? {
            if let NfTablesMessage::NewGen(generation) = answer {
                for attribute in generation.attributes {
                    if let GenAttribute::Id(id) = attribute {
                        return Ok(Generation(id));
                    }
                }
            }
        }
        Err(Error::Strange {
            what: what.to_owned(),
            why: "no generation id".to_owned(),
        })
    }

    /// One object; empty if it does not exist.
    pub(crate) fn get(
        &mut self,
        what: &str,
        question: NfTablesMessage,
    ) -> Result<Vec<NfTablesMessage>, Error> {
        self.ask(what, self.family, question, 0).map(bare)
    }

    /// All objects that match; empty if their container does not exist. [`Error::Busy`] if they changed meanwhile.
    pub(crate) fn dump(
        &mut self,
        what: &str,
        question: NfTablesMessage,
    ) -> Result<Vec<NfTablesMessage>, Error> {
        self.ask(what, self.family, question, NLM_F_DUMP).map(bare)
    }

    /// One object of any family, with its family.
    pub fn get_of(
        &mut self,
        what: &str,
        family: NetfilterProtoFamily,
        question: NfTablesMessage,
    ) -> Result<Vec<Answer>, Error> {
        self.ask(what, family, question, 0)
    }

    /// All objects of a family, or of all families; each answer with its family.
    pub fn dump_of(
        &mut self,
        what: &str,
        family: NetfilterProtoFamily,
        question: NfTablesMessage,
    ) -> Result<Vec<Answer>, Error> {
        self.ask(what, family, question, NLM_F_DUMP)
    }

    fn ask(
        &mut self,
        what: &str,
        family: NetfilterProtoFamily,
        question: NfTablesMessage,
        flags: u16,
    ) -> Result<Vec<Answer>, Error> {
        let sequence = self.next_sequence();
        let mut bytes = vec![];
        put(&mut bytes, sequence, NLM_F_ACK | flags, family, 0, question);
        self.send(what, &bytes)?;
        let mut answers = vec![];
        let mut interrupted = false;
        loop {
            for message in self.receive(what)? {
                if message.header.sequence_number != sequence {
                    continue; // the rest of an answer to an earlier batch that failed early
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                let end = match message.payload {
                    NetlinkPayload::InnerMessage(NetfilterMessage {
                        inner: NetfilterMessageInner::NfTables(answer),
                        header,
                        ..
                    }) => {
                        answers.push((header.family, answer));
                        continue;
                    }
                    NetlinkPayload::Done(done) if done.code == 0 => None,
                    NetlinkPayload::Done(done) => Some(reason(done.code, &done.extended_ack)),
                    NetlinkPayload::Error(error) => refusal(&error),
                    _ => continue,
                };
                return match end {
                    None if interrupted => Err(Error::Busy {
                        what: what.to_owned(),
                    }),
                    None => Ok(answers),
                    Some(reason) if reason.errno == ENOENT => Ok(vec![]),
                    Some(reason) => Err(Error::Refused {
                        what: what.to_owned(),
                        reason,
                    }),
                };
            }
        }
    }

    /// Makes all changes or none, and only if nothing was committed since `generation`, else [`Error::Busy`]. Without changes
    /// it only confirms that everything that was read since belongs to one moment.
    pub(crate) fn commit(
        &mut self,
        generation: Generation,
        changes: Vec<Change>,
    ) -> Result<(), Error> {
        if !changes.is_empty() {
            return self.submit(Some(generation), changes);
        }
        match self.generation()? {
            now if now == generation => Ok(()),
            _ => Err(Error::Busy {
                what: "compare the rules".to_owned(),
            }),
        }
    }

    /// Makes all changes or none, whatever was committed before. For changes that do not follow from anything that was read.
    pub(crate) fn commit_blindly(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        self.submit(None, changes)
    }

    fn submit(
        &mut self,
        generation: Option<Generation>,
        changes: Vec<Change>,
    ) -> Result<(), Error> {
        let Some(batch) = changes.last().map(|last| last.what.clone()) else {
            return Ok(());
        };
        let begin = self.next_sequence();
        let id =
            generation.map(|it| DefaultNla::new(NFNL_BATCH_GENID, it.0.to_be_bytes().to_vec()));
        let head = ControlMessage::Other {
            message_type: NFNL_MSG_BATCH_BEGIN,
            attributes: id.into_iter().collect(),
        };
        let none = NetfilterProtoFamily::Unspec;
        let mut bytes = vec![];
        put(&mut bytes, begin, 0, none, NFNL_SUBSYS_NFTABLES, head);
        let mut steps = vec![];
        let removes = changes.iter().any(Change::removes);
        let count = changes.len();
        for (step, change) in changes.into_iter().enumerate() {
            let sequence = self.next_sequence();
            let ack = if step + 1 == count { NLM_F_ACK } else { 0 };
            let flags = change.flags | ack;
            put(&mut bytes, sequence, flags, self.family, 0, change.message);
            steps.push((sequence, change.what));
        }
        let end = self.next_sequence();
        put(
            &mut bytes,
            end,
            0,
            none,
            NFNL_SUBSYS_NFTABLES,
            ControlMessage::BatchEnd,
        );
        self.send(&batch, &bytes)?;

        // Each refused step is answered, and the last one in any case; an answer to each of thousands would not fit into the
        // socket. They arrive together. But an error of the whole batch (a stale generation, no permission, a failed commit)
        // is reported for its first message, and may be the only answer.
        let mut first_refusal = None;
        loop {
            for message in self.receive(&batch)? {
                let NetlinkPayload::Error(answer) = message.payload else {
                    continue;
                };
                let sequence = message.header.sequence_number;
                let refused = refusal(&answer);
                if sequence == begin {
                    match refused {
                        Some(reason) if reason.errno == ERESTART => {
                            return Err(Error::Busy { what: batch });
                        }
                        Some(reason) => {
                            return Err(Error::Refused {
                                what: batch,
                                reason,
                            });
                        }
                        None => continue,
                    }
                }
                let Some(step) = steps.iter().position(|(known, _)| *known == sequence) else {
                    continue;
                };
                if let Some(reason) = refused
                    && first_refusal.is_none()
                {
                    first_refusal = Some(Error::Refused {
                        what: steps[step].1.clone(),
                        reason,
                    });
                }
                if step + 1 == steps.len() {
                    self.has_removed |= removes && first_refusal.is_none();
                    return first_refusal.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// For tests: closes the socket as if it had removed nothing.
    #[cfg(test)]
    pub(crate) fn forget_removals(&mut self) {
        self.has_removed = false;
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, what: &str, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() > ANY_SOCKET_SENDS {
            // A process in a user namespace may not raise it; then `send` reports a batch that is too long.
            let _ = set_socket_send_buffer_size_force(&self.socket, bytes.len());
        }
        match self.socket.send(bytes, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Socket {
                what: what.to_owned(),
                source,
            }),
        }
    }

    fn receive(&mut self, what: &str) -> Result<Vec<Message>, Error> {
        self.received.clear();
        while let Err(source) = self.socket.recv(&mut self.received, 0) {
            if source.kind() != std::io::ErrorKind::Interrupted {
                return Err(Error::Socket {
                    what: what.to_owned(),
                    source,
                });
            }
        }
        let mut messages = vec![];
        let mut rest = self.received.as_slice();
        while !rest.is_empty() {
            let message = answer::read(rest).map_err(|why| Error::Strange {
                what: what.to_owned(),
                why: why.to_string(),
            })?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            messages.push(message);
        }
        Ok(messages)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.has_removed {
            // If this fails, the socket is closed as usual.
            self.trigger = release::leave(&self.socket).ok();
        }
    }
}

fn bare(answers: Vec<Answer>) -> Vec<NfTablesMessage> {
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn put(
    bytes: &mut Vec<u8>,
    sequence: u32,
    flags: u16,
    family: NetfilterProtoFamily,
    resource: u16,
    body: impl Into<NetfilterMessageInner>,
) {
    let header = NetfilterHeader::new(family, 0, resource);
    let mut message = Message::from(NetfilterMessage::new(header, body));
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// `None` is an acknowledgement.
fn refusal(error: &ErrorMessage) -> Option<Reason> {
    // The code is followed by the header of our message alone (NETLINK_CAP_ACK is on), then by attributes.
    let attributes = error
        .header
        .get(NetlinkHeader::default().buffer_len()..)
        .unwrap_or_default();
    error.code.map(|code| reason(code.get(), attributes))
}

fn reason(code: i32, attributes: &[u8]) -> Reason {
    let text = NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .and_then(|attribute| parse_string(attribute.value()).ok());
    Reason {
        errno: code.saturating_neg(),
        text,
    }
}
