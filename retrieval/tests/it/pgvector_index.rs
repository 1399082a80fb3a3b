//! The index in PostgreSQL: the rules of all backends, and what is its own. Needs the server that `scripts/with-postgres`
//! starts; without one these tests say so and have nothing to run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use retrieval::ChunkId;
use retrieval::index::{
    Facets, Filter, Index, IndexError, PgvectorIndex, PgvectorOptions, PgvectorTuning, Point, SearchQuery,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::conformance;
use crate::samples::{
    DIMENSION, all_sources, by_vector, by_words, chunk, document, found, point, source, tenant, vector,
};

/// Names a PostgreSQL server whose login may create databases. `scripts/with-postgres` sets it.
const SERVER_VARIABLE: &str = "FRONTDESK_TEST_POSTGRES_URL";

/// Points move to their tenant's own table as soon as there are some.
pub(crate) const EAGER: PgvectorTuning = PgvectorTuning {
    own_table_from: 60,
    move_from: 5,
    rest: Duration::ZERO,
    facets_in_place: 3,
};

/// An empty database for one test; `None`, said aloud, where there is no server.
pub(crate) async fn database() -> Option<String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let Some(server) = server() else {
        eprintln!("LEFT OUT: {SERVER_VARIABLE} names no server; scripts/with-postgres starts one");
        return None;
    };
    let name = format!(
        "index_{}_{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    run(&server, &format!("drop database if exists {name}")).await;
    run(&server, &format!("create database {name}")).await;
    let mut url = url::Url::parse(&server).expect("the server's address is a URL");
    url.set_path(&name);
    Some(url.into())
}

#[expect(
    clippy::disallowed_methods,
    reason = "how the tests' own script tells where the server is"
)]
fn server() -> Option<String> {
    std::env::var(SERVER_VARIABLE).ok().filter(|url| !url.is_empty())
}

pub(crate) async fn run(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    connection
        .execute(AssertSqlSafe(statement.to_owned()))
        .await
        .expect("carried out");
    connection.close().await.expect("closed");
}

pub(crate) async fn number(url: &str, query: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.expect("the server answers");
    sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
        .fetch_one(&mut connection)
        .await
        .expect("a number")
}

pub(crate) fn options(url: &str) -> PgvectorOptions<'_> {
    PgvectorOptions {
        url,
        model_id: Some("test-model"),
        dimension: Some(DIMENSION),
        halfvec: false,
        m: 16,
        ef_construction: 64,
        ef_search: 200,
        build_memory_mb: 64,
        max_connections: 5,
    }
}

pub(crate) async fn open(url: &str) -> PgvectorIndex {
    PgvectorIndex::open(options(url))
        .await
        .expect("a healthy database")
}

pub(crate) async fn open_eager(url: &str) -> PgvectorIndex {
    PgvectorIndex::open_tuned(options(url), EAGER)
        .await
        .expect("a healthy database")
}

/// How often searches went by this index.
pub(crate) async fn scans(url: &str, index: &str) -> i64 {
    let query = format!("select idx_scan from pg_stat_user_indexes where indexrelname = '{index}'");
    number(url, &query).await
}

