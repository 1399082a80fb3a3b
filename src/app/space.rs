//! Embedding models, each with the index of its vectors: the one that the configuration names, and those that tenants are
//! still answered with. Model and index come in one piece, so no question is compared with vectors of another model.
//!
//! A model is remembered in the database (`remembered`), so that it can be loaded again when the configuration names another
//! one. Where that fails, its index still finds by words, and it is tried again. So is an index that does not open: until it
//! does, questions go on without it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use retrieval::embed::Embedder;
use retrieval::index::{Index, IndexError};

use super::background::ModelBackground;
use super::denial::Denial;
use super::makings::{self, Standing};
use super::remembered::{self, SpaceRow};
use super::unopened::UnopenedIndex;
use super::{Purpose, StartError, embedder, index};
use crate::config::{Config, IndexBackend};
use crate::db::{Db, Scope};
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::rest::SharedRest;

/// A model that could not be loaded is tried again after so many seconds.
const LOAD_AGAIN_S: i64 = 60;

/// The same of an index that does not open.
const OPEN_AGAIN_S: i64 = 10;

/// The code of errors that leave work to processes which have the index that documents are put into.
pub const INDEX_OF_ANOTHER: &str = "index_of_another_release";

/// When work is tried again that another release of the service has the index for: that one may have done it.
const ANOTHER_RELEASE_RETRY: Duration = Duration::from_secs(15);

/// The same of a document, which may be read anew each time before it is known to be large.
const DOCUMENT_RETRY: Duration = Duration::from_secs(10 * 60);

