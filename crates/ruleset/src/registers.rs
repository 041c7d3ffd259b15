//! The registers of nftables, into which a rule loads values of a packet, as far as they are known.

use netlink_packet_netfilter::nftables::{Bitwise, Cmp, DataAttribute, Operator, Register};

/// A value of which some bits may be unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) value: Vec<u8>,
    /// A bit is 1 where the value's bit is known.
    pub(crate) sure: Vec<u8>,
}

impl From<Vec<u8>> for Bits {
    fn from(value: Vec<u8>) -> Self {
        let sure = vec![u8::MAX; value.len()];
        Self { value, sure }
    }
}

/// The registers whose value is at least partly known.
pub(crate) type Registers = Vec<(u32, Bits)>;
pub(crate) type Loaded = Option<(u32, Option<Bits>)>;

/// Stores a loaded value, or that it is unknown. `None` is an expression that loads nothing.
pub(crate) fn load(registers: &mut Registers, loaded: Loaded) {
    if let Some((register, value)) = loaded {
        registers.retain(|(known, _)| *known != register);
        registers.extend(value.map(|value| (register, value)));
    }
}

fn bits(registers: &Registers, register: Register) -> Option<&Bits> {
    let register: u32 = register.into();
    let known = registers.iter().find(|(known, _)| *known == register);
    known.map(|(_, bits)| bits)
}

/// A register's value, if all of it is known.
pub(crate) fn known(registers: &Registers, register: Register) -> Option<&[u8]> {
    let bits = bits(registers, register)?;
    let is_sure = bits.sure.iter().all(|byte| *byte == u8::MAX);
    is_sure.then_some(bits.value.as_slice())
}

/// `register & mask ^ xor`, as far as the bits are known.
pub(crate) fn mask(registers: &Registers, parts: &[Bitwise]) -> Loaded {
    let (mut from, mut to, mut mask, mut xor) = (None, None, None, None);
    for part in parts {
        match part {
            Bitwise::SourceRegister(is) => from = Some(*is),
            Bitwise::DestinationRegister(is) => to = Some(*is),
            Bitwise::Mask(DataAttribute::Value(is)) => mask = Some(is),
            Bitwise::Xor(DataAttribute::Value(is)) => xor = Some(is),
            _ => {}
        }
    }
    let masked = || {
        let Bits { value, sure } = bits(registers, from?)?;
        let mask: &Vec<u8> = mask?;
        let parts = value.iter().zip(mask).zip(xor?);
        let sure = sure.iter().zip(mask).map(|(sure, mask)| sure | !mask);
        Some(Bits {
            value: parts.map(|((byte, mask), xor)| byte & mask ^ xor).collect(),
            sure: sure.collect(),
        })
    };
    Some((to?.into(), masked()))
}

/// Whether a comparison holds; `None` if that is unknown.
pub(crate) fn compare(registers: &Registers, parts: &[Cmp]) -> Option<bool> {
    let (mut register, mut operator, mut wanted) = (None, None, None);
    for part in parts {
        match part {
            Cmp::SourceRegister(is) => register = Some(*is),
            Cmp::Op(is) => operator = Some(*is),
            Cmp::Data(DataAttribute::Value(is)) => wanted = Some(is),
            _ => {}
        }
    }
    // An interface's name may be compared by its beginning alone (`eth*`).
    let wanted = wanted?;
    // Numbers are in network byte order.
    let is = known(registers, register?)?
        .get(..wanted.len())?
        .cmp(wanted);
    match operator? {
        Operator::Equal => Some(is.is_eq()),
        Operator::NotEqual => Some(is.is_ne()),
        Operator::LessThan => Some(is.is_lt()),
        Operator::LessThanEqual => Some(is.is_le()),
        Operator::GreaterThan => Some(is.is_gt()),
        Operator::GreatherThanEqual => Some(is.is_ge()),
        _ => None,
    }
}
