//! What cannot be told from one value's type alone: ranges, formats, settings that need each other.

use std::path::Path;

use retrieval::analysis::Language;

use super::{Config, EmbeddingBackend, IndexBackend, RerankBackend, is_origin, qdrant, ranges};
use crate::db::DatabaseUrl;
use crate::telemetry;
use crate::tenancy::tokens::OWN_ISSUER;
use crate::usage::price_book::PriceBook;

impl Config {
    /// All that is wrong with these values, each by its path.
    pub(super) fn check(&self) -> Vec<String> {
        let mut problems = ranges::check(self);
        if self.index.backend == IndexBackend::Qdrant {
            problems.extend(qdrant::check(self));
        }
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
        require(
            self.index.backend != IndexBackend::Pgvector
                || matches!(self.pgvector_url().parse(), Ok(DatabaseUrl::Postgres(_))),
            "index.url: index.backend \"pgvector\" needs a postgres:// URL here, or in database.url while this is empty",
        );
        require(
            self.index.backend != IndexBackend::Embedded || self.index.url.is_empty(),
            "index.url: the embedded index has none; leave it empty, or choose another index.backend",
        );
        require(
            self.index.backend == IndexBackend::Qdrant || self.index.api_key.is_empty(),
            "index.api_key: is for a Qdrant server, and index.backend is another",
        );
        require(
            self.index.pgvector.ef_construction >= self.index.pgvector.m.saturating_mul(2),
            "index.pgvector.ef_construction: must be at least twice index.pgvector.m",
        );
        match self.embedding.backend {
            EmbeddingBackend::Local | EmbeddingBackend::Static => {
                for (path, is_set) in [
                    ("base_url", !self.embedding.base_url.is_empty()),
                    ("api_key", !self.embedding.api_key.is_empty()),
                    ("languages", !self.embedding.languages.is_empty()),
                ] {
                    require(
                        !is_set,
                        &format!(
                            "embedding.{path}: is for servers, and embedding.backend names a model in this process"
                        ),
                    );
                }
            }
            EmbeddingBackend::Openai | EmbeddingBackend::Tei => {
                require(
                    is_http_url(&self.embedding.base_url),
                    "embedding.base_url: must be an http or https URL when embedding.backend is \"openai\" or \"tei\"",
                );
                require(
                    !self.embedding.model.is_empty(),
                    "embedding.model: must be set when embedding.backend is \"openai\" or \"tei\"",
                );
                require(
                    self.embedding.dimension >= 1,
                    "embedding.dimension: must be the length of the model's vectors when embedding.backend is \"openai\" or \"tei\"",
                );
            }
        }
        for (path, prefix) in [
            ("query_prefix", &self.embedding.query_prefix),
            ("document_prefix", &self.embedding.document_prefix),
        ] {
            require(
                prefix.is_empty() || self.embedding.backend != EmbeddingBackend::Static,
                &format!(
                    "embedding.{path}: a model of embedding.backend \"static\" reads nothing before a text; leave it empty"
                ),
            );
        }
        for language in &self.embedding.languages {
            require(
                Language::from_tag(language).is_some(),
                &format!(
                    "embedding.languages: there are no rules for {language:?}; name languages as \"en\" or \"de\", or none where the model reads many"
                ),
            );
        }
        if !self.llm.base_url.is_empty() {
            require(
                is_http_url(&self.llm.base_url),
                "llm.base_url: must be an http or https URL",
            );
            require(
                !self.llm.model.is_empty(),
                "llm.model: must be set when llm.base_url is",
            );
        }
        require(
            !self.llm.base_url.is_empty() || (self.llm.model.is_empty() && self.llm.api_key.is_empty()),
            "llm.base_url: must be set when llm.model or llm.api_key is",
        );
        let rerank = &self.rerank;
        match rerank.backend {
            RerankBackend::None | RerankBackend::Llm => {
                for (path, is_set) in [
                    ("base_url", !rerank.base_url.is_empty()),
                    ("api_key", !rerank.api_key.is_empty()),
                ] {
                    require(
                        !is_set,
                        &format!("rerank.{path}: is for a reranking server, and rerank.backend names none"),
                    );
                }
                require(
                    rerank.backend == RerankBackend::None || !self.llm.base_url.is_empty(),
                    "llm.base_url: must be set when rerank.backend is \"llm\"",
                );
            }
            RerankBackend::Cohere | RerankBackend::Jina | RerankBackend::Voyage | RerankBackend::Tei => {
                require(
                    is_http_url(&rerank.base_url),
                    "rerank.base_url: must be an http or https URL when rerank.backend is a server",
                );
                require(
                    !rerank.model.is_empty(),
                    "rerank.model: must be set when rerank.backend is a server",
                );
            }
        }
        for (path, url, key) in [
            (
                "embedding.api_key",
                &self.embedding.base_url,
                &self.embedding.api_key,
            ),
            ("llm.api_key", &self.llm.base_url, &self.llm.api_key),
            ("rerank.api_key", &rerank.base_url, &rerank.api_key),
            (
                "extract.transcription_api_key",
                &self.extract.transcription_base_url,
                &self.extract.transcription_api_key,
            ),
        ] {
            require(
                key.is_empty() || !goes_elsewhere_plainly(url) || self.outbound.allows_plain_keys_to(url),
                &format!(
                    "{path}: would go to another machine unencrypted: use https, or name its host in outbound.allow_plain_keys where its network is a private one"
                ),
            );
        }
        require(
            matches!(
                self.llm.token_limit_field.as_str(),
                "max_completion_tokens" | "max_tokens"
            ),
            "llm.token_limit_field: must be max_completion_tokens or max_tokens",
        );
        require(
            self.llm.max_answer_tokens <= self.llm.context_tokens / 2,
            "llm.max_answer_tokens: must be at most half of llm.context_tokens",
        );
        if let Err(problem) = PriceBook::load(&self.llm.price_book) {
            require(false, &format!("llm.price_book: {problem}"));
        }
        require(
            self.server.public_url.is_empty() || is_http_url(&self.server.public_url),
            "server.public_url: must be an http or https URL",
        );
        for (path, text) in [
            ("google.auth_url", &self.google.auth_url),
            ("google.token_url", &self.google.token_url),
            ("google.drive_base_url", &self.google.drive_base_url),
        ] {
            require(
                is_http_url(text),
                &format!("{path}: must be an http or https URL"),
            );
        }
        require(
            self.google.client_id.is_empty() || !self.google.client_secret.is_empty(),
            "google.client_secret: must be set when google.client_id is",
        );
        require(
            self.crawl
                .user_agent
                .bytes()
                .all(|byte| matches!(byte, b' '..=b'~')),
            "crawl.user_agent: must be printable ASCII",
        );
        require(
            self.extract.ocr_program.is_empty() || Path::new(&self.extract.ocr_program).is_absolute(),
            "extract.ocr_program: must be the whole path of a program",
        );
        require(
            !self.extract.ocr_languages.is_empty()
                && self.extract.ocr_languages.iter().all(|name| {
                    !name.is_empty()
                        && name
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                }),
            "extract.ocr_languages: must name language models, such as \"eng\" or \"chi_sim\"",
        );
        if !self.extract.transcription_base_url.is_empty() {
            require(
                is_http_url(&self.extract.transcription_base_url),
                "extract.transcription_base_url: must be an http or https URL",
            );
            require(
                !self.extract.transcription_model.is_empty(),
                "extract.transcription_model: must be set when extract.transcription_base_url is",
            );
        }
        require(
            self.crawl.chromium.is_empty() || Path::new(&self.crawl.chromium).is_absolute(),
            "crawl.chromium: must be the whole path of a program",
        );
        if let Err(problem) = telemetry::check_level(&self.log.level) {
            require(false, &problem);
        }
        for entry in &self.outbound.allow {
            require(
                entry.parse::<outbound::HostPort>().is_ok(),
                &format!("outbound.allow: {entry:?} is not host:port"),
            );
        }
        for origin in &self.server.dashboard_origins {
            require(
                is_origin(origin),
                &format!(
                    "server.dashboard_origins: {origin:?} is not an origin such as https://desk.example.com"
                ),
            );
        }
        let jwt = &self.auth.jwt;
        let is_any_set = [&jwt.audience, &jwt.algorithm, &jwt.jwks_url]
            .iter()
            .any(|text| !text.is_empty())
            || !jwt.hs256_secret.is_empty();
        require(
            !jwt.issuer.is_empty() || !is_any_set,
            "auth.jwt.issuer: must be set when anything else of auth.jwt is",
        );
        require(
            jwt.issuer != OWN_ISSUER,
            "auth.jwt.issuer: \"frontdesk\" is what this program's own tokens say",
        );
        if !jwt.issuer.is_empty() {
            require(
                !jwt.audience.is_empty(),
                "auth.jwt.audience: must be set when auth.jwt.issuer is",
            );
            match jwt.algorithm.as_str() {
                "HS256" => require(
                    jwt.hs256_secret.expose().len() >= 32,
                    "auth.jwt.hs256_secret: must have at least 32 characters for HS256",
                ),
                "RS256" | "ES256" => require(
                    is_http_url(&jwt.jwks_url),
                    "auth.jwt.jwks_url: must be an http or https URL for RS256 and ES256",
                ),
                _ => require(false, "auth.jwt.algorithm: must be HS256, RS256 or ES256"),
            }
            require(
                matches!(jwt.default_role.as_str(), "owner" | "admin" | "editor" | "viewer"),
                "auth.jwt.default_role: must be owner, admin, editor or viewer",
            );
        }
        if !self.secrets.key.is_empty() {
            use base64::Engine as _;
            let length = base64::engine::general_purpose::STANDARD
                .decode(self.secrets.key.expose())
                .map(|bytes| bytes.len());
            require(
                length == Ok(32),
                "secrets.key: must be 32 bytes in base64; `openssl rand -base64 32` makes one",
            );
        }
        problems
    }
}

fn is_http_url(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Whether what is sent there leaves this machine without TLS.
impl super::Outbound {
    /// Whether the host of this address may be sent keys without TLS.
    pub(super) fn allows_plain_keys_to(&self, url: &str) -> bool {
        let url = url::Url::parse(url).ok();
        let host = url.as_ref().and_then(url::Url::host_str);
        let is_named = |host: &str| {
            self.allow_plain_keys
                .iter()
                .any(|named| named.eq_ignore_ascii_case(host))
        };
        host.is_some_and(is_named)
    }
}

fn goes_elsewhere_plainly(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else {
        return false;
    };
    let is_here = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !is_here
}
