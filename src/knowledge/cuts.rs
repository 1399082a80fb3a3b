//! Cuts: a source's documents may be cut in several ways at a time. One cut is live and answers, another one may be tried beside
//! it or kept for a way back (`generations/cuts`). Each chunk's row names its cut, and in the index a cut stands in the place of
//! the source: what is not of a live cut is in the rows and in the index, and nobody finds it.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, FromRow, QueryBuilder};

use super::chunks::{self, Passage, Verdict};
use super::versions::is_shown;
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::id::{ChatbotId, ChunkEditId, CutId, DocumentId, SourceId, TenantId};
use crate::on;

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

/// Whether a chunk, joined under this name, is of its source's live cut.
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
            ".source_id)"
        )
    };
}
pub(crate) use is_of_live_cut;

/// What answers the questions of a chatbot: each of its sources with its live cut.
pub(super) async fn list_live(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<Vec<(SourceId, CutId)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select s.id, coalesce(k.id, s.id)
           from source s
           left join cut k on k.source_id = s.id and k.tenant_id = s.tenant_id and k.state = 'live'
          where s.tenant_id = $1
            and s.chatbot_id = $2
            and s.deleted_at is null
          order by s.id",
    ).bind(tenant_id).bind(chatbot_id).fetch_all(c).await)?)
}

/// The live cut of one source.
pub(super) async fn find_live(conn: &mut Conn, tenant_id: TenantId, source_id: SourceId) -> Result<CutId> {
    let live: Option<CutId> = on!(conn, c => sqlx::query_scalar("select id from cut where tenant_id = $1 and source_id = $2 and state = 'live'")
        .bind(tenant_id).bind(source_id).fetch_optional(c).await)?;
    Ok(live.unwrap_or(CutId::first_of(source_id)))
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

#[derive(FromRow)]
struct EditInCut {
    id: ChunkEditId,
    original_hash: Option<String>,
    original_repeat: i64,
    /// The passage that it changes in this cut; none: it rests.
    text: Option<String>,
    heading: Option<String>,
    repeat: i64,
}

impl From<EditInCut> for Verdict {
    fn from(edit: EditInCut) -> Self {
        let passage = edit.text.map(|text| Passage {
            text,
            heading: edit.heading,
            repeat: edit.repeat,
        });
        let is_known = |passage: &Passage| {
            edit.original_hash.as_deref() == Some(&chunks::passage_hash(&passage.text))
                && edit.original_repeat == passage.repeat
        };
        Self {
            id: edit.id,
            is_stale: passage.is_none(),
            moved_to: passage.filter(|passage| !is_known(passage)),
        }
    }
}

/// What is staged of a source's documents was cut as it was before another cut went live: whoever works on them begins anew, and
/// it is dropped. The caller holds the source's cuts.
pub async fn leave_staged(write: &mut Write, tenant_id: TenantId, source_id: SourceId) -> Result<()> {
    let statement = format!(
        "select id
           from document
          where tenant_id = $1
            and source_id = $2
            and state in ('queued', 'processing')
            and exists (select 1 from document_version v where v.tenant_id = $1 and v.document_id = document.id and v.state = 'waiting')
          order by id
          {}",
        write.row_lock()
    );
    let staged: Vec<DocumentId> = on!(write, c => sqlx::query_scalar(AssertSqlSafe(statement)).bind(tenant_id).bind(source_id).fetch_all(c).await)?;
    for id in staged {
        let update =
            write.put("update document set cut_revision = cut_revision + 1 where tenant_id = $1 and id = $2");
        update.bind(tenant_id).bind(id).run().await?;
    }
    Ok(())
}

/// Waits for whoever works on these documents; nobody else does until the transaction ends.
async fn hold(write: &mut Write, tenant_id: TenantId, ids: &[DocumentId]) -> Result<()> {
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
    // A count sees what is committed before its statement begins.
    hold(write, tenant_id, ids).await?;
    for id in ids {
        let update = write.put(concat!(
            "update document
                set chunk_count = (select count(*) from chunk c where c.document_id = $2 and c.tenant_id = $1 and coalesce(c.cut_id, c.source_id) = $4 and ", is_shown!("c"), "),
                    token_count = (select cast(coalesce(sum(c.token_count), 0) as bigint)
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
    let edits: Vec<EditInCut> = on!(write, c => {
        let mut query = QueryBuilder::new(concat!(
            "select e.id, e.original_hash, e.repeat as original_repeat, coalesce(c.original_text, c.text) as text, c.heading,
                    (select count(*)
                       from chunk b
                      where b.document_id = c.document_id
                        and b.tenant_id = c.tenant_id
                        and coalesce(b.cut_id, b.source_id) = coalesce(c.cut_id, c.source_id)
                        and ", is_shown!("b"), "
                        and b.position < c.position
                        and b.start_char < b.end_char
                        and coalesce(b.original_text, b.text) = coalesce(c.original_text, c.text)) as repeat
               from document d
               join chunk_edit e on e.source_id = d.source_id and e.tenant_id = d.tenant_id and e.external_id = d.external_id and e.kind = 'change'
               left join chunk c on c.document_id = d.id and c.tenant_id = d.tenant_id and c.edit_id = e.id and ", is_shown!("c"), " and coalesce(c.cut_id, c.source_id) = ",
        ));
        query.push_bind(cut).push(" where coalesce(d.tenant_id, d.tenant_id) = ").push_bind(tenant_id).push(" and d.id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(")");
        query.build_query_as().fetch_all(c).await
    })?;
    let verdicts: Vec<Verdict> = edits.into_iter().map(Verdict::from).collect();
    chunks::set_stale(write, tenant_id, &verdicts).await
}
