//! The differences on purpose, each by its name; `docs/ipam.md` says why ("Where it differs from host-local").
//!
//! A rule looks at what was asked, not only at what was said, so that a wrong refusal is not excused by its words.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::case::Case;
use super::subnet::{Subnet, address, number};

/// All rules: a test run has to need each, or it goes.
pub(crate) const RULES: &[&str] = &[
    EDGE, GATEWAY, APART, ROUTE, ARGS, NARROW, ASIDE, PAIR, BLOCKS, REFUSED,
];

const EDGE: &str = "the network and the broadcast address are no end of a range";
const GATEWAY: &str = "a gateway is in its subnet";
const APART: &str = "two sets have no subnet in common";
const ROUTE: &str = "a route is not null";
const ARGS: &str = "unknown keys of CNI_ARGS are left to others";
const NARROW: &str = "ranges of the runtime inside the pools narrow the choice";
const ASIDE: &str = "an address beside the range can be asked for";
const PAIR: &str = "addresses of a pair have the same host part";
const BLOCKS: &str = "a host gives from its own blocks";
const REFUSED: &str = "a refused ADD uses nothing up";

/// What a plugin said to a verb.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// The error's words.
    Refused(String),
    /// The result, without what is empty; null for a verb that says nothing.
    Given(Value),
}

/// One step on both plugins.
pub(crate) struct Step<'a> {
    pub(crate) case: &'a Case,
    pub(crate) theirs: &'a Answer,
    pub(crate) ours: &'a Answer,
    /// The blocks that our host owned before.
    pub(crate) blocks: &'a [Subnet],
    /// Whether an ADD was refused before.
    pub(crate) refused_before: bool,
}

/// A range as far as it can be read.
struct Range {
    subnet: Subnet,
    start: Option<IpAddr>,
    end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

impl Range {
    fn of(value: &Value) -> Option<Self> {
        let read = |key: &str| value[key].as_str().and_then(address);
        Some(Self {
            subnet: Subnet::of(value["subnet"].as_str()?)?,
            start: read("rangeStart"),
            end: read("rangeEnd"),
            gateway: read("gateway"),
        })
    }

    fn begins(&self) -> u128 {
        self.start.map_or(self.subnet.base + 1, number)
    }

    fn ends(&self) -> u128 {
        let last = self.subnet.size() - 1 - u128::from(self.subnet.v4);
        self.end.map_or(self.subnet.base + last, number)
    }
}

impl Case {
    /// The sets of the runtime.
    fn asked_sets(&self) -> Vec<Vec<Range>> {
        sets(&self.conf["runtimeConfig"]["ipRanges"])
    }

    /// The sets of the configuration.
    fn own_sets(&self) -> Vec<Vec<Range>> {
        let mut own: Vec<_> = Range::of(&self.conf["ipam"])
            .map(|range| vec![range])
            .into_iter()
            .collect();
        own.extend(sets(&self.conf["ipam"]["ranges"]));
        own
    }

    /// The addresses that are asked for.
    fn requested(&self) -> BTreeSet<IpAddr> {
        let lists = [
            &self.conf["runtimeConfig"]["ips"],
            &self.conf["args"]["cni"]["ips"],
        ];
        let texts = lists.into_iter().filter_map(Value::as_array).flatten();
        let argument = self
            .args
            .split(';')
            .filter_map(|pair| pair.strip_prefix("IP="));
        texts
            .filter_map(Value::as_str)
            .chain(argument)
            .filter_map(address)
            .collect()
    }
}

fn sets(value: &Value) -> Vec<Vec<Range>> {
    let sets = value.as_array().into_iter().flatten();
    sets.map(|set| {
        set.as_array()
            .into_iter()
            .flatten()
            .filter_map(Range::of)
            .collect()
    })
    .collect()
}

/// The rule by which the answers may differ, if there is one.
pub(crate) fn rule(step: &Step) -> Option<&'static str> {
    match (step.theirs, step.ours) {
        (Answer::Given(_), Answer::Refused(_)) => stricter(step.case),
        (Answer::Refused(_), Answer::Given(_)) => kinder(step.case),
        (Answer::Given(theirs), Answer::Given(ours)) => other_addresses(step, theirs, ours),
        (Answer::Refused(_), Answer::Refused(_)) => None,
    }
}

