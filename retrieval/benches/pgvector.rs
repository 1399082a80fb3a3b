//! What the index in PostgreSQL costs, on the server that `FRONTDESK_TEST_POSTGRES_URL` names:
//! `scripts/with-postgres cargo bench -p retrieval --bench pgvector -- many 1000`, or `one 100000`; `half` behind it
//! stores vectors at half precision. Processor time is this process' and the server's together, where the server runs on
//! the same machine; work beside it does not change it.

#![expect(clippy::print_stdout, reason = "figures go to the standard output")]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use retrieval::index::{
    Facets, Filter, Index, PgvectorIndex, PgvectorOptions, PgvectorTuning, Point, SearchQuery,
};
use retrieval::{ChunkId, DocumentId, SourceId, TenantId};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

const DIMENSION: usize = 384;
const CHUNKS_EACH: u64 = 1_000;
const BATCH: u64 = 250;
const SEARCHES: u64 = 300;

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let number = wanted.get(1).and_then(|text| text.parse().ok());
    let halfvec = wanted.get(2).is_some_and(|text| text == "half");
    let Some(url) = database().await else {
        println!("FRONTDESK_TEST_POSTGRES_URL names no server: nothing was measured");
        return;
    };
    match wanted.first().map(String::as_str) {
        Some("many") => many(&url, number.unwrap_or(1_000), halfvec).await,
        Some("one") => one(&url, number.unwrap_or(100_000), halfvec).await,
        _ => println!("name what to measure: many TENANTS, or one CHUNKS"),
    }
}

/// Small tenants, who share a table.
async fn many(url: &str, tenants: u64, halfvec: bool) {
    let index = open(url, halfvec, PgvectorTuning::default()).await;
    let (started, cpu) = (Instant::now(), cpu_seconds(url).await);
    for t in 0..tenants {
        fill(&index, t, t * CHUNKS_EACH..(t + 1) * CHUNKS_EACH).await;
    }
    let total = tenants * CHUNKS_EACH;
    report_upserts("upserts", total, started, cpu, url).await;
    println!("tables: {} MiB", size(url).await >> 20);
    searches(
        url,
        "hybrid, 1 tenant of many",
        &index,
        |n| n * 7 % tenants,
        true,
        1..2,
    )
    .await;
    searches(
        url,
        "by words, 1 tenant of many",
        &index,
        |n| n * 7 % tenants,
        false,
        1..2,
    )
    .await;
    let t = tenants / 2;
    println!(
        "recall@10: {:.3}",
        recall(&index, t, t * CHUNKS_EACH..(t + 1) * CHUNKS_EACH).await
    );
}

/// One tenant with a table of its own, and the same points compared one by one.
async fn one(url: &str, chunks: u64, halfvec: bool) {
    let never = PgvectorTuning {
        own_table_from: u32::MAX,
        ..PgvectorTuning::default()
    };
    let index = open(url, halfvec, never).await;
    let (started, cpu) = (Instant::now(), cpu_seconds(url).await);
    fill(&index, 0, 0..chunks).await;
    report_upserts("upserts", chunks, started, cpu, url).await;
    searches(url, "hybrid, each point compared", &index, |_| 0, true, 0..10).await;
    index.close().await.expect("closed");

    let started = Instant::now();
    let index = open(url, halfvec, PgvectorTuning::default()).await;
    while waiting(url).await > 0 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("own table made in {:.0} s", started.elapsed().as_secs_f64());
    println!("tables: {} MiB", size(url).await >> 20);
    searches(url, "hybrid, own table", &index, |_| 0, true, 0..10).await;
    searches(
        url,
        "hybrid, own table, a source with a tenth of the chunks",
        &index,
        |_| 0,
        true,
        3..4,
    )
    .await;
    searches(url, "by words, own table", &index, |_| 0, false, 0..10).await;
    println!("recall@10: {:.3}", recall(&index, 0, 0..chunks).await);
    let (started, cpu) = (Instant::now(), cpu_seconds(url).await);
    fill(&index, 0, chunks..chunks + 1_500).await;
    report_upserts("upserts beside it", 1_500, started, cpu, url).await;
    searches(
        url,
        "hybrid, own table and 1,500 fresh",
        &index,
        |_| 0,
        true,
        0..10,
    )
    .await;
    let started = Instant::now();
    fill(&index, 0, chunks + 1_500..chunks + 3_000).await;
    while waiting(url).await > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "3,000 points moved after {:.1} s",
        started.elapsed().as_secs_f64()
    );
}

