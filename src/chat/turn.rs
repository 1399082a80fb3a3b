//! One turn: everything that can refuse it first, then the answer, from a model ([`writing`]) or without one, then the
//! books. A turn is refused before anything is saved, or it ends in a saved message.

use std::time::Duration;

use retrieval::confidence::Threshold;
use retrieval::index::Audience;
use retrieval::operators::Query;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use utoipa::ToSchema;

use super::citation::Citation;
use super::given::{self, Said};
use super::store::{self, Asked, MessageState};
use super::{Answer, AnswerSource, TurnUsage, extractive, writing};
use crate::app::App;
use crate::chatbots::Chatbot;
use crate::error::{Error, Result};
use crate::http::access::Reach;
use crate::id::{ChatbotId, ConversationId, CutId, MessageId, TenantId};
use crate::knowledge::{
    self, Degradation, EmbeddedQuestion, Passage, Payer, Purpose, Search, SearchFilter, Trace, degraded,
};
use crate::places::{Full, Place};
use crate::usage::{self, Hold, Limits, UsageEvent, UsageKind};

/// How long a client waits before it tries a full server again.
const BUSY_RETRY: Duration = Duration::from_secs(2);

/// A question to answer.
pub struct TurnRequest {
    pub reach: Reach,
    pub chatbot_id: ChatbotId,
    pub thread: Thread,
    pub question: String,
    /// As whom it is asked: only what they may read is looked at.
    pub audience: Audience,
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
    Stateless(Vec<Said>),
}

/// What a client learns before the answer. Null in a stateless turn.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = AnswerOpening)]
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
    /// A turn that `cancel` ends.
    pub(super) fn new(
        opening: Opening,
        events: mpsc::Receiver<TurnEvent>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            opening,
            events,
            _cancel_on_drop: cancel.drop_guard(),
        }
    }

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
    let listed = chatbot
        .settings
        .allowed_origins
        .iter()
        .chain(&app.config.server.dashboard_origins)
        .any(|allowed| allowed == origin);
    // Without a public address of ours there is none to compare with, and an empty origin is nobody's.
    let is_ours = !origin.is_empty() && app.config.server.public_url.trim_end_matches('/') == origin;
    if listed || is_ours {
        return Ok(());
    }
    Err(Error::Forbidden {
        code: "origin_not_allowed",
        message: "this site is not on the chatbot's list of allowed origins; its owner can add it".into(),
    })
}

/// What is known once the turn is accepted.
pub(super) struct Turn {
    pub(super) app: App,
    pub(super) reach: Reach,
    pub(super) chatbot: Chatbot,
    pub(super) channel: &'static str,
    pub(super) opening: Opening,
    /// Whether the conversation is to be made with the first write.
    pub(super) is_new: bool,
    /// Made before the answer's id, so that the question comes first in the thread.
    pub(super) question_id: MessageId,
    pub(super) question: String,
    /// Access groups with which it was asked; a conversation keeps those that it began with.
    pub(super) groups: Vec<String>,
    pub(super) passages: Vec<Passage>,
    /// What looking for them had to do without.
    pub(super) degraded: Vec<Degradation>,
    /// What putting them in order took; booked already.
    pub(super) reranked: Option<UsageEvent>,
    pub(super) embedded: EmbeddedQuestion,
    /// What was reserved for embedding the question, until it is settled.
    pub(super) hold: Hold,
    _place: Place<TenantId>,
}

/// Begins a turn. An error means that nothing was saved and nothing is owed.
pub async fn start(app: &App, request: TurnRequest) -> Result<RunningTurn> {
    let (tenant_id, chatbot_id) = (request.reach.tenant_id, request.chatbot_id);
    match begin(app, request).await {
        Err(error) => Err(usage::tell_owner_of_refusal(app, tenant_id, chatbot_id, error).await),
        running => running,
    }
}

