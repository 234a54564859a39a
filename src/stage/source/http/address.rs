//! `http://addr:port/path?token_file=…&cluster=…&limit=…`, `https://…?cert=…&key=…`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::model::Lane;
use crate::options::{bytes, pairs, unknown};
use crate::stage::source::SourceError;

const EXAMPLE: &str = "write it as http://127.0.0.1:8080/audit?token_file=/run/secrets/token or \
                       https://0.0.0.0:8443/audit?cert=tls.crt&key=tls.key&token_file=token";

/// Largest body where the URL names no limit. kube-apiserver batches up to 400 events.
const BODY_BYTES_MAX: u64 = 32 << 20;
/// Longest cluster name in a path.
const CLUSTER_CHARS_MAX: usize = 253;

/// Where an audit-webhook receiver listens and whom it admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAddress {
    /// `host:port`.
    pub listen: String,
    /// Path of the requests, without a slash at its end; empty for `/`.
    pub path: String,
    /// PEM files of certificate chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// File with the bearer token that senders must show.
    pub token_file: Option<PathBuf>,
    /// Name of the cluster that sends here, where nothing in the event or the path says so.
    pub cluster: Option<Arc<str>>,
    /// Largest body, before and after inflating, bytes.
    pub body_bytes_max: u64,
}

impl HttpAddress {
    /// The listener as a lane.
    pub(super) fn lane(&self) -> Lane {
        Lane {
            name: self.to_string().into(),
            fallback_cluster: format!("{}{}", self.listen, self.path).into(),
            cluster: self.cluster.clone(),
        }
    }

    /// The cluster that a request's path names, if any. `Err` says which paths there are.
    pub(super) fn cluster_of(&self, path: &str) -> Result<Option<Arc<str>>, String> {
        let help = || format!("no such path: POST to {0}, or to {0}/<cluster>", self.path);
        let rest = path.strip_prefix(self.path.as_str()).ok_or_else(help)?;
        let Some(name) = rest.strip_prefix('/') else {
            return if rest.is_empty() { Ok(None) } else { Err(help()) };
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match name {
            "" => Ok(None),
            name if name.len() <= CLUSTER_CHARS_MAX && name.chars().all(legal) => Ok(Some(name.into())),
            _ => Err(help()),
        }
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.listen, self.path)
    }
}

impl FromStr for HttpAddress {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        parse(text).map_err(|problem| {
            let shown = text.split('?').next().unwrap_or_default();
            SourceError::configuration(format!("`{shown}` is not a listener: {problem}; {EXAMPLE}"))
        })
    }
}

fn parse(text: &str) -> Result<HttpAddress, String> {
    let (scheme, rest) = text.split_once("://").ok_or("it does not begin with http:// or https://")?;
    let secure = match scheme {
        "http" => false,
        "https" => true,
        other => return Err(unknown("scheme", other, &["http", "https"])),
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (listen, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
    check_listen(listen)?;
    let path = path.trim_end_matches('/');
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '~');
    if !path.chars().all(legal) || path.contains("//") {
        return Err(format!("`{path}` cannot be its path: letters, digits, `.`, `_`, `-`, `~` and single `/`"));
    }
    let mut address = HttpAddress {
        listen: listen.to_owned(),
        path: path.to_owned(),
        tls: None,
        token_file: None,
        cluster: None,
        body_bytes_max: BODY_BYTES_MAX,
    };
    let (mut cert, mut key) = (None, None);
    for (name, value) in pairs(query)? {
        match name.as_str() {
            "cert" => cert = Some(PathBuf::from(value)),
            "key" => key = Some(PathBuf::from(value)),
            "token_file" => address.token_file = Some(value.into()),
            "cluster" => address.cluster = Some(value.into()),
            "limit" => address.body_bytes_max = bytes(&value)?,
            other => return Err(unknown("option", other, &["cert", "key", "token_file", "cluster", "limit"])),
        }
    }
    address.tls = match (secure, cert, key) {
        (true, Some(cert), Some(key)) => Some((cert, key)),
        (true, _, _) => return Err("https needs `cert` and `key`".into()),
        (false, None, None) => None,
        (false, _, _) => return Err("`cert` and `key` need https".into()),
    };
    Ok(address)
}

fn check_listen(listen: &str) -> Result<(), String> {
    if listen.contains('@') {
        return Err("credentials do not belong in a URL: name a token_file".into());
    }
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, ""));
    if host.is_empty() || port.is_empty() || port.ends_with(']') {
        return Err("it needs an address and a port".into());
    }
    port.parse::<u16>().map(|_| ()).map_err(|_| format!("`{port}` is not a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let address: HttpAddress =
            "https://0.0.0.0:8443/audit/?cert=a.crt&key=a.key&token_file=t&cluster=prod&limit=1MB"
                .parse()
                .expect("right");
        assert_eq!(address.to_string(), "https://0.0.0.0:8443/audit");
        assert_eq!(address.tls, Some(("a.crt".into(), "a.key".into())));
        assert_eq!(address.token_file, Some("t".into()));
        assert_eq!(address.lane().cluster.as_deref(), Some("prod"));
        assert_eq!(address.body_bytes_max, 1_000_000);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("http://127.0.0.1/audit", "needs an address and a port"),
            ("http://[::1]/audit", "needs an address and a port"),
            ("http://a:99999/", "not a port"),
            ("https://a:1/", "needs `cert` and `key`"),
            ("http://a:1/?cert=x&key=y", "need https"),
            ("http://a:1/?tokenfile=x", "did you mean `token_file`"),
            ("http://me:secret@a:1/", "credentials"),
            ("http://a:1/{x}", "cannot be its path"),
        ] {
            let error = text.parse::<HttpAddress>().expect_err(text).to_string();
            assert!(error.contains(part) && error.contains("write it as"), "{error}");
        }
    }

    #[test]
    fn a_path_may_name_the_cluster() {
        let address: HttpAddress = "http://[::1]:80/audit".parse().expect("right");
        assert_eq!(address.cluster_of("/audit"), Ok(None));
        assert_eq!(address.cluster_of("/audit/"), Ok(None));
        assert_eq!(address.cluster_of("/audit/prod-eu"), Ok(Some("prod-eu".into())));
        assert!(address.cluster_of("/audits").is_err());
        assert!(address.cluster_of("/audit/a/b").is_err());
        let root: HttpAddress = "http://[::1]:80".parse().expect("right");
        assert_eq!(root.cluster_of("/"), Ok(None));
    }
}
