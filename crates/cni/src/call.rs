//! One call of a plugin: environment and configuration, checked. An empty variable counts as unset, because some runtimes set
//! all of them.

use crate::delegate::DELEGATED;
use crate::skeleton::BuiltIn;
use crate::{CniArgs, ContainerId, Error, IfName, NetConf};
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    const ALL: [Self; 6] = [
        Self::Add,
        Self::Del,
        Self::Check,
        Self::Gc,
        Self::Status,
        Self::Version,
    ];

    /// As in the environment: `ADD`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The command named `text`. Code 4.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|c| text == c.as_str());
        let bad = || {
            Error::env(format!(
                "CNI_COMMAND: {} is not a CNI command",
                text.display()
            ))
        };
        found.ok_or_else(bad)
    }

    /// Whether it applies to one attachment.
    pub(crate) const fn has_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }

    /// The variables that must be set. A DEL without `CNI_PATH` is accepted: it can do everything but delegate.
    const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc | Self::Status | Self::Version => &[],
        }
    }
}

/// A call of the runtime. Everything in it is checked, and what the verb requires is present.
#[derive(Debug, Clone)]
pub struct Call {
    /// The verb.
    pub command: Command,
    /// Always there in ADD, DEL, CHECK; none in the others.
    pub container: Option<ContainerId>,
    /// Always there in ADD, DEL, CHECK; none in the others.
    pub ifname: Option<IfName>,
    /// `CNI_NETNS` as given; never our own namespace. In a plugin that is started by [`crate::run`] and needs it: always present
    /// in ADD and CHECK, in DEL only if the namespace exists. `None` in the other verbs.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: CniArgs,
    /// `CNI_PATH`: the directories of delegates. Never empty in ADD and CHECK.
    pub path: Vec<PathBuf>,
    /// The configuration.
    pub conf: NetConf,
    /// The configuration's bytes, for delegates.
    pub stdin: Vec<u8>,
    /// The whole environment, for delegates.
    pub env: Vec<(OsString, OsString)>,
    /// The plugins that are built into this process.
    pub(crate) built_in: &'static [BuiltIn],
}

impl Call {
    /// Checks environment and configuration, but nothing on the machine ([`crate::run`] checks the namespace).
    /// Codes 4, 6, 1, 7 in this order.
    pub fn new(env: Vec<(OsString, OsString)>, stdin: Vec<u8>) -> Result<Self, Error> {
        let command = Command::parse(variable(&env, "CNI_COMMAND").unwrap_or_default())?;
        let missing: Vec<&str> = command
            .required()
            .iter()
            .copied()
            .filter(|name| variable(&env, name).is_none())
            .collect();
        if !missing.is_empty() {
            let (command, missing) = (command.as_str(), missing.join(", "));
            return Err(Error::env(format!("{command} needs {missing}")));
        }
        let text = |name| {
            let value = variable(&env, name).filter(|_| command.has_attachment());
            value.map(|v| v.to_string_lossy().into_owned())
        };
        let bad = |name| move |e| Error::env(format!("{name}: {e}"));
        let container = text("CNI_CONTAINERID")
            .map(ContainerId::new)
            .transpose()
            .map_err(bad("CNI_CONTAINERID"))?;
        let ifname = text("CNI_IFNAME")
            .map(IfName::new)
            .transpose()
            .map_err(bad("CNI_IFNAME"))?;
        let netns = variable(&env, "CNI_NETNS").filter(|_| command.has_attachment());
        let netns = netns.map(PathBuf::from);
        let args = text("CNI_ARGS").unwrap_or_default();
        let path = variable(&env, "CNI_PATH").unwrap_or_default();
        let path = std::env::split_paths(path).filter(|dir| !dir.as_os_str().is_empty());
        Ok(Self {
            command,
            container,
            ifname,
            netns,
            args: CniArgs::parse(&args),
            path: path.collect(),
            conf: NetConf::parse(&stdin, command)?,
            stdin,
            env,
            built_in: &[],
        })
    }

    /// The environment as text, without what is not UTF-8.
    pub fn variables(&self) -> HashMap<String, String> {
        let text = |(key, value): &(OsString, OsString)| {
            Some((key.to_str()?.to_owned(), value.to_str()?.to_owned()))
        };
        self.env.iter().filter_map(text).collect()
    }

    /// The MAC that the runtime requests: `runtimeConfig.mac`, or else `args.cni.mac`, or else `MAC` of `CNI_ARGS`, as in the
    /// reference. An empty text counts as absent. Codes 7 and 4, naming key and value.
    pub fn mac<T: FromStr<Err: Display>>(&self) -> Result<Option<T>, Error> {
        let Asked {
            runtime_config,
            args,
        } = self.conf.decode()?;
        let args = args.and_then(|args| args.cni);
        for (key, asked) in [
            ("runtimeConfig.mac", runtime_config),
            ("args.cni.mac", args),
        ] {
            let text = asked.and_then(|asked| asked.mac);
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                let bad = |why: T::Err| Error::config(format!("{key}: {why}"));
                return text.parse().map(Some).map_err(bad);
            }
        }
        self.args
            .typed("MAC", "a MAC address that an interface can have")
    }

    /// Whether one of our plugins runs this one as its IPAM plugin.
    pub fn is_delegated(&self) -> bool {
        variable(&self.env, DELEGATED).is_some()
    }

    /// Whether `CNI_NETNS_OVERRIDE` lets `CNI_NETNS` be the plugin's own namespace, as in the reference library.
    pub fn allows_own_netns(&self) -> bool {
        variable(&self.env, "CNI_NETNS_OVERRIDE")
            .is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true"))
    }

    /// Container and interface of ADD, DEL, CHECK; code 4 in other verbs.
    pub fn attachment(&self) -> Result<(&ContainerId, &IfName), Error> {
        let both = self.container.as_ref().zip(self.ifname.as_ref());
        let command = self.command.as_str();
        both.ok_or_else(|| Error::env(format!("{command} does not apply to one attachment")))
    }
}

/// The places where runtimes put a MAC.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Asked {
    runtime_config: Option<AskedMac>,
    args: Option<AskedArgs>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AskedArgs {
    cni: Option<AskedMac>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AskedMac {
    mac: Option<String>,
}

/// A variable of `env`, if it is set and not empty.
pub(crate) fn variable<'a>(env: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    let (_, value) = env.iter().find(|(key, _)| key == name)?;
    (!value.is_empty()).then_some(value)
}
