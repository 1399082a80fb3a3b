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

/// The path, the value and the least and most of each setting: said once, in the words of the manual.
macro_rules! ranges {
    ($config:ident: $($room:ident $(. $part:ident)+ in $least:literal..=$most:expr;)+) => {
        [$((
            concat!(stringify!($room) $(, ".", stringify!($part))+),
            $config.$room $(. $part)+ as i128,
            $least,
            $most,
        )),+]
    };
}

/// What is out of its range, each by its path.
pub(super) fn check(config: &Config) -> Vec<String> {
    let settings = ranges! { config:
        server.body_limit_bytes in 1..=GIB;
        server.upload_limit_bytes in 1..=2 * GIB;
        server.upload_files_limit in 1..=10_000;
        server.max_connections in 1..=MANY;
        server.max_connections_per_address in 1..=MANY;
        server.shutdown_grace_s in 0..=DAY_S;
        database.max_connections in 1..=1000;
        database.statement_timeout_s in 1..=3600;
        index.shards in 1..=64;
        index.promote_from_chunks in 0..=1000 * MANY;
        index.keep_previous_hours in 0..=8760;
        index.qdrant.connect_timeout_s in 1..=60;
        // A person waits for it.
        index.qdrant.read_timeout_s in 1..=60;
        index.qdrant.write_timeout_s in 1..=600;
        index.qdrant.start_timeout_s in 0..=3600;
        index.qdrant.max_attempts in 1..=100;
        index.qdrant.shards in 0..=1000;
        index.qdrant.replication_factor in 1..=100;
        index.qdrant.write_consistency_factor in 1..=100;
        index.qdrant.search_width in 0..=10_000;
        index.qdrant.promote_from_chunks in 0..=1000 * MANY;
        index.pgvector.max_connections in 1..=1000;
        // What pgvector itself takes.
        index.pgvector.m in 2..=100;
        // At least twice m, which is checked beside this.
        index.pgvector.ef_construction in 4..=1000;
        index.pgvector.ef_search in 1..=1000;
        index.pgvector.build_memory_mb in 1..=MANY;
        embedding.dimension in 0..=8192;
        embedding.max_tokens in 1..=MANY;
        embedding.batch_size in 1..=2048;
        embedding.timeout_s in 1..=LONGEST_CALL_S;
        embedding.threads in 0..=1024;
        embedding.cache_mb in 0..=1_048_576;
        llm.context_tokens in 2048..=100 * MANY;
        llm.max_answer_tokens in 16..=50 * MANY;
        llm.connect_timeout_s in 1..=DAY_S;
        llm.first_token_timeout_s in 1..=DAY_S;
        llm.idle_timeout_s in 1..=DAY_S;
        llm.total_timeout_s in 1..=LONGEST_CALL_S;
        llm.max_attempts in 1..=100;
        rerank.top_n in 2..=200;
        // A person waits for it.
        rerank.timeout_s in 1..=60;
        chat.message_limit_chars in 1..=MANY;
        chat.history_tokens in 0..=100 * MANY;
        chat.passage_tokens in 1..=100 * MANY;
        chat.max_streams in 1..=MANY;
        chat.max_streams_per_tenant in 1..=MANY;
        chat.heartbeat_s in 1..=60;
        extract.memory_mb in 128..=1_048_576;
        extract.timeout_s in 1..=DAY_S;
        extract.previews in 1..=1000;
        extract.preview_timeout_s in 1..=DAY_S;
        extract.ocr_timeout_s in 1..=DAY_S;
        // A job that indexes has half an hour for all that it does.
        extract.ocr_document_timeout_s in 1..=1200;
        extract.transcription_timeout_s in 1..=1200;
        extract.transcription_max_mb in 1..=1024;
        extract.max_pages in 1..=10 * MANY;
        extract.max_unpacked_mb in 1..=1_048_576;
        crawl.max_pages in 1..=MANY;
        crawl.max_depth in 0..=1000;
        crawl.per_host_concurrency in 1..=1000;
        crawl.delay_ms in 0..=60_000;
        crawl.page_limit_bytes in 1024..=GIB;
        crawl.page_timeout_s in 1..=3600;
        crawl.runs in 1..=1000;
        crawl.run_limit_hours in 1..=24 * 30;
        crawl.shrink_limit_percent in 0..=100;
        jobs.workers in 1..=256;
        jobs.lease_s in 1..=DAY_S;
        jobs.max_attempts in 1..=1000;
        jobs.poll_ms in 10..=1000 * DAY_S;
        jobs.keep_finished_days in 0..=3650;
        limits.requests_per_minute_per_key in 1..=1000 * MANY;
        limits.requests_per_minute_per_member in 1..=1000 * MANY;
        limits.requests_per_minute_per_tenant in 1..=1000 * MANY;
        limits.requests_per_minute_per_address in 1..=1000 * MANY;
        limits.login_attempts in 1..=MANY;
        limits.login_window_s in 1..=365 * DAY_S;
        limits.chatbots_per_tenant in 1..=MANY;
        limits.documents_per_chatbot in 1..=1000 * MANY;
        limits.sources_per_chatbot in 1..=MANY;
        limits.tenant_monthly_tokens in 0..=4_000 * MANY;
        limits.tenant_monthly_cost_micro_usd in 0..=4_000 * MANY;
        limits.free_disk_mb in 0..=1000 * MANY;
        limits.source_streams in 1..=MANY;
        auth.access_token_s in 60..=DAY_S;
        auth.refresh_token_days in 1..=3650;
        auth.invite_days in 1..=365;
        auth.jwt.leeway_s in 0..=30;
    };
    settings
        .iter()
        .filter(|(_, value, least, most)| !(least..=most).contains(&value))
        .map(|(path, _, least, most)| format!("{path}: must be {least} to {most}"))
        .collect()
}
