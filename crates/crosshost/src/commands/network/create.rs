//! `crosshost network create`: the network that its options describe. The options that Docker's command has, too, mean the same here.

use std::{collections::BTreeMap, net::IpAddr};

use cluster::{Egress, EgressMode, Macvlan, NetworkDefaults, NetworkSpec, SubnetChoice};
use ipam::{Range, RangeSet, Schema};
use ipnetwork::IpNetwork;

use crate::{
    cli::{self, Create, Driver},
    exit::Usage,
    session::Result,
};

/// How Docker calls the options of its overlay driver that we have options of our own for.
const MTU: &str = "com.docker.network.driver.mtu";
const VNI: &str = "com.docker.network.driver.overlay.vxlanid_list";

fn usage<T>(option: &str, value: impl std::fmt::Display, why: &str) -> Result<T> {
    Err(Usage(format!("{option} {value}: {why}")).into())
}

/// The network that the options describe, checked. Subnets that it does not name are chosen when it is created.
pub fn spec(mut options: Create, defaults: &NetworkDefaults) -> Result<NetworkSpec> {
    let macvlan = driver_options(&mut options)?;
    let unique = cluster::unique();
    let ranges = ranges(&options)?;
    let pools = missing_pools(&options, defaults, &unique)?;
    let (egress, labels) = (egress(&options)?, labels(&options.label)?);
    let spec = NetworkSpec {
        name: options.name.into(),
        id: Some(unique),
        reclaim_after: options.reclaim_after,
        segment: macvlan.is_none(),
        ranges,
        choice: (!pools.is_empty()).then(|| SubnetChoice {
            pools,
            avoid: Vec::new(),
        }),
        vni: options.vni,
        block_prefix: options.block_prefix,
        mtu: options.mtu,
        vxlan_port: options.vxlan_port,
        egress,
        reaches: (!options.reaches.is_empty()).then(|| options.reaches.into_iter().collect()),
        macvlan,
        conflist: true,
        labels,
        ..NetworkSpec::default()
    };
    Ok(spec.check().map_err(|error| Usage(error.to_string()))?)
}

/// Reads `--opt` as the driver does; the device of a macvlan network.
fn driver_options(options: &mut Create) -> Result<Option<Macvlan>> {
    let (mut parent, mut mode) = (None, None);
    let is_macvlan = options.driver == Driver::Macvlan;
    for option in std::mem::take(&mut options.opt) {
        let Some((key, value)) = option.split_once('=') else {
            return usage("--opt", &option, "want KEY=VALUE");
        };
        let number = || {
            let parsed = value.parse::<u32>();
            parsed.or_else(|error| usage("--opt", &option, &error.to_string()))
        };
        match key {
            "mtu" | MTU => options.mtu = Some(number()?),
            "vni" | VNI if !is_macvlan => options.vni = Some(number()?),
            "parent" if is_macvlan => parent = Some(value.to_owned()),
            "mode" | "macvlan_mode" if is_macvlan => mode = Some(value.to_owned()),
            "encrypted" => return usage("--opt", &option, "tunnels are not encrypted"),
            _ => {
                let known = if is_macvlan {
                    "mtu, parent, mode"
                } else {
                    "mtu, vni"
                };
                let why = format!("the driver has no such option; it has {known}");
                return usage("--opt", &option, &why);
            }
        }
    }
    if !is_macvlan {
        return Ok(None);
    }
    let of_overlay = [
        ("--vni", options.vni.is_some()),
        ("--vxlan-port", options.vxlan_port.is_some()),
        ("--egress", options.egress.is_some()),
        ("--egress-subnet", options.egress_subnet.is_some()),
        ("--internal", options.internal),
    ];
    if let Some((option, _)) = of_overlay.iter().find(|(_, is_given)| *is_given) {
        return usage(
            option,
            "",
            "not with --driver macvlan, which has no tunnel and no NAT",
        );
    }
    let Some(parent) = parent else {
        return usage("--driver", "macvlan", "needs --opt parent=INTERFACE");
    };
    let macvlan = Macvlan { parent, mode };
    let checked = macvlan.check();
    Ok(Some(
        checked.map_err(|error| Usage(format!("--opt {error}")))?,
    ))
}