async fn fill(index: &PgvectorIndex, t: u64, range: std::ops::Range<u64>) {
    for start in range.clone().step_by(BATCH as usize) {
        let points = (start..(start + BATCH).min(range.end)).map(point).collect();
        index.upsert(tenant(t), points).await.expect("stored");
    }
}

async fn searches(
    url: &str,
    what: &str,
    index: &PgvectorIndex,
    tenant_of: impl Fn(u64) -> u64,
    with_vector: bool,
    sources: std::ops::Range<u64>,
) {
    // A source is a tenth of a tenant of any size; every point says which.
    let sources: Vec<SourceId> = if sources == (1..2) {
        (0..10).map(source).collect()
    } else {
        sources.map(source).collect()
    };
    let (mut latencies, mut found, mut cpu) = (Vec::new(), 0, 0.0);
    for n in 0..SEARCHES + 20 {
        if n == 20 {
            cpu = cpu_seconds(url).await;
        }
        let query = SearchQuery {
            text: sentence(n * 31 + 7, 6),
            vector: with_vector.then(|| vector(1_000_000_000 + n)),
            filter: Filter {
                sources: sources.clone(),
                ..Filter::default()
            },
            limit: 50,
            languages: Vec::new(),
        };
        let started = Instant::now();
        let hits = index
            .search(tenant(tenant_of(n)), query)
            .await
            .expect("candidates")
            .hits;
        if n >= 20 {
            latencies.push(started.elapsed());
        }
        found += hits.len();
    }
    let cpu = (cpu_seconds(url).await - cpu) * 1e3 / SEARCHES as f64;
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{what}: {cpu:.2} ms of processor time; p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, {} hits",
        at(0.5),
        at(0.95),
        at(0.99),
        found as u64 / (SEARCHES + 20)
    );
}

async fn recall(index: &PgvectorIndex, t: u64, own: std::ops::Range<u64>) -> f64 {
    const QUESTIONS: u64 = 30;
    let mut met = 0;
    for n in 0..QUESTIONS {
        let question = unit(vector(2_000_000_000 + n));
        let mut nearest: Vec<(f32, ChunkId)> = own
            .clone()
            .map(|n| {
                (
                    unit(vector(n)).iter().zip(&question).map(|(a, b)| a * b).sum(),
                    point_id(n),
                )
            })
            .collect();
        nearest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let query = SearchQuery {
            text: String::new(),
            vector: Some(question),
            filter: Filter {
                sources: (0..10).map(source).collect(),
                ..Filter::default()
            },
            limit: 10,
            languages: Vec::new(),
        };
        let hits = index.search(tenant(t), query).await.expect("candidates").hits;
        met += nearest[..10]
            .iter()
            .filter(|(_, id)| hits.iter().any(|hit| hit.chunk_id == *id))
            .count();
    }
    met as f64 / (QUESTIONS * 10) as f64
}

async fn open(url: &str, halfvec: bool, tuning: PgvectorTuning) -> PgvectorIndex {
    let options = PgvectorOptions {
        url,
        model_id: Some("measured"),
        dimension: Some(DIMENSION),
        halfvec,
        m: 16,
        ef_construction: 128,
        ef_search: 200,
        build_memory_mb: 256,
        max_connections: 5,
    };
    PgvectorIndex::open_tuned(options, tuning)
        .await
        .expect("an index")
}

