//! The command line: each command has its own options and no others. Anything else is refused with exit code 2, before anything is
//! read or written.

use std::{net::IpAddr, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;

use crate::commands::{endpoint, network, node, port};

/// One network for the containers of several hosts.
#[derive(Debug, Parser)]
#[command(
    name = "crosshost",
    version = cni::build::BUILD,
    disable_help_subcommand = true,
    after_help = "Settings come from /etc/crosshost/config.json (or the file that CROSSHOST_CONFIG names), then from \
                  CONSUL_HTTP_ADDR and its like.\n\
                  Exit codes: 0 done, and nothing is wrong; 1 something is wrong, or refused as things are; 2 wrong usage, and \
                  nothing was touched; 3 settings, store or kernel could not be read or written."
)]
pub struct Arguments {
    /// `None` prints the help.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, show and remove networks.
    #[command(subcommand)]
    Network(Network),
    /// Show and remove hosts.
    #[command(subcommand)]
    Node(Node),
    /// Show which container has which address.
    #[command(subcommand)]
    Endpoint(Endpoint),
    /// Show published ports.
    #[command(subcommand)]
    Port(Port),
    /// Register this host, and bring its forwarding and the store up to date.
    Sync {
        /// Keep running, and do so whenever other hosts change something.
        #[arg(long)]
        watch: bool,
    },
    /// Report what is wrong on this host, with the command that repairs it.
    Doctor(Output),
    /// Remove what is left of containers that are gone.
    Gc {
        /// Only list what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print a script that completes commands and options in a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Write the man pages.
    #[command(hide = true)]
    Man {
        /// Folder for the pages; it is made if it is missing.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Print the version, as --version does.
    #[command(hide = true)]
    Version,
}

/// `crosshost network`.
#[derive(Debug, Subcommand)]
pub enum Network {
    /// Create a network for all hosts.
    Create(Box<Create>),
    /// List all networks.
    #[command(visible_alias = "list")]
    Ls(Listing<network::Filter>),
    /// Show one network with its blocks and endpoints.
    Inspect {
        /// A network; NAME@DIRECTORY if its conflist names a data directory (ipam.dataDir).
        name: String,
        /// Print container ids whole, not their first 12 characters.
        #[arg(long)]
        no_trunc: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Change a network in place: labels, a lower MTU, a further subnet.
    Update(Update),
    /// Attach a running container of this host to a network.
    Connect(Connect),
    /// Detach a container of this host from a network.
    Disconnect {
        /// A network.
        network: cni::NetworkName,
        /// As of network connect; the whole id if the container is gone.
        container: String,
    },
    /// Remove networks that have no endpoints.
    #[command(visible_alias = "remove")]
    Rm {
        /// Networks; NAME@DIRECTORY if a conflist names a data directory (ipam.dataDir).
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Remove all networks that network create made and that have no endpoints on any host.
    Prune(Prune),
}

/// `crosshost network update`.
#[derive(Debug, Args)]
pub struct Update {
    /// A network; NAME@DIRECTORY if its conflist names a data directory (ipam.dataDir).
    pub name: String,
    /// A further subnet, for containers that find no free address in the others; may be repeated.
    #[arg(long, value_name = "CIDR")]
    pub subnet: Vec<IpNetwork>,
    /// The gateway's address of a further subnet. Default: its first address.
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Vec<IpAddr>,
    /// A lower MTU, also of running containers.
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// A label to set; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// A label to remove; may be repeated.
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
}

/// `crosshost network connect`.
#[derive(Debug, Args)]
pub struct Connect {
    /// A network.
    pub network: cni::NetworkName,
    /// A running container of this host: name, id, the beginning of an id, or the path of its network namespace.
    pub container: String,
    /// An address that it is to have; one for each IP version.
    #[arg(long, visible_alias = "ip6", value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// The MAC that it is to have.
    #[arg(long, visible_alias = "mac-address", value_name = "MAC")]
    pub mac: Option<ipam::Mac>,
    /// The interface's name in the container. Default: the first free one of eth0, eth1, ...
    #[arg(long, value_name = "NAME")]
    pub interface: Option<cni::IfName>,
}

/// `crosshost network prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// Do not ask.
    #[arg(long, short)]
    pub force: bool,
    /// Only list what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    #[arg(long, value_name = "KEY=VALUE", help = network::Filter::HELP)]
    pub filter: Vec<network::Filter>,
}

/// `crosshost network create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Name of the network, as in a conflist.
    pub name: cni::NetworkName,
    /// What makes it: VXLAN tunnels between the hosts, or the reference plugin macvlan on the hosts' own segment.
    #[arg(long, short, value_name = "DRIVER", default_value = "overlay")]
    pub driver: Driver,
    /// An option of the driver; may be repeated. overlay: mtu, vni; macvlan: mtu, parent, mode.
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    /// Accepted because Docker's command has it: each network takes any container.
    #[arg(long = "attachable")]
    pub _attachable: bool,
    /// A subnet of the network; one for each IP version. Default: the first free one of network.defaultAddressPools in
    /// /etc/crosshost/config.json, or of 10.0.0.0/8 in pieces of /24.
    #[arg(long, value_name = "CIDR")]
    pub subnet: Vec<IpNetwork>,
    /// Also have IPv6, with a unique local subnet if no --subnet is one of IPv6.
    #[arg(long)]
    pub ipv6: bool,
    /// A gateway's address; one for each subnet. Default: the first address of the subnet.
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Vec<IpAddr>,
    /// The part of a subnet from which containers get addresses; one for each subnet. Default: the whole subnet.
    #[arg(long, value_name = "CIDR", conflicts_with = "range")]
    pub ip_range: Vec<IpNetwork>,
    /// The same by first and last address, for a network with one subnet.
    #[arg(long, value_name = "START-END", value_parser = bounds)]
    pub range: Option<(IpAddr, IpAddr)>,
    /// The VXLAN network identifier. Default: the next free one from 4097 on.
    #[arg(long)]
    pub vni: Option<u32>,
    /// Largest packet on the network. Default: what fits through the underlay.
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// UDP port of the tunnels. Default: 4789.
    #[arg(long, value_name = "PORT")]
    pub vxlan_port: Option<u16>,
    /// How containers reach the outside. Default: gwbridge.
    #[arg(long)]
    pub egress: Option<Egress>,
    /// Without a way out, as --egress none.
    #[arg(long, conflicts_with = "egress")]
    pub internal: bool,
    /// Subnet of the egress bridge, with --egress gwbridge.
    #[arg(long, value_name = "CIDR")]
    pub egress_subnet: Option<IpNetwork>,
    /// A network with which it may meet, if that names this one as well, with --egress gateway; may be repeated.
    #[arg(long, value_name = "NETWORK")]
    pub reaches: Vec<String>,
    /// Prefix length of the blocks that hosts own. Default: depends on the size of the subnet.
    #[arg(long, value_name = "BITS")]
    pub block_prefix: Option<u8>,
    /// Addresses that no container gets; may be repeated.
    #[arg(long, value_name = "CIDR")]
    pub exclude: Vec<IpNetwork>,
    /// An address that no container gets, because something else has it; may be repeated.
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub aux_address: Vec<String>,
    /// A word about the network, which network ls and inspect show; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Seconds without contact after which a host's blocks go to other hosts. Default: never.
    #[arg(long, value_name = "SECONDS")]
    pub reclaim_after: Option<u64>,
}

/// `--driver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// VXLAN tunnels between the hosts.
    Overlay,
    /// The reference plugin macvlan with our addresses.
    Macvlan,
}

/// `--egress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Egress {
    /// Through a bridge on each host, with NAT.
    Gwbridge,
    /// Through the network's gateway, which is the host.
    Gateway,
    /// Not at all.
    None,
}

