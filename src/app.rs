//! The composition root: builds every long-lived part, once, and hands them around as one cheap handle.

mod background;
mod data_dir;
mod denial;
mod disk;
pub(crate) mod embedder;
mod extractor;
pub(crate) mod index;
mod makings;
mod remembered;
mod reranker;
mod space;
mod start;
mod unopened;

use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ingest::loader::web::{RenderSettings, Renderer, WebLoader, WebSettings};
use ingest::sandbox::ExtractorPool;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use outbound::{Guard, GuardedClient};
use retrieval::embed::Embedder;
use retrieval::rerank::Reranker;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::db::{self, Db};
use crate::http::rate::RateLimits;
use crate::id::TenantId;
use crate::integrations::google::Google;
use crate::jobs::runner::JobKinds;
use crate::knowledge::RowScans;
use crate::knowledge::chunks::Previews;
use crate::knowledge::embedding_cache::EmbeddingCache;
use crate::knowledge::files::FileStore;
use crate::knowledge::sync::Nowhere;
use crate::llm::ChatModel;
use crate::llm::openai::OpenAiModel;
use crate::places::Places;
use crate::rest::SharedRest;
use crate::secrets::Keyring;
use crate::tenancy::foreign::ForeignTokens;
use crate::tenancy::tokens::TokenKeys;
use crate::usage::journal::Journal;
use crate::usage::price_book::PriceBook;

pub use data_dir::adopt as adopt_data_dir;
pub use denial::Denial;
pub use disk::{Disk, FreeBytes};
pub(crate) use makings::share_noting;
pub use space::{AroundIndex, INDEX_OF_ANOTHER, Space, Spaces};
pub use start::GOES_WITH_CONVERSATIONS;

/// Idle connections of the client for addresses that the operator configured.
const CLIENT_IDLE: Duration = Duration::from_secs(60);

/// How long answers that are being saved may hold up the end of the service.
const TASKS_END: Duration = Duration::from_secs(10);

/// Browsers at once, where pages are rendered.
const BROWSERS: usize = 2;

/// The running service. Clones share everything.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// Every long-lived part.
pub struct Parts {
    pub config: Config,
    pub db: Db,
    pub clock: SharedClock,
    /// Seals what tenants entrust to us.
    pub keyring: Keyring,
    /// Where requests that a tenant named may go.
    pub guard: Guard,
    pub token_keys: TokenKeys,
    pub foreign_tokens: ForeignTokens,
    pub google: Google,
    pub rate_limits: RateLimits,
    pub job_kinds: JobKinds,
    /// False: this process carries out a command, and what recurs is left to the service.
    pub is_service: bool,
    /// Rings when this process queued work.
    pub worker_wake: Notify,
    /// Embedding models with the indexes of their vectors.
    pub spaces: Spaces,
    /// None: passages are in the order of the search.
    pub reranker: Option<Arc<dyn Reranker>>,
    /// Embeddings that were made before.
    pub embedding_cache: EmbeddingCache,
    /// Whether the reranker is asked at present.
    pub reranker_rest: SharedRest,
    /// Questions for which rows are read, since an index does not answer.
    pub row_scans: RowScans,
    pub extractor: ExtractorPool,
    /// Texts that are cut for show.
    pub previews: Previews,
    pub files: FileStore,
    /// What is left of the data folder's room.
    pub disk: Disk,
    /// Reads websites, for all tenants.
    pub web: WebLoader,
    /// What websites show where there is nothing.
    pub nowhere: Nowhere,
    /// None: no model is configured, and answers are extracts.
    pub model: Option<Arc<dyn ChatModel>>,
    pub prices: PriceBook,
    /// Questions that are being embedded; none where that costs nothing.
    pub journal: Option<Journal>,
    /// Turns that may run at once.
    pub turns: Places<TenantId>,
    /// Work that goes on when the request that began it has ended, such as saving an answer whose client left. The
    /// database stays open for it.
    pub tasks: TaskTracker,
    /// Streams of sources' progress that may be open at once.
    pub source_streams: Arc<Semaphore>,
    /// Cancelled when the server begins to stop.
    pub stopping: CancellationToken,
    /// Cancelled when the time to finish is over: turns end where they are.
    pub ending: CancellationToken,
    pub metrics: PrometheusHandle,
    /// Held until the service is closed, so that no second process works in the same folder.
    data_lock: Mutex<Option<File>>,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What the parts are opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The service: what a start finds is taken up.
    Serve,
    /// The same without workers: others of its processes do the work.
    Answer,
    /// A command: nothing that is found is taken up, or changed.
    Look,
    /// A command that puts the index right.
    Repair,
}

