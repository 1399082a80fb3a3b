//! The real service for a test: router, workers, database and index of its own, a clock that the test moves, and an
//! embedder whose vectors are counted words.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use frontdesk::app::{App, Replacements, StartError};
use frontdesk::clock::Clock;
use frontdesk::config::Config;
use frontdesk::http::{router, server};
use frontdesk::id::TenantId;
use frontdesk::jobs::runner::{self, JobKinds};
use frontdesk::tenancy;
use reqwest::{Method, StatusCode};
use retrieval::BoxFuture;
use retrieval::embed::{EmbedError, Embedder, Embeddings};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::databases::{create_postgres_database, postgres_server};
use super::openai::{ScriptedModel, bag_of_words};

/// Names the engine of this run: `sqlite` (also when absent) or `postgres`. The suite runs once with each.
const ENGINE_VARIABLE: &str = "FRONTDESK_TEST_ENGINE";

/// Length of the test embedder's vectors.
pub const DIMENSION: usize = 256;

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

    fn embed_query(&self, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        self.embed_documents(vec![text])
    }

    fn embed_documents(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
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
        TestApp::build(config, folder, clock, embedder, self.more_jobs).await
    }
}

async fn build_app(
    config: Config,
    clock: Arc<TestClock>,
    embedder: Option<Arc<dyn Embedder>>,
    more_jobs: JobKinds,
) -> Result<App, StartError> {
    let extractor_program = Some(PathBuf::from(env!("CARGO_BIN_EXE_frontdesk")));
    App::build_with(
        config,
        Replacements {
            clock: Some(clock),
            embedder,
            extractor_program,
            more_jobs,
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
    async fn build(
        config: Config,
        folder: TempDir,
        clock: Arc<TestClock>,
        embedder: Option<Arc<dyn Embedder>>,
        more_jobs: JobKinds,
    ) -> Self {
        let app = build_app(config, clock.clone(), embedder, more_jobs)
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
            1000,
            stop.clone(),
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
        }
    }

    /// Another process on the same database, with an index and files of its own, under the same clock.
    pub async fn replica(&self, more_jobs: JobKinds) -> App {
        let mut config = self.app.config.clone();
        if config.database.url.is_empty() {
            config.database.url = format!("sqlite:{}", self.data_dir().join("frontdesk.db").display());
        }
        config.data_dir = self.folder.path().join(format!("replica-{}", Uuid::now_v7()));
        build_app(
            config,
            self.clock.clone(),
            Some(Arc::new(WordEmbedder)),
            more_jobs,
        )
        .await
        .expect("the replica starts")
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Stops the service and starts it again on the same data, with the given settings changed.
    pub async fn restart(self, settings: &[(&str, &str)]) -> Self {
        let embedder = self.app.embedder.clone();
        self.restart_with(embedder, settings).await
    }

    /// As [`TestApp::restart`], with another embedder, or none.
    pub async fn restart_with(self, embedder: Option<Arc<dyn Embedder>>, settings: &[(&str, &str)]) -> Self {
        let Self {
            app,
            clock,
            stop,
            folder,
            ..
        } = self;
        stop.disarm().cancel();
        app.close().await;
        let mut config = app.config.clone();
        let defaults: Vec<(String, String)> = settings
            .iter()
            .map(|(path, value)| ((*path).to_owned(), (*value).to_owned()))
            .collect();
        if !defaults.is_empty() {
            let base = [
                ("data_dir", config.data_dir.display().to_string()),
                ("database.url", config.database.url.clone()),
                ("index.shards", "1".to_owned()),
            ];
            let flags: Vec<(String, String)> = base
                .into_iter()
                .map(|(path, value)| (path.to_owned(), value))
                .chain(defaults)
                .collect();
            config = Config::load(None, [], &flags).expect("the test's settings hold");
        }
        drop(app);
        Self::build(config, folder, clock, embedder, JobKinds::default()).await
    }

    /// Opens a tenant and returns its first key's holder.
    pub async fn tenant(&self, name: &str) -> Tenant<'_> {
        let (tenant, key) = tenancy::operator::create_tenant(&self.app.db, self.clock.as_ref(), name)
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

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    /// Reads the body.
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self {
            status,
            headers,
            text: response.text().await.expect("the body is text"),
        }
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The problem's code; empty when the answer is no problem.
    pub fn code(&self) -> String {
        let is_problem = self
            .headers
            .get("content-type")
            .is_some_and(|value| value == "application/problem+json");
        if is_problem {
            self.json()["code"].as_str().unwrap_or_default().to_owned()
        } else {
            String::new()
        }
    }

    /// Fails the test unless the status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// The string field `id`.
    #[track_caller]
    pub fn id(&self) -> String {
        self.json()["id"].as_str().expect("an id").to_owned()
    }
}

/// A tenant and its first key, of scope admin.
pub struct Tenant<'a> {
    pub service: &'a TestApp,
    pub id: TenantId,
    pub key: String,
}

impl<'a> Tenant<'a> {
    pub async fn get(&self, path: &str) -> Reply {
        self.service.send(Method::GET, path, Some(&self.key), None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.service
            .send(Method::POST, path, Some(&self.key), Some(body))
            .await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.service
            .send(Method::PATCH, path, Some(&self.key), Some(body))
            .await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.service
            .send(Method::DELETE, path, Some(&self.key), None)
            .await
    }

    /// Makes a key with these fields and returns its secret.
    pub async fn make_key(&self, body: Value) -> String {
        let reply = self.post("/api/keys", body).await.expect(201);
        reply.json()["secret"].as_str().expect("a secret").to_owned()
    }

    /// Makes a chatbot.
    pub async fn chatbot(&self, name: &str) -> Chatbot<'_, 'a> {
        let id = self
            .post("/api/chatbots", json!({ "name": name }))
            .await
            .expect(201)
            .id();
        Chatbot { tenant: self, id }
    }
}

/// A chatbot of a tenant.
pub struct Chatbot<'t, 'a> {
    pub tenant: &'t Tenant<'a>,
    pub id: String,
}

impl Chatbot<'_, '_> {
    /// Uploads files in one request, without waiting for them to be indexed.
    pub async fn upload(&self, files: &[(&str, &[u8])]) -> Reply {
        let mut form = reqwest::multipart::Form::new();
        for (name, bytes) in files {
            form = form.part(
                "file",
                reqwest::multipart::Part::bytes(bytes.to_vec()).file_name((*name).to_owned()),
            );
        }
        let path = format!("/api/chatbots/{}/documents", self.id);
        let request = self
            .tenant
            .service
            .request(Method::POST, &path, Some(&self.tenant.key))
            .multipart(form);
        Reply::read(request.send().await.expect("the service answers")).await
    }

    /// Uploads one text and indexes it; returns the document's id.
    pub async fn publish(&self, file_name: &str, text: &str) -> String {
        let reply = self.upload(&[(file_name, text.as_bytes())]).await.expect(202);
        self.tenant.service.drain_jobs().await;
        reply.json()["items"][0]["id"]
            .as_str()
            .expect("a document")
            .to_owned()
    }

    /// A document as the API shows it.
    pub async fn document(&self, id: &str) -> Value {
        self.tenant
            .get(&format!("/api/documents/{id}"))
            .await
            .expect(200)
            .json()
    }

    /// Asks in a new conversation; the whole answer.
    pub async fn ask(&self, message: &str) -> Reply {
        self.tenant
            .post(
                "/api/chat/message",
                json!({ "chatbot_id": self.id, "message": message }),
            )
            .await
    }

    /// Asks in a conversation.
    pub async fn ask_in(&self, conversation_id: &str, message: &str) -> Reply {
        self.tenant
            .post(
                "/api/chat/message",
                json!({ "chatbot_id": self.id, "conversation_id": conversation_id, "message": message }),
            )
            .await
    }

    /// Asks for a stream and reads it to its end; the events in order.
    pub async fn stream(&self, message: &str) -> Vec<Event> {
        let reply = self.open_stream(message).await;
        assert_eq!(reply.status(), StatusCode::OK);
        Event::parse_all(&reply.text().await.expect("the stream ends"))
    }

    /// Asks for a stream and leaves the reading to the test.
    pub async fn open_stream(&self, message: &str) -> reqwest::Response {
        let body = json!({ "chatbot_id": self.id, "message": message, "stream": true });
        self.tenant
            .service
            .request(Method::POST, "/api/chat/message", Some(&self.tenant.key))
            .json(&body)
            .send()
            .await
            .expect("the service answers")
    }

    /// Passages for a query.
    pub async fn search(&self, query: &str) -> Vec<Value> {
        let reply = self
            .tenant
            .post(
                &format!("/api/chatbots/{}/search", self.id),
                json!({ "query": query }),
            )
            .await
            .expect(200);
        reply.json()["items"].as_array().expect("items").clone()
    }
}

/// A server-sent event.
#[derive(Debug)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

impl Event {
    /// Reads a whole stream.
    pub fn parse_all(text: &str) -> Vec<Self> {
        let blocks = text
            .split("\n\n")
            .filter(|block| !block.trim().is_empty() && !block.starts_with(':'));
        blocks
            .map(|block| {
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_default()
                };
                Self {
                    name: field("event: ").to_owned(),
                    data: serde_json::from_str(field("data: ")).expect("data is JSON"),
                }
            })
            .collect()
    }
}

/// The engine of this run.
#[expect(
    clippy::disallowed_methods,
    reason = "how the tests' own script chooses the engine"
)]
pub fn engine() -> String {
    std::env::var(ENGINE_VARIABLE).unwrap_or_else(|_| "sqlite".to_owned())
}
