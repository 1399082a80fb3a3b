//! Versions of a document: a new one of many chunks is brought in beside the one that answers (`indexing/large.rs`), and what it
//! replaced is taken away bit by bit. Of each document one version is shown in each of its cuts, and one text: nobody reads
//! another one.

use std::collections::HashMap;

use sqlx::QueryBuilder;

use crate::db::Conn;
use crate::error::Result;
use crate::id::{CutId, DocumentId, TenantId};
use crate::on;

/// Whether a chunk, joined under this name, is of the version that its document shows in the chunk's cut.
macro_rules! is_shown {
    ($chunk:literal) => {
        concat!(
            $chunk,
            ".version = coalesce((select v.number from document_version v where v.document_id = ",
            $chunk,
            ".document_id and v.cut_id = coalesce(",
            $chunk,
            ".cut_id, ",
            $chunk,
            ".source_id) and v.tenant_id = ",
            $chunk,
            ".tenant_id and v.state = 'shown'), 0)"
        )
    };
}
pub(crate) use is_shown;

/// The numbers of the versions that documents show in their cuts, where that is not 0.
pub(super) async fn list_shown(
    conn: &mut Conn,
    tenant_id: TenantId,
    ids: &[DocumentId],
) -> Result<HashMap<(DocumentId, CutId), i64>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let shown: Vec<(DocumentId, CutId, i64)> = on!(conn, c => {
        let mut query = QueryBuilder::new("select document_id, cut_id, number from document_version where coalesce(tenant_id, tenant_id) = ");
        query.push_bind(tenant_id).push(" and state = 'shown' and document_id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(")");
        query.build_query_as().fetch_all(c).await
    })?;
    let shown = shown.into_iter();
    Ok(shown.map(|(id, cut, number)| ((id, cut), number)).collect())
}
