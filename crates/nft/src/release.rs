//! Closes a socket without waiting for the kernel (docs/decisions/0010-sockets-left-to-the-kernel.md).
//!
//! What a batch removes is freed later, by a kernel worker that first waits for an RCU grace period: 10 ms on a host with two
//! processors. A process that closes an nfnetlink socket before that waits for the worker (`nft_rcv_nl_event`), although for
//! packets everything is gone once the batch is accepted. Most verbs that remove something end with that.
//!
//! A socket that was sent over a Unix socket and not received is owned by the message alone. Here that message waits at a
//! Unix socket that is itself owned by the same message. The kernel looks for such cycles when a Unix socket is closed, and
//! closes their sockets in a worker (since Linux 6.10; before, in the closing process, which then waits as usual).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Result;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};

/// Hands the socket over to the kernel. The caller then closes the socket, and after it the returned one.
pub(crate) fn leave(socket: impl AsFd) -> Result<OwnedFd> {
    let (trigger, ring) = socketpair(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let both = [socket.as_fd(), ring.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&both));
    sendmsg(
        &trigger,
        &[IoSlice::new(b"0")],
        &mut rights,
        SendFlags::empty(),
    )?;
    Ok(trigger)
}
