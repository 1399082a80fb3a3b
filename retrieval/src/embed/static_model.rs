//! A model without layers: one vector for each token, and a text is the sum of its tokens'. Some hundred times faster than
//! the encoder that it was distilled from ([`distill`](super::distill)), and worse.
//!
//! The directory is that of model2vec: `tokenizer.json`, and `embeddings` (`[tokens][dimension]`) in `model.safetensors`.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Semaphore;

use super::encoder::normalise;
use super::fingerprint;
use super::matrix::Precision;
use super::model::required;
use super::table::Table;
use super::tokenizer::{LoadError, Tokenizer};
use super::weights::Weights;
use super::{Asker, EmbedError, Embedder, Embeddings};
use crate::BoxFuture;
use crate::analysis::Language;

/// What `config.json` calls such a model.
pub(super) const MODEL_TYPE: &str = "model2vec";

/// The tensor of `model.safetensors`.
pub(super) const TENSOR: &str = "embeddings";

/// Tokens of one text that are read. There is no reason for an end but that a text has to have one.
const MAX_TOKENS: usize = 512;

/// A static model, loaded.
pub struct StaticEmbedder {
    model_id: String,
    fingerprint: String,
    model: Arc<Model>,
    /// Bulks at work at once.
    turns: Semaphore,
}

struct Model {
    tokenizer: Tokenizer,
    vectors: Table,
    dimension: usize,
    /// Of a text without a word, which no sum gives a direction.
    nothing: Vec<f32>,
}

#[derive(Deserialize)]
struct Config {
    model_type: String,
}

impl StaticEmbedder {
    /// Loads a directory that [`distill`](super::distill()) or model2vec wrote, whose name is the model's id. Bulks take up
    /// to `threads` cores; a question is computed where it is asked, in less than a tenth of a millisecond.
    pub fn load(dir: &Path, threads: usize, precision: Precision) -> Result<Self, LoadError> {
        let path = dir.join("config.json");
        let config: Config = required(&path)?;
        if config.model_type != MODEL_TYPE {
            let found = config.model_type;
            return Err(LoadError::unusable(
                &path,
                format!("a {found} is no static model; `frontdesk models distill` makes one of it"),
            ));
        }
        let Some(name) = dir.file_name() else {
            return Err(LoadError::unusable(
                dir,
                "the directory has no name to call the model by",
            ));
        };
        let tokenizer = Tokenizer::load(&dir.join("tokenizer.json"))?;
        let path = dir.join("model.safetensors");
        let unusable = |reason: String| LoadError::unusable(&path, reason);
        let weights = Weights::load(&path)?;
        if weights.has("mapping") || weights.has("weights") {
            return Err(unusable("vectors that tokens share are not supported".to_owned()));
        }
        let shape = weights
            .shape(TENSOR)
            .map_err(|error| unusable(error.to_string()))?;
        let &[tokens, dimension] = shape else {
            return Err(unusable(format!("{TENSOR} has the shape {shape:?}")));
        };
        if dimension == 0 {
            return Err(unusable("its vectors have no values".to_owned()));
        }
        let vectors = weights
            .values(TENSOR, &[tokens, dimension])
            .map_err(|error| unusable(error.to_string()))?;
        let mut nothing = vec![0.0; dimension];
        nothing[0] = 1.0;
        let model = Model {
            tokenizer,
            vectors: Table::pack(vectors, dimension, precision),
            dimension,
            nothing,
        };
        Ok(Self {
            model_id: name.to_string_lossy().into_owned(),
            fingerprint: fingerprint::of_directory(dir, &fingerprint::static_settings(precision))?,
            model: Arc::new(model),
            turns: Semaphore::new(threads.max(1)),
        })
    }
}

impl Embedder for StaticEmbedder {
    fn model_id(&self) -> &str {
        &self.model_id
    }

    fn fingerprint(&self) -> Option<&str> {
        Some(&self.fingerprint)
    }

    fn dimension(&self) -> usize {
        self.model.dimension
    }

    fn max_tokens(&self) -> usize {
        MAX_TOKENS
    }

    fn languages(&self) -> Option<&[Language]> {
        self.model.tokenizer.languages()
    }

    fn is_worth_keeping(&self) -> bool {
        false
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.model.tokenizer.count(text)
    }

    fn embed_query(&self, _asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move { self.model.embed(&[text]) })
    }

    fn embed_documents(
        &self,
        _asker: Asker,
        texts: Vec<String>,
    ) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let _turn = self.turns.acquire().await.map_err(EmbedError::unavailable)?;
            let model = self.model.clone();
            tokio::task::spawn_blocking(move || model.embed(&texts))
                .await
                .map_err(EmbedError::unavailable)?
        })
    }
}

impl Model {
    fn embed(&self, texts: &[String]) -> Result<Embeddings, EmbedError> {
        let mut embeddings = Embeddings {
            vectors: Vec::with_capacity(texts.len()),
            tokens: 0,
            reported: false,
        };
        for text in texts {
            let tokens = self
                .tokenizer
                .encode_plain(text, MAX_TOKENS)
                .map_err(EmbedError::unavailable)?;
            embeddings.tokens += tokens.len() as u64;
            embeddings.vectors.push(self.sum(&tokens));
        }
        Ok(embeddings)
    }

    fn sum(&self, tokens: &[u32]) -> Vec<f32> {
        let (mut sum, mut vector) = (vec![0.0; self.dimension], vec![0.0; self.dimension]);
        for token in tokens {
            // A token without a vector says nothing.
            if self.vectors.copy(*token as usize, &mut vector).is_some() {
                sum.iter_mut().zip(&vector).for_each(|(sum, value)| *sum += value);
            }
        }
        normalise(&mut sum);
        if sum.iter().all(|value| *value == 0.0) {
            sum.copy_from_slice(&self.nothing);
        }
        sum
    }
}