#[expect(
    clippy::disallowed_methods,
    reason = "how the tests' own script tells where the server is"
)]
async fn database() -> Option<String> {
    let server = std::env::var("FRONTDESK_TEST_POSTGRES_URL").ok()?;
    let mut connection = PgConnection::connect(&server).await.expect("the server answers");
    connection
        .execute("drop database if exists measured")
        .await
        .expect("dropped");
    connection
        .execute("create database measured")
        .await
        .expect("made");
    let mut url = url::Url::parse(&server).expect("a URL");
    url.set_path("measured");
    Some(url.into())
}

async fn number(url: &str, query: &'static str) -> i64 {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    sqlx::query_scalar(AssertSqlSafe(query))
        .fetch_one(&mut connection)
        .await
        .expect("a number")
}

async fn size(url: &str) -> i64 {
    number(url, "select cast(sum(pg_total_relation_size(oid)) as bigint) from pg_class where relnamespace = 'frontdesk_index'::regnamespace and relkind = 'r'").await
}

async fn waiting(url: &str) -> i64 {
    number(url, "select fresh from frontdesk_index.c1_tenant").await
}

async fn report_upserts(what: &str, chunks: u64, started: Instant, cpu: f64, url: &str) {
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(url).await - cpu);
    let (chunks, each) = (chunks as f64, cpu * 1e3 / chunks as f64);
    println!(
        "{what}: {:.0} chunks a second, {each:.3} ms of processor time each",
        chunks / elapsed
    );
}

/// Processor time so far, of this process and of the server's that work for it.
async fn cpu_seconds(url: &str) -> f64 {
    /// `USER_HZ`, which is 100 on every Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    let backends: Vec<i32> =
        sqlx::query_scalar("select pid from pg_stat_activity where datname = current_database()")
            .fetch_all(&mut connection)
            .await
            .expect("a list");
    let own = i32::try_from(std::process::id()).expect("a number");
    let ticks = backends.into_iter().chain([own]).map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_whitespace()
            .collect();
        let field = |position: usize| {
            fields
                .get(position)
                .and_then(|field| field.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        field(11) + field(12)
    });
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn tenant(n: u64) -> TenantId {
    TenantId(Uuid::from_u128(u128::from(n) + 1))
}

fn source(n: u64) -> SourceId {
    SourceId(Uuid::from_u128(u128::from(n) + 1))
}

fn point_id(n: u64) -> ChunkId {
    // Spread, as ids made of contents are.
    ChunkId(Uuid::from_u128(
        (u128::from(n) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
    ))
}

fn point(n: u64) -> Point {
    Point {
        chunk_id: point_id(n),
        document_id: DocumentId(Uuid::from_u128(u128::from(n / 10))),
        source_id: source(n / 10 % 10),
        text: sentence(n, 120),
        vector: Some(vector(n)),
        facets: Facets::default(),
    }
}

/// Words as often as in language: the n-th most frequent about 1/n of the time.
fn sentence(seed: u64, words: usize) -> String {
    let mut random = random(seed);
    let word = |_| format!("term{}", 30_000_f64.powf(random()) as u64);
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

/// Like those of embedding models: of many values, which follow from few.
fn vector(seed: u64) -> Vec<f32> {
    const HIDDEN: usize = 24;
    static MIXED: LazyLock<Vec<f32>> = LazyLock::new(|| {
        let mut random = random(4_711);
        (0..DIMENSION * HIDDEN).map(|_| random() as f32 - 0.5).collect()
    });
    let mut random = random(seed);
    let hidden: Vec<f32> = (0..HIDDEN).map(|_| random() as f32 - 0.5).collect();
    let mixed = MIXED.chunks(HIDDEN);
    mixed
        .map(|row| row.iter().zip(&hidden).map(|(a, b)| a * b).sum::<f32>() + 0.1 * (random() as f32 - 0.5))
        .collect()
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|value| *value /= norm);
    vector
}

/// Numbers in [0, 1) by a small linear congruential generator.
fn random(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    }
}
