//! Embeddings that were made before, by tenant, embedding model and text: what was embedded once is not bought, or worked
//! out, again. Documents and questions share them, where the model reads nothing else before the one than before the other. `docs/decisions/0019-embedding-cache.md` says what is kept, and when not.
//!
//! Who asks is the first part of every key: whether a text is known says nothing of what other tenants have.

pub mod operator;
mod store;

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::TimeDelta;

use crate::app::{App, Space};
use crate::db::Write;
use crate::error::Result;
use crate::id::TenantId;
use crate::secrets::token_hash;

/// How old the note of the last use may get before it is written again.
const USE_IS_NOTED_AFTER: TimeDelta = TimeDelta::days(1);

/// This part of the limit is added before somebody looks whether it is passed.
const LOOK_AFTER: i64 = 8;

/// As what a text is embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Document,
    Question,
}

impl Role {
    /// What a text is known by. A model that reads another prefix before questions makes other vectors of them; no text of a
    /// document has the character that they then begin with.
    fn key(self, space: &Space, text: &str) -> String {
        let embedder = space.embedder.as_ref();
        let is_apart = embedder.is_some_and(|embedder| embedder.query_prefix() != embedder.document_prefix());
        match self {
            Self::Question if is_apart => token_hash(&format!("\0{text}")),
            Self::Question | Self::Document => token_hash(text),
        }
    }
}

/// What this process knows of the cache.
#[derive(Debug, Default)]
pub struct EmbeddingCache {
    /// Bytes that were added since somebody looked at the limit.
    added: AtomicI64,
}

/// What is known of some texts.
#[derive(Debug)]
pub struct Recalled {
    hashes: Vec<String>,
    /// In the places of the texts.
    pub vectors: Vec<Option<Vec<f32>>>,
    /// Hashes of those whose last use is to be noted.
    used: Vec<String>,
}

impl Recalled {
    /// Places of the texts that are not known.
    pub fn missing(&self) -> Vec<usize> {
        let places = self.vectors.iter().enumerate();
        places
            .filter_map(|(place, vector)| vector.is_none().then_some(place))
            .collect()
    }
}

/// Whether vectors of this model are worth a row: there is room for them, and making one costs more than looking it up.
fn is_kept(app: &App, space: &Space) -> bool {
    let embedder = space.embedder.as_ref();
    app.config.embedding.cache_mb > 0 && embedder.is_some_and(|embedder| embedder.is_worth_keeping())
}

/// What is known of `texts` in the space, where they are embedded in this role.
pub async fn recall<'t>(
    app: &App,
    tenant_id: TenantId,
    space: &Space,
    (role, texts): (Role, impl Iterator<Item = &'t str>),
) -> Result<Recalled> {
    let is_kept = is_kept(app, space);
    let hashes: Vec<String> = texts
        .map(|text| {
            if is_kept {
                role.key(space, text)
            } else {
                String::new()
            }
        })
        .collect();
    let mut recalled = Recalled {
        vectors: vec![None; hashes.len()],
        hashes,
        used: Vec::new(),
    };
    if !is_kept {
        return Ok(recalled);
    }
    let mut conn = app.db.read(tenant_id).await?;
    let mut known = store::find(&mut conn, tenant_id, &space.name, &recalled.hashes).await?;
    drop(conn);
    let noted_before = app.clock.now() - USE_IS_NOTED_AFTER;
    for (place, hash) in recalled.hashes.iter().enumerate() {
        let Some(row) = known.get_mut(hash) else { continue };
        recalled.vectors[place] = vector(&row.vector, space.dimension);
        if row.used_at < noted_before {
            row.used_at = app.clock.now();
            recalled.used.push(hash.clone());
        }
    }
    let missing = recalled.missing().len();
    let count = |result: &'static str, texts: usize| {
        metrics::counter!("frontdesk_embedding_cache_total", "result" => result).increment(texts as u64);
    };
    count("hit", recalled.vectors.len() - missing);
    count("miss", missing);
    Ok(recalled)
}

/// Keeps what texts of `recalled` came to that were not known, by their places, in the caller's transaction. How many bytes
/// that are is for [`added`], after the commit.
pub async fn keep<'v>(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    space: &Space,
    recalled: &Recalled,
    new: impl Iterator<Item = (usize, &'v [f32])>,
) -> Result<i64> {
    if !is_kept(app, space) {
        return Ok(0);
    }
    let new: Vec<(&str, Vec<u8>)> = new
        .map(|(place, vector)| (recalled.hashes[place].as_str(), bytes(vector)))
        .collect();
    let now = app.clock.now();
    store::note_use(write, tenant_id, &space.name, &recalled.used, now).await?;
    store::insert(write, tenant_id, &space.name, &new, now).await
}

/// So many bytes were kept. Now and then somebody looks whether that is too much.
pub fn added(app: &App, bytes: i64) {
    let added = &app.embedding_cache.added;
    let most = operator::limit_bytes(app) / LOOK_AFTER;
    if bytes > 0 && added.fetch_add(bytes, Ordering::Relaxed) + bytes >= most {
        added.store(0, Ordering::Relaxed);
        operator::shrink_later(app);
    }
}

/// Like [`keep`], in a transaction of its own.
pub async fn keep_now<'v>(
    app: &App,
    tenant_id: TenantId,
    space: &Space,
    recalled: &Recalled,
    new: impl Iterator<Item = (usize, &'v [f32])>,
) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    let bytes = keep(app, &mut write, tenant_id, space, recalled, new).await?;
    write.commit().await?;
    added(app, bytes);
    Ok(())
}

/// A vector of the length that the model has; none: something else lies there.
fn vector(bytes: &[u8], dimension: Option<usize>) -> Option<Vec<f32>> {
    let (values, rest) = bytes.as_chunks::<4>();
    (rest.is_empty() && Some(values.len()) == dimension)
        .then(|| values.iter().copied().map(f32::from_le_bytes).collect())
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_read_as_it_was_kept_and_nothing_else_is_taken_for_one() {
        let kept = [0.25_f32, -1.0, f32::MIN_POSITIVE];

        assert_eq!(vector(&bytes(&kept), Some(3)).as_deref(), Some(&kept[..]));
        assert_eq!(vector(&bytes(&kept), Some(4)), None);
        assert_eq!(vector(&bytes(&kept)[..11], Some(3)), None);
        assert_eq!(vector(&bytes(&kept), None), None);
    }
}
