//! One generated case: a configuration with what a runtime adds to it. Most are sound, and many have one thing that is odd.

use serde_json::{Map, Value, json};

use super::random::Random;
use super::subnet::Subnet;

/// The versions that host-local 1.1.1 speaks.
const VERSIONS: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];
/// What no key wants.
const GARBAGE: &[&str] = &[
    "null",
    "5",
    "-1",
    "true",
    "\"\"",
    "\"x\"",
    "[]",
    "{}",
    "[[]]",
    "\"10.1.0.0/33\"",
    "\"10.1.0.300\"",
    "\"10.1.0.07\"",
    "\" 10.1.0.5\"",
    "\"10.1.0\"",
    "\"fe80::1%eth0\"",
];

/// A resolver file that is there.
pub(crate) const RESOLVER: &str = "/run/resolv.conf";

/// A case as its seed made it.
pub(crate) struct Case {
    /// The configuration, with its keys as documented.
    pub(crate) conf: Value,
    /// The configuration as it is sent: perhaps with keys in another case.
    pub(crate) sent: String,
    /// `CNI_ARGS`.
    pub(crate) args: String,
    /// `CNI_NETNS`, which no IPAM plugin looks at.
    pub(crate) netns: &'static str,
}

impl Case {
    /// The case of a seed, whose `host-local` keeps its data in `data_dir`.
    pub(crate) fn of(seed: u64, data_dir: &str) -> Self {
        let mut random = Random::new(seed);
        let random = &mut random;
        let mut pools = Vec::new();
        let mut ipam = Map::new();
        let form = random.below(100);
        if form < 40 {
            ipam = range(random, &mut pools, None);
        }
        if form >= 30 {
            ipam.insert("ranges".to_owned(), ranges(random, &mut pools));
        }
        ipam.insert("type".to_owned(), "host-local".into());
        if random.percent(30) {
            ipam.insert("routes".to_owned(), routes(random));
        }
        let mut conf = json!({ "name": "net", "type": "bridge", "ipam": ipam });
        let version = if random.percent(50) {
            "1.0.0"
        } else {
            random.pick(VERSIONS)
        };
        conf["cniVersion"] = version.into();
        if random.percent(15) {
            conf["ipam"]["futureKey"] = json!({ "subnet": 5 });
            conf["isGateway"] = true.into();
        }
        let args = requests(random, &pools, &mut conf);
        if random.percent(10) {
            let narrow = random.percent(40);
            conf["runtimeConfig"]["ipRanges"] = if narrow {
                json!([[{ "subnet": pools[0].text() }]])
            } else {
                ranges(random, &mut pools)
            };
        }
        if random.percent(20) {
            let files = ["", RESOLVER, "/run/nowhere"];
            conf["ipam"]["resolvConf"] = (*random.pick(&files)).into();
        }
        if random.percent(15) {
            spoil(random, &mut conf);
        }
        // Last: nothing may spoil where the data goes.
        if let Value::Object(ipam) = &mut conf["ipam"] {
            ipam.insert("dataDir".to_owned(), data_dir.into());
        }
        let odd = random.percent(15);
        let sent = if odd {
            recased(random, &conf)
        } else {
            conf.clone()
        };
        Case {
            sent: sent.to_string(),
            conf,
            args,
            netns: if seed.is_multiple_of(3) {
                "/run/netns/absent"
            } else {
                "/run/netns/t1"
            },
        }
    }
}

/// A subnet, of the family that is asked for; mostly one that no other range has.
fn subnet(random: &mut Random, pools: &mut Vec<Subnet>, v4: Option<bool>) -> Subnet {
    let v4 = v4.unwrap_or_else(|| random.percent(65));
    let number = if random.percent(10) {
        1
    } else {
        pools.len() as u128 + 1
    };
    let prefix = match (v4, random.percent(90)) {
        (true, true) => *random.pick(&[16, 22, 24, 24, 25, 26, 28, 29, 30]),
        (true, false) => *random.pick(&[7, 8, 12, 20, 27, 31, 32]),
        (false, true) => *random.pick(&[48, 64, 64, 112, 120, 124, 126]),
        (false, false) => *random.pick(&[32, 80, 125, 127, 128]),
    };
    let base = if v4 {
        0x0a00_0000 | number << 16
    } else {
        0xfd00 << 112 | number << 96
    };
    let mut subnet = Subnet { v4, base, prefix };
    // Some away from the start of what is theirs, on a boundary of their own.
    if random.percent(30) && (if v4 { 24 } else { 112 }) <= prefix {
        subnet.base += random.below(4) * subnet.size();
    }
    if prefix < (if v4 { 16 } else { 32 }) {
        subnet.base -= subnet.base % subnet.size();
    }
    pools.push(subnet);
    if random.percent(3) {
        subnet.base += 1 + random.below(subnet.size() - 1);
    }
    subnet
}