impl Purpose {
    pub(crate) fn is_service(self) -> bool {
        matches!(self, Self::Serve | Self::Answer)
    }

    /// Whether what is damaged is put aside and made anew.
    fn mends(self) -> bool {
        self != Self::Look
    }
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting, or what it names, is wrong: change it.
    #[error("{0}")]
    Setting(String),
    /// Another process works in the same data folder.
    #[error(
        "{dir} is in use by another frontdesk process, and a data folder serves one at a time: stop the other one, \
         or give this one a folder of its own with --data-dir; one process runs the API and the workers with --role all"
    )]
    InUse { dir: String },
    /// Something that the service depends on failed.
    #[error("{0}")]
    Failed(String),
}

/// What tests replace.
#[derive(Default)]
pub struct Replacements {
    pub clock: Option<SharedClock>,
    pub embedder: Option<Arc<dyn Embedder>>,
    /// Embedders of earlier configurations, that go before what is remembered of them.
    pub earlier_embedders: Vec<Arc<dyn Embedder>>,
    /// Stands between the service and the index of the configured model.
    pub around_index: Option<AroundIndex>,
    /// The program that reads documents, where it is not this one.
    pub extractor_program: Option<PathBuf>,
    /// Kinds of jobs besides the service's own.
    pub more_jobs: JobKinds,
    /// Measures the room in the data folder.
    pub free_bytes: Option<FreeBytes>,
}

