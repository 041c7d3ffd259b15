//! Where the store is and who this node is: conflist over file over environment over defaults.
//!
//! The file, `/etc/crosshost/config.json`, lets one conflist serve every host. Secrets are named by file.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    DataDir, Error, Layout,
    config::{environment::Environment, network_defaults::NetworkDefaults},
};

/// The host's own settings; the variable `CROSSHOST_CONFIG` names another file.
pub const CONFIG_FILE: &str = "/etc/crosshost/config.json";
const DEFAULT_STORE: &str = "dir:///var/lib/crosshost";
pub(crate) const DEFAULT_PREFIX: &str = "crosshost";

/// The keys `store` and `node`, as a conflist or the configuration file has them, and `network`, which the file alone has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The shared store.
    #[serde(default)]
    pub store: StoreSettings,
    /// This host.
    #[serde(default)]
    pub node: NodeSettings,
    /// What the commands for networks do by default.
    #[serde(default)]
    pub network: NetworkDefaults,
}

/// How to reach the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreSettings {
    /// `consul://host:port`, `consuls://host:port` (TLS), `consul+unix:///path` or `dir:///path`.
    pub url: Option<String>,
    /// First path parts of all keys.
    pub prefix: Option<String>,
    /// File that holds the ACL token.
    pub token_file: Option<PathBuf>,
    /// Certificates of the authorities to trust, PEM.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    pub key_file: Option<PathBuf>,
    /// Folder of such certificates; `ca_file` comes before it.
    pub ca_path: Option<PathBuf>,
    /// The name that the server's certificate must have, if it is not the host in `url`.
    pub server_name: Option<String>,
}

/// Who this host is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSettings {
    /// Name in the cluster; default: the host name.
    pub name: Option<String>,
    /// Interface that carries the tunnels.
    pub underlay: Option<String>,
    /// Tunnel address; must be on this host.
    pub vtep: Option<IpAddr>,
}

/// Settings with all sources folded in.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// How to reach the store.
    pub store: store::Config,
    /// Where the records lie in it.
    pub layout: Layout,
    /// Name of this node.
    pub node: String,
    /// Interface that carries the tunnels, if named.
    pub underlay: Option<String>,
    /// Tunnel address, if named.
    pub vtep: Option<IpAddr>,
    /// What the commands for networks do by default.
    pub network: NetworkDefaults,
    /// Whether a setting names the store; else it is the default one.
    pub names_store: bool,
    /// Why an ADD is refused: the conflist names another store than the host's configuration file.
    pub(crate) another_store: Option<String>,
}

impl Resolved {
    /// Refuses a conflist that names another store than the host's configuration file: a host has one store. For ADD and
    /// STATUS; an attachment that exists is given back by the store with which it was made.
    pub fn refuse_another_store(&self) -> Result<(), Error> {
        let Some(why) = &self.another_store else {
            return Ok(());
        };
        // A malformed URL is a typing error, and not another store.
        self.open_store()?;
        Err(setting("store", why))
    }

    /// The same for the records of a data directory; these are for those of the default one.
    pub fn within(&self, data_dir: &DataDir) -> Result<Self, Error> {
        Ok(Self {
            layout: self.layout.within(data_dir)?,
            ..self.clone()
        })
    }

    /// Opens the store; nothing is sent yet. A malformed URL is an error of its setting.
    pub fn open_store(&self) -> Result<Box<dyn store::Store>, Error> {
        store::open(&self.store).map_err(|error| match error {
            store::Error::BadUrl { url, why } => setting(&format!("store.url: {url}"), &why),
            other => other.into(),
        })
    }
}

impl Settings {
    /// Folds in the configuration file and the environment below what a conflist says.
    pub fn resolve(self, env: &HashMap<String, String>) -> Result<Resolved, Error> {
        let env = Environment::new(env);
        let variable = |name: &str| env.get(name);
        let file = match variable("CROSSHOST_CONFIG") {
            Some(named) => read(Path::new(&named), true)?,
            None => read(Path::new(CONFIG_FILE), false)?,
        };
        let (conf, host) = (self, file);
        let another_store = another_store(&conf.store, &host.store);
        let path = |conf: Option<PathBuf>, host: Option<PathBuf>, name: &str| {
            conf.or(host).or(env.path(name))
        };
        let token_file = path(
            conf.store.token_file,
            host.store.token_file,
            "CONSUL_HTTP_TOKEN_FILE",
        );
        let url = env.store_url(conf.store.url.or(host.store.url))?;
        let names_store = url.is_some();
        let store = store::Config {
            url: url.or(Some(DEFAULT_STORE.to_owned())),
            // A file, wherever it is named, comes before a token in the environment.
            token: if token_file.is_some() {
                None
            } else {
                variable("CONSUL_HTTP_TOKEN")
            },
            token_file,
            ca_file: path(conf.store.ca_file, host.store.ca_file, "CONSUL_CACERT"),
            cert_file: path(
                conf.store.cert_file,
                host.store.cert_file,
                "CONSUL_CLIENT_CERT",
            ),
            key_file: path(
                conf.store.key_file,
                host.store.key_file,
                "CONSUL_CLIENT_KEY",
            ),
            ca_path: path(conf.store.ca_path, host.store.ca_path, "CONSUL_CAPATH"),
            server_name: (conf.store.server_name.or(host.store.server_name))
                .or(variable("CONSUL_TLS_SERVER_NAME")),
            ..store::Config::default()
        };
        let prefix = conf
            .store
            .prefix
            .or(host.store.prefix)
            .unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
        let node = conf
            .node
            .name
            .or(host.node.name)
            .map_or_else(host_name, Ok)?;
        let layout =
            Layout::new(&prefix).map_err(|e| setting(&format!("store.prefix {prefix:?}"), &e))?;
        // The name becomes one path part of a key.
        if node.contains('/') || layout.node(&node).is_err() {
            return Err(setting(
                &format!("node.name {node:?}"),
                &"want letters, digits, '-', '_', '.'",
            ));
        }
        let (underlay, vtep) = (
            conf.node.underlay.or(host.node.underlay),
            conf.node.vtep.or(host.node.vtep),
        );
        Ok(Resolved {
            store,
            layout,
            node,
            underlay,
            vtep,
            network: host.network.check()?,
            names_store,
            another_store,
        })
    }
}

