//! The error that a plugin prints: a code for the runtime, a message for a person and details for a log. Inside a verb errors may
//! have other types.

use crate::text::{line, plain_lines};
use crate::{Version, code};
use serde_json::{Value, json};

/// What a failed verb prints. Runtimes log `msg` and `details`, so they never contain a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// One of [`code`], or another plugin's.
    pub code: u32,
    /// One line: the object, what was tried with it, and the answer.
    pub msg: String,
    /// More, for a log; may be empty.
    pub details: String,
}

impl Error {
    /// An error of any code. `msg`, which may quote any input, becomes a plain line of at most
    /// [`LONGEST`] bytes: control characters are escaped, and the middle of a longer one is left out.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: line(msg.into()),
            details: String::new(),
        }
    }
    /// The version is not supported, or does not have the verb.
    pub fn version(msg: impl Into<String>) -> Self {
        Self::new(code::VERSION, msg)
    }
    /// A field is refused: `msg` has key and value.
    pub fn unsupported(msg: impl Into<String>) -> Self {
        Self::new(code::UNSUPPORTED, msg)
    }
    /// A variable of the environment is wrong.
    pub fn env(msg: impl Into<String>) -> Self {
        Self::new(code::ENV, msg)
    }
    /// Something could not be read, written or run.
    pub fn io(msg: impl Into<String>) -> Self {
        Self::new(code::IO, msg)
    }
    /// Input could not be decoded.
    pub fn decode(msg: impl Into<String>) -> Self {
        Self::new(code::DECODE, msg)
    }
    /// A value is not acceptable.
    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(code::CONFIG, msg)
    }
    /// The network namespace is wrong.
    pub fn netns(msg: impl Into<String>) -> Self {
        Self::new(code::NETNS, msg)
    }
    /// Try again later.
    pub fn again(msg: impl Into<String>) -> Self {
        Self::new(code::AGAIN, msg)
    }
    /// STATUS: not ready.
    pub fn not_ready(msg: impl Into<String>) -> Self {
        Self::new(code::NOT_READY, msg)
    }
    /// The error object on standard output (specification, section "Error").
    pub fn to_value(&self, version: Version) -> Value {
        let msg = if self.msg.is_empty() {
            "unknown error"
        } else {
            &self.msg
        };
        let mut object = json!({"cniVersion": version.as_str(), "code": self.code, "msg": msg});
        if !self.details.is_empty() {
            object["details"] = json!(self.details);
        }
        object
    }

    /// Another plugin's error object; `None` if `value` is not one.
    pub fn from_value(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let code = value.get("code")?.as_u64()?;
        Some(Self {
            code: u32::try_from(code).ok().filter(|code| *code != 0)?,
            msg: text("msg").to_owned(),
            details: text("details").to_owned(),
        })
    }

    /// The same error with `details`.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = plain_lines(&details.into());
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_of_the_specification() {
        let error = Error::config("vni: 16777216 is too large").with_details("24 bits");
        let object = json!({"cniVersion": "0.4.0", "code": 7, "msg": "vni: 16777216 is too large", "details": "24 bits"});
        assert_eq!(error.to_value(Version::V0_4_0), object);
        assert_eq!(Error::from_value(&object), Some(error));
    }

    #[test]
    fn details_may_have_lines_and_do_nothing_to_a_terminal() {
        let error = Error::not_ready("x").with_details("one\ntwo \u{1b}[2J\u{202e}");
        assert_eq!(error.details, "one\ntwo \\u{1b}[2J\\u{202e}");
    }

    #[test]
    fn no_empty_fields() {
        let object = Error::new(5, "").to_value(Version::LATEST);
        assert_eq!(
            object,
            json!({"cniVersion": "1.1.0", "code": 5, "msg": "unknown error"})
        );
    }

    #[test]
    fn what_is_no_error_object() {
        for no in [
            json!({}),
            json!({"code": 0, "msg": "x"}),
            json!({"code": -1}),
            json!({"code": "7"}),
            json!([7]),
        ] {
            assert_eq!(Error::from_value(&no), None, "{no}");
        }
    }

    #[test]
    fn a_message_is_one_plain_line_of_bounded_length_whatever_it_quotes() {
        let error = Error::config("name: a\u{7f}b\nc \u{9b}31m");
        assert_eq!(error.msg, "name: a\\u{7f}b\\nc \\u{9b}31m");
        let long = Error::config(format!("name: {}: too long", "ä".repeat(2000)));
        assert!(long.msg.len() <= crate::LONGEST, "{}", long.msg.len());
        assert!(long.msg.starts_with("name: ää") && long.msg.ends_with("ää: too long"));
        assert!(long.msg.contains("ä ... ä"));
    }
}
