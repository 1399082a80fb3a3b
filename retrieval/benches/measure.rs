//! What the crate costs: texts embedded per second, the latency of a short question, writes and searches of the embedded
//! index, memory. `cargo bench -p retrieval`, or `cargo bench -p retrieval -- index` for a part. `growth` is left out
//! unless named: it writes until an index is large (`-- growth words 300000`, or `vectors`, and after it a number of
//! tenants).
//!
//! Figures go to the standard output, one a line, to be compared with those of another commit on the same machine. Rates
//! are per second of processor time where it says so, which work beside it on the same machine does not change.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use retrieval::embed::{Asker, Embedder, LocalEmbedder, LocalOptions, Precision, StaticEmbedder, distill};
use retrieval::fuse::fuse;
use retrieval::index::{
    DEFAULT_SHARDS, EmbeddedIndex, EmbeddedOptions, Facets, Filter, Index, Point, SearchQuery,
};
use retrieval::{ChunkId, DocumentId, SourceId, TenantId};
use uuid::Uuid;

const DIMENSION: usize = 384;
const CHUNKS: u64 = 10_000;
const SEARCHES: u64 = 400;

/// Texts that a model embeds; a static one embeds a hundred times as many.
const EMBEDDED: usize = 200;

/// Values of a vector of the static model, as `frontdesk models distill` makes it.
const STATIC_DIMENSION: usize = 256;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let runs = |part: &str| wanted.is_empty() || wanted.iter().any(|name| name == part);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        report("memory at start", memory());
        if runs("index") {
            index_one_tenant().await;
            index_many_tenants().await;
            index_single_writes().await;
        }
        if runs("embed") {
            embed().await;
        }
        if wanted.first().is_some_and(|name| name == "growth") {
            let number = |position: usize| wanted.get(position).and_then(|text| text.parse().ok());
            let with_vectors = wanted.get(1).is_some_and(|side| side == "vectors");
            growth(with_vectors, number(2).unwrap_or(100_000), number(3).unwrap_or(1)).await;
        }
    });
}

async fn index_one_tenant() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path());
    report("memory with an empty index", memory());
    let started = Instant::now();
    for start in (0..CHUNKS).step_by(250) {
        index
            .upsert(tenant(0), (start..start + 250).map(point).collect())
            .await
            .expect("stored");
    }
    report(
        "upserts of 250 chunks, one tenant",
        rate(CHUNKS, started.elapsed()),
    );
    report("memory after 10,000 chunks", memory());
    searches("hybrid search in 10,000 chunks", &index, |_| tenant(0), true).await;
    searches("keyword search in 10,000 chunks", &index, |_| tenant(0), false).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    report("memory when quiet", memory());
    index.close().await.expect("closed");

    let started = Instant::now();
    let index = open(dir.path());
    report(
        "opening 10,000 chunks",
        format!("{:.1} ms", started.elapsed().as_secs_f64() * 1e3),
    );
    report("memory after reopening", memory());
    searches("first searches after reopening", &index, |_| tenant(0), true).await;
    index.close().await.expect("closed");
}

async fn index_many_tenants() {
    const TENANTS: u64 = 100;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path());
    let each = CHUNKS / TENANTS;
    let started = Instant::now();
    join_all((0..TENANTS).map(|n| index.upsert(tenant(n), (n * each..(n + 1) * each).map(point).collect())))
        .await;
    report(
        "upserts of 100 chunks, 100 tenants at once",
        rate(CHUNKS, started.elapsed()),
    );
    searches(
        "hybrid search in 1 of 100 tenants of 100 chunks",
        &index,
        |n| tenant(n % TENANTS),
        true,
    )
    .await;
    index.close().await.expect("closed");
}

async fn index_single_writes() {
    const WRITES: u64 = 500;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path());
    let started = Instant::now();
    for n in 0..WRITES {
        index.upsert(tenant(0), vec![point(n)]).await.expect("stored");
    }
    report(
        "upserts of one chunk, one after the other",
        rate(WRITES, started.elapsed()),
    );
    let started = Instant::now();
    for start in (0..WRITES * 4).step_by(64) {
        join_all((start..start + 64).map(|n| index.upsert(tenant(n % 16), vec![point(n)]))).await;
    }
    report(
        "upserts of one chunk, 64 at once",
        rate(WRITES * 4, started.elapsed()),
    );
    index.close().await.expect("closed");
}

