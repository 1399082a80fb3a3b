//! Cuts: a source's documents may be cut in several ways at a time. One cut is live and answers, another one may be tried beside
//! it or kept for a way back (`generations/cuts`). Each chunk's row names its cut, and in the index a cut stands in the place of
//! the source: what is not of a live cut is in the rows and in the index, and nobody finds it.

use std::collections::HashMap;

use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, QueryBuilder};

use super::chunks::{self, Chunking, Passage, Verdict};
use super::indexing::{self, Work};
use super::versions::is_shown;
use crate::app::App;
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::id::{ChatbotId, ChunkEditId, CutId, DocumentId, SourceId, TenantId};
use crate::jobs::Priority;
use crate::on;

/// Changes of owners whose passages are looked for in one pass.
const EDITS_AT_ONCE: usize = 200;

impl CutId {
    /// The cut that a source has from its beginning.
    pub const fn first_of(source_id: SourceId) -> Self {
        Self(source_id.0)
    }

    /// As chunks of this source name it: the first one is not named.
    pub fn in_rows(self, source_id: SourceId) -> Option<Self> {
        (self != Self::first_of(source_id)).then_some(self)
    }

    /// As the index knows it.
    pub const fn in_index(self) -> retrieval::SourceId {
        retrieval::SourceId(self.0)
    }
}

/// Whether a chunk, joined under this name, is of its document as it is now: its cut does not lack what changed of that since.
macro_rules! is_of_present_version {
    ($chunk:literal) => {
        concat!(
            "not exists (select 1 from cut_gap lacking where lacking.cut_id = coalesce(",
            $chunk,
            ".cut_id, ",
            $chunk,
            ".source_id) and lacking.document_id = ",
            $chunk,
            ".document_id)"
        )
    };
}
pub(crate) use is_of_present_version;

/// Whether a chunk, joined under this name, is of its source's live cut, and of its document as it is now.
macro_rules! is_of_live_cut {
    ($chunk:literal) => {
        concat!(
            "coalesce(",
            $chunk,
            ".cut_id, ",
            $chunk,
            ".source_id) = coalesce((select k.id from cut k where k.source_id = ",
            $chunk,
            ".source_id and k.tenant_id = ",
            $chunk,
            ".tenant_id and k.state = 'live'), ",
            $chunk,
            ".source_id) and ",
            $crate::knowledge::cuts::is_of_present_version!($chunk)
        )
    };
}
pub(crate) use is_of_live_cut;

/// What answers for a source.
#[derive(Clone, Copy, Debug, FromRow)]
pub(super) struct LiveCut {
    pub source_id: SourceId,
    pub cut: CutId,
    /// It lacks what changed of some documents, which are not found until it is there.
    pub is_lacking: bool,
}

/// What answers the questions of a chatbot: each of its sources with its live cut.
pub(super) async fn list_live(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<Vec<LiveCut>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select s.id as source_id, coalesce(k.id, s.id) as cut,
                exists (select 1 from cut_gap g where g.cut_id = k.id) as is_lacking
           from source s
           left join cut k on k.source_id = s.id and k.tenant_id = s.tenant_id and k.state = 'live'
          where s.tenant_id = $1
            and s.chatbot_id = $2
            and s.deleted_at is null
          order by s.id",
    ).bind(tenant_id).bind(chatbot_id).fetch_all(c).await)?)
}

/// How the documents of each of a chatbot's sources are cut that answer.
pub async fn list_chunkings(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<Vec<(SourceId, Chunking)>> {
    let rows: Vec<(SourceId, Option<Json<Chunking>>)> = on!(conn, c => sqlx::query_as(
        "select s.id, coalesce(k.chunking, s.chunking)
           from source s
           left join cut k on k.source_id = s.id and k.tenant_id = s.tenant_id and k.state = 'live'
          where s.tenant_id = $1
            and s.chatbot_id = $2
            and s.deleted_at is null
          order by s.id",
    ).bind(tenant_id).bind(chatbot_id).fetch_all(c).await)?;
    let of_row = |(source_id, chunking): (SourceId, Option<Json<Chunking>>)| {
        (source_id, chunking.map(|chunking| chunking.0).unwrap_or_default())
    };
    Ok(rows.into_iter().map(of_row).collect())
}

/// Chunks that answer, of each of a tenant's sources.
pub async fn count_chunks(conn: &mut Conn, tenant_id: TenantId) -> Result<HashMap<SourceId, i64>> {
    let counts: Vec<(SourceId, i64)> = on!(conn, c => sqlx::query_as(
        "select d.source_id, cast(coalesce(sum(d.chunk_count), 0) as bigint)
           from document d
           join source s on s.id = d.source_id
          where d.tenant_id = $1
            and s.tenant_id = $1
            and s.deleted_at is null
          group by d.source_id",
    ).bind(tenant_id).fetch_all(c).await)?;
    Ok(counts.into_iter().collect())
}

/// The live cut of one source.
pub(super) async fn find_live(conn: &mut Conn, tenant_id: TenantId, source_id: SourceId) -> Result<CutId> {
    let live: Option<CutId> = on!(conn, c => sqlx::query_scalar("select id from cut where tenant_id = $1 and source_id = $2 and state = 'live'")
        .bind(tenant_id).bind(source_id).fetch_optional(c).await)?;
    Ok(live.unwrap_or(CutId::first_of(source_id)))
}

/// Another cut that has all of a document that is worked on for one: the live one if it has, or else the last that was live.
pub(super) async fn find_whole_beside(
    conn: &mut Conn,
    tenant_id: TenantId,
    work: &Work,
) -> Result<Option<CutId>> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select k.id
           from cut k
          where k.tenant_id = $1
            and k.source_id = $2
            and k.id <> $3
            and k.state <> 'retired'
            and k.is_filled
            and not exists (select 1 from cut_gap g where g.cut_id = k.id and g.document_id = $4)
          order by case when k.state = 'live' then 0 else 1 end, k.left_at desc nulls last, k.id desc
          limit 1",
    ).bind(tenant_id).bind(work.source_id).bind(work.cut).bind(work.id).fetch_optional(c).await)?)
}

