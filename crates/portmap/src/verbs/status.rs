//! STATUS: whether an ADD would work. The configuration must be readable, and the kernel's nftables must answer.

use std::path::Path;

use cni::Call;
use nft::ports::Ports;
use plugin::Error;

use crate::config::Conf;

pub(crate) fn status(call: &Call) -> Result<(), Error> {
    Conf::read(call)?;
    let layout = journal::layout::admit(Path::new(journal::ROOT), cni::build::BUILD);
    layout
        .and_then(|()| journal::has_room())
        .map_err(|error| Error::not_ready(error.to_string()))?;
    let asked = Ports::open().and_then(|mut ports| ports.status());
    asked
        .map(drop)
        .map_err(|error| Error::not_ready(format!("this host's nftables cannot be used: {error}")))
}
