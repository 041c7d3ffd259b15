//! STATUS: could an ADD get an address? If not, it answers with the words of that ADD.

use std::{path::Path, time::Duration};

use cni::{Call, Error};

use crate::{conf::Conf, desk::Desk};

/// STATUS is polled: it answers within a second.
const PATIENCE: Duration = Duration::from_millis(800);

pub(crate) async fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let layout = journal::layout::admit(Path::new(journal::ROOT), cni::build::BUILD);
    layout.map_err(|error| Error::not_ready(error.to_string()))?;
    let mut settings = conf.settings.clone();
    settings.store.timeout = PATIENCE;
    let desk = Desk::new(settings)?;
    let open = desk.open();
    let name = conf.spec.name.as_str();
    let outlook = open.allocator(name).outlook(&conf.spec).await;
    outlook.map_err(|error| {
        let msg = error.about(&format!("network {name}"));
        Error::not_ready(msg).with_details(format!("an ADD would end with code {}", error.code()))
    })
}
