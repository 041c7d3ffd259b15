//! Resolves host names. The binaries are static, and a static glibc cannot load the NSS libraries of its own resolver. So this reads
//! the hosts file and asks the name servers of resolv.conf. Most hosts name their agent by address and do not need it.

use std::net::IpAddr;

use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

/// The addresses of `host`, IPv4 first; or why there are none.
pub(super) async fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    let failed = |cause: String| format!("host name {host}: {cause}");
    let name = Name::from_ascii(host).map_err(|error| failed(error.to_string()))?;
    let known = in_hosts_file(&name);
    if !known.is_empty() {
        return Ok(known);
    }
    // Without a resolv.conf there is no name server, but localhost is still known.
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        let nobody = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        TokioResolver::builder_with_config(nobody, TokioRuntimeProvider::default())
    });
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let resolver = builder.build().map_err(|error| failed(error.to_string()))?;
    let found = resolver
        .lookup_ip(name)
        .await
        .map_err(|error| failed(error.to_string()))?;
    Ok(found.iter().collect())
}

/// A name in the hosts file is not resolved elsewhere, not even for the other address family: while the name servers are down, the
/// hosts file must work at once.
fn in_hosts_file(name: &Name) -> Vec<IpAddr> {
    let Ok(hosts) = Hosts::from_system() else {
        return Vec::new();
    };
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    let lookups = [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)));
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    lookups
        .flat_map(|lookup| {
            lookup
                .answers()
                .iter()
                .filter_map(|record| address(&record.data))
                .collect::<Vec<_>>()
        })
        .collect()
}
