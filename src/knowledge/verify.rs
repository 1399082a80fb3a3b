//! Rows against index: what is missing, what differs, what belongs to nothing; and putting it right.

use std::collections::{BTreeMap, HashMap, HashSet};

use retrieval::index::StoredPoint;
use serde::Serialize;
use uuid::Uuid;

use super::jobs::RemoveDocuments;
use super::stored_chunks::{self, StoredChunk};
use super::{labels, store};
use crate::app::{App, Space};
use crate::db::ROWS_AT_ONCE;
use crate::error::Result;
use crate::id::{ChunkId, DocumentId, TenantId};
use crate::{jobs, on};

/// Points that the index lists at once.
const LISTED_AT_ONCE: usize = 5_000;

/// Points that are removed at once.
const REMOVED_AT_ONCE: usize = 5_000;

/// How rows and index of a tenant compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Chunks by the rows.
    pub chunks: u64,
    /// Points in the index.
    pub points: u64,
    /// Chunks that the index does not hold.
    pub missing: u64,
    /// Chunks of which it holds another text, other facets, no vector, or words that were read by another language's rules.
    pub different: u64,
    /// Points whose chunk there is not, but for those of documents that are being indexed.
    pub stray: u64,
}

impl Findings {
    /// Whether rows and index say the same.
    pub const fn agree(&self) -> bool {
        self.missing == 0 && self.different == 0 && self.stray == 0
    }
}

/// A chunk for which the index held nothing, or something else, when it was listed.
struct Wrong {
    is_missing: bool,
    /// What the index holds when it holds the chunk; none: what it is to hold is changing.
    fingerprint: Option<u64>,
}

/// Compares the tenant's rows with the index of `space`; with `heals`, what is missing or different is embedded and put in
/// again and what belongs to nothing is removed. Takes about 60 bytes of memory for each point.
///
/// Points are listed before the rows are read: what is put in between is looked for in the index once more.
pub async fn compare(app: &App, tenant_id: TenantId, space: &Space, heals: bool) -> Result<Findings> {
    let weighed_otherwise = list_weighed_otherwise(app, tenant_id).await?;
    if heals {
        for id in &weighed_otherwise {
            labels::weigh_now(app, tenant_id, *id).await?;
        }
    }
    // Who mends puts these in as well.
    let owed = match heals {
        true => HashSet::new(),
        false => list_owed(app, tenant_id, space).await?,
    };
    let mut left = list_points(space, tenant_id).await?;
    let mut findings = Findings {
        points: left.len() as u64,
        ..Findings::default()
    };
    let mut all_wrong: BTreeMap<ChunkId, Wrong> = BTreeMap::new();
    let portions = stored_chunks::list_portions(&mut app.db.read(tenant_id).await?, tenant_id, None).await?;
    for portion in portions {
        let chunks = stored_chunks::list(&mut app.db.read(tenant_id).await?, tenant_id, &portion).await?;
        findings.chunks += chunks.len() as u64;
        let mut differing: Vec<(StoredChunk, Wrong)> = Vec::new();
        for chunk in chunks {
            let fingerprint = chunk.is_settled.then(|| chunk.fingerprint(space.model.is_some()));
            let listed = left.remove(&chunk.id);
            if owed.contains(&chunk.document_id) {
                continue;
            }
            if listed.is_some_and(|(_, listed)| fingerprint.is_none_or(|is_to_be| is_to_be == listed)) {
                findings.different += u64::from(weighed_otherwise.contains(&chunk.document_id));
                continue;
            }
            let is_missing = listed.is_none();
            differing.push((
                chunk,
                Wrong {
                    is_missing,
                    fingerprint,
                },
            ));
        }
        leave_changing(app, tenant_id, &mut differing).await?;
        let mut wrong: Vec<StoredChunk> = Vec::with_capacity(differing.len());
        for (chunk, how) in differing {
            all_wrong.insert(chunk.id, how);
            wrong.push(chunk);
        }
        if heals {
            stored_chunks::put(app, tenant_id, space, wrong).await?;
        }
    }
    if !heals {
        look_again(space, tenant_id, &mut all_wrong).await?;
    }
    findings.missing = all_wrong.values().filter(|wrong| wrong.is_missing).count() as u64;
    findings.different += all_wrong.len() as u64 - findings.missing;
    let stray = list_stray(app, tenant_id, left, owed).await?;
    findings.stray = stray.len() as u64;
    if heals {
        for group in stray.chunks(REMOVED_AT_ONCE) {
            let ids = group.iter().map(|id| retrieval::ChunkId(id.0)).collect();
            space
                .index
                .delete_chunks(retrieval::TenantId(tenant_id.0), ids)
                .await?;
        }
    }
    Ok(findings)
}

