//! Who is embedded next: questions before documents, and documents in batches so small that nobody waits long for one.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{EmbedError, Embeddings};

/// Questions embedded together at most. The weights are read from memory once for all of them.
const QUERIES_AT_ONCE: usize = 8;

pub(super) type Reply = oneshot::Sender<Result<Embeddings, EmbedError>>;

pub(super) struct Query {
    pub(super) text: String,
    pub(super) reply: Reply,
}

/// Texts as they came in.
pub(super) struct Bulk {
    pub(super) texts: Vec<String>,
    pub(super) reply: Reply,
}

/// Some of the texts of a bulk.
pub(super) struct Batch {
    pub(super) bulk: Arc<RunningBulk>,
    /// Place among the bulk's texts, and what the model reads of it.
    pub(super) texts: Vec<(usize, Vec<u32>)>,
}

pub(super) enum Work {
    Queries(Vec<Query>),
    Bulk(Bulk),
    Batch(Batch),
}

/// What a worker may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Role {
    /// Free whenever a question comes.
    Queries,
    /// Questions first, then documents.
    Everything,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    queries: VecDeque<Query>,
    bulks: VecDeque<Bulk>,
    /// What is left of each bulk that has been begun. They take turns batch by batch, so that a few texts never wait for
    /// somebody's many.
    running: VecDeque<VecDeque<Batch>>,
    closed: bool,
}

impl Queue {
    pub(super) fn push_query(&self, query: Query) {
        self.lock().queries.push_back(query);
        self.changed.notify_all();
    }

    pub(super) fn push_bulk(&self, bulk: Bulk) {
        self.lock().bulks.push_back(bulk);
        self.changed.notify_all();
    }

    /// Takes the batches of one bulk.
    pub(super) fn push_batches(&self, batches: impl IntoIterator<Item = Batch>) {
        self.lock().running.push_front(batches.into_iter().collect());
        self.changed.notify_all();
    }

    /// Ends all workers after what they have in hand; what waits is dropped, which tells those who wait for it.
    pub(super) fn close(&self) {
        *self.lock() = Waiting {
            closed: true,
            ..Waiting::default()
        };
        self.changed.notify_all();
    }

    /// Waits for work that someone still wants; `None` when the queue is closed.
    pub(super) fn next(&self, role: Role) -> Option<Work> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(work) = waiting.take(role) {
                return Some(work);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self, role: Role) -> Option<Work> {
        self.queries.retain(|query| !query.reply.is_closed());
        if !self.queries.is_empty() {
            let count = self.queries.len().min(QUERIES_AT_ONCE);
            return Some(Work::Queries(self.queries.drain(..count).collect()));
        }
        if role == Role::Queries {
            return None;
        }
        while let Some(bulk) = self.bulks.pop_front() {
            if !bulk.reply.is_closed() {
                return Some(Work::Bulk(bulk));
            }
        }
        while let Some(mut batches) = self.running.pop_front() {
            let Some(batch) = batches.pop_front().filter(|batch| batch.bulk.is_wanted()) else {
                continue;
            };
            self.running.push_back(batches);
            return Some(Work::Batch(batch));
        }
        None
    }
}

/// A bulk whose batches are being embedded, by several workers perhaps.
pub(super) struct RunningBulk {
    progress: Mutex<Progress>,
}

struct Progress {
    vectors: Vec<Option<Vec<f32>>>,
    missing: usize,
    tokens: u64,
    /// Gone once answered.
    reply: Option<Reply>,
}

impl RunningBulk {
    pub(super) fn new(texts: usize, tokens: u64, reply: Reply) -> Self {
        let progress = Progress {
            vectors: vec![None; texts],
            missing: texts,
            tokens,
            reply: Some(reply),
        };
        Self {
            progress: Mutex::new(progress),
        }
    }

