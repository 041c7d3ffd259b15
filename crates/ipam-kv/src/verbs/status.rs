//! STATUS: could an ADD get an address? If not, it answers with the words of that ADD. What a DEL of this host would mend is said on
//! standard error alone.

use std::{path::Path, time::Duration};

use cni::Call;
use plugin::{Error, code_of};

use crate::{config::Conf, context::Context};

/// STATUS is polled: it answers within a second.
const PATIENCE: Duration = Duration::from_millis(800);

pub(crate) async fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::read(call)?;
    let layout = journal::layout::admit(Path::new(journal::ROOT), cni::build::BUILD);
    layout
        .and_then(|()| journal::has_room())
        .map_err(|error| Error::not_ready(error.to_string()))?;
    let mut settings = conf.settings.clone();
    settings.store.timeout = PATIENCE;
    settings.refuse_another_store().map_err(|error| {
        let details = format!("an ADD would end with code {}", code_of(&error));
        Error::not_ready(error.to_string()).with_details(details)
    })?;
    let context = Context::new(settings)?;
    let open = context.open();
    let name = conf.spec.name.as_str();
    let refusal = open.allocator(name).refusal(&conf.spec).await;
    let of_network = |error: &cluster::Error| error.about(&format!("network {name}"));
    match refusal {
        Ok(None) => Ok(()),
        Ok(Some(full)) => {
            let msg = of_network(&full);
            cni::log(&format!("{msg}; the next DEL on this host makes room"));
            Ok(())
        }
        Err(error) => {
            let details = format!("an ADD would end with code {}", code_of(&error));
            Err(Error::not_ready(of_network(&error)).with_details(details))
        }
    }
}
