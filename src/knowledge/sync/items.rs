//! SQL of what is known of each page or file of a source: the checkpoint of its runs.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, QueryBuilder};

use super::driver::Found;
use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::Result;
use crate::id::{DocumentId, SourceId, SyncRunId, TenantId};
use crate::on;

/// What a server says of a version, to ask later whether it is still the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Validators {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

/// One page or file of a source.
#[derive(Clone, Debug, FromRow)]
pub(super) struct Item {
    #[sqlx(rename = "item_key")]
    pub key: String,
    pub url: String,
    pub depth: i64,
    /// Failed attempts of this run.
    pub attempts: i64,
    pub document_id: Option<DocumentId>,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    pub listed_version: Option<String>,
    pub read_version: Option<String>,
    pub read_at: Option<DateTime<Utc>>,
    pub(super) known_as: Option<String>,
    pub moved_to: Option<String>,
    pub body_hash: Option<String>,
    pub text_hash: Option<String>,
    pub reader_version: Option<i64>,
    pub(super) links: Option<String>,
    /// Its document was deleted by hand, and is not wanted back.
    pub is_excluded: bool,
}

impl Item {
    /// What it was when it was read last, if that is still worth anything.
    pub(super) fn known_as(&self) -> Option<KnownAs> {
        KnownAs::ALL
            .into_iter()
            .find(|known_as| Some(known_as.name()) == self.known_as.as_deref())
    }

    /// The items that it named when it was read last.
    pub(super) fn links(&self) -> impl Iterator<Item = &str> {
        self.links.as_deref().unwrap_or_default().lines()
    }

    /// An item of which no more is known.
    pub(super) fn named(key: &str, url: &str, depth: i64) -> Self {
        Self {
            key: key.to_owned(),
            url: url.to_owned(),
            depth,
            attempts: 0,
            document_id: None,
            etag: None,
            last_modified: None,
            listed_version: None,
            read_version: None,
            read_at: None,
            known_as: None,
            moved_to: None,
            body_hash: None,
            text_hash: None,
            reader_version: None,
            links: None,
            is_excluded: false,
        }
    }

    /// A page that was read.
    #[cfg(test)]
    pub(super) fn known_page(url: &str) -> Self {
        Self {
            known_as: Some(KnownAs::Page.name().to_owned()),
            ..Self::named(url, url, 1)
        }
    }

    /// As if it had never been read.
    pub(super) fn forget(&mut self) {
        self.etag = None;
        self.last_modified = None;
        self.read_version = None;
        self.known_as = None;
        self.body_hash = None;
    }
}

/// What an item was when it was read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownAs {
    Page,
    /// Names another item as itself.
    Moved,
    NotKept,
}

impl KnownAs {
    const ALL: [Self; 3] = [Self::Page, Self::Moved, Self::NotKept];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Moved => "moved",
            Self::NotKept => "not_kept",
        }
    }
}

/// Where an item stands in the run that listed it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemState {
    Waiting,
    New,
    Changed,
    Unchanged,
    /// Another item has the same text, and the document.
    Duplicate,
    Moved,
    /// By rule not read, or not kept.
    Skipped,
    Gone,
    Failed,
    /// Behind the source's limit of items.
    Beyond,
}

impl ItemState {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::New => "new",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Duplicate => "duplicate",
            Self::Moved => "moved",
            Self::Skipped => "skipped",
            Self::Gone => "gone",
            Self::Failed => "failed",
            Self::Beyond => "beyond",
        }
    }
}

/// The source and run that the statements below are about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub tenant_id: TenantId,
    pub source_id: SourceId,
    pub run_id: SyncRunId,
}

