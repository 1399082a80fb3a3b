//! Chatbots: a tenant's configured assistants, each with its own prompt, model, knowledge and limits.

pub mod deletion;
pub mod operator;
pub mod routes;
mod store;

use chrono::{DateTime, Utc};
use retrieval::confidence::{USUAL_PASSAGES, USUAL_SIMILARITY};
use serde_json::json;

use crate::app::App;
use crate::config;
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::http::access::{Actor, Reach};
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, SourceId, TenantId};
use crate::knowledge::SearchSettings;
use crate::tenancy::audit::{self, Change, Origin};
use crate::{jobs, knowledge, tenancy};

pub(crate) use store::ChatbotRow;

/// What a chatbot says when its knowledge holds no answer, unless its owner wrote something better.
pub const DEFAULT_NO_ANSWER: &str = "I could not find an answer to that in the information I have.";

/// Passages put into a prompt unless the owner chose otherwise.
pub const DEFAULT_MAX_PASSAGES: i64 = USUAL_PASSAGES as i64;

/// Similarity that a passage needs to count, unless the owner chose otherwise.
pub const DEFAULT_MIN_SIMILARITY: f64 = USUAL_SIMILARITY;

const MAX_PROMPT_CHARS: usize = 20_000;
const MAX_NO_ANSWER_CHARS: usize = 2_000;
const MAX_ORIGINS: usize = 50;

/// Deletions that other writers get in the way of are tried so often.
const DELETE_TRIES: usize = 3;

/// A configured assistant of a tenant.
#[derive(Clone, Debug)]
pub struct Chatbot {
    pub id: ChatbotId,
    pub tenant_id: TenantId,
    pub settings: Settings,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What an owner decides about a chatbot.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    /// Added to the built-in instructions: tone, role, rules.
    pub prompt: String,
    /// None: the installation's default model.
    pub model: Option<String>,
    /// 0 to 2; none: the model's own default.
    pub temperature: Option<f64>,
    pub no_answer_text: String,
    /// Passages put into a prompt, at most.
    pub max_passages: i64,
    /// Similarity, 0 to 1, that a passage needs to count; [`Threshold`](retrieval::confidence::Threshold) says how it is read.
    pub min_similarity: f64,
    /// How passages are chosen.
    pub search: SearchSettings,
    /// Sites whose pages may talk to this chatbot from a browser.
    pub allowed_origins: Vec<String>,
    /// Tokens of a month; none: unlimited.
    pub monthly_token_limit: Option<i64>,
    /// Cost of a month in micro-USD; none: unlimited.
    pub monthly_cost_limit_micro_usd: Option<i64>,
}

impl Settings {
    /// The settings of a chatbot of which only the name is given.
    pub fn named(name: String) -> Self {
        Self {
            name,
            prompt: String::new(),
            model: None,
            temperature: None,
            no_answer_text: DEFAULT_NO_ANSWER.to_owned(),
            max_passages: DEFAULT_MAX_PASSAGES,
            min_similarity: DEFAULT_MIN_SIMILARITY,
            search: SearchSettings::default(),
            allowed_origins: Vec::new(),
            monthly_token_limit: None,
            monthly_cost_limit_micro_usd: None,
        }
    }

