//! Documents of any size: they come in parts, each of which is cut, embedded and staged before the next one is read.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ingest::ExtractedDocument;
use ingest::sandbox::DocumentParts;

use super::batch::title_of;
use super::embedding::{EMBEDDED_AT_ONCE, Payer, add_to_index};
use super::store::{Indexed, hold_current, set_indexed};
use super::{Progress, Work, load_edits, reader, remove_chunks_later, staging};
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{ChunkId, TenantId};
use crate::knowledge::chunks::{self, Verdict};
use crate::knowledge::cut::{ContentKey, CutChunk, Cutter, PresentChunks, as_i64, content_key};
use crate::knowledge::facts::Facts;
use crate::knowledge::labels;
use crate::knowledge::operator;
use crate::knowledge::store::{self, ChunkRow};
use crate::knowledge::sync;
use crate::usage;

/// A document that took so long lets others have their turn. What was staged stays, but the file is read again.
const SLICE: Duration = Duration::from_secs(20 * 60);

/// A document that takes longer to be brought to where it stood is given up.
const LONGEST_REPLAY: Duration = Duration::from_secs(25 * 60);

/// Why a document fails: a code, and a sentence for its owner.
type Reason = (String, String);

/// How far staging came.
enum Staged {
    Whole {
        facts: Facts,
        /// What became of the owner's changes.
        verdicts: Vec<Verdict>,
    },
    Unfinished,
    Failed(Reason),
}

/// Indexes a document whose first part has come.
pub(super) async fn index(
    app: &App,
    tenant_id: TenantId,
    work: &Work,
    first: ExtractedDocument,
    rest: DocumentParts,
) -> Result<Progress> {
    let title = title_of(work, &first);
    let reason = match stage(app, tenant_id, work, &title, first, rest).await {
        Ok(Staged::Whole { facts, verdicts }) => {
            swap(app, tenant_id, work, (&title, &facts), &verdicts).await?;
            return Ok(Progress::Done);
        }
        Ok(Staged::Unfinished) => return Ok(Progress::Unfinished),
        Ok(Staged::Failed(reason)) => reason,
        Err(Error::BudgetExceeded { code, message }) => {
            let reason = (code.to_owned(), message.to_string());
            let refusal = Error::BudgetExceeded { code, message };
            usage::tell_owner_of_refusal(app, tenant_id, work.chatbot_id, refusal).await;
            reason
        }
        Err(error) => return Err(error),
    };
    fail(app, tenant_id, work, reason).await?;
    Ok(Progress::Done)
}

/// Brings all parts into the index and into the tables where they wait.
async fn stage(
    app: &App,
    tenant_id: TenantId,
    work: &Work,
    title: &str,
    first: ExtractedDocument,
    mut rest: DocumentParts,
) -> Result<Staged> {
    let started = Instant::now();
    let (staged, staged_parts) = take_up(app, tenant_id, work).await?;
    let present = PresentChunks::load(app, tenant_id, work).await?;
    let edits = load_edits(app, tenant_id, work).await?;
    let mut cutter = Cutter::new(app, work, title, present, edits);
    let (mut part, mut number, mut start_char) = (first, 0, 0);
    loop {
        let is_last = !rest.has_more();
        let (back, cut_part, chunks) = cutter.cut(part, is_last).await?;
        cutter = back;
        add_part(app, tenant_id, work, &staged, &chunks).await?;
        let is_new = number >= staged_parts;
        if is_new {
            let mut write = app.db.write(tenant_id).await?;
            let rows: Vec<&ChunkRow> = chunks.iter().map(|chunk| &chunk.row).collect();
            staging::insert_chunks(&mut write, tenant_id, work, &rows).await?;
            staging::insert_text(&mut write, tenant_id, work, (number, start_char), &cut_part.text).await?;
            write.commit().await?;
        }
        if is_last {
            return Ok(Staged::Whole {
                facts: Facts::of(&cut_part),
                verdicts: cutter.edits().verdicts(),
            });
        }
        if started.elapsed() > SLICE && is_new {
            return Ok(Staged::Unfinished);
        }
        if started.elapsed() > LONGEST_REPLAY {
            // Nothing was gained by this turn, and nothing would be by the next one.
            let message = "The document is too large: reading it anew up to where it stood takes too long. Split it into smaller files.";
            return Ok(Staged::Failed(("too_large".to_owned(), message.to_owned())));
        }
        number += 1;
        start_char += as_i64(cut_part.text.chars().count());
        part = match rest.next().await {
            Ok(Some(next)) => next,
            Ok(None) => return Err(Error::internal("the last part of a document did not come")),
            Err(error) => return Ok(Staged::Failed((error.code().to_owned(), error.to_string()))),
        };
    }
}