/// Lists items for a run. Those that the run has listed already stay as they are.
pub(super) async fn list_found(
    write: &mut Write,
    place: Place,
    found: &[Found],
    now: DateTime<Utc>,
) -> Result<()> {
    for group in found.chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            let mut insert = QueryBuilder::new(
                "insert into source_item (source_id, item_key, tenant_id, url, run_id, state, depth, attempts, listed_version, updated_at) ",
            );
            insert.push_values(group, |mut row, item| {
                row.push_bind(place.source_id).push_bind(&item.key).push_bind(place.tenant_id).push_bind(&item.url)
                    .push_bind(place.run_id).push_bind(ItemState::Waiting.name()).push_bind(item.depth).push_bind(0_i64)
                    .push_bind(&item.version).push_bind(now);
            });
            insert.push(
                " on conflict (source_id, item_key) do update
                    set run_id = excluded.run_id, url = excluded.url, state = excluded.state, depth = excluded.depth, attempts = 0,
                        retry_at = null, listed_version = excluded.listed_version, updated_at = excluded.updated_at
                  where source_item.run_id <> excluded.run_id",
            );
            insert.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// The keys that a run has listed, with whether each still waits.
pub(super) async fn list_keys(conn: &mut Conn, place: Place) -> Result<Vec<(String, bool)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select item_key, state = 'waiting' from source_item where tenant_id = $1 and source_id = $2 and run_id = $3",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).fetch_all(c).await)?)
}

/// The least depth of the run's items that may be read now; none when none may.
pub(super) async fn find_level(conn: &mut Conn, place: Place, now: DateTime<Utc>) -> Result<Option<i64>> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select min(depth) from source_item
          where tenant_id = $1 and source_id = $2 and run_id = $3 and state = 'waiting' and (retry_at is null or retry_at <= $4)",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(now).fetch_one(c).await)?)
}

/// Items of this depth that may be read now, in the order of reading, from behind the key `after` on.
pub(super) async fn list_waiting(
    conn: &mut Conn,
    place: Place,
    depth: i64,
    after: &str,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Item>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select item_key, url, depth, attempts, document_id, etag, last_modified, listed_version, read_version, read_at, known_as,
                moved_to, body_hash, text_hash, reader_version, links,
                exists(select 1
                         from source_exclusion x
                        where x.source_id = source_item.source_id
                          and x.item_key = source_item.item_key) as is_excluded
           from source_item
          where tenant_id = $1
            and source_id = $2
            and run_id = $3
            and state = 'waiting'
            and (retry_at is null or retry_at <= $4)
            and depth = $5
            and item_key > $6
          order by item_key
          limit $7",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(now).bind(depth).bind(after).bind(limit).fetch_all(c).await)?)
}

/// How many items wait for another attempt and were tried since the last one that could be read.
pub(super) async fn count_failures_in_a_row(conn: &mut Conn, place: Place) -> Result<i64> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select count(*)
           from source_item
          where tenant_id = $1
            and source_id = $2
            and run_id = $3
            and state = 'waiting'
            and attempts > 0
            and updated_at > coalesce((select max(updated_at) from source_item
                                        where tenant_id = $1 and source_id = $2 and run_id = $3
                                          and state not in ('waiting', 'failed', 'beyond')), $4)",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(DateTime::UNIX_EPOCH).fetch_one(c).await)?)
}

/// When the first of the items that wait for another attempt may be read; none when none waits.
pub(super) async fn find_next_retry(conn: &mut Conn, place: Place) -> Result<Option<DateTime<Utc>>> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select min(retry_at) from source_item
          where tenant_id = $1 and source_id = $2 and run_id = $3 and state = 'waiting'",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).fetch_one(c).await)?)
}

/// Whether something that the owner named could not be read.
pub(super) async fn is_start_unread(conn: &mut Conn, place: Place) -> Result<bool> {
    let unread: i64 = on!(conn, c => sqlx::query_scalar(
        "select count(*) from source_item
          where tenant_id = $1 and source_id = $2 and run_id = $3 and depth = 0 and state in ('failed', 'gone')",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).fetch_one(c).await)?;
    Ok(unread > 0)
}

/// How many items of the run are in each state.
pub(super) async fn count_states(conn: &mut Conn, place: Place) -> Result<Vec<(String, i64)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select state, count(*) from source_item where tenant_id = $1 and source_id = $2 and run_id = $3 group by state",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).fetch_all(c).await)?)
}

/// What an item is after it was read. Fields that are `None` stay as they were.
#[derive(Debug, Default)]
pub(super) struct Change<'a> {
    pub attempts: Option<i64>,
    pub retry_at: Option<DateTime<Utc>>,
    /// It was read: everything below replaces what was known.
    pub read: Option<Read<'a>>,
    /// It is as it was when it was read last.
    pub is_same: bool,
    /// Take the place of those that were known, of an item that is as it was.
    pub validators: Option<&'a Validators>,
}

