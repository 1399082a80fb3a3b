//! Settings of an index on a Qdrant server, and what they become.

use std::time::Duration;

use retrieval::index::{
    QdrantOptions, QdrantTuning, Quantisation, ReadConsistency, WriteOrdering, WrongOption,
};
use serde::Deserialize;

use super::Config;

/// How the server is used. The fields are described in `config.default.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "described in config.default.toml")]
pub struct QdrantSettings {
    pub collection_prefix: String,
    pub connect_timeout_s: u32,
    pub read_timeout_s: u32,
    pub write_timeout_s: u32,
    pub start_timeout_s: u32,
    pub max_attempts: u32,
    pub shards: u32,
    pub replication_factor: u32,
    pub write_consistency_factor: u32,
    pub read_consistency: ReadConsistency,
    pub write_ordering: WriteOrdering,
    pub vectors_on_disk: bool,
    pub quantisation: Quantisation,
    pub oversampling: f64,
    pub search_width: u32,
    pub promote_from_chunks: u64,
}

impl QdrantSettings {
    fn tuning(&self, allow_plain_api_key: bool) -> QdrantTuning {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        QdrantTuning {
            collection_prefix: self.collection_prefix.clone(),
            allow_plain_api_key,
            connect_timeout: seconds(self.connect_timeout_s),
            read_timeout: seconds(self.read_timeout_s),
            write_timeout: seconds(self.write_timeout_s),
            start_timeout: seconds(self.start_timeout_s),
            attempts: self.max_attempts,
            shards: (self.shards > 0).then_some(self.shards),
            replication_factor: self.replication_factor,
            write_consistency_factor: self.write_consistency_factor,
            read_consistency: self.read_consistency,
            write_ordering: self.write_ordering,
            vectors_on_disk: self.vectors_on_disk,
            quantisation: self.quantisation,
            oversampling: self.oversampling,
            search_width: (self.search_width > 0).then_some(self.search_width),
            promote_from_chunks: (self.promote_from_chunks > 0).then_some(self.promote_from_chunks),
        }
    }
}

impl Config {
    /// What the server backend is opened with, for vectors of this model.
    pub fn qdrant_options(&self, model_id: Option<&str>, dimension: Option<usize>) -> QdrantOptions {
        let index = &self.index;
        QdrantOptions {
            url: index.url.to_string(),
            api_key: (!index.api_key.is_empty()).then(|| index.api_key.expose().to_owned()),
            model_id: model_id.map(str::to_owned),
            dimension,
            tuning: index
                .qdrant
                .tuning(self.outbound.allows_plain_keys_to(&index.url)),
        }
    }
}

/// What is wrong with these settings, each by its path.
pub(super) fn check(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let settings = &config.index.qdrant;
    match config.qdrant_options(None, None).check() {
        Ok(()) => {}
        Err(WrongOption::Url(reason)) => problems.push(format!("index.url: {reason}")),
        Err(WrongOption::ApiKey(reason)) => {
            problems.push(format!("index.api_key: {reason} (outbound.allow_plain_keys)"));
        }
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if settings.collection_prefix.is_empty()
        || settings.collection_prefix.len() > 60
        || !settings.collection_prefix.chars().all(is_name)
    {
        problems.push("index.qdrant.collection_prefix: must be 1 to 60 letters, digits, - or _".to_owned());
    }
    if !(1.0..=100.0).contains(&settings.oversampling) {
        problems.push("index.qdrant.oversampling: must be 1 to 100".to_owned());
    }
    if settings.write_consistency_factor > settings.replication_factor {
        problems.push(
            "index.qdrant.write_consistency_factor: must be at most index.qdrant.replication_factor"
                .to_owned(),
        );
    }
    if settings.promote_from_chunks > 0 && settings.shards > 0 {
        problems.push(
            "index.qdrant.shards: with index.qdrant.promote_from_chunks all that are not promoted share one; leave it 0"
                .to_owned(),
        );
    }
    problems
}
