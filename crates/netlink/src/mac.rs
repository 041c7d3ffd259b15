//! A hardware address, checked when it is read from text.
//!
//! A MAC comes in from configuration and goes into the kernel, records and results. What is not six bytes is refused at
//! the door, and the text form is one everywhere: lower case, as `ip` shows it.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address, six bytes as on the wire; text form `02:42:0a:00:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&bytes.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six hexadecimal bytes joined by colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address (want six hexadecimal bytes such as 02:42:0a:00:00:02)")]
pub struct BadMac(String);

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(bad)?;
            // from_str_radix takes a sign, a MAC does not.
            if part.len() != 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mac = Mac([2, 0x42, 0x0a, 0, 0, 0xff]);
        assert_eq!(mac.to_string(), "02:42:0a:00:00:ff");
        assert_eq!("02:42:0A:00:00:ff".parse(), Ok(mac));
    }

    #[test]
    fn other_text_is_refused() {
        for bad in [
            "",
            "02",
            "02:42:0a:00:00",
            "02:42:0a:00:00:ff:",
            "02:42:0a:00:00:ff:00",
            "2:42:a:0:0:2",
            "+2:42:0a:00:00:ff",
            "02-42-0a-00-00-ff",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
