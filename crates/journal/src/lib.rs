//! What a host remembers until its next boot: small JSON documents under `/run/crosshost`, and locks.
//!
//! A CNI verb is a process that lives for milliseconds and can be killed at any instruction. So it writes here what it is about
//! to do *before* it does it. The next ADD, DEL or GC reads what its predecessor was doing, and repairs it. Three properties
//! make that work, and this crate has nothing else:
//!
//! - a document is replaced by rename: a reader sees the old or the new one, never half of it ([`Journal::save`]);
//! - a [`Lock`] is an `flock`, which the kernel drops when its process dies, so a killed verb never blocks the next;
//! - names come from a hash of the attachment, because container ids can be longer than a file name ([`Attachment`]).
//!
//! The directory is a tmpfs: after a reboot there are no containers, and no journal.

mod attachment;
mod changes;
pub mod clock;
mod disk_space;
mod document;
mod file;
pub mod layout;
mod lock;
pub mod tunnel;

pub use attachment::{Attachment, digest};
pub use changes::{Changed, Changes};
pub use disk_space::has_room;
pub use document::{All, Error, Found, Journal, Unreadable};
pub use lock::Lock;

/// Where the documents live on a host.
pub const ROOT: &str = "/run/crosshost";
