//! STATUS: could an ADD be served here and now?

use cni::{Call, Delegate, Error};

use crate::{conf::Conf, host::Host};

pub(crate) async fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let host = Host::open()?;
    host.underlay(&conf.settings)
        .await
        .map_err(|error| Error::not_ready(error.msg))?;
    nft::Nft::open().map_err(|error| Error::not_ready(format!("nftables: {error}")))?;
    Delegate::find(call, &conf.ipam)?.status()
}