/// What is wrong if a conflist names another store than the host's configuration file.
fn another_store(conf: &StoreSettings, host: &StoreSettings) -> Option<String> {
    let differs = |conf: &Option<String>, host: &Option<String>| {
        conf.is_some() && host.is_some() && conf != host
    };
    let is_named = host.url.is_some() || host.prefix.is_some();
    let prefix = |store: &StoreSettings| {
        let prefix = store.prefix.as_ref().or(host.prefix.as_ref());
        Some(prefix.map_or(DEFAULT_PREFIX, String::as_str).to_owned())
    };
    let is_same = |prefix_of: &StoreSettings| !is_named || prefix(prefix_of) == prefix(host);
    if !differs(&conf.url, &host.url) && is_same(conf) {
        return None;
    }
    let spell = |store: &StoreSettings| {
        let url = store.url.as_ref().or(host.url.as_ref());
        let url = url.map_or_else(String::new, |url| store::without_secrets(url));
        format!("{url} (prefix {})", prefix(store).unwrap_or_default())
    };
    Some(format!(
        "the conflist has {}, this host's configuration file {}; a host has one store",
        spell(conf),
        spell(host),
    ))
}

pub(crate) fn setting(key: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Setting {
        key: key.to_owned(),
        why: why.to_string(),
    }
}

