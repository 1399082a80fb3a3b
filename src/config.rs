//! Configuration: typed sections, read from the embedded defaults, a file, the environment and flags.
//!
//! `config.default.toml` is both the reference manual and the list of what exists: a setting that it does not name
//! is an error. All problems are found before any port opens and reported together, each by its path.

mod check;
mod merge;
mod qdrant;
mod ranges;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Table;

use self::merge::{merge_file, parse_sections, read_file, set_text};
pub use self::qdrant::QdrantSettings;
use crate::db::DatabaseUrl;

/// The defaults, commented.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

const ENVIRONMENT_PREFIX: &str = "FRONTDESK_";

/// Settings that the environment cannot change: whoever sets variables must not open the network.
const FILE_OR_FLAG_ONLY: &[&str] = &["outbound.allow"];

/// A setting that must not be shown: its `Debug` hides it.
#[derive(Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

/// The address of a server, which may hold a name and a password: its `Debug` hides them.
#[derive(Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// All of it. Never log it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Address {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for Address {
    fn from(address: String) -> Self {
        Self(address)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return write!(formatter, "{:?}", self.0);
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let shown = match authority.rfind('@') {
            Some(at) => format!("{scheme}://(hidden){}", &rest[at..]),
            None => self.0.clone(),
        };
        write!(formatter, "{shown:?}")
    }
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $(#[allow(missing_docs, reason = "described in config.default.toml")] pub $field: $type),*
        }
    };
}

