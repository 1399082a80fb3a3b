//! A third process of the measurement: deletes one document and asks on until the files have forgotten it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use retrieval::ChunkId;
use retrieval::index::{Index as _, Tuning};
use serde::{Deserialize, Serialize};

use super::ask::{Asking, Searches};
use super::build;
use super::data;
use super::own;

/// What says in a shard's folder that its files keep something that was deleted.
const NOTE: &str = "deleted";

/// Pause between two questions, so that they take little of what is measured.
const PAUSE: Duration = Duration::from_millis(50);

/// What it takes that files forget one document of the first tenant, who is asked meanwhile.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Forgotten {
    /// From the deletion on, with the two seconds' quiet that are waited for.
    pub took_s: f64,
    /// With that of the questions.
    pub cpu_s: f64,
    pub hybrid: Searches,
    pub recall_after: f64,
}

/// Deletes the first document of the index in `dir`.
pub async fn forget(dir: &Path) -> anyhow::Result<Forgotten> {
    let mut built = build::read(dir)?;
    let at_once = Tuning {
        deleted_kept_busy: Duration::ZERO,
        deleted_kept_idle: Duration::ZERO,
        ..build::tuning()
    };
    let index = build::open(dir, at_once)?;
    let gone = data::point(built.plan.vectors, 0, 0);
    let chunks: Vec<ChunkId> = (0..data::CHUNKS_PER_DOCUMENT)
        .map(|number| data::chunk(0, number))
        .collect();
    for nearest in &mut built.nearest {
        nearest.retain(|id| !chunks.contains(id));
    }
    let asking = Asking {
        index: &index,
        built: &built,
    };
    let (started, cpu) = (Instant::now(), own::cpu_seconds());
    index
        .delete_documents(data::tenant(0), vec![gone.document_id])
        .await?;
    // It is noted behind the answer.
    tokio::time::sleep(PAUSE).await;
    ensure!(keeps_deleted(dir), "nothing was noted to be forgotten");
    let (mut searches, mut number) = (Vec::new(), 6_000_000);
    while keeps_deleted(dir) {
        searches.push(asking.one(number, |query| query).await?);
        number += built.plan.tenants;
        tokio::time::sleep(PAUSE).await;
    }
    let (took, cpu) = (started.elapsed(), own::cpu_seconds() - cpu);
    let recall_after = asking.recall(&built.nearest, |query| query).await?;
    index.close().await?;
    Ok(Forgotten {
        took_s: took.as_secs_f64(),
        cpu_s: cpu,
        hybrid: Searches::of(&searches),
        recall_after,
    })
}

fn keeps_deleted(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| match path.is_dir() {
        true => keeps_deleted(&path),
        false => path.file_name().is_some_and(|name| name == NOTE),
    })
}
