//! Where state lies: a directory or a bucket, as a flat set of objects that are written whole or not at all.
//!
//! What is put is durable when the call returns: a local file and its directory are synced, which the library does not
//! do by itself; an object store answers only then.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, ObjectStoreScheme, PutMode, PutOptions, PutPayload};
use url::Url;

use super::StateError;

/// One place of state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StateStore {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    /// The directory, where it is one.
    local: Option<PathBuf>,
    place: Arc<str>,
}

/// An object and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    /// Below the place: `manifest-….json`, `data/….arrows`.
    pub name: String,
    pub bytes: u64,
}

impl StateStore {
    /// Opens a path, a `file://` address or one of an object store; makes a local directory where there is none.
    ///
    /// # Errors
    /// An address of no known kind, or of one that this build leaves out; a directory that cannot be made.
    pub fn open(address: &str) -> Result<StateStore, StateError> {
        StateStore::at(address, true)
    }

    /// As [`StateStore::open`], for looking only: nothing is made.
    ///
    /// # Errors
    /// As [`StateStore::open`], and a local directory that is not there.
    pub fn open_existing(address: &str) -> Result<StateStore, StateError> {
        StateStore::at(address, false)
    }

    /// A place that is gone with the process, for tests and trials.
    pub fn in_memory() -> StateStore {
        StateStore {
            store: Arc::new(InMemory::new()),
            prefix: ObjectPath::default(),
            local: None,
            place: "memory://".into(),
        }
    }

    fn at(address: &str, make: bool) -> Result<StateStore, StateError> {
        let wrong = |reason: String| StateError::Address { address: shown(address), reason };
        if address.trim().is_empty() {
            return Err(wrong("it is empty; give a directory or an address such as s3://bucket/folder".to_owned()));
        }
        if !address.contains("://") {
            return StateStore::directory(Path::new(address), make);
        }
        let url = Url::parse(address).map_err(|error| wrong(error.to_string()))?;
        match ObjectStoreScheme::parse(&url) {
            Ok((ObjectStoreScheme::Local, _)) => {
                let path = url.to_file_path().map_err(|()| wrong("it names no file of this machine".to_owned()))?;
                StateStore::directory(&path, make)
            }
            Ok((ObjectStoreScheme::Memory, _)) => Ok(StateStore::in_memory()),
            Ok((
                ObjectStoreScheme::AmazonS3 | ObjectStoreScheme::GoogleCloudStorage | ObjectStoreScheme::MicrosoftAzure,
                _,
            )) => StateStore::cloud(&url, address),
            _ if url.scheme() == "file" => Err(wrong("a file has no host: write file:///path, or the path".to_owned())),
            _ => {
                let schemes = ["file", "s3", "gs", "az", "abfss"];
                let reason = crate::options::unknown("kind of store", url.scheme(), &schemes);
                Err(wrong(reason))
            }
        }
    }

    fn directory(path: &Path, make: bool) -> Result<StateStore, StateError> {
        let place = path.display().to_string();
        let failed = |action, reason: String| StateError::Store {
            place: place.clone(),
            action,
            name: "the directory".to_owned(),
            reason,
        };
        if make {
            // For this user only: what is kept of events is not redacted.
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| failed("make", error.to_string()))?;
        } else if !path.is_dir() {
            return Err(StateError::Absent { place });
        }
        let root = std::fs::canonicalize(path).map_err(|error| failed("find", error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|error| failed("open", error.to_string()))?;
        Ok(StateStore {
            store: Arc::new(store),
            prefix: ObjectPath::default(),
            local: Some(root),
            place: place.as_str().into(),
        })
    }

