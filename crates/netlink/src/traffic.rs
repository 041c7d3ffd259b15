//! A message of traffic control (`struct tcmsg` and attributes, uapi `linux/rtnetlink.h`), as far as [`crate::qdisc`] needs
//! it. The library has no token bucket, and decodes counters that are not used here.

use netlink_packet_core::{DecodeError, Emitable, parse_u32};

use crate::attribute::{find, put};

/// Bytes of `struct tcmsg`: family and padding, link, handle, parent, info.
const HEADER: usize = 20;

const KIND: u16 = 1;
const OPTIONS: u16 = 2;

/// A queueing discipline or a filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Index of the link.
    pub(crate) link: u32,
    /// Number of the discipline; the upper 16 bits are what tc shows before the colon.
    pub(crate) handle: u32,
    /// The parent discipline.
    pub(crate) parent: u32,
    /// Only of a filter: its priority in the upper 16 bits, its protocol (network order) in the lower.
    pub(crate) info: u32,
    /// The attributes behind the header.
    pub(crate) attributes: Vec<u8>,
}

impl Traffic {
    /// The same with a kind, such as `tbf`, and that kind's options.
    pub(crate) fn of_kind(mut self, kind: &str, options: Option<&[u8]>) -> Self {
        put(
            &mut self.attributes,
            KIND,
            &[kind.as_bytes(), b"\0"].concat(),
        );
        if let Some(options) = options {
            put(&mut self.attributes, OPTIONS, options);
        }
        self
    }

    /// The kind.
    pub(crate) fn kind(&self) -> Option<&str> {
        let text = find(&self.attributes, KIND)?;
        std::str::from_utf8(text).ok()?.strip_suffix('\0')
    }

    /// The kind's own attributes.
    pub(crate) fn options(&self) -> Option<&[u8]> {
        find(&self.attributes, OPTIONS)
    }

    /// From the payload of an `RTM_NEWQDISC` or `RTM_NEWTFILTER`.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let (header, attributes) = payload
            .split_at_checked(HEADER)
            .ok_or("a message of traffic control of less than 20 bytes")?;
        Ok(Self {
            link: parse_u32(&header[4..8])?,
            handle: parse_u32(&header[8..12])?,
            parent: parse_u32(&header[12..16])?,
            info: parse_u32(&header[16..20])?,
            attributes: attributes.to_vec(),
        })
    }
}

impl Emitable for Traffic {
    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        let words = [0, self.link, self.handle, self.parent, self.info];
        let header = words.into_iter().flat_map(u32::to_ne_bytes);
        let bytes = header.chain(self.attributes.iter().copied());
        for (place, byte) in buffer.iter_mut().zip(bytes) {
            *place = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let wanted = Traffic {
            link: 7,
            handle: 0x10000,
            parent: u32::MAX,
            info: 3,
            attributes: Vec::new(),
        };
        let wanted = wanted.of_kind("tbf", Some(&[1, 2, 3]));
        let mut bytes = vec![0; wanted.buffer_len()];
        wanted.emit(&mut bytes);
        let read = Traffic::decode(&bytes).unwrap();
        assert_eq!(read, wanted);
        assert_eq!(
            (read.kind(), read.options()),
            (Some("tbf"), Some(&[1, 2, 3][..]))
        );
    }

    #[test]
    fn whatever_is_cut_or_broken_is_no_panic() {
        let whole = Traffic::default().of_kind("u32", Some(&[9; 40]));
        let mut bytes = vec![0; whole.buffer_len()];
        whole.emit(&mut bytes);
        for at in 0..bytes.len() {
            if let Ok(cut) = Traffic::decode(&bytes[..at]) {
                let _ = (cut.kind(), cut.options());
            }
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            if let Ok(broken) = Traffic::decode(&broken) {
                let _ = (broken.kind(), broken.options());
            }
        }
        assert!(Traffic::decode(&bytes[..HEADER - 1]).is_err());
    }
}
