//! Sources as their owners see them: what is read, on which schedule, how the last run went.
//!
//! The reading itself is [`super::sync`]'s.

mod connection;
mod events;
pub(super) mod exclusions;
mod exclusions_routes;
mod fields;
mod input;
mod kind;
pub mod operator;
mod orders;
mod push;
mod push_routes;
pub mod routes;
pub mod schedule;
pub mod secrets;
pub mod settings;
pub mod store;
mod view;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use self::fields::WebsiteInput;
use self::input::SettingsInput;
use self::orders::begin_run;
use super::chunks::{self, Chunking};
use super::deletion;
use super::labels::{self, LabelsChange};
use super::sync::{self, Cause, SyncRun};
use super::{Document, Labels};
use crate::app::App;
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::generations::By;
use crate::http::access::{Actor, Reach};
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, SourceId, TenantId};
use crate::tenancy::audit::{self, Change, Origin};
use crate::{chatbots, tenancy};

pub use kind::{SourceKind, SourceState};
pub use schedule::Schedule;
pub use secrets::Secrets;
pub use settings::Settings;

/// What documents come from.
#[derive(Clone, Debug)]
pub struct Source {
    pub id: SourceId,
    pub tenant_id: TenantId,
    pub chatbot_id: ChatbotId,
    pub name: String,
    pub settings: Settings,
    pub state: SourceState,
    /// How its documents are cut; none: as everywhere.
    pub chunking: Option<Chunking>,
    /// What holds for documents that say nothing of their own.
    pub labels: Labels,
    /// None: read on request only.
    pub schedule: Option<Schedule>,
    pub next_run_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// See [`Source::secrets`].
    sealed: Option<String>,
}

impl Source {
    /// What it is.
    pub fn kind(&self) -> SourceKind {
        self.settings.kind()
    }

    /// Its secrets, opened. They go to the source's own origins and nowhere else.
    pub fn secrets(&self, app: &App) -> Result<Secrets> {
        Secrets::open(&app.keyring, self.tenant_id, self.id, self.sealed.as_deref())
    }

    /// What the audit log says of it.
    fn describe(&self) -> Result<Value> {
        Ok(json!({
            "chatbot_id": self.chatbot_id,
            "kind": self.kind(),
            "name": self.name,
            "settings": self.settings.to_json()?,
            "schedule": self.schedule,
            "chunking": self.chunking,
            "tags": self.labels.tags,
            "access_groups": self.labels.access_groups,
        }))
    }
}

/// What an owner wants of a new source.
struct NewSource {
    kind: SourceKind,
    name: Option<String>,
    schedule: Option<Schedule>,
    chunking: Option<Chunking>,
    labels: Labels,
    settings: SettingsInput,
}

/// What an owner changes of a source; what is left out stays.
struct SourceChange {
    name: Option<String>,
    /// `Some(None)`: it is read on request only from now on.
    schedule: Option<Option<Schedule>>,
    /// `Some(None)`: its documents are cut as everywhere from now on.
    chunking: Option<Option<Chunking>>,
    labels: LabelsChange,
    settings: SettingsInput,
}

/// Makes a source, and queues its first run where it is read by runs.
async fn create(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    new: NewSource,
    actor: &Actor,
    origin: &Origin,
) -> Result<Source> {
    reach.check_chatbot(chatbot_id)?;
    let mut write = app.db.write(reach.tenant_id).await?;
    let (source, _) = create_in(app, &mut write, reach, chatbot_id, new, actor, origin).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(source)
}