    /// What must hold, whoever sets it.
    pub fn check(&self) -> Result<()> {
        tenancy::check_name(&self.name, "name")?;
        let too_long = |field: &str, limit: usize| {
            Error::invalid(
                "too_long",
                field,
                format!("{field} must have at most {limit} characters"),
            )
        };
        if self.prompt.chars().count() > MAX_PROMPT_CHARS {
            return Err(too_long("prompt", MAX_PROMPT_CHARS));
        }
        if self.no_answer_text.chars().count() > MAX_NO_ANSWER_CHARS {
            return Err(too_long("no_answer_text", MAX_NO_ANSWER_CHARS));
        }
        if self.no_answer_text.trim().is_empty() {
            return Err(Error::invalid(
                "invalid_no_answer_text",
                "no_answer_text",
                "no_answer_text must say something",
            ));
        }
        if let Some(model) = &self.model {
            tenancy::check_name(model, "model")?;
        }
        if self
            .temperature
            .is_some_and(|temperature| !(0.0..=2.0).contains(&temperature))
        {
            return Err(Error::invalid(
                "invalid_temperature",
                "temperature",
                "temperature must be 0 to 2, or null for the model's default",
            ));
        }
        if !(1..=20).contains(&self.max_passages) {
            return Err(Error::invalid(
                "invalid_max_passages",
                "max_passages",
                "max_passages must be 1 to 20",
            ));
        }
        if !(0.0..=1.0).contains(&self.min_similarity) {
            return Err(Error::invalid(
                "invalid_min_similarity",
                "min_similarity",
                "min_similarity must be 0 to 1",
            ));
        }
        self.search.check()?;
        if self.allowed_origins.len() > MAX_ORIGINS {
            return Err(Error::invalid(
                "invalid_origins",
                "allowed_origins",
                format!("at most {MAX_ORIGINS} origins"),
            ));
        }
        if let Some(origin) = self
            .allowed_origins
            .iter()
            .find(|origin| !config::is_origin(origin))
        {
            return Err(Error::invalid(
                "invalid_origins",
                "allowed_origins",
                format!("{origin:?} is not an origin such as https://www.example.com"),
            ));
        }
        tenancy::check_limit(self.monthly_token_limit, "monthly_token_limit")?;
        tenancy::check_limit(self.monthly_cost_limit_micro_usd, "monthly_cost_limit_micro_usd")
    }

    fn describe(&self) -> serde_json::Value {
        json!({
            "name": self.name,
            "prompt": self.prompt,
            "model": self.model,
            "temperature": self.temperature,
            "no_answer_text": self.no_answer_text,
            "max_passages": self.max_passages,
            "min_similarity": self.min_similarity,
            "search": self.search,
            "allowed_origins": self.allowed_origins,
            "monthly_token_limit": self.monthly_token_limit,
            "monthly_cost_limit_micro_usd": self.monthly_cost_limit_micro_usd,
        })
    }
}

