//! The model on this machine: threads of its own, one of them always free for questions.

use std::borrow::Cow;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;

use super::encoder::Encoder;
use super::fingerprint;
use super::matrix::Precision;
use super::model::{Model, Prefixes, SPECIAL_PIECES, usual_prefixes};
use super::queue::{Batch, Bulk, Query, Queue, Role, RunningBulk, Work};
use super::tokenizer::{LoadError, Tokenizer};
use super::weights::Weights;
use super::{Asker, EmbedError, Embedder, Embeddings};
use crate::BoxFuture;
use crate::analysis::Language;

/// Word pieces of one batch of documents: some tens of milliseconds of work, enough to read the weights for.
const BATCH_PIECES: usize = 512;

/// Word pieces of a question that are read at most, special ones and those of its prefix included. A paragraph says what is
/// looked for; more would cost others their turn and bring nothing.
const QUERY_PIECES: usize = 256;

/// How a local model is run.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// At least two are started: the first takes questions only, the others documents too.
    pub threads: usize,
    pub precision: Precision,
    /// What stands before a text; `None`: what the model's own files say.
    pub query_prefix: Option<String>,
    pub document_prefix: Option<String>,
}

impl Default for LocalOptions {
    /// One thread for questions and one for documents, the weights as they are, the model's own prefixes.
    fn default() -> Self {
        Self {
            threads: 2,
            precision: Precision::F32,
            query_prefix: None,
            document_prefix: None,
        }
    }
}

/// A sentence-transformers model of the BERT family, computed on the CPU: all-MiniLM, BGE, E5, the first GTE and their kin.
pub struct LocalEmbedder {
    model_id: String,
    fingerprint: String,
    lacking: Option<Prefixes>,
    engine: Arc<Engine>,
}

/// What the workers share.
struct Engine {
    tokenizer: Tokenizer,
    encoder: Encoder,
    prefixes: Prefixes,
    /// Of one text, special ones and those of its prefix included.
    max_pieces: usize,
    queue: Queue,
}

impl LocalEmbedder {
    /// Loads a model directory (`config.json`, `tokenizer.json`, `model.safetensors`, and what sentence-transformers puts
    /// beside them), whose name is the model's id.
    ///
    /// all-MiniLM-L6-v2 takes about 110 MiB, or 45 as [`Precision::Int8`]. Blocks while it reads.
    pub fn load(dir: &Path, options: LocalOptions) -> Result<Self, LoadError> {
        let Some(name) = dir.file_name() else {
            return Err(LoadError::unusable(
                dir,
                "the directory has no name to call the model by",
            ));
        };
        let tokenizer = Tokenizer::load(&dir.join("tokenizer.json"))?;
        let model = Model::load(dir)?;
        let encoder = load_encoder(dir, &model, options.precision)?;
        let prefixes = Prefixes {
            query: options
                .query_prefix
                .unwrap_or_else(|| model.prefixes.query.clone()),
            document: options
                .document_prefix
                .unwrap_or_else(|| model.prefixes.document.clone()),
        };
        let model_id = name.to_string_lossy().into_owned();
        let lacking = usual_prefixes(&model_id)
            .or_else(|| usual_prefixes(&model.name))
            .filter(|usual| prefixes.lack(usual));
        let settings = fingerprint::encoder_settings(&model, &prefixes, options.precision);
        let fingerprint = fingerprint::of_directory(dir, &settings)?;
        let engine = Arc::new(Engine {
            tokenizer,
            encoder,
            prefixes,
            max_pieces: model.max_pieces,
            queue: Queue::default(),
        });
        // Made first: when one of several threads cannot be started, its end closes the queue for the others.
        let embedder = Self {
            model_id,
            fingerprint,
            lacking,
            engine,
        };
        for number in 0..options.threads.max(2) {
            let role = if number == 0 {
                Role::Queries
            } else {
                Role::Everything
            };
            let engine = embedder.engine.clone();
            thread::Builder::new()
                .name(format!("embed-{number}"))
                .spawn(move || engine.work(role))
                .map_err(|error| LoadError::unusable(dir, error))?;
        }
        Ok(embedder)
    }

