//! A delegate that runs on a thread beside its caller: as a process, or built into this one.
//!
//! An exec would block its caller for as long as it takes to make a veth pair, and a built-in plugin for as long as the store
//! takes to answer. A built-in ADD answers before it ends, and does the rest of its work beside its caller; [`settle`] waits
//! for that before the process ends.

use crate::process::Process;
use crate::skeleton::BuiltIn;
use crate::{Answer, Call, CniResult, Error, code};
use std::ffi::OsString;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Threads of delegates that may still be running.
static THREADS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

type Told = Result<Option<CniResult>, Error>;

/// The work of a delegate's thread.
pub(crate) enum Work {
    /// Runs a program.
    Process {
        start: Box<dyn FnOnce() -> Result<Process, Error> + Send>,
        /// Whether its answer is a result: only ADD has one.
        has_result: bool,
    },
    /// Runs a plugin of this process.
    BuiltIn {
        plugin: BuiltIn,
        env: Vec<(OsString, OsString)>,
        stdin: Vec<u8>,
    },
}

impl Work {
    fn run(self, tell: &Sender<Told>) {
        // A caller that has gone does not wait for an answer.
        let tell = |told| drop(tell.send(told));
        match self {
            Self::Process { start, has_result } => tell(start().and_then(|process| {
                if has_result {
                    process.result().map(Some)
                } else {
                    process.finish().map(|()| None)
                }
            })),
            Self::BuiltIn { plugin, env, stdin } => {
                let done = Call::new(env, stdin).and_then(|call| {
                    let version = call.conf.version;
                    let answer = |answer: &dyn Answer| {
                        let value = answer.to_value(version)?;
                        tell(Ok(Some(CniResult::from_value(&value, version)?)));
                        Ok(())
                    };
                    (plugin.verb)(&call, &answer)
                });
                // Nobody reads an error after the answer, so it goes to the log.
                tell(done.map(|()| None));
            }
        }
    }
}

/// A running delegate. Drop waits for its answer and drops it, so that no ADD goes on unnoticed.
#[derive(Debug)]
pub struct Running {
    told: Option<Receiver<Told>>,
    refused: Option<Error>,
}

impl Running {
    pub(crate) fn begin(work: Work) -> Self {
        let (tell, told) = channel();
        let begun = thread::Builder::new()
            .name("delegate".to_owned())
            .spawn(move || work.run(&tell));
        match begun {
            Ok(thread) => {
                let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
                threads.push(thread);
                Self {
                    told: Some(told),
                    refused: None,
                }
            }
            Err(error) => Self {
                told: None,
                refused: Some(Error::io(format!("thread for a plugin: {error}"))),
            },
        }
    }

    /// The result of an ADD. Errors: the plugin's own; code 198 if it died otherwise; code 6 if its result is not understood;
    /// code 5 if it could not be run.
    pub fn result(mut self) -> Result<CniResult, Error> {
        let silent = || Error::new(code::DELEGATE, "the plugin gave no result");
        self.told()?.ok_or_else(silent)
    }

    /// The end of any other verb. Errors as in [`Running::result`].
    pub fn finish(mut self) -> Result<(), Error> {
        self.told().map(drop)
    }

    fn told(&mut self) -> Told {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        let told = self.told.take().and_then(|told| told.recv().ok());
        told.unwrap_or_else(|| Err(Error::new(code::INTERNAL, "thread of a plugin: panicked")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.told.is_some() {
            let _ = self.told();
        }
    }
}

/// Waits until every delegate has ended, including those that have answered.
pub(crate) fn settle() {
    let threads = std::mem::take(&mut *THREADS.lock().unwrap_or_else(PoisonError::into_inner));
    for thread in threads {
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, ContainerId, Delegate, IfName, Interface, Plugin, Tell};
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// ADDs that have ended, not only answered.
    static ENDED: AtomicUsize = AtomicUsize::new(0);

    /// A plugin that answers with what it was called with, and takes a while to end.
    #[derive(Default)]
    struct Echo;

    impl Plugin for Echo {
        const NAME: &str = "echo";
        const NEEDS_NETNS: bool = false;

        fn add(&self, call: &Call, tell: Tell<'_>) -> Result<(), Error> {
            if call.container.as_ref().map(ContainerId::as_str) == Some("refused") {
                return Err(Error::new(102, "no address is left"));
            }
            let mut result = CniResult::default();
            let named = |name: String| Interface {
                name,
                ..Interface::default()
            };
            result.interfaces = vec![
                named(format!("{:?}", call.command)),
                named(call.is_delegated().to_string()),
                named(thread::current().name().unwrap_or_default().to_owned()),
            ];
            tell(&result)?;
            thread::sleep(Duration::from_millis(200));
            ENDED.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        fn del(&self, _: &Call) -> Result<(), Error> {
            Ok(())
        }

        fn check(&self, _: &Call) -> Result<(), Error> {
            Err(Error::new(110, "it is not as it was"))
        }

        fn gc(&self, _: &Call, _: &[(ContainerId, IfName)]) -> Result<(), Error> {
            Ok(())
        }

        fn status(&self, _: &Call) -> Result<(), Error> {
            Ok(())
        }
    }

    fn call(dir: &Path, container: &str) -> Call {
        let conf =
            r#"{"cniVersion": "1.0.0", "name": "net", "type": "outer", "ipam": {"type": "echo"}}"#;
        let env = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", container),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/x"),
            ("CNI_PATH", dir.to_str().unwrap()),
        ];
        let env = env.map(|(key, value)| (key.into(), value.into())).to_vec();
        let mut call = Call::new(env, conf.as_bytes().to_vec()).unwrap();
        call.built_in = const { &[BuiltIn::of::<Echo>()] };
        call
    }

    /// A `CNI_PATH` that has this very program as `echo`.
    fn linked() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        std::os::unix::fs::symlink(own, dir.path().join("echo")).unwrap();
        dir
    }

    #[test]
    fn a_plugin_of_this_very_program_runs_in_it_and_is_waited_for_at_the_end() {
        let dir = linked();
        let call = call(dir.path(), "c1");
        let ipam = Delegate::find(&call, "echo").unwrap();
        let result = ipam.start(Command::Add).result().unwrap();
        let names: Vec<_> = result.interfaces.iter().map(|it| &*it.name).collect();
        assert_eq!(names, ["Add", "true", "delegate"]);
        settle();
        assert_eq!(ENDED.load(Ordering::SeqCst), 1);

        assert_eq!(ipam.check().unwrap_err().code, 110);
        ipam.del().unwrap();
        let refused = super::tests::call(dir.path(), "refused");
        let refused = Delegate::find(&refused, "echo").unwrap().add().unwrap_err();
        assert_eq!((refused.code, &*refused.msg), (102, "no address is left"));
    }

    #[test]
    fn another_program_of_that_name_is_run_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let call = call(dir.path(), "c1");
        let program = dir.path().join("echo");
        std::fs::copy("/bin/false", &program).unwrap();
        let error = Delegate::find(&call, "echo").unwrap().add().unwrap_err();
        assert_eq!(error.code, code::DELEGATE, "{error}");
    }
}