/// What an earlier attempt at this version staged, and how many parts that are; what is left of other versions is
/// dropped.
async fn take_up(app: &App, tenant_id: TenantId, work: &Work) -> Result<(HashMap<ChunkId, ContentKey>, i64)> {
    let mut write = app.db.write(tenant_id).await?;
    let left = staging::drop_others(&mut write, tenant_id, work).await?;
    remove_chunks_later(app, &mut write, tenant_id, &left).await?;
    let staged = staging::list(&mut write, tenant_id, work).await?;
    let parts = staging::count_parts(&mut write, tenant_id, work).await?;
    write.commit().await?;
    let staged = staged
        .into_iter()
        .map(|(id, content_hash)| (id, content_key(&content_hash)))
        .collect();
    Ok((staged, parts))
}

/// Puts those chunks of a part into the index that it does not hold yet.
async fn add_part(
    app: &App,
    tenant_id: TenantId,
    work: &Work,
    staged: &HashMap<ChunkId, ContentKey>,
    chunks: &[CutChunk],
) -> Result<()> {
    let payer = Payer {
        tenant_id,
        chatbot_id: work.chatbot_id,
        run_id: work.run_id,
    };
    let is_staged =
        |chunk: &CutChunk| staged.get(&chunk.row.id) == Some(&content_key(&chunk.row.content_hash));
    let new: Vec<(&Work, &CutChunk)> = chunks
        .iter()
        .filter(|chunk| !chunk.is_indexed && !is_staged(chunk))
        .map(|chunk| (work, chunk))
        .collect();
    for group in new.chunks(EMBEDDED_AT_ONCE) {
        add_to_index(app, payer, group).await?;
    }
    Ok(())
}

/// Swaps the staged version in, in one transaction.
async fn swap(
    app: &App,
    tenant_id: TenantId,
    work: &Work,
    (title, facts): (&str, &Facts),
    verdicts: &[Verdict],
) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    let totals = staging::count(&mut write, tenant_id, work).await?;
    let indexed = Indexed {
        title,
        chunk_count: totals.chunk_count,
        token_count: totals.token_count,
        facts,
        read_with: &reader(app),
        embedding_model: Some(app.embedding_model().unwrap_or(operator::NO_MODEL)),
    };
    let is_wanted = hold_current(&mut write, tenant_id, &[work])
        .await?
        .contains(&work.id);
    let given_up = if is_wanted {
        set_indexed(&mut write, tenant_id, work.id, indexed, app.clock.now()).await?;
        let given_up = staging::list_given_up(&mut write, tenant_id, work).await?;
        staging::swap_in(&mut write, tenant_id, work).await?;
        chunks::set_stale(&mut write, tenant_id, verdicts).await?;
        staging::drop_own(&mut write, tenant_id, work).await?;
        labels::settle(app, &mut write, tenant_id, &[work.stored()]).await?;
        given_up
    } else {
        // Deleted or replaced meanwhile: what this attempt put into the index belongs to nothing.
        staging::drop_own(&mut write, tenant_id, work).await?
    };
    remove_chunks_later(app, &mut write, tenant_id, &given_up).await?;
    let of_run = work.run_id.map(|_| work.source_id).into_iter().collect();
    sync::go_on_if_indexed(&mut write, tenant_id, &of_run, app.clock.now()).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// The document fails, and what was staged for it goes.
async fn fail(app: &App, tenant_id: TenantId, work: &Work, (code, message): Reason) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    let read_with = reader(app);
    let (version, now) = ((work.file_key.as_str(), read_with.as_str()), app.clock.now());
    store::set_failed(&mut write, tenant_id, work.id, version, (&code, &message), now).await?;
    let in_vain = staging::drop_own(&mut write, tenant_id, work).await?;
    remove_chunks_later(app, &mut write, tenant_id, &in_vain).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}
