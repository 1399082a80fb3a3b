//! The model's part of a turn: pack the prompt, reserve its cost, let the model write, check what it wrote, keep the
//! books.
//!
//! The model runs in a task of its own that outlives the request: when the client leaves, the call to the model is
//! dropped, and what was produced is saved and booked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::citation::Citation;
use super::marker::{MarkerFilter, Piece};
use super::prompt::{self, Packed, Window};
use super::store::{HistoryMessage, MessageState};
use super::turn::{RunningTurn, Turn, TurnEvent, answer_at_once, count_turn, turn_usage};
use super::{Answer, AnswerSource, TurnUsage};
use crate::error::{Error, Result};
use crate::llm::{ChatModel, ChatRequest, ModelEvent, ProviderError, TokenUsage, tokens};
use crate::usage::{self, Limits, Reservation, Spend, UsageEvent};

/// Events that wait for a slow client. Past this the model is read more slowly.
const EVENT_BUFFER: usize = 256;

/// A client that takes no event for this long is gone.
const SLOW_CLIENT: Duration = Duration::from_secs(30);

/// How long a client waits before it asks again for an answer that was cut off.
const CUT_OFF_RETRY: Duration = Duration::from_secs(2);

/// The least answer worth starting, in tokens, when a budget is nearly spent.
const LEAST_ANSWER_TOKENS: usize = 16;

/// Begins an answer over the turn's passages. An error means that nothing was saved.
pub(super) async fn begin(
    mut turn: Turn,
    model: Arc<dyn ChatModel>,
    history: &[HistoryMessage],
    limits: Limits,
    streamed: bool,
) -> Result<RunningTurn> {
    let config = &turn.app.config;
    let window = Window {
        context: config.llm.context_tokens,
        answer: config.llm.max_answer_tokens,
        history: config.chat.history_tokens,
        passages: config.chat.passage_tokens,
    };
    let passages = std::mem::take(&mut turn.passages);
    let mut packed = match prompt::pack(&turn.chatbot.settings, history, passages, &turn.question, window) {
        // What no passage supports is not claimed.
        Ok(packed) if packed.passages.is_empty() => return answer_at_once(turn).await,
        Ok(packed) => packed,
        Err(prompt::TooLong) => {
            turn.book_refused().await?;
            return Err(Error::invalid(
                "message_too_long",
                "message",
                "the message does not fit the model's window: shorten it",
            ));
        }
    };
    let model_name = turn
        .chatbot
        .settings
        .model
        .clone()
        .unwrap_or_else(|| turn.app.config.llm.model.clone());
    let (reservation, answer_tokens) =
        match accept(&mut turn, &model_name, packed.tokens, window.answer, &limits).await {
            Ok(accepted) => accepted,
            Err(error) => {
                turn.book_refused().await?;
                return Err(error);
            }
        };

    let messages = std::mem::take(&mut packed.messages);
    let request = ChatRequest {
        model: model_name,
        messages,
        temperature: turn.chatbot.settings.temperature,
        max_answer_tokens: answer_tokens,
    };
    let (sender, events) = mpsc::channel(EVENT_BUFFER);
    let cancel = turn.app.ending.child_token();
    let opening = turn.opening;
    let running = Running {
        turn,
        window,
        packed,
        request,
        reservation,
        sender,
        cancel: cancel.clone(),
    };
    let span = tracing::info_span!(
        "chat.turn",
        tenant.id = %running.turn.reach.tenant_id,
        chatbot.id = %running.turn.chatbot.id,
        conversation.id = opening.conversation_id.map(tracing::field::display),
        gen_ai.request.model = running.request.model,
    );
    let tasks = running.turn.app.tasks.clone();
    tasks.spawn(running.run(model, streamed).instrument(span));
    Ok(RunningTurn::new(opening, events, cancel))
}

