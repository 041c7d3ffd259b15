//! `CNI_ARGS`: `K=V;K2=V2`. Read leniently, since runtimes put much in it that is for others.

use crate::Error;
use std::net::IpAddr;
use std::str::FromStr;

/// The pairs of `CNI_ARGS`, in their order (which is random from call to call with go-cni).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs(pub Vec<(String, String)>);

impl CniArgs {
    /// Never fails.
    pub fn parse(_text: &str) -> Self {
        todo!()
    }
    /// The value of `key` (exact spelling); the last one if given twice. May be empty.
    pub fn get(&self, _key: &str) -> Option<&str> {
        todo!()
    }
    /// The value of `key` as a `T`, none if absent or empty. Code 4 naming key and value; `what` says what was expected ("a MAC address").
    pub fn typed<T: FromStr>(&self, _key: &str, _what: &str) -> Result<Option<T>, Error> {
        todo!()
    }
    /// `IP`: addresses, a comma list as multus sends, each with or without a `/length`, which is dropped. Code 4.
    pub fn ips(&self) -> Result<Vec<IpAddr>, Error> {
        todo!()
    }
}
