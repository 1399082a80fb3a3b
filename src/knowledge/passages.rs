//! SQL of passages: the rows behind what the index finds.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use retrieval::index::Audience;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder, Sqlite};
use uuid::Uuid;

use super::versions::is_shown;
use crate::db::{Conn, Engine, ROWS_AT_ONCE};
use crate::error::Result;
use crate::id::{ChatbotId, ChunkId, CutId, DocumentId, SourceId, TenantId};
use crate::knowledge::cuts::is_of_present_version;
use crate::on;

/// A chunk with its document, as search shows it.
#[derive(Debug, FromRow)]
pub(super) struct PassageRow {
    pub id: ChunkId,
    pub document_id: DocumentId,
    pub source_id: SourceId,
    pub cut: CutId,
    pub position: i64,
    pub indexed_at: DateTime<Utc>,
    pub dated: DateTime<Utc>,
    pub title: String,
    pub file_name: String,
    pub format: String,
    pub url: Option<String>,
    pub text: String,
    pub heading: Option<String>,
    pub page: Option<i64>,
    pub start_char: i64,
    pub end_char: i64,
    pub prompt_token_count: i64,
    access_groups: Option<Json<Vec<String>>>,
}

impl PassageRow {
    pub(super) fn is_open_to(&self, audience: &Audience) -> bool {
        is_open_to(self.access_groups.as_ref(), audience)
    }
}

/// What is told of a passage.
macro_rules! told {
    () => {
        "c.id, c.document_id, d.source_id, coalesce(c.cut_id, c.source_id) as cut, c.position, d.indexed_at, coalesce(d.published_at, d.created_at) as dated, d.title, d.file_name, d.format, d.url, c.text, c.heading, c.page, c.start_char, c.end_char, c.prompt_token_count"
    };
}

/// Who may read a chunk.
macro_rules! access {
    () => {
        "coalesce(d.access_groups, s.access_groups) as access_groups"
    };
}

/// Chunks that may be used now, of documents that are indexed, with what they belong to.
macro_rules! usable {
    () => {
        concat!(
            " from chunk c
              join document d on d.id = c.document_id
              join source s on s.id = d.source_id
             where c.is_enabled
               and s.deleted_at is null
               and d.indexed_at is not null
               and ",
            is_shown!("c"),
            " and ",
            is_of_present_version!("c")
        )
    };
}

/// A statement about the usable chunks of a list that one chatbot knows.
struct OfList {
    /// The tenant and the chatbot stand in expressions: see [`ROWS_AT_ONCE`]. The list is written behind it.
    sqlite: &'static str,
    /// One text for every number of ids, so that the statement stays prepared.
    postgres: &'static str,
}

macro_rules! of_list {
    ($($columns:tt)*) => {
        OfList {
            sqlite: concat!("select ", $($columns)*, usable!(), " and coalesce(c.tenant_id, c.tenant_id) = "),
            postgres: concat!(
                "select ", $($columns)*, usable!(),
                " and c.tenant_id = $1 and s.tenant_id = $1 and d.tenant_id = $1 and d.chatbot_id = $2 and c.id = any($3)"
            ),
        }
    };
}

const PASSAGES: OfList = of_list!(told!(), ", ", access!());
const READABLE: OfList = of_list!("c.id, ", access!());

/// The chunks of these ids that this chatbot knows now and may use. Others, and those of a document that is not indexed yet, are left
/// out, whatever the index said.
pub(super) async fn find_passages(
    conn: &mut Conn,
    place: (TenantId, ChatbotId),
    ids: &[ChunkId],
) -> Result<Vec<PassageRow>> {
    find_of_list(conn, &PASSAGES, place, ids).await
}

/// Those of these chunks that [`find_passages`] would find and that `audience` may read.
pub(super) async fn list_readable(
    conn: &mut Conn,
    place: (TenantId, ChatbotId),
    audience: &Audience,
    ids: &[ChunkId],
) -> Result<HashSet<ChunkId>> {
    let rows: Vec<ReadableRow> = find_of_list(conn, &READABLE, place, ids).await?;
    let readable = rows
        .into_iter()
        .filter(|row| is_open_to(row.access_groups.as_ref(), audience));
    Ok(readable.map(|row| row.id).collect())
}

#[derive(FromRow)]
struct ReadableRow {
    id: ChunkId,
    access_groups: Option<Json<Vec<String>>>,
}

fn is_open_to(groups: Option<&Json<Vec<String>>>, audience: &Audience) -> bool {
    audience.may_read(groups.map(|Json(groups)| groups.as_slice()).unwrap_or_default())
}

