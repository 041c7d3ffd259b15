//! Chooses free ports, and finds programs that listen on a port.
//!
//! No socket is bound to find out: nerdctl has a process that holds the port for the container. The kernel lists listening
//! sockets (`sock_diag(7)`). A socket that is held for this container ([`crate::listener_owner`]) is no conflict; any other
//! belongs to a program that would receive no packets any more.

use std::collections::{BTreeSet, hash_map::RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use netlink::{Listener, Sysctl};
use nft::ports::{HostPort, Ports, Scope};
use plugin::{Error, code};

use crate::{
    config::Listeners,
    listener_owner,
    mapping::{HostIp, Mapping, ports},
    record::{Record, Run},
};

/// `ip(7)`: the kernel's range of ephemeral ports, and the exceptions.
const RANGE: Sysctl = Sysctl::new("ipv4/ip_local_port_range");
const RESERVED: Sysctl = Sysctl::new("ipv4/ip_local_reserved_ports");

/// Chooses ports.
pub(crate) struct PortAllocator<'a> {
    ports: &'a mut Ports,
    local: &'a [IpAddr],
}

impl<'a> PortAllocator<'a> {
    pub(crate) fn new(ports: &'a mut Ports, local: &'a [IpAddr]) -> Self {
        Self { ports, local }
    }

    /// The same mappings with all ports chosen. Code 111 if none is free.
    pub(crate) fn choose(mut self, mappings: &[Mapping]) -> Result<Vec<Mapping>, Error> {
        let mut chosen = mappings.to_vec();
        for index in 0..chosen.len() {
            if chosen[index].port == 0 {
                let port = self.allocate(&chosen[index], &chosen)?;
                chosen[index].port = port;
            }
        }
        Ok(chosen)
    }

    fn allocate(&mut self, mapping: &Mapping, others: &[Mapping]) -> Result<u16, Error> {
        let (first, last) = range()?;
        let reserved = runs(&read(&RESERVED)?);
        let listened: BTreeSet<_> = listening(mapping.protocol.number(), first..=last)?
            .into_iter()
            .filter(|it| is_at(it, mapping.host))
            .map(|it| it.port)
            .collect();
        let asked = |port: u16| {
            others.iter().any(|it| {
                it.protocol == mapping.protocol && ports(it.port, it.count).contains(&port)
            })
        };
        let count = u32::from(last - first) + 1;
        // A fresh hasher has a random seed, so that hosts and containers start at different ports.
        let start = u32::try_from(RandomState::new().hash_one(()) % u64::from(count)).unwrap_or(0);
        for step in 0..count {
            let offset = u16::try_from((start + step) % count).unwrap_or(0);
            let port = first.saturating_add(offset);
            let is_reserved = reserved.iter().any(|run| run.contains(&port));
            if is_reserved || listened.contains(&port) || asked(port) {
                continue;
            }
            if self.is_free(mapping, port)? {
                return Ok(port);
            }
        }
        Err(Error::new(
            code::PORT,
            format!("port {mapping}: none of {first}-{last} ({RANGE}) is free"),
        ))
    }

    fn is_free(&mut self, mapping: &Mapping, port: u16) -> Result<bool, Error> {
        let mut keys = BTreeSet::new();
        for v6 in [false, true].into_iter().filter(|v6| mapping.is_of(*v6)) {
            let at = HostPort {
                port,
                ..mapping.at(v6)
            };
            let same = self.local.iter().filter(|it| it.is_ipv6() == v6);
            let addresses = same.copied().map(Some).chain([None, at.address]);
            keys.extend(addresses.map(|address| HostPort { address, ..at }.key()));
        }
        let found = self.ports.read(&Scope::Keys(keys))?;
        Ok(found.elements.is_empty())
    }
}

/// Refuses ports on which a program of this host listens (code 111), or only warns.
pub(crate) fn refuse_listened(record: &Record, listeners: Listeners) -> Result<(), Error> {
    let mut protocols: Vec<_> = record.runs.iter().map(|run| run.protocol).collect();
    protocols.sort();
    protocols.dedup();
    for protocol in protocols {
        let runs = || record.runs.iter().filter(|run| run.protocol == protocol);
        let first = runs().map(|run| run.port).min().unwrap_or(1);
        let last = runs().map(|run| *run.ports().end()).max();
        let all = listening(protocol.number(), first..=last.unwrap_or(first))?;
        for listener in &all {
            let hit = runs().find(|run| {
                let at = match run.address {
                    Some(address) => HostIp::One(address),
                    None => HostIp::Every {
                        v6: run.to.is_ipv6(),
                    },
                };
                run.ports().contains(&listener.port) && is_at(listener, at)
            });
            if hit.is_none() {
                continue;
            }
            let holders = netlink::socket_owners(listener.inode);
            let container = &record.attachment.container;
            if holders
                .iter()
                .any(|it| listener_owner::is_for(it, container))
            {
                continue;
            }
            let who = match holders.first() {
                Some(holder) => format!("{} (process {})", holder.comm, holder.pid),
                None => "a program".to_owned(),
            };
            let port = listener.port;
            let why = format!(
                "host port {port}/{}: {who} of this host listens on it, at {}",
                protocol.as_str(),
                listener.address,
            );
            if listeners == Listeners::Warn {
                cni::log(&format!(
                    "{why}; it is published all the same, and the program hears nothing of it from elsewhere"
                ));
                continue;
            }
            // Nomad asks for both TCP and UDP, whichever a program uses.
            let is_twin = |run: &&Run| run.protocol != protocol && run.ports().contains(&port);
            let twin = record.runs.iter().find(is_twin);
            let twin = twin.map_or_else(String::new, |twin| {
                format!(
                    "; {port}/{} was asked for as well: where that alone is meant, \"listeners\": \"warn\" of portmap publishes both",
                    twin.protocol.as_str()
                )
            });
            return Err(Error::new(code::PORT, why + &twin));
        }
    }
    Ok(())
}

/// Whether the program would receive packets to these addresses.
fn is_at(listener: &Listener, at: HostIp) -> bool {
    match at {
        HostIp::Any => true,
        HostIp::Every { v6 } => listener.is_of(v6),
        HostIp::One(address) => {
            listener.is_of(address.is_ipv6())
                && (listener.address.is_unspecified() || listener.address == address)
        }
    }
}

fn listening(protocol: u8, ports: RangeInclusive<u16>) -> Result<Vec<Listener>, Error> {
    netlink::listeners(protocol, &ports).map_err(Error::from)
}

fn range() -> Result<(u16, u16), Error> {
    let text = read(&RANGE)?;
    let mut numbers = text.split_whitespace().filter_map(|it| it.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if 0 < first && first <= last => Ok((first, last)),
        _ => Err(Error::new(
            code::KERNEL,
            format!("{RANGE}: {text:?} is not a range"),
        )),
    }
}

/// `8080,9000-9010`
fn runs(text: &str) -> Vec<RangeInclusive<u16>> {
    let runs = text.trim().split(',').filter_map(|run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    runs.collect()
}

fn read(sysctl: &Sysctl) -> Result<String, Error> {
    let value = sysctl.read()?;
    Ok(value.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn reserved_ports_are_runs() {
        assert_eq!(runs("\n"), []);
        assert_eq!(runs("8080,9000-9010\n"), [8080..=8080, 9000..=9010]);
    }
}