/// Reserves what the turn may cost and saves the question with an answer still to be written, together or not at all. Says how long the answer may be.
async fn accept(
    turn: &mut Turn,
    model: &str,
    prompt_tokens: usize,
    most_answer: usize,
    limits: &Limits,
) -> Result<(Option<Reservation>, usize)> {
    let embedding = turn.embedding_event();
    let answer_tokens = |share: f64| {
        let more = most_answer.saturating_sub(LEAST_ANSWER_TOKENS) as f64 * share;
        LEAST_ANSWER_TOKENS + more as usize
    };
    // What the ledger says of this turn if nobody comes back to tell.
    let calls = |share: f64| {
        let usage = TokenUsage::counted(prompt_tokens, answer_tokens(share));
        let mut chat = turn.chat_event(model, &usage, Duration::ZERO);
        chat.estimated = true;
        embedding
            .clone()
            .into_iter()
            .chain([chat])
            .collect::<Vec<UsageEvent>>()
    };
    let spend = |share: f64| {
        let calls = calls(share);
        calls
            .iter()
            .map(UsageEvent::spend)
            .fold(Spend::default(), Spend::plus)
    };
    let (least, most) = (spend(0.0), spend(1.0));
    let mut write = turn.app.db.write(turn.reach.tenant_id).await?;
    let now = turn.app.clock.now();
    // What embedding took is part of what is reserved now.
    if let Some(held) = turn.hold.reservation() {
        usage::give_back(&mut write, held).await?;
    }
    let (reservation, share) = usage::reserve_within(
        &mut write,
        limits,
        (turn.reach.tenant_id, turn.chatbot.id),
        (least, most),
        calls,
        now,
    )
    .await?;
    let begun = turn.answer(
        String::new(),
        Vec::new(),
        AnswerSource::Model,
        TurnUsage::default(),
    );
    turn.save(&mut write, &begun, MessageState::Writing, Some(model))
        .await?;
    turn.commit(write).await?;
    let answer_tokens = answer_tokens(share);
    // With that commit it is part of what is reserved for the turn.
    turn.hold.close();
    Ok((reservation, answer_tokens))
}

/// A turn that waits for its model.
struct Running {
    turn: Turn,
    window: Window,
    packed: Packed,
    request: ChatRequest,
    reservation: Option<Reservation>,
    sender: mpsc::Sender<TurnEvent>,
    cancel: CancellationToken,
}

/// What came of the model call.
struct Produced {
    text: String,
    /// As the model wrote it, markers unchecked: what it is paid for.
    raw: String,
    citations: Vec<Citation>,
    usage: Option<TokenUsage>,
    end: End,
}

enum End {
    Whole,
    /// The client is gone or takes nothing, or the service ends.
    Left,
    Failed(ProviderError),
}

impl Running {
    async fn run(mut self, model: Arc<dyn ChatModel>, streamed: bool) {
        let started = Instant::now();
        let produced = self.produce(model.as_ref(), streamed).await;
        let latency = started.elapsed();
        metrics::histogram!("frontdesk_model_seconds").record(latency.as_secs_f64());
        let chat = self.chat_event(&produced, latency);
        let (state, failure) = match produced.end {
            End::Whole => (MessageState::Complete, None),
            End::Left => (MessageState::Incomplete, Some(cut_off())),
            End::Failed(error) => {
                tracing::warn!(error = ?error, "the model gave no whole answer");
                (
                    MessageState::Failed { code: error.code() },
                    Some(Error::from(error)),
                )
            }
        };
        let embedding = self.turn.embedding_event();
        let reranked = self.turn.reranked.as_ref();
        let usage = turn_usage([embedding.as_ref(), reranked, chat.as_ref()]);
        let answer = self
            .turn
            .answer(produced.text, produced.citations, AnswerSource::Model, usage);
        let events: Vec<UsageEvent> = embedding.into_iter().chain(chat).collect();
        let saved = self.save(&answer, state, &events).await;
        count_turn(AnswerSource::Model, state.name());
        let last = match (saved, failure) {
            (Err(error), _) => {
                tracing::error!(error = ?error, "cannot save the answer");
                TurnEvent::Failed(error)
            }
            (Ok(()), Some(error)) => TurnEvent::Failed(error),
            (Ok(()), None) => TurnEvent::End(Box::new(answer)),
        };
        // A client that is gone does not hear it.
        let _ = tokio::time::timeout(SLOW_CLIENT, self.sender.send(last)).await;
    }

