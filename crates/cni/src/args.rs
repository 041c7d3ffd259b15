//! `CNI_ARGS`: `K=V;K2=V2`. It is read leniently, because runtimes put data for other plugins into it: unknown keys, empty
//! values, values with a `=`. A value that is understood, such as an address, is checked when it is read.

use crate::Error;
use std::net::IpAddr;
use std::str::FromStr;

/// The pairs of `CNI_ARGS` in their order. With go-cni the order differs from call to call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs(pub Vec<(String, String)>);

impl CniArgs {
    /// Never fails: a pair without `=` is a key with an empty value, and an empty pair is ignored.
    pub fn parse(text: &str) -> Self {
        let pair = |pair: &str| match pair.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (pair.to_owned(), String::new()),
        };
        Self(
            text.split(';')
                .filter(|p| !p.is_empty())
                .map(pair)
                .collect(),
        )
    }

    /// The value of `key` in this exact spelling, as in the reference. If the key is given twice, the last one. May be empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.0.iter().rev();
        pairs.find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The value of `key` as a `T`; `None` if absent or empty. `what` names what is expected: "a MAC address".
    /// Code 4, naming key and value.
    pub fn typed<T: FromStr>(&self, key: &str, what: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key).filter(|v| !v.is_empty()) else {
            return Ok(None);
        };
        let bad = |_| Error::env(format!("CNI_ARGS: {key}={value:?} is not {what}"));
        value.parse().map(Some).map_err(bad)
    }

    /// `IP`: one address, or a list with commas (multus). A `/length` behind an address is dropped, because the pool has the
    /// length. Code 4.
    pub fn ips(&self) -> Result<Vec<IpAddr>, Error> {
        let Some(list) = self.get("IP").filter(|v| !v.is_empty()) else {
            return Ok(Vec::new());
        };
        let one = |text: &str| {
            let net: ipnetwork::IpNetwork = text.trim().parse().ok()?;
            Some(net.ip())
        };
        let bad = || Error::env(format!("CNI_ARGS: IP={list:?} is not an address"));
        list.split(',').map(|t| one(t).ok_or_else(bad)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_runtimes_send() {
        let args =
            CniArgs::parse("IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.0.0.5;MAC=02:42:0a:00:00:05");
        assert_eq!(args.get("K8S_POD_NAME"), Some("web"));
        assert_eq!(args.get("k8s_pod_name"), None);
        assert_eq!(args.ips().unwrap(), ["10.0.0.5".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn odd_pairs() {
        let args = CniArgs::parse(";;A=;B;C=x=y;D=1;D=2;");
        assert_eq!(args.get("A"), Some(""));
        assert_eq!(args.get("B"), Some(""));
        assert_eq!(args.get("C"), Some("x=y"));
        assert_eq!(args.get("D"), Some("2"));
        assert_eq!(CniArgs::parse(""), CniArgs::default());
    }

    #[test]
    fn addresses() {
        let ips = |text| CniArgs::parse(text).ips();
        assert_eq!(ips("IP=").unwrap(), [] as [IpAddr; 0]);
        let two: [IpAddr; 2] = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(ips("IP=10.0.0.5/24,fd00::5").unwrap(), two);
        for bad in ["IP=10.0.0.300", "IP=10.0.0.5,", "IP=x", "IP=10.0.0.5/33"] {
            let e = ips(bad).unwrap_err();
            assert_eq!(e.code, 4, "{bad}");
            assert!(
                e.msg.contains("IP=") && e.msg.contains(&bad[3..]),
                "{}",
                e.msg
            );
        }
    }

    #[test]
    fn typed_names_key_and_value() {
        let args = CniArgs::parse("N=12x;M=7;E=");
        assert_eq!(args.typed::<u8>("M", "a number").unwrap(), Some(7));
        assert_eq!(args.typed::<u8>("E", "a number").unwrap(), None);
        assert_eq!(args.typed::<u8>("absent", "a number").unwrap(), None);
        let e = args.typed::<u8>("N", "a number").unwrap_err();
        assert_eq!(e, Error::env("CNI_ARGS: N=\"12x\" is not a number"));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let args = CniArgs::parse(&text);
            let _ = args.ips();
        }

        #[test]
        fn what_was_joined_is_split(pairs in proptest::collection::vec(("[A-Z_]{1,8}", "[^;]{0,8}"), 0..6)) {
            let text: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
            prop_assert_eq!(CniArgs::parse(&text.join(";")).0, pairs);
        }
    }
}