async fn begin(app: &App, request: TurnRequest) -> Result<RunningTurn> {
    let question = check_question(app, request.question)?;
    let reach = request.reach;
    let place = app.turns.take(Some(reach.tenant_id)).map_err(busy)?;
    let mut conn = app.db.read(reach.tenant_id).await?;
    reach.check_chatbot(request.chatbot_id)?;
    let asked = store::find_asked(&mut conn, reach.tenant_id, request.chatbot_id).await?;
    let Asked {
        chatbot,
        limits,
        cuts,
        live,
    } = asked.ok_or(Error::NotFound("chatbot"))?;
    check_origin(app, &chatbot, request.origin.as_deref())?;
    let question_id = MessageId::new();
    let mut said = Vec::new();
    let mut audience = request.audience;
    let (mut history, opening, is_new) = match request.thread {
        Thread::Stateless(given) => {
            said = given;
            (
                Vec::new(),
                Opening {
                    conversation_id: None,
                    message_id: None,
                },
                false,
            )
        }
        Thread::Stored(None) => (
            Vec::new(),
            Opening {
                conversation_id: Some(ConversationId::new()),
                message_id: Some(MessageId::new()),
            },
            true,
        ),
        Thread::Stored(Some(id)) => {
            let conversation = store::find(&mut conn, reach, id)
                .await?
                .filter(|conversation| conversation.chatbot_id == chatbot.id);
            let conversation = conversation.ok_or(Error::NotFound("conversation"))?;
            audience = conversation.go_on_as(&audience)?;
            let history = store::list_history(&mut conn, reach.tenant_id, id).await?;
            (
                history,
                Opening {
                    conversation_id: Some(id),
                    message_id: Some(MessageId::new()),
                },
                false,
            )
        }
    };
    usage::check_open(&mut conn, &limits, reach.tenant_id, chatbot.id, app.clock.now()).await?;
    drop(conn);
    let settings = &chatbot.settings;
    if app.model.is_some() {
        let model = settings.model.as_ref().unwrap_or(&app.config.llm.model);
        usage::check_priced(app, &limits, model)?;
    }
    let live = live.open(app, reach.tenant_id).await?;
    usage::check_embedding_priced(app, &live.space, &limits)?;
    if app.model.is_some() && !said.is_empty() {
        history = given::count_latest(said, app.config.chat.history_tokens).await?;
    }

    let holders = (reach.tenant_id, chatbot.id);
    let query = Query::said(&question);
    let payer = Payer {
        limits: &limits,
        channel: request.channel,
        conversation_id: opening.conversation_id,
        message_id: opening.message_id,
    };
    let is_needed = !cuts.is_empty();
    let (embedded, hold) =
        knowledge::embed_question(app, live, holders, payer, &query.text, is_needed).await?;
    let mut turn = Turn {
        app: app.clone(),
        reach,
        chatbot,
        channel: request.channel,
        opening,
        is_new,
        question_id,
        question,
        groups: match audience {
            Audience::Groups(groups) => groups,
            Audience::Everything => Vec::new(),
        },
        passages: Vec::new(),
        degraded: Vec::new(),
        reranked: None,
        embedded,
        hold,
        _place: place,
    };
    if let Err(error) = turn.find_passages(&query, cuts, &limits).await {
        turn.book_refused().await?;
        return Err(error);
    }
    match app.model.clone() {
        Some(model) if !turn.passages.is_empty() => {
            if let Err(error) = turn.add_context().await {
                turn.book_refused().await?;
                return Err(error);
            }
            writing::begin(turn, model, &history, limits, request.streamed).await
        }
        _ => answer_at_once(turn).await,
    }
}

fn busy(full: Full) -> Error {
    let message = match full {
        Full::All => "too many answers are being written at once; try again shortly",
        Full::Share => {
            "as many answers are being written for you as one tenant may have at once; try again when some are done"
        }
    };
    Error::Unavailable {
        code: "busy",
        message: message.into(),
        retry_after: BUSY_RETRY,
        source: None,
    }
}

fn check_question(app: &App, question: String) -> Result<String> {
    let limit = app.config.chat.message_limit_chars;
    if question.trim().is_empty() {
        return Err(Error::invalid(
            "message_empty",
            "message",
            "the message is empty: ask something",
        ));
    }
    if question.chars().count() > limit {
        return Err(Error::invalid(
            "message_too_long",
            "message",
            format!("the message is longer than {limit} characters: shorten it"),
        ));
    }
    Ok(question)
}

/// Without a model, or without anything to tell it: the passages' own sentences, or the no-answer text. Refused where
/// nothing was found for want of a part of the search: nobody knows then that nothing is known.
pub(super) async fn answer_at_once(mut turn: Turn) -> Result<RunningTurn> {
    let passages = std::mem::take(&mut turn.passages);
    let (text, citations, source) = match extractive::extract(&turn.question, &passages) {
        Some(extract) => (extract.text, extract.citations, AnswerSource::Extractive),
        None => {
            if let Some(doubt) = degraded::doubt(&turn.degraded) {
                turn.book_refused().await?;
                return Err(doubt);
            }
            (
                turn.chatbot.settings.no_answer_text.clone(),
                Vec::new(),
                AnswerSource::NoAnswer,
            )
        }
    };
    let embedding = turn.embedding_event();
    let usage = turn_usage([embedding.as_ref(), turn.reranked.as_ref()]);
    let answer = turn.answer(text, citations, source, usage);
    let mut write = turn.app.db.write(turn.reach.tenant_id).await?;
    turn.save(&mut write, &answer, MessageState::Complete, None)
        .await?;
    let events: Vec<UsageEvent> = embedding.into_iter().collect();
    usage::settle(
        &mut write,
        turn.reach.tenant_id,
        turn.chatbot.id,
        turn.hold.reservation().cloned(),
        &events,
        turn.app.clock.now(),
    )
    .await?;
    turn.commit(write).await?;
    turn.hold.close();
    count_turn(source, "complete");

    let (sender, events) = mpsc::channel(answer.citations.len() + 2);
    for citation in &answer.citations {
        let _ = sender.try_send(TurnEvent::Citation(Box::new(citation.clone())));
    }
    let _ = sender.try_send(TurnEvent::Delta(answer.answer.clone()));
    let _ = sender.try_send(TurnEvent::End(Box::new(answer)));
    Ok(RunningTurn::new(turn.opening, events, CancellationToken::new()))
}

