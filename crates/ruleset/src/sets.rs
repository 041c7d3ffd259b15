//! Elements of the anonymous sets of rules (`tcp dport { 80, 443 }`, `ct state vmap { … }`), which never change. Named sets
//! may change and be long, so they are not read.

use netlink_packet_netfilter::nftables::{
    DataAttribute, NfTablesMessage, SetAttribute, SetElementAttribute, SetElementFlags, SetFlags,
    VerdictAttribute,
};

use nft::elements;

/// One element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    key: Vec<u8>,
    ends: bool,
    is_of_all_others: bool,
    /// In a verdict map, the verdict.
    pub(crate) verdict: Option<Vec<VerdictAttribute>>,
}

/// All elements of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    has_intervals: bool,
    all: Vec<Member>,
}

impl Members {
    /// Whether a set is anonymous, so that its elements are read.
    pub(crate) fn are_told_of(set: &[SetAttribute]) -> bool {
        flags(set).contains(SetFlags::Anonymous)
    }

    /// From the kernel's answers about a set and its elements. `None` if its intervals have several dimensions.
    pub(crate) fn new(set: &[SetAttribute], answers: Vec<NfTablesMessage>) -> Option<Self> {
        let mut all: Vec<_> = elements(answers).map(member).collect::<Option<_>>()?;
        all.sort_by(|a, b| a.key.cmp(&b.key));
        Some(Self {
            has_intervals: flags(set).contains(SetFlags::Interval),
            all,
        })
    }

    /// The element that matches this value, if any. An error if lengths differ, as those of concatenations do.
    pub(crate) fn find(&self, value: &[u8]) -> Result<Option<&Member>, ()> {
        let keyed = || self.all.iter().filter(|it| !it.is_of_all_others);
        if keyed().any(|it| it.key.len() != value.len()) {
            return Err(());
        }
        let found = if self.has_intervals {
            // An interval extends to the next key. Where one ends, another may begin.
            let last = keyed().rev().find(|it| it.key.as_slice() <= value);
            let same = |it: &&Member| last.is_some_and(|last| last.key == it.key) && !it.ends;
            keyed().find(same)
        } else {
            keyed().find(|it| it.key == value)
        };
        Ok(found.or_else(|| self.all.iter().find(|it| it.is_of_all_others)))
    }
}

fn flags(set: &[SetAttribute]) -> SetFlags {
    let flags = set.iter().find_map(|attribute| match attribute {
        SetAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    flags.unwrap_or(SetFlags::empty())
}

fn member(attributes: Vec<SetElementAttribute>) -> Option<Member> {
    let mut member = Member {
        key: vec![],
        ends: false,
        is_of_all_others: false,
        verdict: None,
    };
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(key)) => member.key = key,
            SetElementAttribute::Data(DataAttribute::Verdict(verdict)) => {
                member.verdict = Some(verdict);
            }
            SetElementAttribute::Flags(flags) => {
                member.ends = flags.contains(SetElementFlags::IntervalEnd);
                member.is_of_all_others = flags.contains(SetElementFlags::CatchAll);
            }
            SetElementAttribute::KeyEnd(_) => return None,
            _ => {}
        }
    }
    Some(member)
}
