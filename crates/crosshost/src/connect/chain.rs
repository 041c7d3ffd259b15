//! Runs the plugins of a conflist, as libcni does for runtimes (CNI specification, section 3): each plugin with its entry, the
//! network's name and version, what the capabilities ask for, and the result of the plugin before it.

use std::{
    env,
    ffi::OsString,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use journal::Attachment;
use serde_json::{Map, Value, json};

use crate::session::Result;

/// Where distributions put plugins. `CNI_PATH` names other folders.
const FOLDERS: &str = "/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni:/usr/local/lib/cni";

/// What an attachment asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its addresses; empty: free ones.
    pub ips: Vec<IpAddr>,
    /// Its MAC.
    pub mac: Option<ipam::Mac>,
}

/// The plugins of a network, for one attachment.
pub struct Chain<'a> {
    /// The network's configuration, with a list of plugins.
    pub conflist: &'a Value,
    /// The attachment.
    pub attachment: &'a Attachment,
    /// The container's namespace.
    pub netns: &'a Path,
}

impl Chain<'_> {
    /// ADD of each plugin; the result of the last. If one refuses, those before it are undone.
    pub fn add(&self, asked: &Asked) -> Result<Value> {
        let mut previous = Value::Null;
        for (at, plugin) in self.plugins().iter().enumerate() {
            match self.run("ADD", plugin, &previous, asked) {
                Ok(result) => previous = result,
                Err(error) => {
                    for plugin in self.plugins()[..=at].iter().rev() {
                        if let Err(error) = self.run("DEL", plugin, &previous, asked) {
                            cni::log(&format!("undo: {error}"));
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(previous)
    }

    /// DEL of each plugin, the last one first. `result` is that of the ADD, if it is known. All are run; the first error is returned.
    pub fn del(&self, result: &Value) -> Result<()> {
        let mut failed = Ok(());
        for plugin in self.plugins().iter().rev() {
            let done = self.run("DEL", plugin, result, &Asked::default());
            failed = failed.and(done.map(drop));
        }
        failed
    }

    fn plugins(&self) -> &[Value] {
        let plugins = self.conflist["plugins"].as_array();
        plugins.map_or(&[], Vec::as_slice)
    }

    fn run(&self, verb: &str, plugin: &Value, previous: &Value, asked: &Asked) -> Result<Value> {
        let name = plugin["type"].as_str().unwrap_or_default();
        let program = find(name)?;
        let (conf, args) = request(self.conflist, plugin, previous, asked);
        let mut child = Command::new(&program)
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &self.attachment.container)
            .env("CNI_IFNAME", &self.attachment.ifname)
            .env("CNI_NETNS", self.netns)
            .env("CNI_ARGS", args)
            .env("CNI_PATH", path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that does not read its configuration says why itself.
            let _ = stdin.write_all(conf.to_string().as_bytes());
        }
        let output = child.wait_with_output()?;
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if output.status.success() {
            return Ok(said);
        }
        let why = match (said["msg"].as_str(), said["details"].as_str()) {
            (Some(msg), None | Some("")) => msg.to_owned(),
            (Some(msg), Some(details)) => format!("{msg}; {details}"),
            (None, _) => format!("ended with {}", output.status),
        };
        Err(format!("{name}: {why}").into())
    }
}

/// What a plugin is given: its configuration, and `CNI_ARGS`. What is asked for is a capability where the plugin declares it.
fn request(conflist: &Value, plugin: &Value, previous: &Value, asked: &Asked) -> (Value, String) {
    let mut conf = plugin.clone();
    for key in ["cniVersion", "name"] {
        conf[key] = conflist[key].clone();
    }
    if !previous.is_null() {
        conf["prevResult"] = previous.clone();
    }
    let declares = |capability: &str| plugin["capabilities"][capability] == json!(true);
    let (mut runtime, mut args) = (Map::new(), vec!["IgnoreUnknown=1".to_owned()]);
    if !asked.ips.is_empty() {
        let ips: Vec<_> = asked.ips.iter().map(ToString::to_string).collect();
        if declares("ips") {
            runtime.insert("ips".to_owned(), json!(ips));
        } else {
            args.push(format!("IP={}", ips.join(",")));
        }
    }
    if let Some(mac) = asked.mac {
        if declares("mac") {
            runtime.insert("mac".to_owned(), json!(mac.to_string()));
        } else {
            args.push(format!("MAC={mac}"));
        }
    }
    if !runtime.is_empty() {
        conf["runtimeConfig"] = Value::Object(runtime);
    }
    (conf, args.join(";"))
}

fn path() -> OsString {
    let named = env::var_os("CNI_PATH").filter(|path| !path.is_empty());
    named.unwrap_or_else(|| FOLDERS.into())
}

fn find(plugin: &str) -> Result<PathBuf> {
    let is_name = !plugin.is_empty() && !plugin.contains('/');
    let mut folders = env::split_paths(&path()).collect::<Vec<_>>().into_iter();
    let found = folders
        .find(|folder| is_name && folder.join(plugin).is_file())
        .map(|folder| folder.join(plugin));
    found.ok_or_else(|| {
        let folders = path().to_string_lossy().into_owned();
        format!("plugin {plugin:?} is in none of {folders}; CNI_PATH names other folders").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_gets_its_entry_and_what_it_can_do_of_what_is_asked() {
        let conflist = json!({
            "cniVersion": "1.0.0", "name": "n", "plugins": [
                { "type": "overlay", "capabilities": { "ips": true } },
                { "type": "macvlan" },
            ],
        });
        let asked = Asked {
            ips: vec!["10.0.0.7".parse().unwrap()],
            mac: Some("02:00:00:00:00:07".parse().unwrap()),
        };
        let of = |at: usize, previous: Value| {
            request(&conflist, &conflist["plugins"][at], &previous, &asked)
        };
        let (conf, args) = of(0, Value::Null);
        assert_eq!(conf["runtimeConfig"], json!({ "ips": ["10.0.0.7"] }));
        assert_eq!(
            (&conf["name"], &conf["cniVersion"]),
            (&json!("n"), &json!("1.0.0"))
        );
        assert_eq!(args, "IgnoreUnknown=1;MAC=02:00:00:00:00:07");
        assert_eq!(conf.get("prevResult"), None);
        let (conf, args) = of(1, json!({ "ips": [] }));
        assert_eq!(conf["prevResult"], json!({ "ips": [] }));
        assert_eq!(args, "IgnoreUnknown=1;IP=10.0.0.7;MAC=02:00:00:00:00:07");
    }
}
