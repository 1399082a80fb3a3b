//! What a turn stores: its question with an answer that is still to come, and how that answer ended.

use super::Answer;
use super::store::{self, MessageState, NewAnswer, NewQuestion};
use super::turn::Turn;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::llm::tokens;

impl Turn {
    /// Saves the question and the answer as far as it is, with [`Turn::commit`]. Not found when the chatbot or the
    /// conversation is gone.
    pub(super) async fn save(
        &self,
        write: &mut Write,
        answer: &Answer,
        state: MessageState,
        model: Option<&str>,
    ) -> Result<()> {
        let (Some(conversation_id), Some(new)) = (
            self.opening.conversation_id,
            self.new_answer(answer, state, model),
        ) else {
            return Ok(());
        };
        let now = self.app.clock.now();
        let tenant_id = self.reach.tenant_id;
        let begun = if self.is_new {
            store::insert_conversation(
                write,
                tenant_id,
                conversation_id,
                self.chatbot.id,
                self.channel,
                &self.groups,
                now,
            )
            .await
        } else {
            store::count_turn(write, tenant_id, conversation_id, now).await
        };
        begun.map_err(|error| self.name_missing(error))?;
        let question = NewQuestion {
            id: self.question_id,
            text: &self.question,
            text_tokens: self.count_text(&self.question),
        };
        store::insert_turn(write, tenant_id, conversation_id, question, new, now)
            .await
            .map_err(|error| self.name_missing(error))
    }

    /// Commits what [`Turn::save`] wrote.
    pub(super) async fn commit(&self, write: Write) -> Result<()> {
        write.commit().await.map_err(|error| self.name_missing(error))
    }

    /// What was deleted since the turn looked it up: its rows refer to it.
    fn name_missing(&self, error: Error) -> Error {
        match error.is_missing_reference() {
            true if self.is_new => Error::NotFound("chatbot"),
            true => Error::NotFound("conversation"),
            false => error,
        }
    }

    /// Saves the end of an answer that [`Turn::save`] saved as being written.
    pub(super) async fn save_end(
        &self,
        write: &mut Write,
        answer: &Answer,
        state: MessageState,
        model: Option<&str>,
    ) -> Result<()> {
        match self.new_answer(answer, state, model) {
            Some(new) => store::finish_answer(write, self.reach.tenant_id, new).await,
            None => Ok(()),
        }
    }

    /// The answer as it is stored; none in a stateless turn.
    fn new_answer<'a>(
        &self,
        answer: &'a Answer,
        state: MessageState,
        model: Option<&'a str>,
    ) -> Option<NewAnswer<'a>> {
        Some(NewAnswer {
            id: self.opening.message_id?,
            text: &answer.answer,
            state,
            source: answer.source,
            model,
            citations: &answer.citations,
            degraded: &answer.degraded,
            text_tokens: if answer.usage.completion_tokens > 0 {
                answer.usage.completion_tokens
            } else {
                self.count_text(&answer.answer)
            },
            usage: answer.usage,
        })
    }

    /// Tokens of a text in later prompts; 0 while no model is configured that could read them.
    fn count_text(&self, text: &str) -> i64 {
        if self.app.model.is_some() {
            i64::try_from(tokens::count(text)).unwrap_or(i64::MAX)
        } else {
            0
        }
    }
}
