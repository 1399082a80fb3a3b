//! One turn: everything that can refuse it first, then the model in a task of its own, then the books.
//!
//! The task outlives the request: when the client leaves, the model call is dropped, and what was produced is saved
//! and booked. A turn is refused before anything is saved, or it ends in a saved message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

use super::citation::{Citation, MarkerFilter, Piece};
use super::prompt::{self, Packed, Window};
use super::store::{self, HistoryMessage, MessageState, NewAnswer};
use super::{Answer, AnswerSource, TurnUsage, extractive, relevance};
use crate::app::App;
use crate::chatbots::{self, Chatbot};
use crate::error::{Error, Result};
use crate::http::access::Reach;
use crate::id::{ChatbotId, ConversationId, MessageId, UsageEventId};
use crate::knowledge::{self, SearchFilter, SearchResult};
use crate::llm::{ChatModel, ChatRequest, ModelEvent, ProviderError, TokenUsage, tokens};
use crate::usage::{self, Limits, Reservation, Spend, UsageEvent, UsageKind};

/// Events that wait for a slow client. Past this the model is read more slowly.
const EVENT_BUFFER: usize = 256;

/// A client that takes no event for this long is gone.
const SLOW_CLIENT: Duration = Duration::from_secs(30);

/// The least answer worth starting, in tokens, when a budget is nearly spent.
const LEAST_ANSWER_TOKENS: usize = 16;

/// How long a client waits before it tries a full server again.
const BUSY_RETRY: Duration = Duration::from_secs(2);

/// A question to answer.
pub struct TurnRequest {
    pub reach: Reach,
    pub chatbot_id: ChatbotId,
    pub thread: Thread,
    pub question: String,
    /// Whether the answer is wanted token by token.
    pub streamed: bool,
    pub channel: &'static str,
    /// The browser page that asks, if one does.
    pub origin: Option<String>,
}

/// Where earlier messages come from and this turn's go to.
pub enum Thread {
    /// A stored conversation, or a new one.
    Stored(Option<ConversationId>),
    /// Nothing is stored; these messages came before.
    Stateless(Vec<HistoryMessage>),
}

/// What a client learns before the answer.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    pub conversation_id: Option<ConversationId>,
    pub message_id: Option<MessageId>,
}

/// What happens in a turn. The last one is `End` or `Failed`.
#[derive(Debug)]
pub enum TurnEvent {
    Delta(String),
    Citation(Box<Citation>),
    End(Box<Answer>),
    Failed(Error),
}

/// A turn under way. Dropping it ends the turn: the model is left, and what there is is saved.
pub struct RunningTurn {
    pub opening: Opening,
    pub events: mpsc::Receiver<TurnEvent>,
    _cancel_on_drop: DropGuard,
}

impl RunningTurn {
    /// Waits for the end of the answer.
    pub async fn finish(mut self) -> Result<Answer> {
        while let Some(event) = self.events.recv().await {
            match event {
                TurnEvent::End(answer) => return Ok(*answer),
                TurnEvent::Failed(error) => return Err(error),
                TurnEvent::Delta(_) | TurnEvent::Citation(_) => {}
            }
        }
        Err(Error::internal("the turn ended without an answer"))
    }
}

/// Refuses a browser page that the chatbot's owner did not list.
pub fn check_origin(app: &App, chatbot: &Chatbot, origin: Option<&str>) -> Result<()> {
    let Some(origin) = origin else { return Ok(()) };
    let listed = chatbot.settings.allowed_origins.iter().chain(&app.config.server.dashboard_origins).any(|allowed| allowed == origin);
    if listed || app.config.server.public_url.trim_end_matches('/') == origin {
        return Ok(());
    }
    Err(Error::Forbidden { code: "origin_not_allowed", message: "this site is not on the chatbot's list of allowed origins; its owner can add it".into() })
}

/// What is known once the turn is accepted.
struct Turn {
    app: App,
    reach: Reach,
    chatbot: Chatbot,
    channel: &'static str,
    opening: Opening,
    /// Whether the conversation is to be made with the first write.
    is_new: bool,
    question: String,
    found: SearchResult,
    _place: OwnedSemaphorePermit,
}