/// The short way in: the chatbot's source of this website, made where there is none, with a run over it. Where one is
/// under way, that one.
async fn crawl(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    website: WebsiteInput,
    actor: &Actor,
    origin: &Origin,
) -> Result<(Source, SyncRun)> {
    let address = website.url.as_deref().unwrap_or_default();
    let url = input::read_url(app, address, "url")?;
    let settings = SettingsInput {
        website: Some(website),
        ..SettingsInput::default()
    };
    reach.check_chatbot(chatbot_id)?;
    let mut write = app.db.write(reach.tenant_id).await?;
    // Asked twice at once, it makes one source.
    super::store::hold_upload_source(&mut write, reach.tenant_id, chatbot_id)
        .await?
        .ok_or(Error::NotFound("chatbot"))?;
    let known = store::find_website(&mut write, reach.tenant_id, chatbot_id, &url).await?;
    let (source, run) = match known {
        None => {
            let new = NewSource {
                kind: SourceKind::Website,
                name: None,
                schedule: None,
                chunking: None,
                labels: Labels::default(),
                settings,
            };
            create_in(app, &mut write, reach, chatbot_id, new, actor, origin).await?
        }
        Some(known) => {
            let change = SourceChange {
                name: None,
                schedule: None,
                chunking: None,
                labels: LabelsChange::default(),
                settings,
            };
            let source = change_in(app, &mut write, reach, known, change, actor, origin).await?;
            (source, None)
        }
    };
    let run = match run {
        Some(run) => run,
        None => match sync::find_last_run(&mut write, reach.tenant_id, source.id).await? {
            Some(run) if run.ended_at.is_none() => run,
            _ => begin_run(app, &mut write, &source, Cause::Request.into(), actor, origin).await?,
        },
    };
    // Read again: the request changed the source's state.
    let source = find(&mut write, reach, source.id).await?;
    write.commit().await?;
    app.wake_workers();
    Ok((source, run))
}

async fn create_in(
    app: &App,
    write: &mut Write,
    reach: Reach,
    chatbot_id: ChatbotId,
    new: NewSource,
    actor: &Actor,
    origin: &Origin,
) -> Result<(Source, Option<SyncRun>)> {
    app.disk.check_room()?;
    let now = app.clock.now();
    let (settings, secrets) = new.settings.make(app, new.kind)?;
    connection::check(None, &settings, actor)?;
    let name = new.name.unwrap_or_else(|| settings.usual_name());
    tenancy::check_name(&name, "name")?;
    let id = SourceId::new();
    let next_run_at = next_run_at(new.kind, new.schedule.as_ref(), id, now)?;
    // Until the transaction ends, nobody else makes a source of this chatbot.
    super::store::hold_upload_source(write, reach.tenant_id, chatbot_id)
        .await?
        .ok_or(Error::NotFound("chatbot"))?;
    if store::count(write, reach.tenant_id, chatbot_id).await? >= app.config.limits.sources_per_chatbot {
        return Err(Error::conflict(
            "too_many_sources",
            "this chatbot has as many sources as it may have: delete one first",
        ));
    }
    let source = Source {
        id,
        tenant_id: reach.tenant_id,
        chatbot_id,
        name,
        state: SourceState::Idle,
        chunking: new.chunking,
        labels: new.labels.checked()?,
        schedule: new.schedule,
        next_run_at,
        created_at: now,
        updated_at: now,
        sealed: secrets.seal(&app.keyring, reach.tenant_id, id)?,
        settings,
    };
    store::insert(write, &source).await?;
    if let Some(chunking) = &source.chunking {
        let by = By::Caller(actor, origin);
        chunks::set_chunking(app, write, reach.tenant_id, id, chunking, by).await?;
    }
    record(
        app,
        write,
        &source,
        "source.create",
        (None, Some(source.describe()?)),
        actor,
        origin,
    )
    .await?;
    if !new.kind.is_synced() {
        return Ok((source, None));
    }
    let run = sync::request(app, write, reach.tenant_id, id, Cause::Created).await?;
    // The request changed the source's state.
    let source = find(write, reach, id).await?;
    Ok((source, Some(run)))
}

async fn update(
    app: &App,
    reach: Reach,
    id: SourceId,
    change: SourceChange,
    actor: &Actor,
    origin: &Origin,
) -> Result<Source> {
    let mut write = app.db.write(reach.tenant_id).await?;
    let source = hold(&mut write, reach, id).await?;
    let source = change_in(app, &mut write, reach, source, change, actor, origin).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(source)
}