    /// What models of this one's family read before texts, where neither its files nor the options say anything: without that
    /// it finds worse.
    pub fn lacking_prefixes(&self) -> Option<&Prefixes> {
        self.lacking.as_ref()
    }

    /// The model's tokenizer, for counting without going through the trait.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.engine.tokenizer
    }
}

/// Reads and packs the weights of a model directory.
pub(super) fn load_encoder(dir: &Path, model: &Model, precision: Precision) -> Result<Encoder, LoadError> {
    let path = dir.join("model.safetensors");
    let weights = Weights::load(&path)?;
    Encoder::load(&weights, &model.architecture, model.pooling, precision)
        .map_err(|error| LoadError::unusable(&path, error))
}

impl Embedder for LocalEmbedder {
    fn model_id(&self) -> &str {
        &self.model_id
    }

    fn fingerprint(&self) -> Option<&str> {
        Some(&self.fingerprint)
    }

    fn dimension(&self) -> usize {
        self.engine.encoder.dimension()
    }

    fn max_tokens(&self) -> usize {
        let prefix = self.engine.tokenizer.count(&self.engine.prefixes.document);
        self.engine.max_pieces.saturating_sub(SPECIAL_PIECES + prefix)
    }

    fn query_prefix(&self) -> &str {
        &self.engine.prefixes.query
    }

    fn document_prefix(&self) -> &str {
        &self.engine.prefixes.document
    }

    fn languages(&self) -> Option<&[Language]> {
        self.engine.tokenizer.languages()
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.engine.tokenizer.count(text)
    }

    fn embed_query(&self, asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.engine.queue.push_query(Query { asker, text, reply });
            answer.await.map_err(EmbedError::unavailable)?
        })
    }

    fn embed_documents(
        &self,
        asker: Asker,
        texts: Vec<String>,
    ) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            if texts.is_empty() {
                return Ok(Embeddings {
                    vectors: vec![],
                    tokens: 0,
                    reported: false,
                });
            }
            let (reply, answer) = oneshot::channel();
            self.engine.queue.push_bulk(Bulk { asker, texts, reply });
            answer.await.map_err(EmbedError::unavailable)?
        })
    }
}

impl Drop for LocalEmbedder {
    fn drop(&mut self) {
        self.engine.queue.close();
    }
}

impl Engine {
    fn work(&self, role: Role) {
        while let Some(work) = self.queue.next(role) {
            // A panic costs its caller the answer, which the dropped reply tells, and never the thread.
            let done = panic::catch_unwind(AssertUnwindSafe(|| match work {
                Work::Queries(queries) => self.answer(queries),
                Work::Bulk(bulk) => self.begin(bulk),
                Work::Batch(batch) => self.compute(batch),
            }));
            if done.is_err() {
                tracing::error!("embedding ended in a panic");
            }
        }
    }

    fn answer(&self, queries: Vec<Query>) {
        let texts: Vec<&str> = queries.iter().map(|query| query.text.as_str()).collect();
        let computed = self
            .read(&texts, |text| self.read_question(text))
            .and_then(|pieces| Ok((self.vectors(&pieces)?, pieces)));
        match computed {
            Ok((vectors, pieces)) => {
                for ((query, vector), pieces) in queries.into_iter().zip(vectors).zip(pieces) {
                    let embeddings = Embeddings {
                        vectors: vec![vector],
                        tokens: tokens(&pieces),
                        reported: false,
                    };
                    drop(query.reply.send(Ok(embeddings)));
                }
            }
            Err(error) => {
                let reason = error.to_string();
                queries
                    .into_iter()
                    .for_each(|query| drop(query.reply.send(Err(EmbedError::unavailable(reason.clone())))));
            }
        }
    }

