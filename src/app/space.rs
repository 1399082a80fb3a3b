//! Embedding models, each with the index of its vectors: the one that the configuration names, and those that tenants are
//! still answered with. Model and index come in one piece, so no question is compared with vectors of another model.
//!
//! A model is remembered in the database without its secrets, so that it can be loaded again when the configuration names
//! another one. Where that fails, its index still finds by words.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use retrieval::embed::Embedder;
use retrieval::index::{Index, IndexError};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use super::{StartError, embedder, index};
use crate::config::{self, Config, EmbeddingBackend, EmbeddingPrecision, Secret};
use crate::db::{Db, Scope, Write};
use crate::error::{Error, Result};
use crate::on;

/// What the space of words alone is called. No model has a name without a length.
const WORDS_ALONE: &str = "words";

/// An embedding model with the index of its vectors.
pub struct Space {
    /// Model and length of its vectors.
    pub name: String,
    /// None: words alone.
    pub model: Option<String>,
    pub dimension: Option<usize>,
    /// None although there is a model: it cannot be loaded any more, and words alone are compared.
    pub embedder: Option<Arc<dyn Embedder>>,
    pub index: Arc<dyn Index>,
    /// Embeddings are bought from someone, and so count to a tenant's budget.
    pub is_remote: bool,
    /// The last question got no vector.
    pub is_failing: AtomicBool,
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
}

/// All spaces that this process has open.
pub struct Spaces {
    wanted: Arc<Space>,
    open: RwLock<HashMap<String, Arc<Space>>>,
    /// Held while one is opened.
    opening: tokio::sync::Mutex<()>,
    /// Embedders that go before what can be loaded, for tests.
    given: Vec<Arc<dyn Embedder>>,
}

/// What a space's row says.
#[derive(sqlx::FromRow)]
struct SpaceRow {
    model: Option<String>,
    dimension: Option<i64>,
    settings: Json<Remembered>,
}

/// The settings by which a model is loaded again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Remembered {
    backend: EmbeddingBackend,
    model_dir: PathBuf,
    precision: EmbeddingPrecision,
    query_prefix: String,
    document_prefix: String,
    base_url: String,
    model: String,
    dimension: usize,
    max_tokens: usize,
    batch_size: usize,
}

impl Spaces {
    /// Opens what the configuration names.
    pub(super) async fn open(
        config: &Config,
        embedder: Option<Arc<dyn Embedder>>,
        given: Vec<Arc<dyn Embedder>>,
    ) -> Result<Self, StartError> {
        let settings = &config.embedding;
        let model = embedder
            .as_ref()
            .map(|embedder| model_name(embedder.model_id(), settings));
        let dimension = embedder.as_deref().map(Embedder::dimension);
        let wanted = Arc::new(Space {
            name: space_name(model.as_deref(), dimension),
            index: index::open(config, model.as_deref(), dimension)
                .await?
                .map_err(index::start_error)?,
            is_remote: embedder.is_some() && settings.is_remote(),
            model: embedder.as_ref().map(|embedder| embedder.model_id().to_owned()),
            dimension,
            embedder,
            is_failing: AtomicBool::new(false),
        });
        Ok(Self {
            open: RwLock::new(HashMap::from([(wanted.name.clone(), wanted.clone())])),
            wanted,
            opening: tokio::sync::Mutex::default(),
            given,
        })
    }

    /// The one that the configuration names.
    pub fn wanted(&self) -> &Arc<Space> {
        &self.wanted
    }