/// Begins a turn. An error means that nothing was saved and nothing is owed.
pub async fn start(app: &App, request: TurnRequest) -> Result<RunningTurn> {
    let question = check_question(app, request.question)?;
    let place = app.turns.clone().try_acquire_owned().map_err(|_| Error::Unavailable {
        code: "busy",
        message: "too many answers are being written at once; try again shortly".into(),
        retry_after: BUSY_RETRY,
        source: None,
    })?;
    let reach = request.reach;
    let mut conn = app.db.read(reach.tenant_id).await?;
    let chatbot = chatbots::find(&mut conn, reach, request.chatbot_id).await?;
    check_origin(app, &chatbot, request.origin.as_deref())?;
    let (history, opening, is_new) = match request.thread {
        Thread::Stateless(history) => (history, Opening { conversation_id: None, message_id: None }, false),
        Thread::Stored(None) => (Vec::new(), Opening { conversation_id: Some(ConversationId::new()), message_id: Some(MessageId::new()) }, true),
        Thread::Stored(Some(id)) => {
            let conversation = store::find(&mut conn, reach, id).await?.filter(|conversation| conversation.chatbot_id == chatbot.id);
            conversation.ok_or(Error::NotFound("conversation"))?;
            let history = store::list_history(&mut conn, reach.tenant_id, id).await?;
            (history, Opening { conversation_id: Some(id), message_id: Some(MessageId::new()) }, false)
        }
    };
    let limits = usage::load_limits(&mut conn, reach.tenant_id, chatbot.id).await?;
    usage::check_open(&mut conn, &limits, reach.tenant_id, chatbot.id, app.clock.now()).await?;
    drop(conn);

    let settings = &chatbot.settings;
    let limit = usize::try_from(settings.max_passages).unwrap_or(1);
    let mut found = knowledge::search(app, reach, chatbot.id, &question, limit, SearchFilter::default()).await?;
    found.passages = relevance::keep_relevant(&question, found.passages, settings.min_similarity);

    let turn = Turn { app: app.clone(), reach, chatbot, channel: request.channel, opening, is_new, question, found, _place: place };
    match app.model.clone() {
        Some(model) if !turn.found.passages.is_empty() => ask_model(turn, model, history, limits, request.streamed).await,
        _ => answer_at_once(turn).await,
    }
}

fn check_question(app: &App, question: String) -> Result<String> {
    let limit = app.config.chat.message_limit_chars;
    if question.trim().is_empty() {
        return Err(Error::invalid("message_empty", "message", "the message is empty: ask something"));
    }
    if question.chars().count() > limit {
        return Err(Error::invalid("message_too_long", "message", format!("the message is longer than {limit} characters: shorten it")));
    }
    Ok(question)
}

/// Without a model, or without anything to tell it: the passages' own sentences, or the no-answer text.
async fn answer_at_once(mut turn: Turn) -> Result<RunningTurn> {
    let passages = std::mem::take(&mut turn.found.passages);
    let (text, citations, source) = match extractive::extract(&turn.question, &passages) {
        Some(extract) => (extract.text, extract.citations, AnswerSource::Extractive),
        None => (turn.chatbot.settings.no_answer_text.clone(), Vec::new(), AnswerSource::NoAnswer),
    };
    let embedding = turn.embedding_event();
    let answer = turn.answer(text, citations, source, turn_usage(embedding.as_ref(), None));
    let mut write = turn.app.db.write(turn.reach.tenant_id).await?;
    turn.save_question(&mut write).await?;
    turn.save_answer(&mut write, &answer, MessageState::Complete, None).await?;
    let events: Vec<UsageEvent> = embedding.into_iter().collect();
    usage::settle(&mut write, turn.reach.tenant_id, turn.chatbot.id, None, &events, turn.app.clock.now()).await?;
    write.commit().await?;
    count_turn(source, "complete");

    let (sender, events) = mpsc::channel(answer.citations.len() + 2);
    for citation in &answer.citations {
        let _ = sender.try_send(TurnEvent::Citation(Box::new(citation.clone())));
    }
    let _ = sender.try_send(TurnEvent::Delta(answer.answer.clone()));
    let _ = sender.try_send(TurnEvent::End(Box::new(answer)));
    Ok(RunningTurn { opening: turn.opening, events, _cancel_on_drop: CancellationToken::new().drop_guard() })
}