async fn find_of_list<Row>(
    conn: &mut Conn,
    statement: &OfList,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    ids: &[ChunkId],
) -> Result<Vec<Row>>
where
    Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let mut rows = Vec::with_capacity(ids.len());
    for group in ids.chunks(ROWS_AT_ONCE) {
        rows.extend(match conn.engine().await? {
            Engine::Postgres(connection) => {
                let ids: Vec<Uuid> = group.iter().map(|id| id.0).collect();
                let query = sqlx::query_as(statement.postgres)
                    .bind(tenant_id)
                    .bind(chatbot_id)
                    .bind(ids);
                query.fetch_all(connection).await?
            }
            Engine::Sqlite(connection) => {
                let mut query = with_list(statement.sqlite, tenant_id, chatbot_id, group);
                query.build_query_as().fetch_all(connection).await?
            }
        });
        conn.settle();
    }
    Ok(rows)
}

/// The last id stands there more than once, so that lists of any length make a few statements, which stay prepared.
fn with_list(
    statement: &str,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    ids: &[ChunkId],
) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(statement);
    query
        .push_bind(tenant_id)
        .push(" and coalesce(d.tenant_id, d.tenant_id) = ")
        .push_bind(tenant_id)
        .push(" and coalesce(s.tenant_id, s.tenant_id) = ")
        .push_bind(tenant_id)
        .push(" and coalesce(d.chatbot_id, d.chatbot_id) = ")
        .push_bind(chatbot_id)
        .push(" and c.id in (");
    let mut list = query.separated(", ");
    let last = ids.last().into_iter().cycle();
    ids.iter()
        .chain(last)
        .take(ids.len().next_power_of_two())
        .for_each(|id| {
            list.push_bind(*id);
        });
    query.push(")");
    query
}

/// The chunks that a document has in one cut from one position to another and that this chatbot knows now and may use; none once
/// another version was indexed than at `indexed_at`.
pub(super) async fn find_stretch(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    (document_id, cut, indexed_at): (DocumentId, CutId, DateTime<Utc>),
    (first, last): (i64, i64),
) -> Result<Vec<PassageRow>> {
    Ok(on!(conn, c => sqlx::query_as(concat!(
        "select ", told!(), ", ", access!(), usable!(), "
            and c.tenant_id = $1
            and s.tenant_id = $1
            and d.tenant_id = $1
            and d.chatbot_id = $2
            and d.indexed_at = $7
            and c.document_id = $3
            and c.position between $4 and $5
            and coalesce(c.cut_id, c.source_id) = $6
          order by c.position",
    )).bind(tenant_id).bind(chatbot_id).bind(document_id).bind(first).bind(last).bind(cut).bind(indexed_at).fetch_all(c).await)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{DatabaseUrl, Db, Scope};

    #[tokio::test]
    async fn passages_are_found_by_their_own_keys_however_many_there_are_of_the_tenant() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = DatabaseUrl::Sqlite(folder.path().join("test.db"));
        let db = Db::open(&url, 2).await.expect("a database");
        let ids: Vec<ChunkId> = (0..200).map(|id| ChunkId(Uuid::from_u128(id))).collect();

        for statement in [PASSAGES, READABLE] {
            let mut conn = db.read(Scope::Operator).await.expect("a connection");
            let Ok(Engine::Sqlite(connection)) = conn.engine().await else {
                panic!("not SQLite");
            };
            let explain = format!("explain query plan {}", statement.sqlite);
            let plan: Vec<(i64, i64, i64, String)> =
                with_list(&explain, TenantId(Uuid::nil()), ChatbotId(Uuid::nil()), &ids)
                    .build_query_as()
                    .fetch_all(connection)
                    .await
                    .expect("a plan");

            let steps: Vec<&str> = plan.iter().map(|(.., step)| step.as_str()).collect();
            let by_keys = [
                "(id=?)",
                "(cut_id=? AND document_id=?)",
                "document_version_shown",
                "SUBQUERY",
            ];
            let is_by_keys = |step: &&str| by_keys.iter().any(|key| step.contains(key));
            assert!(steps.iter().all(is_by_keys), "{steps:?}");
        }
    }

    #[test]
    fn lists_of_any_length_make_a_few_statements() {
        let text_of = |length: u128| {
            let ids: Vec<ChunkId> = (0..length).map(|id| ChunkId(Uuid::from_u128(id))).collect();
            let query = with_list(
                READABLE.sqlite,
                TenantId(Uuid::nil()),
                ChatbotId(Uuid::nil()),
                &ids,
            );
            query.into_string()
        };

        let texts: HashSet<String> = (100..=200).map(text_of).collect();

        assert_eq!(texts.len(), 2);
    }
}
