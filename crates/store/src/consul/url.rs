//! The address of a Consul agent. Beside our own forms this accepts those of `CONSUL_HTTP_ADDR`, because an operator's tools use that
//! variable: `127.0.0.1:8500`, `http://`, `https://`, `unix://`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use crate::Error;

/// An agent's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    pub(super) place: Place,
}

/// What to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Address(IpAddr, u16),
    Name(String, u16),
    Socket(PathBuf),
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| {
            let url = without_secrets(text);
            Err(Error::BadUrl {
                url,
                why: why.into(),
            })
        };
        if text.contains(['?', '#']) {
            return bad("nothing follows host and port, or the path; a token belongs into a file");
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (tls, default_port) = match scheme {
            "consul" | "" => (false, 8500),
            "consuls" => (true, 8501),
            "http" => (false, 80),
            "https" => (true, 443),
            "consul+unix" | "unix" if rest.starts_with('/') => {
                let place = Place::Socket(rest.into());
                return Ok(Self { tls: false, place });
            }
            "consul+unix" | "unix" => return bad("the path of a socket starts with /"),
            _ => return bad("not one of consul, consuls, consul+unix, dir, http, https, unix"),
        };
        if rest.contains('@') {
            return bad("user and password do not belong in a URL: use a token");
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
        {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':').or(Some("x"))),
            None => match authority.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return bad("an IPv6 address is written in [brackets]");
                }
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port.map(str::parse) {
            None => default_port,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return bad("a port is a number from 1 to 65535, and nothing follows it"),
        };
        let place = if authority.starts_with('[') {
            match host.parse::<Ipv6Addr>() {
                Ok(address) => Place::Address(address.into(), port),
                Err(_) => return bad("no IPv6 address in the brackets"),
            }
        } else if let Ok(address) = host.parse() {
            Place::Address(address, port)
        } else if host.is_empty()
            || !host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return bad("neither a host name nor an address");
        } else {
            Place::Name(host.into(), port)
        };
        Ok(Self { tls, place })
    }

    /// The value of HTTP's Host header.
    pub(super) fn authority(&self) -> String {
        match &self.place {
            Place::Address(IpAddr::V6(address), port) => format!("[{address}]:{port}"),
            Place::Address(address, port) => format!("{address}:{port}"),
            Place::Name(host, port) => format!("{host}:{port}"),
            Place::Socket(_) => "localhost".into(),
        }
    }
}

/// The URL as messages show it: without what is before an `@` (user and password) and what follows `?` or `#` (it may be a token).
pub fn without_secrets(url: &str) -> String {
    let (head, tail) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let Some(mark) = tail.chars().next() else {
        return match head.rsplit_once('@') {
            Some((_, place)) => format!("...@{place}"),
            None => head.into(),
        };
    };
    // There is another `@`: the first one may be part of a password, so everything before the last one may be secret.
    if tail.contains('@') {
        return "...".into();
    }
    format!("{}{mark}...", without_secrets(head))
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.tls) {
            (Place::Socket(path), _) => write!(f, "consul+unix://{}", path.display()),
            (_, false) => write!(f, "consul://{}", self.authority()),
            (_, true) => write!(f, "consuls://{}", self.authority()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_understood() {
        for (text, normal) in [
            ("127.0.0.1:8500", "consul://127.0.0.1:8500"),
            ("127.0.0.1", "consul://127.0.0.1:8500"),
            ("consul://10.0.0.1", "consul://10.0.0.1:8500"),
            (
                "consul://consul.service.consul:18500/",
                "consul://consul.service.consul:18500",
            ),
            ("consuls://10.0.0.1", "consuls://10.0.0.1:8501"),
            ("http://[fd00::1]:8500", "consul://[fd00::1]:8500"),
            ("[::1]", "consul://[::1]:8500"),
            (
                "http://consul.example.org",
                "consul://consul.example.org:80",
            ),
            (
                "https://consul.example.org",
                "consuls://consul.example.org:443",
            ),
            ("unix:///run/consul.sock", "consul+unix:///run/consul.sock"),
            (
                "consul+unix:///run/consul.sock",
                "consul+unix:///run/consul.sock",
            ),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!(url.to_string(), normal);
            assert_eq!(Url::parse(normal).expect(normal), url);
        }
    }

    #[test]
    fn others_are_refused_without_showing_a_password() {
        for (text, why) in [
            ("", "neither a host name"),
            ("etcd://10.0.0.1", "not one of consul"),
            ("consul://10.0.0.1:0", "a port is"),
            ("consul://10.0.0.1:85000", "a port is"),
            ("consul://10.0.0.1:8500/ui", "a port is"),
            ("consul://::1:8500", "brackets"),
            ("consul://[::1", "brackets"),
            ("consul://[::1]8500", "a port is"),
            ("consul://ex ample", "neither a host name"),
            ("unix://run/consul.sock", "starts with /"),
            ("http://admin:hunter2@10.0.0.1", "use a token"),
            ("etcd://admin:hunter2@10.0.0.1", "not one of"),
            ("consul://h:1/?token=hunter2", "nothing follows"),
            ("consul://h:1#hunter2", "nothing follows"),
            ("unix:///run/consul.sock?token=hunter2", "nothing follows"),
            ("consul://hunter2?x@h:1", "nothing follows"),
            ("consul://h:1/?token=x@hunter2", "nothing follows"),
            ("consul://a:hunter2@h:1/?x", "nothing follows"),
        ] {
            let error = Url::parse(text).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(
            without_secrets("consul://h:1/?token=x"),
            "consul://h:1/?..."
        );
    }
}
