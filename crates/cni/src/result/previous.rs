//! The result of the previous plugin in the chain: decoded, and also kept unchanged to be passed on.

use serde_json::Value;

use super::{Answer, CniResult};
use crate::{Error, Version};

/// `prevResult`.
#[derive(Debug, Clone, PartialEq)]
pub struct Previous {
    /// The decoded result.
    pub result: CniResult,
    came: Value,
}

impl Previous {
    /// Reads a result of any version; `default` is the version of one without. Code 6, with path and value.
    pub(crate) fn read(came: Value, default: Version) -> Result<Self, Error> {
        let result = CniResult::from_value(&came, default)?;
        Ok(Self { result, came })
    }

    /// The same result with one more key, which no version of the specification has.
    #[must_use]
    pub fn with(mut self, key: &str, value: &Value) -> Self {
        self.result.extra.insert(key.to_owned(), value.clone());
        if let Value::Object(came) = &mut self.came {
            came.insert(key.to_owned(), value.clone());
        }
        self
    }
}

impl Answer for Previous {
    /// The unchanged result in its own version, including parts without a meaning (`"dns": {}`). In another version it is written
    /// like a [`CniResult`].
    fn to_value(&self, version: Version) -> Result<Value, Error> {
        if self.came.get("cniVersion").and_then(Value::as_str) == Some(version.as_str()) {
            return Ok(self.came.clone());
        }
        self.result.to_value(version)
    }
}