    /// Takes the vectors of one batch, and answers when they were the last ones; after an error it answers at once.
    pub(super) fn complete(
        &self,
        places: impl Iterator<Item = usize>,
        vectors: Result<Vec<Vec<f32>>, EmbedError>,
    ) {
        let mut progress = self.lock();
        match vectors {
            Ok(vectors) => {
                for (place, vector) in places.zip(vectors) {
                    progress.vectors[place] = Some(vector);
                    progress.missing -= 1;
                }
                if progress.missing == 0
                    && let Some(reply) = progress.reply.take()
                {
                    let vectors = progress.vectors.drain(..).flatten().collect();
                    // Whoever asked may have gone.
                    drop(reply.send(Ok(Embeddings {
                        vectors,
                        tokens: progress.tokens,
                        reported: false,
                    })));
                }
            }
            Err(error) => {
                if let Some(reply) = progress.reply.take() {
                    drop(reply.send(Err(error)));
                }
            }
        }
    }

    fn is_wanted(&self) -> bool {
        self.lock().reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> (Query, oneshot::Receiver<Result<Embeddings, EmbedError>>) {
        let (reply, answer) = oneshot::channel();
        (
            Query {
                text: text.to_owned(),
                reply,
            },
            answer,
        )
    }

    fn bulk(text: &str) -> (Bulk, oneshot::Receiver<Result<Embeddings, EmbedError>>) {
        let (reply, answer) = oneshot::channel();
        (
            Bulk {
                texts: vec![text.to_owned()],
                reply,
            },
            answer,
        )
    }

    fn texts(work: Option<Work>) -> Vec<String> {
        match work {
            Some(Work::Queries(queries)) => queries.into_iter().map(|query| query.text).collect(),
            Some(Work::Bulk(bulk)) => bulk.texts,
            Some(Work::Batch(_)) | None => vec![],
        }
    }

    #[test]
    fn questions_come_before_documents_that_were_there_first() {
        let queue = Queue::default();
        let (document, _document_answer) = bulk("document");
        let (question, _question_answer) = query("question");
        queue.push_bulk(document);
        queue.push_query(question);

        assert_eq!(texts(queue.next(Role::Everything)), ["question"]);
        assert_eq!(texts(queue.next(Role::Everything)), ["document"]);
    }

    #[test]
    fn work_that_nobody_waits_for_is_skipped() {
        let queue = Queue::default();
        for n in 0..3 {
            let (question, answer) = query(&n.to_string());
            let (document, document_answer) = bulk(&n.to_string());
            queue.push_query(question);
            queue.push_bulk(document);
            if n == 1 {
                // These two are kept until the end of the test.
                Box::leak(Box::new((answer, document_answer)));
            }
        }

        assert_eq!(texts(queue.next(Role::Queries)), ["1"]);
        assert_eq!(texts(queue.next(Role::Everything)), ["1"]);
    }

    #[test]
    fn bulks_take_turns_batch_by_batch() {
        let queue = Queue::default();
        let mut answers = Vec::new();
        for (name, count) in [(10, 3), (20, 1), (30, 2)] {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            let bulk = Arc::new(RunningBulk::new(count, 0, reply));
            queue.push_batches((0..count).map(|place| Batch {
                bulk: bulk.clone(),
                texts: vec![(place, vec![name])],
            }));
        }

        let mut order = Vec::new();
        for _ in 0..6 {
            if let Some(Work::Batch(batch)) = queue.next(Role::Everything) {
                order.push(batch.texts[0].1[0]);
            }
        }
        assert_eq!(order, [30, 20, 10, 30, 10, 10], "the one begun last is the next");
    }

    #[test]
    fn a_closed_queue_ends_its_workers_and_drops_what_waits() {
        let queue = Queue::default();
        let (question, mut answer) = query("too late");
        queue.push_query(question);
        queue.close();

        assert!(queue.next(Role::Queries).is_none());
        assert!(queue.next(Role::Everything).is_none());
        assert!(matches!(
            answer.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        ));
    }

    #[test]
    fn a_bulk_is_answered_once_in_the_order_of_its_texts() {
        let (reply, mut answer) = oneshot::channel();
        let bulk = RunningBulk::new(3, 12, reply);

        bulk.complete([2, 0].into_iter(), Ok(vec![vec![2.0], vec![0.0]]));
        assert!(answer.try_recv().is_err(), "one is missing");
        bulk.complete([1].into_iter(), Ok(vec![vec![1.0]]));

        let embeddings = answer.try_recv().expect("an answer").expect("vectors");
        assert_eq!(embeddings.vectors, [[0.0], [1.0], [2.0]]);
        assert_eq!((embeddings.tokens, embeddings.reported), (12, false));
        assert!(!bulk.is_wanted());
    }
}