/// Packs the prompt, reserves its cost, saves the question, and lets the model answer in a task of its own.
async fn ask_model(mut turn: Turn, model: Arc<dyn ChatModel>, history: Vec<HistoryMessage>, limits: Limits, streamed: bool) -> Result<RunningTurn> {
    let config = &turn.app.config;
    let most_answer = config.llm.max_answer_tokens;
    let window = Window { context: config.llm.context_tokens, answer: most_answer, history: config.chat.history_tokens, passages: config.chat.passage_tokens };
    let passages = std::mem::take(&mut turn.found.passages);
    let packed = prompt::pack(&turn.chatbot.settings, &history, passages, &turn.question, window)
        .map_err(|prompt::TooLong| Error::invalid("message_too_long", "message", "the message does not fit the model's window: shorten it"))?;
    let model_name = turn.chatbot.settings.model.clone().unwrap_or_else(|| config.llm.model.clone());

    let spend = |answer: usize| {
        let usage = TokenUsage::counted(packed.tokens, answer);
        Spend { tokens: i64::try_from(packed.tokens + answer).unwrap_or(i64::MAX), micro_usd: turn.app.prices.cost_micro_usd(&model_name, &usage) }
    };
    let (least, most) = (spend(LEAST_ANSWER_TOKENS), spend(most_answer));
    let mut write = turn.app.db.write(turn.reach.tenant_id).await?;
    let now = turn.app.clock.now();
    let (reservation, share) = usage::reserve_within(&mut write, &limits, turn.reach.tenant_id, turn.chatbot.id, least, most, now).await?;
    turn.save_question(&mut write).await?;
    write.commit().await?;

    let answer_tokens = LEAST_ANSWER_TOKENS + ((most_answer - LEAST_ANSWER_TOKENS) as f64 * share) as usize;
    let request = ChatRequest { model: model_name, messages: packed.messages.clone(), temperature: turn.chatbot.settings.temperature, max_answer_tokens: answer_tokens };
    let (sender, events) = mpsc::channel(EVENT_BUFFER);
    let cancel = CancellationToken::new();
    let opening = turn.opening;
    let running = Running { turn, packed, request, reservation, sender, cancel: cancel.clone() };
    let span = tracing::info_span!(
        "chat.turn",
        tenant.id = %running.turn.reach.tenant_id,
        chatbot.id = %running.turn.chatbot.id,
        conversation.id = opening.conversation_id.map(tracing::field::display),
        gen_ai.request.model = running.request.model,
    );
    tokio::spawn(running.run(model, streamed).instrument(span));
    Ok(RunningTurn { opening, events, _cancel_on_drop: cancel.drop_guard() })
}

/// A turn that waits for its model.
struct Running {
    turn: Turn,
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
    ClientLeft,
    Failed(ProviderError),
}