impl App {
    /// Builds the service to run it: opens the database and the index, loads the model, and takes up what a start finds, such
    /// as another embedding model in the configuration, or an index that was lost.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        Self::build_with(config, Replacements::default()).await
    }

    /// Like [`App::build`], with parts replaced.
    pub async fn build_with(config: Config, replacements: Replacements) -> Result<Self, StartError> {
        Self::build_for(Purpose::Serve, config, replacements).await
    }

    /// As [`App::build`], for a process without workers.
    pub async fn build_to_answer(config: Config) -> Result<Self, StartError> {
        Self::build_to_answer_with(config, Replacements::default()).await
    }

    /// Like [`App::build_to_answer`], with parts replaced.
    pub async fn build_to_answer_with(
        config: Config,
        replacements: Replacements,
    ) -> Result<Self, StartError> {
        Self::build_for(Purpose::Answer, config, replacements).await
    }

    async fn build_for(
        purpose: Purpose,
        config: Config,
        replacements: Replacements,
    ) -> Result<Self, StartError> {
        let app = Self::open(config, replacements, purpose).await?;
        app.take_up().await?;
        Ok(app)
    }

    /// Opens the same parts for a command that looks or does one thing. Nothing is taken up, begun, given up or booked: the
    /// settings in the shell of whoever types it need not be those of the service.
    pub async fn build_to_look(config: Config) -> Result<Self, StartError> {
        Self::build_to_look_with(config, Replacements::default()).await
    }

    /// Like [`App::build_to_look`], with parts replaced.
    pub async fn build_to_look_with(config: Config, replacements: Replacements) -> Result<Self, StartError> {
        Self::open(config, replacements, Purpose::Look).await
    }

    /// As [`App::build_to_look`], for a command that puts the index right: what of it is damaged is put aside.
    pub async fn build_to_repair(config: Config) -> Result<Self, StartError> {
        Self::build_to_repair_with(config, Replacements::default()).await
    }

    /// Like [`App::build_to_repair`], with parts replaced.
    pub async fn build_to_repair_with(
        config: Config,
        replacements: Replacements,
    ) -> Result<Self, StartError> {
        Self::open(config, replacements, Purpose::Repair).await
    }

    async fn open(config: Config, replacements: Replacements, purpose: Purpose) -> Result<Self, StartError> {
        data_dir::prepare(&config)?;
        let data_lock = data_dir::lock(&config)?;
        let disk = Disk::new(&config, replacements.free_bytes);
        disk.check_start()?;
        let keyring = Keyring::open(&config.secrets.key, &config.data_dir).map_err(StartError::Setting)?;
        let prices = PriceBook::load(&config.llm.price_book)
            .map_err(|problem| StartError::Setting(format!("llm.price_book: {problem}")))?;
        let db = open_database(&config).await?;
        data_dir::check_owner(&config, &db).await?;
        let embedder = match replacements.embedder {
            Some(embedder) => Some(embedder),
            None => embedder::load(&config).await?,
        };
        let clock: SharedClock = replacements.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let spaces = Spaces::open(
            &config,
            &db,
            embedder,
            replacements.earlier_embedders,
            replacements.around_index,
            (purpose, clock.now()),
        )
        .await?;
        let model: Option<Arc<dyn ChatModel>> = if config.llm.base_url.is_empty() {
            None
        } else {
            Some(Arc::new(
                OpenAiModel::new(&config.llm)
                    .map_err(|error| StartError::Setting(format!("llm: {error}")))?,
            ))
        };
        let reranker = reranker::open(&config, model.as_ref())?;
        let unusable = |error| {
            let dir = config.data_dir.display();
            StartError::Failed(format!("cannot use the data folder {dir}: {error}"))
        };
        let files = FileStore::open(&config.data_dir, disk.clone()).map_err(unusable)?;
        let is_paid = config.embedding.is_remote() || reranker.is_some();
        let journal = is_paid.then(|| Journal::open(&config.data_dir)).transpose();
        let journal = journal.map_err(unusable)?;
        let client = operator_client()
            .map_err(|error| StartError::Failed(format!("cannot make an HTTP client: {error}")))?;
        let extractor = extractor::open(&config, replacements.extractor_program, client.clone())?;
        let app = Self(Arc::new(Parts {
            token_keys: TokenKeys::new(&keyring),
            foreign_tokens: ForeignTokens::new(&config.auth.jwt, client.clone()),
            google: google(&config, client, clock.clone())?,
            web: web_loader(&config)?,
            nowhere: Nowhere::default(),
            guard: guard(&config),
            keyring,
            rate_limits: RateLimits::default(),
            job_kinds: match purpose {
                Purpose::Serve | Purpose::Answer => start::jobs_of_the_service(replacements.more_jobs),
                Purpose::Look | Purpose::Repair => start::jobs_of_commands(replacements.more_jobs),
            },
            is_service: purpose.is_service(),
            worker_wake: Notify::new(),
            clock,
            turns: Places::new(config.chat.max_streams, config.chat.max_streams_per_tenant),
            tasks: TaskTracker::new(),
            previews: Previews::new(config.extract.previews),
            source_streams: Arc::new(Semaphore::new(config.limits.source_streams)),
            stopping: CancellationToken::new(),
            ending: CancellationToken::new(),
            metrics: metrics_handle()?,
            config,
            db,
            spaces,
            reranker,
            embedding_cache: EmbeddingCache::default(),
            reranker_rest: SharedRest::default(),
            row_scans: RowScans::default(),
            extractor,
            files,
            disk,
            model,
            prices,
            journal,
            data_lock: Mutex::new(Some(data_lock)),
        }));
        Ok(app)
    }

    /// Tells this process' workers that there is something to do. Others find it when they poll.
    pub fn wake_workers(&self) {
        self.worker_wake.notify_waiters();
    }

    /// The space of this name.
    pub async fn space(&self, name: &str) -> crate::error::Result<Arc<Space>> {
        let now = self.clock.now();
        self.reopen_when_due(name, now);
        self.spaces.get(&self.config, &self.db, name, now).await
    }

    /// The space of this name for the sake of its index: its model need not be loaded.
    pub async fn space_for_index(&self, name: &str) -> crate::error::Result<Arc<Space>> {
        let now = self.clock.now();
        self.reopen_when_due(name, now);
        self.spaces.get_for_index(&self.config, &self.db, name, now).await
    }

    /// Has an index that did not open tried again; who asked does not wait for it.
    pub(crate) fn reopen_when_due(&self, name: &str, now: DateTime<Utc>) {
        if !self.spaces.is_due_to_open(name, now) {
            return;
        }
        let (app, name) = (self.clone(), name.to_owned());
        self.tasks.spawn(async move {
            if let Err(error) = app.spaces.reopen(&app.config, &app.db, &name, now).await {
                tracing::error!(error = ?error, space = name, "cannot try an index again that did not open");
            }
        });
    }

    /// Remembers how the configured embedding model is loaded.
    pub(crate) async fn remember_space(&self) -> crate::error::Result<()> {
        let wanted = self.spaces.wanted();
        remembered::remember(&self.config, &self.db, &wanted, self.clock.now()).await?;
        self.note_making(&wanted).await
    }

    /// Gives back everything in order: turns that still run are ended and saved, then index and database are closed.
    pub async fn close(&self) {
        self.ending.cancel();
        self.tasks.close();
        if timeout(TASKS_END, self.tasks.wait()).await.is_err() {
            tracing::error!(
                tasks = self.tasks.len(),
                "closing although answers are still being saved: upkeep will end them as interrupted"
            );
        }
        self.spaces.close().await;
        self.db.close().await;
        let lock = self
            .data_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // In so many words: a child that was just forked shares the file, and would keep a lock that falls by closing.
        if let Some(Err(error)) = lock.map(|lock| lock.unlock()) {
            tracing::warn!(%error, "cannot give the data folder back; the end of this process will");
        }
    }
}

