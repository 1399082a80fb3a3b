//! Looking for words in the rows themselves, while the index does not answer: bounded reading of what the index would have
//! been asked, the newest documents first.

use std::time::{Duration, Instant};

use retrieval::index::{Candidates, IndexError, SearchQuery};
use retrieval::scan::TextScan;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::index_error;
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{ChatbotId, TenantId};
use crate::knowledge::stored_chunks::{self, StoredChunk};

/// Chunks that are read for one question.
const MOST_CHUNKS: i64 = 20_000;

/// How long one question reads, and waits for its turn.
const MOST_TIME: Duration = Duration::from_secs(2);

/// Questions for which this process reads rows at once; others wait for them.
pub const AT_ONCE: usize = 2;

/// What the words of `query` find among the chatbot's chunks, as the index would be asked for them.
pub(super) async fn search(
    app: &App,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    query: &SearchQuery,
) -> Result<Candidates> {
    let Ok(Ok(_turn)) = timeout(MOST_TIME, app.row_scans.acquire()).await else {
        return Err(index_error(IndexError::Unavailable {
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
        let chunks = stored_chunks::list(&mut conn, tenant_id, &portion).await?;
        drop(conn);
        let filter = query.filter.clone();
        let is_wanted = move |chunk: &StoredChunk| {
            filter.sources.contains(&chunk.cut()) && filter.allows_facets(chunk.facets())
        };
        scan = spawn_blocking(move || {
            for chunk in chunks.iter().filter(|chunk| is_wanted(chunk)) {
                let ids = (
                    retrieval::ChunkId(chunk.id.0),
                    retrieval::DocumentId(chunk.document_id.0),
                );
                scan.read(ids.0, ids.1, chunk.embedding_text(), chunk.facets());
            }
            scan
        })
        .await
        .map_err(Error::internal)?;
    }
    Ok(scan.finish(query.limit))
}