/// Leaves out what is on its way into the index. Of a chunk that it does not hold, any point will do for as long.
async fn leave_changing(
    app: &App,
    tenant_id: TenantId,
    differing: &mut Vec<(StoredChunk, Wrong)>,
) -> Result<()> {
    if differing.is_empty() {
        return Ok(());
    }
    let changing = list_changing(app, tenant_id).await?;
    differing.retain_mut(|(chunk, wrong)| {
        if changing.contains(&chunk.document_id) {
            wrong.fingerprint = None;
        }
        wrong.is_missing || wrong.fingerprint.is_some()
    });
    Ok(())
}

/// Documents of which the index has words by another language's rules than rows say, and not for the moment.
async fn list_weighed_otherwise(app: &App, tenant_id: TenantId) -> Result<HashSet<DocumentId>> {
    let mut otherwise = labels::list_weighed_otherwise(app, tenant_id).await?;
    if !otherwise.is_empty() {
        let changing = list_changing(app, tenant_id).await?;
        otherwise.retain(|id| !changing.contains(id));
    }
    Ok(otherwise)
}

/// Documents of which the index holds something else than rows say for the moment: it is told of them, or they are being indexed.
async fn list_changing(app: &App, tenant_id: TenantId) -> Result<HashSet<DocumentId>> {
    let mut conn = app.db.read(tenant_id).await?;
    let mut changing = labels::list_being_told(&mut conn, tenant_id).await?;
    let at_work: Vec<DocumentId> = on!(conn, c => sqlx::query_scalar(
        "select id from document where tenant_id = $1 and state in ('queued', 'processing')",
    ).bind(tenant_id).fetch_all(c).await)?;
    changing.extend(at_work);
    Ok(changing)
}

/// Documents that the service is about to put anew into what is kept, or was built, beside what answers.
async fn list_owed(app: &App, tenant_id: TenantId, space: &Space) -> Result<HashSet<DocumentId>> {
    let mut conn = app.db.read(tenant_id).await?;
    let owed: Vec<DocumentId> = on!(conn, c => sqlx::query_scalar(
        "select p.document_id
           from generation_gap p
           join generation g on g.id = p.generation_id
          where g.tenant_id = $1
            and g.space = $2
            and g.state not in ('live', 'retired')",
    ).bind(tenant_id).bind(&space.name).fetch_all(c).await)?;
    Ok(owed.into_iter().collect())
}

/// What a look at some points found.
#[derive(Debug)]
pub struct Slice {
    /// The last point that was looked at; none: there are no more behind it.
    pub to: Option<ChunkId>,
    /// Points that hold another text or other facets than the rows, words by another language's rules, no vector, or that belong
    /// to nothing.
    pub differing: u64,
}

/// Compares the next points behind `after` with the rows. A chunk that the index does not hold is not seen: counts tell.
pub async fn compare_some(
    app: &App,
    tenant_id: TenantId,
    space: &Space,
    after: Option<ChunkId>,
) -> Result<Slice> {
    let points = list_page(space, tenant_id, after).await?;
    let ids: Vec<ChunkId> = points.iter().map(|point| ChunkId(point.chunk_id.0)).collect();
    let rows = stored_chunks::list_these(&mut app.db.read(tenant_id).await?, tenant_id, &ids).await?;
    let weighed_otherwise = list_weighed_otherwise(app, tenant_id).await?;
    let (mut differing, mut weighed): (Vec<DocumentId>, usize) = Default::default();
    let mut left = HashMap::new();
    for point in &points {
        let id = ChunkId(point.chunk_id.0);
        match rows.get(&id) {
            None => {
                left.insert(id, (DocumentId(point.document_id.0), point.fingerprint));
            }
            Some(chunk)
                if chunk.is_settled && chunk.fingerprint(space.model.is_some()) != point.fingerprint =>
            {
                differing.push(chunk.document_id);
            }
            Some(chunk) => weighed += usize::from(weighed_otherwise.contains(&chunk.document_id)),
        }
    }
    if !differing.is_empty() {
        let changing = list_changing(app, tenant_id).await?;
        differing.retain(|id| !changing.contains(id));
    }
    let stray = list_stray(app, tenant_id, left, HashSet::new()).await?;
    Ok(Slice {
        to: ids.last().copied().filter(|_| points.len() == LISTED_AT_ONCE),
        differing: (differing.len() + weighed + stray.len()) as u64,
    })
}