/// Opens the configured database and brings its schema up to date.
pub async fn open_database(config: &Config) -> Result<Db, StartError> {
    let limits = db::Limits {
        connections: config.database.max_connections,
        statement: Duration::from_secs(config.database.statement_timeout_s),
    };
    Db::open(&config.database_url(), limits).await.map_err(|error| {
        tracing::debug!(error = ?error, "cannot open the database");
        StartError::Failed(format!(
            "database.url: cannot open the database: {}",
            innermost(&error)
        ))
    })
}

/// The cause at the bottom, which names what to mend.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Public addresses, and what the operator listed.
fn guard(config: &Config) -> Guard {
    let listed = config.outbound.allow.iter();
    Guard::new(
        listed
            .map(|entry| entry.parse().expect("the list was checked when it was loaded"))
            .collect(),
    )
}

/// Reads websites through the one client for addresses that others name.
fn web_loader(config: &Config) -> Result<WebLoader, StartError> {
    let settings = &config.crawl;
    let user_agent = if settings.user_agent.is_empty() {
        concat!("frontdesk/", env!("CARGO_PKG_VERSION")).to_owned()
    } else {
        settings.user_agent.clone()
    };
    let limits = outbound::Limits {
        total: Duration::from_secs(settings.page_timeout_s),
        max_bytes: settings.page_limit_bytes,
        ..outbound::Limits::default()
    };
    let web = WebSettings {
        user_agent: user_agent.clone(),
        per_host_concurrency: settings.per_host_concurrency,
        min_delay: Duration::from_millis(settings.delay_ms),
        limits,
    };
    let loader = WebLoader::new(&GuardedClient::new(guard(config), limits), &web)
        .map_err(|error| StartError::Setting(format!("crawl.user_agent: {error}")))?;
    if settings.chromium.is_empty() {
        return Ok(loader);
    }
    let work_dir = data_dir::browser_dir(config);
    let rendering = RenderSettings {
        program: PathBuf::from(&settings.chromium),
        work_dir,
        user_agent,
        sandbox: settings.chromium_sandbox,
        timeout: limits.total,
        browsers: BROWSERS,
        max_bytes: limits.max_bytes,
    };
    Ok(loader.with_renderer(Renderer::new(guard(config), rendering)))
}

/// The way to the configured Google.
fn google(config: &Config, client: reqwest::Client, clock: SharedClock) -> Result<Google, StartError> {
    let now = Arc::new(move || clock.now().timestamp());
    Google::new(&config.google, client, now).map_err(|error| StartError::Setting(format!("google: {error}")))
}

/// The client for addresses that the operator configured. Tenants' addresses go through `outbound`.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own addresses may be private; nobody else can name them"
)]
fn operator_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(outbound::tls_config())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .pool_idle_timeout(CLIENT_IDLE)
        .build()
}

/// The process-wide recorder of metrics. Only one can be installed; later apps of a test process share it.
fn metrics_handle() -> Result<PrometheusHandle, StartError> {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets(&[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
        ])
        .map_err(|error| StartError::Failed(format!("metrics: {error}")))?
        .build_recorder();
    let handle = recorder.handle();
    // Losing this race means that another app of this process installed its recorder: then that one is used.
    let handle = HANDLE.get_or_init(|| {
        let _ = metrics::set_global_recorder(recorder);
        handle
    });
    Ok(handle.clone())
}
