//! The background work of the index in PostgreSQL, which gives large tenants a table of their own, while others are at it.

use std::time::Duration;

use retrieval::index::{Index, PgvectorIndex, PgvectorOptions, Point};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::pgvector_index::{EAGER, database, moved, number, open_eager, options};
use crate::samples::{by_words, chunk, found, point, tenant};

/// Processes that look after a tenant.
const AT_WORK: &str = "select count(*) from pg_locks where locktype = 'advisory' and granted
                          and database = (select oid from pg_database where datname = current_database())";

fn goods(count: u64) -> Vec<Point> {
    (0..count).map(|n| point(n, "goods")).collect()
}

async fn until(url: &str, count: i64) {
    for _ in 0..1_200 {
        if number(url, AT_WORK).await == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing changes any more");
}

/// Another transaction that is making the same table: who wants to make it waits until this ends.
async fn in_the_way(url: &str, table: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    let text = format!("begin; create table frontdesk_index.{table} ()");
    connection.execute(AssertSqlSafe(text)).await.expect("made");
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_another_process_looked_after_and_did_not_finish_is_looked_after_again() {
    let Some(url) = database().await else { return };
    let mut in_the_way = in_the_way_of_the_first(&url).await;
    let (stuck, index) = (open_eager(&url).await, open_eager(&url).await);
    stuck.upsert(tenant(1), goods(80)).await.expect("stored");
    until(&url, 1).await;

    // This one is told of the same points, and finds the other at it.
    index.upsert(tenant(1), goods(81)).await.expect("stored");
    tokio::time::sleep(Duration::from_millis(500)).await;
    stuck.close().await.expect("closed");
    in_the_way.execute("rollback").await.expect("out of the way");

    moved(&url).await;
    assert_eq!(index.count(tenant(1)).await.expect("a count"), 81);
}

/// Tables are there before something stands in their way.
async fn in_the_way_of_the_first(url: &str) -> PgConnection {
    open_eager(url).await.close().await.expect("closed");
    in_the_way(url, "c1_own1_rows").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_deleted_and_begun_again_meanwhile_does_not_get_the_table_of_the_former() {
    let Some(url) = database().await else { return };
    let mut in_the_way = in_the_way_of_the_first(&url).await;
    let index = open_eager(&url).await;
    index.upsert(tenant(1), goods(80)).await.expect("stored");
    until(&url, 1).await;

    index.delete_tenant(tenant(1)).await.expect("deleted");
    index.upsert(tenant(1), goods(10)).await.expect("stored");
    in_the_way.execute("rollback").await.expect("out of the way");
    until(&url, 0).await;

    index.check().await.expect("nothing is missed");
    assert_eq!(index.count(tenant(1)).await.expect("a count"), 10);
    assert!(
        found(&index, tenant(1), by_words("goods"))
            .await
            .contains(&chunk(9))
    );
    let left = "select count(*) from pg_class where relname like 'c1\\_own%'";
    assert_eq!(number(&url, left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_of_two_models_are_looked_after_side_by_side() {
    let Some(url) = database().await else { return };
    let mut in_the_way = in_the_way_of_the_first(&url).await;
    // The first has something in its way.
    let first = open_eager(&url).await;
    first.upsert(tenant(1), goods(80)).await.expect("stored");
    until(&url, 1).await;

    let other = PgvectorOptions {
        model_id: Some("other-model"),
        ..options(&url)
    };
    let other = PgvectorIndex::open_tuned(other, EAGER).await.expect("opened");
    other.upsert(tenant(1), goods(80)).await.expect("stored");

    let which = "select number::bigint from frontdesk_index.collection where name like 'other-model%'";
    let which = number(&url, which).await;
    let of_the_other =
        format!("select count(*) from frontdesk_index.c{which}_tenant where owns and fresh = 0");
    for _ in 0..1_200 {
        if number(&url, &of_the_other).await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(number(&url, &of_the_other).await, 1);
    assert_eq!(number(&url, AT_WORK).await, 1, "the first still waits");
    in_the_way.execute("rollback").await.expect("out of the way");
    moved(&url).await;
}
