//! TLS to an agent. It is set up only for `consuls://`: to read the system's certificate authorities takes milliseconds of CPU, and
//! most agents are reached on loopback without TLS.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

use super::url::{Place, Url};
use crate::{Config, Error};

/// The settings of TLS connections.
pub(super) struct Tls {
    pub(super) connector: TlsConnector,
    pub(super) server_name: ServerName<'static>,
}

impl Tls {
    /// Reads the certificates in `config`. Does not use the network.
    pub(super) fn new(url: &Url, config: &Config) -> Result<Self, Error> {
        let bad = |what: String, why: String| Error::BadSetting {
            url: url.to_string(),
            what,
            why,
        };
        let (source, authorities) = if let Some(file) = &config.ca_file {
            (format!("CA file {}", file.display()), certificates(file))
        } else if let Some(folder) = &config.ca_path {
            (format!("CA folder {}", folder.display()), all_below(folder))
        } else {
            let system = rustls_native_certs::load_native_certs();
            ("the system's CA certificates".into(), Ok(system.certs))
        };
        let authorities = authorities.map_err(|why| bad(source.clone(), why))?;
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(authorities);
        if added == 0 {
            return Err(bad(source, "no usable certificate in it".into()));
        }
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad("TLS".into(), error.to_string()))?
            .with_root_certificates(roots);
        let client = match (&config.cert_file, &config.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert_file), Some(key_file)) => {
                let what = format!("client certificate {}", cert_file.display());
                let chain = certificates(cert_file).map_err(|why| bad(what.clone(), why))?;
                let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| {
                    let what = format!("client key {}", key_file.display());
                    bad(what, error.to_string())
                })?;
                let client = builder.with_client_auth_cert(chain, key);
                client.map_err(|error| bad(what, error.to_string()))?
            }
            _ => {
                let why = "a certificate file and a key file are given together".into();
                return Err(bad("client certificate".into(), why));
            }
        };
        Ok(Self {
            connector: TlsConnector::from(Arc::new(client)),
            server_name: server_name(url, config)?,
        })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())?;
    all.collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

/// The certificates of all files below a folder.
fn all_below(folder: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: io::Error| format!("{}: {error}", folder.display());
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            all.extend(all_below(&path)?);
        } else {
            let found = certificates(&path);
            all.extend(found.map_err(|why| format!("{}: {why}", path.display()))?);
        }
    }
    Ok(all)
}

/// The name that the server's certificate must have.
fn server_name(url: &Url, config: &Config) -> Result<ServerName<'static>, Error> {
    let name = match (&config.server_name, &url.place) {
        (Some(name), _) | (None, Place::Name(name, _)) => name.clone(),
        (None, Place::Address(address, _)) => return Ok(ServerName::IpAddress((*address).into())),
        (None, Place::Socket(_)) => "localhost".into(),
    };
    ServerName::try_from(name.clone()).map_err(|error| Error::BadSetting {
        url: url.to_string(),
        what: format!("server name {name:?}"),
        why: error.to_string(),
    })
}
