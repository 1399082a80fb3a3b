//! What the index is told of documents: their tags, groups, language and date, by which it filters.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use retrieval::index::Facets;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder};

use super::weighing::{note_weighed, rules, rules_of, weigh_anew_later};
use crate::app::{App, Space};
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::generations;
use crate::id::{DocumentId, SourceId, TenantId};
use crate::jobs::{self, Job, JobContext, Outcome, Priority};
use crate::knowledge::{cuts, index_changes};
use crate::on;

/// Documents that one job tells the index of.
const TOLD_AT_ONCE: usize = 500;

/// Tells the index what is said of documents.
#[derive(Debug, Serialize, Deserialize)]
pub struct TellIndex {
    pub document_ids: Vec<DocumentId>,
}

impl Job for TellIndex {
    const KIND: &'static str = "tell_index";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        Outcome::of_slice(tell_all(&app, &context, &self.document_ids).await)
    }
}

/// Tells all of them, also those that the index seems to have been told of: another job may tell it something older right now.
/// Whoever tells it last looks at the rows last, and sees whether they still say that.
async fn tell_all(app: &App, context: &JobContext, ids: &[DocumentId]) -> Result<()> {
    let tenant_id = context.tenant()?;
    if app.config.index_is_with_rows() && tell_with_rows(app, tenant_id, ids).await? {
        return Ok(());
    }
    let said = load(&mut app.db.read(tenant_id).await?, tenant_id, ids).await?;
    let told: HashMap<DocumentId, Facets> = said.into_iter().map(|said| (said.id, said.facets)).collect();
    if told.is_empty() {
        return Ok(());
    }
    let facets: Vec<(retrieval::DocumentId, Facets)> = told
        .iter()
        .map(|(id, facets)| (retrieval::DocumentId(id.0), facets.clone()))
        .collect();
    app.disk.check_room()?;
    for space in generations::list_spaces(app, tenant_id).await? {
        space
            .index
            .set_facets(retrieval::TenantId(tenant_id.0), facets.clone())
            .await?;
    }
    let mut write = app.db.write(tenant_id).await?;
    note_all_told(app, &mut write, tenant_id, &told).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// Notes what the index was told, and queues again those documents of which rows say something else by now: what was told last is
/// not what was said last.
async fn note_all_told(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    told: &HashMap<DocumentId, Facets>,
) -> Result<()> {
    let ids: Vec<DocumentId> = told.keys().copied().collect();
    cuts::hold(write, tenant_id, &ids).await?;
    let mut changed = Vec::new();
    for said in load(write, tenant_id, &ids).await? {
        let is_told = told.get(&said.id) == Some(&said.facets);
        let number = is_told.then(|| said.number());
        if !is_told {
            changed.push(said.id);
        }
        if said.told != number {
            note_told(write, tenant_id, said.id, number).await?;
        }
        if said.is_weighed_otherwise() {
            weigh_anew_later(app, write, tenant_id, &said).await?;
        }
    }
    tell_later(app, write, tenant_id, &changed).await
}

/// Tells indexes in the database of the rows, a few documents in each transaction; false: not all of the indexes are there.
async fn tell_with_rows(app: &App, tenant_id: TenantId, ids: &[DocumentId]) -> Result<bool> {
    let counted = load(&mut app.db.read(tenant_id).await?, tenant_id, ids).await?;
    let mut left = counted.as_slice();
    while !left.is_empty() {
        let (group, behind) = left.split_at(light_len(left));
        let ids: Vec<DocumentId> = group.iter().map(|said| said.id).collect();
        let mut write = app.db.write(tenant_id).await?;
        let Some(spaces) = index_changes::spaces_with_rows(app, &mut write, tenant_id).await? else {
            return Ok(false);
        };
        let said = load_held(&mut write, tenant_id, &ids).await?;
        tell_now(app, &mut write, tenant_id, &spaces, said).await?;
        write.commit().await?;
        app.wake_workers();
        left = behind;
    }
    Ok(true)
}

/// How many of these documents, from the first one on, have few enough chunks to be told of in one transaction; at least one.
fn light_len(said: &[Said]) -> usize {
    let mut chunks = 0;
    let light = said.iter().take_while(|said| {
        chunks += said.chunk_count;
        chunks <= index_changes::TOLD_AT_ONCE
    });
    light.count().max(1)
}

/// Tells the index what rows say of these documents: with the transaction where it lies in the database of the rows and they have
/// few chunks, otherwise by a job.
pub(in crate::knowledge) async fn tell(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[DocumentId],
) -> Result<()> {
    if !ids.is_empty()
        && ids.len() <= TOLD_AT_ONCE
        && let Some(spaces) = index_changes::spaces_with_rows(app, write, tenant_id).await?
    {
        let said = load_held(write, tenant_id, ids).await?;
        if said.iter().map(|said| said.chunk_count).sum::<i64>() <= index_changes::TOLD_AT_ONCE {
            return tell_now(app, write, tenant_id, &spaces, said).await;
        }
    }
    tell_later(app, write, tenant_id, ids).await
}

/// Has the transaction give these documents, which it holds, the facets that their rows say.
async fn tell_now(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    spaces: &[Arc<Space>],
    mut said: Vec<Said>,
) -> Result<()> {
    for said in said.iter().filter(|said| said.is_weighed_otherwise()) {
        weigh_anew_later(app, write, tenant_id, said).await?;
    }
    said.retain(|said| !said.is_told());
    let facets: Vec<(retrieval::DocumentId, Facets)> = said.iter().map(Said::in_index).collect();
    index_changes::set_facets(write, tenant_id, spaces, &facets);
    for said in &said {
        note_told(write, tenant_id, said.id, Some(said.number())).await?;
    }
    Ok(())
}

async fn load_held(write: &mut Write, tenant_id: TenantId, ids: &[DocumentId]) -> Result<Vec<Said>> {
    cuts::hold(write, tenant_id, ids).await?;
    load(write, tenant_id, ids).await
}

/// Queues that the index is told of these documents, in the caller's transaction.
pub(in crate::knowledge) async fn tell_later(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[DocumentId],
) -> Result<()> {
    for group in ids.chunks(TOLD_AT_ONCE) {
        let job = TellIndex {
            document_ids: group.to_vec(),
        };
        jobs::enqueue(app, write, tenant_id, &job).await?;
    }
    Ok(())
}

/// The tenant's documents of which the index is being told, or is to be.
pub(in crate::knowledge) async fn list_being_told(
    conn: &mut Conn,
    tenant_id: TenantId,
) -> Result<HashSet<DocumentId>> {
    let open: Vec<TellIndex> = jobs::list_open(conn, tenant_id).await?;
    Ok(open.into_iter().flat_map(|job| job.document_ids).collect())
}

/// Like [`tell`], for all documents of a source. They are not noted as untold one by one: that what was noted of them is not what
/// rows say now can be seen, and a job tells the index of them whatever was noted.
pub(in crate::knowledge) async fn tell_of_source(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<()> {
    let ids: Vec<DocumentId> = on!(write, c => sqlx::query_scalar("select id from document where tenant_id = $1 and source_id = $2 order by id")
        .bind(tenant_id).bind(source_id).fetch_all(c).await)?;
    tell(app, write, tenant_id, &ids).await
}

/// What was put into the index with a document's chunks.
pub(in crate::knowledge) struct Stored<'a> {
    pub id: DocumentId,
    pub facets: &'a Facets,
    /// Whether older chunks of it may be there, with what the index was told before.
    pub was_indexed: bool,
}

/// Settles, in the transaction that swaps documents in, whether their chunks say what their rows say; the index is told
/// of those that do not.
pub(in crate::knowledge) async fn settle(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    stored: &[Stored<'_>],
) -> Result<()> {
    let ids: Vec<DocumentId> = stored.iter().map(|stored| stored.id).collect();
    let mut said_of: HashMap<DocumentId, Said> = load(write, tenant_id, &ids)
        .await?
        .into_iter()
        .map(|said| (said.id, said))
        .collect();
    let mut untold = Vec::new();
    for stored in stored {
        let Some(said) = said_of.remove(&stored.id) else {
            continue;
        };
        let words = said.rules_with(stored);
        let is_right = *stored.facets == said.facets && (!stored.was_indexed || said.is_told());
        // The index is told as well where words are to be weighed anew: that is found then.
        let is_right = is_right && words.is_some();
        if !is_right {
            untold.push(said.id);
        }
        let told = is_right.then(|| said.number());
        if said.told != told {
            note_told(write, tenant_id, said.id, told).await?;
        }
        note_words(write, tenant_id, &said, words).await?;
    }
    tell(app, write, tenant_id, &untold).await
}

/// Notes in the transaction that shows a document that the index is to be told of all of its chunks what rows say of it.
pub(in crate::knowledge) async fn tell_anew(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    stored: &Stored<'_>,
) -> Result<()> {
    for said in load(write, tenant_id, &[stored.id]).await? {
        note_words(write, tenant_id, &said, said.rules_with(stored)).await?;
    }
    tell_again(app, write, tenant_id, stored.id).await
}

/// Like [`tell`], of a document of which an attempt has told the index something else since rows were what it knew.
pub(in crate::knowledge) async fn tell_again(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    id: DocumentId,
) -> Result<()> {
    note_told(write, tenant_id, id, None).await?;
    tell(app, write, tenant_id, &[id]).await
}

/// Where rows say something else of a document by now than some of its chunks go into the index with, notes in the transaction
/// that puts these in that the index is to be told; whether they do.
pub(in crate::knowledge) async fn tell_if_changed(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    stored: &Stored<'_>,
) -> Result<bool> {
    let said = load(write, tenant_id, &[stored.id]).await?;
    let is_changed = said.iter().any(|said| said.facets != *stored.facets);
    if is_changed {
        tell_anew(app, write, tenant_id, stored).await?;
    }
    Ok(is_changed)
}

async fn note_told(write: &mut Write, tenant_id: TenantId, id: DocumentId, told: Option<i64>) -> Result<()> {
    let update = write.put("update document set facets_told = $3 where tenant_id = $1 and id = $2");
    update.bind(tenant_id).bind(id).bind(told).run().await
}

async fn note_words(
    write: &mut Write,
    tenant_id: TenantId,
    said: &Said,
    words: Option<&'static str>,
) -> Result<()> {
    if said.words_language.as_deref() == words {
        return Ok(());
    }
    note_weighed(write, tenant_id, said.id, words).await
}

/// What rows say of a document, as the index is told.
pub(super) struct Said {
    pub id: DocumentId,
    pub facets: Facets,
    /// It has chunks in the index.
    is_indexed: bool,
    /// By the rules of which language the index has all of its words; none: not by the same.
    words_language: Option<String>,
    /// What the index was told last.
    told: Option<i64>,
    /// Those that the index may have of it, of a version that is not shown as yet as well.
    chunk_count: i64,
}

impl Said {
    fn in_index(&self) -> (retrieval::DocumentId, Facets) {
        (retrieval::DocumentId(self.id.0), self.facets.clone())
    }

    fn number(&self) -> i64 {
        self.facets.fingerprint().cast_signed()
    }

    fn is_told(&self) -> bool {
        self.told == Some(self.number())
    }

    /// Whether the index has words of it by other rules than those of its language.
    pub(super) fn is_weighed_otherwise(&self) -> bool {
        self.is_indexed && !self.has_words_by(rules(&self.facets))
    }

    fn has_words_by(&self, rules: &str) -> bool {
        self.words_language.as_deref().map(rules_of) == Some(rules)
    }

    /// By which rules the index has all of its words once what was stored of it is part of it; none: not by those that are right.
    fn rules_with(&self, stored: &Stored<'_>) -> Option<&'static str> {
        let right = rules(&self.facets);
        let is_right = rules(stored.facets) == right && (!stored.was_indexed || self.has_words_by(right));
        is_right.then_some(right)
    }
}

#[derive(FromRow)]
struct SaidRow {
    id: DocumentId,
    #[sqlx(flatten)]
    facets: FacetsRow,
    facets_told: Option<i64>,
    chunk_count: i64,
    is_indexed: bool,
    words_language: Option<String>,
}

/// What the facets of a document are made of, in statements that join it as `d` with its source as `s`.
#[derive(FromRow)]
pub(in crate::knowledge) struct FacetsRow {
    language: Option<String>,
    published_at: Option<DateTime<Utc>>,
    pub document_created_at: DateTime<Utc>,
    tags: Option<Json<Vec<String>>>,
    access_groups: Option<Json<Vec<String>>>,
}

/// The columns of [`FacetsRow`].
macro_rules! facets_columns {
    () => {
        "coalesce(d.language, d.detected_language) as language, d.published_at, d.created_at as document_created_at, coalesce(d.tags, s.tags) as tags, coalesce(d.access_groups, s.access_groups) as access_groups"
    };
}
pub(in crate::knowledge) use facets_columns;

impl From<FacetsRow> for Facets {
    fn from(row: FacetsRow) -> Self {
        let names = |list: Option<Json<Vec<String>>>| list.map(|Json(names)| names).unwrap_or_default();
        Self {
            language: row.language.as_deref().and_then(primary_language),
            tags: names(row.tags),
            date: Some(date_of(row.published_at, row.document_created_at)),
            groups: names(row.access_groups),
        }
    }
}

/// `de` of `de-AT`: what filters and the analysis of words go by.
pub(in crate::knowledge) fn primary_language(tag: &str) -> Option<String> {
    let primary = tag.split(['-', '_']).next().unwrap_or_default().trim();
    (!primary.is_empty()).then(|| primary.to_ascii_lowercase())
}

/// The date that filters go by, in Unix seconds: when it was published, or else when it came.
pub(in crate::knowledge) fn date_of(published_at: Option<DateTime<Utc>>, created_at: DateTime<Utc>) -> i64 {
    published_at.unwrap_or(created_at).timestamp()
}

pub(super) async fn load(conn: &mut Conn, tenant_id: TenantId, ids: &[DocumentId]) -> Result<Vec<Said>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<SaidRow> = on!(conn, c => {
        let mut query = QueryBuilder::new(concat!(
            "select d.id, d.facets_told,
                    d.chunk_count + coalesce((select max(v.ready_to) from document_version v
                                               where v.tenant_id = d.tenant_id and v.document_id = d.id and v.state = 'waiting'), 0) as chunk_count,
                    d.indexed_at is not null as is_indexed, d.words_language, ", facets_columns!(), "
               from document d
               join source s on s.id = d.source_id
              where coalesce(d.tenant_id, d.tenant_id) = "
        ));
        query.push_bind(tenant_id).push(" and coalesce(s.tenant_id, s.tenant_id) = ").push_bind(tenant_id).push(" and d.id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(")");
        query.build_query_as().fetch_all(c).await
    })?;
    let said = rows.into_iter().map(|row| Said {
        id: row.id,
        facets: row.facets.into(),
        told: row.facets_told,
        chunk_count: row.chunk_count,
        is_indexed: row.is_indexed,
        words_language: row.words_language,
    });
    Ok(said.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_compared_by_their_first_part() {
        for (tag, primary) in [
            ("de-AT", Some("de")),
            ("pt_BR", Some("pt")),
            ("EN", Some("en")),
            ("", None),
        ] {
            assert_eq!(primary_language(tag).as_deref(), primary, "{tag}");
        }
    }
}
