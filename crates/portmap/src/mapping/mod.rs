//! The requested ports of the host, and the container's ports to which they lead.
//!
//! Runtimes pass objects (`hostPort`, `containerPort`, `protocol`, `hostIP`). A run of ports also has `hostPortEnd` and
//! `containerPortEnd`. Users may write the same as a text: `127.0.0.1:8000-8010:80-90/udp`.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use nft::ports::HostPort;
use plugin::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most ports that one attachment may publish: each is an element in the kernel.
const MOST: u32 = 65_536;

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Its IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Its name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "" | "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(format!("protocol: {text:?} is not tcp, udp or sctp")),
        }
    }
}

/// The host's addresses on which a port is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostIp {
    /// All, of both versions of IP as far as the container has them.
    Any,
    /// All of one version of IP.
    Every {
        /// Whether it is IPv6.
        v6: bool,
    },
    /// This one.
    One(IpAddr),
}

/// This many ports from this one on.
pub fn ports(first: u16, count: u16) -> RangeInclusive<u16> {
    first..=first.saturating_add(count - 1)
}

/// A requested run of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// On both sides.
    pub protocol: Protocol,
    /// On the host's side.
    pub host: HostIp,
    /// The first port of the host; 0 if it is to be chosen.
    pub port: u16,
    /// The first port of the container.
    pub container_port: u16,
    /// The number of ports.
    pub count: u16,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
    host_port_end: Option<i64>,
    container_port_end: Option<i64>,
}

impl Mapping {
    /// Whether it applies to a version of IP, if the container has both.
    pub fn is_of(&self, v6: bool) -> bool {
        match self.host {
            HostIp::Any => true,
            HostIp::Every { v6: it } => it == v6,
            HostIp::One(address) => address.is_ipv6() == v6,
        }
    }

    /// The host's first port, for one version of IP.
    pub fn at(&self, v6: bool) -> HostPort {
        HostPort {
            v6,
            address: match self.host {
                HostIp::One(address) => Some(address),
                _ => None,
            },
            protocol: self.protocol.number(),
            port: self.port,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let last = |it: &Self| u32::from(it.port) + u32::from(it.count);
        let both_of = |v6| self.is_of(v6) && other.is_of(v6);
        let same_address = match (self.host, other.host) {
            (HostIp::One(one), HostIp::One(another)) => one == another,
            _ => true,
        };
        self.protocol == other.protocol
            && self.port != 0
            && other.port != 0
            && same_address
            && (both_of(false) || both_of(true))
            && u32::from(self.port) < last(other)
            && u32::from(other.port) < last(self)
    }

    /// Whether the ports that both have lead to the same destination.
    fn agrees(&self, other: &Self) -> bool {
        let shift = |it: &Self| i32::from(it.container_port) - i32::from(it.port);
        shift(self) == shift(other)
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |first: u16| match self.count {
            1 => String::new(),
            count => format!("-{}", ports(first, count).end()),
        };
        match self.host {
            HostIp::Any => {}
            HostIp::Every { v6: false } => write!(f, "0.0.0.0:")?,
            HostIp::Every { v6: true } => write!(f, "[::]:")?,
            HostIp::One(IpAddr::V4(address)) => write!(f, "{address}:")?,
            HostIp::One(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        let (port, container_port) = (self.port, self.container_port);
        let ends = (end(port), end(container_port));
        let protocol = self.protocol.as_str();
        write!(f, "{port}{}:{container_port}{}/{protocol}", ends.0, ends.1)
    }
}

/// Reads a list of mappings; `key` is its name in the configuration. Errors have code 7, and name key and value.
pub fn read(list: &[Value], key: &str) -> Result<Vec<Mapping>, Error> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let bad = |why: &str| Error::config(format!("{key}[{index}]: {why}: {value}"));
        let mapping = if let Value::String(text) = value {
            of_text(text)
        } else {
            let object = cni::decode(value).map_err(|error| error.msg);
            object.and_then(|object| of_object(&object))
        };
        let mapping = mapping.map_err(|why| bad(&why))?;
        if mappings.contains(&mapping) {
            continue;
        }
        let overlapping = mappings.iter().find(|it| it.overlaps(&mapping));
        if let Some(other) = overlapping.filter(|it| !it.agrees(&mapping)) {
            return Err(bad(&format!("overlaps with {other}")));
        }
        mappings.push(mapping);
    }
    let all: u32 = mappings.iter().map(|it| u32::from(it.count)).sum();
    if all > MOST {
        return Err(Error::config(format!(
            "{key}: {all} ports, and {MOST} are the most"
        )));
    }
    Ok(mappings)
}

fn of_object(object: &Object) -> Result<Mapping, String> {
    let host = (object.host_port, object.host_port_end);
    let container = (object.container_port, object.container_port_end);
    mapping(
        &object.host_ip,
        ("hostPort", host),
        ("containerPort", container),
        &object.protocol,
    )
}

/// `[[ip:]host[-end]:]container[-end][/protocol]`
fn of_text(text: &str) -> Result<Mapping, String> {
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, ""));
    let (rest, container) = rest.rsplit_once(':').unwrap_or(("0", rest));
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let ip = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    let range = |text: &str| -> Result<Run, String> {
        let bad = || format!("{text:?} is not a port");
        let number = |digits: &str| {
            let number = digits.parse::<i64>().ok();
            number.filter(|_| !digits.starts_with('+')).ok_or_else(bad)
        };
        match text.split_once('-') {
            Some((first, last)) => Ok((number(first)?, Some(number(last)?))),
            None if text.is_empty() => Ok((0, None)),
            None => Ok((number(text)?, None)),
        }
    };
    let (host, container) = (range(host)?, range(container)?);
    mapping(
        ip,
        ("host port", host),
        ("container port", container),
        protocol,
    )
}