impl Running {
    async fn run(mut self, model: Arc<dyn ChatModel>, streamed: bool) {
        let started = Instant::now();
        let produced = if streamed { self.stream(model).await } else { self.complete(model).await };
        let latency = started.elapsed();
        metrics::histogram!("frontdesk_model_seconds").record(latency.as_secs_f64());
        let (state, failure) = match produced.end {
            End::Whole => (MessageState::Complete, None),
            End::ClientLeft => (MessageState::Incomplete, None),
            End::Failed(error) => {
                tracing::warn!(error = ?error, "the model gave no whole answer");
                (MessageState::Failed { code: error.code() }, Some(Error::from(error)))
            }
        };
        let chat = self.chat_event(&produced.raw, produced.usage, latency);
        let embedding = self.turn.embedding_event();
        let usage = turn_usage(embedding.as_ref(), chat.as_ref());
        let answer = self.turn.answer(produced.text, produced.citations, AnswerSource::Model, usage);
        let events: Vec<UsageEvent> = embedding.into_iter().chain(chat).collect();
        let saved = self.save(&answer, state, &events).await;
        count_turn(AnswerSource::Model, match state {
            MessageState::Complete => "complete",
            MessageState::Incomplete => "incomplete",
            MessageState::Failed { .. } => "failed",
        });
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

    async fn complete(&self, model: Arc<dyn ChatModel>) -> Produced {
        let outcome = tokio::select! {
            outcome = model.complete(self.request.clone()) => outcome,
            () = self.cancel.cancelled() => return Produced::nothing(End::ClientLeft),
        };
        match outcome {
            Ok(completion) => {
                let mut filter = MarkerFilter::new(&self.packed.passages);
                let mut text = String::with_capacity(completion.text.len());
                for piece in filter.push(&completion.text).into_iter().chain(filter.finish()) {
                    if let Piece::Text(part) = piece {
                        text.push_str(&part);
                    }
                }
                Produced { text, raw: completion.text, citations: filter.into_citations(), usage: completion.usage, end: End::Whole }
            }
            Err(error) => Produced::nothing(End::Failed(error)),
        }
    }

    async fn stream(&self, model: Arc<dyn ChatModel>) -> Produced {
        let opened = tokio::select! {
            opened = model.stream(self.request.clone()) => opened,
            () = self.cancel.cancelled() => return Produced::nothing(End::ClientLeft),
        };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => return Produced::nothing(End::Failed(error)),
        };
        let mut filter = MarkerFilter::new(&self.packed.passages);
        let (mut text, mut raw, mut usage) = (String::new(), String::new(), None);
        let end = loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = self.cancel.cancelled() => break End::ClientLeft,
            };
            match event {
                Some(Ok(ModelEvent::Delta(delta))) => {
                    raw.push_str(&delta);
                    if !self.send(filter.push(&delta), &mut text).await {
                        break End::ClientLeft;
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
        let rest = filter.finish();
        match end {
            End::Whole => {
                self.send(rest, &mut text).await;
            }
            End::ClientLeft | End::Failed(_) => rest.into_iter().for_each(|piece| {
                if let Piece::Text(part) = piece {
                    text.push_str(&part);
                }
            }),
        }
        Produced { text, raw, citations: filter.into_citations(), usage, end }
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
                Err(mpsc::error::TrySendError::Full(event)) => matches!(tokio::time::timeout(SLOW_CLIENT, self.sender.send(event)).await, Ok(Ok(()))),
            };
            if !sent {
                return false;
            }
        }
        true
    }

    /// The ledger's line for the model call; none when nothing came of it.
    fn chat_event(&self, raw: &str, usage: Option<TokenUsage>, latency: Duration) -> Option<UsageEvent> {
        if usage.is_none() && raw.is_empty() {
            return None;
        }
        let usage = usage.unwrap_or_else(|| TokenUsage::counted(self.packed.tokens, tokens::count(raw)));
        let cost = self.turn.app.prices.cost_micro_usd(&self.request.model, &usage);
        let mut event = self.turn.usage_event(UsageKind::Chat, self.request.model.clone(), latency);
        event.prompt_tokens = as_i64(usage.prompt);
        event.completion_tokens = as_i64(usage.completion);
        event.cached_tokens = as_i64(usage.cached);
        event.reported = usage.reported;
        event.cost_micro_usd = cost;
        Some(event)
    }

    async fn save(&mut self, answer: &Answer, state: MessageState, events: &[UsageEvent]) -> Result<()> {
        let turn = &self.turn;
        let mut write = turn.app.db.write(turn.reach.tenant_id).await?;
        turn.save_answer(&mut write, answer, state, Some(&self.request.model)).await?;
        usage::settle(&mut write, turn.reach.tenant_id, turn.chatbot.id, self.reservation.take(), events, turn.app.clock.now()).await?;
        write.commit().await
    }
}

impl Produced {
    fn nothing(end: End) -> Self {
        Self { text: String::new(), raw: String::new(), citations: Vec::new(), usage: None, end }
    }
}

