//! The server backend: the rules of every backend, and what a server can do to us. The server is a stand-in
//! (`qdrant_server`): no real one can be run where these tests run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use retrieval::ChunkId;
use retrieval::index::{
    Index, IndexError, Point, QdrantIndex, QdrantOptions, QdrantTuning, Quantisation, ReadConsistency,
    SearchQuery, WriteOrdering,
};
use tonic::Code;

use crate::conformance;
use crate::qdrant_server::QdrantServer;
use crate::samples::{DIMENSION, all_sources, by_vector, by_words, chunk, found, point, tenant, vector};

fn options(server: &QdrantServer) -> QdrantOptions {
    QdrantOptions {
        url: server.url(),
        api_key: None,
        model_id: Some("test/model".to_owned()),
        dimension: Some(DIMENSION),
        tuning: QdrantTuning {
            read_timeout: Duration::from_secs(3),
            write_timeout: Duration::from_secs(20),
            start_timeout: Duration::ZERO,
            ..QdrantTuning::default()
        },
    }
}

async fn open(server: &QdrantServer) -> QdrantIndex {
    QdrantIndex::open(options(server)).await.expect("a usable server")
}

fn both(text: &str, n: u64) -> SearchQuery {
    SearchQuery {
        vector: Some(vector(n)),
        ..by_words(text)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_rules_of_every_backend() {
    let server = QdrantServer::start().await;

    conformance::all(Arc::new(open(&server).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_them_with_every_setting_and_with_shards_of_tenants_own() {
    let server = QdrantServer::start_with_key(Some("secret")).await;
    let mut options = options(&server);
    options.api_key = Some("secret".to_owned());
    options.tuning = QdrantTuning {
        replication_factor: 2,
        write_consistency_factor: 2,
        read_consistency: ReadConsistency::Majority,
        write_ordering: WriteOrdering::Strong,
        vectors_on_disk: true,
        quantisation: Quantisation::Scalar,
        search_width: Some(128),
        promote_from_chunks: Some(100),
        ..options.tuning
    };

    conformance::all(Arc::new(
        QdrantIndex::open(options).await.expect("a usable server"),
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes in a debug build"]
async fn it_finds_the_nearest_of_100_000_through_graphs() {
    let server = QdrantServer::start().await;
    let mut options = options(&server);
    options.tuning.write_timeout = Duration::from_secs(600);
    options.tuning.read_timeout = Duration::from_secs(600);
    let index = QdrantIndex::open(options).await.expect("a usable server");

    conformance::at_100_000_chunks(Arc::new(index), async || ()).await;

    let in_graphs = server.state.vectors_in_graphs();
    assert!(
        in_graphs > 100_000,
        "{in_graphs} vectors in graphs: the test measures too little"
    );
}

#[tokio::test]
async fn both_sides_are_asked_in_one_call() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    index
        .upsert(
            tenant(1),
            (0..20).map(|n| point(n, "goods may be returned")).collect(),
        )
        .await
        .expect("stored");
    let before = server.state.calls("query_batch");

    let found = index
        .search(tenant(1), both("returned goods", 3))
        .await
        .expect("an answer");

    assert_eq!(server.state.calls("query_batch") - before, 1);
    assert!(
        found
            .hits
            .iter()
            .any(|hit| hit.similarity.is_some() && hit.keyword_score.is_some()),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_second_call_asks_for_the_parts_of_a_code_that_no_point_has() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    let points = vec![point(1, "headphones WH-1000XM5"), point(2, "headphones XM4")];
    index.upsert(tenant(1), points).await.expect("stored");

    for (question, expected, calls) in [
        ("XM4", chunk(2), 1),
        ("1000XM5", chunk(1), 1),
        ("XM5", chunk(1), 2),
    ] {
        let before = server.state.calls("query_batch");
        let query = SearchQuery {
            vector: None,
            ..both(question, 3)
        };
        let found = found(&index, tenant(1), query).await;
        assert!(found.contains(&expected), "{question}: {found:?}");
        assert_eq!(server.state.calls("query_batch") - before, calls, "{question}");
    }
}

#[tokio::test]
async fn what_words_alone_found_has_its_similarity_too() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    let mut points: Vec<Point> = (0..30).map(|n| point(n, "opening hours")).collect();
    points[7].text = "warranty terms".to_owned();
    index.upsert(tenant(1), points).await.expect("stored");
    let query = SearchQuery {
        limit: 3,
        ..both("warranty", 20)
    };

    let found = index.search(tenant(1), query).await.expect("an answer");

    let by_words = found
        .hits
        .iter()
        .find(|hit| hit.chunk_id == chunk(7))
        .expect("has the word");
    let cosine: f32 = vector(7).iter().zip(vector(20)).map(|(a, b)| a * b).sum();
    assert!(by_words.keyword_score.expect("has the word") > 0.0);
    assert!((by_words.similarity.expect("compared") - cosine).abs() < 1e-4);
    assert_eq!(
        found.hits.len(),
        4,
        "three by meaning, one more by words: {found:?}"
    );
}

#[tokio::test]
async fn an_index_of_words_needs_no_vectors() {
    let server = QdrantServer::start().await;
    let index = QdrantIndex::open(QdrantOptions {
        model_id: None,
        dimension: None,
        ..options(&server)
    })
    .await
    .expect("a usable server");
    let words_only = Point {
        vector: None,
        ..point(1, "goods may be returned")
    };
    index.upsert(tenant(1), vec![words_only]).await.expect("stored");

    assert_eq!(found(&index, tenant(1), by_words("return")).await, [chunk(1)]);
    let with_vector = index.upsert(tenant(1), vec![point(2, "text")]).await;
    assert!(
        matches!(with_vector, Err(IndexError::Refused { .. })),
        "{with_vector:?}"
    );
}

#[tokio::test]
async fn all_points_are_listed_once_in_the_order_of_their_chunks() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    // Ids from both ends, so that they wrap somewhere for whatever tenant.
    let ids: Vec<ChunkId> = (0..40)
        .map(|n| ChunkId(uuid(u128::MAX / 40 * n + n)))
        .chain([ChunkId(uuid(0)), ChunkId(uuid(u128::MAX))])
        .collect();
    for tenant_id in (1..6).map(tenant) {
        let points = ids.iter().map(|id| Point {
            chunk_id: *id,
            ..point(1, "listed text")
        });
        index.upsert(tenant_id, points.collect()).await.expect("stored");
    }
    let mut expected = ids.clone();
    expected.sort_unstable();
    expected.dedup();

    for tenant_id in (1..6).map(tenant) {
        let mut listed = Vec::new();
        loop {
            let page = index
                .list(tenant_id, listed.last().copied(), 7)
                .await
                .expect("a page");
            assert!(page.len() <= 7);
            if page.is_empty() {
                break;
            }
            assert!(
                page.iter()
                    .all(|stored| stored.fingerprint == point(1, "listed text").fingerprint())
            );
            listed.extend(page.iter().map(|stored| stored.chunk_id));
        }
        assert_eq!(listed, expected);
    }
}

fn uuid(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

#[tokio::test]
async fn a_server_that_ignored_filters_would_still_not_let_tenants_touch() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    let (acme, globex) = (tenant(1), tenant(2));
    index
        .upsert(acme, vec![point(1, "common text")])
        .await
        .expect("stored");
    index
        .upsert(globex, (0..5).map(|n| point(n, "common text")).collect())
        .await
        .expect("stored");
    server.state.ignore_filters();

    assert_eq!(found(&index, acme, both("common", 2)).await, [chunk(1)]);
    assert_eq!(index.list(acme, None, 10).await.expect("a page").len(), 1);
}

#[tokio::test]
async fn a_passing_fault_is_waited_out() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    for code in [
        Code::Unavailable,
        Code::DeadlineExceeded,
        Code::ResourceExhausted,
        Code::Internal,
        // Writes are locked, or a shard is being moved.
        Code::FailedPrecondition,
    ] {
        server.state.faults.fail(2, code, None);
        index
            .upsert(tenant(1), vec![point(1, "kept text")])
            .await
            .expect("stored at last");
        server.state.faults.fail(2, code, None);
        assert_eq!(found(&index, tenant(1), by_words("kept")).await, [chunk(1)]);
    }
}

#[tokio::test]
async fn data_that_a_server_lost_is_no_fault_of_the_call_and_concerns_nobody_else() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    server.state.faults.fail(1, Code::DataLoss, None);

    let error = index.upsert(tenant(1), vec![point(1, "kept text")]).await;

    let error = error.expect_err("it is not stored");
    assert!(matches!(error, IndexError::Unavailable { .. }), "{error:?}");
    assert!(!error.concerns_everybody(), "{error:?}");
    assert_eq!(index.count(tenant(1)).await.expect("a count"), 0);
}

#[tokio::test]
async fn a_name_that_another_process_gave_anew_is_known_once_it_is_asked_for() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    let before = index.generation();
    let name = server.state.collection_names().remove(0);
    server.state.delete_collection(&name);
    index.look_up_generation().await.expect("an answer");
    assert_eq!(index.generation(), before, "nobody made it again");
    let again = open(&server).await;
    assert_eq!(index.generation(), before);

    index.look_up_generation().await.expect("an answer");

    assert_eq!(index.generation(), again.generation());
    assert_ne!(index.generation(), before);
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_it() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    server.state.faults.fail(1, Code::ResourceExhausted, Some(1));
    let started = Instant::now();

    index.count(tenant(1)).await.expect("counted after a pause");

    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    // Longer than the call may take: the answer is no, at once.
    server.state.faults.fail(1, Code::ResourceExhausted, Some(600));
    let started = Instant::now();
    let refused = index.count(tenant(1)).await;
    assert!(
        matches!(refused, Err(IndexError::Unavailable { .. })),
        "{refused:?}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable_in_bounded_time_and_used_again_when_it_is_back() {
    let mut server = QdrantServer::start().await;
    let index = open(&server).await;
    index
        .upsert(tenant(1), vec![point(1, "kept text")])
        .await
        .expect("stored");
    server.stop().await;

    let started = Instant::now();
    let asked = index.search(tenant(1), by_words("kept")).await;
    assert!(matches!(asked, Err(IndexError::Unavailable { .. })), "{asked:?}");
    assert!(matches!(index.check().await, Err(IndexError::Unavailable { .. })));
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );

    server.restart().await;
    assert_eq!(found(&index, tenant(1), by_words("kept")).await, [chunk(1)]);
    index.check().await.expect("ready again");
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_nobodys_own_failure_and_is_told_in_words() {
    let mut server = QdrantServer::start().await;
    let index = open(&server).await;
    let nobody_listens = format!("nobody listens at {}", server.url());
    server.stop().await;

    let failures = [
        index.search(tenant(1), by_words("kept")).await.err(),
        index.upsert(tenant(1), vec![point(1, "new text")]).await.err(),
        index.check().await.err(),
        QdrantIndex::open(options(&server)).await.err(),
    ];

    for failure in failures {
        let error = failure.expect("nobody is there");
        assert!(error.concerns_everybody(), "{error:?}");
        let told = error.to_string();
        assert!(told.ends_with(&nobody_listens), "{told}");
        assert!(!format!("{error:?}").contains("tonic"), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_unavailable_in_bounded_time() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    server.state.faults.delay(Duration::from_secs(60));
    let started = Instant::now();

    let asked = index.search(tenant(1), by_words("kept")).await;

    assert!(matches!(asked, Err(IndexError::Unavailable { .. })), "{asked:?}");
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn opening_waits_for_a_server_that_is_starting() {
    let mut server = QdrantServer::start().await;
    server.stop().await;
    let mut options = options(&server);
    options.tuning.start_timeout = Duration::from_secs(20);
    let opening = tokio::spawn(QdrantIndex::open(options));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!opening.is_finished());

    server.restart().await;

    opening
        .await
        .expect("no panic")
        .expect("opened when it was there");
}

#[tokio::test]
async fn a_wrong_key_is_said_to_be_one() {
    let server = QdrantServer::start_with_key(Some("right")).await;
    let started = Instant::now();
    for api_key in [None, Some("wrong".to_owned())] {
        let mut options = options(&server);
        options.tuning.start_timeout = Duration::from_secs(60);
        let error = QdrantIndex::open(QdrantOptions { api_key, ..options })
            .await
            .err()
            .expect("refused");
        assert!(
            matches!(&error, IndexError::Refused { reason } if reason.contains("API key")),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    }
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "waiting changes no key"
    );
}

#[tokio::test]
async fn a_server_too_old_to_keep_statistics_apart_is_refused() {
    let server = QdrantServer::start().await;
    server.state.set_version("1.18.2");

    let error = QdrantIndex::open(options(&server)).await.err().expect("refused");

    assert!(error.to_string().contains("1.19"), "{error}");
    assert_eq!(server.state.collection_names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_at_once_share_one_collection() {
    let server = QdrantServer::start().await;
    let opened = futures::future::join_all((0..6).map(|_| open(&server))).await;

    let generations: Vec<_> = opened.iter().map(|index| index.generation()).collect();

    assert_eq!(server.state.collection_names().len(), 1);
    assert!(generations[0].is_some());
    assert!(generations.iter().all(|generation| *generation == generations[0]));
    opened[0]
        .upsert(tenant(1), vec![point(1, "shared text")])
        .await
        .expect("stored");
    assert_eq!(found(&opened[5], tenant(1), by_words("shared")).await, [chunk(1)]);
}

#[tokio::test]
async fn a_collection_that_was_lost_is_noticed_and_made_again_under_another_name_of_its_making() {
    let server = QdrantServer::start().await;
    let index = open(&server).await;
    let name = server.state.collection_names().remove(0);
    server.state.delete_collection(&name);

    let checked = index.check().await.expect_err("not ready");
    assert!(
        checked.to_string().contains("a restart makes it again"),
        "{checked}"
    );
    let asked = index.search(tenant(1), by_words("anything")).await;
    assert!(matches!(asked, Err(IndexError::Unavailable { .. })), "{asked:?}");

    let again = open(&server).await;
    assert_eq!(server.state.collection_names(), [name]);
    assert_ne!(again.generation(), index.generation());
}

#[tokio::test]
async fn a_collection_of_former_rules_of_words_goes_when_the_one_that_replaces_it_is_old_enough() {
    let server = QdrantServer::start().await;
    open(&server).await;
    let name = server.state.collection_names().remove(0);
    let (stem, _) = name.rsplit_once('-').expect("the number of the rules");
    let (former, another) = (format!("{stem}-1"), format!("another-{stem}-1"));
    server.state.rename_collection(&name, &former);
    let both = [former.clone(), name.clone()];
    let removed =
        async |index: &QdrantIndex, at_least| index.remove_former(at_least).await.expect("an answer");

    open(&server).await;
    let index = open(&server).await;
    assert_eq!(removed(&index, Duration::from_secs(3_600)).await, 0);
    assert_eq!(
        server.state.collection_names(),
        both,
        "others may ask the former one"
    );

    server.state.rename_collection(&former, &another);
    assert_eq!(removed(&index, Duration::ZERO).await, 0, "it is not ours");
    server.state.rename_collection(&another, &former);
    assert_eq!(removed(&index, Duration::ZERO).await, 1);
    assert_eq!(
        server.state.collection_names().as_slice(),
        std::slice::from_ref(&name)
    );

    server.state.rename_collection(&name, &former);
    assert_eq!(removed(&index, Duration::ZERO).await, 0, "nothing replaces it");
}

#[tokio::test]
async fn another_embedding_model_has_a_collection_of_its_own() {
    let server = QdrantServer::start().await;
    let first = open(&server).await;
    first
        .upsert(tenant(1), vec![point(1, "kept text")])
        .await
        .expect("stored");
    let second = QdrantIndex::open(QdrantOptions {
        model_id: Some("test/other".to_owned()),
        ..options(&server)
    })
    .await
    .expect("opened");

    assert_eq!(second.count(tenant(1)).await.expect("a count"), 0);
    assert_eq!(first.count(tenant(1)).await.expect("a count"), 1);
    assert_eq!(server.state.collection_names().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_grows_large_moves_to_a_shard_of_its_own_and_is_found_throughout() {
    let server = QdrantServer::start().await;
    let mut options = options(&server);
    options.tuning.promote_from_chunks = Some(60);
    let index = QdrantIndex::open(options).await.expect("opened");
    let (small, large) = (tenant(1), tenant(2));
    index
        .upsert(small, (0..10).map(|n| point(n, "common text")).collect())
        .await
        .expect("stored");

    for start in (0..100).step_by(10) {
        let points = (start..start + 10).map(|n| point(n, "common text"));
        index.upsert(large, points.collect()).await.expect("stored");
        assert_eq!(index.count(large).await.expect("a count"), start + 10);
        assert_eq!(
            found(&index, large, by_vector(vector(start))).await[0],
            chunk(start.into())
        );
    }
    let expected = BTreeMap::from([("default".to_owned(), 10), (large.to_string(), 100)]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.state.points_by_shard() != expected {
        assert!(Instant::now() < deadline, "{:?}", server.state.points_by_shard());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    index
        .upsert(large, vec![point(100, "a late text")])
        .await
        .expect("stored");
    assert_eq!(found(&index, large, by_words("late")).await, [chunk(100)]);
    index.delete_tenant(large).await.expect("deleted");
    assert_eq!(
        server.state.points_by_shard(),
        BTreeMap::from([("default".to_owned(), 10)])
    );
    assert_eq!(index.count(small).await.expect("a count"), 10);
    index
        .upsert(large, vec![point(1, "back again")])
        .await
        .expect("stored");
    assert_eq!(found(&index, large, by_words("again")).await, [chunk(1)]);
    let everything = SearchQuery {
        filter: all_sources(),
        ..both("common", 1)
    };
    assert_eq!(found(&index, large, everything).await, [chunk(1)]);
}
