//! What can go wrong between hosts.

use std::net::IpAddr;

use crate::{Node, records::Lease};

/// An operation on the shared records did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not do its part.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A record is not what this version reads; it is left as it is.
    #[error("record {key}: {why}")]
    Record {
        /// Key of the record.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A setting is missing or wrong.
    #[error("{key}: {why}")]
    Setting {
        /// Where: a file, a key or a variable, with its value where it is no secret.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no network of that name.
    #[error("network {0}: not in the store")]
    NoNetwork(String),
    /// There is none, and nothing to make it of.
    #[error(
        "network {0}: not in the store, and there is no ipam.ranges or ipam.subnet to make it of"
    )]
    NoRanges(String),
    /// A network of that name exists and is not the wanted one.
    #[error("network {name}: {key} is {wanted} here and {have} in the store")]
    Differs {
        /// The network.
        name: String,
        /// The key that differs.
        key: &'static str,
        /// The value that was asked for.
        wanted: String,
        /// The value that the store has.
        have: String,
    },
    /// What this host holds of the network is of another store, or of another place in it.
    #[error(
        "network {network}: its containers on this host were made with the store {there}, these settings name {here}; \
         a host has one store: name the same, or end these containers first"
    )]
    Elsewhere {
        /// The network.
        network: String,
        /// Where what this host holds is known.
        there: String,
        /// Where the settings lead.
        here: String,
    },
    /// A network to be created exists already.
    #[error("network {0}: exists already")]
    Exists(String),
    /// The network is being removed.
    #[error("network {0}: is being removed; finish with: crosshost network rm {0}")]
    Removing(String),
    /// A host is writing again what the store lost of the network.
    #[error(
        "network {name}: the store had lost it and node {node} writes it again; try again, or, if that node is gone: \
         crosshost node rm {node} --force"
    )]
    Restoring {
        /// The network.
        name: String,
        /// The node.
        node: String,
    },
    /// The network was removed while a container of this host was on it that the store did not know of.
    #[error(
        "network {network}: was removed while container {container} here had {address} of it; end that container"
    )]
    Removed {
        /// The network.
        network: String,
        /// The container.
        container: String,
        /// Its address.
        address: IpAddr,
    },
    /// The store has lost the record of a network that has containers.
    #[error(
        "network {name}: the store has lost its record and has leases of containers on {}; run there: crosshost sync, \
         or, where they are gone: crosshost gc", .nodes.join(", ")
    )]
    Forgotten {
        /// The network.
        name: String,
        /// The nodes of the containers.
        nodes: Vec<String>,
    },
    /// Two networks would share addresses.
    #[error("network {name}: subnet {subnet} overlaps {other_subnet} of network {other}")]
    Overlap {
        /// The network to be created.
        name: String,
        /// Its subnet.
        subnet: String,
        /// The network that has the addresses.
        other: String,
        /// The subnet of the other.
        other_subnet: String,
    },
    /// The VXLAN network identifier belongs to another network.
    #[error("network {name}: vni {vni} belongs to network {other}")]
    VniTaken {
        /// The network to be created.
        name: String,
        /// The identifier.
        vni: u32,
        /// The network that has it.
        other: String,
    },
    /// The network still has endpoints.
    #[error("network {name}: has {} endpoint(s): {}", .leases.len(), owners(.leases))]
    InUse {
        /// The network.
        name: String,
        /// Who holds which address.
        leases: Vec<(IpAddr, Lease)>,
    },
    /// All blocks have an owner.
    #[error("network {network}: no free block is left{}{}", block_owners(.owners), waiting(.late))]
    NoBlock {
        /// The network.
        network: String,
        /// How many blocks each node owns.
        owners: Vec<(String, usize)>,
        /// Who has not dropped the last owner of blocks that were given back.
        late: Vec<String>,
    },
    /// What changes hands waits for hosts that have not answered in time.
    #[error("network {network}: {what}{}; try again then", waiting(.nodes))]
    Waiting {
        /// The network.
        network: String,
        /// What changes hands.
        what: String,
        /// For whom it waits.
        nodes: Vec<String>,
    },
    /// The node that has an address does not give it away.
    #[error("network {network}: address {address}: node {node} has it in use or has asked for it")]
    Refused {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
        /// The node that has it.
        node: String,
    },
    /// A requested address is another attachment's.
    #[error(
        "address {address}: held by {} of container {} on node {}", .lease.ifname, .lease.container, .lease.node
    )]
    Held {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        lease: Box<Lease>,
    },
    /// A requested address cannot be given to anyone, or to this attachment.
    #[error("requested address {address}: {why}")]
    BadAddress {
        /// The address.
        address: IpAddr,
        /// What is wrong with it.
        why: String,
    },
    /// A requested MAC cannot be given to this attachment.
    #[error("requested MAC {mac}: {why}")]
    BadMac {
        /// The MAC.
        mac: ipam::Mac,
        /// What is wrong with it.
        why: String,
    },
    /// The attachment has its addresses already.
    #[error(
        "{ifname} of container {container} on network {network}: exists already and holds {held}; DEL it first"
    )]
    Duplicate {
        /// The network.
        network: String,
        /// The container.
        container: String,
        /// Its interface.
        ifname: String,
        /// What it holds.
        held: String,
    },
    /// No address is left for this host.
    #[error("network {network}: address pool exhausted: {why}")]
    Exhausted {
        /// The network.
        network: String,
        /// Who has what, and what could be done.
        why: String,
    },
    /// A container holds an address that the store has for another by now.
    #[error(
        "network {network}: address {address} of container {container} here is {other}'s in the store"
    )]
    Lost {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
        /// The container that holds it on this host.
        container: String,
        /// Whose it is in the store.
        other: String,
    },
    /// A document of this host could not be used.
    #[error("{0}")]
    Local(String),
    /// Another verb of this host held a lock for too long.
    #[error("{0}")]
    Busy(String),
    /// There is no node of that name.
    #[error("node {0}: not registered")]
    NoNode(String),
    /// The name is another host's.
    #[error(
        "node {}: is another host{}; name this host differently (node.name in {}), or, if the other is gone \
         or this host changed its address with the reboot: crosshost node rm {} --force",
        .0.name, traits(.0), crate::CONFIG_FILE, .0.name
    )]
    NodeTaken(Box<Node>),
    /// The tunnel address is another host's too.
    #[error(
        "node {node}: its tunnel address {} is node {}'s too; give one of them another (node.vtep or node.underlay in {}), \
         or, if that is gone or an earlier name of this host: crosshost node rm {} --force",
        .other.vtep.map(|vtep| vtep.to_string()).unwrap_or_default(), .other.name, crate::CONFIG_FILE, .other.name
    )]
    TunnelTaken {
        /// The node that would have it.
        node: String,
        /// The one that has it.
        other: Box<Node>,
    },
    /// The node still has endpoints.
    #[error(
        "node {name}: has {} endpoint(s): {}; if it will not come back: crosshost node rm {name} --force",
        .leases.len(), held(.leases)
    )]
    NodeInUse {
        /// The node.
        name: String,
        /// Which of its attachments hold which address of which network; `None` of a lease that cannot be read.
        leases: Vec<(String, IpAddr, Option<Lease>)>,
    },
    /// Other writers were quicker each time.
    #[error("{0}: changed by others at each of our {ATTEMPTS} attempts; try again", ATTEMPTS = crate::ATTEMPTS)]
    Contended(String),
}

