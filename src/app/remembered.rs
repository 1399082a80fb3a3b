//! What the database keeps of embedding models: what they are called here, and how they are loaded again. Secrets are not kept.
//!
//! A model goes by its name, the length of its vectors and a fingerprint of what computes them, so that other weights in the
//! same folder, or another server under the same model's name, never meet its vectors. Models that were in use before
//! fingerprints were kept are called by name and length alone, and belong to the first that is loaded under them.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use retrieval::embed::Embedder;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use super::space::Space;
use crate::config::{self, Config, EmbeddingBackend, EmbeddingPrecision, Secret};
use crate::db::{Db, Scope};
use crate::error::{Error, Result};
use crate::on;
use crate::secrets::token_hash;

/// What the space of words alone is called. No model has a name without a length.
const WORDS_ALONE: &str = "words";

/// Hexadecimal digits of a fingerprint that stand in a space's name.
const SHOWN_DIGITS: usize = 12;

/// What a space's row says.
#[derive(sqlx::FromRow)]
pub(super) struct SpaceRow {
    pub model: Option<String>,
    dimension: Option<i64>,
    pub settings: Json<Remembered>,
    pub fingerprint: Option<String>,
}

impl SpaceRow {
    pub(super) fn dimension(&self) -> Option<usize> {
        self.dimension.and_then(|length| usize::try_from(length).ok())
    }
}

/// The settings by which a model is loaded again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Remembered {
    backend: EmbeddingBackend,
    model_dir: PathBuf,
    precision: EmbeddingPrecision,
    query_prefix: String,
    document_prefix: String,
    base_url: String,
    /// The server took a key: without one, nobody needs to ask it.
    #[serde(default)]
    pub has_key: bool,
    model: String,
    dimension: usize,
    max_tokens: usize,
    batch_size: usize,
    #[serde(default)]
    languages: Vec<String>,
    /// How near unrelated texts are to it, once that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrelated: Option<f32>,
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
            has_key: !settings.api_key.is_empty(),
            model: settings.model.clone(),
            dimension: settings.dimension,
            max_tokens: settings.max_tokens,
            batch_size: settings.batch_size,
            languages: settings.languages.clone(),
            unrelated: None,
        }
    }

    /// With what is not remembered as it is configured now. The key goes to no other server than the one it is for.
    pub(super) fn settings(&self, now: &config::Embedding) -> config::Embedding {
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
                self.base_url.clone().into()
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
            languages: self.languages.clone(),
            timeout_s: now.timeout_s,
            threads: now.threads,
            cache_mb: now.cache_mb,
        }
    }

    /// What was measured here, as far as it holds for `other`: it is measured in the languages that the model reads.
    fn unrelated_of(&self, other: &Self) -> Option<f32> {
        self.unrelated.filter(|_| self.languages == other.languages)
    }

    /// Whether a model of the same name by these settings may be the one that was in use before fingerprints were kept.
    fn may_be(&self, other: &Self) -> bool {
        let of = |settings: &Self| (settings.backend, settings.precision, settings.base_url.clone());
        of(self) == of(other)
    }
}

/// What tells the model from others of its name; none: nothing does.
pub(super) fn fingerprint(embedder: &dyn Embedder, settings: &config::Embedding) -> Option<String> {
    if settings.is_remote() {
        return Some(server_fingerprint(settings));
    }
    embedder.fingerprint().map(str::to_owned)
}

/// Who answers there, and what stands before the texts, is all that can be known of a server's model.
fn server_fingerprint(settings: &config::Embedding) -> String {
    let protocol = match settings.backend {
        EmbeddingBackend::Tei => "tei",
        _ => "openai",
    };
    let server = without_credentials(&settings.base_url);
    let prefixes = [&settings.query_prefix, &settings.document_prefix];
    token_hash(&match prefixes {
        [query, document] if query.is_empty() && document.is_empty() => format!("{protocol} {server}"),
        [query, document] => format!("{protocol} {server}\n{query}\n{document}"),
    })
}