/// An embedding model with the index of its vectors.
pub struct Space {
    /// Model, what tells it from others of its name, and length of its vectors.
    pub name: String,
    /// None: words alone.
    pub model: Option<String>,
    pub dimension: Option<usize>,
    /// None although there is a model: it cannot be loaded, and words alone are compared.
    pub embedder: Option<Arc<dyn Embedder>>,
    pub index: Arc<dyn Index>,
    /// False: the index does not open, and everything asked of it fails.
    pub is_open: bool,
    /// The index lies in the database of the rows.
    is_with_rows: bool,
    /// The index is on a server, where other processes may have another one.
    pub(super) is_on_server: bool,
    /// A start asked for it to be noted, and it did not open.
    pub(super) waits_to_be_noted: AtomicBool,
    /// Embeddings are bought from someone, and so count to a tenant's budget.
    pub is_remote: bool,
    /// The last question got no vector.
    pub is_failing: AtomicBool,
    /// Whether the model's server lets us ask.
    pub denial: Denial,
    /// Whether questions ask the model's server at present.
    pub rest: SharedRest,
    /// The same of the index.
    pub index_rest: SharedRest,
    /// What tells the model from others of its name.
    pub(super) fingerprint: Option<String>,
    background: ModelBackground,
    /// When its model was last tried to be loaded; none: only its index was needed so far.
    tried_at: Option<DateTime<Utc>>,
    /// When its index was opened, or failed to.
    opened_at: DateTime<Utc>,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl Space {
    /// The model, where embeddings are bought.
    pub fn bought_model(&self) -> Option<&str> {
        self.model.as_deref().filter(|_| self.is_remote)
    }

    /// How near unrelated texts are to the model; none: there is no model, or nobody knows yet.
    pub async fn unrelated(&self, db: &Db, now: DateTime<Utc>) -> Option<f32> {
        let embedder = self.embedder.as_deref()?;
        self.background
            .get(embedder, self.is_remote.then_some((db, self.name.as_str())), now)
            .await
    }

    /// The index, by its name, where it is changed by the very transactions that change the rows.
    pub fn index_with_rows(&self) -> Option<(&str, &Arc<dyn Index>)> {
        let is_with_rows = self.is_with_rows && self.index.within_transactions().is_some();
        is_with_rows.then_some((self.name.as_str(), &self.index))
    }

    /// Whether the index may lack something of the tenant's, when `noted` is the making that documents were put into. One that is
    /// not open lacks nothing; it does not answer.
    pub fn has_lost(&self, tenant_id: TenantId, noted: Option<&str>) -> bool {
        let is_open = self.index.generation().is_some();
        noted.is_some_and(|noted| is_open && self.index.has_lost(retrieval::TenantId(tenant_id.0), noted))
    }

    /// Whether this process has another making of the index than `noted`, which documents are put into: another release of the service
    /// has that one, or another configuration.
    pub fn is_of_another_making(&self, noted: Option<&str>) -> bool {
        let own = self.index.generation().filter(|_| self.is_on_server);
        own.is_some() && noted.is_some() && own.as_deref() != noted
    }

    /// Leaves work on what documents are put into to processes that have it: no attempt counts.
    pub fn check_making(&self, noted: Option<&str>) -> Result<()> {
        self.check_making_or_wait(noted, ANOTHER_RELEASE_RETRY)
    }

    /// The same of a document that is to be indexed: it is tried again later than other work.
    pub fn check_making_for_document(&self, noted: Option<&str>) -> Result<()> {
        self.check_making_or_wait(noted, DOCUMENT_RETRY)
    }

    fn check_making_or_wait(&self, noted: Option<&str>, retry_after: Duration) -> Result<()> {
        if !self.is_of_another_making(noted) {
            return Ok(());
        }
        Err(Error::Unavailable {
            code: INDEX_OF_ANOTHER,
            message: "documents are put into an index that another release of the service has, or another configuration: this is left to it".into(),
            retry_after,
            source: None,
        })
    }

    /// Whether there is a model that is not loaded.
    pub fn lacks_model(&self) -> bool {
        self.model.is_some() && self.embedder.is_none()
    }

    /// Whether its index did not open, and is to be tried again now.
    fn is_due_to_open(&self, now: DateTime<Utc>) -> bool {
        !self.is_open && now - self.opened_at >= TimeDelta::seconds(OPEN_AGAIN_S)
    }

    /// Whether its model is to be tried now, and whether for the first time.
    fn is_due(&self, now: DateTime<Utc>) -> Option<Due> {
        if !self.lacks_model() {
            return None;
        }
        match self.tried_at {
            None => Some(Due::First),
            Some(tried_at) if now - tried_at >= TimeDelta::seconds(LOAD_AGAIN_S) => Some(Due::Again),
            Some(_) => None,
        }
    }
}

/// Why a model is loaded.
#[derive(PartialEq)]
enum Due {
    /// Whoever needs it waits.
    First,
    /// One of those who need it tries, and the others go on without it.
    Again,
}

/// Puts something around an index, for tests.
pub type AroundIndex = Box<dyn FnOnce(Arc<dyn Index>) -> Arc<dyn Index> + Send>;

/// All spaces that this process has open.
pub struct Spaces {
    /// The name of the one that the configuration names.
    wanted: String,
    open: RwLock<HashMap<String, Arc<Space>>>,
    /// By their names; held while one is opened, or its model loaded.
    opening: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Nothing that is found out about them is kept but by the service.
    purpose: Purpose,
    /// Embedders that go before what can be loaded, for tests.
    given: Vec<Arc<dyn Embedder>>,
}

impl Spaces {
    /// Opens what the configuration names.
    pub(super) async fn open(
        config: &Config,
        db: &Db,
        embedder: Option<Arc<dyn Embedder>>,
        given: Vec<Arc<dyn Embedder>>,
        around: Option<AroundIndex>,
        (purpose, now): (Purpose, DateTime<Utc>),
    ) -> Result<Self, StartError> {
        let settings = &config.embedding;
        let not_looked_up =
            |error| StartError::Failed(format!("cannot look up the embedding model: {error}"));
        let name = remembered::name_of(config, db, embedder.as_deref())
            .await
            .map_err(not_looked_up)?;
        let dimension = embedder.as_deref().map(Embedder::dimension);
        let model_in_index = remembered::model_in_index(&name, dimension);
        let was_made = makings::was_made(db, &name).await.map_err(not_looked_up)?;
        let opened = index::open(config, model_in_index, dimension, (purpose, was_made)).await?;
        let is_open = opened.is_ok();
        let index = match opened {
            Ok(index) => index,
            Err(error) if purpose.is_service() && index::may_come_back(config, &error) => {
                unopened(&name, &error)
            }
            Err(error) => return Err(index::start_error(error)),
        };
        let wanted = Arc::new(Space {
            is_open,
            is_with_rows: config.index_is_with_rows(),
            is_on_server: config.index.backend != IndexBackend::Embedded,
            opened_at: now,
            waits_to_be_noted: AtomicBool::new(false),
            index: match around {
                Some(around) => around(index),
                None => index,
            },
            name,
            is_remote: embedder.is_some() && settings.is_remote(),
            model: embedder.as_ref().map(|embedder| embedder.model_id().to_owned()),
            dimension,
            fingerprint: embedder
                .as_deref()
                .and_then(|embedder| remembered::fingerprint(embedder, settings)),
            background: ModelBackground::default(),
            embedder,
            is_failing: AtomicBool::new(false),
            denial: Denial::default(),
            rest: SharedRest::default(),
            index_rest: SharedRest::default(),
            tried_at: None,
        });
        Ok(Self {
            wanted: wanted.name.clone(),
            open: RwLock::new(HashMap::from([(wanted.name.clone(), wanted)])),
            opening: Mutex::default(),
            purpose,
            given,
        })
    }