impl Error {
    /// Its text, beginning with `what` it is of, which some begin with by themselves.
    pub fn about(&self, what: &str) -> String {
        let (what, text) = (format!("{what}: "), self.to_string());
        if text.starts_with(&what) {
            text
        } else {
            what + &text
        }
    }

    /// Whether the store could not be reached in time, so that the host must go on alone.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_away())
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) if error.is_away() => ErrorKind::Again,
            Self::Contended(_) | Self::Busy(_) | Self::Restoring { .. } => ErrorKind::Again,
            Self::Local(_) => ErrorKind::Local,
            Self::Store(store::Error::Denied { .. }) => ErrorKind::Denied,
            Self::Setting { .. }
            | Self::Store(
                store::Error::BadUrl { .. }
                | store::Error::BadKey(_)
                | store::Error::BadSetting { .. },
            ) => ErrorKind::Setting,
            Self::Store(_) | Self::Record { .. } => ErrorKind::Store,
            Self::NoNetwork(_)
            | Self::NoRanges(_)
            | Self::Differs { .. }
            | Self::Elsewhere { .. }
            | Self::Removing(_)
            | Self::Removed { .. }
            | Self::Forgotten { .. }
            | Self::NodeTaken(_)
            | Self::TunnelTaken { .. } => ErrorKind::Differs,
            Self::Exists(_) | Self::Overlap { .. } | Self::VniTaken { .. } => ErrorKind::Collides,
            Self::Duplicate { .. } => ErrorKind::Duplicate,
            Self::NoBlock { .. } | Self::Exhausted { .. } => ErrorKind::Exhausted,
            Self::Waiting { .. }
            | Self::Refused { .. }
            | Self::Held { .. }
            | Self::BadAddress { .. }
            | Self::BadMac { .. }
            | Self::Lost { .. } => ErrorKind::Address,
            Self::InUse { .. } | Self::NodeInUse { .. } | Self::NoNode(_) => ErrorKind::Operator,
        }
    }
}