section!(
    /// Everything that can be configured. The fields are described in `config.default.toml`.
    Config {
        data_dir: PathBuf,
        server: Server,
        database: Database,
        index: Index,
        embedding: Embedding,
        llm: Llm,
        rerank: Rerank,
        chat: Chat,
        extract: Extract,
        crawl: Crawl,
        google: Google,
        jobs: Jobs,
        limits: Limits,
        outbound: Outbound,
        auth: Auth,
        secrets: Secrets,
        log: Log,
    }
);
section!(
    /// The HTTP server.
    Server {
        listen: SocketAddr,
        public_url: String,
        body_limit_bytes: usize,
        upload_limit_bytes: u64,
        upload_files_limit: usize,
        max_connections: usize,
        max_connections_per_address: usize,
        shutdown_grace_s: u64,
        trusted_proxies: Vec<std::net::IpAddr>,
        dashboard_origins: Vec<String>,
    }
);
section!(
    /// Rows.
    Database { url: Address, max_connections: u32, statement_timeout_s: u64 }
);
section!(
    /// Vectors and keywords.
    Index {
        backend: IndexBackend,
        url: Address,
        api_key: Secret,
        shards: usize,
        promote_from_chunks: u64,
        on_model_change: OnModelChange,
        keep_previous_hours: u32,
        qdrant: QdrantSettings,
        pgvector: Pgvector,
    }
);
section!(
    /// The index in PostgreSQL.
    Pgvector {
        max_connections: u32,
        halfvec: bool,
        m: u32,
        ef_construction: u32,
        ef_search: u32,
        build_memory_mb: u32,
    }
);
section!(
    /// What turns text into vectors.
    Embedding {
        backend: EmbeddingBackend,
        model_dir: PathBuf,
        precision: EmbeddingPrecision,
        query_prefix: String,
        document_prefix: String,
        base_url: Address,
        api_key: Secret,
        model: String,
        dimension: usize,
        max_tokens: usize,
        batch_size: usize,
        languages: Vec<String>,
        timeout_s: u64,
        threads: usize,
        cache_mb: u64,
    }
);
section!(
    /// The model that answers.
    Llm {
        base_url: Address,
        api_key: Secret,
        model: String,
        context_tokens: usize,
        max_answer_tokens: usize,
        token_limit_field: String,
        connect_timeout_s: u64,
        first_token_timeout_s: u64,
        idle_timeout_s: u64,
        total_timeout_s: u64,
        max_attempts: u32,
        price_book: String,
    }
);
section!(
    /// What puts passages in order.
    Rerank { backend: RerankBackend, base_url: Address, api_key: Secret, model: String, top_n: usize, timeout_s: u64 }
);
section!(
    /// The chat turn.
    Chat { message_limit_chars: usize, history_tokens: usize, passage_tokens: usize, max_streams: usize, max_streams_per_tenant: usize, heartbeat_s: u64 }
);
section!(
    /// Limits of the child process that reads documents, and who reads scanned pages, pictures and recordings.
    Extract {
        memory_mb: u64,
        timeout_s: u64,
        max_pages: u32,
        max_unpacked_mb: u64,
        previews: usize,
        preview_timeout_s: u64,
        ocr_program: String,
        ocr_languages: Vec<String>,
        ocr_timeout_s: u64,
        ocr_document_timeout_s: u64,
        transcription_base_url: Address,
        transcription_api_key: Secret,
        transcription_model: String,
        transcription_timeout_s: u64,
        transcription_max_mb: u64,
    }
);
section!(
    /// How websites are read.
    Crawl {
        user_agent: String,
        max_pages: u32,
        max_depth: u32,
        per_host_concurrency: usize,
        delay_ms: u64,
        page_limit_bytes: usize,
        page_timeout_s: u64,
        runs: usize,
        run_limit_hours: u32,
        shrink_limit_percent: u8,
        chromium: String,
        chromium_sandbox: bool,
    }
);
section!(
    /// Google's servers, and who we are to them.
    Google { client_id: String, client_secret: Secret, auth_url: String, token_url: String, drive_base_url: String }
);
section!(
    /// Background work.
    Jobs { workers: usize, lease_s: u64, max_attempts: u32, poll_ms: u64, keep_finished_days: u32 }
);
section!(
    /// How much and how often.
    Limits {
        requests_per_minute_per_key: u32,
        requests_per_minute_per_member: u32,
        requests_per_minute_per_tenant: u32,
        requests_per_minute_per_address: u32,
        login_attempts: u32,
        login_window_s: u64,
        chatbots_per_tenant: i64,
        documents_per_chatbot: i64,
        sources_per_chatbot: i64,
        tenant_monthly_tokens: i64,
        tenant_monthly_cost_micro_usd: i64,
        free_disk_mb: u64,
        source_streams: usize,
    }
);
section!(
    /// Requests to addresses that someone named.
    Outbound { allow: Vec<String>, allow_plain_keys: Vec<String> }
);
section!(
    /// Logins.
    Auth { access_token_s: u64, refresh_token_days: u32, invite_days: u32, signup: bool, jwt: Jwt }
);
section!(
    /// Tokens of another issuer.
    Jwt {
        issuer: String,
        audience: String,
        algorithm: String,
        hs256_secret: Secret,
        jwks_url: String,
        default_role: String,
        leeway_s: u64,
    }
);
section!(
    /// Keys of this installation.
    Secrets { key: Secret }
);
section!(
    /// Logs.
    Log { format: LogFormat, level: String }
);

/// Which engine holds vectors and keywords.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum IndexBackend {
    Embedded,
    Qdrant,
    Pgvector,
}

/// What a change of the embedding model does at the next start.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnModelChange {
    /// Each tenant's new generation is built and goes live when it is complete.
    Activate,
    /// It is built and waits.
    Build,
    /// Nothing, until somebody asks for it.
    Wait,
}

/// Where embeddings come from.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingBackend {
    Local,
    Static,
    Openai,
    Tei,
}

impl Embedding {
    /// Whether embeddings are asked of somebody who counts them.
    pub fn is_remote(&self) -> bool {
        matches!(self.backend, EmbeddingBackend::Openai | EmbeddingBackend::Tei)
    }
}

/// Who puts passages in order.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum RerankBackend {
    None,
    Cohere,
    Jina,
    Voyage,
    Tei,
    Llm,
}

/// How the numbers of a local embedding model are kept.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingPrecision {
    F32,
    Int8,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Pretty,
    Json,
}

