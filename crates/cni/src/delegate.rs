//! Runs another plugin, as an interface plugin runs its IPAM plugin (specification, section 4).
//!
//! The delegate gets the same bytes and the same environment as this plugin, because what a runtime or a later version of the
//! specification adds is for the delegate, too. Its errors are returned unchanged. Its standard error is copied to ours.

use crate::conf::VALID;
use crate::process::Process;
use crate::running::{Running, Work};
use crate::skeleton::BuiltIn;
use crate::{Call, CniResult, Command, ContainerId, Error, IfName};
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;

/// Set in the environment of a delegate. A delegate must not delegate again: if it were the caller under another name, that
/// would never end.
pub(crate) const DELEGATED: &str = "CROSSHOST_DELEGATED";

/// How long a delegate may take. The slowest one known, the reference's `dhcp`, gives up after less than two minutes without
/// an answer.
const LIMIT: Duration = Duration::from_mins(2);

/// A plugin to which a call can be passed on.
#[derive(Debug, Clone)]
pub struct Delegate<'a> {
    call: &'a Call,
    program: PathBuf,
    /// Set if the plugin is built into the program of this process; then it runs in this process.
    built_in: Option<BuiltIn>,
    stdin: Vec<u8>,
    /// Variables that differ from those of the call.
    env: Vec<(&'static str, OsString)>,
    limit: Duration,
}

impl<'a> Delegate<'a> {
    /// The regular file `name` in the first directory of `CNI_PATH` that has one. Code 4 without `CNI_PATH`; code 7 if there is
    /// none, if `name` cannot be a plugin's name, or if it is the calling plugin itself, which would never end.
    pub fn find(call: &'a Call, name: &str) -> Result<Self, Error> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(Error::config(format!("{name:?} is not a plugin's name")));
        }
        if name == call.conf.plugin_type {
            let msg = format!("plugin {name} cannot delegate to itself");
            return Err(Error::config(msg));
        }
        if call.is_delegated() {
            let msg = format!("an IPAM plugin cannot delegate to plugin {name}");
            return Err(Error::config(msg));
        }
        if call.path.is_empty() {
            let msg = format!("CNI_PATH is needed to run plugin {name}");
            return Err(Error::env(msg));
        }
        let programs = call.path.iter().map(|dir| dir.join(name));
        let mut files = programs.filter_map(|program| {
            let file = fs::metadata(&program).ok().filter(fs::Metadata::is_file)?;
            Some((program, file))
        });
        let (program, file) = files.next().ok_or_else(|| {
            let dirs: Vec<_> = call.path.iter().map(|d| d.display().to_string()).collect();
            Error::config(format!("plugin {name} is in no directory of CNI_PATH"))
                .with_details(dirs.join(", "))
        })?;
        let built_in = call.built_in.iter().find(|it| it.name == name);
        Ok(Self {
            call,
            program,
            built_in: built_in.filter(|_| is_this_program(&file)).copied(),
            stdin: call.stdin.clone(),
            env: Vec::new(),
            limit: LIMIT,
        })
    }

    /// The same for an attachment of the caller itself. The addresses and the MAC that the runtime requests are for the
    /// attachment of the call, and are left out. Code 6 if the configuration is no object.
    pub fn on_behalf(&self, container: &str, ifname: &str, netns: &Path) -> Result<Self, Error> {
        let mut stdin = object(&self.stdin)?;
        stdin.retain(|key, _| !key.eq_ignore_ascii_case("args"));
        for (key, value) in &mut stdin {
            if let Some(asked) = value.as_object_mut()
                && key.eq_ignore_ascii_case("runtimeConfig")
            {
                let own = |key: &str| ["ips", "mac"].iter().any(|it| key.eq_ignore_ascii_case(it));
                asked.retain(|key, _| !own(key));
            }
        }
        let env = vec![
            ("CNI_CONTAINERID", container.into()),
            ("CNI_IFNAME", ifname.into()),
            ("CNI_NETNS", netns.into()),
            ("CNI_ARGS", OsString::new()),
        ];
        let stdin = encoded(&stdin)?;
        Ok(Self {
            stdin,
            env,
            ..self.clone()
        })
    }

    /// The same with another limit than two minutes. A program that has not ended by then is killed, and the verb fails with code
    /// 198. A built-in plugin has limits of its own.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The file that is run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// ADD. A result without a version has that of the configuration; `null` is an empty result.
    pub fn add(&self) -> Result<CniResult, Error> {
        self.start(Command::Add).result()
    }

    /// DEL, also as undo of an ADD.
    pub fn del(&self) -> Result<(), Error> {
        self.start(Command::Del).finish()
    }

    /// CHECK.
    pub fn check(&self) -> Result<(), Error> {
        self.start(Command::Check).finish()
    }

    /// GC that also keeps the attachments `at_work`, beside those in the caller's list. Only here does the delegate's
    /// configuration differ from ours.
    pub fn gc(mut self, at_work: &[(ContainerId, IfName)]) -> Result<(), Error> {
        if !at_work.is_empty() {
            self.stdin = sparing(&self.stdin, at_work)?;
        }
        self.start(Command::Gc).finish()
    }

    /// STATUS.
    pub fn status(&self) -> Result<(), Error> {
        self.start(Command::Status).finish()
    }

    /// Starts a verb on a thread beside the caller; a built-in plugin runs in this process. If the program cannot be run, the
    /// result says so (code 5).
    pub fn start(&self, command: Command) -> Running {
        let said = [("CNI_COMMAND", command.as_str()), (DELEGATED, "1")];
        let said = said.map(|(key, value)| (key, OsString::from(value)));
        let own = || self.env.iter().cloned().chain(said.clone());
        let stdin = self.stdin.clone();
        if let Some(plugin) = self.built_in {
            let is_kept = |(key, _): &&(OsString, OsString)| own().all(|(other, _)| *key != *other);
            let env = self.call.env.iter().filter(is_kept).cloned();
            let env = env.chain(own().map(|(key, value)| (key.into(), value)));
            return Running::begin(Work::BuiltIn {
                plugin,
                env: env.collect(),
                stdin,
            });
        }
        let who = format!("plugin {}", self.program.display());
        let (version, limit) = (self.call.conf.version, self.limit);
        let mut program = process::Command::new(&self.program);
        program
            .env_clear()
            .envs(self.call.env.iter().map(|(key, value)| (key, value)))
            .envs(own())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let start = move || {
            let child = spawn(&mut program).map_err(|e| Error::io(format!("{who}: {e}")))?;
            Process::new(child, who, stdin, version, limit)
        };
        Running::begin(Work::Process {
            start: Box::new(start),
            has_result: command == Command::Add,
        })
    }
}

