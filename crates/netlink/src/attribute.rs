//! Attributes of netlink messages, borrowed from the message: a dump may hold very many. The library's iterator copies each.

/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`, which are not part of the kind.
const FLAGS: u16 = 3 << 14;

/// Appends an attribute. The value of a nested one consists of attributes.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of this kind; `None` also where the bytes before it are cut or broken.
pub(crate) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    while let Some((head, _)) = rest.split_at_checked(4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let is = u16::from_ne_bytes([head[2], head[3]]) & !FLAGS;
        let value = rest.get(4..length)?;
        if is == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found_and_what_is_cut_is_not() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, &[9; 3]);
        put(&mut bytes, 2 | 1 << 15, b"nested");
        assert_eq!(find(&bytes, 1), Some(&[9; 3][..]));
        assert_eq!(find(&bytes, 2), Some(&b"nested"[..]));
        assert_eq!(find(&bytes, 3), None);
        assert_eq!(find(&bytes[..12], 2), None);
        for length in 0..40 {
            assert_eq!(find(&vec![0; length], 1), None);
            assert_eq!(find(&vec![0xff; length], 1), None);
        }
    }
}