    /// Lets the model answer. When its window turns out to be smaller than configured, it is asked once more with less.
    async fn produce(&mut self, model: &dyn ChatModel, streamed: bool) -> Produced {
        let produced = self.ask(model, streamed).await;
        if !matches!(produced.end, End::Failed(ProviderError::ContextTooLong)) || !produced.raw.is_empty() {
            return produced;
        }
        let Some(mut shorter) = prompt::shorten(
            &self.packed,
            &self.turn.chatbot.settings,
            &self.turn.question,
            self.window,
        ) else {
            return produced;
        };
        tracing::warn!(
            prompt_tokens = self.packed.tokens,
            shorter_tokens = shorter.tokens,
            "the model's window is smaller than llm.context_tokens says: asking with less"
        );
        self.request.messages = std::mem::take(&mut shorter.messages);
        self.packed = shorter;
        self.ask(model, streamed).await
    }

    async fn ask(&self, model: &dyn ChatModel, streamed: bool) -> Produced {
        let mut produced = if streamed {
            self.stream(model).await
        } else {
            self.complete(model).await
        };
        if matches!(produced.end, End::Whole) && produced.text.trim().is_empty() {
            produced.end = End::Failed(ProviderError::Unreadable {
                reason: "the answer is empty".into(),
            });
        }
        produced
    }

    async fn complete(&self, model: &dyn ChatModel) -> Produced {
        let outcome = tokio::select! {
            outcome = model.complete(self.request.clone()) => outcome,
            () = self.cancel.cancelled() => return Produced::nothing(End::Left),
        };
        match outcome {
            Ok(completion) => {
                let mut filter = MarkerFilter::new(&self.packed.passages, &self.turn.question);
                let mut text = String::with_capacity(completion.text.len());
                let pieces = filter.push(&completion.text).into_iter().chain(filter.finish());
                append_text(&mut text, pieces);
                Produced {
                    text,
                    raw: completion.text,
                    citations: filter.into_citations(),
                    usage: completion.usage,
                    end: End::Whole,
                }
            }
            Err(error) => Produced::nothing(End::Failed(error)),
        }
    }