#[derive(FromRow)]
struct OpenCut {
    id: CutId,
    source_id: SourceId,
    state: String,
}

/// The live cuts of sources, none of which gives way to another one until the transaction ends. To be called before documents
/// are held.
pub(super) async fn share_live(
    write: &mut Write,
    tenant_id: TenantId,
    sources: &[SourceId],
) -> Result<HashMap<SourceId, CutId>> {
    let mut live: HashMap<SourceId, CutId> = sources
        .iter()
        .map(|source_id| (*source_id, CutId::first_of(*source_id)))
        .collect();
    if live.is_empty() {
        return Ok(live);
    }
    // All open ones are held: who waited for a change reads each as it is now.
    let lock = if write.is_postgres() { "for share" } else { "" };
    let open: Vec<OpenCut> = on!(write, c => {
        let mut query = QueryBuilder::new("select id, source_id, state from cut where coalesce(tenant_id, tenant_id) = ");
        query.push_bind(tenant_id).push(" and state <> 'retired' and source_id in (");
        let mut list = query.separated(", ");
        live.keys().for_each(|source_id| {
            list.push_bind(*source_id);
        });
        query.push(") order by id ").push(lock);
        query.build_query_as().fetch_all(c).await
    })?;
    for cut in open.into_iter().filter(|cut| cut.state == "live") {
        live.insert(cut.source_id, cut.id);
    }
    Ok(live)
}

/// A change of an owner, and the passage that it changes in a cut.
#[derive(FromRow)]
struct EditInCut {
    id: ChunkEditId,
    original_hash: Option<String>,
    original_repeat: i64,
    document_id: DocumentId,
    /// None: it rests.
    position: Option<i64>,
    text: Option<String>,
    heading: Option<String>,
}

impl EditInCut {
    /// What is so now that the cut is live; `repeat` says how often the same passage comes before.
    fn verdict(self, repeat: i64) -> Verdict {
        let passage = self.text.map(|text| Passage {
            text,
            heading: self.heading,
            repeat,
        });
        let is_known = |passage: &Passage| {
            self.original_hash.as_deref() == Some(&chunks::passage_hash(&passage.text))
                && self.original_repeat == passage.repeat
        };
        Verdict {
            id: self.id,
            is_stale: passage.is_none(),
            moved_to: passage.filter(|passage| !is_known(passage)),
        }
    }
}