/// Makes a chatbot, with the source that takes its uploaded files.
pub async fn create(
    app: &App,
    tenant_id: TenantId,
    settings: Settings,
    actor: &Actor,
    origin: &Origin,
) -> Result<Chatbot> {
    settings.check()?;
    app.disk.check_room()?;
    let now = app.clock.now();
    let chatbot = Chatbot {
        id: ChatbotId::new(),
        tenant_id,
        settings,
        created_at: now,
        updated_at: now,
    };
    let mut write = app.db.write(tenant_id).await?;
    let place = (tenant_id, chatbot.id);
    let search = &chatbot.settings.search;
    search
        .check_sources(&mut write, place, &SearchSettings::default())
        .await?;
    if store::count(&mut write, tenant_id).await? >= app.config.limits.chatbots_per_tenant {
        return Err(Error::conflict(
            "too_many_chatbots",
            "this tenant has as many chatbots as it may have: delete one first",
        ));
    }
    store::insert(&mut write, &chatbot).await?;
    knowledge::create_upload_source(&mut write, tenant_id, chatbot.id, SourceId::new(), now).await?;
    let change = Change {
        action: "chatbot.create",
        object_kind: "chatbot",
        object_id: chatbot.id.to_string(),
        before: None,
        after: Some(chatbot.settings.describe()),
    };
    audit::record(&mut write, tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    Ok(chatbot)
}

/// The chatbot with this id, within reach.
pub async fn get(app: &App, reach: Reach, id: ChatbotId) -> Result<Chatbot> {
    find(&mut app.db.read(reach.tenant_id).await?, reach, id).await
}

/// Like [`get`], on a connection that is open already.
pub async fn find(conn: &mut Conn, reach: Reach, id: ChatbotId) -> Result<Chatbot> {
    reach.check_chatbot(id)?;
    store::find(conn, reach.tenant_id, id)
        .await?
        .ok_or(Error::NotFound("chatbot"))
}

/// Fails when the tenant has no such chatbot.
pub async fn check_exists(conn: &mut Conn, tenant_id: TenantId, id: ChatbotId) -> Result<()> {
    store::find(conn, tenant_id, id)
        .await?
        .map(drop)
        .ok_or(Error::NotFound("chatbot"))
}

/// Keeps the chatbot from being deleted until the transaction ends, for rows that are to belong to it; absent ones are
/// an error.
pub async fn hold(write: &mut Write, tenant_id: TenantId, id: ChatbotId) -> Result<()> {
    if store::hold(write, tenant_id, id).await? {
        return Ok(());
    }
    Err(Error::NotFound("chatbot"))
}

/// A page of the chatbots within reach, newest first.
pub async fn list(app: &App, reach: Reach, page: PageRequest) -> Result<Vec<Chatbot>> {
    store::list(&mut app.db.read(reach.tenant_id).await?, reach, page).await
}

/// Changes a chatbot: `edit` turns its present settings into the new ones.
pub async fn update(
    app: &App,
    reach: Reach,
    id: ChatbotId,
    edit: impl FnOnce(&mut Settings),
    actor: &Actor,
    origin: &Origin,
) -> Result<Chatbot> {
    let now = app.clock.now();
    let mut write = app.db.write(reach.tenant_id).await?;
    let mut chatbot = find_for_update(&mut write, reach, id).await?;
    let (before, search_before) = (chatbot.settings.describe(), chatbot.settings.search.clone());
    edit(&mut chatbot.settings);
    chatbot.settings.check()?;
    let search = &chatbot.settings.search;
    search
        .check_sources(&mut write, (reach.tenant_id, id), &search_before)
        .await?;
    chatbot.updated_at = now;
    store::update(&mut write, &chatbot).await?;
    let change = Change {
        action: "chatbot.update",
        object_kind: "chatbot",
        object_id: id.to_string(),
        before: Some(before),
        after: Some(chatbot.settings.describe()),
    };
    audit::record(&mut write, reach.tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    Ok(chatbot)
}

/// Deletes a chatbot with its knowledge and conversations: gone for everybody at once, out of rows, index and files soon
/// after.
pub async fn delete(app: &App, reach: Reach, id: ChatbotId, actor: &Actor, origin: &Origin) -> Result<()> {
    for _ in 1..DELETE_TRIES {
        match try_delete(app, reach, id, actor, origin).await {
            // What is deleted with it was being written in another order.
            Err(error) if error.is_deadlock() => {}
            done => return done,
        }
    }
    try_delete(app, reach, id, actor, origin).await
}

async fn try_delete(app: &App, reach: Reach, id: ChatbotId, actor: &Actor, origin: &Origin) -> Result<()> {
    let now = app.clock.now();
    let mut write = app.db.write(reach.tenant_id).await?;
    // First, as all do who write below a source: whoever holds one needs the chatbot next.
    knowledge::hold_sources(&mut write, reach.tenant_id, id).await?;
    let chatbot = find_for_update(&mut write, reach, id).await?;
    knowledge::deletion::hide_all_of_chatbot(app, &mut write, reach.tenant_id, id).await?;
    tenancy::keys::delete_of_chatbot(&mut write, reach.tenant_id, id).await?;
    store::hide(&mut write, reach.tenant_id, id, now).await?;
    let rest = deletion::DeleteChatbot { chatbot_id: id };
    jobs::enqueue(app, &mut write, reach.tenant_id, &rest).await?;
    let change = Change {
        action: "chatbot.delete",
        object_kind: "chatbot",
        object_id: id.to_string(),
        before: Some(chatbot.settings.describe()),
        after: None,
    };
    audit::record(&mut write, reach.tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

async fn find_for_update(write: &mut Write, reach: Reach, id: ChatbotId) -> Result<Chatbot> {
    reach.check_chatbot(id)?;
    store::lock(write, reach.tenant_id, id).await?;
    store::find(write, reach.tenant_id, id)
        .await?
        .ok_or(Error::NotFound("chatbot"))
}