/// Refused by ours alone.
fn stricter(case: &Case) -> Option<&'static str> {
    let mut all = case.asked_sets();
    all.extend(case.own_sets());
    let ranges = || all.iter().flatten();
    let edge = |range: &Range| {
        [range.start, range.end]
            .into_iter()
            .flatten()
            .any(|end| range.subnet.is_edge(end))
    };
    let apart = |range: &Range| {
        range
            .gateway
            .is_some_and(|gateway| range.subnet.offset(gateway).is_none())
    };
    let meet = |one: &[Range], other: &[Range]| {
        one.iter()
            .any(|a| other.iter().any(|b| a.subnet.meets(b.subnet)))
    };
    if ranges().any(edge) {
        return Some(EDGE);
    }
    if ranges().any(apart) {
        return Some(GATEWAY);
    }
    let routes = case.conf["ipam"]["routes"].as_array();
    if routes.is_some_and(|routes| routes.iter().any(Value::is_null)) {
        return Some(ROUTE);
    }
    let twice = all
        .iter()
        .enumerate()
        .any(|(at, set)| all[..at].iter().any(|other| meet(other, set)));
    twice.then_some(APART)
}

/// Refused by the reference alone.
fn kinder(case: &Case) -> Option<&'static str> {
    if case.args.split(';').any(|pair| pair.starts_with("K8S_"))
        && !case.args.contains("IgnoreUnknown")
    {
        return Some(ARGS);
    }
    let own = case.own_sets();
    let asked = case.asked_sets();
    let within = |range: &Range| {
        let inside = |of: &Range| of.begins() <= range.begins() && range.ends() <= of.ends();
        own.iter()
            .flatten()
            .any(|of| of.subnet.meets(range.subnet) && inside(of))
    };
    if !asked.is_empty() && asked.iter().flatten().all(within) {
        return Some(NARROW);
    }
    let aside = |ip: &IpAddr| {
        own.iter().chain(&asked).flatten().any(|range| {
            let between = range.begins() <= number(*ip) && number(*ip) <= range.ends();
            range.subnet.offset(*ip).is_some() && !between && !range.subnet.is_edge(*ip)
        })
    };
    case.requested().iter().any(aside).then_some(ASIDE)
}

/// Both gave, but not the same addresses: the rest has to be equal.
fn other_addresses(step: &Step, theirs: &Value, ours: &Value) -> Option<&'static str> {
    let (mut theirs, mut ours) = (theirs.clone(), ours.clone());
    let (wanted, given) = (take_addresses(&mut theirs), take_addresses(&mut ours));
    let given: Vec<IpAddr> = given.iter().filter_map(|text| address(text)).collect();
    let wanted: Vec<IpAddr> = wanted.iter().filter_map(|text| address(text)).collect();
    if theirs != ours || wanted.len() != given.len() {
        return None;
    }
    let case = step.case;
    let ranges: Vec<Range> = case
        .asked_sets()
        .into_iter()
        .chain(case.own_sets())
        .flatten()
        .collect();
    let offset = |ip: &IpAddr| ranges.iter().find_map(|range| range.subnet.offset(*ip));
    let partner = |ip: &IpAddr| {
        let first = given
            .first()
            .filter(|first| first.is_ipv4() != ip.is_ipv4());
        first.is_some_and(|first| offset(first) == offset(ip))
    };
    let mut why = None;
    for (wanted, given) in wanted
        .iter()
        .zip(&given)
        .filter(|(wanted, given)| wanted != given)
    {
        if partner(given) {
            why = Some(PAIR);
        } else if !step
            .blocks
            .iter()
            .any(|block| block.offset(*wanted).is_some())
        {
            why = Some(BLOCKS);
        } else if step.refused_before {
            why = Some(REFUSED);
        } else {
            return None;
        }
    }
    why
}

/// Takes the addresses out of a result of any version; their lengths stay.
fn take_addresses(result: &mut Value) -> Vec<String> {
    let mut taken = Vec::new();
    let mut take = |place: &mut Value| {
        let text = place.as_str().unwrap_or_default().to_owned();
        *place = text.split('/').nth(1).unwrap_or_default().into();
        taken.push(text);
    };
    for ip in result
        .get_mut("ips")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        take(&mut ip["address"]);
    }
    for family in ["ip4", "ip6"] {
        if let Some(ip) = result.get_mut(family) {
            take(&mut ip["ip"]);
        }
    }
    taken
}
