//! Jobs that do what a test says, and waiting for what happens beside a test.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use frontdesk::app::App;
use frontdesk::id::TenantId;
use frontdesk::jobs::runner::{self, JobKinds};
use frontdesk::jobs::{self, Job, JobContext, Outcome, Priority};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Long enough for the slowest machine; nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

type Act = Box<dyn Fn(String, i64) -> BoxFuture<'static, Outcome> + Send + Sync>;

struct Script {
    act: Act,
    begun: Mutex<Vec<String>>,
}

static SCRIPTS: LazyLock<Mutex<HashMap<Uuid, Arc<Script>>>> = LazyLock::new(Mutex::default);

/// A job whose deeds are in the test.
#[derive(Serialize, Deserialize)]
pub struct ScriptedJob {
    script: Uuid,
    label: String,
}

impl Job for ScriptedJob {
    const KIND: &'static str = "scripted";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(600);

    async fn run(self, _: App, context: JobContext) -> Outcome {
        let script = lock(&SCRIPTS)
            .get(&self.script)
            .cloned()
            .expect("the test still runs");
        lock(&script.begun).push(self.label.clone());
        (script.act)(self.label, context.attempt).await
    }
}

/// The kinds of jobs that a service under test has besides its own.
pub fn scripted_jobs() -> JobKinds {
    JobKinds::default().with::<ScriptedJob>()
}

/// What all jobs of a test do, and which of them have begun.
pub struct Work(Uuid);

impl Work {
    /// Each job does this; `act` gets its label and the number of the attempt.
    pub fn new<Running>(act: impl Fn(String, i64) -> Running + Send + Sync + 'static) -> Self
    where
        Running: Future<Output = Outcome> + Send + 'static,
    {
        let id = Uuid::now_v7();
        let act: Act = Box::new(move |label, attempt| Box::pin(act(label, attempt)));
        lock(&SCRIPTS).insert(
            id,
            Arc::new(Script {
                act,
                begun: Mutex::default(),
            }),
        );
        Self(id)
    }

    /// Each job succeeds at once.
    pub fn easy() -> Self {
        Self::new(|_, _| async { Outcome::Done })
    }

    pub fn job(&self, label: &str) -> ScriptedJob {
        ScriptedJob {
            script: self.0,
            label: label.to_owned(),
        }
    }

    /// Queues a job.
    pub async fn queue(&self, app: &App, tenant_id: TenantId, label: &str) {
        self.queue_many(app, tenant_id, Priority::Normal, [label]).await;
    }

    /// Queues jobs in one transaction.
    pub async fn queue_many(
        &self,
        app: &App,
        tenant_id: TenantId,
        priority: Priority,
        labels: impl IntoIterator<Item = impl AsRef<str>>,
    ) {
        let mut write = app.db.write(tenant_id).await.expect("a transaction");
        for label in labels {
            jobs::enqueue_at(app, &mut write, tenant_id, &self.job(label.as_ref()), priority)
                .await
                .expect("the job is queued");
        }
        write.commit().await.expect("the jobs are stored");
        app.wake_workers();
    }

    /// The labels of all jobs in the order in which they began; a second attempt counts again.
    pub fn begun(&self) -> Vec<String> {
        let script = lock(&SCRIPTS).get(&self.0).cloned().expect("this exists");
        lock(&script.begun).clone()
    }

    /// Waits until so many attempts have begun.
    pub async fn wait_begun(&self, count: usize) {
        until("jobs begin", async || self.begun().len() >= count).await;
    }

    /// Lets a worker run until `count` further attempts have begun, then ends it as `kill` would; what these were, in
    /// their order.
    pub async fn run_some(&self, app: &App, count: usize) -> Vec<String> {
        let before = self.begun().len();
        let worker = spawn_worker(app);
        self.wait_begun(before + count).await;
        kill(worker).await;
        self.begun()[before..before + count].to_vec()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        lock(&SCRIPTS).remove(&self.0);
    }
}

/// A worker that carries out what is due, one job after another, beside the test.
pub fn spawn_worker(app: &App) -> JoinHandle<usize> {
    let app = app.clone();
    tokio::spawn(async move { runner::drain(&app).await.expect("the queue works") })
}

/// Ends a worker in the midst of what it does, as `kill` would.
pub async fn kill(worker: JoinHandle<usize>) {
    worker.abort();
    let _ = worker.await;
}

/// The workers of a process as `serve` runs them. Dropped, they stop.
pub struct Workers {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Workers {
    pub fn start(app: &App) -> Self {
        let stop = CancellationToken::new();
        let running = tokio::spawn(runner::run(app.clone(), stop.clone(), Duration::from_secs(20)));
        Self { stop, running }
    }

    /// Lets running jobs finish.
    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("the workers end well");
    }
}

/// Waits for `condition`; fails the test when it takes unreasonably long.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