/// `crosshost node`.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// List all hosts.
    #[command(visible_alias = "list")]
    Ls(Listing<node::Filter>),
    /// Remove a host that will not come back.
    #[command(visible_alias = "remove")]
    Rm {
        /// Name of the host.
        name: String,
        /// Also remove a host that had contact a moment ago, or that has endpoints. They are removed, too.
        #[arg(long)]
        force: bool,
    },
}

/// `crosshost endpoint`.
#[derive(Debug, Subcommand)]
pub enum Endpoint {
    /// List which container has which address, on all networks.
    #[command(visible_alias = "list")]
    Ls {
        /// List what this host holds, without the store.
        #[arg(long)]
        local: bool,
        /// Print container ids whole, not their first 12 characters.
        #[arg(long)]
        no_trunc: bool,
        #[command(flatten)]
        listing: Listing<endpoint::Filter>,
    },
}

/// `crosshost port`.
#[derive(Debug, Subcommand)]
pub enum Port {
    /// List which ports of this host lead to which containers, without the store.
    #[command(visible_alias = "list")]
    Ls {
        /// Print container ids whole, not their first 12 characters.
        #[arg(long)]
        no_trunc: bool,
        #[command(flatten)]
        listing: Listing<port::Filter>,
    },
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A condition on the rows of a list: `KEY=VALUE`.
pub trait Filter: FromStr<Err = String> + Clone + Send + Sync + 'static {
    /// What the help says of `--filter`.
    const HELP: &'static str;
    /// What the help says of `--quiet`.
    const QUIET: &'static str;
}