    /// The one that the configuration names.
    pub fn wanted(&self) -> Arc<Space> {
        self.find(&self.wanted)
            .expect("it is put in at the start, and none is taken out")
    }

    /// The space of this name, opened if need be, with its model if that can be loaded.
    pub async fn get(&self, config: &Config, db: &Db, name: &str, now: DateTime<Utc>) -> Result<Arc<Space>> {
        let present = self.find(name);
        let due = present.as_ref().map(|space| space.is_due(now));
        if let (Some(space), Some(None)) = (&present, &due) {
            return Ok(space.clone());
        }
        let opening = self.opening_of(name);
        let _opening = match (present, due) {
            (Some(space), Some(Some(Due::Again))) => match opening.try_lock() {
                Ok(opening) => opening,
                Err(_) => return Ok(space),
            },
            _ => opening.lock().await,
        };
        let space = match self.find(name) {
            Some(space) => space,
            None => self.recall(config, db, name, (None, now)).await?,
        };
        match space.is_due(now) {
            None => Ok(space),
            Some(_) => self.load_into(config, db, &space, now).await,
        }
    }

    /// The space of this name for the sake of its index: its model need not be loaded.
    pub async fn get_for_index(
        &self,
        config: &Config,
        db: &Db,
        name: &str,
        now: DateTime<Utc>,
    ) -> Result<Arc<Space>> {
        if let Some(space) = self.find(name) {
            return Ok(space);
        }
        let opening = self.opening_of(name);
        let _opening = opening.lock().await;
        match self.find(name) {
            Some(space) => Ok(space),
            None => self.recall(config, db, name, (None, now)).await,
        }
    }

    /// Whether the index of this space did not open, and is to be tried again now by [`Spaces::reopen`].
    pub(super) fn is_due_to_open(&self, name: &str, now: DateTime<Utc>) -> bool {
        self.find(name).is_some_and(|space| space.is_due_to_open(now))
    }

    /// Tries once more to open an index that did not open, unless somebody does.
    pub(super) async fn reopen(
        &self,
        config: &Config,
        db: &Db,
        name: &str,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let opening = self.opening_of(name);
        let Ok(_opening) = opening.try_lock() else {
            return Ok(());
        };
        let Some(space) = self.find(name).filter(|space| space.is_due_to_open(now)) else {
            return Ok(());
        };
        let mut config = config.clone();
        // The next look comes soon enough.
        config.index.qdrant.start_timeout_s = 0;
        let reopened = self
            .recall(&config, db, name, (Some(space.as_ref()), now))
            .await?;
        if reopened.is_open {
            tracing::info!(space = name, "an index that did not open is open");
        }
        Ok(())
    }

