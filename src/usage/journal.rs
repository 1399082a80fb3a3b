//! Paid calls that begin before the database knows anything of them, in a file of this process: what was written to it
//! outlives the process, however that ends. A transaction for each question would do the same at many times the cost.
//!
//! Each call under way has a place in the file, which is free again once the call is in the database, under the same id. The
//! process holds its file locked; a file that nobody holds is a dead one's ([`book_abandoned`]).

use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::types::Json;
use uuid::Uuid;

use super::{Spend, UsageEvent, book, period_of};
use crate::db::{Conn, Db, Scope};
use crate::error::Result;
use crate::on;

/// The folder of these files in the data folder.
const FOLDER: &str = "calls";

/// Bytes that a call has in the file.
const PLACE_BYTES: usize = 2048;

/// What the first byte of a place says that is free.
const FREE: u8 = 0;

/// This process' file.
pub struct Journal(Arc<Pages>);

struct Pages {
    file: File,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    free: Vec<u64>,
    made: u64,
}

/// A call under way. One that is dropped without [`Entry::strike`] stays, and is booked when the process is gone.
#[must_use = "the call is booked a second time if its entry is not struck out"]
pub struct Entry {
    pages: Arc<Pages>,
    place: u64,
}

impl Journal {
    /// Begins a file in `data_dir`.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        std::fs::create_dir_all(&folder)?;
        loop {
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(folder.join(Uuid::now_v7().to_string()))?;
            file.lock()?;
            // Whoever looked for dead ones between the two took it for one.
            if file.metadata()?.nlink() > 0 {
                let places = Mutex::default();
                return Ok(Self(Arc::new(Pages { file, places })));
            }
        }
    }

    /// Notes a call that begins now. None where that cannot be written, which keeps nobody from asking: a full disk, say.
    pub fn enter(&self, call: &UsageEvent) -> Option<Entry> {
        let mut line = serde_json::to_vec(call).expect("an event has nothing that JSON has not");
        line.push(b'\n');
        let entry = Entry {
            pages: self.0.clone(),
            place: self.0.places().take(),
        };
        // A few bytes into the page cache: quicker than the way to a thread that may wait.
        let written = match line.len() <= PLACE_BYTES {
            true => self.0.file.write_all_at(&line, entry.offset()),
            false => Err(io::ErrorKind::FileTooLarge.into()),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "cannot note a paid call; if the process dies now, it is not booked");
            entry.strike();
            return None;
        }
        Some(entry)
    }
}

impl Entry {
    /// The call is in the database, or did not take place.
    pub fn strike(self) {
        if let Err(error) = self.pages.file.write_all_at(&[FREE], self.offset()) {
            tracing::warn!(%error, "cannot strike out a paid call");
            return;
        }
        self.pages.places().free.push(self.place);
    }

    fn offset(&self) -> u64 {
        self.place * PLACE_BYTES as u64
    }
}

impl Pages {
    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn take(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            self.made += 1;
            self.made - 1
        })
    }
}

/// Books the calls that processes left which are gone, as far as the database does not know of them; returns how many. Safe
/// to run anywhere at any time.
pub async fn book_abandoned(db: &Db, data_dir: &Path) -> Result<u64> {
    let mut booked = 0;
    for path in list(&data_dir.join(FOLDER))? {
        let Some(file) = take_abandoned(&path)? else {
            continue;
        };
        for call in read(&file)? {
            booked += u64::from(book_unless_known(db, &call).await?);
        }
        std::fs::remove_file(&path)?;
    }
    if booked > 0 {
        tracing::warn!(
            calls = booked,
            "calls whose process ended are booked as they were estimated"
        );
    }
    Ok(booked)
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The file, locked, if it is nobody's.
fn take_abandoned(path: &Path) -> io::Result<Option<File>> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        // Somebody else has just taken it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok((file.metadata()?.nlink() > 0).then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read(mut file: &File) -> io::Result<Vec<UsageEvent>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let taken = bytes.chunks(PLACE_BYTES).filter(|place| place[0] != FREE);
    let calls = taken.filter_map(|place| {
        let line = place.split(|byte| *byte == b'\n').next().unwrap_or_default();
        serde_json::from_slice(line)
            .inspect_err(|error| tracing::warn!(%error, "a noted call cannot be read, and is not booked"))
            .ok()
    });
    Ok(calls.collect())
}

/// False when the ledger has the call, or has it with the reservation that it is part of.
async fn book_unless_known(db: &Db, call: &UsageEvent) -> Result<bool> {
    let Some(chatbot_id) = call.chatbot_id else {
        return Ok(false);
    };
    let mut write = db.write(Scope::Operator).await?;
    // In this order: what is reserved no more by then is in the ledger.
    if is_reserved(&mut write, call).await? || is_booked(&mut write, call).await? {
        return Ok(false);
    }
    let period = period_of(call.created_at);
    let holders = (call.tenant_id, chatbot_id);
    let booked = async {
        book(
            &mut write,
            holders,
            &period,
            std::slice::from_ref(call),
            Spend::default(),
        )
        .await?;
        write.commit().await
    };
    match booked.await {
        Ok(()) => Ok(true),
        // Nobody is left to pay for it.
        Err(error) if error.is_missing_reference() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn is_reserved(conn: &mut Conn, call: &UsageEvent) -> Result<bool> {
    let reserved: Vec<Json<Vec<UsageEvent>>> = on!(conn, c => sqlx::query_scalar("select calls from reservation where tenant_id = $1")
        .bind(call.tenant_id).fetch_all(c).await)?;
    Ok(reserved
        .iter()
        .any(|calls| calls.iter().any(|reserved| reserved.id == call.id)))
}

async fn is_booked(conn: &mut Conn, call: &UsageEvent) -> Result<bool> {
    let booked: i64 = on!(conn, c => sqlx::query_scalar("select count(*) from usage_event where tenant_id = $1 and id = $2")
        .bind(call.tenant_id).bind(call.id).fetch_one(c).await)?;
    Ok(booked > 0)
}
