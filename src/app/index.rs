//! The index that the configuration names, open.

use std::sync::Arc;

use retrieval::index::{
    EmbeddedIndex, EmbeddedOptions, Index, IndexError, PgvectorIndex, PgvectorOptions, QdrantIndex, Tuning,
};

use super::{Purpose, StartError, innermost};
use crate::config::{Config, IndexBackend};

/// Opens the index of a model's vectors; without a model, of words alone. What is unavailable on a server may come back.
/// `was_made`: the service has had it, so that who only looks makes none where it is gone.
pub(crate) async fn open(
    config: &Config,
    model_id: Option<&str>,
    dimension: Option<usize>,
    (purpose, was_made): (Purpose, bool),
) -> Result<Result<Arc<dyn Index>, IndexError>, StartError> {
    Ok(match config.index.backend {
        IndexBackend::Embedded => {
            let finds = (purpose.mends(), was_made);
            open_embedded(config, model_id.map(str::to_owned), dimension, finds).await?
        }
        IndexBackend::Qdrant => QdrantIndex::open(config.qdrant_options(model_id, dimension))
            .await
            .map(|index| Arc::new(index) as Arc<dyn Index>),
        IndexBackend::Pgvector => PgvectorIndex::open(pgvector_options(config, model_id, dimension))
            .await
            .map(|index| Arc::new(index) as Arc<dyn Index>),
    })
}

/// Whether the index is on a server that does not answer at present: the service does without until it does.
pub(super) fn may_come_back(config: &Config, error: &IndexError) -> bool {
    let is_on_a_server = config.index.backend != IndexBackend::Embedded;
    is_on_a_server && matches!(error, IndexError::Unavailable { .. })
}

/// Why the service does not start without the index.
pub(super) fn start_error(error: IndexError) -> StartError {
    match error {
        IndexError::InUse { dir } => StartError::InUse { dir },
        error @ IndexError::Unavailable { source: Some(_), .. } => StartError::Failed(format!(
            "the index cannot be opened: {error}: {}",
            innermost(&error)
        )),
        error @ IndexError::PartDamaged { .. } => StartError::Failed(format!(
            "{error}: frontdesk index repair, or the next start of the server, puts it aside and fills it again from the rows"
        )),
        error => StartError::Failed(format!("the index cannot be opened: {error}")),
    }
}

async fn open_embedded(
    config: &Config,
    model_id: Option<String>,
    dimension: Option<usize>,
    (mends, was_made): (bool, bool),
) -> Result<Result<Arc<dyn Index>, IndexError>, StartError> {
    let dir = config.index_dir();
    let shards = config.index.shards;
    let tuning = Tuning {
        own_shard_from_chunks: match config.index.promote_from_chunks {
            0 => u64::MAX,
            chunks => chunks,
        },
        ..Tuning::default()
    };
    tokio::task::spawn_blocking(move || {
        let options = EmbeddedOptions {
            dir,
            model_id: model_id.as_deref(),
            dimension,
            shards,
            mends,
        };
        if was_made && !mends && !options.is_made() {
            let dir = options.collection_dir();
            return Err(IndexError::PartDamaged {
                reason: format!("{}: it is gone", dir.display()),
            });
        }
        let index = EmbeddedIndex::open_tuned(options, tuning)?;
        Ok(Arc::new(index) as Arc<dyn Index>)
    })
    .await
    .map_err(|error| StartError::Failed(error.to_string()))
}

fn pgvector_options<'a>(
    config: &'a Config,
    model_id: Option<&'a str>,
    dimension: Option<usize>,
) -> PgvectorOptions<'a> {
    let settings = &config.index.pgvector;
    PgvectorOptions {
        url: config.pgvector_url(),
        model_id,
        dimension,
        halfvec: settings.halfvec,
        m: settings.m,
        ef_construction: settings.ef_construction,
        ef_search: settings.ef_search,
        build_memory_mb: settings.build_memory_mb,
        max_connections: settings.max_connections,
    }
}