/// What is known of an item that was read.
#[derive(Debug)]
pub(super) struct Read<'a> {
    pub known_as: Option<KnownAs>,
    pub moved_to: Option<&'a str>,
    pub document_id: Option<DocumentId>,
    pub validators: &'a Validators,
    pub body_hash: Option<&'a str>,
    pub text_hash: Option<&'a str>,
    pub reader_version: Option<i64>,
    /// One a line.
    pub links: &'a str,
}

/// Moves a waiting item of the run on; one that does not wait stays as it is.
pub(super) async fn settle(
    write: &mut Write,
    place: Place,
    key: &str,
    state: ItemState,
    change: &Change<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    match &change.read {
        Some(read) => {
            write
                .put(
                    "update source_item
                        set state = $5, retry_at = null, read_at = $6, read_version = listed_version, known_as = $7, moved_to = $8,
                            document_id = $9, etag = $10, last_modified = $11, body_hash = $12, text_hash = $13,
                            reader_version = $14, links = $15, updated_at = $6
                      where tenant_id = $1 and source_id = $2 and run_id = $3 and item_key = $4 and state = 'waiting'",
                )
                .bind(place.tenant_id)
                .bind(place.source_id)
                .bind(place.run_id)
                .bind(key)
                .bind(state.name())
                .bind(now)
                .bind(read.known_as.map(KnownAs::name))
                .bind(read.moved_to)
                .bind(read.document_id)
                .bind(&read.validators.etag)
                .bind(&read.validators.last_modified)
                .bind(read.body_hash)
                .bind(read.text_hash)
                .bind(read.reader_version)
                .bind(read.links)
                .run()
                .await
        }
        None => {
            let validators = change.validators;
            write
                .put(
                    "update source_item
                        set state = $5, attempts = coalesce($6, attempts), retry_at = $7, updated_at = $8,
                            read_at = case when $9 then $8 else read_at end,
                            read_version = case when $9 then listed_version else read_version end,
                            etag = case when $10 then $11 else etag end,
                            last_modified = case when $10 then $12 else last_modified end
                      where tenant_id = $1 and source_id = $2 and run_id = $3 and item_key = $4 and state = 'waiting'",
                )
                .bind(place.tenant_id)
                .bind(place.source_id)
                .bind(place.run_id)
                .bind(key)
                .bind(state.name())
                .bind(change.attempts)
                .bind(change.retry_at)
                .bind(now)
                .bind(change.is_same)
                .bind(validators.is_some())
                .bind(validators.and_then(|validators| validators.etag.as_deref()))
                .bind(validators.and_then(|validators| validators.last_modified.as_deref()))
                .run()
                .await
        }
    }
}

/// An item that has the document of a text.
#[derive(Clone, Debug, FromRow)]
pub(super) struct Owner {
    #[sqlx(rename = "item_key")]
    pub key: String,
    pub depth: i64,
    pub document_id: DocumentId,
    /// In this run; of an item that the run has not read: none.
    state: Option<String>,
}

impl Owner {
    /// What another item is that takes the document over: its text was there before, unless the document is of this run.
    pub(super) fn state_to_inherit(&self) -> ItemState {
        match self.state.as_deref() {
            Some("new") => ItemState::New,
            Some("changed") => ItemState::Changed,
            _ => ItemState::Unchanged,
        }
    }
}

