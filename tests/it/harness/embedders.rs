//! An embedder that a test watches, and takes down, holds up or makes picky.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use retrieval::BoxFuture;
use retrieval::embed::{Asker, EmbedError, Embedder, Embeddings};
use tokio::sync::Semaphore;

use super::app::{USUALLY_UNRELATED, WordEmbedder};
use super::openai::bag_of_words;
use super::work::until;

/// Embeds as [`WordEmbedder`] does, as long as nothing else was said.
pub struct WatchedEmbedder {
    model_id: String,
    fingerprint: Option<String>,
    dimension: usize,
    documents: Mutex<Vec<String>>,
    questions: Mutex<Vec<String>>,
    askers: Mutex<Vec<Asker>>,
    most_questions: AtomicUsize,
    is_down: AtomicBool,
    refusals: AtomicUsize,
    is_held: AtomicBool,
    holds_questions: AtomicBool,
    held: AtomicUsize,
    gate: Semaphore,
}

impl WatchedEmbedder {
    pub fn new() -> Arc<Self> {
        Self::named("watched-words", super::app::DIMENSION)
    }

    /// One whose vectors another model's index cannot hold.
    pub fn named(model_id: &str, dimension: usize) -> Arc<Self> {
        Self::with_fingerprint(model_id, dimension, None)
    }

    /// One that says which weights it has.
    pub fn with_fingerprint(model_id: &str, dimension: usize, fingerprint: Option<&str>) -> Arc<Self> {
        Arc::new(Self {
            model_id: model_id.to_owned(),
            fingerprint: fingerprint.map(str::to_owned),
            dimension,
            documents: Mutex::default(),
            questions: Mutex::default(),
            askers: Mutex::default(),
            most_questions: AtomicUsize::new(usize::MAX),
            is_down: AtomicBool::new(false),
            refusals: AtomicUsize::new(0),
            is_held: AtomicBool::new(false),
            holds_questions: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        })
    }

    /// Does not answer until it is told otherwise.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Answers so many questions, and none then.
    pub fn answer_questions(&self, count: usize) {
        self.most_questions.store(count, Ordering::SeqCst);
    }

    /// The questions that were answered since the last look.
    pub fn take_questions(&self) -> Vec<String> {
        std::mem::take(&mut *self.questions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// For whom it was asked since the last look, call by call.
    pub fn take_askers(&self) -> Vec<Asker> {
        std::mem::take(&mut *self.askers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Refuses the next so many calls.
    pub fn refuse(&self, calls: usize) {
        self.refusals.store(calls, Ordering::SeqCst);
    }

    /// From now on texts of documents wait until [`WatchedEmbedder::let_one_go`].
    pub fn hold(&self) {
        self.is_held.store(true, Ordering::SeqCst);
    }

    /// From now on questions wait until [`WatchedEmbedder::let_one_go`].
    pub fn hold_questions(&self) {
        self.holds_questions.store(true, Ordering::SeqCst);
    }

    /// Waits until so many calls wait.
    pub async fn wait_held(&self, count: usize) {
        until("the embedder is asked", async || {
            self.held.load(Ordering::SeqCst) >= count
        })
        .await;
    }

    /// Lets the first call go on when it waits, and waits until the next one does. It holds already.
    pub async fn let_first_pass(&self) {
        self.wait_held(1).await;
        self.let_one_go();
        self.hold();
        self.wait_held(2).await;
    }

    /// Lets one call after the other go on until this is reached; the next one waits. It holds already.
    pub async fn let_pass_until(&self, mut is_reached: impl AsyncFnMut() -> bool) {
        let mut calls = 0;
        while !is_reached().await {
            calls += 1;
            self.wait_held(calls).await;
            self.let_one_go();
            self.hold();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Lets the call that waits longest go on; new ones do not wait any more.
    pub fn let_one_go(&self) {
        self.is_held.store(false, Ordering::SeqCst);
        self.holds_questions.store(false, Ordering::SeqCst);
        self.gate.add_permits(1);
    }

    /// The calls that wait go on waiting; new ones do not.
    pub fn let_others_pass(&self) {
        self.is_held.store(false, Ordering::SeqCst);
    }

    /// The texts of documents that were embedded since the last look.
    pub fn take_documents(&self) -> Vec<String> {
        std::mem::take(&mut *self.documents.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, asker: Asker) {
        self.askers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(asker);
    }

    fn embed(&self, texts: Vec<String>) -> Result<Embeddings, EmbedError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(EmbedError::Unavailable {
                retry_after: Some(Duration::from_secs(10)),
                source: "nobody answers".into(),
            });
        }
        let take_one = |left: usize| left.checked_sub(1);
        if self
            .refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one)
            .is_ok()
        {
            return Err(EmbedError::Refused {
                reason: "not to my taste".to_owned(),
            });
        }
        let tokens = texts.iter().map(|text| self.count_tokens(text) as u64).sum();
        let vectors = texts
            .iter()
            .map(|text| bag_of_words(text, self.dimension))
            .collect();
        Ok(Embeddings {
            vectors,
            tokens,
            reported: false,
        })
    }
}

impl Embedder for WatchedEmbedder {
    fn model_id(&self) -> &str {
        &self.model_id
    }

    fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn max_tokens(&self) -> usize {
        WordEmbedder.max_tokens()
    }

    fn count_tokens(&self, text: &str) -> usize {
        WordEmbedder.count_tokens(text)
    }

    fn unrelated(&self) -> BoxFuture<'_, Result<f32, EmbedError>> {
        Box::pin(async { Ok(USUALLY_UNRELATED) })
    }

    fn embed_query(&self, asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        self.note(asker);
        Box::pin(async move {
            if self.holds_questions.load(Ordering::SeqCst) {
                self.held.fetch_add(1, Ordering::SeqCst);
                self.gate.acquire().await.expect("open").forget();
            }
            let take_one = |left: usize| left.checked_sub(1);
            let left = self
                .most_questions
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one);
            left.map_err(|_| EmbedError::Unavailable {
                retry_after: None,
                source: "no more questions".into(),
            })?;
            let embeddings = self.embed(vec![text.clone()])?;
            self.questions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(text);
            Ok(embeddings)
        })
    }

    fn embed_documents(
        &self,
        asker: Asker,
        texts: Vec<String>,
    ) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        self.note(asker);
        Box::pin(async move {
            if self.is_held.load(Ordering::SeqCst) {
                self.held.fetch_add(1, Ordering::SeqCst);
                self.gate.acquire().await.expect("open").forget();
            }
            let embeddings = self.embed(texts.clone())?;
            self.documents
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(texts);
            Ok(embeddings)
        })
    }
}
