//! Original files, under generated names in the data folder. Nothing that a client names becomes part of a path.

pub mod identity;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use ingest::{ExtractError, Format};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::app::Disk;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::secrets;

/// Files that nothing names are removed at this age: an upload under way names its file only at the end.
pub(super) const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// The folder of files that are being received.
const INCOMING: &str = "incoming";

/// Where original files are.
pub struct FileStore {
    root: PathBuf,
    disk: Disk,
}

/// A file that is being received. It lies apart, and is removed on drop unless the store takes it over.
pub struct IncomingFile {
    path: PathBuf,
    file: File,
    hash: digest::Context,
    size_bytes: u64,
    kept: bool,
}

/// A file that was received whole.
pub struct StagedFile {
    incoming: IncomingFile,
    /// SHA-256 in hexadecimal.
    pub content_hash: String,
    pub size_bytes: u64,
}

impl FileStore {
    /// Makes the folders where they are absent.
    pub fn open(data_dir: &Path, disk: Disk) -> std::io::Result<Self> {
        let root = data_dir.join("files");
        std::fs::create_dir_all(root.join(INCOMING))?;
        Ok(Self { root, disk })
    }

    /// Whether the store is there: it has a folder that is made at the start and never removed.
    pub async fn check(&self) -> Result<()> {
        check_folder(self.root.join(INCOMING)).await
    }

    /// Whether this is the store that the tenant's files were put into. A file that is absent from another one says
    /// nothing of its document.
    pub async fn check_of(&self, tenant_id: TenantId) -> Result<()> {
        self.check().await?;
        check_folder(self.root.join(tenant_id.to_string())).await
    }

    /// Begins to receive a file.
    pub async fn receive(&self) -> Result<IncomingFile> {
        self.disk.check_room()?;
        let path = self.root.join(INCOMING).join(Uuid::now_v7().to_string());
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .await
            .map_err(store_error)?;
        Ok(IncomingFile {
            path,
            file,
            hash: digest::Context::new(&digest::SHA256),
            size_bytes: 0,
            kept: false,
        })
    }

    /// Takes a received file over; returns the key it is kept under.
    pub async fn keep(&self, tenant_id: TenantId, mut staged: StagedFile) -> Result<String> {
        let key = format!("{tenant_id}/{}", Uuid::now_v7());
        let target = self.path(&key)?;
        let path = staged.incoming.path.clone();
        tokio::task::spawn_blocking(move || in_folder(&target, || std::fs::rename(&path, &target)))
            .await
            .map_err(Error::internal)?
            .map_err(store_error)?;
        staged.incoming.kept = true;
        Ok(key)
    }

    /// Puts what `make` makes in place; returns the key it is kept under. Small files cost more on their way to a thread
    /// that may wait for the disk, and in folders, than all the rest: so this is one way and one name. What a death leaves
    /// half written has no row.
    pub async fn put(
        &self,
        tenant_id: TenantId,
        make: impl FnOnce() -> Result<Vec<u8>> + Send + 'static,
    ) -> Result<String> {
        self.disk.check_room()?;
        let key = format!("{tenant_id}/{}", Uuid::now_v7());
        let target = self.path(&key)?;
        let put = move || {
            let bytes = make()?;
            in_folder(&target, || write_new(&target, &bytes)).map_err(|error| {
                let _ = std::fs::remove_file(&target);
                store_error(error)
            })
        };
        tokio::task::spawn_blocking(put)
            .await
            .map_err(Error::internal)??;
        Ok(key)
    }

    /// Where the file of this key is. Keys are made by this store; any other text is refused.
    pub fn path(&self, key: &str) -> Result<PathBuf> {
        let parts = key
            .split_once('/')
            .and_then(|(tenant, file)| Some((Uuid::try_parse(tenant).ok()?, Uuid::try_parse(file).ok()?)));
        let (tenant, file) = parts.ok_or_else(|| Error::internal(format!("{key:?} is no file key")))?;
        Ok(self.root.join(tenant.to_string()).join(file.to_string()))
    }

    /// Whether the file of this key is there.
    pub(super) async fn has(&self, key: &str) -> Result<bool> {
        tokio::fs::try_exists(self.path(key)?)
            .await
            .map_err(Error::storage_unavailable)
    }

    /// Removes a file; one that is gone already is fine.
    pub async fn remove(&self, key: &str) -> Result<()> {
        match tokio::fs::remove_file(self.path(key)?).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(store_error(error)),
            _ => Ok(()),
        }
    }

    /// Removes files that nothing names any more. What cannot be removed now, the sweep removes.
    pub(super) async fn remove_all(&self, keys: &[String]) {
        for key in keys {
            if let Err(error) = self.remove(key).await {
                tracing::warn!(error = ?error, "cannot remove a file that nothing needs; the sweep will");
            }
        }
    }

    /// Keys of files that are older than [`ORPHAN_AGE`]; with `removes_received`, half-received ones of that age are removed on the way.
    pub(super) async fn list_old(&self, removes_received: bool) -> Result<Vec<String>> {
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || list_old(&root, removes_received))
            .await
            .map_err(Error::internal)?
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

/// Puts a file where its tenant's files are; the first one makes the folder.
fn in_folder(target: &Path, put: impl Fn() -> std::io::Result<()>) -> std::io::Result<()> {
    match put() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            target.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            put()
        }
        done => done,
    }
}

