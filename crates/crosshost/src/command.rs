//! The command line: `crosshost <noun> <verb>`, and what all verbs start from.

use std::{collections::HashMap, ffi::OsString};

use cluster::{Cluster, Resolved, Settings};
use lexopt::{Arg, Parser, ValueExt as _};
use store::Store;

use crate::{doctor, endpoint, gc, network, node, port, sync, watch};

/// An error is its text: whatever captures a backtrace would, with `RUST_BACKTRACE` set, walk the unwind tables that a
/// released binary does not have (`docs/decisions/0003-binary-size.md`), and abort.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
crosshost: one network for the containers of several hosts

  crosshost network create NAME --subnet CIDR...   make a network, known on all hosts at once
      [--gateway ADDRESS] [--range START-END] [--vni N] [--mtu BYTES] [--vxlan-port PORT]
      [--egress gwbridge|gateway|none] [--egress-subnet CIDR] [--block-prefix BITS]
      [--exclude CIDR]... [--reclaim-after SECONDS]
  crosshost network ls                             all networks
  crosshost network inspect NAME                   one network with its blocks and endpoints
  crosshost network rm NAME                        remove a network without endpoints
  crosshost node ls                                all hosts
  crosshost node rm NAME [--force]                 forget a host that will not come back; --force: and its endpoints
  crosshost endpoint ls [--local]                  who has which address; --local: what this host holds, without the store
  crosshost port ls                                which ports of this host lead to which containers, without the store
  crosshost sync [--watch]                         make this host known, its forwarding and the store up to date;
                                                   --watch: stay, and do so whenever others have news
  crosshost doctor                                 what is wrong on this host, and the command that mends it
  crosshost gc [--dry-run]                         remove what containers left that are gone; --dry-run: list it

A network whose conflist names a data directory (ipam.dataDir) is called NAME@DIRECTORY.

  --json      machine-readable output of ls, inspect and doctor
  --help, --version

Settings come from /etc/crosshost/config.json (or the file that CROSSHOST_CONFIG names), then from CONSUL_HTTP_ADDR
and its like.
";

/// The words of a command line, sorted.
#[derive(Debug, Default)]
pub struct Words {
    /// What is not an option.
    pub plain: Vec<String>,
    /// Options with their values, in order.
    pub options: Vec<(String, String)>,
    /// `--json`.
    pub json: bool,
    /// `--local`.
    pub local: bool,
    /// `--force`.
    pub force: bool,
}

impl Words {
    /// The value of an option that is given at most once.
    pub fn option<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        let mut values = self
            .options
            .iter()
            .filter(|(option, _)| option == name)
            .map(|(_, value)| value);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(format!("--{name}: given twice").into());
        }
        let parsed = value.parse();
        Ok(Some(
            parsed.map_err(|error| format!("--{name} {value}: {error}"))?,
        ))
    }

    /// Whether an option without a value is there.
    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(option, _)| option == name)
    }

    /// The one name that a verb is about.
    pub fn name(&self) -> Result<&str> {
        match self.plain.get(2..) {
            Some([name]) => Ok(name),
            Some([]) | None => {
                let verb = self.plain.join(" ");
                Err(format!("{verb}: want a name; see crosshost --help").into())
            }
            Some([_, more, ..]) => Err(format!("{more:?}: one name at a time").into()),
        }
    }
}

/// What a verb needs: the settings of this host and its store.
pub struct Session {
    /// Settings with file and environment folded in.
    pub settings: Resolved,
    store: Box<dyn Store>,
}

impl Session {
    /// With the settings as they are now. Nothing is sent yet.
    pub fn open() -> Result<Self> {
        let env: HashMap<String, String> = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        let settings = Settings::default().resolve(&env)?;
        let store = settings.open_store()?;
        Ok(Self { settings, store })
    }

    /// The shared records.
    pub fn cluster(&self) -> Cluster<'_> {
        Cluster::new(&*self.store, self.settings.layout.clone())
    }

    /// The same, or those of a configuration that keeps its records apart.
    pub fn cluster_of(
        &self,
        realm: Option<&str>,
    ) -> std::result::Result<Cluster<'_>, cluster::Error> {
        let layout = self.settings.layout.clone();
        let layout = match realm {
            Some(realm) => layout.apart(realm)?,
            None => layout,
        };
        Ok(Cluster::new(&*self.store, layout))
    }
}

