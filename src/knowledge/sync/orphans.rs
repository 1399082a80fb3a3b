//! SQL of texts that lost their document: the item that had it changed or is gone, while others still say the same.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::items::{self, ItemState, Place};
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::id::DocumentId;
use crate::on;

/// An item of the run whose text has no document in place: the item that had it changed, or is not there any more.
#[derive(Debug, FromRow)]
pub(super) struct Orphan {
    #[sqlx(rename = "item_key")]
    pub key: String,
    pub url: String,
    pub text_hash: String,
}

/// Such items, the first of each text.
pub(super) async fn list_orphans(conn: &mut Conn, place: Place) -> Result<Vec<Orphan>> {
    let mut orphans: Vec<Orphan> = on!(conn, c => sqlx::query_as(
        "select item_key, url, text_hash
           from source_item orphan
          where tenant_id = $1
            and source_id = $2
            and run_id = $3
            and state = 'duplicate'
            and document_id is null
            and not exists (select 1 from source_item owner
                             where owner.tenant_id = $1 and owner.source_id = $2 and owner.run_id = $3
                               and owner.text_hash = orphan.text_hash
                               and owner.state in ('new', 'changed', 'unchanged', 'failed')
                               and owner.document_id is not null)
          order by text_hash, depth, item_key",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).fetch_all(c).await)?;
    orphans.dedup_by(|later, first| later.text_hash == first.text_hash);
    Ok(orphans)
}

/// Gives an orphan the document of its text, which an item has that is not there any more; none when there is no such
/// document.
pub(super) async fn adopt(
    write: &mut Write,
    place: Place,
    orphan: &Orphan,
    now: DateTime<Utc>,
) -> Result<Option<DocumentId>> {
    let Some(owner) = items::find_owner(write, place, &orphan.key, &orphan.text_hash).await? else {
        return Ok(None);
    };
    items::release_document(write, place, &owner.key).await?;
    on!(write, c => sqlx::query(
        "update source_item
            set state = $5, document_id = $6, updated_at = $7
          where tenant_id = $1 and source_id = $2 and run_id = $3 and item_key = $4",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(&orphan.key).bind(ItemState::Unchanged.name())
     .bind(owner.document_id).bind(now).execute(c).await.map(drop))?;
    Ok(Some(owner.document_id))
}

/// Lets an orphan be read again.
pub(super) async fn reopen(write: &mut Write, place: Place, key: &str, now: DateTime<Utc>) -> Result<()> {
    on!(write, c => sqlx::query(
        "update source_item
            set state = 'waiting', retry_at = null, etag = null, last_modified = null, read_version = null, body_hash = null,
                known_as = null, updated_at = $5
          where tenant_id = $1 and source_id = $2 and run_id = $3 and item_key = $4",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(key).bind(now).execute(c).await.map(drop))?;
    Ok(())
}
