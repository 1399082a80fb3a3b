//! The data folder: made where it is absent, closed to others on this machine, and worked in by one process, or by several
//! that keep rows and index elsewhere.

use std::fs::{File, TryLockError};
use std::path::PathBuf;

use uuid::Uuid;

use super::{StartError, innermost};
use crate::config::Config;
use crate::db::Db;
use crate::knowledge::files::identity;

/// The file in it that who works there holds locked.
const LOCK_FILE: &str = "lock";

const BROWSERS_DIR: &str = "browser";

/// Makes the data folder, and keeps others on this machine out of it.
pub(super) fn prepare(config: &Config) -> Result<(), StartError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let path = &config.data_dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            StartError::Setting(format!("data_dir: cannot create {}: {error}", path.display()))
        })?;
    let mode = std::fs::metadata(path)
        .map_err(|error| StartError::Setting(format!("data_dir: cannot read {}: {error}", path.display())))?
        .permissions()
        .mode();
    if mode & 0o002 != 0 {
        return Err(StartError::Setting(format!(
            "data_dir: everyone on this machine may write to {}: check what is in it, then run: chmod 700 {0}",
            path.display()
        )));
    }
    if mode & 0o005 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o770))
            .map_err(|error| StartError::Setting(format!("data_dir: everyone on this machine may read {}, and that cannot be changed ({error}); run: chmod 700 {0}", path.display())))?;
        tracing::warn!(folder = %path.display(), "others on this machine could read the data folder; they no longer can");
    }
    Ok(())
}

/// Takes the data folder for this process, or together with others of its kind. The lock falls with the process, whichever
/// way that ends.
pub(super) fn lock(config: &Config) -> Result<File, StartError> {
    let dir = &config.data_dir;
    let failed = |error| StartError::Setting(format!("data_dir: cannot lock {}: {error}", dir.display()));
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(LOCK_FILE))
        .map_err(failed)?;
    let alone = file.try_lock();
    if alone.is_ok() {
        remove_leftovers(config);
    }
    let locked = if config.is_shareable() {
        file.try_lock_shared()
    } else {
        alone
    };
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse {
            dir: dir.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Refuses a data folder that is not the one of the database's files.
pub(super) async fn check_owner(config: &Config, db: &Db) -> Result<(), StartError> {
    let dir = config.data_dir.display();
    let is_its_own = identity::claim(db, &config.data_dir).await.map_err(|error| {
        StartError::Failed(format!(
            "cannot compare {dir} with the database: {}",
            innermost(&error)
        ))
    })?;
    if is_its_own {
        return Ok(());
    }
    Err(StartError::Setting(format!(
        "data_dir: the files of this database are in another folder than {dir}: all processes on one database need the same \
         data folder, as a volume that each of them mounts; where {dir} is the right one from now on, restored or moved, say \
         so once with: frontdesk migrate --adopt-data-dir"
    )))
}

/// From now on the files of the database are in the configured data folder.
pub async fn adopt(config: &Config, db: &Db) -> Result<(), StartError> {
    prepare(config)?;
    identity::adopt(db, &config.data_dir)
        .await
        .map_err(|error| StartError::Failed(format!("cannot note the data folder: {}", innermost(&error))))
}

/// Where a browser of this process keeps what it needs while it runs.
pub(super) fn browser_dir(config: &Config) -> PathBuf {
    config
        .data_dir
        .join(BROWSERS_DIR)
        .join(Uuid::now_v7().to_string())
}

/// What browsers of processes that were killed left behind.
fn remove_leftovers(config: &Config) {
    let _ = std::fs::remove_dir_all(config.data_dir.join(BROWSERS_DIR));
}
