//! The range of every number that can be set. Beyond the upper ends no installation works, and some values would stop
//! the process or overflow a time.

use super::Config;

const DAY_S: i128 = 86_400;

/// Reserved budgets lapse after 15 minutes, and a request that is marked as running counts as dead after 5: a call of a
/// model must have ended by then.
const LONGEST_CALL_S: i128 = 200;
const GIB: i128 = 1 << 30;

/// A million: more than one process can serve at once.
const MANY: i128 = 1_000_000;

/// What is out of its range, each by its path.
pub(super) fn check(config: &Config) -> Vec<String> {
    let Config {
        server,
        database,
        index,
        embedding,
        llm,
        chat,
        extract,
        crawl,
        jobs,
        limits,
        auth,
        ..
    } = config;
    let settings: &[(&str, i128, i128, i128)] = &[
        ("server.body_limit_bytes", server.body_limit_bytes as i128, 1, GIB),
        (
            "server.upload_limit_bytes",
            server.upload_limit_bytes.into(),
            1,
            2 * GIB,
        ),
        (
            "server.upload_files_limit",
            server.upload_files_limit as i128,
            1,
            10_000,
        ),
        ("server.max_connections", server.max_connections as i128, 1, MANY),
        (
            "server.max_connections_per_address",
            server.max_connections_per_address as i128,
            1,
            MANY,
        ),
        (
            "server.shutdown_grace_s",
            server.shutdown_grace_s.into(),
            0,
            DAY_S,
        ),
        (
            "database.max_connections",
            database.max_connections.into(),
            1,
            1000,
        ),
        ("index.shards", index.shards as i128, 1, 64),
        (
            "index.qdrant.connect_timeout_s",
            index.qdrant.connect_timeout_s.into(),
            1,
            60,
        ),
        // A person waits for it.
        (
            "index.qdrant.read_timeout_s",
            index.qdrant.read_timeout_s.into(),
            1,
            60,
        ),
        (
            "index.qdrant.write_timeout_s",
            index.qdrant.write_timeout_s.into(),
            1,
            600,
        ),
        (
            "index.qdrant.start_timeout_s",
            index.qdrant.start_timeout_s.into(),
            0,
            3600,
        ),
        (
            "index.qdrant.max_attempts",
            index.qdrant.max_attempts.into(),
            1,
            100,
        ),
        ("index.qdrant.shards", index.qdrant.shards.into(), 0, 1000),
        (
            "index.qdrant.replication_factor",
            index.qdrant.replication_factor.into(),
            1,
            100,
        ),
        (
            "index.qdrant.write_consistency_factor",
            index.qdrant.write_consistency_factor.into(),
            1,
            100,
        ),
        (
            "index.qdrant.search_width",
            index.qdrant.search_width.into(),
            0,
            10_000,
        ),
        (
            "index.qdrant.promote_from_chunks",
            index.qdrant.promote_from_chunks.into(),
            0,
            1000 * MANY,
        ),
        (
            "index.pgvector.max_connections",
            index.pgvector.max_connections.into(),
            1,
            1000,
        ),
        // What pgvector itself takes.
        ("index.pgvector.m", index.pgvector.m.into(), 2, 100),
        (
            "index.pgvector.ef_construction",
            index.pgvector.ef_construction.into(),
            // At least twice m, which is checked beside this.
            4,
            1000,
        ),
        (
            "index.pgvector.ef_search",
            index.pgvector.ef_search.into(),
            1,
            1000,
        ),
        (
            "index.pgvector.build_memory_mb",
            index.pgvector.build_memory_mb.into(),
            1,
            MANY,
        ),
        ("embedding.dimension", embedding.dimension as i128, 0, 8192),
        ("embedding.max_tokens", embedding.max_tokens as i128, 1, MANY),
        ("embedding.batch_size", embedding.batch_size as i128, 1, 2048),
        (
            "embedding.timeout_s",
            embedding.timeout_s.into(),
            1,
            LONGEST_CALL_S,
        ),
        ("embedding.threads", embedding.threads as i128, 0, 1024),
        ("llm.context_tokens", llm.context_tokens as i128, 2048, 100 * MANY),
        (
            "llm.max_answer_tokens",
            llm.max_answer_tokens as i128,
            16,
            50 * MANY,
        ),
        ("llm.connect_timeout_s", llm.connect_timeout_s.into(), 1, DAY_S),
        (
            "llm.first_token_timeout_s",
            llm.first_token_timeout_s.into(),
            1,
            DAY_S,
        ),
        ("llm.idle_timeout_s", llm.idle_timeout_s.into(), 1, DAY_S),
        (
            "llm.total_timeout_s",
            llm.total_timeout_s.into(),
            1,
            LONGEST_CALL_S,
        ),
        ("llm.max_attempts", llm.max_attempts.into(), 1, 100),
        (
            "chat.message_limit_chars",
            chat.message_limit_chars as i128,
            1,
            MANY,
        ),
        ("chat.history_tokens", chat.history_tokens as i128, 0, 100 * MANY),
        ("chat.passage_tokens", chat.passage_tokens as i128, 1, 100 * MANY),
        ("chat.max_streams", chat.max_streams as i128, 1, MANY),
        (
            "chat.max_streams_per_tenant",
            chat.max_streams_per_tenant as i128,
            1,
            MANY,
        ),
        ("chat.heartbeat_s", chat.heartbeat_s.into(), 1, 60),
        ("extract.memory_mb", extract.memory_mb.into(), 128, 1_048_576),
        ("extract.timeout_s", extract.timeout_s.into(), 1, DAY_S),
        ("extract.previews", extract.previews as i128, 1, 1000),
        (
            "extract.preview_timeout_s",
            extract.preview_timeout_s.into(),
            1,
            DAY_S,
        ),
        ("extract.ocr_timeout_s", extract.ocr_timeout_s.into(), 1, DAY_S),
        // A job that indexes has half an hour for all that it does.
        (
            "extract.ocr_document_timeout_s",
            extract.ocr_document_timeout_s.into(),
            1,
            1200,
        ),
        (
            "extract.transcription_timeout_s",
            extract.transcription_timeout_s.into(),
            1,
            1200,
        ),
        (
            "extract.transcription_max_mb",
            extract.transcription_max_mb.into(),
            1,
            1024,
        ),
        ("extract.max_pages", extract.max_pages.into(), 1, 10 * MANY),
        (
            "extract.max_unpacked_mb",
            extract.max_unpacked_mb.into(),
            1,
            1_048_576,
        ),
        ("crawl.max_pages", crawl.max_pages.into(), 1, MANY),
        ("crawl.max_depth", crawl.max_depth.into(), 0, 1000),
        (
            "crawl.per_host_concurrency",
            crawl.per_host_concurrency as i128,
            1,
            1000,
        ),
        ("crawl.delay_ms", crawl.delay_ms.into(), 0, 60_000),
        (
            "crawl.page_limit_bytes",
            crawl.page_limit_bytes as i128,
            1024,
            GIB,
        ),
        ("crawl.page_timeout_s", crawl.page_timeout_s.into(), 1, 3600),
        ("crawl.runs", crawl.runs as i128, 1, 1000),
        ("crawl.run_limit_hours", crawl.run_limit_hours.into(), 1, 24 * 30),
        (
            "crawl.shrink_limit_percent",
            crawl.shrink_limit_percent.into(),
            0,
            100,
        ),
        ("jobs.workers", jobs.workers as i128, 1, 256),
        ("jobs.lease_s", jobs.lease_s.into(), 1, DAY_S),
        ("jobs.max_attempts", jobs.max_attempts.into(), 1, 1000),
        ("jobs.poll_ms", jobs.poll_ms.into(), 10, 1000 * DAY_S),
        ("jobs.keep_finished_days", jobs.keep_finished_days.into(), 0, 3650),
        (
            "limits.requests_per_minute_per_key",
            limits.requests_per_minute_per_key.into(),
            1,
            1000 * MANY,
        ),
        (
            "limits.requests_per_minute_per_member",
            limits.requests_per_minute_per_member.into(),
            1,
            1000 * MANY,
        ),
        (
            "limits.requests_per_minute_per_tenant",
            limits.requests_per_minute_per_tenant.into(),
            1,
            1000 * MANY,
        ),
        (
            "limits.requests_per_minute_per_address",
            limits.requests_per_minute_per_address.into(),
            1,
            1000 * MANY,
        ),
        ("limits.login_attempts", limits.login_attempts.into(), 1, MANY),
        (
            "limits.login_window_s",
            limits.login_window_s.into(),
            1,
            365 * DAY_S,
        ),
        (
            "limits.chatbots_per_tenant",
            limits.chatbots_per_tenant.into(),
            1,
            MANY,
        ),
        (
            "limits.documents_per_chatbot",
            limits.documents_per_chatbot.into(),
            1,
            1000 * MANY,
        ),
        (
            "limits.sources_per_chatbot",
            limits.sources_per_chatbot.into(),
            1,
            MANY,
        ),
        (
            "limits.tenant_monthly_tokens",
            limits.tenant_monthly_tokens.into(),
            0,
            4_000 * MANY,
        ),
        (
            "limits.tenant_monthly_cost_micro_usd",
            limits.tenant_monthly_cost_micro_usd.into(),
            0,
            4_000 * MANY,
        ),
        ("limits.free_disk_mb", limits.free_disk_mb.into(), 0, 1000 * MANY),
        ("limits.source_streams", limits.source_streams as i128, 1, MANY),
        ("auth.access_token_s", auth.access_token_s.into(), 60, DAY_S),
        ("auth.refresh_token_days", auth.refresh_token_days.into(), 1, 3650),
        ("auth.invite_days", auth.invite_days.into(), 1, 365),
        ("auth.jwt.leeway_s", auth.jwt.leeway_s.into(), 0, 30),
    ];
    settings
        .iter()
        .filter(|(_, value, least, most)| !(least..=most).contains(&value))
        .map(|(path, _, least, most)| format!("{path}: must be {least} to {most}"))
        .collect()
}
