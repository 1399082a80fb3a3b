//! The other process of the measurement: opens the index, asks it one question after the other, and says what that took.

use std::path::Path;
use std::time::Instant;

use retrieval::ChunkId;
use retrieval::fuse::fuse;
use retrieval::index::{Index, SearchQuery};
use serde::{Deserialize, Serialize};

use super::build::{self, Built};
use super::data;
use super::own::{self, Memory};
use crate::load::percentile;

/// Asked first, of each tenant at least one, so that what is asked often is in memory as it would be on a server.
const WARM_UP: u64 = 300;

/// Meaning and words weigh the same.
const EVEN: f32 = 0.5;

const NEAREST: usize = 10;

/// Latency and processor time of one kind of search.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Searches {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub cpu_ms: f64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Asked {
    pub opened_in_ms: f64,
    /// The first ones after the start, of which each finds its tenant's part of the files as the system left it.
    pub first: Searches,
    pub hybrid: Searches,
    pub by_words: Searches,
    pub by_meaning: Searches,
    pub recall_at_10: f64,
    /// Hybrid, in a source with a hundredth of the chunks, and what is found there by meaning.
    pub in_small: Searches,
    pub recall_in_small: f64,
    pub memory_opened: f64,
    /// After all searches: with the touched pages of mapped files, and without them.
    pub memory: f64,
    pub memory_own: f64,
}

/// Asks the index in `dir` this many questions of each kind.
pub async fn ask(dir: &Path, questions: u64) -> anyhow::Result<Asked> {
    let built = build::read(dir)?;
    let started = Instant::now();
    let index = build::open(dir, build::tuning())?;
    let opened_in_ms = started.elapsed().as_secs_f64() * 1e3;
    let memory_opened = Memory::now().resident;
    let asking = Asking {
        index: &index,
        built: &built,
    };
    let warm_up = WARM_UP.max(built.plan.tenants);
    let first = asking.all(1_000_000, warm_up, |query| query).await?;
    let hybrid = asking.all(2_000_000, questions, |query| query).await?;
    let by_words = |query| SearchQuery {
        vector: None,
        ..query
    };
    let by_words = asking.all(3_000_000, questions, by_words).await?;
    let by_meaning = |query| SearchQuery {
        text: String::new(),
        ..query
    };
    let by_meaning = asking.all(4_000_000, questions, by_meaning).await?;
    let recall_at_10 = asking.recall(&built.nearest, |query| query).await?;
    let in_small = asking.all(5_000_000, questions, data::narrowed).await?;
    let recall_in_small = asking.recall(&built.nearest_in_small, data::narrowed).await?;
    let memory = Memory::now();
    index.close().await?;
    Ok(Asked {
        opened_in_ms,
        first,
        hybrid,
        by_words,
        by_meaning,
        recall_at_10,
        in_small,
        recall_in_small,
        memory_opened,
        memory: memory.resident,
        memory_own: memory.own,
    })
}

pub struct Asking<'a> {
    pub index: &'a dyn Index,
    pub built: &'a Built,
}

/// What one search took.
pub struct Search {
    found: usize,
    latency_ms: f64,
    cpu_ms: f64,
}

impl Searches {
    /// Of several of a kind.
    pub fn of(searches: &[Search]) -> Self {
        let mut latencies_ms: Vec<f64> = searches.iter().map(|search| search.latency_ms).collect();
        latencies_ms.sort_by(f64::total_cmp);
        Self {
            p50_ms: percentile(&latencies_ms, 0.5),
            p95_ms: percentile(&latencies_ms, 0.95),
            p99_ms: percentile(&latencies_ms, 0.99),
            cpu_ms: searches.iter().map(|search| search.cpu_ms).sum::<f64>() / searches.len() as f64,
        }
    }
}

impl Asking<'_> {
    /// Asks the questions from `first` on, each of another tenant.
    async fn all(
        &self,
        first: u64,
        count: u64,
        form: impl Fn(SearchQuery) -> SearchQuery,
    ) -> anyhow::Result<Searches> {
        let mut searches = Vec::new();
        for number in first..first + count {
            searches.push(self.one(number, &form).await?);
        }
        let found: usize = searches.iter().map(|search| search.found).sum();
        anyhow::ensure!(found > 0, "searches that find nothing measure nothing");
        Ok(Searches::of(&searches))
    }

    /// Asks one question.
    pub async fn one(
        &self,
        number: u64,
        form: impl Fn(SearchQuery) -> SearchQuery,
    ) -> anyhow::Result<Search> {
        let query = form(data::question(self.built.plan.vectors, number));
        let tenant_id = data::tenant(number % self.built.plan.tenants);
        let (started, cpu) = (Instant::now(), own::cpu_seconds());
        let found = fuse(&self.index.search(tenant_id, query).await?, EVEN).len();
        Ok(Search {
            found,
            latency_ms: started.elapsed().as_secs_f64() * 1e3,
            cpu_ms: (own::cpu_seconds() - cpu) * 1e3,
        })
    }

    /// Share of the ten nearest chunks that a search by meaning finds among its ten best.
    pub async fn recall(
        &self,
        nearest: &[Vec<ChunkId>],
        form: impl Fn(SearchQuery) -> SearchQuery,
    ) -> anyhow::Result<f64> {
        let mut met = 0;
        for (number, nearest) in (0..).zip(nearest) {
            let query = form(SearchQuery {
                text: String::new(),
                ..data::question(self.built.plan.vectors, number)
            });
            let hits = fuse(&self.index.search(data::tenant(0), query).await?, EVEN);
            let best: Vec<_> = hits.iter().take(NEAREST).map(|hit| hit.chunk_id).collect();
            met += nearest.iter().filter(|id| best.contains(id)).count();
        }
        let judged: usize = nearest.iter().map(Vec::len).sum();
        Ok(met as f64 / judged as f64)
    }
}
