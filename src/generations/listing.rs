//! What owners see of their generations. A count is kept of what was put in while one was built; what answers is counted as it
//! is now, since documents come and go.

use std::collections::HashMap;

use super::cuts::{self, Cut, FillCut};
use super::fill::{self, FillGeneration};
use super::{Generation, state, store};
use crate::app::App;
use crate::error::Result;
use crate::id::{GenerationId, SourceId, TenantId};
use crate::jobs;
use crate::knowledge;

/// Those of both kinds that hold chunks, and the latest of those that were given up; of each kind the newest first.
pub async fn list(app: &App, tenant_id: TenantId) -> Result<(Vec<Generation>, Vec<Cut>)> {
    let mut conn = app.db.read(tenant_id).await?;
    let mut generations = store::list(&mut conn, tenant_id).await?;
    let mut cuts = cuts::list(&mut conn, tenant_id).await?;
    let present = knowledge::cuts::count_chunks(&mut conn, tenant_id).await?;
    for live in generations.iter_mut().filter(|one| one.state == state::LIVE) {
        let counts = (&mut live.chunk_count, &mut live.done_count);
        count_present(counts, live.is_filled, present.values().sum());
    }
    for live in cuts.iter_mut().filter(|one| one.state == state::LIVE) {
        let counts = (&mut live.chunk_count, &mut live.done_count);
        count_present(counts, live.is_filled, of(&present, live.source_id));
    }
    Ok((generations, cuts))
}

/// What hinders that generations and cuts are filled; a cut goes by the id of a generation here.
pub async fn list_hindrances(
    app: &App,
    tenant_id: TenantId,
    (generations, cuts): (&[Generation], &[Cut]),
) -> Result<HashMap<GenerationId, String>> {
    let of_generations = jobs::list_hindrances::<FillGeneration>(app, tenant_id).await?;
    let of_cuts = jobs::list_hindrances::<FillCut>(app, tenant_id).await?;
    let kept = generations.iter().filter(|one| one.state != state::RETIRED);
    let of_generations = kept.filter_map(|generation| {
        let hindrance = of_generations.get(&fill::unique_key(generation.id))?;
        Some((generation.id, hindrance.clone()))
    });
    let kept = cuts.iter().filter(|one| one.state != state::RETIRED);
    let of_cuts = kept.filter_map(|cut| {
        let hindrance = of_cuts.get(&cuts::fill_key(cut.id))?;
        Some((GenerationId(cut.id.0), hindrance.clone()))
    });
    Ok(of_generations.chain(of_cuts).collect())
}

fn of(present: &HashMap<SourceId, i64>, source_id: SourceId) -> i64 {
    present.get(&source_id).copied().unwrap_or_default()
}

/// All chunks are in that there are, unless it is being filled anew.
fn count_present((chunks, done): (&mut i64, &mut i64), is_filled: bool, present: i64) {
    *chunks = present;
    *done = if is_filled { present } else { present.min(*done) };
}
