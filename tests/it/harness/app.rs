//! The real service for a test: router, workers, database and index of its own, a clock that the test moves, and an
//! embedder whose vectors are counted words.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use frontdesk::app::{App, FreeBytes, Replacements, StartError};
use frontdesk::clock::Clock;
use frontdesk::config::Config;
use frontdesk::http::{router, server};
use frontdesk::jobs::runner::{self, JobKinds};
use frontdesk::tenancy::{self, Caps};
use reqwest::Method;
use retrieval::BoxFuture;
use retrieval::embed::{Asker, EmbedError, Embedder, Embeddings};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

pub use super::client::{Chatbot, Event, Reply, Tenant};
use super::databases::{create_postgres_database, postgres_server};
use super::indexes::IndexSwitch;
use super::openai::{ScriptedModel, bag_of_words};

/// Names the engine of this run: `sqlite` (also when absent) or `postgres`. The suite runs once with each.
const ENGINE_VARIABLE: &str = "FRONTDESK_TEST_ENGINE";

/// Chooses where the index is: `embedded`, or `pgvector` beside the engine `postgres`.
const INDEX_VARIABLE: &str = "FRONTDESK_TEST_INDEX";

/// Length of the test embedder's vectors.
pub const DIMENSION: usize = 256;

/// How near unrelated texts are to a model as this suite has them, whatever a few words in common make of it.
pub const USUALLY_UNRELATED: f32 = 0.035;

/// A clock that stands still until a test moves it.
pub struct TestClock(Mutex<DateTime<Utc>>);

impl TestClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Each look is later than the one before, as in life.
        *now += TimeDelta::microseconds(1);
        *now
    }
}

/// Embeds a text as its counted words: texts that share words are near.
pub struct WordEmbedder;

impl Embedder for WordEmbedder {
    fn model_id(&self) -> &str {
        "counted-words"
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn max_tokens(&self) -> usize {
        256
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn unrelated(&self) -> BoxFuture<'_, Result<f32, EmbedError>> {
        Box::pin(async { Ok(USUALLY_UNRELATED) })
    }

    fn embed_query(&self, asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        self.embed_documents(asker, vec![text])
    }

    fn embed_documents(
        &self,
        _asker: Asker,
        texts: Vec<String>,
    ) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        let tokens = texts.iter().map(|text| self.count_tokens(text) as u64).sum();
        let vectors = texts.iter().map(|text| bag_of_words(text, DIMENSION)).collect();
        Box::pin(async move {
            Ok(Embeddings {
                vectors,
                tokens,
                reported: false,
            })
        })
    }
}

/// How a test wants its service.
#[derive(Default)]
pub struct TestOptions {
    settings: Vec<(String, String)>,
    model: Option<String>,
    embedder: Option<Arc<dyn Embedder>>,
    without_embedder: bool,
    more_jobs: JobKinds,
    extractor_program: Option<PathBuf>,
    free_bytes: Option<FreeBytes>,
    index: Option<IndexSwitch>,
}

impl TestOptions {
    /// Changes a setting of the configuration.
    pub fn set(mut self, path: &str, value: impl ToString) -> Self {
        self.settings.push((path.to_owned(), value.to_string()));
        self
    }

    /// Answers are written by `model`.
    pub fn model(mut self, model: &ScriptedModel) -> Self {
        self.model = Some(model.base_url());
        self
    }

    /// Embeds with this instead of counted words.
    pub fn embedder(mut self, embedder: Arc<dyn Embedder>) -> Self {
        self.embedder = Some(embedder);
        self
    }

    /// No embedding model is installed.
    pub fn without_embedder(mut self) -> Self {
        self.without_embedder = true;
        self
    }

    /// The service can carry out these kinds of jobs too.
    pub fn jobs(mut self, kinds: JobKinds) -> Self {
        self.more_jobs = kinds;
        self
    }

