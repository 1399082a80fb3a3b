//! Points put in, and what is said of their documents changed. Each call is one transaction, or a part of its caller's; those
//! of one tenant wait for each other.

use std::collections::HashMap;

use super::Inner;
use super::delete::remove;
use super::home::{Home, TermChanges};
use super::stored::{FacetColumns, Prepared, PreparedPoint, bind_vectors, prepare};
use super::tenant::{Statement, Tenant, TenantTransaction};
use crate::index::{Facets, IndexError, Point};
use crate::{DocumentId, TenantId};

/// Points of one statement.
const POINTS_AT_ONCE: usize = 500;

/// Points of one statement that goes without the graph.
const LIFTED_AT_ONCE: u64 = 2_000;

/// Which points do not have the facets yet that are `said` of their documents.
const SAYS_OTHERWISE: &str = "point.tenant_id = $1
    and point.document_id = said.document_id
    and (point.language, point.published, point.tags, point.groups)
        is distinct from (said.language, said.published, said.tags, said.groups)";

pub(super) async fn upsert(inner: &Inner, tenant_id: TenantId, points: Vec<Point>) -> Result<(), IndexError> {
    if points.is_empty() {
        return Ok(());
    }
    let points = prepare(&inner.collection.layout, points)?;
    let mut transaction = TenantTransaction::write(&inner.pool, tenant_id).await?;
    let home = upsert_in(inner, &mut transaction.tenant(), points).await?;
    transaction.commit().await?;
    inner.movers.notice(tenant_id, &home);
    Ok(())
}

/// As [`upsert`], within a transaction; where the tenant's points lie then, which is to be noticed once it is committed.
pub(super) async fn upsert_in(
    inner: &Inner,
    tenant: &mut Tenant<'_>,
    Prepared { points, facets_of }: Prepared,
) -> Result<Home, IndexError> {
    let mut home = Home::make_and_lock(tenant, &inner.collection).await?;
    let was_empty = home.chunks == 0;
    let mut terms = TermChanges::default();
    let mut points = points.into_iter().peekable();
    while points.peek().is_some() {
        let batch: Vec<PreparedPoint> = points.by_ref().take(POINTS_AT_ONCE).collect();
        if !was_empty {
            let ids = batch.iter().map(|point| point.chunk_id.0).collect();
            remove(tenant, &inner.collection, &mut home, "chunk_id", ids, &mut terms).await?;
        }
        batch.iter().for_each(|point| terms.add(&point.words));
        let count = i64::try_from(batch.len()).expect("a batch is small");
        insert(inner, tenant, batch, &facets_of).await?;
        home.chunks += count;
        home.fresh += count;
    }
    if !was_empty {
        say_of_documents(inner, tenant, &mut home, &facets_of).await?;
    }
    terms.save(tenant, &inner.collection).await?;
    home.save(tenant, &inner.collection).await?;
    Ok(home)
}

pub(super) async fn set_facets(
    inner: &Inner,
    tenant_id: TenantId,
    facets: Vec<(DocumentId, Facets)>,
) -> Result<(), IndexError> {
    let mut transaction = TenantTransaction::write(&inner.pool, tenant_id).await?;
    let home = set_facets_in(inner, &mut transaction.tenant(), facets).await?;
    transaction.commit().await?;
    if let Some(home) = home {
        inner.movers.notice(tenant_id, &home);
    }
    Ok(())
}

/// As [`set_facets`], within a transaction; where the tenant's points lie then, as of [`upsert_in`].
pub(super) async fn set_facets_in(
    inner: &Inner,
    tenant: &mut Tenant<'_>,
    facets: Vec<(DocumentId, Facets)>,
) -> Result<Option<Home>, IndexError> {
    let facets = facets
        .into_iter()
        .map(|(document_id, facets)| (document_id, facets.in_order()));
    let facets_of: HashMap<DocumentId, Facets> = facets.collect();
    let Some(mut home) = Home::lock(tenant, &inner.collection).await? else {
        return Ok(None);
    };
    let before = home.fresh;
    say_of_documents(inner, tenant, &mut home, &facets_of).await?;
    if home.fresh != before {
        home.save(tenant, &inner.collection).await?;
    }
    Ok(Some(home))
}

