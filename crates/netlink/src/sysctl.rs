//! Network settings of the kernel (`sysctl(8)`, below `/proc/sys/net`).
//!
//! Each network namespace has settings of its own, and the kernel shows a thread those of the namespace in which the thread
//! is. [`Sysctl::read`] and [`Sysctl::set`] are about the calling thread's namespace; [`Netns::read_sysctls`] and
//! [`Netns::set_sysctls`] do the same in another one.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::error::Refusal;
use crate::{Error, Netns, NetnsError};

/// The name of a setting, shown as `sysctl(8)` takes it: `net.ipv4.conf.eth0/7.rp_filter` for the interface `eth0.7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl(Cow<'static, str>);

impl Sysctl {
    /// The setting of this path below `/proc/sys/net`, e.g. `ipv4/ip_forward`.
    pub const fn new(path: &'static str) -> Self {
        Self(Cow::Borrowed(path))
    }

    /// A setting of one interface, or of `all` or `default`; `family` is `ipv4` or `ipv6`.
    pub fn of_link(family: &str, link: &str, name: &str) -> Self {
        Self(format!("{family}/conf/{link}/{name}").into())
    }

    /// The value without its newline; `None` if the kernel has no such setting.
    pub fn read(&self) -> Result<Option<String>, Error> {
        let value = Tree::open().and_then(|tree| tree.read(self));
        value.map_err(|error| refused(&error, self))
    }

    /// Whether the setting can be read and has this value.
    pub fn is(&self, value: &str) -> bool {
        self.read().is_ok_and(|it| it.as_deref() == Some(value))
    }

    /// Writes the value if the setting has another one. Returns whether it did. A setting that the kernel does not have is an
    /// error ([`Error::is_gone`]).
    ///
    /// Writing some settings notifies all interfaces, so a setting that is right is only read.
    pub fn set(&self, value: &str) -> Result<bool, Error> {
        let set = || {
            let tree = Tree::open()?;
            if tree.read(self)?.as_deref() == Some(value) {
                return Ok(false);
            }
            tree.write(self, value)?;
            Ok(true)
        };
        set().map_err(|error| refused(&error, self))
    }

    /// Fails like [`Self::set`] if the setting cannot be written. Changes nothing.
    pub fn check_writable(&self) -> Result<(), Error> {
        let opened = Tree::open().and_then(|tree| tree.file(self, OFlags::WRONLY));
        opened.map(drop).map_err(|error| refused(&error, self))
    }

    /// Whether the setting belongs to a part that a kernel may lack: IPv6 or `br_netfilter`.
    pub fn is_optional(&self) -> bool {
        ["ipv6/", "bridge/"].iter().any(|it| self.0.starts_with(it))
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let swapped = self.0.chars().map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        });
        write!(f, "net.{}", swapped.collect::<String>())
    }
}

impl Netns {
    /// Values of these settings inside the namespace, in order; `None` for one that the kernel does not have.
    pub fn read_sysctls(&self, wanted: &[Sysctl]) -> Result<Vec<Option<String>>, NetnsError> {
        self.run_near(|| {
            let tree = Tree::open().map_err(|error| self.failed(ROOT, error))?;
            let read = wanted.iter().map(|sysctl| {
                let value = tree.read(sysctl);
                value.map_err(|error| self.failed(format!("read {sysctl}"), error))
            });
            read.collect()
        })
    }

    /// Writes these settings inside the namespace, in order. One of IPv6 or of `br_netfilter` that the kernel does not have
    /// counts as written.
    pub fn set_sysctls(&self, wanted: &[(Sysctl, &str)]) -> Result<(), NetnsError> {
        self.run_near(|| {
            let tree = Tree::open().map_err(|error| self.failed(ROOT, error))?;
            wanted.iter().try_for_each(|(sysctl, value)| {
                match tree.write(sysctl, value) {
                    Err(error) if is_missing(&error) && sysctl.is_optional() => Ok(()),
                    written => written,
                }
                .map_err(|error| self.failed(format!("set {sysctl} to {value}"), error))
            })
        })
    }

    /// Runs `work` in the namespace; without entering it, if the thread is already there.
    fn run_near<T>(&self, work: impl FnOnce() -> Result<T, NetnsError>) -> Result<T, NetnsError> {
        let own = rustix::fs::stat("/proc/thread-self/ns/net");
        if own.is_ok_and(|own| (own.st_dev, own.st_ino) == self.id()) {
            return work();
        }
        self.run(work)?
    }

    fn failed(&self, what: impl Into<String>, source: io::Error) -> NetnsError {
        NetnsError::Io {
            path: self.path().to_owned(),
            what: what.into(),
            source,
        }
    }
}

const ROOT: &str = "/proc/sys/net";

/// An open [`ROOT`]. The kernel keeps that directory of all namespaces under one name and compares with each of them:
/// 0.8 ms with 450 namespaces. So a batch looks it up once.
struct Tree(OwnedFd);

impl Tree {
    fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(ROOT, flags, Mode::empty())?))
    }

    fn file(&self, sysctl: &Sysctl, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, sysctl.0.as_ref(), flags, Mode::empty())?;
        Ok(File::from(file))
    }

    fn read(&self, sysctl: &Sysctl) -> io::Result<Option<String>> {
        let mut file = match self.file(sysctl, OFlags::RDONLY) {
            Err(error) if is_missing(&error) => return Ok(None),
            file => file?,
        };
        let mut value = String::new();
        file.read_to_string(&mut value)?;
        value.truncate(value.trim_end().len());
        Ok(Some(value))
    }

    fn write(&self, sysctl: &Sysctl, value: &str) -> io::Result<()> {
        self.file(sysctl, OFlags::WRONLY)?
            .write_all(value.as_bytes())
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn refused(error: &io::Error, sysctl: &Sysctl) -> Error {
    Refusal::of_file(error).on(sysctl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_of_an_interface_is_shown_as_sysctl_takes_it() {
        let sysctl = Sysctl::of_link("ipv4", "eth0.7", "rp_filter");
        assert_eq!(sysctl.to_string(), "net.ipv4.conf.eth0/7.rp_filter");
        assert_eq!(
            Sysctl::new("ipv4/ip_forward").to_string(),
            "net.ipv4.ip_forward"
        );
    }

    #[test]
    fn a_setting_that_the_kernel_does_not_have_reads_as_none_and_is_not_set() {
        let none = Sysctl::new("ipv4/nosuch");
        assert_eq!(none.read(), Ok(None));
        assert!(!none.is("0"));
        let error = none.set("1").unwrap_err();
        assert!(error.is_gone());
        assert_eq!(
            error.to_string(),
            "net.ipv4.nosuch: No such file or directory (ENOENT)"
        );
        assert!(none.check_writable().is_err_and(|error| error.is_gone()));
    }
}
