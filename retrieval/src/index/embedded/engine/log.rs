//! The log that the engine writes beside its segments and never reads: opened, cut, and filled.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use qdrant_edge::{OperationError, PointId};
use uuid::Uuid;

use super::Engine;

/// A child that was forked begins its program within milliseconds, on a machine that has time for it.
const LOG_LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Points that never were, named in one entry of the engine's log to fill it.
const FILLED_AT_ONCE: u128 = 8_000;

/// Entries that fill the log at most: more than two of its files hold.
const MOST_FILLING: usize = 200;

impl Engine {
    /// Fills the engine's log with what says nothing, until opening it anew would leave nothing else of it: a closed file, and
    /// one that is written to.
    pub(in super::super) fn fill_log(&self) -> Result<(), OperationError> {
        let log = self.shard.path().join("wal");
        let last_closed = || Ok::<_, OperationError>(closed_logs(&log)?.pop_last());
        let (mut closed, mut begun) = (last_closed()?, 0);
        for _ in 0..MOST_FILLING {
            let nobodys = (0..FILLED_AT_ONCE).map(|n| PointId::Uuid(Uuid::from_u128(n)));
            self.delete_points(nobodys.collect())?;
            let now_closed = last_closed()?;
            begun += usize::from(now_closed != closed);
            closed = now_closed;
            // The first of them began with what was there before.
            if begun == 2 {
                return Ok(());
            }
        }
        Err(OperationError::service_error(
            "the engine's log begins no new file",
        ))
    }
}

/// Waits until nobody holds the lock on the engine's log. The index is ours alone, so who holds it can only be a child of
/// this process that was forked while the log was open and has not begun its program yet: until then it shares our lock.
pub(super) fn await_log_lock(path: &Path) -> Result<(), OperationError> {
    let log = File::open(path.join("wal"))?;
    let started = Instant::now();
    loop {
        match log.try_lock() {
            // Given back in so many words: by closing the file, such a child would keep it.
            Ok(()) => return Ok(log.unlock()?),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOG_LOCK_PATIENCE => {
                thread::sleep(Duration::from_millis(1));
            }
            // The engine says what is wrong better than we can.
            Err(_) => return Ok(()),
        }
    }
}

/// Deletes the closed files of the engine's log but the last, which carries the numbering on. The shard must not be open.
pub(super) fn trim_engine_log(path: &Path) -> Result<(), OperationError> {
    let mut closed = closed_logs(&path.join("wal"))?;
    closed.pop_last();
    for file in closed.into_values() {
        fs::remove_file(file)?;
    }
    Ok(())
}

/// The closed files of the engine's log, by the number of the first operation in each.
fn closed_logs(log: &Path) -> Result<BTreeMap<u64, PathBuf>, OperationError> {
    let mut closed = BTreeMap::new();
    for entry in fs::read_dir(log)? {
        let entry = entry?;
        let name = entry.file_name();
        let first_operation = name
            .to_str()
            .and_then(|name| name.strip_prefix("closed-")?.parse::<u64>().ok());
        if let Some(first_operation) = first_operation {
            closed.insert(first_operation, entry.path());
        }
    }
    Ok(closed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::analysis::SparseTerms;
    use crate::index::Facets;
    use crate::index::embedded::filter;
    use crate::index::embedded::layout::Layout;
    use crate::index::embedded::operation::{Change, Operation, PreparedPoint};
    use crate::index::embedded::tuning::Tuning;
    use crate::{ChunkId, DocumentId, SourceId, TenantId};

    const TENANT: TenantId = TenantId(Uuid::from_u128(7));

    fn layout() -> Layout {
        Layout {
            dimension: 3,
            tuning: Tuning::default(),
            is_own: false,
        }
    }

    fn upsert(engine: &Engine, n: u128, vector: Vec<f32>) {
        let point = PreparedPoint {
            chunk_id: ChunkId(Uuid::from_u128(n)),
            document_id: DocumentId(Uuid::from_u128(1)),
            source_id: SourceId(Uuid::from_u128(1)),
            terms: SparseTerms::default(),
            vector: Some(vector),
            text_hash: 1,
            facets: Facets::default(),
        };
        let change = Change::Upsert(vec![point]);
        let operation = Operation {
            tenant_id: TENANT,
            change,
        };
        engine.apply(&operation).expect("applied");
    }

    fn vector_of(engine: &Engine, n: u128) -> Option<Vec<f32>> {
        let id = filter::point_id(TENANT, ChunkId(Uuid::from_u128(n)));
        let mut found: HashMap<PointId, Vec<f32>> = engine.vectors(&[id]).expect("read");
        found.remove(&id)
    }

    fn says(log: &Path, value: f32) -> bool {
        let files = fs::read_dir(log).expect("a folder").flatten();
        files.into_iter().any(|file| {
            let bytes = fs::read(file.path()).expect("read");
            // As the engine writes numbers there: the highest byte first.
            memchr::memmem::find(&bytes, &value.to_be_bytes()).is_some()
        })
    }

    #[test]
    fn a_lock_that_a_starting_child_still_shares_is_waited_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("engine");
        drop(Engine::create(&path, layout()).expect("a new shard"));
        let shared = File::open(path.join("wal")).expect("the engine's log");
        shared.try_lock().expect("nobody holds it");
        let child = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(shared);
        });

        Engine::open(&path, layout()).expect("it opens once the lock is free");
        child.join().expect("the thread ends well");
    }

    #[test]
    fn a_log_that_was_filled_says_nothing_once_it_is_opened_and_what_comes_then_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("engine");
        let log = path.join("wal");
        let engine = Engine::create(&path, layout()).expect("a new shard");
        upsert(&engine, 1, vec![0.123, 0.0, 0.0]);
        assert!(says(&log, 0.123));

        engine.fill_log().expect("filled");
        engine.sync();
        drop(engine);

        let engine = Engine::open(&path, layout()).expect("it opens");
        assert!(!says(&log, 0.123));
        upsert(&engine, 1, vec![0.0, 1.0, 0.0]);
        upsert(&engine, 2, vec![0.0, 0.0, 1.0]);
        engine.sync();
        drop(engine);
        let engine = Engine::open(&path, layout()).expect("it opens again");
        assert_eq!(vector_of(&engine, 1), Some(vec![0.0, 1.0, 0.0]));
        assert_eq!(vector_of(&engine, 2), Some(vec![0.0, 0.0, 1.0]));
    }
}