/// All that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {} problem(s):{}", .0.len(), .0.iter().map(|problem| format!("\n  - {problem}")).collect::<String>())]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads the configuration: defaults, then `file`, then `environment`, then `flags` (`path.to.key`, value).
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let defaults: Table = DEFAULTS.parse().expect("the embedded defaults are valid TOML");
        let mut merged = defaults.clone();
        let mut problems = Vec::new();

        if let Some(path) = file {
            match read_file(path) {
                Ok(table) => merge_file(&mut merged, &defaults, table, "", &mut problems),
                Err(problem) => problems.push(problem),
            }
        }
        for (name, text) in environment {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
                continue;
            };
            // Test harnesses keep their own variables under the same prefix.
            if rest.starts_with("TEST_") || is_service_link(rest, &text) {
                continue;
            }
            let path = rest.to_lowercase().replace("__", ".");
            if FILE_OR_FLAG_ONLY.contains(&path.as_str()) {
                problems.push(format!("{name}: {path} can be set in a file or by flag only"));
            } else {
                set_text(&mut merged, &defaults, &path, &text, &name, &mut problems);
            }
        }
        for (path, text) in flags {
            set_text(
                &mut merged,
                &defaults,
                path,
                text,
                &format!("--set {path}"),
                &mut problems,
            );
        }
        let (config, unreadable) = parse_sections(&merged, &defaults)?;
        // A default stands in for an unreadable value, and nobody set it: it is nobody's mistake.
        let stands_in = |problem: &String| {
            let path = problem.split_once(':').map(|(path, _)| path);
            unreadable
                .iter()
                .any(|unreadable| unreadable.path == path.unwrap_or_default())
        };
        let wrong = config.check();
        problems.extend(unreadable.iter().map(ToString::to_string));
        problems.extend(wrong.into_iter().filter(|problem| !stands_in(problem)));
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(problems))
        }
    }

    /// The database's address: the configured one, or a SQLite file in the data folder.
    pub fn database_url(&self) -> DatabaseUrl {
        if self.database.url.is_empty() {
            return DatabaseUrl::Sqlite(self.data_dir.join("frontdesk.db"));
        }
        self.database
            .url
            .parse()
            .expect("the address was checked when the configuration was loaded")
    }

    /// The address of the index in PostgreSQL: the configured one, or where the rows are.
    pub fn pgvector_url(&self) -> &str {
        if self.index.url.is_empty() {
            &self.database.url
        } else {
            &self.index.url
        }
    }

    /// Whether the index lies in the database of the rows, and so is changed by the transactions that change these.
    pub fn index_is_with_rows(&self) -> bool {
        self.index.backend == IndexBackend::Pgvector && self.pgvector_url() == &*self.database.url
    }

    /// Where the embedded index lies.
    pub fn index_dir(&self) -> PathBuf {
        self.data_dir.join("index")
    }

    /// The model that puts passages in order.
    pub fn rerank_model(&self) -> &str {
        if self.rerank.backend == RerankBackend::Llm && self.rerank.model.is_empty() {
            &self.llm.model
        } else {
            &self.rerank.model
        }
    }

    /// Whether several processes can do the work of this configuration, on one data folder.
    pub fn is_shareable(&self) -> bool {
        self.index.backend != IndexBackend::Embedded
            && matches!(self.database_url(), DatabaseUrl::Postgres(_))
    }
}

/// Whether Kubernetes sets this variable, for a Service whose name begins with ours: `FRONTDESK_PORT=tcp://…`,
/// `FRONTDESK_SERVICE_HOST`, `FRONTDESK_DB_PORT_5432_TCP_ADDR`. Its names have single underscores, as no section of ours has.
fn is_service_link(rest: &str, text: &str) -> bool {
    let words = format!("_{rest}_");
    let has = |word: &str| words.contains(word);
    let names_port = ["tcp", "udp", "sctp"].iter().any(|protocol| {
        text.starts_with(&format!("{protocol}://")) || has(&format!("_{}_", protocol.to_uppercase()))
    });
    !rest.contains("__") && (has("_SERVICE_HOST_") || has("_SERVICE_PORT_") || (has("_PORT_") && names_port))
}

/// Whether `text` is a browser origin: scheme, host and port, nothing more. Origins are compared whole, so a host with
/// a star would match nothing while it looks as if it matched much.
pub fn is_origin(text: &str) -> bool {
    !text.contains('*')
        && url::Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
        })
}

#[cfg(test)]
mod tests;
