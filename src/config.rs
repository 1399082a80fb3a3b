//! Configuration: typed sections, read from the embedded defaults, a file, the environment and flags.
//!
//! `config.default.toml` is both the reference manual and the list of what exists: a setting that it does not name
//! is an error. All problems are found before any port opens and reported together, each by its path.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::db::DatabaseUrl;
use crate::telemetry;

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
        chat: Chat,
        extract: Extract,
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
        shutdown_grace_s: u64,
        trusted_proxies: Vec<std::net::IpAddr>,
        dashboard_origins: Vec<String>,
    }
);
section!(
    /// Rows.
    Database { url: String, max_connections: u32 }
);
section!(
    /// Vectors and keywords.
    Index { backend: IndexBackend, url: String, shards: usize }
);
section!(
    /// What turns text into vectors.
    Embedding {
        backend: EmbeddingBackend,
        model_dir: PathBuf,
        base_url: String,
        api_key: Secret,
        model: String,
        dimension: usize,
        max_tokens: usize,
        batch_size: usize,
        timeout_s: u64,
        threads: usize,
    }
);
section!(
    /// The model that answers.
    Llm {
        base_url: String,
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
    /// The chat turn.
    Chat { message_limit_chars: usize, history_tokens: usize, passage_tokens: usize, max_streams: usize, heartbeat_s: u64 }
);
section!(
    /// Limits of the child process that reads documents.
    Extract { memory_mb: u64, timeout_s: u64, max_pages: u32, max_unpacked_mb: u64 }
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
        requests_per_minute_per_address: u32,
        login_attempts: u32,
        login_window_s: u64,
        chatbots_per_tenant: i64,
        documents_per_chatbot: i64,
    }
);
section!(
    /// Requests to addresses that someone named.
    Outbound { allow: Vec<String> }
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

/// Where embeddings come from.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingBackend {
    Local,
    Static,
    Openai,
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
            match std::fs::read_to_string(path).map_err(|error| error.to_string()).and_then(|text| text.parse::<Table>().map_err(|error| error.to_string())) {
                Ok(table) => merge_file(&mut merged, &defaults, table, "", &mut problems),
                Err(error) => problems.push(format!("{}: {}", path.display(), error.trim())),
            }
        }
        for (name, text) in environment {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            // Test harnesses keep their own variables under the same prefix.
            if rest.starts_with("TEST_") {
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
            set_text(&mut merged, &defaults, path, text, &format!("--set {path}"), &mut problems);
        }
        match parse_sections(merged, &defaults) {
            Ok(config) => {
                if let Err(ConfigError(contradictions)) = config.check() {
                    problems.extend(contradictions);
                }
                if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
            }
            Err(ConfigError(unreadable)) => {
                problems.extend(unreadable);
                Err(ConfigError(problems))
            }
        }
    }

    /// The database's address: the configured one, or a SQLite file in the data folder.
    pub fn database_url(&self) -> DatabaseUrl {
        if self.database.url.is_empty() {
            return DatabaseUrl::Sqlite(self.data_dir.join("frontdesk.db"));
        }
        self.database.url.parse().expect("the address was checked when the configuration was loaded")
    }

    /// What cannot be told from one value's type alone.
    fn check(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        if !self.database.url.is_empty()
            && let Err(problem) = self.database.url.parse::<DatabaseUrl>()
        {
            require(false, &format!("database.url: {problem}"));
        }
        require(self.index.backend == IndexBackend::Embedded, "index.backend: this version has \"embedded\" only");
        require((1..=64).contains(&self.index.shards), "index.shards: must be 1 to 64");
        match self.embedding.backend {
            EmbeddingBackend::Local => {}
            EmbeddingBackend::Static => require(false, "embedding.backend: this version has \"local\" and \"openai\" only"),
            EmbeddingBackend::Openai => {
                require(is_http_url(&self.embedding.base_url), "embedding.base_url: must be an http or https URL when embedding.backend is \"openai\"");
                require(!self.embedding.model.is_empty(), "embedding.model: must be set when embedding.backend is \"openai\"");
                require((1..=8192).contains(&self.embedding.dimension), "embedding.dimension: must be 1 to 8192, the length of the model's vectors");
                require((1..=2048).contains(&self.embedding.batch_size), "embedding.batch_size: must be 1 to 2048");
            }
        }
        if !self.llm.base_url.is_empty() {
            require(is_http_url(&self.llm.base_url), "llm.base_url: must be an http or https URL");
            require(!self.llm.model.is_empty(), "llm.model: must be set when llm.base_url is");
        }
        require(matches!(self.llm.token_limit_field.as_str(), "max_completion_tokens" | "max_tokens"), "llm.token_limit_field: must be max_completion_tokens or max_tokens");
        require(self.llm.context_tokens >= 2048, "llm.context_tokens: must be at least 2048");
        require(self.llm.max_answer_tokens >= 16 && self.llm.max_answer_tokens <= self.llm.context_tokens / 2, "llm.max_answer_tokens: must be at least 16 and at most half of llm.context_tokens");
        require(self.llm.max_attempts >= 1, "llm.max_attempts: must be at least 1");
        require(self.jobs.workers >= 1, "jobs.workers: must be at least 1");
        require(self.jobs.lease_s >= 1, "jobs.lease_s: must be at least 1");
        require(self.jobs.max_attempts >= 1, "jobs.max_attempts: must be at least 1");
        require(self.jobs.poll_ms >= 10, "jobs.poll_ms: must be at least 10");
        require(self.server.public_url.is_empty() || is_http_url(&self.server.public_url), "server.public_url: must be an http or https URL");
        require(self.extract.memory_mb >= 128, "extract.memory_mb: must be at least 128");
        if let Err(problem) = telemetry::check_level(&self.log.level) {
            require(false, &problem);
        }
        for entry in &self.outbound.allow {
            require(entry.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)), &format!("outbound.allow: {entry:?} is not host:port"));
        }
        for origin in &self.server.dashboard_origins {
            require(is_origin(origin), &format!("server.dashboard_origins: {origin:?} is not an origin such as https://desk.example.com"));
        }
        let jwt = &self.auth.jwt;
        if !jwt.issuer.is_empty() {
            require(!jwt.audience.is_empty(), "auth.jwt.audience: must be set when auth.jwt.issuer is");
            match jwt.algorithm.as_str() {
                "HS256" => require(jwt.hs256_secret.expose().len() >= 32, "auth.jwt.hs256_secret: must have at least 32 characters for HS256"),
                "RS256" | "ES256" => require(is_http_url(&jwt.jwks_url), "auth.jwt.jwks_url: must be an http or https URL for RS256 and ES256"),
                _ => require(false, "auth.jwt.algorithm: must be HS256, RS256 or ES256"),
            }
            require(jwt.leeway_s <= 30, "auth.jwt.leeway_s: must be at most 30");
            require(matches!(jwt.default_role.as_str(), "owner" | "admin" | "editor" | "viewer"), "auth.jwt.default_role: must be owner, admin, editor or viewer");
        }
        if !self.secrets.key.is_empty() {
            use base64::Engine as _;
            let length = base64::engine::general_purpose::STANDARD.decode(self.secrets.key.expose()).map(|bytes| bytes.len());
            require(length == Ok(32), "secrets.key: must be 32 bytes in base64; `openssl rand -base64 32` makes one");
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
    }
}

