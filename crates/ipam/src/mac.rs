//! MACs: computed from an address, or requested.
//!
//! A container's MAC is a function of its address, so every host can compute it before the container exists. A requested MAC
//! comes from a configuration and goes into records. It is checked when it is read: it must be one that an interface can have.
//! The text form is always lower case, as `ip` shows it.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// A MAC that an interface can have: unicast and not all zero. Text form `02:42:0a:00:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The first bytes of each computed MAC.
    pub const PREFIX: [u8; 2] = [0x02, 0x42];

    /// The MAC of an interface whose first address is this one: `02:42` and the address, or the low 32 bits of an IPv6 address.
    pub fn of(address: IpAddr) -> Self {
        let [a, b, c, d] = match address {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                let [.., a, b, c, d] = v6.octets();
                [a, b, c, d]
            }
        };
        let [first, second] = Self::PREFIX;
        Self([first, second, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&bytes.join(":"))
    }
}

/// The text is not the MAC of an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a MAC address that an interface can have ({why})")]
pub struct BadMac {
    text: String,
    why: &'static str,
}

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = |why| BadMac {
            text: text.to_owned(),
            why,
        };
        let odd = || bad("want six hexadecimal bytes such as 02:42:0a:00:00:02");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            // `from_str_radix` would accept a sign.
            let part = parts.next().filter(|part| part.len() == 2);
            let part = part.filter(|part| part.bytes().all(|c| c.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(part.ok_or_else(odd)?, 16).map_err(|_| odd())?;
        }
        match bytes {
            _ if parts.next().is_some() => Err(odd()),
            [0, 0, 0, 0, 0, 0] => Err(bad("all zero")),
            [first, ..] if first & 1 == 1 => Err(bad("a group's: the first byte is odd")),
            _ => Ok(Self(bytes)),
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;

    fn try_from(text: String) -> Result<Self, BadMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mac = Mac([2, 0x42, 0x0a, 0, 0, 0xff]);
        assert_eq!(mac.to_string(), "02:42:0a:00:00:ff");
        for text in ["02:42:0A:00:00:ff", "02-42-0a-00-00-FF"] {
            assert_eq!(text.parse(), Ok(mac));
        }
    }

    #[test]
    fn what_no_interface_can_have_is_refused() {
        for bad in [
            "",
            "02",
            "02:42:0a:00:00",
            "02:42:0a:00:00:ff:",
            "02:42:0a:00:00:ff:00",
            "2:42:a:0:0:2",
            "+2:42:0a:00:00:ff",
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn it_follows_the_address() {
        let macs = ["10.0.0.2", "fd00::a:b"].map(|text| Mac::of(text.parse().unwrap()));
        let macs = macs.map(|mac| mac.to_string());
        assert_eq!(macs, ["02:42:0a:00:00:02", "02:42:00:0a:00:0b"]);
    }
}
