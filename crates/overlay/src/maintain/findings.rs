//! The form of what doctor finds. Each finding has a stable id, on which a monitoring rule can rely: `docs/doctor.md` has
//! them all. What it says of a wrong object, such as a forwarding entry, is in `host_state/object.rs`; `diagnose.rs` collects it.

use journal::Unreadable;
use plugin::Error;

use crate::{host_state::Deviation, maintain::diagnose::SYNC};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "docs/doctor.md says what each is")]
pub enum Check {
    Settings,
    Permissions,
    Conflist,
    Store,
    StoreAccess,
    StoreScope,
    StoreOfContainers,
    Node,
    Handover,
    News,
    Watcher,
    Layout,
    Host,
    Vxlan,
    Underlay,
    MountNamespace,
    Sandbox,
    Forwarding,
    BridgePort,
    SourceGuard,
    ContainerNic,
    Bandwidth,
    HostLink,
    NetworkMtu,
    PathMtu,
    RpFilter,
    ForeignRules,
    NftablesTable,
    Egress,
    IpForward,
    BrNetfilter,
    Orphan,
    KilledAdd,
    LeftNetwork,
    PublishedPorts,
    PortRecord,
    RouteLocalnet,
    Releases,
    Documents,
    Records,
    RemovedNetwork,
}

impl Check {
    /// The id of its findings. It never changes.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Permissions => "permissions",
            Self::Conflist => "conflist",
            Self::Store => "store",
            Self::StoreAccess => "store-access",
            Self::StoreScope => "store-scope",
            Self::StoreOfContainers => "store-of-containers",
            Self::Node => "node",
            Self::Handover => "handover",
            Self::News => "news",
            Self::Watcher => "watcher",
            Self::Layout => "layout",
            Self::Host => "host",
            Self::Vxlan => "vxlan",
            Self::Underlay => "underlay",
            Self::MountNamespace => "mount-namespace",
            Self::Sandbox => "sandbox",
            Self::Forwarding => "forwarding",
            Self::BridgePort => "bridge-port",
            Self::SourceGuard => "source-guard",
            Self::ContainerNic => "container-nic",
            Self::Bandwidth => "bandwidth",
            Self::HostLink => "host-link",
            Self::NetworkMtu => "network-mtu",
            Self::PathMtu => "path-mtu",
            Self::RpFilter => "rp-filter",
            Self::ForeignRules => "foreign-rules",
            Self::NftablesTable => "nftables-table",
            Self::Egress => "egress",
            Self::IpForward => "ip-forward",
            Self::BrNetfilter => "br-netfilter",
            Self::Orphan => "orphan",
            Self::KilledAdd => "killed-add",
            Self::LeftNetwork => "left-network",
            Self::PublishedPorts => "published-ports",
            Self::PortRecord => "port-record",
            Self::RouteLocalnet => "route-localnet",
            Self::Releases => "releases",
            Self::Documents => "documents",
            Self::Records => "records",
            Self::RemovedNetwork => "removed-network",
        }
    }
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// To be known; nothing that is certain to harm.
    Note,
    /// Wrong.
    Wrong,
}

/// One line of an examination.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How it is.
    pub state: State,
    /// What it is, with its cause.
    pub says: String,
    /// The command that would mend or allow it; may be empty.
    pub mend: String,
}

/// All of them, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Well.
    pub fn ok(&mut self, check: Check, says: String) {
        self.add(check, State::Ok, says, "");
    }

    /// To be known.
    pub fn note(&mut self, check: Check, says: String, mend: &str) {
        self.add(check, State::Note, says, mend);
    }

    /// Wrong.
    pub fn wrong(&mut self, check: Check, says: String, mend: &str) {
        self.add(check, State::Wrong, says, mend);
    }

    /// Wrong, each with what mends it.
    pub(crate) fn deviate(
        &mut self,
        check: Check,
        of: &str,
        found: impl Iterator<Item = Deviation>,
    ) {
        for deviation in found {
            if deviation.is_curable {
                self.wrong(check, format!("{of}: {}", deviation.what), SYNC);
            } else {
                let says = format!("{of}: {}; DEL and ADD its container", deviation.what);
                self.wrong(check, says, "");
            }
        }
    }

    /// What could not be looked at is wrong, too.
    pub fn failed(&mut self, check: Check, looked: Result<(), Error>) {
        if let Err(error) = looked {
            self.wrong(check, error.msg.clone(), "");
        }
    }

    /// A document that cannot be read, and of which kernel or store know the same.
    pub fn lost(&mut self, unreadable: &Unreadable) {
        let path = unreadable.path.display();
        let mend = format!("rm '{path}'; {SYNC}");
        let mend = if unreadable.is_newer { "" } else { &mend };
        let says = format!("{unreadable}; taken for lost");
        self.wrong(Check::Documents, says, mend);
    }

    /// A document that cannot be read, and that alone knows what an attachment has.
    pub fn held(&mut self, unreadable: &str) {
        let says = format!(
            "{unreadable}; what its container has stays its own until the container's DEL, or a GC of its network"
        );
        self.wrong(Check::Documents, says, "");
    }

    fn add(&mut self, check: Check, state: State, says: String, mend: &str) {
        self.0.push(Finding {
            check,
            state,
            says,
            mend: mend.to_owned(),
        });
    }

    /// What rules of others stop, or may.
    pub fn blocked(&mut self, found: Result<Vec<ruleset::Obstacle>, Error>) {
        let check = Check::ForeignRules;
        match found {
            Ok(found) => {
                for it in found {
                    let state = if it.certain {
                        State::Wrong
                    } else {
                        State::Note
                    };
                    self.add(check, state, it.why, &it.remedy);
                }
            }
            Err(error) => self.note(check, error.msg.clone(), ""),
        }
    }
}
