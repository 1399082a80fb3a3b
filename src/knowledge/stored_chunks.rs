//! What an index should hold, by the rows: chunks with what is embedded for them. `putting` is their way into an index other than
//! by indexing their document.

mod putting;

pub use putting::put;

use std::collections::HashMap;

use retrieval::index::{Facets, Filter, Point};
use sqlx::{Database, Encode, FromRow, QueryBuilder, Type};

use super::cuts::is_of_present_version;
use super::labels::{FacetsRow, facets_columns};
use super::versions::is_shown;
use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::Result;
use crate::id::{ChatbotId, ChunkId, CutId, DocumentId, TenantId};
use crate::on;

/// Chunks that are looked at together. A document of more comes in parts.
const CHUNKS_AT_ONCE: i64 = 256;

/// Documents that are looked at together.
const DOCUMENTS_AT_ONCE: usize = 100;

/// Chunks of a portion that are read for a question. Documents may have more than was counted when another cut answered.
const MOST_WITHIN: i64 = 1_024;

/// Chunks that are looked at together: of some documents all, or of one document a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    pub documents: Vec<DocumentId>,
    pub from_position: i64,
    pub to_position: i64,
    /// Nothing more of its documents follows.
    pub is_end_of_documents: bool,
}

/// A chunk's row, with what stands in the index for it.
#[derive(Debug)]
pub struct StoredChunk {
    pub id: ChunkId,
    pub document_id: DocumentId,
    cut: CutId,
    chatbot_id: ChatbotId,
    embedding_text: String,
    token_count: i64,
    facets: Facets,
    /// The text is just what is embedded: it can be held against the index.
    pub is_settled: bool,
}

#[derive(FromRow)]
struct StoredChunkRow {
    id: ChunkId,
    document_id: DocumentId,
    cut: CutId,
    chatbot_id: ChatbotId,
    title: String,
    heading: Option<String>,
    context: Option<String>,
    text: String,
    token_count: i64,
    content_hash: String,
    #[sqlx(flatten)]
    facets: FacetsRow,
}

impl From<StoredChunkRow> for StoredChunk {
    fn from(row: StoredChunkRow) -> Self {
        let facets = Facets::from(row.facets);
        // One that was changed a moment ago is on its way.
        let is_settled = row.context.is_some() && !row.content_hash.is_empty();
        let context = row
            .context
            .unwrap_or_else(|| context_of(&row.title, row.heading.as_deref()));
        Self {
            id: row.id,
            document_id: row.document_id,
            cut: row.cut,
            chatbot_id: row.chatbot_id,
            embedding_text: context + &row.text,
            token_count: row.token_count,
            facets,
            is_settled,
        }
    }
}

impl StoredChunk {
    /// What the index lists it by, when it holds just this.
    pub fn fingerprint(&self, has_vector: bool) -> u64 {
        // Only whether there is a vector counts.
        self.point(has_vector.then(Vec::new)).fingerprint()
    }

    /// What is embedded of it, and read for its words.
    pub fn embedding_text(&self) -> &str {
        &self.embedding_text
    }

    /// What filters go by.
    pub const fn facets(&self) -> &Facets {
        &self.facets
    }

    /// What is put in of it before it is embedded.
    pub(super) fn words(&self) -> Point {
        self.point(None)
    }

    fn point(&self, vector: Option<Vec<f32>>) -> Point {
        Point {
            chunk_id: retrieval::ChunkId(self.id.0),
            document_id: retrieval::DocumentId(self.document_id.0),
            source_id: self.cut.in_index(),
            text: self.embedding_text.clone(),
            vector,
            facets: self.facets.clone(),
        }
    }
}

/// What stands in front of a chunk that was cut before that was kept: nearly the same.
pub(super) fn context_of(title: &str, heading: Option<&str>) -> String {
    match heading {
        Some(heading) if heading.starts_with(title) => format!("{heading}\n"),
        Some(heading) => format!("{title}\n{heading}\n"),
        None => format!("{title}\n"),
    }
}

/// How many positions the chunks of a document `d` take, in whichever of its cuts and versions has most.
macro_rules! positions {
    () => {
        "coalesce((select max(c.position) + 1 from chunk c where c.document_id = d.id and c.tenant_id = d.tenant_id), 0)"
    };
}

/// The tenant's documents that have chunks, those behind `after` in the order of their ids, in portions.
pub async fn list_portions(
    conn: &mut Conn,
    tenant_id: TenantId,
    after: Option<DocumentId>,
) -> Result<Vec<Portion>> {
    let documents: Vec<(DocumentId, i64)> = on!(conn, c => sqlx::query_as(concat!(
        "select d.id, ", positions!(), "
           from document d
          where d.tenant_id = $1
            and d.indexed_at is not null
            and ($2 is null or d.id > $2)
          order by d.id",
    )).bind(tenant_id).bind(after).fetch_all(c).await)?;
    Ok(portions(&documents))
}