/// Kinds of errors, by what a caller can do. `plugin` gives each its CNI error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again later.
    Again,
    /// A document of this host could not be used.
    Local,
    /// Correct a setting.
    Setting,
    /// The store's answer cannot be understood.
    Store,
    /// The store denies access.
    Denied,
    /// The network or the host is not set up as the settings say.
    Differs,
    /// A new network would collide with another.
    Collides,
    /// The attachment exists already.
    Duplicate,
    /// No address is left.
    Exhausted,
    /// A requested address or MAC cannot be given.
    Address,
    /// A removal of a network or a node is refused; only the operator's command asks for one.
    Operator,
}

fn owners(leases: &[(IpAddr, Lease)]) -> String {
    let spell = |(address, lease): &(IpAddr, Lease)| {
        format!(
            "{address} {} of container {} on node {}",
            lease.ifname, lease.container, lease.node
        )
    };
    list(leases.iter().map(spell))
}

fn held(leases: &[(String, IpAddr, Option<Lease>)]) -> String {
    let spell = |(network, address, lease): &(String, IpAddr, Option<Lease>)| {
        let whose = lease.as_ref().map_or_else(
            || "whose lease cannot be read".to_owned(),
            |lease| format!("{} of container {}", lease.ifname, lease.container),
        );
        format!("{address} of network {network}, {whose}")
    };
    list(leases.iter().map(spell))
}

/// What an operator can tell the other host by.
fn traits(node: &Node) -> String {
    let vtep = node.vtep.map(|vtep| format!("tunnel address {vtep}"));
    let machine = node.machine_id.as_ref().map(|id| format!("machine {id}"));
    let known: Vec<_> = vtep.into_iter().chain(machine).collect();
    if known.is_empty() {
        return String::new();
    }
    format!(" ({})", known.join(", "))
}

fn block_owners(owners: &[(String, usize)]) -> String {
    if owners.is_empty() {
        return String::new();
    }
    let spell = |(node, blocks): &(String, usize)| format!("node {node} has {blocks}");
    format!(": {}", list(owners.iter().map(spell)))
}

/// For whom something waits, and what to do about it.
fn waiting(nodes: &[String]) -> String {
    if nodes.is_empty() {
        return String::new();
    }
    let nodes = list(nodes.iter().map(|node| format!("node {node}")));
    format!(" waits for {nodes} to drop its old home; run there: crosshost sync")
}

/// The first few, and how many more: an error is read by a person.
pub(crate) fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 20;
    let more = items.len().saturating_sub(SHOWN);
    let text = items.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        format!("{text} and {more} more")
    } else {
        text
    }
}
