//! What of a new network cannot work, or not as its author may think, on the host that creates it. Said at creation, because an ADD
//! says it too late, and to a runtime.

use cluster::{EgressMode, NetworkSpec};
use ipnetwork::IpNetwork;
use overlay::state::{host::Host, underlay::Underlay};

use crate::session::{Result, Session};

/// The smallest MTU of an interface with IPv6, in bytes (RFC 8200).
const LEAST_V6: u32 = 1280;

/// What the creating host knows of itself.
#[derive(Debug, Default)]
struct Here {
    /// What the host reaches without the network.
    taken: Vec<IpNetwork>,
    /// Of the tunnels: interface and the bytes that they carry; `None` if there is no underlay, as on an operator's own machine.
    tunnel: Option<(String, u32)>,
    /// Of the parent of a macvlan network: its MTU; `None` if there is none.
    parent: Option<u32>,
    /// Whether this host keeps conflists for Nomad.
    nomad: bool,
}

/// Where Nomad's clients look by default (`cni_config_dir`).
const NOMAD: &str = "/opt/cni/config";

/// Refuses a network that no container of this host could join, and returns what else is to be known of it. `taken` is what the host
/// has routes to and addresses of.
pub async fn examine(
    session: &Session,
    host: &Host,
    spec: &NetworkSpec,
    taken: &[IpNetwork],
) -> Result<Vec<String>> {
    let underlay = host.underlay(&session.settings).await.ok();
    let tunnel = |underlay: Underlay| {
        let carried = underlay.segment_mtu();
        (underlay.name, carried)
    };
    let mut here = Here {
        taken: taken.to_vec(),
        tunnel: underlay.map(tunnel),
        parent: None,
        nomad: (session.settings.network.conflist_dirs.iter()).any(|it| it.ends_with(&NOMAD[1..])),
    };
    if let Some(macvlan) = &spec.macvlan {
        let parent = host.rtnl.link(&macvlan.parent).await;
        here.parent = parent.map_err(|error| error.to_string())?.map(|it| it.mtu);
    }
    Ok(judge(&here, spec)?)
}

/// Pure.
fn judge(here: &Here, spec: &NetworkSpec) -> std::result::Result<Vec<String>, String> {
    let mut told = Vec::new();
    if here.nomad && spec.name.chars().any(char::is_uppercase) {
        told.push("Nomad finds networks with names in lower case only".to_owned());
    }
    let subnets: Vec<_> = (spec.ranges.iter().flatten())
        .map(|range| range.subnet)
        .collect();
    let pools = spec.choice.iter().flat_map(|choice| choice.pools.iter());
    let mut bases = pools.flatten().map(|pool| pool.base);
    let has_v6 = subnets.iter().any(IpNetwork::is_ipv6) || bases.any(|base| base.is_ipv6());
    if let Some(mtu) = spec.mtu.filter(|mtu| has_v6 && *mtu < LEAST_V6) {
        return Err(format!("--mtu {mtu}: IPv6 needs {LEAST_V6} bytes at least"));
    }
    if let Some(macvlan) = &spec.macvlan {
        let parent = cni::plain(&macvlan.parent);
        match (here.parent, spec.mtu) {
            (None, _) => told.push(format!("parent {parent}: this host has no such interface")),
            (Some(most), Some(mtu)) if mtu > most => {
                told.push(format!("--mtu {mtu}: {parent} of this host has {most}"));
            }
            _ => {}
        }
        return Ok(told);
    }
    if let (Some(mtu), Some((name, carried))) = (spec.mtu, &here.tunnel)
        && mtu > *carried
    {
        let why = format!("the underlay {name} carries {carried} bytes inside the tunnel");
        return Err(format!(
            "--mtu {mtu}: {why}, so no container of this host could join"
        ));
    }
    let egress = spec.egress.as_ref().and_then(|egress| egress.subnet);
    if let Some(egress) = egress
        && let Some((_, subnet)) = ipam::overlapping(&[egress], &subnets)
    {
        let why = "the containers would not reach their way out";
        return Err(format!(
            "--egress-subnet {egress}: overlaps the network's own {subnet}; {why}"
        ));
    }
    let by_gateway = (spec.egress.as_ref()).is_some_and(|it| it.mode == EgressMode::Gateway);
    for subnet in subnets {
        let Some((_, other)) = ipam::overlapping(&[subnet], &here.taken) else {
            continue;
        };
        if by_gateway {
            let why = "with --egress gateway the host needs a route of its own into the subnet";
            return Err(format!(
                "--subnet {subnet}: this host reaches {other}; {why}"
            ));
        }
        let says = format!("this host reaches {other}; containers of the network will not");
        told.push(format!("--subnet {subnet}: {says}"));
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{self, Arguments, Command};

    fn judged(options: &str) -> std::result::Result<Vec<String>, String> {
        let line = format!("crosshost network create n {options}");
        let Some(Command::Network(cli::Network::Create(create))) =
            Arguments::try_parse_from(line.split_whitespace())
                .unwrap()
                .command
        else {
            panic!("another command")
        };
        let spec = super::super::spec(*create, &cluster::NetworkDefaults::default()).unwrap();
        let here = Here {
            taken: vec!["10.1.0.0/16".parse().unwrap()],
            tunnel: Some(("ens3".to_owned(), 1450)),
            parent: Some(1500),
            nomad: false,
        };
        judge(&here, &spec)
    }

    #[test]
    fn what_cannot_work_here_is_refused() {
        for (options, words) in [
            ("--mtu 1451", "--mtu 1451: the underlay ens3 carries 1450"),
            ("--mtu 1200 --ipv6", "--mtu 1200: IPv6 needs 1280"),
            (
                "--mtu 1200 --subnet fd00::/64",
                "--mtu 1200: IPv6 needs 1280",
            ),
            (
                "--subnet 172.19.0.0/24 --egress-subnet 172.19.0.0/16",
                "--egress-subnet 172.19.0.0/16: overlaps the network's own 172.19.0.0/24",
            ),
            (
                "--subnet 10.1.2.0/24 --egress gateway",
                "--subnet 10.1.2.0/24: this host reaches 10.1.0.0/16",
            ),
        ] {
            let refused = judged(options).unwrap_err();
            assert!(refused.starts_with(words), "{options}: {refused}");
        }
    }

    #[test]
    fn what_works_in_part_is_told() {
        for (options, words) in [
            (
                "--subnet 10.1.2.0/24",
                "--subnet 10.1.2.0/24: this host reaches 10.1.0.0/16",
            ),
            (
                "-d macvlan -o parent=ens3 --mtu 9000 --subnet 10.1.0.0/16",
                "--mtu 9000: ens3",
            ),
        ] {
            let told = judged(options).unwrap();
            assert!(
                told.len() == 1 && told[0].starts_with(words),
                "{options}: {told:?}"
            );
        }
        for options in [
            "",
            "--mtu 1450 --ipv6",
            "--subnet 10.2.0.0/24 --egress gateway",
            "-d macvlan -o parent=ens3 --subnet 10.1.0.0/16",
        ] {
            assert_eq!(judged(options).unwrap(), [""; 0], "{options}");
        }
    }

    #[test]
    fn nomad_finds_no_name_with_capitals() {
        let named = |name: &str, nomad| {
            let spec = NetworkSpec {
                name: name.to_owned(),
                ..NetworkSpec::default()
            };
            let here = Here {
                nomad,
                ..Here::default()
            };
            judge(&here, &spec).unwrap().len()
        };
        assert_eq!(
            [
                named("Net1", true),
                named("net1", true),
                named("Net1", false)
            ],
            [1, 0, 0]
        );
    }
}
