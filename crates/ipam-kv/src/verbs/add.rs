//! ADD: lease, answer, note that it was answered; then what is due.

use std::{net::IpAddr, path::Path};

use cluster::{Error as Failure, Leased, Request};
use cni::{Call, CniResult, Ip, Tell};
use ipnetwork::IpNetwork;
use plugin::Error;

use crate::{
    config::Conf,
    container_name,
    context::{Context, owner},
};

pub(crate) async fn add(call: &Call, tell: Tell<'_>) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let attachment = plugin::attachment(call)?;
    conf.settings.refuse_another_store()?;
    let context = Context::new(conf.settings.clone())?;
    let open = context.open();
    let allocator = open.allocator(&attachment.network);

    let _alone = context.files().lock_attachment(&attachment)?;
    cni::caller_listens()?;
    journal::layout::begin(
        Path::new(journal::ROOT),
        cni::build::VERSION,
        cni::build::COMMIT,
    )
    .map_err(|error| Error::io(error.to_string()))?;
    let request = Request {
        spec: &conf.spec,
        owner: owner(&attachment),
        name: container_name::of(call),
        requested: &conf.requested,
        mac: conf.mac,
        narrow: &conf.narrow,
    };
    let leased = allocator.add(&request).await?;
    if let Err(untold) = answer(&conf, &leased).and_then(|result| Ok(tell(&result)?)) {
        allocator.note_gone(&request.owner).await?;
        if let Err(error) = allocator.release(&request.owner).await {
            cni::log(&format!("{attachment}: release postponed: {error}"));
        }
        return Err(untold);
    }
    // Told first: addresses of which nobody learnt are no duplicate for the next ADD. What fails from here on is no
    // reason to call the ADD failed.
    let due = async {
        allocator.told(&request.owner).await?;
        allocator.housekeeping().await
    };
    match due.await {
        Err(error) if !error.is_away() => cni::log(&format!("{attachment}: {error}")),
        _ => {}
    }
    Ok(())
}

/// The result: addresses with their pools' lengths and gateways, routes and resolver as configured.
fn answer(conf: &Conf, leased: &Leased) -> Result<CniResult, Error> {
    let mut ips = Vec::new();
    for address in &leased.addresses {
        let range = leased.network.range_of(*address);
        let range =
            range.ok_or_else(|| Failure::Contended(format!("network of address {address}")))?;
        ips.push(Ip {
            gateway: range.gateway,
            ..Ip::new(inside(*address, range.subnet)?)
        });
    }
    Ok(CniResult {
        ips,
        routes: conf.routes.clone(),
        dns: conf.dns.clone(),
        ..CniResult::default()
    })
}

fn inside(address: IpAddr, subnet: IpNetwork) -> Result<IpNetwork, Error> {
    let network = IpNetwork::new(address, subnet.prefix());
    network.map_err(|error| Error::config(format!("address {address}: {error}")))
}
