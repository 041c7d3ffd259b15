//! Data directories: networks of configurations with a data directory (`ipam.dataDir`) have records of their own, apart from all others.
//! An operator sees all of them; the full name of a network of one is `NETWORK@DIRECTORY`.

use cluster::{Cluster, full_name};

use crate::session::{Result, Session};

/// The records of one data directory.
pub struct DataDir<'s> {
    /// Its name in the store; `None`: those of configurations without a data directory.
    pub name: Option<String>,
    /// The records.
    pub cluster: Cluster<'s>,
}

impl<'s> DataDir<'s> {
    fn open(session: &'s Session, name: Option<String>) -> Result<Self> {
        let cluster = session.cluster_of(name.as_deref())?;
        Ok(Self { name, cluster })
    }

    /// The full name of one of its networks.
    pub fn called(&self, network: &str) -> String {
        full_name(network, self.name.as_deref())
    }

    /// Its data directory.
    pub fn directory(&self) -> Option<String> {
        self.name.as_deref().map(cluster::directory_of)
    }
}

/// All data directories, the default one first.
pub async fn all(session: &Session) -> Result<Vec<DataDir<'_>>> {
    let usual = DataDir::open(session, None)?;
    let names = usual.cluster.data_dirs().await?;
    let mut data_dirs = vec![usual];
    for name in names {
        data_dirs.push(DataDir::open(session, Some(name))?);
    }
    Ok(data_dirs)
}

/// The data directory of a network that an operator named, and the network's own name.
pub fn of<'s, 'n>(session: &'s Session, called: &'n str) -> Result<(DataDir<'s>, &'n str)> {
    let (network, directory) = match called.split_once('@') {
        Some((network, directory)) => (network, Some(directory)),
        None => (called, None),
    };
    let data_dir = DataDir::open(session, directory.map(cluster::data_dir_key))?;
    Ok((data_dir, network))
}
