//! What a refusal must look like: one line that begins with what is wrong.

use cni::Error;

/// The keys of a configuration that any of our plugins reads.
const KEYS: [&str; 13] = [
    "cniVersion",
    "name",
    "type",
    "prevResult",
    "ipam",
    "store",
    "node",
    "vni",
    "mtu",
    "vxlanPort",
    "egress",
    "runtimeConfig",
    "args",
];

/// Input that is no JSON object has no key that could be named.
const WHOLE: &str = "network configuration on standard input: ";

/// Longest message in bytes.
const LONGEST: usize = 2048;

/// Holds a refusal of a configuration to its form: code 1, 6 or 7, and a key of ours first (in the spelling that was sent).
pub fn names_a_key(error: &Error) {
    assert!(
        [1, 6, 7].contains(&error.code),
        "code {}: {error}",
        error.code
    );
    let end = error.msg.find(|c: char| !c.is_ascii_alphabetic());
    let first = &error.msg[..end.unwrap_or(error.msg.len())];
    let is_key = KEYS.iter().any(|key| key.eq_ignore_ascii_case(first));
    assert!(
        is_key || error.msg.starts_with(WHOLE),
        "names no key: {error}"
    );
    is_a_line(&error.msg);
}

/// Runtimes log messages: one line, of bounded length, without control characters.
pub fn is_a_line(text: &str) {
    assert!(
        !text.chars().any(char::is_control),
        "not one plain line: {text:?}"
    );
    assert!(text.len() <= LONGEST, "{} bytes: {text}", text.len());
}
