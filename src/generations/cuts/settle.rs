//! After a cut went live: documents say how many chunks they have now, and their owner's changes which passages they belong to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{state, store};
use crate::app::App;
use crate::error::Result;
use crate::id::{CutId, DocumentId};
use crate::jobs::{self, Job, JobContext, Outcome, Priority};
use crate::knowledge;

/// Documents that one transaction looks at, and how many chunks they may have, but for one document of more.
const DOCUMENTS_AT_ONCE: i64 = 200;
const CHUNKS_AT_ONCE: i64 = 10_000;

/// Settles what is said of a source's documents, some at a time.
#[derive(Debug, Serialize, Deserialize)]
pub struct SettleCut {
    pub cut_id: CutId,
    /// Those up to this id are settled.
    pub after: Option<DocumentId>,
}

impl Job for SettleCut {
    const KIND: &'static str = "settle_cut";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        Outcome::of_slice(self.settle_next(&app, &context).await)
    }
}

impl SettleCut {
    async fn settle_next(self, app: &App, context: &JobContext) -> Result<()> {
        let tenant_id = context.tenant()?;
        let mut write = app.db.write(tenant_id).await?;
        // None goes live or is given up meanwhile; one that did has a job of its own.
        let is_open = store::share(&mut write, tenant_id, self.cut_id).await?;
        let cut = store::find(&mut write, tenant_id, self.cut_id).await?;
        let Some(cut) = cut.filter(|cut| is_open && cut.state == state::LIVE) else {
            return Ok(());
        };
        let documents = store::list_documents(&mut write, &cut, self.after, DOCUMENTS_AT_ONCE).await?;
        let ids = within(&documents, CHUNKS_AT_ONCE);
        let Some(last) = ids.last() else {
            return Ok(());
        };
        knowledge::cuts::settle(&mut write, tenant_id, (cut.source_id, cut.id), &ids).await?;
        let next = Self {
            cut_id: self.cut_id,
            after: Some(*last),
        };
        jobs::enqueue(app, &mut write, tenant_id, &next).await?;
        write.commit().await?;
        app.wake_workers();
        Ok(())
    }
}

/// The first of these documents, each with its number of chunks, that together have at most so many; at least one.
fn within(documents: &[(DocumentId, i64)], most_chunks: i64) -> Vec<DocumentId> {
    let mut chunks = 0;
    let is_within = |(_, count): &&(DocumentId, i64)| {
        let is_first = chunks == 0;
        chunks += count;
        is_first || chunks <= most_chunks
    };
    let within = documents.iter().take_while(is_within);
    within.map(|(id, _)| *id).collect()
}

#[cfg(test)]
mod tests {
    use sqlx::types::Uuid;

    use super::*;

    #[test]
    fn a_turn_takes_documents_by_their_chunks_and_always_one() {
        let documents = |counts: &[i64]| -> Vec<(DocumentId, i64)> {
            let of = |(number, count): (usize, &i64)| (DocumentId(Uuid::from_u128(number as u128)), *count);
            counts.iter().enumerate().map(of).collect()
        };

        for (counts, taken) in [
            (&[][..], 0),
            (&[300], 1),
            (&[300, 1], 1),
            (&[40, 60, 1], 2),
            (&[40, 61], 1),
        ] {
            assert_eq!(within(&documents(counts), 100).len(), taken, "{counts:?}");
        }
    }
}