    /// The space of this name, opened if need be.
    pub async fn get(&self, config: &Config, db: &Db, name: &str) -> Result<Arc<Space>> {
        if let Some(space) = self.find(name) {
            return Ok(space);
        }
        let _opening = self.opening.lock().await;
        if let Some(space) = self.find(name) {
            return Ok(space);
        }
        let space = Arc::new(self.recall(config, db, name).await?);
        note_making(db, &space).await?;
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), space.clone());
        Ok(space)
    }

    fn find(&self, name: &str) -> Option<Arc<Space>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(name).cloned()
    }

    fn all(&self) -> Vec<Arc<Space>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.values().cloned().collect()
    }

    /// Opens a space by what is remembered of it.
    async fn recall(&self, config: &Config, db: &Db, name: &str) -> Result<Space> {
        let mut conn = db.read(Scope::Operator).await?;
        let row: Option<SpaceRow> = on!(conn, c => sqlx::query_as("select model, dimension, settings from embedding_space where name = $1")
            .bind(name).fetch_optional(c).await)?;
        drop(conn);
        let row =
            row.ok_or_else(|| Error::internal(format!("no embedding model is remembered as {name:?}")))?;
        let settings = row.settings.0.settings(&config.embedding);
        let dimension = row.dimension.and_then(|length| usize::try_from(length).ok());
        let embedder = match &row.model {
            Some(model) => self.load(config, &settings, (model, dimension)).await,
            None => None,
        };
        let named = row.model.as_ref().map(|model| model_name(model, &settings));
        let index = index::open(config, named.as_deref(), dimension)
            .await
            .map_err(Error::internal)?
            .map_err(unavailable)?;
        tracing::info!(
            space = name,
            has_model = embedder.is_some(),
            "tenants are answered with an embedding model besides the configured one"
        );
        Ok(Space {
            name: name.to_owned(),
            is_remote: row.model.is_some() && settings.is_remote(),
            model: row.model,
            dimension,
            embedder,
            index,
            is_failing: AtomicBool::new(false),
        })
    }

    async fn load(
        &self,
        config: &Config,
        settings: &config::Embedding,
        (model, dimension): (&str, Option<usize>),
    ) -> Option<Arc<dyn Embedder>> {
        let is_it = |embedder: &Arc<dyn Embedder>| {
            embedder.model_id() == model && Some(embedder.dimension()) == dimension
        };
        if let Some(given) = self.given.iter().find(|given| is_it(given)) {
            return Some(given.clone());
        }
        let remembered = Config {
            embedding: settings.clone(),
            ..config.clone()
        };
        match embedder::load(&remembered).await {
            Ok(loaded) => loaded.filter(is_it),
            Err(error) => {
                tracing::error!(%error, model, "an embedding model that tenants are answered with cannot be loaded: they are answered by words alone until their new generation is ready");
                None
            }
        }
    }

    /// Whether all indexes answer.
    pub async fn check(&self) -> Result<(), IndexError> {
        for space in self.all() {
            space.index.check().await?;
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        for space in self.all() {
            if let Err(error) = space.index.close().await {
                tracing::error!(error = ?error, space = space.name, "cannot close the index");
            }
        }
    }
}

impl Remembered {
    fn of(settings: &config::Embedding) -> Self {
        Self {
            backend: settings.backend,
            model_dir: settings.model_dir.clone(),
            precision: settings.precision,
            query_prefix: settings.query_prefix.clone(),
            document_prefix: settings.document_prefix.clone(),
            base_url: without_credentials(&settings.base_url),
            model: settings.model.clone(),
            dimension: settings.dimension,
            max_tokens: settings.max_tokens,
            batch_size: settings.batch_size,
        }
    }

    /// With what is not remembered as it is configured now. The key goes to no other server than the one it is for.
    fn settings(&self, now: &config::Embedding) -> config::Embedding {
        let is_same_server = self.base_url == without_credentials(&now.base_url);
        config::Embedding {
            backend: self.backend,
            model_dir: self.model_dir.clone(),
            precision: self.precision,
            query_prefix: self.query_prefix.clone(),
            document_prefix: self.document_prefix.clone(),
            base_url: if is_same_server {
                now.base_url.clone()
            } else {
                self.base_url.clone()
            },
            api_key: if is_same_server {
                now.api_key.clone()
            } else {
                Secret::default()
            },
            model: self.model.clone(),
            dimension: self.dimension,
            max_tokens: self.max_tokens,
            batch_size: self.batch_size,
            timeout_s: now.timeout_s,
            threads: now.threads,
        }
    }
}

/// Remembers the configured model, and how it is loaded.
pub(super) async fn remember(config: &Config, db: &Db, space: &Space, now: DateTime<Utc>) -> Result<()> {
    let mut write = db.write(Scope::Operator).await?;
    // The index of an installation that knew one model only had its making elsewhere.
    on!(write, c => sqlx::query(
        "insert into embedding_space (name, model, dimension, settings, making, created_at)
         values ($1, $2, $3, $4, (select generation from index_generation where id = 1), $5)
         on conflict (name) do update set settings = excluded.settings",
    ).bind(&space.name).bind(&space.model).bind(space.dimension.map(|length| length as i64))
     .bind(Json(Remembered::of(&config.embedding))).bind(now).execute(c).await.map(drop))?;
    write.commit().await?;
    note_making(db, space).await
}