/// The chatbot's documents that may pass `filter`, the newest first and with at most `most_chunks` chunks, in portions. What
/// their facets and cuts let pass is left to who reads them.
pub async fn list_portions_within(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    filter: &Filter,
    most_chunks: i64,
) -> Result<Vec<Portion>> {
    let asked_for = filter.documents.as_deref();
    let documents: Vec<(DocumentId, i64)> = on!(conn, c => {
        let mut query = QueryBuilder::new(
            "select d.id, d.chunk_count
               from document d
               join source s on s.id = d.source_id
              where d.tenant_id = ",
        );
        query.push_bind(tenant_id)
            .push(" and s.tenant_id = ").push_bind(tenant_id)
            .push(" and d.chatbot_id = ").push_bind(chatbot_id)
            .push(" and d.indexed_at is not null and d.chunk_count > 0 and s.deleted_at is null");
        if let Some(ids) = asked_for {
            query.push(" and d.id in (");
            let mut list = query.separated(", ");
            ids.iter().for_each(|id| {
                list.push_bind(DocumentId(id.0));
            });
            query.push(")");
        }
        query.push(" order by d.id desc limit ").push_bind(most_chunks);
        query.build_query_as().fetch_all(c).await
    })?;
    let mut left = most_chunks;
    let mut portions = portions(&documents);
    portions.retain(|_| {
        let is_within = left > 0;
        left -= CHUNKS_AT_ONCE;
        is_within
    });
    Ok(portions)
}

/// All of these documents, in portions.
pub async fn list_portions_of(
    conn: &mut Conn,
    tenant_id: TenantId,
    ids: &[DocumentId],
) -> Result<Vec<Portion>> {
    let documents: Vec<(DocumentId, i64)> = on!(conn, c => {
        let mut query = QueryBuilder::new(concat!(
            "select d.id, ", positions!(), " from document d where coalesce(d.tenant_id, d.tenant_id) = "
        ));
        query.push_bind(tenant_id).push(" and d.id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(") order by d.id");
        query.build_query_as().fetch_all(c).await
    })?;
    Ok(portions(&documents))
}

fn portions(documents: &[(DocumentId, i64)]) -> Vec<Portion> {
    let whole = || Portion {
        documents: Vec::new(),
        from_position: 0,
        to_position: i64::MAX,
        is_end_of_documents: true,
    };
    let (mut all, mut open, mut chunks) = (Vec::new(), whole(), 0);
    for &(id, count) in documents {
        let is_full = chunks + count > CHUNKS_AT_ONCE || open.documents.len() >= DOCUMENTS_AT_ONCE;
        if is_full && !open.documents.is_empty() {
            all.push(std::mem::replace(&mut open, whole()));
            chunks = 0;
        }
        if count <= CHUNKS_AT_ONCE {
            open.documents.push(id);
            chunks += count;
            continue;
        }
        let parts = (count + CHUNKS_AT_ONCE - 1) / CHUNKS_AT_ONCE;
        all.extend((0..parts).map(|part| Portion {
            documents: vec![id],
            from_position: part * CHUNKS_AT_ONCE,
            // The count may be older than the chunks.
            to_position: if part + 1 == parts {
                i64::MAX
            } else {
                (part + 1) * CHUNKS_AT_ONCE
            },
            is_end_of_documents: part + 1 == parts,
        }));
    }
    if !open.documents.is_empty() {
        all.push(open);
    }
    all
}

/// The beginning of what reads chunks that pass a condition; the tenant's id follows, each time it is asked for.
macro_rules! select {
    ($condition:expr) => {
        concat!(
            "select c.id, c.document_id, coalesce(c.cut_id, c.source_id) as cut, d.chatbot_id, d.title, c.heading, c.context, c.text, c.token_count, c.content_hash, ",
            facets_columns!(),
            "
               from document d
               join source s on s.id = d.source_id
               join chunk c on c.document_id = d.id
              where ",
            $condition,
            " and coalesce(d.tenant_id, d.tenant_id) = "
        )
    };
}
const SELECT: &str = select!(is_shown!("c"));
const SELECT_ANY: &str = select!("c.document_id = d.id");
const OF_SOURCE: &str = " and coalesce(s.tenant_id, s.tenant_id) = ";

/// The chunks of a portion, of all cuts.
pub async fn list(conn: &mut Conn, tenant_id: TenantId, portion: &Portion) -> Result<Vec<StoredChunk>> {
    let rows: Vec<StoredChunkRow> = on!(conn, c => {
        let mut query = of_portion(tenant_id, portion);
        query.push(" order by d.id, c.position");
        query.build_query_as().fetch_all(c).await
    })?;
    Ok(rows.into_iter().map(StoredChunk::from).collect())
}

