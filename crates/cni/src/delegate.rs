//! Running another plugin, as an interface plugin does with its IPAM plugin (specification, section 4).
//!
//! The delegate gets the very bytes that we got, and our environment: whatever a runtime or a later version of the
//! specification puts there is for it too. Its errors are passed on unchanged, its standard error is copied to ours.

use crate::conf::VALID;
use crate::{Call, CniResult, Command, ContainerId, Error, IfName, Running};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;

/// In the environment of a delegate: it does not delegate itself. The caller itself, under another name, would without end.
pub(crate) const DELEGATED: &str = "CROSSHOST_DELEGATED";

/// A plugin to which a call can be passed on.
#[derive(Debug, Clone)]
pub struct Delegate<'a> {
    call: &'a Call,
    program: PathBuf,
    limit: Option<Duration>,
    stdin: Vec<u8>,
    /// Variables that are not as in the call.
    env: Vec<(&'static str, OsString)>,
}

impl<'a> Delegate<'a> {
    /// The regular file `name` in the first directory of `CNI_PATH` that has one. Code 4 without `CNI_PATH`; 7 if
    /// there is none, if the name is no plugin's name, or is the calling plugin itself (which would never end).
    pub fn find(call: &'a Call, name: &str) -> Result<Self, Error> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(Error::config(format!("{name:?} is not a plugin's name")));
        }
        if name == call.conf.plugin_type {
            let msg = format!("plugin {name} cannot delegate to itself");
            return Err(Error::config(msg));
        }
        if call.is_delegated() {
            let msg = format!(
                "plugin {name} would be run by a plugin that another one runs as its IPAM plugin"
            );
            return Err(Error::config(msg));
        }
        if call.path.is_empty() {
            let msg = format!("CNI_PATH is needed to run plugin {name}");
            return Err(Error::env(msg));
        }
        let mut programs = call.path.iter().map(|dir| dir.join(name));
        let program = programs.find(|program| program.is_file()).ok_or_else(|| {
            let dirs: Vec<_> = call.path.iter().map(|d| d.display().to_string()).collect();
            Error::config(format!("plugin {name} is in no directory of CNI_PATH"))
                .with_details(dirs.join(", "))
        })?;
        Ok(Self {
            call,
            program,
            limit: None,
            stdin: call.stdin.clone(),
            env: Vec::new(),
        })
    }

    /// The same, killed when it has not ended after `limit` (code 11). Without it the runtime's limit holds, which
    /// kills us.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// The same for an attachment of the caller's own. The addresses and the MAC that the runtime asks for, it asks for the
    /// call's attachment and not for this one. Code 6 if the configuration is no object.
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

    /// The file that is run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// ADD; a result without version has the configuration's, `null` is an empty one.
    pub fn add(&self) -> Result<CniResult, Error> {
        self.spawn()?.wait()
    }

    /// DEL, also as undo of an ADD.
    pub fn del(&self) -> Result<(), Error> {
        self.start(Command::Del)?.finish()
    }

    /// CHECK.
    pub fn check(&self) -> Result<(), Error> {
        self.start(Command::Check)?.finish()
    }

    /// GC that spares, beside what the caller listed, the attachments that are known to be `at_work`: the one case in
    /// which the delegate's configuration differs from ours.
    pub fn gc(mut self, at_work: &[(ContainerId, IfName)]) -> Result<(), Error> {
        if !at_work.is_empty() {
            self.stdin = sparing(&self.stdin, at_work)?;
        }
        self.start(Command::Gc)?.finish()
    }

    /// STATUS.
    pub fn status(&self) -> Result<(), Error> {
        self.start(Command::Status)?.finish()
    }

    /// Starts an ADD that runs beside the caller.
    pub fn spawn(&self) -> Result<Running, Error> {
        self.start(Command::Add)
    }

    /// Starts any verb beside the caller. Code 5 if the program cannot be run.
    pub fn start(&self, command: Command) -> Result<Running, Error> {
        self.starting(command)()
    }

    /// The same ADD as [`Self::spawn`], started on a thread: an exec holds its caller up for as long as a veth pair
    /// takes to make. Whether it could be run is said at the end.
    pub fn spawn_beside(&self) -> Starting {
        Starting(std::thread::spawn(self.starting(Command::Add)))
    }

    fn starting(
        &self,
        command: Command,
    ) -> impl FnOnce() -> Result<Running, Error> + Send + 'static {
        let who = format!("plugin {}", self.program.display());
        let mut plugin = process::Command::new(&self.program);
        plugin
            .env_clear()
            .envs(self.call.env.iter().map(|(key, value)| (key, value)))
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .env("CNI_COMMAND", command.as_str())
            .env(DELEGATED, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (stdin, version, limit) = (self.stdin.clone(), self.call.conf.version, self.limit);
        move || {
            let child = spawn(&mut plugin).map_err(|e| Error::io(format!("{who}: {e}")))?;
            Running::new(child, who, stdin, version, limit)
        }
    }
}

/// The configuration with more attachments to spare.
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

/// An ADD on its way to [`Running`].
#[derive(Debug)]
pub struct Starting(std::thread::JoinHandle<Result<Running, Error>>);

impl Starting {
    /// The result of the ADD.
    pub fn wait(self) -> Result<CniResult, Error> {
        let started = self.0.join();
        started
            .map_err(|_| Error::new(crate::code::INTERNAL, "start of a plugin: panicked"))??
            .wait()
    }
}

/// A binary that is being replaced is "text file busy" for a moment.
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