/// Finds out whether the index is the one that documents were put into. If not, it was lost, and all that it held counts as
/// missing.
async fn note_making(db: &Db, space: &Space) -> Result<()> {
    let Some(making) = space.index.generation() else {
        return Ok(());
    };
    let mut write = db.write(Scope::Operator).await?;
    let known: Option<String> = on!(write, c => sqlx::query_scalar("select making from embedding_space where name = $1")
        .bind(&space.name).fetch_one(c).await)?;
    if known.as_ref() == Some(&making) {
        return Ok(());
    }
    on!(write, c => sqlx::query("update embedding_space set making = $2 where name = $1")
        .bind(&space.name).bind(&making).execute(c).await.map(drop))?;
    let emptied = mark_empty(&mut write, &space.name).await?;
    // What is staged may have been in the lost index as well.
    on!(write, c => sqlx::query("delete from staged_chunk").execute(c).await.map(drop))?;
    write.commit().await?;
    if emptied > 0 {
        tracing::warn!(
            space = space.name,
            tenants = emptied,
            "the search index is not the one that documents were put into: it is filled again, and until then answers say that some are not found"
        );
    }
    Ok(())
}

/// What generations in this space held is to be put in again; how many they are.
async fn mark_empty(write: &mut Write, space: &str) -> Result<u64> {
    Ok(on!(write, c => sqlx::query(
        "update generation
            set is_filled = $2, filled_to = null, place_document = null, done_count = 0,
                chunk_count = (select cast(coalesce(sum(d.chunk_count), 0) as bigint)
                                 from document d
                                where d.tenant_id = generation.tenant_id
                                  and d.indexed_at is not null)
          where space = $1
            and state <> 'retired'",
    ).bind(space).bind(false).execute(c).await.map(|done| done.rows_affected()))?)
}

/// What the index knows the model by. Other words in front of its texts make vectors that cannot be compared.
fn model_name(model: &str, settings: &config::Embedding) -> String {
    let prefixes = (&settings.query_prefix, &settings.document_prefix);
    if settings.backend != EmbeddingBackend::Local || (prefixes.0.is_empty() && prefixes.1.is_empty()) {
        return model.to_owned();
    }
    let hash = crate::secrets::token_hash(&format!("{}\n{}", prefixes.0, prefixes.1));
    format!("{model}-{}", &hash[..8])
}

fn space_name(model: Option<&str>, dimension: Option<usize>) -> String {
    match (model, dimension) {
        (Some(model), Some(dimension)) => format!("{model}/{dimension}"),
        _ => WORDS_ALONE.to_owned(),
    }
}

fn without_credentials(address: &str) -> String {
    match url::Url::parse(address) {
        Ok(mut url) if !url.username().is_empty() || url.password().is_some() => {
            // Neither fails for an address that has a host.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.to_string()
        }
        _ => address.to_owned(),
    }
}

fn unavailable(error: IndexError) -> Error {
    Error::Unavailable {
        code: "index_unavailable",
        message: "the search index does not answer; try again shortly".into(),
        retry_after: std::time::Duration::from_secs(5),
        source: Some(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(flags: &[(&str, &str)]) -> config::Embedding {
        let flags: Vec<(String, String)> = flags
            .iter()
            .map(|(path, value)| ((*path).to_owned(), (*value).to_owned()))
            .collect();
        Config::load(None, [], &flags)
            .expect("settings that hold")
            .embedding
    }

    fn remote(base_url: &str) -> config::Embedding {
        embedding(&[
            ("embedding.backend", "openai"),
            ("embedding.base_url", base_url),
            ("embedding.model", "small"),
            ("embedding.dimension", "8"),
            ("embedding.api_key", "sk-secret"),
        ])
    }

    #[test]
    fn no_secret_is_remembered_and_none_goes_to_another_server() {
        let remembered = Remembered::of(&remote("https://me:pass@one.example/v1"));
        let stored = serde_json::to_string(&remembered).expect("JSON");
        assert!(
            !stored.contains("sk-secret") && !stored.contains("pass@"),
            "{stored}"
        );

        let back = remembered.settings(&remote("https://me:pass@one.example/v1"));
        assert_eq!(back.api_key.expose(), "sk-secret");
        let elsewhere = remembered.settings(&remote("https://two.example/v1"));
        assert!(elsewhere.api_key.is_empty());
        assert_eq!(elsewhere.base_url, "https://one.example/v1");
    }

    #[test]
    fn vectors_that_cannot_be_compared_have_spaces_of_their_own() {
        let plain = embedding(&[]);
        let prefixed = embedding(&[("embedding.query_prefix", "query: ")]);

        assert_eq!(model_name("e5", &plain), "e5");
        assert_ne!(model_name("e5", &prefixed), "e5");
        assert_eq!(space_name(Some("e5"), Some(384)), "e5/384");
        assert_ne!(
            space_name(Some("e5"), Some(384)),
            space_name(Some("e5"), Some(256))
        );
        assert_eq!(space_name(None, None), WORDS_ALONE);
    }
}
