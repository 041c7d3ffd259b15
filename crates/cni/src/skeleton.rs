//! The life of a plugin process, from environment to exit code. A plugin adds its five verbs.

use crate::build::BUILD;
use crate::call::variable;
use crate::{
    Answer, Call, Command, ContainerId, Error, IfName, NetConf, Version, netns, output, running,
};
use serde_json::json;
use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;

/// Largest configuration, in bytes. Some have a `prevResult` of a megabyte; ten would be a mistake.
const MAX_STDIN: usize = 8 << 20;

/// Prints an ADD's result in the configuration's version. Code 5 if nobody reads it, 7 if that version has no form for it.
pub type Tell<'a> = &'a dyn Fn(&dyn Answer) -> Result<(), Error>;

/// A plugin: five verbs.
pub trait Plugin {
    /// Its `type`, the name of its binary.
    const NAME: &str;
    /// Whether it works in the container's namespace. If not, `CNI_NETNS` is not checked.
    const NEEDS_NETNS: bool = true;
    /// Attaches, and answers by `tell`. Before the answer the ADD has not succeeded: if the plugin is killed then, the next ADD
    /// is not a duplicate.
    fn add(&self, call: &Call, tell: Tell<'_>) -> Result<(), Error>;
    /// Detaches. Succeeds without output, even if there is nothing to do.
    fn del(&self, call: &Call) -> Result<(), Error>;
    /// Compares the attachment with `call.conf.prev_result`.
    fn check(&self, call: &Call) -> Result<(), Error>;
    /// Removes what this node has of this network, except for the attachments in `valid`.
    fn gc(&self, call: &Call, valid: &[(ContainerId, IfName)]) -> Result<(), Error>;
    /// Checks that an ADD would work.
    fn status(&self, call: &Call) -> Result<(), Error>;
}

/// A plugin that is built into the program of another one, which runs it instead of its program.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    /// Its `type`.
    pub(crate) name: &'static str,
    pub(crate) verb: fn(&Call, Tell<'_>) -> Result<(), Error>,
}

impl BuiltIn {
    /// `P`, made for each call. It must not need the container's namespace, because nothing checks that for it.
    pub const fn of<P: Plugin + Default>() -> Self {
        const { assert!(!P::NEEDS_NETNS, "only the skeleton checks CNI_NETNS") };
        Self {
            name: P::NAME,
            verb: |call, tell| dispatch(&P::default(), call, tell),
        }
    }
}

/// The whole of a plugin's `main`. Prints one JSON object at most; the exit code is 0 or 1.
#[allow(
    clippy::needless_pass_by_value,
    reason = "a plugin is made for it: `run(Portmap)`"
)]
pub fn run<P: Plugin>(plugin: P) -> ExitCode {
    run_with(plugin, &[])
}

/// The same for a program with other plugins built in. If the plugin delegates to one of them, and the file of that name in
/// `CNI_PATH` is this very program, it runs in this process.
#[allow(
    clippy::needless_pass_by_value,
    reason = "a plugin is made for it: `run(Portmap)`"
)]
pub fn run_with<P: Plugin>(plugin: P, built_in: &'static [BuiltIn]) -> ExitCode {
    let code = spoken(&plugin, built_in);
    running::settle();
    code
}

/// The `main` of a program of several plugins that was started by a `name` that is none of theirs. Error code 7.
pub fn refuse(name: &str, plugins: &[&str]) -> ExitCode {
    let plugins = plugins.join(", ");
    let error = Error::config(format!(
        "started as {name:?}, which names no plugin: call this program {plugins}, or PREFIX- and one of these"
    ));
    let env: Vec<_> = std::env::vars_os().collect();
    if variable(&env, "CNI_COMMAND").is_none() {
        output::note(&error.to_string());
    } else if let Err(e) = output::print(&error.to_value(Version::LATEST)) {
        output::note(&format!("standard output: {e}"));
    }
    ExitCode::FAILURE
}

fn spoken<P: Plugin>(plugin: &P, built_in: &'static [BuiltIn]) -> ExitCode {
    output::catch_panics();
    let env: Vec<_> = std::env::vars_os().collect();
    let said = match variable(&env, "CNI_COMMAND") {
        None => return about(P::NAME),
        // Standard input is not read, because it may never end. So the answer has the newest version, as in the reference, and
        // not the caller's.
        Some(command) if command == Command::Version.as_str() => Ok(Some(
            json!({"cniVersion": Version::LATEST.as_str(), "supportedVersions": Version::names()}),
        )),
        Some(_) => answer(plugin, built_in, env),
    };
    let (object, code) = match said {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(object)) => (object, ExitCode::SUCCESS),
        Err((error, version)) => (error.to_value(version), ExitCode::FAILURE),
    };
    match output::print(&object) {
        Ok(()) => code,
        // An ADD without an answer has not succeeded.
        Err(e) => {
            output::note(&format!("standard output: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// What a plugin that is started by hand prints: its version, on standard output if called with `--version`.
///
/// Nomad starts each plugin without arguments and takes the first word that is a version, as in the reference plugins'
/// `CNI portmap plugin v1.1.1` (`client/fingerprint/plugins_cni.go`); its server places bridge jobs only where that of
/// `portmap` is 0.4.0 or later.
fn about(name: &str) -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|it| it == "--version")
    {
        return match output::say(&format!("{name} {BUILD}\n")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let versions = Version::names().join(", ");
    output::note(&format!("CNI {name} plugin v{BUILD}"));
    output::note(&format!("CNI protocol versions supported: {versions}"));
    ExitCode::SUCCESS
}

/// What to print, or the error and the version to print it in.
fn answer<P: Plugin>(
    plugin: &P,
    built_in: &'static [BuiltIn],
    env: Vec<(OsString, OsString)>,
) -> Result<Option<serde_json::Value>, (Error, Version)> {
    let stdin = stdin().map_err(|e| (e, Version::LATEST))?;
    let refused = |e| (e, NetConf::version_of(&stdin));
    let mut call = Call::new(env, stdin.clone()).map_err(refused)?;
    call.built_in = built_in;
    let version = call.conf.version;
    output::set_version(version);
    let guarded = if P::NEEDS_NETNS {
        netns::guard(&mut call)
    } else {
        Ok(())
    };
    let done = guarded.and_then(|()| verb(plugin, &call));
    done.map(|()| None).map_err(|e| (e, version))
}

fn verb(plugin: &impl Plugin, call: &Call) -> Result<(), Error> {
    dispatch(plugin, call, &|result| {
        let printed = output::print(&result.to_value(call.conf.version)?);
        // This goes to standard error: nothing more can be printed on standard output.
        printed.map_err(|e| {
            let unheard = format!("standard output: {e}");
            output::note(&unheard);
            Error::io(unheard)
        })
    })
}

fn dispatch(plugin: &impl Plugin, call: &Call, tell: Tell<'_>) -> Result<(), Error> {
    match call.command {
        Command::Add => plugin.add(call, tell),
        Command::Del => plugin.del(call),
        Command::Check => plugin.check(call),
        Command::Gc => plugin.gc(call, &call.conf.valid_attachments()?),
        Command::Status => plugin.status(call),
        Command::Version => Ok(()),
    }
}

/// All of standard input. Codes 5 and 6.
fn stdin() -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let limit = MAX_STDIN as u64 + 1;
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io(format!("standard input: {e}")))?;
    if bytes.len() > MAX_STDIN {
        return Err(Error::decode(format!(
            "network configuration on standard input: larger than {} MiB",
            MAX_STDIN >> 20
        )));
    }
    Ok(bytes)
}
