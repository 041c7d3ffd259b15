//! Concatenations: the key of a set that has several parts.

use netlink_packet_netfilter::nftables::{Expressions, MetaKey, Register};

use crate::expr::{NETWORK_HEADER, TRANSPORT_HEADER, load_into, payload, port};
use crate::family::{End, Family};
use crate::typeof_key::VNI;

/// A concatenation that is loaded part by part, from the first register on.
pub(crate) struct Tuple {
    pub(crate) expressions: Vec<Expressions>,
    words: u32,
}

impl Tuple {
    pub(crate) fn new() -> Self {
        Self {
            expressions: vec![],
            words: 0,
        }
    }

    /// The register of the next part, which has this many words.
    fn next(&mut self, words: u32) -> Register {
        let register = register(self.words);
        self.words += words;
        register
    }

    pub(crate) fn interface(mut self, key: MetaKey) -> Self {
        let register = self.next(4);
        self.expressions.push(load_into(register, key));
        self
    }

    pub(crate) fn address(mut self, family: &Family, end: End) -> Self {
        let register = self.next(u32::from(family.key_bytes) / 4);
        self.expressions.push(address(register, family, end));
        self
    }

    pub(crate) fn destination(self, family: &Family) -> Self {
        self.address(family, End::Destination)
    }

    pub(crate) fn port(mut self) -> Self {
        let register = self.next(1);
        self.expressions.push(port(register));
        self
    }

    /// The VNI of a header of VXLAN.
    pub(crate) fn vni(mut self) -> Self {
        let register = self.next(1);
        let (offset, length) = VNI;
        let vni = payload(register, TRANSPORT_HEADER, offset, length);
        self.expressions.push(vni);
        self
    }

    pub(crate) fn protocol_and_port(mut self) -> Self {
        let register = self.next(1);
        self.expressions.push(load_into(register, MetaKey::L4Proto));
        self.port()
    }
}

/// The kernel's name of the register that begins with the given word.
pub(crate) fn register(word: u32) -> Register {
    match word {
        0 => Register::Reg1,
        4 => Register::Reg2,
        8 => Register::Reg3,
        12 => Register::Reg4,
        _ => Register::from(8 + word),
    }
}

pub(crate) fn address(register: Register, family: &Family, end: End) -> Expressions {
    let bytes = family.key_bytes.into();
    payload(register, NETWORK_HEADER, family.offset(end), bytes)
}