/// Until the tenant's points are all in its own table, with its graph.
pub(crate) async fn moved(url: &str) {
    // Of 100,000 on a machine that does other things: minutes.
    for _ in 0..6_000 {
        let left = number(
            url,
            "select count(*) from frontdesk_index.c1_tenant where fresh > 0 or not owns",
        )
        .await;
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("points stay in the shared table");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_rules_of_all_backends() {
    let Some(url) = database().await else { return };

    conformance::all(Arc::new(open(&url).await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_them_while_points_move_to_tables_of_their_tenants_own() {
    let Some(url) = database().await else { return };

    conformance::all(Arc::new(open_eager(&url).await)).await;

    let owning = "select count(*) from frontdesk_index.c1_tenant where owns";
    assert!(
        number(&url, owning).await > 0,
        "some tenants have enough points for a table of their own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_them_at_half_precision() {
    let Some(url) = database().await else { return };
    let halfvec = PgvectorOptions {
        halfvec: true,
        ..options(&url)
    };

    let index = PgvectorIndex::open_tuned(halfvec, EAGER).await.expect("opened");
    let points = (0..500).map(|n| point(n, &format!("text number {n}")));
    index.upsert(tenant(1), points.collect()).await.expect("stored");
    moved(&url).await;

    for n in 0..20 {
        assert_eq!(
            found(&index, tenant(1), by_vector(vector(n))).await[0],
            chunk(n.into())
        );
    }
    assert_eq!(found(&index, tenant(1), by_words("number 7")).await[0], chunk(7));
    index.delete_tenant(tenant(1)).await.expect("deleted");
    conformance::all(Arc::new(index)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_finds_the_nearest_of_100_000() {
    let Some(url) = database().await else { return };

    let index = Arc::new(open(&url).await);

    conformance::at_100_000_chunks(index.clone(), async || moved(&url).await).await;

    index.close().await.expect("closed");
    let by_graph = scans(&url, "c1_own1_vector").await;
    assert!(
        by_graph >= 50,
        "{by_graph} of the questions went through the graph"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_tenants_finds_all_that_is_nearest() {
    let Some(url) = database().await else { return };
    let index = open(&url).await;
    let tenants: Vec<_> = (0..200).map(tenant).collect();
    for (t, tenant_id) in (0..).zip(&tenants) {
        let points = (0..40).map(|n| point(t * 40 + n, "any"));
        index.upsert(*tenant_id, points.collect()).await.expect("stored");
    }

    for t in (0..200).step_by(17) {
        let asked = vector(77_000 + t);
        let mut nearest: Vec<(f32, ChunkId)> = (t * 40..t * 40 + 40)
            .map(|n| {
                (
                    vector(n).iter().zip(&asked).map(|(a, b)| a * b).sum(),
                    chunk(n.into()),
                )
            })
            .collect();
        nearest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let expected: Vec<ChunkId> = nearest[..10].iter().map(|(_, id)| *id).collect();
        assert_eq!(found(&index, tenant(t.into()), by_vector(asked)).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_its_own_answers_as_the_shared_one_does() {
    let Some(url) = database().await else { return };
    let topics = [
        "refund",
        "delivery",
        "guarantee",
        "repair",
        "invoice",
        "catalogue",
        "opening hours",
    ];
    let text = |n: u64| {
        let topic = topics[usize::try_from(n * n % 7).expect("small")];
        format!(
            "our {topic} of goods number {n} {}",
            "goods ".repeat(usize::try_from(n % 5).expect("small"))
        )
    };
    let points = |range: std::ops::Range<u64>| range.map(|n| point(n, &text(n))).collect::<Vec<Point>>();
    let index = open(&url).await;
    index.upsert(tenant(1), points(0..900)).await.expect("stored");
    let questions: Vec<SearchQuery> = (0..30)
        .map(|n| SearchQuery {
            vector: Some(vector(n * 31)),
            ..by_words(&format!(
                "{} number {n} of goods",
                topics[usize::try_from(n % 7).expect("small")]
            ))
        })
        .chain([
            by_words("goods"),
            by_words("our goods number"),
            by_vector(vector(5)),
        ])
        .chain([
            SearchQuery {
                filter: Filter {
                    sources: vec![source(3)],
                    ..all_sources()
                },
                ..by_vector(vector(9))
            },
            SearchQuery {
                filter: Filter {
                    documents: Some(vec![document(44)]),
                    ..all_sources()
                },
                vector: Some(vector(8)),
                ..by_words("goods")
            },
        ])
        .collect();
    let answers = async |index: &PgvectorIndex| {
        let mut answers = Vec::new();
        for question in &questions {
            let mut hits = index
                .search(tenant(1), question.clone())
                .await
                .expect("hits")
                .hits;
            hits.sort_by_key(|hit| hit.chunk_id);
            answers.push(hits);
        }
        answers
    };
    let shared = answers(&index).await;
    index.close().await.expect("closed");

    let index = open_eager(&url).await;
    moved(&url).await;

    assert_eq!(answers(&index).await, shared);
    assert_eq!(index.count(tenant(1)).await.expect("a count"), 900);
    assert_eq!(
        index.list(tenant(1), None, 2_000).await.expect("a list").len(),
        900
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_points_move_is_not_lost() {
    let Some(url) = database().await else { return };
    let index = open_eager(&url).await;
    for round in 0..15 {
        let points = (round * 40..round * 40 + 40).map(|n| point(n, "first words"));
        index.upsert(tenant(1), points.collect()).await.expect("stored");
        index
            .upsert(tenant(1), vec![point(round * 40, "second words")])
            .await
            .expect("replaced");
        index
            .delete_chunks(tenant(1), vec![chunk(u128::from(round * 40 + 1))])
            .await
            .expect("deleted");
    }
    moved(&url).await;

    assert_eq!(index.count(tenant(1)).await.expect("a count"), 15 * 39);
    let query = SearchQuery {
        limit: 1_000,
        ..by_words("second")
    };
    let mut replaced = found(&index, tenant(1), query).await;
    replaced.sort_unstable();
    assert_eq!(
        replaced,
        (0..15).map(|round| chunk(round * 40)).collect::<Vec<_>>()
    );
    let query = SearchQuery {
        limit: 1_000,
        ..by_words("first")
    };
    assert_eq!(found(&index, tenant(1), query).await.len(), 15 * 38);
    let left = "select count(*) from frontdesk_index.c1_term where chunks <= 0";
    assert_eq!(number(&url, left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_facets_of_many_points_do_not_wait_for_the_graph() {
    let Some(url) = database().await else { return };
    let index = PgvectorIndex::open_tuned(
        options(&url),
        PgvectorTuning {
            move_from: 100,
            ..EAGER
        },
    );
    let index = index.await.expect("opened");
    let points = (0..200).map(|n| point(n, "goods"));
    index.upsert(tenant(1), points.collect()).await.expect("stored");
    moved(&url).await;
    let few = (51..58).map(chunk).collect();
    index.delete_chunks(tenant(1), few).await.expect("deleted");
    let tagged = Facets {
        tags: vec!["sale".to_owned()],
        ..Facets::default()
    };
    let beside = "select fresh from frontdesk_index.c1_tenant";

    let mut points_beside = Vec::new();
    for id in [4, 4, 5] {
        let facets = vec![(document(id), tagged.clone())];
        index.set_facets(tenant(1), facets).await.expect("said");
        points_beside.push(number(&url, beside).await);
    }

    assert_eq!(
        points_beside,
        [10, 10, 10],
        "the few of the last are said where they are"
    );
    let on_sale = SearchQuery {
        filter: Filter {
            tags: Some(vec!["sale".to_owned()]),
            ..all_sources()
        },
        limit: 100,
        ..by_words("goods")
    };
    assert_eq!(found(&index, tenant(1), on_sale.clone()).await.len(), 13);
    index.close().await.expect("closed");
    let index = open_eager(&url).await;
    moved(&url).await;
    assert_eq!(found(&index, tenant(1), on_sale).await.len(), 13);
    assert_eq!(index.count(tenant(1)).await.expect("a count"), 193);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_equal_what_is_stored_after_every_kind_of_change() {
    let Some(url) = database().await else { return };
    let index = open_eager(&url).await;
    let points = (0..200).map(|n| point(n, &format!("word{} common", n % 20)));
    index.upsert(tenant(1), points.collect()).await.expect("stored");
    moved(&url).await;
    index
        .upsert(tenant(1), (0..4).map(|n| point(n, "changed common")).collect())
        .await
        .expect("replaced");
    index
        .delete_chunks(tenant(1), vec![chunk(11), chunk(12)])
        .await
        .expect("deleted");
    index
        .delete_documents(tenant(1), vec![document(5)])
        .await
        .expect("deleted");
    index
        .delete_sources(tenant(1), vec![source(1)])
        .await
        .expect("deleted");

    let differing = "with stored as (
             select lexeme::integer as term
               from (select words from frontdesk_index.c1_own1_rows union all select words from frontdesk_index.c1_point) as stored,
                    unnest(tsvector_to_array(frontdesk_index.lexemes_of(words))) as lexeme
         ), counted as (select term, count(*) as chunks from stored group by term)
         select count(*) from counted full join frontdesk_index.c1_term using (term)
          where counted.chunks is distinct from c1_term.chunks";
    assert_eq!(number(&url, differing).await, 0);
    let told = number(&url, "select chunks from frontdesk_index.c1_tenant").await;
    assert_eq!(index.count(tenant(1)).await.expect("a count").cast_signed(), told);
    assert_eq!(told, 100 - 2 - 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_are_one_index() {
    let Some(url) = database().await else { return };
    let (writer, reader) = tokio::join!(open_eager(&url), open_eager(&url));
    assert_eq!(writer.generation(), reader.generation());
    let batches = (0..10).map(|batch| {
        let index = if batch % 2 == 0 { &writer } else { &reader };
        index.upsert(
            tenant(1),
            (batch * 30..batch * 30 + 30)
                .map(|n| point(n, "shared words"))
                .collect(),
        )
    });
    for stored in futures::future::join_all(batches).await {
        stored.expect("stored");
    }
    moved(&url).await;

    for index in [&writer, &reader] {
        assert_eq!(index.count(tenant(1)).await.expect("a count"), 300);
        assert_eq!(
            found(index, tenant(1), by_vector(vector(155))).await[0],
            chunk(155)
        );
    }
    writer.delete_tenant(tenant(1)).await.expect("deleted");
    assert_eq!(found(&reader, tenant(1), by_words("shared")).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_without_a_model_finds_by_words() {
    let Some(url) = database().await else { return };
    let wordy = PgvectorOptions {
        model_id: None,
        dimension: None,
        ..options(&url)
    };
    let index = PgvectorIndex::open_tuned(wordy, EAGER).await.expect("opened");
    let points = (0..80).map(|n| Point {
        vector: None,
        ..point(n, &format!("goods number {n}"))
    });
    index.upsert(tenant(1), points.collect()).await.expect("stored");
    moved(&url).await;

    assert_eq!(
        found(&index, tenant(1), by_words("number 42")).await[0],
        chunk(42)
    );
    let refused = index.upsert(tenant(1), vec![point(1, "goods")]).await;
    assert!(matches!(refused, Err(IndexError::Refused { .. })));
}