    /// Documents are read by this program instead of the service's own.
    pub fn extractor(mut self, program: PathBuf) -> Self {
        self.extractor_program = Some(program);
        self
    }

    /// The index can be taken down.
    pub fn index(mut self, index: &IndexSwitch) -> Self {
        self.index = Some(index.clone());
        self
    }

    /// The room in the data folder is what this says.
    pub fn free_bytes(mut self, free_bytes: FreeBytes) -> Self {
        self.free_bytes = Some(free_bytes);
        self
    }

    /// Starts the service.
    pub async fn start(self) -> TestApp {
        let folder = TempDir::new().expect("a temporary folder");
        let mut settings = vec![
            (
                "data_dir".to_owned(),
                folder.path().join("data").display().to_string(),
            ),
            ("server.listen".to_owned(), "127.0.0.1:0".to_owned()),
            ("index.shards".to_owned(), "1".to_owned()),
            (
                "embedding.model_dir".to_owned(),
                folder.path().join("no-model").display().to_string(),
            ),
            ("jobs.poll_ms".to_owned(), "20".to_owned()),
        ];
        if engine() == "postgres" {
            let server = postgres_server()
                .expect("FRONTDESK_TEST_POSTGRES_URL names the server; scripts/with-postgres starts one");
            settings.push(("database.url".to_owned(), create_postgres_database(&server).await));
            settings.push(("database.max_connections".to_owned(), "8".to_owned()));
        }
        if index_backend() == "pgvector" {
            settings.push(("index.backend".to_owned(), "pgvector".to_owned()));
            settings.push(("index.pgvector.max_connections".to_owned(), "4".to_owned()));
        }
        if let Some(base_url) = &self.model {
            settings.push(("llm.base_url".to_owned(), base_url.clone()));
            settings.push(("llm.model".to_owned(), "scripted".to_owned()));
        }
        settings.extend(self.settings);
        let config = Config::load(None, [], &settings).expect("the test's settings hold");
        let embedder = self
            .embedder
            .or_else(|| (!self.without_embedder).then(|| Arc::new(WordEmbedder) as Arc<dyn Embedder>));
        let clock = Arc::new(TestClock(Mutex::new(
            "2026-11-20T10:00:00Z".parse().expect("a time"),
        )));
        let replaced = Replacements {
            embedder,
            around_index: self.index.as_ref().map(IndexSwitch::around),
            extractor_program: self.extractor_program,
            more_jobs: self.more_jobs,
            free_bytes: self.free_bytes,
            ..Replacements::default()
        };
        TestApp::build(config, folder, clock, replaced).await
    }
}

async fn build_app(config: Config, clock: Arc<TestClock>, replaced: Replacements) -> Result<App, StartError> {
    // A failed test shows what the service had to say; RUST_LOG=warn shows more. Only the first app can install it.
    let log = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env());
    let _ = log.with_test_writer().try_init();
    let own_program = PathBuf::from(env!("CARGO_BIN_EXE_frontdesk"));
    App::build_with(
        config,
        Replacements {
            clock: Some(clock),
            extractor_program: Some(replaced.extractor_program.unwrap_or(own_program)),
            ..replaced
        },
    )
    .await
}

/// The running service and its address.
pub struct TestApp {
    pub app: App,
    pub clock: Arc<TestClock>,
    pub address: SocketAddr,
    pub http: reqwest::Client,
    stop: DropGuard,
    folder: TempDir,
    free_bytes: Option<FreeBytes>,
}

impl TestApp {
    /// The service without a model: answers are extracts.
    pub async fn start() -> Self {
        TestOptions::default().start().await
    }