/// Leaves of `wrong` what still is.
async fn look_again(space: &Space, tenant_id: TenantId, wrong: &mut BTreeMap<ChunkId, Wrong>) -> Result<()> {
    let (Some((first, _)), Some((&last, _))) = (wrong.first_key_value(), wrong.last_key_value()) else {
        return Ok(());
    };
    let mut after = first
        .0
        .as_u128()
        .checked_sub(1)
        .map(|before| ChunkId(Uuid::from_u128(before)));
    loop {
        let page = list_page(space, tenant_id, after).await?;
        for point in &page {
            let id = ChunkId(point.chunk_id.0);
            let Some(present) = wrong.get_mut(&id) else {
                continue;
            };
            present.is_missing = false;
            if present
                .fingerprint
                .is_none_or(|is_to_be| is_to_be == point.fingerprint)
            {
                wrong.remove(&id);
            }
        }
        after = page.last().map(|point| ChunkId(point.chunk_id.0));
        if page.len() < LISTED_AT_ONCE || after >= Some(last) {
            return Ok(());
        }
    }
}

/// All points of the tenant, each with its document and fingerprint.
async fn list_points(space: &Space, tenant_id: TenantId) -> Result<HashMap<ChunkId, (DocumentId, u64)>> {
    let mut points = HashMap::new();
    let mut after = None;
    loop {
        let page = list_page(space, tenant_id, after).await?;
        after = page.last().map(|point| ChunkId(point.chunk_id.0));
        let is_last = page.len() < LISTED_AT_ONCE;
        points.extend(page.into_iter().map(|point| {
            let document_id = DocumentId(point.document_id.0);
            (ChunkId(point.chunk_id.0), (document_id, point.fingerprint))
        }));
        if is_last {
            return Ok(points);
        }
    }
}

/// The tenant's next points behind `after`.
async fn list_page(space: &Space, tenant_id: TenantId, after: Option<ChunkId>) -> Result<Vec<StoredPoint>> {
    let after = after.map(|id| retrieval::ChunkId(id.0));
    let listed = space
        .index
        .list(retrieval::TenantId(tenant_id.0), after, LISTED_AT_ONCE)
        .await;
    Ok(listed?)
}

/// Those of these points that belong to nothing, but for those of documents `at_work`. A document that is being indexed, or cut
/// otherwise, has points before it has rows, and one that was just deleted has them longer.
async fn list_stray(
    app: &App,
    tenant_id: TenantId,
    points: HashMap<ChunkId, (DocumentId, u64)>,
    mut at_work: HashSet<DocumentId>,
) -> Result<Vec<ChunkId>> {
    if points.is_empty() {
        return Ok(Vec::new());
    }
    let mut conn = app.db.read(tenant_id).await?;
    let changing: Vec<DocumentId> = on!(conn, c => sqlx::query_scalar(
        "select id
           from document
          where tenant_id = $1
            and (state in ('queued', 'processing')
                 or exists (select 1
                              from source s
                             where s.id = document.source_id
                               and s.tenant_id = $1
                               and s.deleted_at is not null)
                 or exists (select 1
                              from cut k
                             where k.source_id = document.source_id
                               and k.tenant_id = $1
                               and k.state <> 'retired'
                               and (not k.is_filled or exists (select 1 from cut_gap p where p.cut_id = k.id))))",
    ).bind(tenant_id).fetch_all(c).await)?;
    at_work.extend(changing);
    let removals = jobs::list_open::<RemoveDocuments>(&mut conn, tenant_id).await?;
    at_work.extend(removals.iter().flat_map(|removal| &removal.document_ids));
    let being_removed: HashSet<ChunkId> = removals
        .into_iter()
        .flat_map(|removal| removal.chunk_ids)
        .collect();
    let idle: Vec<ChunkId> = points
        .iter()
        .filter(|(id, (document_id, _))| !at_work.contains(document_id) && !being_removed.contains(id))
        .map(|(id, _)| *id)
        .collect();
    let mut stray = Vec::with_capacity(idle.len());
    for group in idle.chunks(ROWS_AT_ONCE) {
        // Swapped in since the rows were read.
        let present = store::list_existing_chunks(&mut conn, tenant_id, group).await?;
        stray.extend(group.iter().copied().filter(|id| !present.contains(id)));
    }
    stray.sort_unstable_by_key(|id| id.0);
    Ok(stray)
}