/// What the configured model is called here.
pub(super) async fn name_of(config: &Config, db: &Db, embedder: Option<&dyn Embedder>) -> Result<String> {
    let Some(embedder) = embedder else {
        return Ok(WORDS_ALONE.to_owned());
    };
    let model = model_name(embedder.model_id(), &config.embedding);
    let plain = space_name(&model, embedder.dimension());
    let Some(fingerprint) = fingerprint(embedder, &config.embedding) else {
        return Ok(plain);
    };
    let own = own_name(embedder, &fingerprint);
    let mut conn = db.read(Scope::Operator).await?;
    if find(&mut conn, &own).await?.is_some() {
        return Ok(own);
    }
    let is_plain = match find(&mut conn, &plain).await? {
        Some(row) => match row.fingerprint {
            Some(known) => known == fingerprint,
            None => row.settings.may_be(&Remembered::of(&config.embedding)),
        },
        None => is_older_than_spaces(&mut conn, embedder.model_id()).await?,
    };
    Ok(if is_plain { plain } else { own })
}

/// Whether documents were indexed with this model when it needed no row.
async fn is_older_than_spaces(conn: &mut crate::db::Conn, model: &str) -> Result<bool> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select not exists (select 1 from embedding_space)
            and exists (select 1 from document where embedding_model = $1 and indexed_at is not null)",
    ).bind(model).fetch_one(c).await)?)
}

pub(super) async fn find(conn: &mut crate::db::Conn, name: &str) -> Result<Option<SpaceRow>> {
    Ok(
        on!(conn, c => sqlx::query_as("select model, dimension, settings, fingerprint from embedding_space where name = $1")
        .bind(name).fetch_optional(c).await)?,
    )
}

/// Remembers the configured model, and how it is loaded.
pub(super) async fn remember(config: &Config, db: &Db, space: &Space, now: DateTime<Utc>) -> Result<()> {
    let mut write = db.write(Scope::Operator).await?;
    let mut settings = Remembered::of(&config.embedding);
    if let Some(before) = find(&mut write, &space.name).await? {
        settings.unrelated = before.settings.unrelated_of(&settings);
    }
    // The index of an installation that knew one model only had its making elsewhere.
    on!(write, c => sqlx::query(
        "insert into embedding_space (name, model, dimension, settings, fingerprint, making, created_at)
         values ($1, $2, $3, $4, $5,
                 (select generation from index_generation where id = 1 and not exists (select 1 from embedding_space)), $6)
         on conflict (name) do update set settings = excluded.settings, fingerprint = coalesce(embedding_space.fingerprint, excluded.fingerprint)",
    ).bind(&space.name).bind(&space.model).bind(space.dimension.map(|length| length as i64))
     .bind(Json(settings)).bind(&space.fingerprint).bind(now).execute(c).await.map(drop))?;
    let row = find(&mut write, &space.name).await?;
    if space.fingerprint.is_some() && row.is_none_or(|row| row.fingerprint != space.fingerprint) {
        return Err(Error::internal(format!(
            "another process has just taken {:?} over with other weights: start again",
            space.name
        )));
    }
    write.commit().await
}

/// How near unrelated texts are to the model of a space, where that was measured.
pub(super) async fn find_unrelated(db: &Db, name: &str) -> Result<Option<f32>> {
    let mut conn = db.read(Scope::Operator).await?;
    let row = find(&mut conn, name).await?;
    Ok(row.and_then(|row| row.settings.unrelated))
}

/// Keeps how near unrelated texts are to the model of a space.
pub(super) async fn note_unrelated(db: &Db, name: &str, unrelated: f32) -> Result<()> {
    let mut write = db.write(Scope::Operator).await?;
    let Some(row) = find(&mut write, name).await? else {
        return Ok(());
    };
    let settings = Remembered {
        unrelated: Some(unrelated),
        ..row.settings.0
    };
    on!(write, c => sqlx::query("update embedding_space set settings = $2 where name = $1")
        .bind(name).bind(Json(settings)).execute(c).await.map(drop))?;
    write.commit().await
}