    async fn stream(&self, model: &dyn ChatModel) -> Produced {
        let opened = tokio::select! {
            opened = model.stream(self.request.clone()) => opened,
            () = self.cancel.cancelled() => return Produced::nothing(End::Left),
        };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => return Produced::nothing(End::Failed(error)),
        };
        let mut filter = MarkerFilter::new(&self.packed.passages, &self.turn.question);
        let (mut text, mut raw, mut usage) = (String::new(), String::new(), None);
        let end = loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = self.cancel.cancelled() => break End::Left,
            };
            match event {
                Some(Ok(ModelEvent::Delta(delta))) => {
                    raw.push_str(&delta);
                    if !self.send(filter.push(&delta), &mut text).await {
                        break End::Left;
                    }
                }
                Some(Ok(ModelEvent::Usage(reported))) => usage = Some(reported),
                Some(Ok(ModelEvent::Finished(_))) => {}
                Some(Err(error)) => break End::Failed(error),
                None => break End::Whole,
            }
        };
        // Closes the call to the model now, not after the books are done.
        drop(stream);
        // What is held back at a break is half a marker or white space: the client has not seen it, so it was not said.
        if matches!(end, End::Whole) {
            self.send(filter.finish(), &mut text).await;
        }
        Produced {
            text,
            raw,
            citations: filter.into_citations(),
            usage,
            end,
        }
    }

    /// Passes pieces on; false when the client is gone.
    async fn send(&self, pieces: Vec<Piece>, text: &mut String) -> bool {
        for piece in pieces {
            let event = match piece {
                Piece::Text(part) => {
                    text.push_str(&part);
                    TurnEvent::Delta(part)
                }
                Piece::Citation(citation) => TurnEvent::Citation(citation),
            };
            let sent = match self.sender.try_send(event) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(event)) => matches!(
                    tokio::time::timeout(SLOW_CLIENT, self.sender.send(event)).await,
                    Ok(Ok(()))
                ),
            };
            if !sent {
                return false;
            }
        }
        true
    }

    /// The ledger's line for the model call; none when the model did no work.
    fn chat_event(&self, produced: &Produced, latency: Duration) -> Option<UsageEvent> {
        if produced.usage.is_none() && produced.raw.is_empty() && !produced.end.has_read_the_prompt() {
            return None;
        }
        let usage = produced
            .usage
            .unwrap_or_else(|| TokenUsage::counted(self.packed.tokens, tokens::count(&produced.raw)));
        Some(self.turn.chat_event(&self.request.model, &usage, latency))
    }

    async fn save(&mut self, answer: &Answer, state: MessageState, events: &[UsageEvent]) -> Result<()> {
        let turn = &self.turn;
        let mut write = turn.app.db.write(turn.reach.tenant_id).await?;
        turn.save_end(&mut write, answer, state, Some(&self.request.model))
            .await?;
        usage::settle(
            &mut write,
            turn.reach.tenant_id,
            turn.chatbot.id,
            self.reservation.take(),
            events,
            turn.app.clock.now(),
        )
        .await?;
        write.commit().await
    }
}

impl Turn {
    /// The ledger's line for a model call of this `usage`.
    fn chat_event(&self, model: &str, usage: &TokenUsage, latency: Duration) -> UsageEvent {
        let mut event = self.usage_event(model);
        event.prompt_tokens = as_i64(usage.prompt);
        event.completion_tokens = as_i64(usage.completion);
        event.cached_tokens = as_i64(usage.cached);
        event.reported = usage.reported;
        event.cost_micro_usd = self.app.prices.cost_micro_usd(model, usage);
        event.latency_ms = i64::try_from(latency.as_millis()).unwrap_or(i64::MAX);
        event
    }
}

impl Produced {
    fn nothing(end: End) -> Self {
        Self {
            text: String::new(),
            raw: String::new(),
            citations: Vec::new(),
            usage: None,
            end,
        }
    }
}

impl End {
    /// Whether the vendor will want to be paid for the prompt although no word of an answer came: it was at work, as
    /// far as we know. A visitor who asks and leaves is not free of charge.
    fn has_read_the_prompt(&self) -> bool {
        match self {
            Self::Whole | Self::Left => true,
            Self::Failed(
                ProviderError::Interrupted
                | ProviderError::Unreadable { .. }
                | ProviderError::TimedOut { .. },
            ) => true,
            Self::Failed(
                ProviderError::Unavailable { .. }
                | ProviderError::Refused { .. }
                | ProviderError::ContextTooLong
                | ProviderError::QuotaExhausted,
            ) => false,
        }
    }
}

/// What a client hears that is there after all.
fn cut_off() -> Error {
    Error::Unavailable {
        code: "answer_cut_off",
        message: "the answer was cut off, since the server stops or nothing of it was taken for too long; ask again".into(),
        retry_after: CUT_OFF_RETRY,
        source: None,
    }
}

fn append_text(text: &mut String, pieces: impl Iterator<Item = Piece>) {
    for piece in pieces {
        if let Piece::Text(part) = piece {
            text.push_str(&part);
        }
    }
}

fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
