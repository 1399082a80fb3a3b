//! How a source's documents are cut, where its owner wants it otherwise.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::ToSchema;

use super::store;
use crate::app::App;
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::generations::{self, By};
use crate::id::{SourceId, TenantId};

/// Smaller chunks say too little to be found; larger ones no embedding model reads.
const MAX_TOKENS_RANGE: std::ops::RangeInclusive<u32> = 16..=4_096;

/// How documents are cut. What is not given is as everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Chunking {
    /// Tokens of a chunk's text, 16 to 4,096; never more than the embedding model reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Tokens repeated where a paragraph or another unit had to be cut; at most half of `max_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_tokens: Option<u32>,
}

impl Chunking {
    /// Refuses values that cannot be meant.
    pub fn check(&self) -> Result<()> {
        let defaults = ingest::ChunkOptions::default();
        if self
            .max_tokens
            .is_some_and(|tokens| !MAX_TOKENS_RANGE.contains(&tokens))
        {
            return Err(Error::invalid(
                "invalid_chunking",
                "max_tokens",
                format!(
                    "max_tokens must be {} to {}",
                    MAX_TOKENS_RANGE.start(),
                    MAX_TOKENS_RANGE.end()
                ),
            ));
        }
        let most = self
            .max_tokens
            .map_or(defaults.max_tokens, |tokens| tokens as usize)
            / 2;
        if self.overlap_tokens.is_some_and(|tokens| tokens as usize > most) {
            return Err(Error::invalid(
                "invalid_chunking",
                "overlap_tokens",
                format!("overlap_tokens must be at most {most}, half of max_tokens"),
            ));
        }
        Ok(())
    }

    /// The options of the cut, within what the embedding model reads.
    pub(in crate::knowledge) fn options(&self, model_reads: Option<usize>) -> ingest::ChunkOptions {
        let mut options = ingest::ChunkOptions::default();
        if let Some(tokens) = self.max_tokens {
            options.max_tokens = tokens as usize;
        }
        if let Some(tokens) = self.overlap_tokens {
            options.overlap_tokens = tokens as usize;
        }
        options.max_tokens = options.max_tokens.min(model_reads.unwrap_or(usize::MAX));
        options.overlap_tokens = options.overlap_tokens.min(options.max_tokens / 2);
        options
    }
}

/// How a source's documents are cut.
async fn find_chunking(conn: &mut Conn, tenant_id: TenantId, source_id: SourceId) -> Result<Chunking> {
    let stored = store::find_chunking(conn, tenant_id, source_id).await?;
    Ok(stored.map(|Json(chunking)| chunking).unwrap_or_default())
}

/// Changes how a source's documents are cut, in the transaction of the caller, who holds the source. Those that are there are cut
/// beside the present chunks, which answer until all are. Call [`App::wake_workers`] after the commit.
pub async fn set_chunking(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
    chunking: &Chunking,
    by: By<'_>,
) -> Result<()> {
    chunking.check()?;
    let present = find_chunking(write, tenant_id, source_id).await?;
    if present == *chunking {
        return Ok(());
    }
    store::set_chunking(write, tenant_id, source_id, chunking).await?;
    generations::cuts::want(app, write, (tenant_id, source_id), (&present, chunking), by).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunking(max_tokens: u32, overlap_tokens: u32) -> Chunking {
        Chunking {
            max_tokens: Some(max_tokens),
            overlap_tokens: Some(overlap_tokens),
        }
    }

    #[test]
    fn chunks_are_never_larger_than_the_model_reads() {
        assert_eq!(chunking(1_000, 400).options(Some(256)).max_tokens, 256);
        assert_eq!(chunking(1_000, 400).options(Some(256)).overlap_tokens, 128);
        assert_eq!(chunking(100, 10).options(Some(256)).max_tokens, 100);
        assert_eq!(Chunking::default().options(None), ingest::ChunkOptions::default());
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        for wrong in [chunking(15, 0), chunking(5_000, 0), chunking(100, 51)] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        assert!(chunking(100, 50).check().is_ok());
        let too_much = Chunking {
            max_tokens: None,
            overlap_tokens: Some(111),
        };
        assert!(too_much.check().is_err());
    }
}
