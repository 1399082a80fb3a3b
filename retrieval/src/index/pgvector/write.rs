//! Points put in, and what is said of their documents changed. Each call is one transaction, or a part of its caller's; those
//! of one tenant wait for each other.

use std::collections::HashMap;

use super::Inner;
use super::delete::remove;
use super::home::{Home, TermChanges};
use super::stored::{FacetColumns, Prepared, PreparedPoint, bind_vectors, prepare};
use super::tenant::{Tenant, TenantTransaction};
use crate::index::{Facets, IndexError, Point};
use crate::{DocumentId, TenantId};

/// Points of one statement.
const POINTS_AT_ONCE: usize = 500;

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
        say_of_documents(inner, tenant, &home, &facets_of).await?;
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
    set_facets_in(inner, &mut transaction.tenant(), facets).await?;
    transaction.commit().await
}

/// As [`set_facets`], within a transaction.
pub(super) async fn set_facets_in(
    inner: &Inner,
    tenant: &mut Tenant<'_>,
    facets: Vec<(DocumentId, Facets)>,
) -> Result<(), IndexError> {
    let facets = facets
        .into_iter()
        .map(|(document_id, facets)| (document_id, facets.in_order()));
    let facets_of: HashMap<DocumentId, Facets> = facets.collect();
    match Home::lock(tenant, &inner.collection).await? {
        Some(home) => say_of_documents(inner, tenant, &home, &facets_of).await,
        None => Ok(()),
    }
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

/// Gives all points of these documents the facets that do not have them yet.
async fn say_of_documents(
    inner: &Inner,
    tenant: &mut Tenant<'_>,
    home: &Home,
    facets_of: &HashMap<DocumentId, Facets>,
) -> Result<(), IndexError> {
    for table in home.tables(&inner.collection) {
        // Who copies the shared table sees by the version what changed meanwhile.
        let is_shared = table == inner.collection.points();
        let version = if is_shared { ", version = default" } else { "" };
        let mut facets = FacetColumns::default();
        let mut document_ids = Vec::with_capacity(facets_of.len());
        for (document_id, said) in facets_of {
            document_ids.push(document_id.0);
            facets.push(said);
        }
        let mut statement = tenant.statement(format!(
            "update {table} as point
                set language = said.language, published = said.published, tags = said.tags::text[], groups = said.groups::text[]{version}
               from unnest("
        ));
        let columns = [
            statement.bind(document_ids),
            statement.bind(facets.languages),
            statement.bind(facets.dates),
            statement.bind(facets.tags),
            statement.bind(facets.groups),
        ];
        statement.push(&columns.join(", "));
        statement.push(
            ") as said (document_id, language, published, tags, groups)
              where point.tenant_id = $1
                and point.document_id = said.document_id
                and (point.language, point.published, point.tags, point.groups)
                    is distinct from (said.language, said.published, said.tags::text[], said.groups::text[])",
        );
        tenant.execute(statement).await?;
    }
    Ok(())
}