/// Whether `text` is a browser origin: scheme, host and port, nothing more.
pub fn is_origin(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text)
}

fn is_http_url(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Puts a file's values over the defaults; names the settings that do not exist or have another type.
fn merge_file(target: &mut Table, defaults: &Table, table: Table, prefix: &str, problems: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (defaults.get(&key), value) {
            (None, _) => problems.push(format!("{path}: unknown setting")),
            (Some(Value::Table(inner_defaults)), Value::Table(inner)) => {
                if let Some(Value::Table(inner_target)) = target.get_mut(&key) {
                    merge_file(inner_target, inner_defaults, inner, &path, problems);
                }
            }
            (Some(default), value) if default.same_type(&value) => {
                target.insert(key, value);
            }
            (Some(default), value) => problems.push(format!("{path}: must be {}, not {}", type_name(default), type_name(&value))),
        }
    }
}

/// Sets one value given as text (environment, flag), read as the type of its default.
fn set_text(target: &mut Table, defaults: &Table, path: &str, text: &str, origin: &str, problems: &mut Vec<String>) {
    let (sections, key) = match path.rsplit_once('.') {
        Some((sections, key)) => (sections.split('.').collect(), key),
        None => (Vec::new(), path),
    };
    let (mut default_table, mut target_table) = (Some(defaults), Some(target));
    for section in sections {
        default_table = default_table.and_then(|table| table.get(section)).and_then(Value::as_table);
        target_table = target_table.and_then(|table| table.get_mut(section)).and_then(Value::as_table_mut);
    }
    let (Some(default), Some(target_table)) = (default_table.and_then(|table| table.get(key)), target_table) else {
        problems.push(format!("{origin}: unknown setting"));
        return;
    };
    let value = match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Value::Float(_) => text.trim().parse().ok().map(Value::Float),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        Value::Array(_) => Some(Value::Array(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(|item| Value::String(item.to_owned())).collect())),
        Value::Table(_) | Value::Datetime(_) => None,
    };
    match value {
        Some(value) => {
            target_table.insert(key.to_owned(), value);
        }
        None => problems.push(format!("{origin}: must be {}, not {text:?}", type_name(default))),
    }
}