/// Whether `file` is the one that this process was started from, under whatever name.
fn is_this_program(file: &fs::Metadata) -> bool {
    fs::metadata("/proc/self/exe")
        .is_ok_and(|own| (own.dev(), own.ino()) == (file.dev(), file.ino()))
}

/// The configuration with more attachments to keep.
fn sparing(conf: &[u8], more: &[(ContainerId, IfName)]) -> Result<Vec<u8>, Error> {
    let mut conf = object(conf)?;
    let listed = conf.entry(VALID[0]).or_insert(serde_json::Value::Null);
    if listed.is_null() {
        *listed = serde_json::json!([]);
    }
    let more = more.iter().map(|(container, ifname)| {
        serde_json::json!({ "containerID": container.as_str(), "ifname": ifname.as_str() })
    });
    if let Some(listed) = listed.as_array_mut() {
        listed.extend(more);
    }
    encoded(&conf)
}

type Object = serde_json::Map<String, serde_json::Value>;

fn object(conf: &[u8]) -> Result<Object, Error> {
    serde_json::from_slice(conf).map_err(|error| odd(&error))
}

fn encoded(conf: &Object) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(conf).map_err(|error| odd(&error))
}

fn odd(error: &serde_json::Error) -> Error {
    Error::decode(format!("configuration: {error}"))
}

/// While a binary is being replaced, exec fails with "text file busy" for a moment.
fn spawn(plugin: &mut process::Command) -> std::io::Result<process::Child> {
    for pause in [50, 100, 200, 400, 800] {
        match plugin.spawn() {
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(pause));
            }
            done => return done,
        }
    }
    plugin.spawn()
}