/// Writes `chunks` chunks and measures each time their number has doubled.
async fn growth(with_vectors: bool, chunks: u64, tenants: u64) {
    let batch = (chunks / tenants).clamp(1, 250);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = if with_vectors {
        open(dir.path())
    } else {
        open_words(dir.path())
    };
    let mut latencies = Vec::new();
    let (mut cpu, mut started, mut written) = (cpu_seconds(), Instant::now(), 0);
    let mut mark = 10_000.min(chunks);
    for start in (0..chunks).step_by(batch as usize) {
        let points = (start..start + batch)
            .map(|n| Point {
                vector: with_vectors.then(|| vector(n)),
                ..point(n)
            })
            .collect();
        let began = Instant::now();
        index
            .upsert(tenant(start / batch % tenants), points)
            .await
            .expect("stored");
        latencies.push(began.elapsed());
        written += batch;
        if start + batch < mark {
            continue;
        }
        mark = (mark * 2).min(chunks);
        let present = tenants.min((start + batch) / batch);
        let what = format!("{} chunks, {tenants} tenants", start + batch);
        report(
            &format!("{what}: the last {written} upserts"),
            format!(
                "{:.0} a second of processor time, {:.0} a second, {}",
                written as f64 / (cpu_seconds() - cpu),
                written as f64 / started.elapsed().as_secs_f64(),
                percentiles(std::mem::take(&mut latencies)),
            ),
        );
        report(&format!("{what}: memory"), memory());
        report(
            &format!("{what}: on disk"),
            format!("{} MiB", disk_bytes(dir.path()) >> 20),
        );
        searches(
            &format!("{what}: search by words"),
            &index,
            |n| tenant(n % present),
            false,
        )
        .await;
        if with_vectors {
            searches(
                &format!("{what}: hybrid search"),
                &index,
                |n| tenant(n % present),
                true,
            )
            .await;
            let own = (0..start + batch).filter(|n| (n / batch).is_multiple_of(tenants));
            report(
                &format!("{what}: recall@10 by meaning"),
                recall(&index, &own.collect::<Vec<_>>()).await,
            );
        }
        (cpu, started, written) = (cpu_seconds(), Instant::now(), 0);
    }
    let (cpu, started) = (cpu_seconds(), Instant::now());
    index.close().await.expect("closed");
    report(
        "closing",
        format!(
            "{:.2} s, {:.2} s of processor time",
            started.elapsed().as_secs_f64(),
            cpu_seconds() - cpu
        ),
    );
    let started = Instant::now();
    let index = if with_vectors {
        open(dir.path())
    } else {
        open_words(dir.path())
    };
    report("opening", format!("{:.2} s", started.elapsed().as_secs_f64()));
    report("memory after reopening", memory());
    searches(
        "search by words after reopening",
        &index,
        |n| tenant(n % tenants),
        false,
    )
    .await;
    if with_vectors {
        searches(
            "hybrid search after reopening",
            &index,
            |n| tenant(n % tenants),
            true,
        )
        .await;
    }
    index.close().await.expect("closed");
}

/// The model at full and at int8 precision, and the static model that is distilled from it. `sentence_transformers.py` beside this
/// measures PyTorch on the same texts.
async fn embed() {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/all-MiniLM-L6-v2"));
    report("memory without a model", memory());
    let at = |precision| {
        let options = LocalOptions {
            precision,
            ..LocalOptions::default()
        };
        let embedder = LocalEmbedder::load(dir, options);
        Arc::new(embedder.expect("the model in models/all-MiniLM-L6-v2"))
    };
    let full = embed_by("f32", at(Precision::F32), EMBEDDED).await;
    let int8 = embed_by("int8", at(Precision::Int8), EMBEDDED).await;
    let target = tempfile::tempdir().expect("a temporary directory");
    let target = target.path().join("static");
    distill(dir, &target, STATIC_DIMENSION, |_, _| ()).expect("distilled");
    let embedder = StaticEmbedder::load(&target, 1, Precision::F32).expect("what was just made");
    let of_static = embed_by("static", Arc::new(embedder), 100 * EMBEDDED).await;
    report("int8, times f32", format!("{:.1}", int8 / full));
    report("static, times f32", format!("{:.1}", of_static / full));
}

/// Texts of 128 tokens that it embeds in a second of processor time.
async fn embed_by(name: &str, embedder: Arc<dyn Embedder>, texts: usize) -> f64 {
    // Each of these words is one token.
    let text = |n: usize, words: usize| {
        (0..words)
            .map(|word| ["house", "water", "paper", "green"][(n + word) % 4])
            .collect::<Vec<_>>()
            .join(" ")
    };
    let ask = |n: usize| embedder.embed_query(Asker::Service, text(n, 8));
    ask(0).await.expect("warm");
    let mut latencies = Vec::new();
    for n in 0..200 {
        let started = Instant::now();
        ask(n).await.expect("a vector");
        latencies.push(started.elapsed());
    }
    report(&format!("{name}: question of 8 tokens"), percentiles(latencies));
    let started = Instant::now();
    join_all((0..64).map(ask)).await;
    report(
        &format!("{name}: questions of 8 tokens, 64 at once"),
        rate(64, started.elapsed()),
    );
    let all = (0..texts).map(|n| text(n, 128)).collect();
    let before = cpu_seconds();
    embedder
        .embed_documents(Asker::Service, all)
        .await
        .expect("vectors");
    let rate = texts as f64 / (cpu_seconds() - before);
    report(
        &format!("{name}: texts of 128 tokens"),
        format!("{rate:.1} a second of processor time"),
    );
    report(&format!("{name}: memory after embedding"), memory());
    rate
}

