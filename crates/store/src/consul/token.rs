//! The ACL token, from the configuration or a file. It is checked before it is used, and is never shown, not even if it is wrong.

use hyper::header::HeaderValue;

use super::url::Url;
use crate::{Config, Error};

/// The token, if there is one, as a header's value.
pub(super) fn read(url: &Url, config: &Config) -> Result<Option<HeaderValue>, Error> {
    let bad = |what: String, why: String| Error::BadSetting {
        url: url.to_string(),
        what,
        why,
    };
    let (what, token) = match (&config.token, &config.token_file) {
        (Some(token), _) if !token.is_empty() => ("token".into(), token.clone()),
        (_, Some(file)) => {
            let what = format!("token file {}", file.display());
            let token = std::fs::read_to_string(file)
                .map_err(|error| bad(what.clone(), error.to_string()))?;
            let token = token.trim().to_owned();
            if token.is_empty() {
                return Err(bad(what, "is empty".into()));
            }
            (what, token)
        }
        _ => return Ok(None),
    };
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad(
            what,
            "has a character that no token has (space, line end, ...)".into(),
        ));
    }
    let mut header =
        HeaderValue::try_from(token).map_err(|_| bad(what, "is no HTTP header value".into()))?;
    header.set_sensitive(true);
    Ok(Some(header))
}