/// Runs a command line; the text to print, or why not.
pub fn run(args: impl Iterator<Item = OsString>) -> Result<String> {
    let Some(words) = parse(args)? else {
        return Ok(HELP.to_owned());
    };
    let plain: Vec<&str> = words.plain.iter().map(String::as_str).collect();
    if plain == ["version"] {
        return Ok(format!("crosshost {}\n", cni::build::BUILD));
    }
    match plain.as_slice() {
        ["endpoint", "ls"] if words.local => return endpoint::local(&words),
        ["port", "ls"] => return port::list(&words),
        _ => {}
    }
    // Known before the store is opened: a slip of the pen makes no directory.
    let Some(command) = command(&plain) else {
        let words = plain.join(" ");
        return Err(format!("{words:?}: no such command; see crosshost --help").into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    if command == Command::Sync && words.has("watch") {
        return runtime.block_on(watch::watch());
    }
    let session = Session::open()?;
    runtime.block_on(async {
        match command {
            Command::NetworkCreate => network::create(&session, &words).await,
            Command::NetworkList => network::list(&session, &words).await,
            Command::NetworkInspect => network::inspect(&session, &words).await,
            Command::NetworkRemove => network::remove(&session, &words).await,
            Command::NodeList => node::list(&session, &words).await,
            Command::NodeRemove => node::remove(&session, &words).await,
            Command::EndpointList => endpoint::list(&session, &words).await,
            Command::Sync => sync::sync(&session).await,
            Command::Doctor => doctor::examine(&session, &words).await,
            Command::Gc => gc::sweep(&session, words.has("dry-run")).await,
        }
    })
}

/// What needs the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    NetworkCreate,
    NetworkList,
    NetworkInspect,
    NetworkRemove,
    NodeList,
    NodeRemove,
    EndpointList,
    Sync,
    Doctor,
    Gc,
}

/// The command of these words.
fn command(plain: &[&str]) -> Option<Command> {
    Some(match plain {
        ["network", "create", ..] => Command::NetworkCreate,
        ["network", "ls"] => Command::NetworkList,
        ["network", "inspect", ..] => Command::NetworkInspect,
        ["network", "rm", ..] => Command::NetworkRemove,
        ["node", "ls"] => Command::NodeList,
        ["node", "rm", ..] => Command::NodeRemove,
        ["endpoint", "ls"] => Command::EndpointList,
        ["sync"] => Command::Sync,
        ["doctor"] => Command::Doctor,
        ["gc"] => Command::Gc,
        _ => return None,
    })
}

/// The words, or nothing where help is wanted.
fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Words>> {
    const VALUED: [&str; 11] = [
        "subnet",
        "gateway",
        "range",
        "vni",
        "mtu",
        "vxlan-port",
        "egress",
        "egress-subnet",
        "block-prefix",
        "exclude",
        "reclaim-after",
    ];
    let mut words = Words::default();
    let mut parser = Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long("version") | Arg::Short('V') => words.plain = vec!["version".to_owned()],
            Arg::Long("json") => words.json = true,
            Arg::Long("local") => words.local = true,
            Arg::Long("force") => words.force = true,
            Arg::Long(name @ ("watch" | "dry-run")) => {
                words.options.push((name.to_owned(), String::new()));
            }
            Arg::Long(name) if VALUED.contains(&name) => {
                let name = name.to_owned();
                let value = parser.value()?.string()?;
                words.options.push((name, value));
            }
            Arg::Value(value) => words.plain.push(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(if words.plain.is_empty() {
        None
    } else {
        Some(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Words {
        parse(line.split(' ').map(OsString::from)).unwrap().unwrap()
    }

    #[test]
    fn options_may_stand_anywhere_and_name_their_value_when_bad() {
        let words = words("network create --vni x ov_net1 --subnet 10.0.0.0/24 --subnet fd00::/64");
        assert_eq!(words.name().unwrap(), "ov_net1");
        assert_eq!(
            words.option::<u32>("vni").unwrap_err().to_string(),
            "--vni x: invalid digit found in string"
        );
        assert!(
            words
                .option::<String>("subnet")
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
    }

    #[test]
    fn unknown_words_are_refused_and_none_is_help() {
        assert_eq!(
            command(&["node", "rm", "docker03"]),
            Some(Command::NodeRemove)
        );
        assert_eq!(command(&["node", "inspect"]), None);
        assert!(parse(["--nope"].into_iter().map(OsString::from)).is_err());
        assert_eq!(run(std::iter::empty()).unwrap(), HELP);
        let error = run(["network".into(), "destroy".into()].into_iter()).unwrap_err();
        assert!(error.to_string().contains("network destroy"), "{error}");
    }
}
