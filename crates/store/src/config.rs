//! The configured address of the store, and the credentials. Opening checks all settings and reads their files, so that a wrong
//! setting is reported as such, and not as a store that cannot be reached.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::consul::{Consul, without_secrets};
use crate::dir::Dir;
use crate::{Error, Store};

/// The store of a host without a configured one.
pub const DEFAULT_URL: &str = "dir:///var/lib/crosshost";

/// How to reach the store. [`Default`] is [`DEFAULT_URL`] with a budget of 10 seconds.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// `consul://host:port`, `consuls://host:port`, `consul+unix:///path`, `dir:///path`, or an address as in `CONSUL_HTTP_ADDR`.
    pub url: Option<String>,
    /// The ACL token.
    pub token: Option<String>,
    /// A file with the ACL token; `token` wins.
    pub token_file: Option<PathBuf>,
    /// PEM file of the certificate authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Folder of such PEM files, searched recursively; `ca_file` wins.
    pub ca_path: Option<PathBuf>,
    /// PEM file of the client certificate, with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate must have, if it is not the host in the URL.
    pub server_name: Option<String>,
    /// How long all calls of one verb together may wait for the store.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            token: None,
            token_file: None,
            ca_file: None,
            ca_path: None,
            cert_file: None,
            key_file: None,
            server_name: None,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Everything except secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.url.as_deref().map(without_secrets))
            .field("token", &self.token.as_ref().map(|_| "(secret)"))
            .field("token_file", &self.token_file)
            .field("ca_file", &self.ca_file)
            .field("ca_path", &self.ca_path)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .field("server_name", &self.server_name)
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Opens the store that `config` names. Reads local files (`dir` makes its directory), but does not touch the network.
pub fn open(config: &Config) -> Result<Box<dyn Store>, Error> {
    let url = config.url.as_deref().unwrap_or(DEFAULT_URL);
    let Some(path) = url.strip_prefix("dir://") else {
        return Ok(Box::new(Consul::open(url, config)?));
    };
    if !path.starts_with('/') {
        let why = "the path of a directory starts with /".into();
        return Err(Error::BadUrl {
            url: without_secrets(url),
            why,
        });
    }
    Ok(Box::new(Dir::open(path, config.timeout)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let url = Some("http://admin:hunter2@10.0.0.1".into());
        let config = Config {
            url,
            token: Some("s3cret".into()),
            ..Config::default()
        };
        let shown = format!("{config:?}");
        assert!(
            shown.contains("10.0.0.1") && !shown.contains("hunter2") && !shown.contains("s3cret")
        );
    }

    #[test]
    fn a_directory_is_named_by_its_whole_path() {
        let config = Config {
            url: Some("dir://here".into()),
            ..Config::default()
        };
        let error = open(&config).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("starts with /")));
    }
}