/// Who has the document of this text, besides the item `key`.
pub(super) async fn find_owner(
    write: &mut Write,
    place: Place,
    key: &str,
    text_hash: &str,
) -> Result<Option<Owner>> {
    Ok(on!(write, c => sqlx::query_as(
        "select item_key, depth, document_id, case when run_id = $3 then state end as state
           from source_item
          where tenant_id = $1
            and source_id = $2
            and text_hash = $4
            and document_id is not null
            and item_key <> $5
          order by depth, item_key
          limit 1",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(text_hash).bind(key).fetch_optional(c).await)?)
}

/// Takes its document from an item; one that the run has read is a duplicate from now on.
pub(super) async fn release_document(write: &mut Write, place: Place, key: &str) -> Result<()> {
    on!(write, c => sqlx::query(
        "update source_item
            set document_id = null, state = case when run_id = $3 and state in ('new', 'changed', 'unchanged') then 'duplicate' else state end
          where tenant_id = $1 and source_id = $2 and item_key = $4",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(key).execute(c).await.map(drop))?;
    Ok(())
}

/// Gives the document of an item that moved to the item that it names, if that one waits and has none; false otherwise.
pub(super) async fn hand_over(
    write: &mut Write,
    place: Place,
    to: &str,
    document_id: DocumentId,
    text_hash: Option<&str>,
) -> Result<bool> {
    let taken: Option<String> = on!(write, c => sqlx::query_scalar(
        "update source_item
            set document_id = $5, text_hash = $6, known_as = null
          where tenant_id = $1 and source_id = $2 and run_id = $3 and item_key = $4 and state = 'waiting' and document_id is null
         returning item_key",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(to).bind(document_id).bind(text_hash).fetch_optional(c).await)?;
    Ok(taken.is_some())
}

/// Leaves what waits and has no document out of this run. Returns whether there was any.
pub(super) async fn leave_beyond(write: &mut Write, place: Place, now: DateTime<Utc>) -> Result<bool> {
    let left = on!(write, c => sqlx::query(
        "update source_item
            set state = $5, updated_at = $4
          where tenant_id = $1 and source_id = $2 and run_id = $3 and state = 'waiting' and document_id is null",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(now).bind(ItemState::Beyond.name()).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(left > 0)
}

/// Lists items with documents that the run has not come across, so that they are looked at all the same.
pub(super) async fn list_unseen(write: &mut Write, place: Place, now: DateTime<Utc>) -> Result<usize> {
    let listed = on!(write, c => sqlx::query(
        "update source_item
            set run_id = $3, state = 'waiting', attempts = 0, retry_at = null, updated_at = $4
          where tenant_id = $1 and source_id = $2 and run_id <> $3 and document_id is not null",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(now).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(usize::try_from(listed).unwrap_or(usize::MAX))
}

/// Lists items again that an earlier run failed to read.
pub(super) async fn list_failed_again(write: &mut Write, place: Place, now: DateTime<Utc>) -> Result<()> {
    on!(write, c => sqlx::query(
        "update source_item
            set run_id = $3, state = 'waiting', attempts = 0, retry_at = null, updated_at = $4
          where tenant_id = $1 and source_id = $2 and run_id <> $3 and state in ('failed', 'waiting')",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Gives up what still waits: it was not read, and what is known of it stays.
pub(super) async fn give_up_waiting(write: &mut Write, place: Place, now: DateTime<Utc>) -> Result<()> {
    on!(write, c => sqlx::query(
        "update source_item
            set state = 'failed', updated_at = $4
          where tenant_id = $1 and source_id = $2 and run_id = $3 and state = 'waiting'",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Marks items as gone that the source itself calls gone.
pub(super) async fn mark_gone(
    write: &mut Write,
    place: Place,
    keys: &[String],
    now: DateTime<Utc>,
) -> Result<()> {
    for key in keys {
        on!(write, c => sqlx::query(
            "update source_item
                set run_id = $3, state = 'gone', retry_at = null, updated_at = $5
              where tenant_id = $1 and source_id = $2 and item_key = $4",
        ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).bind(key).bind(now).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Forgets items that neither this run has seen nor a document needs.
pub(super) async fn delete_unseen(write: &mut Write, place: Place) -> Result<()> {
    on!(write, c => sqlx::query(
        "delete from source_item where tenant_id = $1 and source_id = $2 and run_id <> $3 and document_id is null",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).execute(c).await.map(drop))?;
    Ok(())
}