/// A place in a subnet: near its ends, within, seldom out of it, seldom in another spelling.
fn place(random: &mut Random, subnet: Subnet) -> String {
    let most = subnet.size() - 1;
    let n = match random.below(100) {
        0..=3 => 0,
        4..=11 => 1,
        12..=23 => 2,
        24..=35 => random.below(16),
        36..=39 => most,
        40..=47 => most.saturating_sub(1),
        48..=52 => most.wrapping_add(1 + random.below(300)),
        _ => random.below(subnet.size().min(1 << 40)),
    };
    let address = subnet.at(n);
    match random.below(100) {
        0..=2 if subnet.v4 => format!("::ffff:{address}"),
        0..=9 if !subnet.v4 => address.to_string().to_uppercase(),
        10..=11 => String::new(),
        12 => subnet.at(0).to_string() + "/24",
        13 if subnet.v4 => "fd00::5".to_owned(),
        13 => "10.1.0.5".to_owned(),
        _ => address.to_string(),
    }
}

/// A range with some of its keys.
fn range(random: &mut Random, pools: &mut Vec<Subnet>, v4: Option<bool>) -> Map<String, Value> {
    let subnet = subnet(random, pools, v4);
    let mut range = Map::new();
    range.insert("subnet".to_owned(), subnet.text().into());
    let mut ends = [place(random, subnet), place(random, subnet)];
    if random.percent(90) {
        ends.sort_by_key(|end| super::subnet::address(end).map(super::subnet::number));
    }
    for (key, value) in ["rangeStart", "rangeEnd"].into_iter().zip(ends) {
        if random.percent(35) {
            range.insert(key.to_owned(), value.into());
        }
    }
    if random.percent(35) {
        range.insert("gateway".to_owned(), place(random, subnet).into());
    }
    range
}

/// One to three sets of one to three ranges.
fn ranges(random: &mut Random, pools: &mut Vec<Subnet>) -> Value {
    let sets = *random.pick(&[1, 1, 1, 2, 2, 3]);
    let mut all = Vec::new();
    for _ in 0..sets {
        let v4 = random.percent(60);
        let mut set = Vec::new();
        for _ in 0..*random.pick(&[1, 1, 1, 2, 3]) {
            let family = if random.percent(95) { v4 } else { !v4 };
            set.push(Value::Object(range(random, pools, Some(family))));
        }
        all.push(Value::Array(set));
    }
    Value::Array(all)
}

fn routes(random: &mut Random) -> Value {
    let mut routes = Vec::new();
    for _ in 0..=random.below(2) {
        let dst = [
            "0.0.0.0/0",
            "::/0",
            "10.9.0.7/16",
            "192.0.2.0/24",
            "fd09::/32",
        ];
        let mut route = json!({ "dst": random.pick(&dst) });
        if random.percent(40) {
            let gw = ["10.1.0.254", "fd00:1::fe", ""];
            route["gw"] = (*random.pick(&gw)).into();
        }
        routes.push(route);
    }
    Value::Array(routes)
}

/// Addresses that the runtime asks for, in all the ways that there are; returns `CNI_ARGS`.
fn requests(random: &mut Random, pools: &[Subnet], conf: &mut Value) -> String {
    let ips = |random: &mut Random| {
        let mut ips = Vec::new();
        for _ in 0..*random.pick(&[1, 1, 1, 2, 3]) {
            let subnet = *random.pick(pools);
            let ip = place(random, subnet);
            let length = if random.percent(20) {
                format!("/{}", subnet.prefix)
            } else {
                String::new()
            };
            ips.push(ip + &length);
        }
        ips
    };
    if random.percent(15) {
        conf["runtimeConfig"] = json!({ "ips": ips(random) });
    }
    if random.percent(12) {
        conf["args"] = json!({ "cni": { "ips": ips(random) } });
    }
    let mut args = Vec::new();
    if random.percent(12) {
        args.push(format!("IP={}", ips(random)[0]));
    }
    if random.percent(8) {
        args.push("K8S_POD_NAME=web".to_owned());
    }
    if random.percent(15) {
        args.push("IgnoreUnknown=1".to_owned());
    }
    args.join(";")
}

/// Puts garbage somewhere into a configuration; who the network is, is not what is compared.
fn spoil(random: &mut Random, conf: &mut Value) {
    let mut places = Vec::new();
    collect(conf, "", &mut places);
    let place = random.pick(&places);
    if let Some(leaf) = conf.pointer_mut(place) {
        let garbage = random.pick::<&str>(GARBAGE);
        *leaf = serde_json::from_str(garbage).unwrap_or_default();
    }
}

/// The pointers to all values below `value`, which is at `path`.
fn collect(value: &Value, path: &str, places: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), value))
            .collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(at, value)| (at.to_string(), value))
            .collect(),
        _ => return,
    };
    for (key, value) in below {
        if !matches!(key.as_str(), "name" | "cniVersion" | "type") {
            let path = format!("{path}/{key}");
            collect(value, &path, places);
            places.push(path);
        }
    }
}

/// The same with some keys in another case.
fn recased(random: &mut Random, value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| {
                let key = match random.below(4) {
                    0 => key.to_lowercase(),
                    1 => key.to_uppercase(),
                    _ => key.clone(),
                };
                (key, recased(random, value))
            });
            Value::Object(entries.collect())
        }
        Value::Array(list) => list.iter().map(|value| recased(random, value)).collect(),
        other => other.clone(),
    }
}
