//! What the service takes up when it starts, and which work is its own: a command of the operator's does neither.

use retrieval::rerank::Reranker;

use super::{App, StartError};
use crate::jobs::runner::JobKinds;
use crate::{chat, chatbots, evals, generations, jobs, knowledge, usage};

impl App {
    /// Takes up what a start finds.
    pub(super) async fn take_up(&self) -> Result<(), StartError> {
        jobs::runner::take_up_all(self)
            .await
            .map_err(|error| StartError::Failed(format!("cannot take up interrupted jobs: {error}")))?;
        generations::operator::start(self).await.map_err(|error| {
            StartError::Failed(format!(
                "cannot compare what tenants are answered with and the configuration: {error}"
            ))
        })?;
        knowledge::operator::queue_untold_documents(self)
            .await
            .map_err(|error| {
                StartError::Failed(format!("cannot look for what the index was not told: {error}"))
            })?;
        chat::operator::fail_all_interrupted(self)
            .await
            .map_err(|error| StartError::Failed(format!("cannot end interrupted answers: {error}")))?;
        usage::book_all_lapsed(self)
            .await
            .map_err(|error| StartError::Failed(format!("cannot book interrupted calls: {error}")))?;
        usage::journal::book_abandoned(&self.db, &self.config.data_dir)
            .await
            .map_err(|error| StartError::Failed(format!("cannot book interrupted calls: {error}")))?;
        self.warn_of_unpriced_models();
        Ok(())
    }

    /// A model without a price costs nothing in our books, and no money limit could hold it.
    fn warn_of_unpriced_models(&self) {
        let chat = self.model.is_some().then_some(self.config.llm.model.as_str());
        let wanted = self.spaces.wanted();
        let embedding = wanted.bought_model();
        let rerank = self.reranker.as_deref().map(Reranker::model_id);
        for model in chat
            .into_iter()
            .chain(embedding)
            .chain(rerank.filter(|model| chat != Some(*model)))
        {
            if !self.prices.is_priced(model) {
                tracing::warn!(
                    model,
                    "the price book has no price for this model: its calls are booked at no cost, and are refused where a cost limit is set; llm.price_book names a book of your own"
                );
            }
        }
    }
}

/// What goes with a conversation that is deleted.
pub const GOES_WITH_CONVERSATIONS: &[chat::GoesAlong] =
    &[|app, write, tenant_id, id| Box::pin(evals::forget(app, write, tenant_id, id))];

/// The kinds of jobs that the service carries out.
pub(super) fn jobs_of_the_service(more: JobKinds) -> JobKinds {
    jobs_of_commands(more)
        .with::<knowledge::deletion::DeleteSource>()
        .with::<chatbots::deletion::DeleteChatbot>()
        .with::<knowledge::embedding_cache::operator::TrimEmbeddings>()
        .with::<generations::FillGeneration>()
        .with::<generations::ReclaimGeneration>()
        .with::<generations::MendIndex>()
        .with::<generations::cuts::FillCut>()
        .with::<generations::cuts::ReclaimCut>()
        .with::<generations::cuts::SettleCut>()
        .with::<generations::operator::CheckIndex>()
        .with::<evals::RunEval>()
        .with::<evals::DeleteEval>()
        .with::<jobs::operator::Upkeep>()
}

/// Those by which a command puts documents in; the others wait for the service.
pub(super) fn jobs_of_commands(more: JobKinds) -> JobKinds {
    more.with::<knowledge::jobs::IndexDocuments>()
        .with::<knowledge::jobs::RemoveDocuments>()
        .with::<knowledge::jobs::DropStaged>()
        .with::<knowledge::jobs::PutBackChunks>()
        .with::<knowledge::labels::TellIndex>()
        .with::<knowledge::labels::WeighAnew>()
        .with::<knowledge::sync::SyncSource>()
}
