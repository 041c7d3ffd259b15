//! Refusals of the kernel, in words that help an operator.
//!
//! Since 4.12 the kernel adds a sentence to most errors ("A VXLAN device with the specified VNI already exists") in
//! attributes behind the error number. rtnetlink leaves them undecoded, so they are read here: without them EINVAL and
//! EOPNOTSUPP, the most frequent errors of rtnetlink, say nothing.

use std::fmt;
use std::io;

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED};
use rustix::io::Errno;

use crate::attribute::find;

/// Attribute of an extended acknowledgement: the text (uapi `NLMSGERR_ATTR_MSG`).
const ATTR_TEXT: u16 = 1;
/// Bytes of a `struct nlmsghdr`.
const HEADER_LEN: usize = 16;

/// A request that the kernel refused. Shown as `veth ch3f2a91 into /run/netns/x: name exists (EEXIST)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The object and what was tried with it, e.g. `veth ch3f2a91 into /run/netns/x`.
    pub what: String,
    /// The kernel's error number, positive, e.g. 17 for EEXIST.
    pub errno: i32,
    /// The kernel's own sentence (ext-ack), or the errno's usual text if it gave none.
    pub text: String,
}

impl Error {
    /// The object already exists (EEXIST).
    pub fn is_exists(&self) -> bool {
        self.errno == Errno::EXIST.raw_os_error()
    }

    /// Another program or object has what it needs (EADDRINUSE, EBUSY).
    pub fn is_in_use(&self) -> bool {
        [Errno::ADDRINUSE, Errno::BUSY]
            .iter()
            .any(|e| e.raw_os_error() == self.errno)
    }

    /// Something else is at work on it, so that another try may succeed (EBUSY, EAGAIN, EINTR).
    pub fn is_busy(&self) -> bool {
        [Errno::BUSY, Errno::AGAIN, Errno::INTR]
            .iter()
            .any(|e| e.raw_os_error() == self.errno)
    }

    /// The object, or its link, does not exist (ENODEV, ENOENT, ENXIO, ESRCH, EADDRNOTAVAIL).
    pub fn is_gone(&self) -> bool {
        [
            Errno::NODEV,
            Errno::NOENT,
            Errno::NXIO,
            Errno::SRCH,
            Errno::ADDRNOTAVAIL,
        ]
        .iter()
        .any(|e| e.raw_os_error() == self.errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ", self.what, self.text)?;
        match name(self.errno) {
            Some(name) => write!(f, "({name})"),
            None => write!(f, "(errno {})", self.errno),
        }
    }
}

impl std::error::Error for Error {}

/// The kernel's answer, without what was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    errno: i32,
    text: String,
}

impl Refusal {
    /// A refusal of our own, for what the kernel would refuse in the same way.
    pub(crate) fn new(errno: Errno, text: impl Into<String>) -> Self {
        Self {
            errno: errno.raw_os_error(),
            text: text.into(),
        }
    }

    /// From an `NLMSG_ERROR` message: `code` as on the wire (negative), `body` what follows it, `flags` of its header.
    /// The body starts with the request: whole, or its header alone if capped; the attributes come behind.
    pub(crate) fn from_error(code: i32, body: &[u8], flags: u16) -> Self {
        let request = if flags & NLM_F_CAPPED == 0 {
            let len = body
                .first_chunk()
                .map_or(0, |len| u32::from_ne_bytes(*len) as usize);
            len.next_multiple_of(4)
        } else {
            HEADER_LEN
        };
        let attributes = if flags & NLM_F_ACK_TLVS == 0 {
            None
        } else {
            body.get(request..)
        };
        Self::from_done(code, attributes.unwrap_or_default())
    }

    /// From the end of a dump: the attributes follow the code.
    pub(crate) fn from_done(code: i32, attributes: &[u8]) -> Self {
        let errno = code.saturating_abs();
        let text = find(attributes, ATTR_TEXT).map(|text| {
            String::from_utf8_lossy(text)
                .trim_end_matches('\0')
                .to_owned()
        });
        Self {
            errno,
            text: text.unwrap_or_else(|| usual_text(errno)),
        }
    }