async fn insert(
    inner: &Inner,
    tenant: &mut Tenant<'_>,
    points: Vec<PreparedPoint>,
    facets_of: &HashMap<DocumentId, Facets>,
) -> Result<(), IndexError> {
    let mut facets = FacetColumns::default();
    let (mut chunk_ids, mut document_ids, mut source_ids) = (Vec::new(), Vec::new(), Vec::new());
    let (mut text_hashes, mut words, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
    for point in points {
        facets.push(&facets_of[&point.document_id]);
        chunk_ids.push(point.chunk_id.0);
        document_ids.push(point.document_id.0);
        source_ids.push(point.source_id.0);
        text_hashes.push(point.text_hash);
        words.push(point.words);
        vectors.push(point.vector);
    }
    let table = inner.collection.points();
    let mut statement = tenant.statement(format!(
        "insert into {table}
             (tenant_id, chunk_id, document_id, source_id, text_hash, language, published, tags, groups, words, vector)
         select $1, chunk_id, document_id, source_id, text_hash, language, published, tags::text[], groups::text[], words, vector
           from unnest("
    ));
    let columns = [
        statement.bind(chunk_ids),
        statement.bind(document_ids),
        statement.bind(source_ids),
        statement.bind(text_hashes),
        statement.bind(facets.languages),
        statement.bind(facets.dates),
        statement.bind(facets.tags),
        statement.bind(facets.groups),
        statement.bind(words),
        bind_vectors(&mut statement, &inner.collection.layout, vectors),
    ];
    statement.push(&columns.join(", "));
    statement.push(
        ") as point (chunk_id, document_id, source_id, text_hash, language, published, tags, groups, words, vector)",
    );
    tenant.execute(statement).await.map(drop)
}

/// Gives all points of these documents the facets that do not have them yet. Where many are in a table of its own they leave
/// it, and come back in the background: the graph takes some milliseconds for each.
async fn say_of_documents(
    inner: &Inner,
    tenant: &mut Tenant<'_>,
    home: &mut Home,
    facets_of: &HashMap<DocumentId, Facets>,
) -> Result<(), IndexError> {
    let points = inner.collection.points();
    // Who copies the shared table sees by the version what changed meanwhile.
    say_in_place(tenant, &points, ", version = default", facets_of).await?;
    if !home.owns {
        return Ok(());
    }
    let own = inner.collection.own(home.number);
    if are_at_most(inner.movers.tuning().facets_in_place, tenant, &own, facets_of).await? {
        return say_in_place(tenant, &own, "", facets_of).await;
    }
    loop {
        let lifted = lift(tenant, &own, &points, facets_of).await?;
        home.fresh += lifted.cast_signed();
        if lifted < LIFTED_AT_ONCE {
            return Ok(());
        }
    }
}

/// A statement with a table of what is `said` of documents; `text` follows it.
fn statement_with_said(
    tenant: &Tenant<'_>,
    facets_of: &HashMap<DocumentId, Facets>,
    text: &str,
) -> Statement {
    let mut facets = FacetColumns::default();
    let mut document_ids = Vec::with_capacity(facets_of.len());
    for (document_id, said) in facets_of {
        document_ids.push(document_id.0);
        facets.push(said);
    }
    let mut statement = tenant.statement(
        "with said as (
             select document_id, language, published, tags::text[] as tags, groups::text[] as groups
               from unnest(",
    );
    let columns = [
        statement.bind(document_ids),
        statement.bind(facets.languages),
        statement.bind(facets.dates),
        statement.bind(facets.tags),
        statement.bind(facets.groups),
    ];
    statement.push(&columns.join(", "));
    statement.push(") as said (document_id, language, published, tags, groups))");
    statement.push(text);
    statement
}

async fn say_in_place(
    tenant: &mut Tenant<'_>,
    table: &str,
    also: &str,
    facets_of: &HashMap<DocumentId, Facets>,
) -> Result<(), IndexError> {
    let update = format!(
        " update {table} as point
             set language = said.language, published = said.published, tags = said.tags, groups = said.groups{also}
            from said
           where {SAYS_OTHERWISE}"
    );
    let statement = statement_with_said(tenant, facets_of, &update);
    tenant.execute(statement).await.map(drop)
}

/// Whether no more points than `most` say something else.
async fn are_at_most(
    most: u32,
    tenant: &mut Tenant<'_>,
    table: &str,
    facets_of: &HashMap<DocumentId, Facets>,
) -> Result<bool, IndexError> {
    let count = format!(
        " select count(*)
            from (select from {table} as point, said where {SAYS_OTHERWISE} limit {most} + 1) as otherwise"
    );
    let statement = statement_with_said(tenant, facets_of, &count);
    let counted: Vec<(i64,)> = tenant.fetch(statement).await?;
    Ok(counted.iter().all(|(count,)| *count <= i64::from(most)))
}

/// Takes some points that say something else out of the tenant's own table into the shared one, with what is said; how many.
async fn lift(
    tenant: &mut Tenant<'_>,
    own: &str,
    points: &str,
    facets_of: &HashMap<DocumentId, Facets>,
) -> Result<u64, IndexError> {
    let lift = format!(
        ", lifted as (
             delete from {own}
              where tenant_id = $1
                and chunk_id in (select point.chunk_id from {own} as point, said where {SAYS_OTHERWISE} limit {LIFTED_AT_ONCE})
             returning chunk_id, document_id, source_id, text_hash, words, vector
         )
         insert into {points}
             (tenant_id, chunk_id, document_id, source_id, text_hash, words, vector, language, published, tags, groups)
         select $1, lifted.*, said.language, said.published, said.tags, said.groups
           from lifted join said on said.document_id = lifted.document_id"
    );
    let statement = statement_with_said(tenant, facets_of, &lift);
    tenant.execute(statement).await
}
