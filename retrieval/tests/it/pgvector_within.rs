//! The index in PostgreSQL as a part of its caller's transactions: points and rows hold together, are seen together and are lost
//! together. Needs the server that `scripts/with-postgres` starts, as [`crate::pgvector_index`] does.

use std::collections::BTreeSet;
use std::time::Duration;

use retrieval::index::{Facets, Index, IndexChange, IndexError, PgvectorIndex, Point};
use retrieval::{ChunkId, TenantId};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::pgvector_index::{EAGER, database, number, open, open_eager, options, run};
use crate::samples::{by_words, chunk, document, found, point, source, tenant};

/// Who writes rows: a role that may not touch the index, as a service's own is.
const ROWS: &str = "
    do $$ begin
        create role rows_of_within nologin;
    exception when duplicate_object or unique_violation then null;
    end $$;
    create table kept (tenant_id uuid not null, chunk_id uuid not null, primary key (tenant_id, chunk_id));
    grant select, insert, delete on kept to rows_of_within";

/// A database with rows and an index; none where there is no server.
async fn beside_rows(open: impl AsyncFnOnce(&str) -> PgvectorIndex) -> Option<(String, PgvectorIndex)> {
    let url = database().await?;
    let index = open(&url).await;
    run(&url, ROWS).await;
    Some((url, index))
}

/// A connection whose statements are those of the rows.
async fn rows(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    connection
        .execute("set role rows_of_within")
        .await
        .expect("a role");
    connection
}

async fn insert_row(connection: &mut PgConnection, tenant_id: TenantId, chunk_id: ChunkId) {
    sqlx::query("insert into kept (tenant_id, chunk_id) values ($1, $2)")
        .bind(tenant_id.0)
        .bind(chunk_id.0)
        .execute(connection)
        .await
        .expect("a row");
}

async fn delete_row(connection: &mut PgConnection, tenant_id: TenantId, chunk_id: ChunkId) {
    sqlx::query("delete from kept where tenant_id = $1 and chunk_id = $2")
        .bind(tenant_id.0)
        .bind(chunk_id.0)
        .execute(connection)
        .await
        .expect("deleted");
}

async fn apply(
    index: &PgvectorIndex,
    connection: &mut PgConnection,
    tenant_id: TenantId,
    changes: Vec<IndexChange>,
) -> Result<retrieval::index::AfterCommit, IndexError> {
    let within = index.within_transactions().expect("it lies in a database");
    within.apply(connection, tenant_id, changes).await
}

fn upsert(numbers: std::ops::Range<u64>, text: &str) -> IndexChange {
    IndexChange::Upsert(numbers.map(|n| point(n, text)).collect())
}