    /// From reading or writing a file.
    pub(crate) fn of_file(error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
        Self {
            errno,
            text: usual_text(errno),
        }
    }

    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.errno == errno.raw_os_error()
    }

    /// Says what was tried.
    pub(crate) fn on(self, what: impl fmt::Display) -> Error {
        Error {
            what: what.to_string(),
            errno: self.errno,
            text: self.text,
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
        Self {
            errno,
            text: format!("netlink socket: {}", usual_text(errno)),
        }
    }
}

/// `File exists` for 17: std adds ` (os error 17)`, we show the name instead.
fn usual_text(errno: i32) -> String {
    // "Exchange full": all 1,023 port numbers of a bridge are taken.
    if errno == Errno::XFULL.raw_os_error() {
        return "its bridge has 1,023 ports already, the kernel's limit".to_owned();
    }
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Names of the errors that occur in answers; other errors are shown as numbers.
fn name(errno: i32) -> Option<&'static str> {
    let names = [
        (Errno::PERM, "EPERM"),
        (Errno::NOENT, "ENOENT"),
        (Errno::SRCH, "ESRCH"),
        (Errno::INTR, "EINTR"),
        (Errno::IO, "EIO"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::NXIO, "ENXIO"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::ACCESS, "EACCES"),
        (Errno::BUSY, "EBUSY"),
        (Errno::EXIST, "EEXIST"),
        (Errno::NODEV, "ENODEV"),
        (Errno::INVAL, "EINVAL"),
        (Errno::NFILE, "ENFILE"),
        (Errno::MFILE, "EMFILE"),
        (Errno::ROFS, "EROFS"),
        (Errno::RANGE, "ERANGE"),
        (Errno::LOOP, "ELOOP"),
        (Errno::XFULL, "EXFULL"),
        (Errno::BADMSG, "EBADMSG"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
        (Errno::ADDRINUSE, "EADDRINUSE"),
        (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (Errno::NETDOWN, "ENETDOWN"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::NOBUFS, "ENOBUFS"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
    ];
    names
        .iter()
        .find(|(e, _)| e.raw_os_error() == errno)
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute as on the wire: length, kind, value, padding.
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(value.len() + 4)
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn refused(request: &[u8], flags: u16) -> String {
        let mut body = request.to_vec();
        body.extend(attribute(2, &[9, 0, 0, 0]));
        body.extend(attribute(ATTR_TEXT, b"no such thing\0"));
        Refusal::from_error(-95, &body, flags).on("x").to_string()
    }

    #[test]
    fn the_kernels_sentence_is_found_behind_whole_and_capped_requests() {
        let mut header = vec![0; HEADER_LEN];
        header[0] = 30; // a request of 30 bytes, which takes 32
        let mut whole = header.clone();
        whole.resize(32, 0xff);
        assert_eq!(
            refused(&whole, NLM_F_ACK_TLVS),
            "x: no such thing (EOPNOTSUPP)"
        );
        assert_eq!(
            refused(&header, NLM_F_ACK_TLVS | NLM_F_CAPPED),
            "x: no such thing (EOPNOTSUPP)"
        );
        assert_eq!(
            refused(&header, NLM_F_CAPPED),
            "x: Operation not supported (EOPNOTSUPP)"
        );
    }

    #[test]
    fn a_short_error_message_is_no_panic() {
        for len in 0..40 {
            let body = vec![0xff; len];
            assert_eq!(
                Refusal::from_error(-17, &body, NLM_F_ACK_TLVS).on("x").text,
                "File exists"
            );
        }
    }

    #[test]
    fn errors_are_told_apart() {
        let error = |errno| Refusal::new(errno, "").on("");
        assert!(error(Errno::EXIST).is_exists() && !error(Errno::EXIST).is_gone());
        assert!(error(Errno::NODEV).is_gone() && !error(Errno::NODEV).is_exists());
        for busy in [Errno::BUSY, Errno::AGAIN, Errno::INTR] {
            assert!(error(busy).is_busy(), "{busy}");
        }
        assert!(!error(Errno::EXIST).is_busy() && !error(Errno::NODEV).is_busy());
    }
}
