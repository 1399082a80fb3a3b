//! Points put in, and what is said of their documents changed. Each call is one transaction; those of one tenant wait for
//! each other.

use std::collections::HashMap;

use super::Inner;
use super::delete::remove;
use super::home::{Home, TermChanges};
use super::stored::{FacetColumns, PreparedPoint, bind_vectors, prepare};
use super::tenant::TenantTransaction;
use crate::index::{Facets, IndexError, Point};
use crate::{DocumentId, TenantId};

/// Points of one statement.
const POINTS_AT_ONCE: usize = 500;

pub(super) async fn upsert(inner: &Inner, tenant_id: TenantId, points: Vec<Point>) -> Result<(), IndexError> {
    if points.is_empty() {
        return Ok(());
    }
    let (points, facets_of) = prepare(&inner.collection.layout, points)?;
    let mut tenant = TenantTransaction::write(&inner.pool, tenant_id).await?;
    let mut home = Home::make_and_lock(&mut tenant, &inner.collection).await?;
    let was_empty = home.chunks == 0;
    let mut terms = TermChanges::default();
    let mut points = points.into_iter().peekable();
    while points.peek().is_some() {
        let batch: Vec<PreparedPoint> = points.by_ref().take(POINTS_AT_ONCE).collect();
        if !was_empty {
            let ids = batch.iter().map(|point| point.chunk_id.0).collect();
            remove(
                &mut tenant,
                &inner.collection,
                &mut home,
                "chunk_id",
                ids,
                &mut terms,
            )
            .await?;
        }
        batch.iter().for_each(|point| terms.add(&point.words));
        let count = i64::try_from(batch.len()).expect("a batch is small");
        insert(inner, &mut tenant, batch, &facets_of).await?;
        home.chunks += count;
        home.fresh += count;
    }
    if !was_empty {
        say_of_documents(inner, &mut tenant, &home, &facets_of).await?;
    }
    terms.save(&mut tenant, &inner.collection).await?;
    home.save(&mut tenant, &inner.collection).await?;
    tenant.commit().await?;
    inner.movers.notice(tenant_id, &home);
    Ok(())
}

pub(super) async fn set_facets(
    inner: &Inner,
    tenant_id: TenantId,
    facets: Vec<(DocumentId, Facets)>,
) -> Result<(), IndexError> {
    let facets = facets
        .into_iter()
        .map(|(document_id, facets)| (document_id, facets.in_order()));
    let facets_of: HashMap<DocumentId, Facets> = facets.collect();
    let mut tenant = TenantTransaction::write(&inner.pool, tenant_id).await?;
    let Some(home) = Home::lock(&mut tenant, &inner.collection).await? else {
        return Ok(());
    };
    say_of_documents(inner, &mut tenant, &home, &facets_of).await?;
    tenant.commit().await
}

async fn insert(
    inner: &Inner,
    tenant: &mut TenantTransaction,
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
    tenant: &mut TenantTransaction,
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
