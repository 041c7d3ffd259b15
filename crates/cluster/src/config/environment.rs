//! Consul's variables of the environment, as Consul's own programs read them. A variable that this client cannot follow is refused by
//! name, never ignored: an operator who asked for TLS must not find the token on the wire.

use std::{collections::HashMap, path::PathBuf};

use crate::{Error, config::settings::setting};

/// Consul's variables.
pub(crate) struct Environment<'e> {
    variables: &'e HashMap<String, String>,
}

/// Variables for what this client does not do: name, the value that is harmless, and what to do.
const REFUSED: [(&str, &str, &str); 3] = [
    (
        "CONSUL_HTTP_AUTH",
        "",
        "no user and password are sent: use a token",
    ),
    (
        "CONSUL_NAMESPACE",
        "default",
        "keys are in no namespace of Consul Enterprise: unset it",
    ),
    (
        "CONSUL_PARTITION",
        "default",
        "keys are in no partition of Consul Enterprise: unset it",
    ),
];

impl<'e> Environment<'e> {
    pub(crate) fn new(variables: &'e HashMap<String, String>) -> Self {
        Self { variables }
    }

    /// A variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let value = self.variables.get(name);
        value.filter(|value| !value.is_empty()).cloned()
    }

    /// The same as a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// A variable that is true or false, in the words that Consul takes (Go's `strconv.ParseBool`).
    fn switch(&self, name: &str) -> Result<Option<bool>, Error> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
            _ => Err(refused(name, &value, "want true or false")),
        }
    }

    /// The URL of the store, with TLS if `CONSUL_HTTP_SSL` asks for it. `configured` is the URL of conflist or file.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a variable that this client cannot follow.
    pub(crate) fn store_url(&self, configured: Option<String>) -> Result<Option<String>, Error> {
        let is_configured = configured.is_some();
        let Some(url) = configured.or_else(|| self.get("CONSUL_HTTP_ADDR")) else {
            return Ok(None);
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("", &url));
        if scheme == "dir" {
            return Ok(Some(url));
        }
        for (name, harmless, why) in REFUSED {
            if let Some(value) = self.get(name).filter(|value| value != harmless) {
                // The value of CONSUL_HTTP_AUTH is a secret.
                let shown = if name == "CONSUL_HTTP_AUTH" {
                    "..."
                } else {
                    &value
                };
                return Err(refused(name, shown, why));
            }
        }
        let wanted = self.switch("CONSUL_HTTP_SSL")?.unwrap_or_default();
        let is_socket = matches!(scheme, "unix" | "consul+unix");
        let url = match scheme {
            _ if !wanted || is_socket || matches!(scheme, "consuls" | "https") => url,
            "" => format!("consuls://{rest}"),
            // Consul's own clients never go back to HTTP where TLS was asked for.
            "http" if !is_configured => format!("https://{rest}"),
            _ => {
                let why = format!("store.url {scheme}://... is without TLS: write consuls://");
                return Err(refused("CONSUL_HTTP_SSL", "true", &why));
            }
        };
        let has_tls = url.starts_with("consuls://") || url.starts_with("https://");
        if has_tls && self.switch("CONSUL_HTTP_SSL_VERIFY")? == Some(false) {
            let why = "certificates are always verified: name the authority in CONSUL_CACERT or store.caFile";
            return Err(refused("CONSUL_HTTP_SSL_VERIFY", "false", why));
        }
        Ok(Some(url))
    }
}

fn refused(name: &str, value: &str, why: &str) -> Error {
    setting(&format!("{name}={value}"), &why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(configured: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Environment::new(&variables)
            .store_url(configured.map(str::to_owned))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn tls_is_asked_for_as_with_consuls_own_programs() {
        let ssl = ("CONSUL_HTTP_SSL", "true");
        for (address, wanted) in [
            ("127.0.0.1:8501", "consuls://127.0.0.1:8501"),
            ("http://consul:8501", "https://consul:8501"),
            ("https://consul", "https://consul"),
            ("unix:///run/consul.sock", "unix:///run/consul.sock"),
        ] {
            let found = url(None, &[("CONSUL_HTTP_ADDR", address), ssl]);
            assert_eq!(found, Ok(Some(wanted.to_owned())));
        }
        for off in ["0", "false", ""] {
            let off = [("CONSUL_HTTP_ADDR", "h:1"), ("CONSUL_HTTP_SSL", off)];
            assert_eq!(url(None, &off), Ok(Some("h:1".to_owned())));
        }
        let bare = url(Some("127.0.0.1:8501"), &[ssl]);
        assert_eq!(bare, Ok(Some("consuls://127.0.0.1:8501".to_owned())));
        assert_eq!(url(None, &[ssl]), Ok(None));
        let dir = url(Some("dir:///x"), &[ssl, ("CONSUL_HTTP_AUTH", "a:b")]);
        assert_eq!(dir, Ok(Some("dir:///x".to_owned())));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_its_name() {
        let tls = "consuls://h";
        for (configured, variable, value, words) in [
            ("consul://h", "CONSUL_HTTP_SSL", "true", "write consuls://"),
            ("http://h", "CONSUL_HTTP_SSL", "1", "write consuls://"),
            ("h", "CONSUL_HTTP_SSL", "yes", "want true or false"),
            (tls, "CONSUL_HTTP_SSL_VERIFY", "false", "always verified"),
            (tls, "CONSUL_HTTP_SSL_VERIFY", "no", "want true or false"),
            ("h", "CONSUL_HTTP_AUTH", "a:hunter2", "use a token"),
            ("h", "CONSUL_NAMESPACE", "team", "unset it"),
            ("h", "CONSUL_PARTITION", "team", "unset it"),
        ] {
            let error = url(Some(configured), &[(variable, value)]).unwrap_err();
            assert!(error.contains(variable) && error.contains(words), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let harmless = [
            ("CONSUL_NAMESPACE", "default"),
            ("CONSUL_PARTITION", "default"),
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ];
        assert_eq!(url(Some("h:1"), &harmless), Ok(Some("h:1".to_owned())));
    }
}
