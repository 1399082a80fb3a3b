//! The configured reranker.

use std::sync::Arc;
use std::time::Duration;

use retrieval::rerank::{Protocol, RerankServer, RerankServerOptions, Reranker};

use super::StartError;
use crate::config::{Config, RerankBackend};
use crate::knowledge::ListwiseReranker;
use crate::llm::ChatModel;

/// None: nothing reranks.
pub(super) fn open(
    config: &Config,
    model: Option<&Arc<dyn ChatModel>>,
) -> Result<Option<Arc<dyn Reranker>>, StartError> {
    let settings = &config.rerank;
    let timeout = Duration::from_secs(settings.timeout_s);
    let protocol = match settings.backend {
        RerankBackend::None => return Ok(None),
        RerankBackend::Llm => {
            let Some(model) = model else { return Ok(None) };
            let name = config.rerank_model().to_owned();
            // The question and the answer need room too.
            let most_tokens = config.llm.context_tokens / 2;
            let reranker = ListwiseReranker::new(model.clone(), name, most_tokens, timeout);
            return Ok(Some(Arc::new(reranker)));
        }
        RerankBackend::Cohere => Protocol::Cohere,
        RerankBackend::Jina => Protocol::Jina,
        RerankBackend::Voyage => Protocol::Voyage,
        RerankBackend::Tei => Protocol::Tei,
    };
    let wrong = |error: String| StartError::Setting(format!("rerank: {error}"));
    let options = RerankServerOptions {
        protocol,
        base_url: settings
            .base_url
            .parse()
            .map_err(|error| StartError::Setting(format!("rerank.base_url: {error}")))?,
        api_key: (!settings.api_key.is_empty()).then(|| settings.api_key.expose().to_owned()),
        model: settings.model.clone(),
        timeout,
    };
    let server = RerankServer::new(options).map_err(wrong)?;
    Ok(Some(Arc::new(server)))
}