async fn points_and_rows(index: &PgvectorIndex, url: &str) -> (u64, i64) {
    let points = index.count(tenant(1)).await.expect("a count");
    (points, number(url, "select count(*) from kept").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn points_hold_with_the_commit_of_their_rows_and_go_with_its_absence() {
    let Some((url, index)) = beside_rows(open).await else {
        return;
    };
    let mut connection = rows(&url).await;

    let mut transaction = connection.begin().await.expect("begun");
    insert_row(&mut transaction, tenant(1), chunk(1)).await;
    let _ = apply(&index, &mut transaction, tenant(1), vec![upsert(1..2, "goods")])
        .await
        .expect("applied");
    transaction.rollback().await.expect("rolled back");
    assert_eq!(points_and_rows(&index, &url).await, (0, 0));

    let mut transaction = connection.begin().await.expect("begun");
    let applied = apply(&index, &mut transaction, tenant(1), vec![upsert(1..2, "goods")]).await;
    // Rows go on after the points, in the same transaction.
    insert_row(&mut transaction, tenant(1), chunk(1)).await;
    assert_eq!(points_and_rows(&index, &url).await, (0, 0), "nobody sees it yet");
    transaction.commit().await.expect("committed");
    applied.expect("applied").tell();

    assert_eq!(points_and_rows(&index, &url).await, (1, 1));
    assert_eq!(found(&index, tenant(1), by_words("goods")).await, [chunk(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_ended_in_between_leaves_neither_point_nor_row() {
    let Some((url, index)) = beside_rows(open).await else {
        return;
    };
    let mut connection = rows(&url).await;
    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut connection)
        .await
        .expect("its number");

    let mut transaction = connection.begin().await.expect("begun");
    insert_row(&mut transaction, tenant(1), chunk(1)).await;
    let _ = apply(&index, &mut transaction, tenant(1), vec![upsert(1..40, "goods")])
        .await
        .expect("applied");
    run(&url, &format!("select pg_terminate_backend({backend}, 10000)")).await;

    assert!(transaction.commit().await.is_err(), "nobody is there to commit");
    assert_eq!(points_and_rows(&index, &url).await, (0, 0));
    index
        .upsert(tenant(1), vec![point(1, "goods")])
        .await
        .expect("its lock has gone with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_has_each_point_with_its_row_while_others_write() {
    let Some(url) = database().await else { return };
    /// When everybody has written.
    const AT_LAST: usize = 80;
    let index = PgvectorIndex::open_tuned(options(&url), EAGER)
        .await
        .expect("opened");
    run(&url, ROWS).await;
    let write = async |first: u64| {
        let mut connection = rows(&url).await;
        for n in first..first + 60 {
            let mut transaction = connection.begin().await.expect("begun");
            insert_row(&mut transaction, tenant(1), chunk(n.into())).await;
            let mut changes = vec![upsert(n..n + 1, "goods")];
            if n % 3 == 2 {
                delete_row(&mut transaction, tenant(1), chunk(u128::from(n - 1))).await;
                changes.push(IndexChange::DeleteChunks(vec![chunk(u128::from(n - 1))]));
            }
            let applied = apply(&index, &mut transaction, tenant(1), changes).await;
            transaction.commit().await.expect("committed");
            applied.expect("applied").tell();
        }
    };
    let read = async || {
        let mut connection = PgConnection::connect(&url).await.expect("the server answers");
        let set = format!("set frontdesk_index.tenant_id = '{}'", tenant(1));
        connection.execute(AssertSqlSafe(set)).await.expect("set");
        let mut seen = BTreeSet::new();
        while seen.last() != Some(&AT_LAST) {
            let mut transaction = connection
                .begin_with("begin isolation level repeatable read read only")
                .await
                .expect("begun");
            let kept: Vec<Uuid> = sqlx::query_scalar("select chunk_id from kept order by 1")
                .fetch_all(&mut *transaction)
                .await
                .expect("rows");
            let own: bool = sqlx::query_scalar("select to_regclass('frontdesk_index.c1_own1') is not null")
                .fetch_one(&mut *transaction)
                .await
                .expect("an answer");
            let own = if own {
                "union all select chunk_id from frontdesk_index.c1_own1"
            } else {
                ""
            };
            let points: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(format!(
                "select chunk_id from frontdesk_index.c1_point {own} order by 1"
            )))
            .fetch_all(&mut *transaction)
            .await
            .expect("points");
            transaction.rollback().await.expect("ended");
            assert_eq!(points, kept);
            seen.insert(kept.len());
        }
        seen.len()
    };

    let ((), (), snapshots) = tokio::join!(write(0), write(1_000), read());

    assert!(snapshots > 1, "it was looked at while it changed");
    assert_eq!(points_and_rows(&index, &url).await, (80, 80));
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_one_tenant_and_the_moving_of_its_points_wait_for_each_other_in_one_order() {
    let Some((url, index)) = beside_rows(open_eager).await else {
        return;
    };
    let write = async |first: u64| {
        let mut connection = rows(&url).await;
        for batch in 0..12 {
            let from = first + batch * 10;
            let mut transaction = connection.begin().await.expect("begun");
            for n in from..from + 10 {
                insert_row(&mut transaction, tenant(1), chunk(n.into())).await;
            }
            let changes = vec![
                upsert(from..from + 10, "goods"),
                IndexChange::SetFacets(vec![(document(from.into()), Facets::default())]),
                IndexChange::DeleteChunks(vec![chunk(from.into())]),
            ];
            delete_row(&mut transaction, tenant(1), chunk(from.into())).await;
            let applied = apply(&index, &mut transaction, tenant(1), changes).await;
            transaction.commit().await.expect("committed");
            applied.expect("nobody was given up").tell();
        }
    };

    let all = async { tokio::join!(write(0), write(1_000), write(2_000), write(3_000)) };
    tokio::time::timeout(Duration::from_secs(300), all)
        .await
        .expect("nobody waits for ever");

    assert_eq!(points_and_rows(&index, &url).await, (432, 432));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_kinds_of_changes_are_carried_out_in_their_order_and_for_their_tenant_alone() {
    let Some((url, index)) = beside_rows(open).await else {
        return;
    };
    for tenant_id in [tenant(1), tenant(2)] {
        let points = (0..100).map(|n| point(n, "goods"));
        index.upsert(tenant_id, points.collect()).await.expect("stored");
    }
    let mut connection = rows(&url).await;

    let mut transaction = connection.begin().await.expect("begun");
    let changes = vec![
        IndexChange::Upsert((200..204).map(|n| point(n, "news")).collect::<Vec<Point>>()),
        IndexChange::DeleteChunks(vec![chunk(200), chunk(0)]),
        IndexChange::DeleteDocuments(vec![document(5)]),
        IndexChange::DeleteSources(vec![source(1)]),
    ];
    let applied = apply(&index, &mut transaction, tenant(1), changes).await;
    transaction.commit().await.expect("committed");
    applied.expect("applied").tell();

    let plain = open(&url).await;
    plain
        .upsert(tenant(3), (0..100).map(|n| point(n, "goods")).collect())
        .await
        .expect("stored");
    plain
        .upsert(tenant(3), (200..204).map(|n| point(n, "news")).collect())
        .await
        .expect("stored");
    plain
        .delete_chunks(tenant(3), vec![chunk(200), chunk(0)])
        .await
        .expect("deleted");
    plain
        .delete_documents(tenant(3), vec![document(5)])
        .await
        .expect("deleted");
    plain
        .delete_sources(tenant(3), vec![source(1)])
        .await
        .expect("deleted");
    let listed = async |tenant_id| index.list(tenant_id, None, 1_000).await.expect("a list");
    assert_eq!(listed(tenant(1)).await, listed(tenant(3)).await);
    assert_eq!(listed(tenant(2)).await.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_the_transaction_is_the_rows_own_again() {
    let Some((url, index)) = beside_rows(open).await else {
        return;
    };
    let mut connection = rows(&url).await;
    let mut transaction = connection.begin().await.expect("begun");
    transaction
        .execute("set local frontdesk_index.tenant_id = ''")
        .await
        .expect("set");

    let applied = apply(&index, &mut transaction, tenant(1), vec![upsert(1..2, "goods")]).await;

    let (role, tenant_id): (String, String) =
        sqlx::query_as("select current_user::text, current_setting('frontdesk_index.tenant_id')")
            .fetch_one(&mut *transaction)
            .await
            .expect("settings");
    assert_eq!((role.as_str(), tenant_id.as_str()), ("rows_of_within", ""));
    insert_row(&mut transaction, tenant(1), chunk(1)).await;
    let reached = transaction.execute("select from frontdesk_index.c1_point").await;
    assert!(reached.is_err(), "points are not for the role of the rows");
    transaction.rollback().await.expect("rolled back");
    let _ = applied.expect("applied");
    assert_eq!(points_and_rows(&index, &url).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_of_another_model_is_refused_before_anything_is_written() {
    let Some((url, index)) = beside_rows(open).await else {
        return;
    };
    let mut connection = rows(&url).await;
    let mut transaction = connection.begin().await.expect("begun");
    let short = Point {
        vector: Some(vec![1.0, 2.0]),
        ..point(2, "goods")
    };

    let changes = vec![upsert(1..2, "goods"), IndexChange::Upsert(vec![short])];
    let refused = apply(&index, &mut transaction, tenant(1), changes).await;

    assert!(matches!(refused, Err(IndexError::DimensionMismatch { .. })));
    insert_row(&mut transaction, tenant(1), chunk(1)).await;
    transaction.commit().await.expect("nothing had happened");
    assert_eq!(points_and_rows(&index, &url).await, (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_came_with_rows_move_to_a_table_of_the_tenants_own() {
    let Some((url, index)) = beside_rows(open_eager).await else {
        return;
    };
    let mut connection = rows(&url).await;
    let mut transaction = connection.begin().await.expect("begun");
    let applied = apply(&index, &mut transaction, tenant(1), vec![upsert(0..80, "goods")]).await;
    transaction.commit().await.expect("committed");
    applied.expect("applied").tell();

    crate::pgvector_index::moved(&url).await;

    assert_eq!(index.count(tenant(1)).await.expect("a count"), 80);
}