    fn opening_of(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        opening.entry(name.to_owned()).or_default().clone()
    }

    fn find(&self, name: &str) -> Option<Arc<Space>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(name).cloned()
    }

    fn put(&self, space: Space) -> Arc<Space> {
        let space = Arc::new(space);
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(space.name.clone(), space.clone());
        space
    }

    /// Those whose index is on a server that answered when it was opened.
    pub(crate) fn list_on_servers(&self) -> Vec<Arc<Space>> {
        let mut spaces = self.all();
        spaces.retain(|space| space.is_on_server && space.is_open);
        spaces
    }

    fn all(&self) -> Vec<Arc<Space>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.values().cloned().collect()
    }

    /// Opens a space by what is remembered of it, as yet without its model, unless it had one before. Whoever needs its index
    /// goes on without it where that does not open.
    async fn recall(
        &self,
        config: &Config,
        db: &Db,
        name: &str,
        (before, now): (Option<&Space>, DateTime<Utc>),
    ) -> Result<Arc<Space>> {
        let row = find_row(db, name).await?;
        let dimension = row.dimension();
        let model_in_index = remembered::model_in_index(name, dimension);
        let was_made = makings::was_made(db, name).await?;
        let opened = index::open(config, model_in_index, dimension, (self.purpose, was_made))
            .await
            .map_err(Error::internal)?;
        let is_open = opened.is_ok();
        let index = opened.unwrap_or_else(|error| unopened(name, &error));
        let settings = row.settings.settings(&config.embedding);
        let space = Space {
            name: name.to_owned(),
            is_remote: row.model.is_some() && settings.is_remote(),
            model: row.model,
            dimension,
            embedder: before.and_then(|before| before.embedder.clone()),
            index,
            is_open,
            is_with_rows: config.index_is_with_rows(),
            is_on_server: config.index.backend != IndexBackend::Embedded,
            is_failing: AtomicBool::new(false),
            denial: Denial::default(),
            rest: SharedRest::default(),
            index_rest: SharedRest::default(),
            fingerprint: row.fingerprint,
            background: ModelBackground::default(),
            tried_at: before.and_then(|before| before.tried_at),
            opened_at: now,
            waits_to_be_noted: AtomicBool::new(false),
        };
        if self.purpose.is_service() {
            let standing = self.standing(&space);
            // One that nobody started with is opened whenever somebody asks: that is no reason to take another process' place.
            let is_started_with = name == self.wanted
                || before.is_some_and(|before| before.waits_to_be_noted.load(Ordering::Relaxed));
            if !space.is_on_server || (is_started_with && standing == Standing::Fills) {
                makings::note(db, &space, now).await?;
            } else {
                makings::look_at(db, &space, standing, now).await?;
            }
        }
        Ok(self.put(space))
    }

    /// What this process can do for the index of a space.
    pub(super) fn standing(&self, space: &Space) -> Standing {
        match self.purpose {
            Purpose::Answer => Standing::Answers,
            _ if space.lacks_model() => Standing::Works,
            _ => Standing::Fills,
        }
    }

    /// The space with its model, if that can be loaded.
    async fn load_into(
        &self,
        config: &Config,
        db: &Db,
        space: &Space,
        now: DateTime<Utc>,
    ) -> Result<Arc<Space>> {
        let row = find_row(db, &space.name).await?;
        let embedder = self.load(config, &row).await;
        let settings = row.settings.settings(&config.embedding);
        let fingerprint = match (&row.fingerprint, embedder.as_deref()) {
            (None, Some(embedder)) => remembered::fingerprint(embedder, &settings),
            (known, _) => known.clone(),
        };
        let loaded = Space {
            name: space.name.clone(),
            model: space.model.clone(),
            dimension: space.dimension,
            embedder,
            index: space.index.clone(),
            is_open: space.is_open,
            is_with_rows: space.is_with_rows,
            is_on_server: space.is_on_server,
            opened_at: space.opened_at,
            waits_to_be_noted: AtomicBool::new(space.waits_to_be_noted.load(Ordering::Relaxed)),
            is_remote: space.is_remote,
            is_failing: AtomicBool::new(false),
            denial: Denial::default(),
            rest: SharedRest::default(),
            index_rest: SharedRest::default(),
            fingerprint,
            background: ModelBackground::default(),
            tried_at: Some(now),
        };
        if row.fingerprint != loaded.fingerprint && self.purpose.is_service() {
            remembered::note_fingerprint(db, &loaded).await?;
        }
        if loaded.embedder.is_some() {
            tracing::info!(
                space = loaded.name,
                "an embedding model besides the configured one is loaded for tenants that it answers"
            );
        }
        Ok(self.put(loaded))
    }

    /// The model of a row; none where it cannot be loaded, or what is there under its name is another one.
    async fn load(&self, config: &Config, row: &SpaceRow) -> Option<Arc<dyn Embedder>> {
        let model = row.model.as_deref()?;
        let settings = row.settings.settings(&config.embedding);
        let is_it = |embedder: &Arc<dyn Embedder>| {
            let same_weights = || remembered::fingerprint(embedder.as_ref(), &settings) == row.fingerprint;
            embedder.model_id() == model
                && Some(embedder.dimension()) == row.dimension()
                && (row.fingerprint.is_none() || same_weights())
        };
        if let Some(given) = self.given.iter().find(|given| is_it(given)) {
            return Some(given.clone());
        }
        let told = "tenants that it answers are answered by words alone, and it is tried again";
        if settings.is_remote() && row.settings.has_key && settings.api_key.is_empty() {
            tracing::error!(
                model,
                "the key of an embedding server that is not the configured one is not known here: {told}"
            );
            return None;
        }
        let remembered = Config {
            embedding: settings.clone(),
            ..config.clone()
        };
        match embedder::load(&remembered).await {
            Ok(Some(loaded)) if is_it(&loaded) => Some(loaded),
            Ok(Some(_)) => {
                tracing::error!(model, folder = %settings.model_dir.display(), "the embedding model there is not the one that tenants are answered with: {told}");
                None
            }
            Ok(None) => None,
            Err(error) => {
                tracing::error!(%error, model, "an embedding model cannot be loaded: {told}");
                None
            }
        }
    }

    /// Whether all indexes answer, but for those of other models that never opened: whom they answer is not everybody.
    pub async fn check(&self) -> Result<(), IndexError> {
        let counts = |space: &Arc<Space>| space.is_open || space.name == self.wanted;
        for space in self.all().into_iter().filter(counts) {
            space.index.check().await?;
        }
        Ok(())
    }

    /// Whether some of their indexes is known not to be what was written.
    pub async fn are_damaged(&self) -> Result<bool, IndexError> {
        for space in self.all().into_iter().filter(|space| space.is_open) {
            if space.index.is_damaged().await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What of their indexes is not what was written, as far as that can be told by reading all of it.
    pub async fn find_damage(&self) -> Result<Vec<String>, IndexError> {
        let mut damage = Vec::new();
        for space in self.all().into_iter().filter(|space| space.is_open) {
            damage.extend(space.index.find_damage().await?);
        }
        Ok(damage)
    }

    pub(super) async fn close(&self) {
        for space in self.all() {
            if let Err(error) = space.index.close().await {
                tracing::error!(error = ?error, space = space.name, "cannot close the index");
            }
        }
    }
}

/// Stands for an index that does not open.
fn unopened(name: &str, error: &IndexError) -> Arc<dyn Index> {
    tracing::error!(error = ?error, space = name, "an index that tenants are answered from does not open: they are answered from the words of the rows, and it is tried again");
    Arc::new(UnopenedIndex::new(error.to_string()))
}

async fn find_row(db: &Db, name: &str) -> Result<SpaceRow> {
    let mut conn = db.read(Scope::Operator).await?;
    let row = remembered::find(&mut conn, name).await?;
    row.ok_or_else(|| Error::internal(format!("no embedding model is remembered as {name:?}")))
}
