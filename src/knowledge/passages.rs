//! SQL of passages: the rows behind what the index finds.

use chrono::{DateTime, Utc};
use retrieval::index::Audience;
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder, Sqlite};

use super::versions::is_shown;
use crate::db::{Conn, Engine};
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
        let groups = self.access_groups.as_ref().map(|Json(groups)| groups.as_slice());
        audience.may_read(groups.unwrap_or_default())
    }
}

/// The tenant and the chatbot stand in expressions: see [`crate::db::ROWS_AT_ONCE`].
const SELECT: &str = concat!(
    "select c.id, c.document_id, d.source_id, coalesce(c.cut_id, c.source_id) as cut, c.position, d.indexed_at, coalesce(d.published_at, d.created_at) as dated, d.title, d.file_name, d.url, c.text, c.heading, c.page, c.start_char, c.end_char, c.prompt_token_count,
                             coalesce(d.access_groups, s.access_groups) as access_groups
                        from chunk c
                        join document d on d.id = c.document_id
                        join source s on s.id = d.source_id
                       where c.is_enabled
                         and s.deleted_at is null
                         and d.indexed_at is not null
                         and ",
    is_shown!("c"),
    " and ",
    is_of_present_version!("c"),
    "
                         and coalesce(c.tenant_id, c.tenant_id) = "
);

/// The chunks of these ids that this chatbot knows now and may use. Others, and those of a document that is not indexed yet, are left
/// out, whatever the index said.
pub(super) async fn find_passages(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    ids: &[ChunkId],
) -> Result<Vec<PassageRow>> {
    let rows = match conn.engine().await? {
        // One text for every number of ids, so that the statement stays prepared.
        Engine::Postgres(connection) => {
            let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.0).collect();
            let text = concat!("select c.id, c.document_id, d.source_id, coalesce(c.cut_id, c.source_id) as cut, c.position, d.indexed_at, coalesce(d.published_at, d.created_at) as dated, d.title, d.file_name, d.url, c.text, c.heading, c.page, c.start_char, c.end_char, c.prompt_token_count,
                               coalesce(d.access_groups, s.access_groups) as access_groups
                          from chunk c
                          join document d on d.id = c.document_id
                          join source s on s.id = d.source_id
                         where c.tenant_id = $1
                           and s.tenant_id = $1
                           and c.is_enabled
                           and ", is_shown!("c"), "
                           and s.deleted_at is null
                           and d.indexed_at is not null
                           and d.tenant_id = $1
                           and d.chatbot_id = $2
                           and c.id = any($3)
                           and ", is_of_present_version!("c"));
            sqlx::query_as(text)
                .bind(tenant_id)
                .bind(chatbot_id)
                .bind(ids)
                .fetch_all(connection)
                .await?
        }
        Engine::Sqlite(connection) => {
            let mut query = by_ids(SELECT, tenant_id, chatbot_id, ids);
            query.build_query_as().fetch_all(connection).await?
        }
    };
    conn.settle();
    Ok(rows)
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
        "select c.id, c.document_id, d.source_id, coalesce(c.cut_id, c.source_id) as cut, c.position, d.indexed_at, coalesce(d.published_at, d.created_at) as dated, d.title, d.file_name, d.url,
                c.text, c.heading, c.page, c.start_char, c.end_char, c.prompt_token_count,
                coalesce(d.access_groups, s.access_groups) as access_groups
           from chunk c
           join document d on d.id = c.document_id
           join source s on s.id = d.source_id
          where c.tenant_id = $1
            and s.tenant_id = $1
            and c.is_enabled
            and ", is_shown!("c"), "
            and s.deleted_at is null
            and d.indexed_at = $7
            and d.tenant_id = $1
            and d.chatbot_id = $2
            and c.document_id = $3
            and c.position between $4 and $5
            and coalesce(c.cut_id, c.source_id) = $6
            and ", is_of_present_version!("c"), "
          order by c.position",
    )).bind(tenant_id).bind(chatbot_id).bind(document_id).bind(first).bind(last).bind(cut).bind(indexed_at).fetch_all(c).await)?)
}

fn by_ids(select: &str, tenant_id: TenantId, chatbot_id: ChatbotId, ids: &[ChunkId]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(select);
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
    ids.iter().for_each(|id| {
        list.push_bind(*id);
    });
    query.push(")");
    query
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::db::{DatabaseUrl, Db, Scope};

    #[tokio::test]
    async fn passages_are_found_by_their_own_keys_however_many_there_are_of_the_tenant() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = DatabaseUrl::Sqlite(folder.path().join("test.db"));
        let db = Db::open(&url, 2).await.expect("a database");
        let mut conn = db.read(Scope::Operator).await.expect("a connection");
        let Ok(Engine::Sqlite(connection)) = conn.engine().await else {
            panic!("not SQLite");
        };
        let ids: Vec<ChunkId> = (0..50).map(|id| ChunkId(Uuid::from_u128(id))).collect();
        let explain = format!("explain query plan {SELECT}");

        let plan: Vec<(i64, i64, i64, String)> =
            by_ids(&explain, TenantId(Uuid::nil()), ChatbotId(Uuid::nil()), &ids)
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
