//! `bare_write URL KEY`: one conditional write to the store, with the client that the plugins have, and nothing else.
//!
//! It is what `make scale` measures `ipam-kv` against. Both pay for a process, a connection and the store's own work;
//! what `ipam-kv` takes longer than this is what the addresses cost.

use std::error::Error;

use store::{Config, Key};

/// As long as the record of a lease.
const VALUE: [u8; 200] = [b'x'; 200];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, key] = arguments.as_slice() else {
        return Err("bare_write URL KEY".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let store = store::open(&Config {
        url: Some(url.clone()),
        ..Config::default()
    })?;
    match runtime.block_on(store.create(&Key::new(key)?, &VALUE))? {
        Some(_) => Ok(()),
        None => Err(format!("{key}: is there already").into()),
    }
}