impl Turn {
    async fn save_question(&self, write: &mut crate::db::Write) -> Result<()> {
        let Some(conversation_id) = self.opening.conversation_id else { return Ok(()) };
        let now = self.app.clock.now();
        let tenant_id = self.reach.tenant_id;
        if self.is_new {
            store::insert_conversation(write, tenant_id, conversation_id, self.chatbot.id, self.channel, now).await?;
        }
        let question_tokens = self.count_text(&self.question);
        store::insert_question(write, tenant_id, conversation_id, MessageId::new(), &self.question, question_tokens, now).await
    }

    async fn save_answer(&self, write: &mut crate::db::Write, answer: &Answer, state: MessageState, model: Option<&str>) -> Result<()> {
        let (Some(conversation_id), Some(id)) = (self.opening.conversation_id, self.opening.message_id) else { return Ok(()) };
        let new = NewAnswer {
            id,
            text: &answer.answer,
            state,
            source: answer.source,
            model,
            citations: &answer.citations,
            text_tokens: if answer.usage.completion_tokens > 0 { answer.usage.completion_tokens } else { self.count_text(&answer.answer) },
            usage: answer.usage,
        };
        store::insert_answer(write, self.reach.tenant_id, conversation_id, new, self.app.clock.now()).await.map(drop)
    }

    /// Tokens of a text in later prompts; 0 while no model is configured that could read them.
    fn count_text(&self, text: &str) -> i64 {
        if self.app.model.is_some() { i64::try_from(tokens::count(text)).unwrap_or(i64::MAX) } else { 0 }
    }

    fn answer(&self, text: String, citations: Vec<Citation>, source: AnswerSource, usage: TurnUsage) -> Answer {
        Answer {
            conversation_id: self.opening.conversation_id,
            message_id: self.opening.message_id,
            answer: text,
            citations,
            usage,
            source,
            degraded: self.found.without_meaning,
        }
    }

    /// The ledger's line for embedding the question; none when nothing was embedded.
    fn embedding_event(&self) -> Option<UsageEvent> {
        let model = self.app.embedding_model().filter(|_| self.found.embedding_tokens > 0)?;
        let mut event = self.usage_event(UsageKind::Embedding, model.to_owned(), self.found.embedding_latency);
        event.embedding_tokens = self.found.embedding_tokens;
        event.cost_micro_usd = self.app.prices.embedding_cost_micro_usd(model, self.found.embedding_tokens.unsigned_abs());
        event.local = !self.app.embeds_remotely();
        event.reported = self.found.embedding_reported;
        Some(event)
    }

    fn usage_event(&self, kind: UsageKind, model: String, latency: Duration) -> UsageEvent {
        let now: DateTime<Utc> = self.app.clock.now();
        UsageEvent {
            id: UsageEventId::new(),
            tenant_id: self.reach.tenant_id,
            chatbot_id: Some(self.chatbot.id),
            conversation_id: self.opening.conversation_id,
            message_id: self.opening.message_id,
            channel: self.channel.to_owned(),
            kind,
            model,
            prompt_tokens: 0,
            completion_tokens: 0,
            cached_tokens: 0,
            embedding_tokens: 0,
            cost_micro_usd: 0,
            local: false,
            price_book_version: self.app.prices.version().to_owned(),
            reported: true,
            latency_ms: i64::try_from(latency.as_millis()).unwrap_or(i64::MAX),
            created_at: now,
        }
    }
}

fn turn_usage(embedding: Option<&UsageEvent>, chat: Option<&UsageEvent>) -> TurnUsage {
    let mut usage = TurnUsage::default();
    for event in embedding.into_iter().chain(chat) {
        usage.prompt_tokens += event.prompt_tokens;
        usage.completion_tokens += event.completion_tokens;
        usage.embedding_tokens += event.embedding_tokens;
        usage.cost_micro_usd += event.cost_micro_usd;
    }
    usage
}

fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count_turn(source: AnswerSource, result: &'static str) {
    metrics::counter!("frontdesk_turns_total", "source" => source.name(), "result" => result).increment(1);
}
