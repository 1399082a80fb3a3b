//! Looking for words in the rows themselves, while the index does not answer: bounded reading of what the index would have
//! been asked, the newest documents first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use retrieval::index::{Candidates, IndexError, SearchQuery};
use retrieval::scan::TextScan;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{ChatbotId, TenantId};
use crate::knowledge::stored_chunks::{self, StoredChunk};

/// Chunks that are read for one question.
const MOST_CHUNKS: i64 = 20_000;

/// How long one question reads.
const MOST_TIME: Duration = Duration::from_secs(1);

/// How long a question waits for its turn: some of others.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// Questions for which this process reads rows at once; others wait for them.
const AT_ONCE: usize = 2;

/// Turns at reading rows, one at a time for each tenant. Tenants come in the order in which they asked, and who had a turn
/// stands behind all others.
pub struct RowScans {
    places: Arc<Semaphore>,
    /// Of those who read or wait.
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
struct Turn {
    // Before the tenant's own, so that its next question stands behind those who wait already.
    _place: OwnedSemaphorePermit,
    _of_tenant: OwnedSemaphorePermit,
}

impl Default for RowScans {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            tenants: Mutex::default(),
        }
    }
}

impl RowScans {
    /// None: too many stand before.
    async fn turn(&self, tenant_id: TenantId) -> Option<Turn> {
        let own = self.of(tenant_id);
        let turn = async {
            let of_tenant = own.acquire_owned().await.ok()?;
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            Some(Turn {
                _place: place,
                _of_tenant: of_tenant,
            })
        };
        timeout(LONGEST_WAIT, turn).await.ok().flatten()
    }

    fn of(&self, tenant_id: TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|_, own| own.strong_count() > 0);
        if let Some(own) = tenants.get(&tenant_id).and_then(Weak::upgrade) {
            return own;
        }
        let own = Arc::new(Semaphore::new(1));
        tenants.insert(tenant_id, Arc::downgrade(&own));
        own
    }
}

/// What the words of `query` find among the chatbot's chunks, as the index would be asked for them.
pub(super) async fn search(
    app: &App,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    query: &SearchQuery,
) -> Result<Candidates> {
    let Some(_turn) = app.row_scans.turn(tenant_id).await else {
        return Err(Error::from(IndexError::Unavailable {
            reason: "and too many questions are looked for in the rows".to_owned(),
            source: None,
        }));
    };
    let started = Instant::now();
    let mut conn = app.db.read(tenant_id).await?;
    let portions =
        stored_chunks::list_portions_within(&mut conn, tenant_id, chatbot_id, &query.filter, MOST_CHUNKS)
            .await?;
    drop(conn);
    let mut scan = TextScan::new(query);
    for portion in portions {
        if started.elapsed() >= MOST_TIME {
            break;
        }
        let mut conn = app.db.read(tenant_id).await?;
        let cuts = &query.filter.sources;
        let chunks = stored_chunks::list_within(&mut conn, tenant_id, &portion, cuts).await?;
        drop(conn);
        let filter = query.filter.clone();
        let is_wanted = move |chunk: &StoredChunk| filter.allows_facets(chunk.facets());
        scan = spawn_blocking(move || {
            for chunk in chunks.iter().filter(|chunk| is_wanted(chunk)) {
                let chunk_id = retrieval::ChunkId(chunk.id.0);
                scan.read(chunk_id, chunk.embedding_text(), chunk.facets());
            }
            scan
        })
        .await
        .map_err(Error::internal)?;
    }
    Ok(scan.finish(query.limit))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_reads_for_one_question_at_a_time_and_leaves_the_other_place() {
        let (scans, acme, globex) = (RowScans::default(), TenantId::new(), TenantId::new());
        let first = scans.turn(acme).await.expect("a turn");

        assert!(
            scans.turn(acme).await.is_none(),
            "it waited as long as anybody does"
        );
        let other = scans.turn(globex).await.expect("a turn");
        drop(first);
        assert!(scans.turn(acme).await.is_some());
        drop(other);
        let _last = scans.turn(globex).await.expect("a turn");
        assert_eq!(
            scans.tenants.lock().expect("no panic").len(),
            1,
            "who left is forgotten"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_again_and_again_stands_behind_who_waits() {
        let (scans, acme, globex) = (RowScans::default(), TenantId::new(), TenantId::new());
        let (first, _held) = (scans.turn(acme).await, scans.turn(TenantId::new()).await);
        let mut again = Box::pin(scans.turn(acme));
        assert!(again.as_mut().now_or_never().is_none());
        let mut waits = Box::pin(scans.turn(globex));
        assert!(waits.as_mut().now_or_never().is_none());

        drop(first);
        assert!(again.as_mut().now_or_never().is_none());
        let turn = waits.as_mut().now_or_never().flatten();
        assert!(turn.is_some(), "it was there before");
        drop(turn);
        assert!(again.as_mut().now_or_never().flatten().is_some());
    }
}