/// What is staged of a source's documents was cut as it was before another cut went live: whoever works on them begins anew, and
/// it is dropped. The caller holds the source's cuts.
pub async fn begin_waiting_anew(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<()> {
    let statement = format!(
        "select id, file_key
           from document
          where tenant_id = $1
            and source_id = $2
            and state in ('queued', 'processing')
            and exists (select 1 from document_version v where v.tenant_id = $1 and v.document_id = document.id and v.state = 'waiting')
          order by id
          {}",
        write.row_lock()
    );
    let waiting: Vec<(DocumentId, String)> = on!(write, c => sqlx::query_as(AssertSqlSafe(statement)).bind(tenant_id).bind(source_id).fetch_all(c).await)?;
    let failed = write.put(
        "update document
            set cut_revision = cut_revision + 1
          where tenant_id = $1
            and source_id = $2
            and state = 'failed'
            and exists (select 1 from document_version v where v.tenant_id = $1 and v.document_id = document.id and v.state = 'waiting')",
    );
    failed.bind(tenant_id).bind(source_id).run().await?;
    for (id, _) in &waiting {
        let update = write.put(
            "update document set state = 'queued', cut_revision = cut_revision + 1 where tenant_id = $1 and id = $2",
        );
        update.bind(tenant_id).bind(*id).run().await?;
    }
    indexing::enqueue(app, write, tenant_id, &waiting, Priority::Bulk).await
}

/// Waits for whoever works on these documents; nobody else does until the transaction ends.
pub(super) async fn hold(write: &mut Write, tenant_id: TenantId, ids: &[DocumentId]) -> Result<()> {
    if !write.is_postgres() {
        return Ok(());
    }
    let lock = write.row_lock();
    on!(write, c => {
        let mut query = QueryBuilder::new("select id from document where coalesce(tenant_id, tenant_id) = ");
        query.push_bind(tenant_id).push(" and id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(") order by id ").push(lock);
        query.build().execute(c).await.map(drop)
    })?;
    Ok(())
}

/// Says of documents what is so now that this cut is live: how many chunks they have, and which passages their owner's changes
/// belong to.
pub async fn settle(
    write: &mut Write,
    tenant_id: TenantId,
    (source_id, cut): (SourceId, CutId),
    ids: &[DocumentId],
) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    // A count sees what is committed before its statement begins.
    hold(write, tenant_id, ids).await?;
    for id in ids {
        let update = write.put(concat!(
            "update document
                set (chunk_count, token_count) = (select count(*), cast(coalesce(sum(c.token_count), 0) as bigint)
                                                    from chunk c
                                                   where c.document_id = $2
                                                     and c.tenant_id = $1
                                                     and coalesce(c.cut_id, c.source_id) = $4
                                                     and ", is_shown!("c"), ")
              where tenant_id = $1
                and id = $2
                and source_id = $3",
        ));
        let update = update.bind(tenant_id).bind(*id).bind(source_id);
        update.bind(cut).run().await?;
    }
    let edits = list_edits(write, tenant_id, cut, ids).await?;
    let repeats = count_repeats(write, tenant_id, cut, &edits).await?;
    let verdicts: Vec<Verdict> = edits
        .into_iter()
        .map(|edit| {
            let repeat = repeats.get(&edit.id).copied().unwrap_or_default();
            edit.verdict(repeat)
        })
        .collect();
    chunks::set_stale(write, tenant_id, &verdicts).await
}

/// What owners changed in these documents, with its place in the cut.
async fn list_edits(
    write: &mut Write,
    tenant_id: TenantId,
    cut: CutId,
    ids: &[DocumentId],
) -> Result<Vec<EditInCut>> {
    Ok(on!(write, c => {
        // The few chunks that an owner changed come first, and are looked up once.
        let mut query = QueryBuilder::new(concat!(
            "with edited as (select document_id, edit_id, position, coalesce(original_text, text) as text, heading
                               from chunk
                              where ", is_shown!("chunk"), "
                                and coalesce(tenant_id, tenant_id) = ",
        ));
        query.push_bind(tenant_id).push(" and edit_id is not null and coalesce(cut_id, source_id) = ").push_bind(cut).push(" and document_id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(
            "))
            select e.id, e.original_hash, e.repeat as original_repeat, d.id as document_id, c.position, c.text, c.heading
              from document d
              join chunk_edit e on e.source_id = d.source_id and e.tenant_id = d.tenant_id and e.external_id = d.external_id and e.kind = 'change'
              left join edited c on c.document_id = d.id and c.edit_id = e.id
             where coalesce(d.tenant_id, d.tenant_id) = ",
        );
        query.push_bind(tenant_id).push(" and d.id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(")");
        query.build_query_as().fetch_all(c).await
    })?)
}

/// How often the passage of each change comes before it, in one pass over the chunks for many changes.
async fn count_repeats(
    write: &mut Write,
    tenant_id: TenantId,
    cut: CutId,
    edits: &[EditInCut],
) -> Result<HashMap<ChunkEditId, i64>> {
    let mut repeats = HashMap::new();
    let placed: Vec<(&EditInCut, &str, i64)> = edits
        .iter()
        .filter_map(|edit| Some((edit, edit.text.as_deref()?, edit.position?)))
        .collect();
    for group in placed.chunks(EDITS_AT_ONCE) {
        let same: Vec<(DocumentId, i64, String)> = on!(write, c => {
            let mut query = QueryBuilder::new(concat!(
                "select document_id, position, coalesce(original_text, text) from chunk where ", is_shown!("chunk"), " and coalesce(tenant_id, tenant_id) = ",
            ));
            query.push_bind(tenant_id).push(" and coalesce(cut_id, source_id) = ").push_bind(cut);
            query.push(" and start_char < end_char and document_id in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|(edit, ..)| {
                list.push_bind(edit.document_id);
            });
            query.push(") and coalesce(original_text, text) in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|(_, text, _)| {
                list.push_bind(*text);
            });
            query.push(")");
            query.build_query_as().fetch_all(c).await
        })?;
        let mut positions: HashMap<(DocumentId, &str), Vec<i64>> = HashMap::new();
        for (document_id, position, text) in &same {
            positions.entry((*document_id, text)).or_default().push(*position);
        }
        for (edit, text, position) in group {
            let same = positions.get(&(edit.document_id, *text)).into_iter().flatten();
            let before = same.filter(|other| *other < position).count();
            repeats.insert(edit.id, i64::try_from(before).unwrap_or(i64::MAX));
        }
    }
    Ok(repeats)
}