    /// Credentials and endpoints come from the environment, under the names that each cloud's tools use.
    #[cfg(feature = "object-store-clouds")]
    fn cloud(url: &Url, address: &str) -> Result<StateStore, StateError> {
        let wrong = |error: Error| StateError::Address { address: shown(address), reason: error.to_string() };
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?.to_lowercase(), value.into_string().ok()?)));
        let (store, prefix) = object_store::parse_url_opts(url, environment).map_err(wrong)?;
        Ok(StateStore { store: store.into(), prefix, local: None, place: shown(address).into() })
    }

    #[cfg(not(feature = "object-store-clouds"))]
    fn cloud(_: &Url, address: &str) -> Result<StateStore, StateError> {
        let reason = "this build keeps state in local directories only; build with `--features object-store-clouds` \
                      for S3, Google Cloud Storage and Azure, or mount a volume"
            .to_owned();
        Err(StateError::Address { address: shown(address), reason })
    }

    /// What people call it; no credentials.
    pub fn place(&self) -> &str {
        &self.place
    }

    fn path(&self, name: &str) -> ObjectPath {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn failed(&self, action: &'static str, name: &str, error: &Error) -> StateError {
        StateError::Store { place: self.place.to_string(), action, name: name.to_owned(), reason: error.to_string() }
    }

    /// Writes an object; false where there is one of that name already, which then stays as it is.
    pub(super) async fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool, StateError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.path(name), PutPayload::from(bytes), options).await {
            Ok(_) => self.sync(name).await.map(|()| true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed("write", name, &error)),
        }
    }

    /// Writes an object in several pieces over whatever was there.
    pub(super) async fn put(&self, name: &str, pieces: Vec<Bytes>) -> Result<(), StateError> {
        let put = self.store.put(&self.path(name), pieces.into_iter().collect()).await;
        put.map_err(|error| self.failed("write", name, &error))?;
        self.sync(name).await
    }

    /// Makes a local file and its name survive a loss of power.
    async fn sync(&self, name: &str) -> Result<(), StateError> {
        let Some(root) = &self.local else { return Ok(()) };
        let file = root.join(name);
        let sync = move || {
            std::fs::File::open(&file)?.sync_all()?;
            file.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
        };
        let done = tokio::task::spawn_blocking(sync).await.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        done.map_err(|error| StateError::Store {
            place: self.place.to_string(),
            action: "sync",
            name: name.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Removes what a process that was killed left half written in a directory. The names are the library's: that of the
    /// object, `#` and a number.
    pub(super) async fn remove_leftovers(&self) {
        let Some(root) = self.local.clone() else { return };
        let remove = move || {
            let entries =
                [root.clone(), root.join(super::DATA)].into_iter().filter_map(|dir| std::fs::read_dir(dir).ok());
            for entry in entries.flatten().flatten() {
                let name = entry.file_name();
                let part = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
                if part.is_some_and(|number| number.parse::<u32>().is_ok()) {
                    // What cannot be removed takes room and does no other harm.
                    std::fs::remove_file(entry.path()).ok();
                }
            }
        };
        tokio::task::spawn_blocking(remove).await.ok();
    }

    /// An object's bytes, `None` where there is none.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Bytes>, StateError> {
        let got = match self.store.get(&self.path(name)).await {
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", name, &error)),
        }
    }

    /// The objects right below a folder (the empty name: the place itself), in order of their names.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Object>, StateError> {
        let prefix = if folder.is_empty() { self.prefix.clone() } else { self.path(folder) };
        let listed = self.store.list_with_delimiter(Some(&prefix)).await;
        let listed = listed.map_err(|error| self.failed("list", folder, &error))?;
        let name = |path: &ObjectPath| {
            let file = path.filename()?;
            Some(if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") })
        };
        let found = listed.objects.iter();
        let mut found: Vec<Object> =
            found.filter_map(|meta| Some(Object { name: name(&meta.location)?, bytes: meta.size })).collect();
        found.sort();
        Ok(found)
    }

    /// Deletes an object; one that is not there is no error.
    pub(super) async fn delete(&self, name: &str) -> Result<(), StateError> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", name, &error)),
        }
    }
}

/// An address without what may be a secret in it.
fn shown(address: &str) -> String {
    let Ok(mut url) = Url::parse(address) else { return address.to_owned() };
    let hidden = url.password().is_some() || !url.username().is_empty() || url.query().is_some();
    if hidden {
        // Addresses without a host have no credentials either.
        url.set_password(None).ok();
        url.set_username("").ok();
        url.set_query(None);
    }
    if hidden { url.to_string() } else { address.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_no_known_kind_are_told_with_a_way_out() {
        let told = |address: &str| StateStore::open(address).expect_err("no such store").to_string();
        assert!(told("gss://bucket/x").contains("did you mean `gs`?"), "{}", told("gss://bucket/x"));
        assert!(told(" ").contains("empty"));
        assert!(told("file://host/x").contains("file"), "{}", told("file://host/x"));
        let secret = told("ftp://me:hunter2@host/x?sig=abc");
        assert!(!secret.contains("hunter2") && !secret.contains("abc"), "{secret}");
    }

    #[cfg(not(feature = "object-store-clouds"))]
    #[test]
    fn clouds_that_are_not_built_in_are_refused_with_the_feature_to_use() {
        for address in ["s3://bucket/x", "gs://bucket/x", "az://container/x", "abfss://c@a.dfs.core.windows.net/x"] {
            let error = StateStore::open(address).expect_err("not built in");
            assert!(error.is_users() && error.to_string().contains("object-store-clouds"), "{error}");
        }
    }

    #[test]
    fn a_directory_is_made_for_writing_and_never_for_looking() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let inner = folder.path().join("a/b");
        let inner = inner.to_str().expect("UTF-8");
        assert!(matches!(StateStore::open_existing(inner), Err(StateError::Absent { .. })));
        StateStore::open(inner).expect("it can be made");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(inner).expect("made").permissions());
        assert_eq!(mode & 0o777, 0o700, "for its user only");
        StateStore::open_existing(&format!("file://{inner}")).expect("it is there now");
    }

    #[tokio::test]
    async fn an_object_is_made_once() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let store = StateStore::open(folder.path().to_str().expect("UTF-8")).expect("a store");
        assert!(store.put_new("a.json", Bytes::from_static(b"1")).await.expect("written"));
        assert!(!store.put_new("a.json", Bytes::from_static(b"2")).await.expect("refused"));
        store.put("data/b", vec![Bytes::from_static(b"2"), Bytes::from_static(b"3")]).await.expect("written");
        assert_eq!(store.get("a.json").await.expect("read").as_deref(), Some(&b"1"[..]));
        assert_eq!(store.get("data/b").await.expect("read").as_deref(), Some(&b"23"[..]));
        assert_eq!(store.get("c").await.expect("read"), None);
        let names = |objects: Vec<Object>| objects.into_iter().map(|object| object.name).collect::<Vec<_>>();
        assert_eq!(names(store.list("").await.expect("listed")), ["a.json"]);
        assert_eq!(names(store.list("data").await.expect("listed")), ["data/b"]);
        store.delete("data/b").await.expect("deleted");
        store.delete("data/b").await.expect("nothing to delete");
        assert!(store.list("data").await.expect("listed").is_empty());
    }
}
