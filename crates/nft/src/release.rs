//! Letting go of a socket without waiting for the kernel.
//!
//! What a batch removes is freed later, by a worker that first waits until no packet can be at it any more: 10 ms on a host
//! of two processors. Whoever closes a socket of nfnetlink meanwhile waits for that worker (`nft_rcv_nl_event`), though for
//! packets all was gone when the batch was taken. Most verbs that remove are over with that.
//!
//! A socket that was sent to another and not received belongs to nobody but the message it is in. Here that message waits at a
//! socket that nobody but the same message has. The kernel finds such rings whenever a Unix socket is closed, and
//! closes what is in them from a worker of its own (since Linux 6.10; before, in the process that closes, which waits as if
//! nothing of this had been done).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Result;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};

/// Leaves the socket to the kernel, once the caller has closed it and, after that, what it gets here.
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