impl Turn {
    /// Looks for what may answer the question, and keeps what has to do with it.
    async fn find_passages(&mut self, query: &Query, cuts: Vec<CutId>, limits: &Limits) -> Result<()> {
        let settings = &self.chatbot.settings;
        let threshold = Threshold::of_similarity(settings.min_similarity as f32);
        let search = Search {
            chatbot_id: self.chatbot.id,
            cuts,
            query,
            embedded: &self.embedded,
            limit: usize::try_from(settings.max_passages).unwrap_or(1),
            filter: SearchFilter {
                audience: Audience::Groups(self.groups.clone()),
                without_repetitions: settings.search.leave_out_repetitions,
                ..SearchFilter::default()
            },
            settings: &settings.search,
            threshold,
            said: None,
            payer: Payer {
                limits,
                channel: self.channel,
                conversation_id: self.opening.conversation_id,
                message_id: self.opening.message_id,
            },
            // A test set measures what the index finds.
            reads_rows: self.channel != Purpose::Eval.channel(),
        };
        let found = knowledge::search_sources(&self.app, self.reach, search, &mut Trace::default()).await?;
        self.degraded = found.degraded;
        self.reranked = found.reranked;
        self.passages = knowledge::keep_relevant(found.passages, threshold);
        Ok(())
    }

    /// Adds what stands around the passages, where the owner wants that in prompts.
    async fn add_context(&mut self) -> Result<()> {
        let most_tokens = usize::try_from(self.chatbot.settings.search.context_tokens).unwrap_or_default();
        if most_tokens == 0 {
            return Ok(());
        }
        let audience = Audience::Groups(self.groups.clone());
        let found = &self.passages;
        let around = knowledge::around(
            &self.app,
            self.reach,
            self.chatbot.id,
            &audience,
            found,
            most_tokens,
        )
        .await?;
        self.passages.extend(around);
        Ok(())
    }

    pub(super) fn answer(
        &self,
        text: String,
        citations: Vec<Citation>,
        source: AnswerSource,
        usage: TurnUsage,
    ) -> Answer {
        Answer {
            conversation_id: self.opening.conversation_id,
            message_id: self.opening.message_id,
            answer: text,
            citations,
            usage,
            source,
            degraded: self.degraded.clone(),
        }
    }

    /// The ledger's line for embedding the question; none when nothing was embedded.
    pub(super) fn embedding_event(&self) -> Option<UsageEvent> {
        let holders = (self.reach.tenant_id, self.chatbot.id);
        let mut event = self
            .embedded
            .event(&self.app, holders, self.channel, &self.hold)?;
        (event.conversation_id, event.message_id) = (self.opening.conversation_id, self.opening.message_id);
        Some(event)
    }

    /// Books what was spent on a turn that is refused after all.
    pub(super) async fn book_refused(&mut self) -> Result<()> {
        self.embedded
            .book(
                &self.app,
                (self.reach.tenant_id, self.chatbot.id),
                self.channel,
                &mut self.hold,
            )
            .await
    }

    /// The ledger's line for a call of this turn to a model that writes, without figures yet.
    pub(super) fn usage_event(&self, model: &str) -> UsageEvent {
        let holders = (self.reach.tenant_id, self.chatbot.id);
        UsageEvent {
            conversation_id: self.opening.conversation_id,
            message_id: self.opening.message_id,
            ..UsageEvent::of(&self.app, holders, self.channel, UsageKind::Chat, model)
        }
    }
}

/// What the calls of a turn took together.
pub(super) fn turn_usage<'a>(calls: impl IntoIterator<Item = Option<&'a UsageEvent>>) -> TurnUsage {
    let mut usage = TurnUsage::default();
    for event in calls.into_iter().flatten() {
        usage.prompt_tokens = usage.prompt_tokens.saturating_add(event.prompt_tokens);
        usage.completion_tokens = usage.completion_tokens.saturating_add(event.completion_tokens);
        usage.embedding_tokens = usage.embedding_tokens.saturating_add(event.embedding_tokens);
        usage.cost_micro_usd = usage.cost_micro_usd.saturating_add(event.cost_micro_usd);
    }
    usage
}

pub(super) fn count_turn(source: AnswerSource, result: &'static str) {
    metrics::counter!("frontdesk_turns_total", "source" => source.name(), "result" => result).increment(1);
}
