//! One execution of a CNI plugin, exactly as a runtime makes it: environment variables and bytes.
//!
//! cnitool shows the normal path; this shows the rest: any bytes on standard input, a missing variable,
//! a kill in the middle, the plugin's own words on standard output.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::programs::Programs;
use crate::run::{Finished, Running};

/// A call that is being described; `run` or `start` makes it.
pub struct Call<'host> {
    host: &'host Host,
    program: PathBuf,
    variables: Vec<(&'static str, String)>,
    stdin: Vec<u8>,
}

impl<'host> Call<'host> {
    pub(crate) fn new(host: &'host Host, program: PathBuf, verb: &str) -> Self {
        let variables = vec![
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_PATH", Programs::cni_path_of(&host.programs())),
            ("CNI_IFNAME", "eth0".to_owned()),
        ];
        Call {
            host,
            program,
            variables,
            stdin: Vec::new(),
        }
    }

    /// Sets a variable; an earlier value is replaced.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.into()));
        self
    }

    /// Sets the container's id.
    #[must_use]
    pub fn id(self, id: &str) -> Self {
        self.env("CNI_CONTAINERID", id)
    }

    /// Sets the namespace's path.
    #[must_use]
    pub fn netns(self, path: &str) -> Self {
        self.env("CNI_NETNS", path)
    }

    /// Sets the interface's name; `eth0` without this.
    #[must_use]
    pub fn ifname(self, name: &str) -> Self {
        self.env("CNI_IFNAME", name)
    }

    /// Sets standard input to a JSON document.
    #[must_use]
    pub fn conf(self, conf: &Value) -> Self {
        self.stdin(conf.to_string())
    }

    /// Sets standard input to any bytes.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Starts the plugin; the process id of the result is the plugin's.
    #[track_caller]
    pub fn start(self) -> Running {
        let mut command: Command = self.host.namespace().command(&self.program);
        command.envs(self.variables);
        Running::start(command, &self.stdin)
    }

    /// Runs the plugin to its end; more than half a minute fails the test.
    #[track_caller]
    pub fn run(self) -> Finished {
        self.start().wait(Duration::from_secs(30))
    }
}
