//! SQL of passages: the rows behind what the index finds.

use retrieval::index::Audience;
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder};

use crate::db::{Conn, Engine};
use crate::error::Result;
use crate::id::{ChatbotId, ChunkId, DocumentId, TenantId};

/// A chunk with its document, as search shows it.
#[derive(Debug, FromRow)]
pub(super) struct PassageRow {
    pub id: ChunkId,
    pub document_id: DocumentId,
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

/// The chunks of these ids that this chatbot knows now and may use. Others are left out, whatever the index said.
pub(super) async fn find_passages(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    ids: &[ChunkId],
) -> Result<Vec<PassageRow>> {
    const SELECT: &str = "select c.id, c.document_id, d.title, d.file_name, d.url, c.text, c.heading, c.page, c.start_char, c.end_char, c.prompt_token_count,
                                 coalesce(d.access_groups, s.access_groups) as access_groups
                            from chunk c
                            join document d on d.id = c.document_id
                            join source s on s.id = d.source_id
                           where c.is_enabled
                             and c.tenant_id = ";
    let rows = match conn.engine().await? {
        // One text for every number of ids, so that the statement stays prepared.
        Engine::Postgres(connection) => {
            let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.0).collect();
            let text = "select c.id, c.document_id, d.title, d.file_name, d.url, c.text, c.heading, c.page, c.start_char, c.end_char, c.prompt_token_count,
                               coalesce(d.access_groups, s.access_groups) as access_groups
                          from chunk c
                          join document d on d.id = c.document_id
                          join source s on s.id = d.source_id
                         where c.tenant_id = $1
                           and s.tenant_id = $1
                           and c.is_enabled
                           and d.tenant_id = $1
                           and d.chatbot_id = $2
                           and c.id = any($3)";
            sqlx::query_as(text)
                .bind(tenant_id)
                .bind(chatbot_id)
                .bind(ids)
                .fetch_all(connection)
                .await?
        }
        Engine::Sqlite(connection) => {
            let mut query = QueryBuilder::new(SELECT);
            query
                .push_bind(tenant_id)
                .push(" and d.tenant_id = ")
                .push_bind(tenant_id)
                .push(" and s.tenant_id = ")
                .push_bind(tenant_id)
                .push(" and d.chatbot_id = ")
                .push_bind(chatbot_id)
                .push(" and c.id in (");
            let mut list = query.separated(", ");
            ids.iter().for_each(|id| {
                list.push_bind(*id);
            });
            query.push(")");
            query.build_query_as().fetch_all(connection).await?
        }
    };
    conn.settle();
    Ok(rows)
}
