//! Certificate and key of the listener, read again when they are renewed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use axum_server::tls_openssl::OpenSSLConfig;

use crate::stage::source::SourceError;

/// What TLS is spoken with.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) config: OpenSSLConfig,
    cert: PathBuf,
    key: PathBuf,
    /// When the two files were changed, as last looked at.
    changed: [Option<SystemTime>; 2],
}

impl Tls {
    pub(super) fn read(cert: &Path, key: &Path) -> Result<Self, SourceError> {
        let changed = changed(cert, key);
        let config = OpenSSLConfig::from_pem_chain_file(cert, key).map_err(|error| {
            let files = format!("certificate `{}` with key `{}`", cert.display(), key.display());
            SourceError::configuration(format!("cannot use {files}: {error}"))
        })?;
        Ok(Tls { config, cert: cert.to_owned(), key: key.to_owned(), changed })
    }

    /// Takes over files that have changed. Where they cannot be used, the old ones stay.
    pub(super) fn renew(&mut self) {
        let now = changed(&self.cert, &self.key);
        if now == self.changed {
            return;
        }
        self.changed = now;
        match self.config.reload_from_pem_chain_file(&self.cert, &self.key) {
            Ok(()) => tracing::info!(cert = %self.cert.display(), "certificate renewed"),
            Err(error) => {
                tracing::error!(cert = %self.cert.display(), %error, "new certificate cannot be used, keeping the old one");
            }
        }
    }
}

fn changed(cert: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [cert, key].map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok())
}