    /// The service with a scripted model.
    pub async fn with_model() -> (Self, ScriptedModel) {
        let model = ScriptedModel::start().await;
        (TestOptions::default().model(&model).start().await, model)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test talks to its own service on loopback"
    )]
    async fn build(config: Config, folder: TempDir, clock: Arc<TestClock>, replaced: Replacements) -> Self {
        let free_bytes = replaced.free_bytes.clone();
        let app = build_app(config, clock.clone(), replaced)
            .await
            .expect("the service starts");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let stop = CancellationToken::new();
        tokio::spawn(server::serve(
            router::router(app.clone()),
            listener,
            (&app.config.server).into(),
            stop.clone(),
            app.ending.clone(),
            Duration::from_secs(5),
        ));
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Self {
            app,
            clock,
            address,
            http,
            stop: stop.drop_guard(),
            folder,
            free_bytes,
        }
    }

    /// Another process on the same database under the same clock. Where processes cannot share a data folder, it has one of its own,
    /// with an index of its own, that passes for the one that both see.
    pub async fn replica(&self, more_jobs: JobKinds) -> App {
        let config = self.app.config.clone();
        self.replica_of(config, Arc::new(WordEmbedder), more_jobs).await
    }

    /// As [`TestApp::replica`], with another configuration and its embedder.
    pub async fn replica_of(
        &self,
        mut config: Config,
        embedder: Arc<dyn Embedder>,
        more_jobs: JobKinds,
    ) -> App {
        if config.database.url.is_empty() {
            config.database.url = format!("sqlite:{}", self.data_dir().join("frontdesk.db").display()).into();
        }
        if !config.is_shareable() {
            config.data_dir = self.folder.path().join(format!("replica-{}", Uuid::now_v7()));
            std::fs::create_dir(&config.data_dir).expect("a folder");
            if config.database.url.starts_with("postgres") {
                std::fs::copy(self.data_dir().join("store-id"), config.data_dir.join("store-id"))
                    .expect("its mark");
            }
        }
        let replaced = Replacements {
            embedder: Some(embedder),
            more_jobs,
            ..Replacements::default()
        };
        build_app(config, self.clock.clone(), replaced)
            .await
            .expect("the replica starts")
    }

    /// The embedder that the configuration names.
    pub fn embedder(&self) -> Option<Arc<dyn Embedder>> {
        self.app.spaces.wanted().embedder.clone()
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Stops the service and starts it again on the same data, with the given settings changed.
    pub async fn restart(self, settings: &[(&str, &str)]) -> Self {
        let embedder = self.embedder();
        self.restart_with(embedder, settings).await
    }

    /// As [`TestApp::restart`], with something done to the data folder in between.
    pub async fn restart_after(self, between: impl FnOnce(&Path)) -> Self {
        let replaced = Replacements {
            embedder: self.embedder(),
            ..Replacements::default()
        };
        let (config, folder, clock) = self.stop().await;
        between(&config.data_dir);
        Self::build(config, folder, clock, replaced).await
    }

    /// Stops the service, lets something be done to the data folder, opens it as a command of the operator's does that has this
    /// embedder in its configuration, and starts the service again when `look` is done.
    pub async fn looked_at<T>(
        self,
        embedder: Arc<dyn Embedder>,
        between: impl FnOnce(&Path),
        look: impl AsyncFnOnce(&App) -> T,
    ) -> (Self, T) {
        let own = Replacements {
            embedder: self.embedder(),
            ..Replacements::default()
        };
        let (config, folder, clock) = self.stop().await;
        between(&config.data_dir);
        let replaced = Replacements {
            clock: Some(clock.clone()),
            earlier_embedders: own.embedder.clone().into_iter().collect(),
            embedder: Some(embedder),
            ..Replacements::default()
        };
        let command = App::build_to_look_with(config.clone(), replaced)
            .await
            .expect("the command starts");
        let seen = look(&command).await;
        command.close().await;
        drop(command);
        (Self::build(config, folder, clock, own).await, seen)
    }

    /// Stops the service, lets commands of the operator's do their work, and starts the service again.
    pub async fn in_between<T>(self, work: impl AsyncFnOnce(&Config, &Arc<TestClock>) -> T) -> (Self, T) {
        let replaced = Replacements {
            embedder: self.embedder(),
            ..Replacements::default()
        };
        let (config, folder, clock) = self.stop().await;
        let done = work(&config, &clock).await;
        (Self::build(config, folder, clock, replaced).await, done)
    }

    /// Stops the service and tries to start it again.
    pub async fn try_restart(self) -> Result<(), StartError> {
        let replaced = Replacements {
            embedder: self.embedder(),
            free_bytes: self.free_bytes.clone(),
            ..Replacements::default()
        };
        let (config, _folder, clock) = self.stop().await;
        build_app(config, clock, replaced).await.map(drop)
    }

    async fn stop(self) -> (Config, TempDir, Arc<TestClock>) {
        self.stop.disarm().cancel();
        self.app.close().await;
        (self.app.config.clone(), self.folder, self.clock)
    }

    /// As [`TestApp::restart`], with another embedder, or none.
    pub async fn restart_with(self, embedder: Option<Arc<dyn Embedder>>, settings: &[(&str, &str)]) -> Self {
        let earlier = self.embedder().into_iter().collect();
        self.restart_remembering(embedder, earlier, settings).await
    }

    /// As [`TestApp::restart_with`], where these of the earlier embedders can still be loaded.
    pub async fn restart_remembering(
        self,
        embedder: Option<Arc<dyn Embedder>>,
        earlier_embedders: Vec<Arc<dyn Embedder>>,
        settings: &[(&str, &str)],
    ) -> Self {
        let (mut config, folder, clock) = self.stop().await;
        let defaults: Vec<(String, String)> = settings
            .iter()
            .map(|(path, value)| ((*path).to_owned(), (*value).to_owned()))
            .collect();
        if !defaults.is_empty() {
            let base = [
                ("data_dir", config.data_dir.display().to_string()),
                ("database.url", config.database.url.to_string()),
                ("index.shards", "1".to_owned()),
                ("index.backend", index_backend()),
            ];
            let flags: Vec<(String, String)> = base
                .into_iter()
                .map(|(path, value)| (path.to_owned(), value))
                .chain(defaults)
                .collect();
            config = Config::load(None, [], &flags).expect("the test's settings hold");
        }
        let replaced = Replacements {
            embedder,
            earlier_embedders,
            ..Replacements::default()
        };
        Self::build(config, folder, clock, replaced).await
    }

    /// Opens a tenant and returns its first key's holder.
    pub async fn tenant(&self, name: &str) -> Tenant<'_> {
        let (tenant, key) =
            tenancy::operator::create_tenant(&self.app.db, self.clock.as_ref(), name, Caps::default())
                .await
                .expect("a tenant");
        Tenant {
            service: self,
            id: tenant.id,
            key,
        }
    }

    /// Carries out all background work that is due; returns how many jobs ran.
    pub async fn drain_jobs(&self) -> usize {
        runner::drain(&self.app).await.expect("the queue works")
    }

    /// A request with this credential, or none.
    pub fn request(&self, method: Method, path: &str, credential: Option<&str>) -> reqwest::RequestBuilder {
        let request = self
            .http
            .request(method, format!("http://{}{path}", self.address));
        match credential {
            Some(credential) => request.bearer_auth(credential),
            None => request,
        }
    }

    /// Sends JSON and reads the answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        credential: Option<&str>,
        body: Option<Value>,
    ) -> Reply {
        let mut request = self.request(method, path, credential);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Reply::read(request.send().await.expect("the service answers")).await
    }
}

/// What keeps the index in this run.
#[expect(
    clippy::disallowed_methods,
    reason = "how the tests' own script chooses the index"
)]
pub fn index_backend() -> String {
    std::env::var(INDEX_VARIABLE).unwrap_or_else(|_| "embedded".to_owned())
}

/// The engine of this run.
#[expect(
    clippy::disallowed_methods,
    reason = "how the tests' own script chooses the engine"
)]
pub fn engine() -> String {
    std::env::var(ENGINE_VARIABLE).unwrap_or_else(|_| "sqlite".to_owned())
}
