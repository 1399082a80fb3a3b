//! One process of the measurement: stores chunks, waits until graphs are built, and leaves beside the index what the other
//! process, which asks it, has to know.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use retrieval::ChunkId;
use retrieval::index::{DEFAULT_SHARDS, EmbeddedIndex, EmbeddedOptions, Index, Point, Tuning};
use serde::{Deserialize, Serialize};

use super::data::{self, DIMENSION, Vectors};
use super::own::{self, Memory};

/// Chunks of one upsert; one follows the other.
const BATCH: u64 = 250;

/// The process is at rest when it used less than this share of a core for [`REST`].
const REST_SHARE: f64 = 0.02;
const REST: Duration = Duration::from_secs(3);

/// Questions for which the nearest chunks are known, all to the first tenant.
const JUDGED: u64 = 100;
const NEAREST: usize = 10;

/// What is stored.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub tenants: u64,
    /// Of each tenant.
    pub chunks: u64,
    pub vectors: Vectors,
}

/// What storing took, and what is nearest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Built {
    pub plan: Plan,
    pub upserts_per_second: f64,
    /// Until the upsert returned; graphs that were built meanwhile count.
    pub upsert_cpu_us: f64,
    pub upsert_p99_ms: f64,
    /// After the last upsert, until graphs were built.
    pub settled_in_s: f64,
    pub whole_cpu_s: f64,
    pub memory_most: f64,
    pub disk_mib: f64,
    /// Per judged question the nearest chunks, best first.
    pub nearest: Vec<Vec<ChunkId>>,
    /// The same of those in the small source.
    pub nearest_in_small: Vec<Vec<ChunkId>>,
}

/// Where a measured index lies and what was found out while it was made.
pub fn index_dir(dir: &Path) -> PathBuf {
    dir.join("index")
}

pub fn tuning() -> Tuning {
    Tuning {
        close_grace: Duration::from_secs(3_600),
        ..Tuning::default()
    }
}

pub fn open(dir: &Path, tuning: Tuning) -> anyhow::Result<EmbeddedIndex> {
    let options = EmbeddedOptions {
        dir: index_dir(dir),
        model_id: Some("measured"),
        dimension: Some(DIMENSION),
        shards: DEFAULT_SHARDS,
        mends: true,
    };
    Ok(EmbeddedIndex::open_tuned(options, tuning)?)
}

pub fn read(dir: &Path) -> anyhow::Result<Built> {
    let bytes = std::fs::read(dir.join("built.json")).context("no index was built here")?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Stores what `plan` says in `dir`.
pub async fn build(dir: &Path, plan: Plan) -> anyhow::Result<Built> {
    std::fs::create_dir_all(index_dir(dir))?;
    let index = open(dir, tuning())?;
    let mut latencies_ms = Vec::new();
    let (mut upserting, mut upsert_cpu) = (Duration::ZERO, 0.0);
    let (mut judge, mut judge_of_small) = (Judge::new(plan.vectors), Judge::new(plan.vectors));
    for (tenant, from) in batches(plan) {
        let to = (from + BATCH).min(plan.chunks);
        let points: Vec<_> = (from..to)
            .map(|number| data::point(plan.vectors, tenant, number))
            .collect();
        if tenant == 0 {
            judge.see(points.iter());
            let numbered = (from..to).zip(&points);
            judge_of_small
                .see(numbered.filter_map(|(n, point)| data::is_in_small_source(n).then_some(point)));
        }
        let (started, cpu) = (Instant::now(), own::cpu_seconds());
        index.upsert(data::tenant(tenant), points).await?;
        upserting += started.elapsed();
        upsert_cpu += own::cpu_seconds() - cpu;
        latencies_ms.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let stored = Instant::now();
    own::rest(REST, REST_SHARE).await;
    let settled_in_s = (stored.elapsed() - REST).as_secs_f64();
    index.close().await?;
    latencies_ms.sort_by(f64::total_cmp);
    let chunks = (plan.tenants * plan.chunks) as f64;
    let built = Built {
        plan,
        upserts_per_second: chunks / upserting.as_secs_f64(),
        upsert_cpu_us: upsert_cpu / chunks * 1e6,
        upsert_p99_ms: crate::load::percentile(&latencies_ms, 0.99),
        settled_in_s,
        whole_cpu_s: own::cpu_seconds(),
        memory_most: Memory::now().most,
        disk_mib: own::disk_mib(&index_dir(dir)),
        nearest: judge.nearest(),
        nearest_in_small: judge_of_small.nearest(),
    };
    std::fs::write(dir.join("built.json"), serde_json::to_vec(&built)?)?;
    Ok(built)
}

/// Tenant and first chunk of each upsert. Tenants take turns, as they do in life.
fn batches(plan: Plan) -> impl Iterator<Item = (u64, u64)> {
    let starts = (0..plan.chunks).step_by(BATCH as usize);
    starts.flat_map(move |from| (0..plan.tenants).map(move |tenant| (tenant, from)))
}

/// Finds the nearest chunks of each judged question by comparing with all.
struct Judge {
    questions: Vec<Judged>,
}

struct Judged {
    question: Vec<f32>,
    /// With their cosines, best first.
    nearest: Vec<(f32, ChunkId)>,
}

impl Judge {
    fn new(vectors: Vectors) -> Self {
        let questions = (0..JUDGED).map(|number| Judged {
            question: data::question_vector(vectors, number),
            nearest: Vec::new(),
        });
        Self {
            questions: questions.collect(),
        }
    }

    fn see<'p>(&mut self, points: impl Iterator<Item = &'p Point>) {
        for point in points {
            let Some(vector) = &point.vector else { continue };
            for Judged { question, nearest } in &mut self.questions {
                let cosine = data::cosine(question, vector);
                let last = nearest.last().filter(|_| nearest.len() == NEAREST);
                if last.is_some_and(|(last, _)| *last >= cosine) {
                    continue;
                }
                let place = nearest.partition_point(|(other, _)| *other >= cosine);
                nearest.insert(place, (cosine, point.chunk_id));
                nearest.truncate(NEAREST);
            }
        }
    }

    fn nearest(self) -> Vec<Vec<ChunkId>> {
        let questions = self.questions.into_iter();
        questions
            .map(|judged| judged.nearest.into_iter().map(|(_, id)| id).collect())
            .collect()
    }
}
