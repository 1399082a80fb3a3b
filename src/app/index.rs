//! The index that the configuration names, open.

use std::sync::Arc;

use retrieval::embed::Embedder;
use retrieval::index::{EmbeddedIndex, EmbeddedOptions, Index, IndexError, QdrantIndex};

use super::StartError;
use crate::config::{Config, IndexBackend};

pub(super) async fn open(
    config: &Config,
    embedder: Option<&dyn Embedder>,
) -> Result<Arc<dyn Index>, StartError> {
    let model_id = embedder.map(|embedder| embedder.model_id().to_owned());
    let dimension = embedder.map(Embedder::dimension);
    let opened = match config.index.backend {
        IndexBackend::Embedded => open_embedded(config, model_id, dimension).await?,
        IndexBackend::Qdrant => {
            let options = config.index.qdrant_options(model_id.as_deref(), dimension);
            QdrantIndex::open(options)
                .await
                .map(|index| Arc::new(index) as Arc<dyn Index>)
        }
        IndexBackend::Pgvector => {
            return Err(StartError::Setting(
                "index.backend: this version has \"embedded\" and \"qdrant\"".to_owned(),
            ));
        }
    };
    opened.map_err(|error| match error {
        IndexError::InUse { dir } => StartError::InUse { dir },
        error => StartError::Failed(format!("the index cannot be opened: {error}")),
    })
}

async fn open_embedded(
    config: &Config,
    model_id: Option<String>,
    dimension: Option<usize>,
) -> Result<Result<Arc<dyn Index>, IndexError>, StartError> {
    let dir = config.data_dir.join("index");
    let shards = config.index.shards;
    tokio::task::spawn_blocking(move || {
        let index = EmbeddedIndex::open(EmbeddedOptions {
            dir,
            model_id: model_id.as_deref(),
            dimension,
            shards,
        })?;
        Ok(Arc::new(index) as Arc<dyn Index>)
    })
    .await
    .map_err(|error| StartError::Failed(error.to_string()))
}