type Run = (i64, Option<i64>);

fn mapping(
    ip: &str,
    (host_key, host): (&str, Run),
    (container_key, container): (&str, Run),
    protocol: &str,
) -> Result<Mapping, String> {
    let protocol = Protocol::parse(protocol)?;
    let (port, count) = run(host_key, host, 0)?;
    let (container_port, container_count) = run(container_key, container, 1)?;
    if port == 0 && (count > 1 || container_count > 1) {
        return Err(format!("{host_key}: 0 chooses one port, not a run of them"));
    }
    if count != container_count {
        return Err(format!(
            "{host_key} and {container_key}: {count} ports cannot lead to {container_count}"
        ));
    }
    let host = match ip {
        "" => HostIp::Any,
        _ => match ip.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip) if ip.is_unspecified() => HostIp::Every { v6: ip.is_ipv6() },
            Ok(ip) => HostIp::One(ip),
            Err(_) => return Err(format!("hostIP: {ip:?} is not an IP address")),
        },
    };
    Ok(Mapping {
        protocol,
        host,
        port,
        container_port,
        count,
    })
}

/// The first port, and the number of ports.
fn run(key: &str, (first, last): Run, lowest: i64) -> Result<(u16, u16), String> {
    let port = |number: i64| {
        let port = u16::try_from(number).ok();
        port.filter(|_| number >= lowest)
            .ok_or_else(|| format!("{key}: {number} is not a port ({lowest} to 65535)"))
    };
    let first_port = port(first)?;
    let last_port = match last {
        None | Some(0) => first_port,
        Some(last) => port(last)?,
    };
    let behind = last_port.checked_sub(first_port);
    match behind.and_then(|behind| behind.checked_add(1)) {
        Some(count) => Ok((first_port, count)),
        None => Err(format!(
            "{key}: {first_port}-{last_port} is not a run of ports"
        )),
    }
}

#[cfg(test)]
mod tests;