/// Reads each setting by itself, so that one bad value does not hide another.
fn parse_sections(merged: Table, defaults: &Table) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    for (section, value) in &merged {
        let settings = match value {
            Value::Table(settings) => settings.iter().map(|(key, value)| (Some(key), value)).collect(),
            value => vec![(None, value)],
        };
        for (key, value) in settings {
            let mut probe = defaults.clone();
            let (place, path) = match (key, probe.get_mut(section)) {
                (Some(key), Some(Value::Table(table))) => (table.get_mut(key), format!("{section}.{key}")),
                (_, place) => (place, section.clone()),
            };
            if let Some(place) = place
                && place != value
            {
                *place = value.clone();
                if let Err(error) = probe.try_into::<Config>() {
                    problems.push(format!("{path}: {}", error.message()));
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError(problems));
    }
    merged.try_into().map_err(|error: toml::de::Error| ConfigError(vec![error.message().to_owned()]))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
        Value::Datetime(_) => "a date",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Config::load(None, environment.iter().map(own), &flags.iter().map(own).collect::<Vec<_>>())
    }

    #[test]
    fn the_defaults_alone_are_a_valid_configuration() {
        let config = load(&[], &[]).expect("the defaults hold");

        assert_eq!(config.server.listen.port(), 8080);
        assert_eq!(config.database_url(), DatabaseUrl::Sqlite("data/frontdesk.db".into()));
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_default() {
        let environment = [("FRONTDESK_SERVER__LISTEN", "0.0.0.0:1000"), ("FRONTDESK_JOBS__WORKERS", "7")];

        let config = load(&environment, &[("server.listen", "127.0.0.1:0")]).expect("the values hold");

        assert_eq!(config.server.listen.to_string(), "127.0.0.1:0");
        assert_eq!(config.jobs.workers, 7);
    }

    #[test]
    fn all_problems_are_reported_together_by_path() {
        let environment = [("FRONTDESK_SERVER__COLOUR", "red"), ("FRONTDESK_JOBS__WORKERS", "many")];

        let ConfigError(problems) = load(&environment, &[("llm.nope", "1")]).expect_err("three settings are wrong");

        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("FRONTDESK_SERVER__COLOUR"));
        assert!(problems[1].contains("whole number"));
        assert!(problems[2].contains("llm.nope"));
    }

    #[test]
    fn values_that_contradict_each_other_are_reported_together() {
        let flags = [("llm.base_url", "http://127.0.0.1:1/v1"), ("embedding.backend", "openai"), ("database.url", "mysql://x")];

        let ConfigError(problems) = load(&[], &flags).expect_err("a model, an endpoint and a database are missing");

        for path in ["llm.model", "embedding.base_url", "embedding.model", "embedding.dimension", "database.url"] {
            assert!(problems.iter().any(|problem| problem.starts_with(path)), "{path} is missing in {problems:?}");
        }
    }

    #[test]
    fn one_bad_value_does_not_hide_another() {
        let flags = [("server.listen", "everywhere"), ("server.trusted_proxies", "me"), ("index.backend", "sled"), ("jobs.workers", "many"), ("nope.x", "1")];

        let ConfigError(problems) = load(&[], &flags).expect_err("five settings are wrong");

        for path in ["server.listen", "server.trusted_proxies", "index.backend", "jobs.workers", "nope.x"] {
            assert!(problems.iter().any(|problem| problem.contains(path)), "{path} is missing in {problems:?}");
        }
        let ConfigError(problems) = load(&[], &[("nope.x", "1"), ("jobs.workers", "0")]).expect_err("two settings are wrong");
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn the_environment_cannot_open_private_addresses() {
        let ConfigError(problems) = load(&[("FRONTDESK_OUTBOUND__ALLOW", "127.0.0.1:80")], &[]).expect_err("refused");

        assert!(problems[0].contains("file or by flag only"));
        assert_eq!(load(&[], &[("outbound.allow", "127.0.0.1:80")]).expect("a flag may").outbound.allow, ["127.0.0.1:80"]);
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let config = load(&[], &[("llm.api_key", "sk-very-secret")]).expect("a key may be set");

        assert!(!format!("{config:?}").contains("very-secret"));
    }
}
