//! Who is embedded next: questions before documents, tenants in turns, and what is computed at once so small that nobody
//! waits long for it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::turns::Turns;
use super::{Asker, EmbedError, Embeddings};

/// Questions embedded together at most. The weights are read from memory once for all of them.
const QUERIES_AT_ONCE: usize = 8;

/// Bytes of questions embedded together, where there are several: about as many as the model reads of a single one. The next
/// one's question waits for no more than that.
const QUERY_BYTES_AT_ONCE: usize = 1024;

pub(super) type Reply = oneshot::Sender<Result<Embeddings, EmbedError>>;

pub(super) struct Query {
    pub(super) asker: Asker,
    pub(super) text: String,
    pub(super) reply: Reply,
}

/// Texts as they came in.
pub(super) struct Bulk {
    pub(super) asker: Asker,
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
    queries: Turns<Query>,
    bulks: Turns<Bulk>,
    /// What is left of each bulk that has been begun. Those of one asker take turns as well, batch by batch, so that a few
    /// texts never wait for many.
    running: Turns<VecDeque<Batch>>,
    closed: bool,
}

impl Queue {
    pub(super) fn push_query(&self, query: Query) {
        self.lock().queries.push(query.asker, query);
        self.changed.notify_all();
    }

    pub(super) fn push_bulk(&self, bulk: Bulk) {
        self.lock().bulks.push(bulk.asker, bulk);
        self.changed.notify_all();
    }

    /// Takes the batches of one bulk.
    pub(super) fn push_batches(&self, asker: Asker, batches: impl IntoIterator<Item = Batch>) {
        self.lock().running.push(asker, batches.into_iter().collect());
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
        let queries = self.take_queries();
        if !queries.is_empty() {
            return Some(Work::Queries(queries));
        }
        if role == Role::Queries {
            return None;
        }
        while let Some((_, bulk)) = self.bulks.pop() {
            if !bulk.reply.is_closed() {
                return Some(Work::Bulk(bulk));
            }
        }
        while let Some((asker, mut batches)) = self.running.pop() {
            let Some(batch) = batches.pop_front().filter(|batch| batch.bulk.is_wanted()) else {
                continue;
            };
            if !batches.is_empty() {
                self.running.push(asker, batches);
            }
            return Some(Work::Batch(batch));
        }
        None
    }

    /// The next questions, as many as are embedded together.
    fn take_queries(&mut self) -> Vec<Query> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < QUERIES_AT_ONCE {
            let fits = |query: &Query| taken.is_empty() || bytes + query.text.len() <= QUERY_BYTES_AT_ONCE;
            let Some((_, query)) = self.queries.pop_if(fits) else {
                break;
            };
            bytes += query.text.len();
            taken.push(query);
        }
        taken
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
    use uuid::Uuid;

    use super::*;
    use crate::TenantId;

    type Answer = oneshot::Receiver<Result<Embeddings, EmbedError>>;

    fn asker(number: u128) -> Asker {
        Asker::Tenant(TenantId(Uuid::from_u128(number)))
    }

    fn query_of(asker: Asker, text: &str) -> (Query, Answer) {
        let (reply, answer) = oneshot::channel();
        let text = text.to_owned();
        (Query { asker, text, reply }, answer)
    }

    fn query(text: &str) -> (Query, Answer) {
        query_of(Asker::Service, text)
    }

    fn bulk(text: &str) -> (Bulk, Answer) {
        let (reply, answer) = oneshot::channel();
        let bulk = Bulk {
            asker: Asker::Service,
            texts: vec![text.to_owned()],
            reply,
        };
        (bulk, answer)
    }

    /// Begins a bulk of so many batches, all of the one text `name`.
    fn begin(queue: &Queue, asker: Asker, name: u32, count: usize) -> Answer {
        let (reply, answer) = oneshot::channel();
        let bulk = Arc::new(RunningBulk::new(count, 0, reply));
        let batch = |place| Batch {
            bulk: bulk.clone(),
            texts: vec![(place, vec![name])],
        };
        queue.push_batches(asker, (0..count).map(batch));
        answer
    }

    /// The names of the bulks whose batches come next.
    fn names(queue: &Queue, count: usize) -> Vec<u32> {
        let next = (0..count).filter_map(|_| match queue.next(Role::Everything) {
            Some(Work::Batch(batch)) => Some(batch.texts[0].1[0]),
            Some(Work::Queries(_) | Work::Bulk(_)) | None => None,
        });
        next.collect()
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
    fn a_tenants_question_waits_for_one_of_each_others_however_many_these_ask() {
        let queue = Queue::default();
        let long = "x".repeat(8000);
        let mut answers = Vec::new();
        for _ in 0..32 {
            let (question, answer) = query_of(asker(1), &long);
            queue.push_query(question);
            answers.push(answer);
        }
        let (question, _answer) = query_of(asker(2), "short");
        queue.push_query(question);

        assert_eq!(texts(queue.next(Role::Queries)), [long.as_str()]);
        assert_eq!(texts(queue.next(Role::Queries)), ["short"]);
        assert_eq!(texts(queue.next(Role::Queries)), [long.as_str()]);
    }

    #[test]
    fn short_questions_are_embedded_together_and_long_ones_alone() {
        let queue = Queue::default();
        let long = "x".repeat(QUERY_BYTES_AT_ONCE);
        let mut answers = Vec::new();
        let mut ask = |tenant, text: &str| {
            let (question, answer) = query_of(asker(tenant), text);
            queue.push_query(question);
            answers.push(answer);
        };
        (0..10).for_each(|tenant| ask(tenant, "short"));
        ask(10, &long);

        assert_eq!(texts(queue.next(Role::Queries)).len(), QUERIES_AT_ONCE);
        assert_eq!(texts(queue.next(Role::Queries)), ["short"; 2]);
        assert_eq!(texts(queue.next(Role::Queries)), [long]);
    }

    #[test]
    fn tenants_take_turns_whatever_the_number_of_their_bulks() {
        let queue = Queue::default();
        let _answers = [
            begin(&queue, asker(1), 10, 2),
            begin(&queue, asker(1), 11, 2),
            begin(&queue, asker(1), 12, 1),
            begin(&queue, asker(2), 20, 3),
        ];

        assert_eq!(names(&queue, 8), [10, 20, 11, 20, 12, 20, 10, 11]);
    }

    #[test]
    fn bulks_of_one_tenant_take_turns_batch_by_batch() {
        let queue = Queue::default();
        let _answers = [
            begin(&queue, asker(1), 10, 3),
            begin(&queue, asker(1), 20, 1),
            begin(&queue, asker(1), 30, 2),
        ];

        assert_eq!(names(&queue, 6), [10, 20, 30, 10, 30, 10]);
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