/// Keeps what tells a model from others of its name that was in use before that was kept.
pub(super) async fn note_fingerprint(db: &Db, space: &Space) -> Result<()> {
    let mut write = db.write(Scope::Operator).await?;
    on!(write, c => sqlx::query("update embedding_space set fingerprint = $2 where name = $1 and fingerprint is null")
        .bind(&space.name).bind(&space.fingerprint).execute(c).await.map(drop))?;
    write.commit().await
}

/// What the index of a space knows its model by; none: it holds words alone.
pub(super) fn model_in_index(space: &str, dimension: Option<usize>) -> Option<&str> {
    space.strip_suffix(&format!("/{}", dimension?))
}

fn own_name(embedder: &dyn Embedder, fingerprint: &str) -> String {
    let shown = fingerprint.get(..SHOWN_DIGITS).unwrap_or(fingerprint);
    space_name(&format!("{}@{shown}", embedder.model_id()), embedder.dimension())
}

/// What the model is called without a fingerprint. Other words in front of its texts make vectors that cannot be compared.
fn model_name(model: &str, settings: &config::Embedding) -> String {
    let prefixes = (&settings.query_prefix, &settings.document_prefix);
    if prefixes.0.is_empty() && prefixes.1.is_empty() {
        return model.to_owned();
    }
    let hash = token_hash(&format!("{}\n{}", prefixes.0, prefixes.1));
    format!("{model}-{}", &hash[..8])
}

fn space_name(model: &str, dimension: usize) -> String {
    format!("{model}/{dimension}")
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
        assert_eq!(&*elsewhere.base_url, "https://one.example/v1");
    }

    #[test]
    fn a_servers_model_that_reads_something_before_its_texts_is_another_one() {
        let plain = remote("https://one.example/v1");
        let mut asked = plain.clone();
        asked.query_prefix = "query: ".to_owned();
        let mut told = plain.clone();
        told.document_prefix = "query: ".to_owned();

        let fingerprints = [&plain, &asked, &told].map(server_fingerprint);
        assert!(
            fingerprints[0] != fingerprints[1]
                && fingerprints[1] != fingerprints[2]
                && fingerprints[0] != fingerprints[2]
        );
        // Installations without prefixes keep what they embedded.
        assert_eq!(fingerprints[0], token_hash("openai https://one.example/v1"));
    }

    #[test]
    fn what_was_measured_is_kept_as_long_as_the_model_reads_the_same_languages() {
        let measured = Remembered {
            unrelated: Some(0.7),
            ..Remembered::of(&remote("https://one.example/v1"))
        };
        let mut english = remote("https://one.example/v1");
        assert_eq!(measured.unrelated_of(&Remembered::of(&english)), Some(0.7));

        english.languages = vec!["en".to_owned()];
        assert_eq!(measured.unrelated_of(&Remembered::of(&english)), None);
    }

    #[test]
    fn without_a_fingerprint_a_model_goes_by_its_name_its_prefixes_and_its_length() {
        let plain = embedding(&[]);
        let prefixed = embedding(&[("embedding.query_prefix", "query: ")]);

        assert_eq!(model_name("e5", &plain), "e5");
        assert_ne!(model_name("e5", &prefixed), "e5");
        assert_eq!(space_name("e5", 384), "e5/384");
        assert_eq!(model_in_index("e5/384", Some(384)), Some("e5"));
        assert_eq!(model_in_index(WORDS_ALONE, None), None);
    }

    #[test]
    fn what_was_in_use_before_fingerprints_is_taken_over_by_what_may_be_the_same_only() {
        let one = Remembered::of(&remote("https://one.example/v1"));
        let local = Remembered::of(&embedding(&[]));
        let int8 = Remembered::of(&embedding(&[("embedding.precision", "int8")]));
        let moved = Remembered::of(&embedding(&[("embedding.model_dir", "elsewhere/e5")]));

        assert!(one.may_be(&Remembered::of(&remote("https://me:pass@one.example/v1"))));
        assert!(!one.may_be(&Remembered::of(&remote("https://two.example/v1"))));
        assert!(!local.may_be(&int8));
        assert!(local.may_be(&moved));
    }
}