async fn change_in(
    app: &App,
    write: &mut Write,
    reach: Reach,
    mut source: Source,
    change: SourceChange,
    actor: &Actor,
    origin: &Origin,
) -> Result<Source> {
    let now = app.clock.now();
    let before = source.describe()?;
    // What cannot be opened any more can still be replaced.
    let secrets_before = source.secrets(app).unwrap_or_default();
    let mut secrets = secrets_before.clone();
    let settings_before = source.settings.clone();
    change.settings.change(app, &mut source.settings, &mut secrets)?;
    connection::check(Some(&settings_before), &source.settings, actor)?;
    if let Some(name) = change.name {
        tenancy::check_name(&name, "name")?;
        source.name = name;
    }
    if let Some(schedule) = change.schedule {
        source.next_run_at = next_run_at(source.kind(), schedule.as_ref(), source.id, now)?;
        source.schedule = schedule;
    }
    if let Some(chunking) = change.chunking {
        let wanted = chunking.clone().unwrap_or_default();
        let by = By::Caller(actor, origin);
        chunks::set_chunking(app, write, reach.tenant_id, source.id, &wanted, by).await?;
        source.chunking = chunking;
    }
    let labels_before = source.labels.clone();
    source.labels.change(change.labels)?;
    let after = source.describe()?;
    if after == before && secrets == secrets_before {
        return Ok(source);
    }
    source.sealed = secrets.seal(&app.keyring, reach.tenant_id, source.id)?;
    source.updated_at = now;
    store::update(write, &source).await?;
    if source.labels != labels_before {
        labels::tell_of_source(app, write, reach.tenant_id, source.id).await?;
    }
    record(
        app,
        write,
        &source,
        "source.update",
        (Some(before), Some(after)),
        actor,
        origin,
    )
    .await?;
    Ok(source)
}

/// Deletes a source with its documents: gone for everybody at once, out of rows, index and files soon after.
async fn delete(app: &App, reach: Reach, id: SourceId, actor: &Actor, origin: &Origin) -> Result<()> {
    let mut write = app.db.write(reach.tenant_id).await?;
    let source = hold(&mut write, reach, id).await?;
    if source.kind() == SourceKind::Upload {
        return Err(Error::conflict(
            "upload_source_stays",
            "every chatbot has one source for uploaded files: delete its documents instead",
        ));
    }
    deletion::hide(app, &mut write, reach.tenant_id, id).await?;
    let rest = deletion::DeleteSource { source_id: id };
    crate::jobs::enqueue(app, &mut write, reach.tenant_id, &rest).await?;
    let before = source.describe()?;
    record(
        app,
        &mut write,
        &source,
        "source.delete",
        (Some(before), None),
        actor,
        origin,
    )
    .await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// A page of a chatbot's sources, newest first, with one more than the page when there is a next one.
async fn list(app: &App, reach: Reach, chatbot_id: ChatbotId, page: PageRequest) -> Result<Vec<Source>> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    chatbots::find(&mut conn, reach, chatbot_id).await?;
    store::list(&mut conn, reach.tenant_id, chatbot_id, page).await
}

/// A page of a source's documents, newest first, with one more than the page when there is a next one.
async fn list_documents(
    app: &App,
    reach: Reach,
    id: SourceId,
    state: Option<&str>,
    page: PageRequest,
) -> Result<Vec<Document>> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    find(&mut conn, reach, id).await?;
    super::store::list_of_source(&mut conn, reach.tenant_id, id, state, page).await
}

async fn find(conn: &mut Conn, reach: Reach, id: SourceId) -> Result<Source> {
    store::find(conn, reach, id)
        .await?
        .ok_or(Error::NotFound("source"))
}

/// The source, which nobody else changes until the transaction ends.
pub(crate) async fn hold(write: &mut Write, reach: Reach, id: SourceId) -> Result<Source> {
    store::hold(write, reach, id)
        .await?
        .ok_or(Error::NotFound("source"))
}

/// When a schedule fires first.
fn next_run_at(
    kind: SourceKind,
    schedule: Option<&Schedule>,
    id: SourceId,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>> {
    let Some(schedule) = schedule else { return Ok(None) };
    if !kind.is_synced() {
        return Err(Error::invalid(
            "invalid_schedule",
            "schedule",
            format!(
                "a source of kind {} is not read by itself: it takes no schedule",
                kind.name()
            ),
        ));
    }
    schedule.check(now)?;
    schedule.next_after(id, now)
}

/// Writes the audit line of a change to a source.
async fn record(
    app: &App,
    write: &mut Write,
    source: &Source,
    action: &'static str,
    (before, after): (Option<Value>, Option<Value>),
    actor: &Actor,
    origin: &Origin,
) -> Result<()> {
    let change = Change {
        action,
        object_kind: "source",
        object_id: source.id.to_string(),
        before,
        after,
    };
    audit::record(write, source.tenant_id, actor, origin, change, app.clock.now()).await
}