/// The ranges of the subnets that are named, each with its gateway, its part for containers and what is left out of it.
fn ranges(options: &Create) -> Result<Vec<RangeSet>> {
    let (start, end) = options.range.unzip();
    if start.is_some() && options.subnet.len() != 1 {
        return usage(
            "--range",
            start.map_or_else(String::new, |it| it.to_string()),
            "with one --subnet only",
        );
    }
    for gateway in &options.gateway {
        refuse_outside(options, "--gateway", (*gateway).into())?;
    }
    for part in &options.ip_range {
        refuse_outside(options, "--ip-range", *part)?;
    }
    let mut exclude = options.exclude.clone();
    for aux in &options.aux_address {
        let (_, address) = aux.split_once('=').unwrap_or(("", aux));
        let address = address.parse::<IpAddr>();
        exclude.push(
            address
                .or_else(|error| usage("--aux-address", aux, &error.to_string()))?
                .into(),
        );
    }
    for entry in &exclude {
        refuse_outside(options, "--exclude, --aux-address", *entry)?;
    }
    let sets = options.subnet.iter().map(|subnet| {
        let within = |network: &&IpNetwork| subnet.contains(network.network());
        let part = options.ip_range.iter().find(within);
        let mut gateways = options.gateway.iter().copied();
        let gateway = gateways.find(|gateway| subnet.contains(*gateway));
        let range = Range {
            subnet: *subnet,
            range_start: start,
            range_end: end,
            gateway,
            exclude: Vec::new(),
        };
        vec![part.map_or_else(|| range.clone(), |part| range.clone().narrowed(*part))]
    });
    let sets: Vec<_> = sets.collect();
    let schema = Schema {
        ranges: (!sets.is_empty()).then_some(sets),
        exclude: (!exclude.is_empty()).then_some(exclude),
        block_prefix: options.block_prefix,
        ..Schema::default()
    };
    let ranges = schema.ranges();
    Ok(ranges.map_err(|error| Usage(error.to_string()))?)
}

/// Refuses what lies in none of the subnets that are named.
fn refuse_outside(options: &Create, option: &str, network: IpNetwork) -> Result<()> {
    let mut subnets = options.subnet.iter();
    if subnets.any(|subnet| subnet.contains(network.network())) {
        return Ok(());
    }
    let network = network.to_string();
    let bare = network.trim_end_matches("/32").trim_end_matches("/128");
    usage(option, bare, "lies in no --subnet")
}

/// The pools from which a subnet is taken of each version of IP that is wanted and has none.
fn missing_pools(
    options: &Create,
    defaults: &NetworkDefaults,
    unique: &str,
) -> Result<Vec<Vec<ipam::AddressPool>>> {
    let mut missing = Vec::new();
    if options.subnet.is_empty() {
        if options.driver == Driver::Macvlan {
            let why = "needs --subnet: that of the interface's own network";
            return usage("--driver", "macvlan", why);
        }
        missing.push(defaults.pools(false, unique));
    }
    if options.ipv6 && !options.subnet.iter().any(IpNetwork::is_ipv6) {
        missing.push(defaults.pools(true, unique));
    }
    Ok(missing)
}

fn egress(options: &Create) -> Result<Option<Egress>> {
    let mode = match options.egress {
        None if options.internal => Some(EgressMode::None),
        None => options.egress_subnet.map(|_| EgressMode::GwBridge),
        Some(cli::Egress::Gwbridge) => Some(EgressMode::GwBridge),
        Some(cli::Egress::Gateway) => Some(EgressMode::Gateway),
        Some(cli::Egress::None) => Some(EgressMode::None),
    };
    if let (Some(mode), Some(subnet)) = (mode, options.egress_subnet)
        && mode != EgressMode::GwBridge
    {
        let why = "only --egress gwbridge has an egress bridge";
        return usage("--egress-subnet", subnet, why);
    }
    let subnet = options.egress_subnet;
    Ok(mode.map(|mode| Egress { mode, subnet }))
}