/// The file's settings; defaults if it is absent and was not named.
fn read(path: &Path, named: bool) -> Result<Settings, Error> {
    let key = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => {
            let file = serde_json::from_slice(&bytes).map_err(|error| setting(&key, &error))?;
            refuse_misspelt(&key, &file)?;
            serde_json::from_value(file).map_err(|error| setting(&key, &error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => Ok(Settings::default()),
        Err(error) => Err(setting(&key, &error)),
    }
}

/// Refuses unknown keys and values of the wrong type, by the keys' names. Only in the file, which is ours alone: a
/// conflist has keys of other programs, too. With a misspelt `store` here the host would use a store of its own.
fn refuse_misspelt(path: &str, file: &Value) -> Result<(), Error> {
    let known = serde_json::to_value(Settings::default()).map_err(|error| setting(path, &error))?;
    let unknown = |key: &str, known: &Value| {
        let keys = known.as_object().into_iter().flat_map(Map::keys);
        let want = keys.cloned().collect::<BTreeSet<_>>();
        let want = want.into_iter().collect::<Vec<_>>().join(", ");
        setting(
            &format!("{path}: {key}"),
            &format!("unknown key; want one of {want}"),
        )
    };
    // serde takes a list for an object, too, and an empty list for the defaults.
    let object = |name: &str, value: &Value| {
        let why = "want a JSON object";
        let is = value.is_object();
        is.then_some(()).ok_or_else(|| setting(name, &why))
    };
    object(path, file)?;
    for (section, keys) in file.as_object().into_iter().flatten() {
        let Some(known) = known.get(section) else {
            return Err(unknown(section, &known));
        };
        object(&format!("{path}: {section}"), keys)?;
        for (key, value) in keys.as_object().into_iter().flatten() {
            let name = format!("{section}.{key}");
            if known.get(key).is_none() {
                return Err(unknown(&name, known));
            }
            serde_json::from_value::<Settings>(json!({section: {key: value}}))
                .map_err(|error| setting(&format!("{path}: {name}"), &error))?;
        }
    }
    Ok(())
}

fn host_name() -> Result<String, Error> {
    let path = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(path).map_err(|error| setting(path, &error))?;
    Ok(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_conflist_may_name_the_store_of_the_host_and_no_other() {
        let store = |url: Option<&str>, prefix: Option<&str>| StoreSettings {
            url: url.map(str::to_owned),
            prefix: prefix.map(str::to_owned),
            ..StoreSettings::default()
        };
        let (a, b) = (Some("consul://a:1"), Some("consul://user:s3cret@b:1"));
        for (conf, host) in [
            (store(None, None), store(a, Some("p"))),
            (store(a, None), store(a, Some("p"))),
            (store(a, Some("crosshost")), store(a, None)),
            (store(b, Some("p")), store(None, None)),
            (store(b, None), store(None, Some("p"))),
        ] {
            assert_eq!(another_store(&conf, &host), None, "{conf:?} {host:?}");
        }
        for (conf, host) in [
            (store(a, None), store(b, None)),
            (store(b, None), store(a, Some("p"))),
            (store(a, Some("q")), store(a, Some("p"))),
            (store(None, Some("q")), store(b, None)),
        ] {
            let why = another_store(&conf, &host).unwrap();
            assert!(
                why.contains("one store") && !why.contains("s3cret"),
                "{why}"
            );
        }
    }

    #[test]
    fn conflist_over_file_over_environment_over_defaults() {
        let dir = std::env::temp_dir().join(format!("crosshost-settings-{}", std::process::id()));
        std::fs::write(
            &dir,
            r#"{"store": {"url": "consul://file:1", "prefix": "file"}, "node": {"name": "n1"}}"#,
        )
        .unwrap();
        let file = ("CROSSHOST_CONFIG", dir.to_str().unwrap());
        let conflist = Settings {
            store: StoreSettings {
                url: Some("consul://conf:1".into()),
                ..Default::default()
            },
            ..Default::default()
        };
        let environment = ("CONSUL_HTTP_ADDR", "env:8500");

        let all = conflist.resolve(&env(&[file, environment])).unwrap();
        assert_eq!(all.store.url.as_deref(), Some("consul://conf:1"));
        assert_eq!(
            (all.node.as_str(), all.layout.nodes().unwrap().as_str()),
            ("n1", "file/v1/nodes")
        );
        let from_file = Settings::default()
            .resolve(&env(&[file, environment]))
            .unwrap();
        assert_eq!(from_file.store.url.as_deref(), Some("consul://file:1"));
        for (url, says) in [
            ("redis://a:1", "store.url: redis://a:1"),
            ("consul://a:1", "one store"),
        ] {
            let store = StoreSettings {
                url: Some(url.to_owned()),
                ..Default::default()
            };
            let other = Settings {
                store,
                ..Default::default()
            };
            let refused = other.resolve(&env(&[file])).unwrap().refuse_another_store();
            let why = refused.unwrap_err().to_string();
            assert!(why.contains(says), "{why}");
        }
        std::fs::write(&dir, "{}").unwrap();
        let from_env = Settings::default()
            .resolve(&env(&[file, environment]))
            .unwrap();
        assert_eq!(from_env.store.url.as_deref(), Some("env:8500"));
        let default = Settings::default().resolve(&env(&[file])).unwrap();
        assert_eq!(default.store.url.as_deref(), Some(DEFAULT_STORE));
        std::fs::remove_file(&dir).unwrap();
    }

    #[test]
    fn the_file_has_no_unknown_keys_and_bad_values_are_named() {
        let path = std::env::temp_dir().join(format!("crosshost-misspelt-{}", std::process::id()));
        for (json, what) in [
            (
                r#"{"stroe": {"url": "consul://h"}}"#,
                "stroe: unknown key; want one of network, node, store",
            ),
            (
                r#"{"store": {"token": "t"}}"#,
                "store.token: unknown key; want one of caFile,",
            ),
            (r#"{"node": {"vtep": "x"}}"#, "node.vtep: "),
            (r#"{"store": "consul://h"}"#, "store: want a JSON object"),
            (r#"{"store": []}"#, "store: want a JSON object"),
            ("[]", "want a JSON object"),
            (r#"{"store": {"url": 5}"#, "line 1"),
        ] {
            std::fs::write(&path, json).unwrap();
            let text = path.to_str().unwrap();
            let error = Settings::default()
                .resolve(&env(&[("CROSSHOST_CONFIG", text)]))
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("{text}: ")) && error.contains(what),
                "{error}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        let conflist: Settings = serde_json::from_str(r#"{"stroe": {}}"#).unwrap();
        assert_eq!(conflist, Settings::default(), "a conflist has others' keys");
    }

    #[test]
    fn bad_settings_name_their_place_and_value() {
        let missing =
            Settings::default().resolve(&env(&[("CROSSHOST_CONFIG", "/nowhere/config.json")]));
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .contains("/nowhere/config.json")
        );
        let name = Settings {
            node: NodeSettings {
                name: Some("a/b".into()),
                ..Default::default()
            },
            ..Default::default()
        };
        assert!(
            name.resolve(&env(&[]))
                .unwrap_err()
                .to_string()
                .contains("a/b")
        );
    }
}
