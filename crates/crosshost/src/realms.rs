//! Realms: networks of configurations with a data directory (`ipam.dataDir`) have records of their own, apart from all others.
//! An operator sees all of them, and calls a network of one `NETWORK@DIRECTORY`.

use cluster::{Cluster, full_name};

use crate::command::{Result, Session};

/// The records of one realm.
pub struct Realm<'s> {
    /// Its name in the store; `None`: those of configurations without a data directory.
    pub name: Option<String>,
    /// The records.
    pub cluster: Cluster<'s>,
}

impl Realm<'_> {
    /// How a network of it is called among those of all.
    pub fn called(&self, network: &str) -> String {
        full_name(network, self.name.as_deref())
    }

    /// Its data directory.
    pub fn directory(&self) -> Option<String> {
        self.name.as_deref().map(cluster::directory_of)
    }
}

/// All realms, the usual one first.
pub async fn all(session: &Session) -> Result<Vec<Realm<'_>>> {
    let cluster = session.cluster();
    let names = cluster.realms().await?;
    let mut realms = Vec::new();
    for name in names {
        realms.push(Realm {
            cluster: session.cluster_of(Some(&name))?,
            name: Some(name),
        });
    }
    realms.insert(
        0,
        Realm {
            name: None,
            cluster,
        },
    );
    Ok(realms)
}

/// The realm of a network that an operator named, and the network's own name.
pub fn of<'s, 'n>(session: &'s Session, called: &'n str) -> Result<(Realm<'s>, &'n str)> {
    let Some((network, directory)) = called.split_once('@') else {
        let (name, cluster) = (None, session.cluster());
        return Ok((Realm { name, cluster }, called));
    };
    let name = cluster::realm_of(directory);
    let cluster = session.cluster_of(Some(&name))?;
    let name = Some(name);
    Ok((Realm { name, cluster }, network))
}