/// `KEY=VALUE`, or a key alone.
pub(super) fn labels(given: &[String]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for label in given {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        if key.is_empty() {
            return usage("--label", label, "has no key");
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Arguments, Command};

    fn spec_of(options: &str) -> Result<NetworkSpec> {
        let line = format!("crosshost network create n {options}");
        let Some(Command::Network(cli::Network::Create(create))) =
            Arguments::try_parse_from(line.split_whitespace())?.command
        else {
            panic!("another command")
        };
        spec(*create, &NetworkDefaults::default())
    }

    /// The pools of the choice.
    fn chosen(spec: &NetworkSpec) -> Vec<String> {
        let pools = spec.choice.iter().flat_map(|it| it.pools.concat());
        pools.map(|pool| pool.base.to_string()).collect()
    }

    #[test]
    fn a_name_is_enough() {
        let spec = spec_of("").unwrap();
        assert_eq!(
            (chosen(&spec), spec.ranges.len()),
            (vec!["10.0.0.0/8".to_owned()], 0)
        );
        assert!(spec.segment && spec.egress.is_none());
        let both = chosen(&spec_of("--ipv6").unwrap());
        assert!(both.len() == 2 && both[1].starts_with("fd"), "{both:?}");
        let beside = spec_of("--subnet 10.0.0.0/24 --ipv6").unwrap();
        assert_eq!((chosen(&beside).len(), beside.ranges.len()), (1, 1));
        let named = spec_of("--subnet 10.0.0.0/24 --subnet fd00::/64 --ipv6").unwrap();
        assert_eq!((named.choice, named.ranges.len()), (None, 2));
    }

    #[test]
    fn options_say_the_rest() {
        let range = "--subnet 10.0.0.0/24 --range 10.0.0.16-10.0.0.31 --egress none";
        let spec = spec_of(range).unwrap();
        assert_eq!(spec.ranges[0][0].start().to_string(), "10.0.0.16");
        assert_eq!(spec.egress.unwrap().mode, EgressMode::None);
        let spec = spec_of("--subnet 10.0.0.0/24 --egress gateway --reaches two").unwrap();
        assert_eq!(spec.egress.unwrap().mode, EgressMode::Gateway);
        assert_eq!(spec.reaches.unwrap(), ["two".to_owned()].into());
        let spec = spec_of("--subnet 10.0.0.0/24 --egress-subnet 172.19.0.0/16").unwrap();
        assert_eq!(spec.egress.unwrap().mode, EgressMode::GwBridge);
    }

    #[test]
    fn the_words_of_docker_mean_the_same() {
        let spec = spec_of(
            "-d overlay --attachable --subnet 10.0.0.0/24 --subnet fd00::/64 --gateway fd00::9 --gateway 10.0.0.254 \
             --ip-range 10.0.0.128/25 --aux-address printer=10.0.0.200 --internal --label a=b=c --label d \
             -o com.docker.network.driver.mtu=1400",
        )
        .unwrap();
        let [v4, v6] = [&spec.ranges[0][0], &spec.ranges[1][0]];
        assert_eq!(v4.gateway.unwrap().to_string(), "10.0.0.254");
        assert_eq!(v6.gateway.unwrap().to_string(), "fd00::9");
        assert_eq!(
            [v4.start(), v4.end()].map(|it| it.to_string()),
            ["10.0.0.128", "10.0.0.254"]
        );
        assert_eq!(v4.exclude, ["10.0.0.200/32".parse().unwrap()]);
        assert_eq!(spec.egress.unwrap().mode, EgressMode::None);
        assert_eq!(
            (spec.labels["a"].as_str(), spec.labels["d"].as_str()),
            ("b=c", "")
        );
        assert_eq!(spec.mtu, Some(1400));

        let macvlan = spec_of("-d macvlan -o parent=ens3 --subnet 192.168.1.0/24").unwrap();
        assert_eq!(macvlan.macvlan.unwrap().parent, "ens3");
        assert!(!macvlan.segment);
    }

    #[test]
    fn bad_options_are_named_with_their_value_and_are_a_matter_of_usage() {
        for (options, value) in [
            ("--subnet 10.0.0.5/24", "10.0.0.5/24"),
            ("--subnet 10.0.0.0/24 --vni 0", "vni: 0"),
            (
                "--gateway 10.0.0.1",
                "--gateway 10.0.0.1: lies in no --subnet",
            ),
            (
                "--subnet 10.0.0.0/24 --gateway 10.0.1.1",
                "--gateway 10.0.1.1",
            ),
            ("--ip-range 10.0.0.0/25", "--ip-range 10.0.0.0/25"),
            ("--exclude 10.0.0.7/32", "10.0.0.7: lies in no --subnet"),
            ("--aux-address x", "--aux-address x"),
            ("--range 10.0.0.5-10.0.0.6", "--range 10.0.0.5"),
            ("-o mtu=big", "--opt mtu=big"),
            ("-o encrypted=true", "not encrypted"),
            ("-o parent=ens3", "it has mtu, vni"),
            ("-o mtu", "want KEY=VALUE"),
            ("-d macvlan --subnet 10.0.0.0/24", "--opt parent=INTERFACE"),
            ("-d macvlan -o parent=ens3", "needs --subnet"),
            ("-d macvlan -o parent=a/b --subnet 10.0.0.0/24", "a/b"),
            (
                "-d macvlan -o parent=e -o mode=x --subnet 10.0.0.0/24",
                "mode",
            ),
            (
                "-d macvlan -o parent=ens3 --subnet 10.0.0.0/24 --vni 7",
                "--vni",
            ),
            ("--label =x", "--label =x"),
            (
                "--subnet 10.0.0.0/24 --reaches two",
                "reaches: needs egress gateway",
            ),
            (
                "--subnet 10.0.0.0/24 --egress gateway --reaches two --reaches n",
                "reaches: \"n\": is the network itself",
            ),
            (
                "--subnet 10.0.0.0/24 --egress none --egress-subnet 172.19.0.0/16",
                "--egress-subnet 172.19.0.0/16",
            ),
        ] {
            let error = spec_of(options).unwrap_err();
            let Some(Usage(message)) = error.downcast_ref() else {
                panic!("{options}: {error}")
            };
            assert!(message.contains(value), "{options}: {message}");
        }
    }
}
