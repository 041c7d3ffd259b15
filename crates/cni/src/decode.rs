//! JSON into types as Go does it: field names in any case.

use crate::Error;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// `value` as a `T`. Struct fields match in any case, exact spelling preferred; map keys are untouched; null is
/// absent; unknown keys are ignored. Code 7: `ipam.ranges[0][0].subnet: invalid prefix: "10.0.0.0/33"`.
pub fn decode<T: DeserializeOwned>(_value: &Value) -> Result<T, Error> {
    todo!()
}
