//! Running another plugin, as an interface plugin does with its IPAM plugin.

use crate::{Call, CniResult, Command, Error};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A plugin to which a call can be passed on: same bytes on stdin, same environment but for `CNI_COMMAND`.
#[derive(Debug, Clone)]
pub struct Delegate<'a> {
    program: PathBuf,
    call: PhantomData<&'a Call>,
}

impl<'a> Delegate<'a> {
    /// The regular file `name` in the first directory of `CNI_PATH` that has one. Code 4 without `CNI_PATH`, 7 if
    /// there is none or the name is no plugin's name or is the calling plugin itself (which would never end).
    pub fn find(_call: &'a Call, _name: &str) -> Result<Self, Error> {
        todo!()
    }
    /// The same, which is killed when it has not ended after `limit` (code 11). Without: no limit but the runtime's.
    #[must_use]
    pub fn within(self, _limit: Duration) -> Self {
        todo!()
    }
    /// The file that is run.
    pub fn program(&self) -> &Path {
        &self.program
    }
    /// ADD; a result without version has the configuration's; `null` is an empty one.
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
    /// GC.
    pub fn gc(&self) -> Result<(), Error> {
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
    /// Starts any verb beside the caller.
    pub fn start(&self, _command: Command) -> Result<Running, Error> {
        todo!()
    }
}

/// A delegate at work. Dropped, it is waited for and its answer is lost: no ADD goes on behind our back.
#[derive(Debug)]
pub struct Running(());

impl Running {
    /// The result of an ADD.
    pub fn wait(self) -> Result<CniResult, Error> {
        todo!()
    }
    /// The end of any other verb.
    pub fn finish(self) -> Result<(), Error> {
        todo!()
    }
}