    /// Cuts a bulk into batches for all workers.
    fn begin(&self, bulk: Bulk) {
        let texts: Vec<&str> = bulk.texts.iter().map(String::as_str).collect();
        let pieces = match self.read(&texts, |text| self.read_document(text)) {
            Ok(pieces) => pieces,
            Err(error) => return drop(bulk.reply.send(Err(error))),
        };
        let count = pieces.iter().map(|pieces| tokens(pieces)).sum();
        let asker = bulk.asker;
        let running = Arc::new(RunningBulk::new(pieces.len(), count, bulk.reply));
        let batches = into_batches(pieces).into_iter().map(|texts| Batch {
            bulk: running.clone(),
            texts,
        });
        self.queue.push_batches(asker, batches);
    }

    fn compute(&self, batch: Batch) {
        let (places, pieces): (Vec<usize>, Vec<Vec<u32>>) = batch.texts.into_iter().unzip();
        // A panic must not leave the bulk waiting for this batch for ever.
        let computed = panic::catch_unwind(AssertUnwindSafe(|| self.vectors(&pieces)))
            .unwrap_or_else(|_| Err(EmbedError::unavailable("embedding ended in a panic")));
        batch.bulk.complete(places.into_iter(), computed);
    }

    /// What the model reads of each text.
    fn read(
        &self,
        texts: &[&str],
        read_one: impl Fn(&str) -> Result<Vec<u32>, tokenizers::Error>,
    ) -> Result<Vec<Vec<u32>>, EmbedError> {
        let pieces: Result<_, _> = texts.iter().map(|text| read_one(text)).collect();
        pieces.map_err(EmbedError::unavailable)
    }

    fn read_question(&self, text: &str) -> Result<Vec<u32>, tokenizers::Error> {
        let most = self.max_pieces.min(QUERY_PIECES) - SPECIAL_PIECES;
        self.tokenizer
            .encode_ends(&with_prefix(&self.prefixes.query, text), most)
    }

    fn read_document(&self, text: &str) -> Result<Vec<u32>, tokenizers::Error> {
        let most = self.max_pieces - SPECIAL_PIECES;
        self.tokenizer
            .encode(&with_prefix(&self.prefixes.document, text), most)
    }

    fn vectors(&self, pieces: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let texts: Vec<&[u32]> = pieces.iter().map(Vec::as_slice).collect();
        self.encoder.embed(&texts).map_err(EmbedError::unavailable)
    }
}

fn with_prefix<'a>(prefix: &str, text: &'a str) -> Cow<'a, str> {
    if prefix.is_empty() {
        text.into()
    } else {
        format!("{prefix}{text}").into()
    }
}

/// Tokens of a text without the two special ones.
fn tokens(pieces: &[u32]) -> u64 {
    pieces.len().saturating_sub(SPECIAL_PIECES) as u64
}

/// Neighbouring texts, of at most [`BATCH_PIECES`] together or a single one, each with its place.
fn into_batches(pieces: Vec<Vec<u32>>) -> Vec<Vec<(usize, Vec<u32>)>> {
    let mut batches: Vec<Vec<(usize, Vec<u32>)>> = Vec::new();
    let mut in_last = 0;
    for text in pieces.into_iter().enumerate() {
        let length = text.1.len();
        match batches.last_mut() {
            Some(batch) if in_last + length <= BATCH_PIECES => {
                batch.push(text);
                in_last += length;
            }
            _ => {
                batches.push(vec![text]);
                in_last = length;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn batches_hold_every_text_once_and_stay_small(lengths in prop::collection::vec(2_usize..=256, 0..200)) {
            let batches = into_batches(lengths.iter().map(|length| vec![7; *length]).collect());

            let places: Vec<usize> = batches.iter().flatten().map(|(place, _)| *place).collect();
            prop_assert_eq!(places, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                let together: usize = batch.iter().map(|(_, pieces)| pieces.len()).sum();
                prop_assert!(together <= BATCH_PIECES);
            }
        }
    }
}