/// Which rows of a list are printed, and how.
#[derive(Debug, Clone, Args)]
pub struct Listing<F: Filter> {
    #[arg(long, short, value_name = "KEY=VALUE", help = F::HELP)]
    pub filter: Vec<F>,
    #[arg(long, short, conflicts_with = "json", help = F::QUIET)]
    pub quiet: bool,
    #[command(flatten)]
    pub output: Output,
}

/// The shells for which there is a completion script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// The ends of `--range`.
fn bounds(text: &str) -> Result<(IpAddr, IpAddr), String> {
    let (start, end) = text.split_once('-').ok_or("want START-END")?;
    let parse = |part: &str| {
        let parsed = part.parse::<IpAddr>();
        parsed.map_err(|error| format!("{part}: {error}"))
    };
    Ok((parse(start)?, parse(end)?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    /// Commands with the words that lead to them.
    fn commands(command: &clap::Command, words: &str, found: &mut Vec<(String, clap::Command)>) {
        let words = format!("{words} {}", command.get_name());
        for subcommand in command.get_subcommands() {
            commands(subcommand, &words, found);
        }
        found.push((words, command.clone()));
    }

    #[test]
    fn help_explains_each_command_option_and_value() {
        let mut all = Vec::new();
        let mut definition = Arguments::command();
        definition.build();
        commands(&definition, "", &mut all);
        let mut seen = 0;
        for (words, command) in all {
            let says = |help: Option<&clap::builder::StyledStr>, what: &str| {
                let help = help.map(ToString::to_string).unwrap_or_default();
                assert!(help.len() > 5, "{words}: {what} is not explained: {help:?}");
            };
            says(command.get_about(), "the command");
            for argument in command.get_arguments() {
                seen += 1;
                says(argument.get_help(), argument.get_id().as_str());
                for value in argument.get_possible_values() {
                    // Of an option without a value clap gives true and false.
                    if argument.get_action().takes_values() {
                        says(value.get_help(), value.get_name());
                    }
                }
            }
        }
        assert!(seen > 50, "the definition was walked: {seen}");
    }

    #[test]
    fn the_commands_of_other_programs_mean_the_same() {
        for (typed, meant) in [
            ("node list", "node ls"),
            ("node remove docker02", "node rm docker02"),
            ("endpoint list --local", "endpoint ls --local"),
            ("port list -q", "port ls --quiet"),
            ("port ls -f network=n", "port ls --filter network=n"),
        ] {
            let words = |line: &str| format!("crosshost {line}");
            let parse = |line: &str| Arguments::try_parse_from(words(line).split(' '));
            let [typed, meant] = [typed, meant].map(|line| format!("{:?}", parse(line).unwrap()));
            assert_eq!(typed, meant);
        }
    }

    #[test]
    fn a_slip_gets_a_suggestion() {
        for (typed, meant) in [
            ("netwrok ls", "'network'"),
            ("node lst", "'list'"),
            ("node rm docker02 --forse", "'--force'"),
            ("completion bsh", "'bash'"),
        ] {
            let line = format!("crosshost {typed}");
            let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
            assert!(error.to_string().contains(meant), "{typed}: {error}");
        }
    }

    #[test]
    fn options_may_stand_anywhere_and_name_their_value_when_bad() {
        let words = |line: &str| Arguments::try_parse_from(line.split(' '));
        let line = "crosshost network create --vni 7 n --subnet 10.0.0.0/24 --subnet fd00::/64";
        let Some(Command::Network(Network::Create(create))) = words(line).unwrap().command else {
            panic!("another command")
        };
        assert_eq!((create.name.as_str(), create.vni), ("n", Some(7)));
        assert_eq!(create.subnet.len(), 2);
        for (bad, named) in [
            ("network create n --subnet 10.0.0.0/33", "10.0.0.0/33"),
            ("network create n --subnet 10.0.0.0/24 --vni x", "--vni"),
            (
                "network create n --subnet 10.0.0.0/24 --vni 1 --vni 2",
                "multiple",
            ),
            (
                "network create n --subnet 10.0.0.0/24 --egress bridge",
                "bridge",
            ),
            (
                "network create n --subnet 10.0.0.0/24 --range 10.0.0.5",
                "START-END",
            ),
            ("network create a/b --subnet 10.0.0.0/24", "a/b"),
            ("network rm", "NAME"),
            ("network destroy", "destroy"),
            ("node inspect", "inspect"),
        ] {
            let error = words(&format!("crosshost {bad}")).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
            assert!(error.to_string().contains(named), "{bad}: {error}");
        }
    }
}