/// The chunks of a portion that are of these cuts and of their documents as they are now, at most [`MOST_WITHIN`].
pub async fn list_within(
    conn: &mut Conn,
    tenant_id: TenantId,
    portion: &Portion,
    cuts: &[retrieval::SourceId],
) -> Result<Vec<StoredChunk>> {
    if cuts.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<StoredChunkRow> = on!(conn, c => {
        let mut query = of_portion(tenant_id, portion);
        query.push(" and c.is_enabled and coalesce(c.cut_id, c.source_id) in (");
        let mut list = query.separated(", ");
        cuts.iter().for_each(|cut| {
            list.push_bind(CutId(cut.0));
        });
        query.push(concat!(") and ", is_of_present_version!("c"), " order by d.id, c.position limit ")).push_bind(MOST_WITHIN);
        query.build_query_as().fetch_all(c).await
    })?;
    Ok(rows.into_iter().map(StoredChunk::from).collect())
}

fn of_portion<DB: Database>(tenant_id: TenantId, portion: &Portion) -> QueryBuilder<DB>
where
    i64: Type<DB> + for<'q> Encode<'q, DB>,
    TenantId: Type<DB> + for<'q> Encode<'q, DB>,
    DocumentId: Type<DB> + for<'q> Encode<'q, DB>,
{
    let mut query = QueryBuilder::new(SELECT);
    query
        .push_bind(tenant_id)
        .push(OF_SOURCE)
        .push_bind(tenant_id)
        .push(" and c.tenant_id = ")
        .push_bind(tenant_id)
        .push(" and c.position >= ")
        .push_bind(portion.from_position)
        .push(" and c.position < ")
        .push_bind(portion.to_position)
        .push(" and d.id in (");
    let mut list = query.separated(", ");
    portion.documents.iter().for_each(|id| {
        list.push_bind(*id);
    });
    query.push(")");
    query
}

/// Those of these chunks that are of the versions which their documents show.
pub async fn list_these(
    conn: &mut Conn,
    tenant_id: TenantId,
    ids: &[ChunkId],
) -> Result<HashMap<ChunkId, StoredChunk>> {
    list_by_ids(conn, (SELECT, ""), tenant_id, ids).await
}

/// Those of these chunks that there are, also of versions that wait to be whole.
pub(super) async fn list_any(
    conn: &mut Conn,
    tenant_id: TenantId,
    ids: &[ChunkId],
) -> Result<HashMap<ChunkId, StoredChunk>> {
    list_by_ids(conn, (SELECT_ANY, ""), tenant_id, ids).await
}

/// Like [`list_any`], and nobody deletes them until the transaction ends. Left out are those that somebody deletes: of a hidden
/// source, or of a cut that was given up.
async fn list_held(
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[ChunkId],
) -> Result<HashMap<ChunkId, StoredChunk>> {
    let lock = if write.is_postgres() {
        " for key share of c skip locked"
    } else {
        ""
    };
    list_by_ids(write, (SELECT_ANY, lock), tenant_id, ids).await
}

async fn list_by_ids(
    conn: &mut Conn,
    (select, lock): (&str, &str),
    tenant_id: TenantId,
    ids: &[ChunkId],
) -> Result<HashMap<ChunkId, StoredChunk>> {
    let mut chunks = HashMap::with_capacity(ids.len());
    for group in ids.chunks(ROWS_AT_ONCE) {
        let rows: Vec<StoredChunkRow> = on!(conn, c => {
            let mut query = QueryBuilder::new(select);
            query.push_bind(tenant_id)
                .push(OF_SOURCE).push_bind(tenant_id)
                .push(" and coalesce(c.tenant_id, c.tenant_id) = ").push_bind(tenant_id)
                .push(" and c.id in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(*id);
            });
            query.push(")").push(lock);
            query.build_query_as().fetch_all(c).await
        })?;
        chunks.extend(rows.into_iter().map(|row| (row.id, StoredChunk::from(row))));
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn portions_hold_every_document_once_and_large_ones_in_parts() {
        let id = |number: u128| DocumentId(Uuid::from_u128(number));

        let all = portions(&[(id(1), 100), (id(2), 120), (id(3), 60), (id(4), 600), (id(5), 0)]);

        let shape: Vec<(Vec<DocumentId>, i64, bool)> = all
            .into_iter()
            .map(|portion| {
                (
                    portion.documents,
                    portion.from_position,
                    portion.is_end_of_documents,
                )
            })
            .collect();
        assert_eq!(
            shape,
            [
                (vec![id(1), id(2)], 0, true),
                (vec![id(3)], 0, true),
                (vec![id(4)], 0, false),
                (vec![id(4)], 256, false),
                (vec![id(4)], 512, true),
                (vec![id(5)], 0, true),
            ]
        );
    }
}