async fn searches(what: &str, index: &EmbeddedIndex, tenant_of: impl Fn(u64) -> TenantId, with_vector: bool) {
    let (mut latencies, mut found) = (Vec::new(), 0);
    for n in 0..SEARCHES {
        let query = SearchQuery {
            text: sentence(n * 31 + 7, 6),
            vector: with_vector.then(|| vector(1_000_000 + n)),
            filter: Filter {
                sources: vec![SourceId(Uuid::from_u128(1))],
                ..Filter::default()
            },
            limit: 10,
            languages: Vec::new(),
        };
        let started = Instant::now();
        let hits = fuse(&index.search(tenant_of(n), query).await.expect("candidates"), 0.5);
        latencies.push(started.elapsed());
        found += hits.len();
    }
    assert!(found > 0, "searches that find nothing measure nothing");
    report(what, percentiles(latencies));
}

/// Share of the ten nearest chunks of the first tenant that a search by meaning finds; `own` are all its chunks.
async fn recall(index: &EmbeddedIndex, own: &[u64]) -> String {
    const QUESTIONS: u64 = 20;
    let normalised = |seed| {
        let values = vector(seed);
        let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        values.into_iter().map(|value| value / norm).collect::<Vec<f32>>()
    };
    let questions: Vec<Vec<f32>> = (0..QUESTIONS).map(|n| normalised(2_000_000 + n)).collect();
    let mut nearest: Vec<Vec<(f32, u64)>> = vec![Vec::new(); questions.len()];
    for n in own {
        let chunk = normalised(*n);
        for (question, nearest) in questions.iter().zip(&mut nearest) {
            let cosine: f32 = question.iter().zip(&chunk).map(|(a, b)| a * b).sum();
            nearest.push((cosine, *n));
        }
    }
    let mut met = 0;
    for (question, mut nearest) in questions.into_iter().zip(nearest) {
        nearest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let query = SearchQuery {
            text: String::new(),
            vector: Some(question),
            filter: Filter {
                sources: vec![SourceId(Uuid::from_u128(1))],
                ..Filter::default()
            },
            limit: 10,
            languages: Vec::new(),
        };
        let hits = fuse(&index.search(tenant(0), query).await.expect("candidates"), 0.5);
        met += nearest[..10]
            .iter()
            .filter(|(_, n)| hits.iter().any(|hit| hit.chunk_id == point(*n).chunk_id))
            .count();
    }
    format!("{:.3}", met as f64 / (QUESTIONS * 10) as f64)
}

fn open(dir: &Path) -> EmbeddedIndex {
    let options = EmbeddedOptions {
        dir: dir.to_owned(),
        model_id: Some("measured"),
        dimension: Some(DIMENSION),
        shards: DEFAULT_SHARDS,
        mends: true,
    };
    EmbeddedIndex::open(options).expect("an index")
}

fn open_words(dir: &Path) -> EmbeddedIndex {
    let options = EmbeddedOptions {
        dir: dir.to_owned(),
        model_id: None,
        dimension: None,
        shards: DEFAULT_SHARDS,
        mends: true,
    };
    EmbeddedIndex::open(options).expect("an index")
}

fn tenant(n: u64) -> TenantId {
    TenantId(Uuid::from_u128(u128::from(n) + 1))
}

fn point(n: u64) -> Point {
    Point {
        chunk_id: ChunkId(Uuid::from_u128(u128::from(n) + 1)),
        document_id: DocumentId(Uuid::from_u128(u128::from(n / 10))),
        source_id: SourceId(Uuid::from_u128(1)),
        text: sentence(n, 120),
        vector: Some(vector(n)),
        facets: Facets::default(),
    }
}

/// Words as often as in language: the n-th most frequent about 1/n of the time.
fn sentence(seed: u64, words: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = |_| {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        let uniform = (state >> 33) as f64 / (1_u64 << 31) as f64;
        format!("term{}", 30_000_f64.powf(uniform) as u64)
    };
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

fn vector(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..DIMENSION)
        .map(|_| {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
        })
        .collect()
}

fn rate(count: u64, elapsed: Duration) -> String {
    format!("{:.0} a second", count as f64 / elapsed.as_secs_f64())
}

fn percentiles(mut latencies: Vec<Duration>) -> String {
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!(
        "p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms",
        at(0.5),
        at(0.95),
        at(0.99)
    )
}

/// Processor time of all threads so far.
fn cpu_seconds() -> f64 {
    /// `USER_HZ`, which is 100 on every Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |position: usize| {
        fields
            .get(position)
            .and_then(|field| field.parse().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Bytes that the files below `dir` take on the disk.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// What the process has in memory, of its own and of files.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mib = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default();
        line.split_whitespace()
            .next()
            .and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or_default()
            / 1024
    };
    format!(
        "{} MiB, of which {} MiB are files",
        mib("VmRSS:"),
        mib("RssFile:")
    )
}

fn report(what: &str, figure: impl std::fmt::Display) {
    writeln!(std::io::stdout(), "{what}: {figure}").expect("somebody reads");
}
