//! Questions that visitors really asked: taken over from their conversations, and gone with them.

use std::collections::BTreeSet;

use super::{EvalSet, Expected, hold, questions, save, store};
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::http::access::{Actor, Reach};
use crate::id::{ChatbotId, ConversationId, EvalSetId, MessageId, TenantId};
use crate::tenancy::audit::Origin;
use crate::{chat, knowledge};

/// Why a run ends whose questions are erased while it asks them.
const ERASED: &str =
    "a conversation was deleted that questions of this run were taken over from: start another run";

/// Adds questions that were really asked in a conversation: those answered by `messages`, or the first one, if its answer
/// cites something or said that nothing was known. Later ones may lean on what was said before, so that nobody could answer
/// them alone: they are added only where they are named. What an answer cited is expected again, by a visitor of the same
/// access groups; one that knew nothing is expected to decline again.
pub async fn import(
    app: &App,
    reach: Reach,
    place: (ChatbotId, EvalSetId),
    (conversation_id, messages): (ConversationId, Option<Vec<MessageId>>),
    by: (&Actor, &Origin),
) -> Result<EvalSet> {
    let answered = chat::list_answered(app, reach, place.0, conversation_id).await?;
    for id in messages.iter().flatten() {
        if !answered.iter().any(|answer| answer.message_id == *id) {
            return Err(Error::NotFound("message"));
        }
    }
    let mut write = app.db.write(reach.tenant_id).await?;
    // Whoever deletes it meanwhile waits, and then finds what was taken over.
    chat::hold(&mut write, reach, conversation_id).await?;
    let before = hold(&mut write, reach, place).await?;
    let mut expected: Vec<Expected> = before.questions.iter().map(|own| own.expected.clone()).collect();
    let mut known: BTreeSet<String> = expected.iter().map(|own| own.question.clone()).collect();
    let mut added = BTreeSet::new();
    for answer in answered {
        let is_chosen = match &messages {
            Some(ids) => ids.contains(&answer.message_id),
            None => answer.is_first,
        };
        if !is_chosen || !known.insert(answer.question.clone()) {
            continue;
        }
        let existing =
            knowledge::list_existing(&mut write, (reach.tenant_id, place.0), &answer.cited).await?;
        let mut documents = answer.cited;
        documents.retain(|id| existing.contains(id));
        // What it cited may be gone by now: then nobody knows what is right.
        if answer.is_known && documents.is_empty() {
            continue;
        }
        added.insert(answer.question.clone());
        expected.push(Expected {
            question: answer.question,
            document_ids: if answer.is_known { documents } else { Vec::new() },
            answer: None,
            answerable: answer.is_known,
            groups: answer.groups,
        });
    }
    let mut set = before.clone();
    let holders = (reach.tenant_id, place.0);
    set.questions.0 = questions::checked(app, &mut write, holders, expected, &before.questions).await?;
    if !added.is_empty() {
        store::insert_import(&mut write, (reach.tenant_id, set.id), conversation_id).await?;
    }
    for question in &mut set.questions.0 {
        if added.contains(&question.expected.question) {
            question.conversation_id = Some(conversation_id);
        }
    }
    save(
        app,
        &mut write,
        reach.tenant_id,
        ("eval.import", &before, &mut set),
        by,
    )
    .await?;
    write.commit().await?;
    Ok(set)
}

/// Removes what was taken over from a conversation that is being deleted and held: its questions, and what came of them in
/// runs. A run that is asking them ends; sums of runs, which name nobody, stay.
pub async fn forget(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    conversation_id: ConversationId,
) -> Result<()> {
    let now = app.clock.now();
    for mut set in store::hold_importers(write, tenant_id, conversation_id).await? {
        set.questions
            .retain(|question| question.conversation_id != Some(conversation_id));
        set.updated_at = now;
        store::update_set(write, tenant_id, &set).await?;
        // First: what a run stores now is stored before this, or not at all.
        store::end_runs(write, (tenant_id, set.id), Some(conversation_id), (ERASED, now)).await?;
        store::delete_results_of(write, (tenant_id, set.id), conversation_id).await?;
    }
    Ok(())
}
