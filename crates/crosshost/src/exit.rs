//! How a command ends. A script or a monitor must be able to tell "something is wrong here" from "nobody could look".

use std::{error::Error, fmt, process::ExitCode};

use cluster::ErrorKind;

/// The exit codes of all commands, as `crosshost --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command found something wrong, or what it was asked for is refused as things are.
    Wrong = 1,
    /// The command line makes no sense. Nothing was read or written.
    Usage = 2,
    /// Settings, store or kernel could not be read or written.
    Unseen = 3,
}

impl Exit {
    /// How a command ends with this error. What is not known to be a refusal is a failure to look.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        if error.is::<clap::Error>() || error.is::<Usage>() {
            return Self::Usage;
        }
        if error.is::<ReportFailed>() || error.is::<Refused>() {
            return Self::Wrong;
        }
        let of_cluster = |error: &cluster::Error| match error.kind() {
            ErrorKind::Again
            | ErrorKind::Local
            | ErrorKind::Setting
            | ErrorKind::Store
            | ErrorKind::Denied => Self::Unseen,
            ErrorKind::Differs
            | ErrorKind::Collides
            | ErrorKind::Duplicate
            | ErrorKind::Exhausted
            | ErrorKind::Address
            | ErrorKind::Operator => Self::Wrong,
        };
        error.downcast_ref().map_or(Self::Unseen, of_cluster)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A report of something wrong. It is printed like an answer, and the command fails.
#[derive(Debug)]
pub struct ReportFailed(pub String);

/// What was asked for cannot be done as things are.
#[derive(Debug)]
pub struct Refused(pub String);

/// Wrong usage: nothing was read or written.
#[derive(Debug)]
pub struct Usage(pub String);

macro_rules! says_its_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Error for $name {}
    )*};
}

says_its_text!(ReportFailed, Refused, Usage);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_failure_to_look() {
        let code = |error: Box<dyn Error>| Exit::of(&*error);
        let store = store::Error::BadKey("k".into());
        assert_eq!(code(Usage(String::new()).into()), Exit::Usage);
        assert_eq!(code(Refused(String::new()).into()), Exit::Wrong);
        assert_eq!(code(ReportFailed(String::new()).into()), Exit::Wrong);
        let unknown = cluster::Error::NoNetwork("n".into());
        assert_eq!(code(unknown.into()), Exit::Wrong);
        assert_eq!(code(cluster::Error::from(store).into()), Exit::Unseen);
        assert_eq!(code("a file cannot be read".into()), Exit::Unseen);
    }
}
