//! The embedding model that settings name, loaded.

use std::sync::Arc;
use std::time::Duration;

use retrieval::analysis::Language;
use retrieval::embed::{self, Embedder};

use super::StartError;
use crate::config::{self, Config, EmbeddingBackend, EmbeddingPrecision};

/// The configured embedding model; none: it is not installed.
pub(crate) async fn load(config: &Config) -> Result<Option<Arc<dyn Embedder>>, StartError> {
    let settings = &config.embedding;
    match settings.backend {
        EmbeddingBackend::Local | EmbeddingBackend::Static => {
            if !settings.model_dir.join("model.safetensors").exists() {
                tracing::warn!(folder = %settings.model_dir.display(), "no embedding model there: search goes by keywords alone; scripts/fetch-model installs it");
                return Ok(None);
            }
            let settings = settings.clone();
            let loaded = tokio::task::spawn_blocking(move || load_local_embedder(&settings))
                .await
                .map_err(|error| StartError::Failed(error.to_string()))?;
            loaded
                .map(Some)
                .map_err(|error| StartError::Setting(format!("embedding.model_dir: {error}")))
        }
        EmbeddingBackend::Openai | EmbeddingBackend::Tei => {
            let options = embed::OpenAiEmbedderOptions {
                protocol: match settings.backend {
                    EmbeddingBackend::Tei => embed::Protocol::Tei,
                    _ => embed::Protocol::OpenAi,
                },
                base_url: settings
                    .base_url
                    .parse()
                    .map_err(|error| StartError::Setting(format!("embedding.base_url: {error}")))?,
                api_key: (!settings.api_key.is_empty()).then(|| settings.api_key.expose().to_owned()),
                model: settings.model.clone(),
                dimension: settings.dimension,
                batch_size: settings.batch_size,
                timeout: Duration::from_secs(settings.timeout_s),
                max_tokens: settings.max_tokens,
                prefixes: embed::Prefixes {
                    query: settings.query_prefix.clone(),
                    document: settings.document_prefix.clone(),
                },
                languages: read_languages(&settings.languages),
            };
            let embedder = embed::OpenAiEmbedder::new(options)
                .map_err(|error| StartError::Setting(format!("embedding: {error}")))?;
            Ok(Some(Arc::new(embedder)))
        }
    }
}

/// Those that a server's model reads; none: all.
fn read_languages(tags: &[String]) -> Option<Vec<Language>> {
    let named: Vec<Language> = tags.iter().filter_map(|tag| Language::from_tag(tag)).collect();
    (!named.is_empty()).then_some(named)
}

fn load_local_embedder(settings: &config::Embedding) -> Result<Arc<dyn Embedder>, embed::LoadError> {
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let precision = match settings.precision {
        EmbeddingPrecision::F32 => embed::Precision::F32,
        EmbeddingPrecision::Int8 => embed::Precision::Int8,
    };
    if settings.backend == EmbeddingBackend::Static {
        let embedder = embed::StaticEmbedder::load(&settings.model_dir, threads, precision)?;
        return Ok(Arc::new(embedder));
    }
    let set = |prefix: &String| (!prefix.is_empty()).then(|| prefix.clone());
    let options = embed::LocalOptions {
        threads,
        precision,
        query_prefix: set(&settings.query_prefix),
        document_prefix: set(&settings.document_prefix),
    };
    let embedder = embed::LocalEmbedder::load(&settings.model_dir, options)?;
    if let Some(usual) = embedder.lacking_prefixes() {
        tracing::warn!(
            model = embedder.model_id(),
            query_prefix = usual.query,
            document_prefix = usual.document,
            "models of this family read a prefix before each text, and this one's files name none: it finds worse without. Set embedding.query_prefix and embedding.document_prefix as told here; that is another model, and documents are embedded again"
        );
    }
    Ok(Arc::new(embedder))
}
