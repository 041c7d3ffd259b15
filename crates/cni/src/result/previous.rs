//! What the plugin before this one answered: read for its meaning, kept to be handed on as it came.

use serde_json::Value;

use super::{Answer, CniResult};
use crate::{Error, Version};

/// `prevResult`.
#[derive(Debug, Clone, PartialEq)]
pub struct Previous {
    /// What it means.
    pub result: CniResult,
    came: Value,
}

impl Previous {
    /// Reads one of any version; `default` if it does not say its own. Code 6, with path and value.
    pub(crate) fn read(came: Value, default: Version) -> Result<Self, Error> {
        let result = CniResult::from_value(&came, default)?;
        Ok(Self { result, came })
    }

    /// The same answer with one more key, which no version of the specification has.
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
    /// As it came, what means nothing included (`"dns": {}`); in another version than it came in, as [`CniResult`] is written.
    fn to_value(&self, version: Version) -> Result<Value, Error> {
        if self.came.get("cniVersion").and_then(Value::as_str) == Some(version.as_str()) {
            return Ok(self.came.clone());
        }
        self.result.to_value(version)
    }
}
