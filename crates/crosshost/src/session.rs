//! Runs the function of a command, and opens the settings and the store for it.

use std::collections::HashMap;

use cluster::{Cluster, DataDir, Resolved, Settings};
use store::Store;

use crate::{
    cli::{Command, Endpoint, Network, Node, Port},
    commands::{doctor, endpoint, gc, network, node, port, sync},
    connect, manual, watch,
};

/// Errors have no backtraces: with `RUST_BACKTRACE` set, to capture one would walk the unwind tables that a released binary does not
/// have (`docs/decisions/0003-binary-size.md`), and abort.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The variables of this process that are text.
pub fn environment() -> HashMap<String, String> {
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect()
}

/// The settings of this host as they are now, with file and environment folded in.
pub fn settings() -> Result<Resolved> {
    let settings = Settings::default().resolve(&environment())?;
    if settings.names_store {
        return Ok(settings);
    }
    crate::store_check::with_store_in_use(settings)
}

/// What a command needs: the settings of this host and its store.
pub struct Session {
    /// The settings, from file and environment.
    pub settings: Resolved,
    store: Box<dyn Store>,
}

impl Session {
    /// Opens a session with the current settings. Nothing is sent yet.
    pub fn open() -> Result<Self> {
        Self::with(settings()?)
    }

    /// Opens a session with these settings.
    pub fn with(settings: Resolved) -> Result<Self> {
        let store = settings.open_store()?;
        Ok(Self { settings, store })
    }

    /// The scope of this store's networks, in Docker's words: `global`, or `local` if no other host shares the store.
    pub fn scope(&self) -> &'static str {
        if self.settings.is_local() {
            "local"
        } else {
            "global"
        }
    }

    /// The shared records of the default data directory.
    pub fn cluster(&self) -> Cluster<'_> {
        Cluster::new(&*self.store, self.settings.layout.clone())
    }

    /// The shared records of all data directories, those of the default one first.
    pub async fn clusters(&self) -> Result<Vec<Cluster<'_>>> {
        let data_dirs = self.cluster().data_dirs().await?;
        let clusters = data_dirs.iter().map(|it| self.cluster().within(it));
        Ok(clusters.collect::<std::result::Result<_, _>>()?)
    }

    /// The shared records of the data directory of a network, and the network's own name, from its full one.
    pub fn cluster_of<'n>(&self, full_name: &'n str) -> Result<(Cluster<'_>, &'n str)> {
        let (data_dir, network) = DataDir::of_network(full_name);
        Ok((self.cluster().within(&data_dir)?, network))
    }
}

/// Runs a command and returns the text to print.
pub fn run(command: Command) -> Result<String> {
    match command {
        Command::Version => Ok(format!("crosshost {}\n", cni::build::BUILD)),
        Command::Completion { shell } => manual::completion(shell),
        Command::Man { out } => manual::pages(&out),
        Command::Endpoint(Endpoint::Ls {
            local: true,
            no_trunc,
            listing,
        }) => endpoint::local(&listing, no_trunc),
        Command::Port(Port::Ls { no_trunc, listing }) => port::list(&listing, no_trunc),
        Command::Sync { watch: true } => plugin::run(watch::watch()),
        Command::Doctor(output) => plugin::run(doctor::examine(output)),
        Command::Network(Network::Create(options)) => {
            // The options are checked before the store is opened, because that may create its directory.
            plugin::run(async {
                let settings = settings()?;
                let spec = network::spec(*options, &settings.network)?;
                network::create(&Session::with(settings)?, &spec).await
            })
        }
        Command::Network(Network::Ls(asked)) => {
            with_store(async |session| network::list(session, &asked).await)
        }
        Command::Network(Network::Inspect {
            name,
            no_trunc,
            output,
        }) => with_store(async |session| network::inspect(session, &name, no_trunc, output).await),
        Command::Network(Network::Rm { names }) => {
            with_store(async |session| network::remove(session, &names).await)
        }
        Command::Network(Network::Update(asked)) => {
            with_store(async |session| Box::pin(network::update(session, &asked)).await)
        }
        Command::Network(Network::Connect(asked)) => {
            with_store(async |session| connect::connect(session, &asked).await)
        }
        Command::Network(Network::Disconnect { network, container }) => {
            with_store(async |session| {
                connect::disconnect(session, network.as_str(), &container).await
            })
        }
        Command::Network(Network::Prune(asked)) => {
            with_store(async |session| network::prune(session, &asked).await)
        }
        Command::Node(Node::Ls(listing)) => {
            with_store(async |session| node::list(session, &listing).await)
        }
        Command::Node(Node::Rm { name, force }) => {
            with_store(async |session| node::remove(session, &name, force).await)
        }
        Command::Endpoint(Endpoint::Ls {
            local: false,
            no_trunc,
            listing,
        }) => with_store(async |session| endpoint::list(session, &listing, no_trunc).await),
        Command::Sync { watch: false } => with_store(sync::sync),
        Command::Gc { dry_run } => {
            with_store(async |session| Box::pin(gc::sweep(session, dry_run)).await)
        }
    }
}

/// Runs a command that needs the store.
fn with_store(does: impl AsyncFnOnce(&Session) -> Result<String>) -> Result<String> {
    plugin::run(async {
        let session = Session::open()?;
        does(&session).await
    })
}
