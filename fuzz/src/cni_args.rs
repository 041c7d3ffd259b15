//! `CNI_ARGS`: what was read and is joined again reads the same, and the addresses in it are those that `ipam-kv` takes for
//! requested.

use std::{collections::BTreeSet, net::IpAddr};

use cni::CniArgs;

use super::{call, message};

/// A configuration that asks for nothing by itself.
const CONF: &[u8] = br#"{"cniVersion":"1.1.0","name":"n","type":"bridge","ipam":{"type":"ipam-kv","subnet":"10.0.0.0/24"}}"#;

/// Holds any value of the variable to that.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let args = CniArgs::parse(&text);
    let pairs = args.0.iter().map(|(key, value)| format!("{key}={value}"));
    let joined = pairs.collect::<Vec<_>>().join(";");
    assert_eq!(CniArgs::parse(&joined), args, "joined again: {joined:?}");
    for (key, value) in &args.0 {
        assert!(
            !key.contains(['=', ';']) && !value.contains(';'),
            "{key:?}={value:?}"
        );
        let last = args.0.iter().rfind(|(other, _)| other == key);
        assert_eq!(args.get(key), last.map(|(_, value)| value.as_str()));
    }

    let through = call::call("ADD", &text, CONF).expect("no value of CNI_ARGS fails by itself");
    assert_eq!(through.args, args);
    addresses(&args, &text);
}

fn addresses(args: &CniArgs, text: &str) {
    let asked = match (args.ips(), call::read("ADD", text, CONF)) {
        (Ok(ips), Ok((_, conf))) => {
            let once: BTreeSet<_> = ips.iter().map(IpAddr::to_canonical).collect();
            assert_eq!(conf.requested, once.into_iter().collect::<Vec<_>>());
            ips
        }
        (Err(alone), Err(error)) => {
            assert_eq!(alone, error);
            assert_eq!(error.code, 4, "{error}");
            assert!(error.msg.starts_with("CNI_ARGS: IP="), "{error}");
            return message::is_a_line(&error.msg);
        }
        (alone, through) => panic!("{alone:?}, but through a call {:?}", through.map(|_| ())),
    };
    let list = asked.iter().map(IpAddr::to_string).collect::<Vec<_>>();
    let again = CniArgs::parse(&format!("IP={}", list.join(",")));
    assert_eq!(again.ips(), Ok(asked));
}