fn list_old(root: &Path, removes_received: bool) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for folder in std::fs::read_dir(root)? {
        let folder = folder?;
        let Ok(name) = folder.file_name().into_string() else {
            continue;
        };
        let Some(files) = unless_gone(std::fs::read_dir(folder.path()))? else {
            continue;
        };
        for file in files {
            let file = file?;
            let Ok(file_name) = file.file_name().into_string() else {
                continue;
            };
            let Some(metadata) = unless_gone(file.metadata())? else {
                continue;
            };
            if !metadata.modified()?.elapsed().is_ok_and(|age| age > ORPHAN_AGE) {
                continue;
            }
            if name == INCOMING {
                if removes_received {
                    unless_gone(std::fs::remove_file(file.path()))?;
                }
            } else {
                keys.push(format!("{name}/{file_name}"));
            }
        }
    }
    Ok(keys)
}

async fn check_folder(folder: PathBuf) -> Result<()> {
    let metadata = tokio::fs::metadata(folder)
        .await
        .map_err(Error::storage_unavailable)?;
    if metadata.is_dir() {
        return Ok(());
    }
    Err(Error::storage_unavailable("not a folder"))
}

/// What a failure of the store means: mostly that it is not there, or not ours to write, at the moment.
pub(super) fn store_error(error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::NotADirectory
        | ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::StaleNetworkFileHandle
        | ErrorKind::TimedOut
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable => Error::storage_unavailable(error),
        _ => error.into(),
    }
}

/// None for what requests removed while the folder was being read.
fn unless_gone<T>(outcome: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}

impl IncomingFile {
    /// Bytes received so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Adds bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
        self.file.write_all(bytes).await.map_err(store_error)?;
        Ok(())
    }

    /// The file is whole.
    pub async fn finish(mut self) -> Result<StagedFile> {
        self.file.flush().await.map_err(store_error)?;
        let content_hash = secrets::hex(self.hash.clone().finish().as_ref());
        let size_bytes = self.size_bytes;
        Ok(StagedFile {
            incoming: self,
            content_hash,
            size_bytes,
        })
    }
}

impl Drop for IncomingFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl std::fmt::Debug for StagedFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("StagedFile")
            .field("content_hash", &self.content_hash)
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}

impl StagedFile {
    /// What it is, told from its bytes, off the async threads.
    pub async fn detect(self, file_name: &str) -> Result<(Result<Format, ExtractError>, Self)> {
        let file_name = file_name.to_owned();
        tokio::task::spawn_blocking(move || {
            let format = Format::detect_file(self.path(), &file_name)?;
            Ok((format, self))
        })
        .await
        .map_err(Error::internal)?
    }

    /// Where the bytes are until the store takes them over.
    pub fn path(&self) -> &Path {
        &self.incoming.path
    }
}

/// A client's file name, for show: its last component, without control characters, at most 200 characters.
pub fn clean_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let hidden = |character: &char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let cleaned: String = last
        .chars()
        .filter(|character| !hidden(character))
        .take(200)
        .collect();
    let cleaned = cleaned.trim().trim_start_matches('.').to_owned();
    if cleaned.is_empty() {
        "document".to_owned()
    } else {
        cleaned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_for_show() {
        assert_eq!(clean_name("../../etc/passwd"), "passwd");
        assert_eq!(clean_name("C:\\Users\\me\\Price list.pdf"), "Price list.pdf");
        assert_eq!(clean_name("in\u{202e}fdp.exe\n"), "infdp.exe");
        assert_eq!(clean_name("..."), "document");
        assert_eq!(clean_name(&"a".repeat(999)).len(), 200);
    }

    #[tokio::test]
    async fn a_file_that_is_not_taken_over_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = FileStore::open(folder.path(), Disk::unlimited(folder.path())).expect("the store opens");
        let mut incoming = files.receive().await.expect("a file begins");
        incoming.write(b"half").await.expect("written");

        drop(incoming);

        assert_eq!(
            std::fs::read_dir(folder.path().join("files/incoming"))
                .expect("readable")
                .count(),
            0
        );
    }

    #[tokio::test]
    async fn what_is_put_is_there_whole_and_what_cannot_be_made_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = FileStore::open(folder.path(), Disk::unlimited(folder.path())).expect("the store opens");
        let tenant_id = TenantId::new();

        let key = files.put(tenant_id, || Ok(b"whole".to_vec())).await.expect("put");
        let refused = files.put(tenant_id, || Err(Error::internal("no bytes"))).await;

        let path = files.path(&key).expect("a key of this store");
        assert_eq!(std::fs::read(&path).expect("readable"), b"whole");
        assert!(refused.is_err());
        let count = |folder: &Path| std::fs::read_dir(folder).expect("readable").count();
        assert_eq!(count(&folder.path().join("files/incoming")), 0);
        assert_eq!(count(path.parent().expect("a folder")), 1);
    }

    #[tokio::test]
    async fn only_generated_keys_name_a_path() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = FileStore::open(folder.path(), Disk::unlimited(folder.path())).expect("the store opens");

        for key in [
            "../secrets.key",
            "a/b",
            "/etc/passwd",
            "0190b5a0-0000-7000-8000-000000000000/../../x",
        ] {
            assert!(files.path(key).is_err(), "{key}");
        }
    }
}
