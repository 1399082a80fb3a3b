//! Which store of files a database in PostgreSQL belongs to. Processes that share the database and not the files would each
//! miss what the others took in, and a volume that was not mounted looks like files that are lost.
//!
//! The data folder has an id, and the database notes the id of the folder that its files are in. SQLite's file belongs to one
//! process anyway, and moves with its folder.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use uuid::Uuid;

use crate::db::{Db, Scope, Write};
use crate::error::Result;
use crate::on;

/// The file in the data folder that holds its id.
const ID_FILE: &str = "store-id";

/// Whether the files of the database are in `data_dir`. A database that knows of no folder yet takes this one.
pub async fn claim(db: &Db, data_dir: &Path) -> Result<bool> {
    if !db.is_postgres() {
        return Ok(true);
    }
    let mut write = db.write(Scope::Operator).await?;
    let mut known = find(&mut write).await?;
    // Read after what the database knows: who tells it of a folder has marked the folder before.
    let mut own = read(data_dir)?;
    if known.is_none() {
        let id = own.unwrap_or_else(Uuid::now_v7);
        on!(write, c => sqlx::query("insert into file_store (id, store_id) values (1, $1) on conflict (id) do nothing")
            .bind(id).execute(c).await.map(drop))?;
        known = find(&mut write).await?;
        if known == Some(id) && own.is_none() {
            mark(data_dir, id)?;
        }
        own = read(data_dir)?;
        write.commit().await?;
    }
    Ok(known == own)
}

/// From now on the files of the database are in `data_dir`.
pub async fn adopt(db: &Db, data_dir: &Path) -> Result<()> {
    let mut write = db.write(Scope::Operator).await?;
    let id = match read(data_dir)? {
        Some(id) => id,
        None => {
            let id = Uuid::now_v7();
            mark(data_dir, id)?;
            id
        }
    };
    on!(write, c => sqlx::query(
        "insert into file_store (id, store_id) values (1, $1) on conflict (id) do update set store_id = excluded.store_id",
    ).bind(id).execute(c).await.map(drop))?;
    write.commit().await
}

async fn find(write: &mut Write) -> Result<Option<Uuid>> {
    Ok(
        on!(write, c => sqlx::query_scalar("select store_id from file_store where id = 1").fetch_optional(c).await)?,
    )
}

/// The folder's id; none where it has none, or one that cannot be read as such.
fn read(data_dir: &Path) -> io::Result<Option<Uuid>> {
    match fs::read_to_string(data_dir.join(ID_FILE)) {
        Ok(text) => Ok(Uuid::try_parse(text.trim()).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn mark(data_dir: &Path, id: Uuid) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(data_dir.join(ID_FILE))?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    File::open(data_dir)?.sync_all()
}
