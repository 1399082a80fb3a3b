//! A document of many chunks, put into a cut group by group.

use std::collections::HashSet;
use std::time::Duration;

use super::{Beside, Target, payer, store};
use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::generations;
use crate::id::ChunkId;
use crate::jobs::JobContext;
use crate::knowledge::cut::{CutChunk, as_i64};
use crate::knowledge::indexing::Work;
use crate::knowledge::indexing::embedding::{EMBEDDED_AT_ONCE, add_to_index};
use crate::knowledge::indexing::in_vain::undo_later;
use crate::knowledge::indexing::store::{hold_unchanged, list_chunk_ids};
use crate::knowledge::indexing::turn::Turn;
use crate::knowledge::store::ChunkRow;
use crate::knowledge::{index_changes, labels};

/// A document whose file took so long up to where an earlier turn ended is not read once more.
const LONGEST_REPLAY: Duration = Duration::from_secs(5 * 60);

/// Rows that one transaction deletes.
const DELETED_AT_ONCE: i64 = 1_000;

/// What became of a part of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Taken,
    /// Another version of the document took its place.
    Changed,
    /// It had its turn, or the cut was given up.
    Over,
}

/// A document that is put in group by group.
pub(super) struct Large<'a> {
    app: &'a App,
    context: &'a JobContext,
    target: &'a Target,
    work: &'a Work,
    turn: Turn,
    /// The chunks that there were.
    before: HashSet<ChunkId>,
    /// Those of them in whose place others are by now: the index forgets them.
    replaced: HashSet<ChunkId>,
    position: i64,
}

impl<'a> Large<'a> {
    pub(super) async fn begin<'b>(beside: &Beside<'b>, work: &'a Work) -> Result<Self>
    where
        'b: 'a,
    {
        let tenant_id = beside.target.tenant_id;
        let mut conn = beside.app.db.read(tenant_id).await?;
        let mut before = list_chunk_ids(&mut conn, tenant_id, &[work]).await?;
        Ok(Self {
            app: beside.app,
            context: beside.context,
            target: beside.target,
            work,
            turn: Turn::begin(),
            before: before.remove(&work.id).unwrap_or_default(),
            replaced: HashSet::new(),
            position: 0,
        })
    }

    /// The chunks that the document had in the cut.
    pub(super) const fn before(&self) -> &HashSet<ChunkId> {
        &self.before
    }

    /// Whether reading the document up to where an earlier turn ended takes long.
    pub(super) fn is_slow(&self) -> bool {
        !self.turn.has_gained() && self.turn.elapsed() > LONGEST_REPLAY
    }

    /// Puts in the next chunks.
    pub(super) async fn add(&mut self, chunks: &[CutChunk]) -> Result<Step> {
        for group in chunks.chunks(EMBEDDED_AT_ONCE) {
            if self.turn.is_over(self.app, self.context).await? {
                return Ok(Step::Over);
            }
            let step = self.add_group(group).await?;
            if step != Step::Taken {
                return Ok(step);
            }
        }
        Ok(Step::Taken)
    }

    async fn add_group(&mut self, group: &[CutChunk]) -> Result<Step> {
        let tenant_id = self.target.tenant_id;
        let is_new = |chunk: &&CutChunk| !chunk.is_indexed || self.replaced.contains(&chunk.row.id);
        let new: Vec<(&Work, &CutChunk)> = group
            .iter()
            .filter(is_new)
            .map(|chunk| (self.work, chunk))
            .collect();
        let points = add_to_index(self.app, payer(tenant_id, self.work), &new).await?;
        if !new.is_empty() {
            self.turn.note_gain();
        }
        let mut write = self.app.db.write(tenant_id).await?;
        let step = self.hold(&mut write).await?;
        if step != Step::Taken {
            let put = new.iter().map(|(_, chunk)| chunk.row.id).collect();
            let shown = list_chunk_ids(&mut write, tenant_id, &[self.work]).await?;
            let shown = shown.get(&self.work.id).cloned().unwrap_or_default();
            undo_later(self.app, &mut write, tenant_id, self.work, put, &shown).await?;
            write.commit().await?;
            return Ok(step);
        }
        let rows: Vec<&ChunkRow> = group.iter().map(|chunk| &chunk.row).collect();
        let mut replaced = store::replace_chunks(&mut write, tenant_id, self.work, &rows).await?;
        index_changes::put(&mut write, tenant_id, &self.work.space, points);
        replaced.retain(|id| rows.iter().all(|row| row.id != *id));
        // In this transaction: nobody finds a row of them any more, whatever ends this attempt.
        index_changes::remove_chunks(self.app, &mut write, tenant_id, &replaced).await?;
        let space = Some(self.work.space.as_ref());
        generations::note_gaps(self.app, &mut write, tenant_id, space, &[self.work.id]).await?;
        let said = self.work.stored();
        let is_outdated = labels::tell_if_changed(self.app, &mut write, tenant_id, &said).await?;
        write.commit().await?;
        self.app.wake_workers();
        self.replaced.extend(replaced);
        self.position += as_i64(group.len());
        // What follows goes in with what is said of the document now.
        Ok(if is_outdated { Step::Over } else { Step::Taken })
    }

    /// Whether the cut is wanted, and the document of the version that was read.
    async fn hold(&self, write: &mut Write) -> Result<Step> {
        let tenant_id = self.target.tenant_id;
        if !generations::cuts::share(write, tenant_id, self.target.cut).await? {
            return Ok(Step::Over);
        }
        let held = hold_unchanged(write, tenant_id, &[self.work]).await?;
        Ok(if held.contains(&self.work.id) {
            Step::Taken
        } else {
            Step::Changed
        })
    }

    /// Removes what an earlier version had beyond this one.
    pub(super) async fn finish(&self) -> Result<Step> {
        let (app, tenant_id) = (self.app, self.target.tenant_id);
        loop {
            let mut write = app.db.write(tenant_id).await?;
            let step = self.hold(&mut write).await?;
            if step != Step::Taken {
                return Ok(step);
            }
            let deleted =
                store::delete_from(&mut write, tenant_id, self.work, self.position, DELETED_AT_ONCE).await?;
            index_changes::remove_chunks(app, &mut write, tenant_id, &deleted).await?;
            let is_last = as_i64(deleted.len()) < DELETED_AT_ONCE;
            if is_last {
                labels::settle(app, &mut write, tenant_id, &[self.work.stored()]).await?;
            }
            write.commit().await?;
            app.wake_workers();
            if is_last {
                return Ok(Step::Taken);
            }
        }
    }
}
