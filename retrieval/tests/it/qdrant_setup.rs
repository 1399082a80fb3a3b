//! How a server is reached, and what its collections are made with.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use qdrant_client::qdrant::payload_index_params::IndexParams;
use qdrant_client::qdrant::quantization_config::Quantization;
use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{Memory, QuantizationType, VectorParams};
use retrieval::index::{
    Facets, Index, IndexError, QdrantIndex, QdrantOptions, QdrantTuning, Quantisation, ReadConsistency,
    WriteOrdering,
};

use crate::child::{run_child, start_child_in};
use crate::qdrant_server::{AUTHORITY, QdrantServer};
use crate::samples::{DIMENSION, by_vector, by_words, chunk, document, found, point, tenant, vector};

const KEY: &str = "a-key-that-nobody-reads-on-the-way";

fn options(url: String) -> QdrantOptions {
    QdrantOptions {
        url,
        api_key: Some(KEY.to_owned()),
        model_id: Some("test/model".to_owned()),
        dimension: Some(DIMENSION),
        tuning: QdrantTuning {
            start_timeout: Duration::ZERO,
            ..QdrantTuning::default()
        },
    }
}

/// Its folder has the server's address.
#[test]
#[ignore = "runs as the child of a test of this file"]
fn child_that_trusts_the_authority() {
    run_child(async |dir| {
        let url = std::fs::read_to_string(dir.join("url")).expect("an address");
        let index = QdrantIndex::open(options(url)).await.expect("a server to trust");
        index
            .upsert(tenant(1), vec![point(7, "told in confidence")])
            .await
            .expect("stored");
        assert_eq!(found(&index, tenant(1), by_words("confidence")).await, [chunk(7)]);
    });
}

/// How a process ends that takes the system's certificates from `trusted`.
async fn reach(server: &QdrantServer, dir: &Path, trusted: &Path) -> Output {
    std::fs::write(dir.join("url"), server.url()).expect("written");
    let child = start_child_in(
        "qdrant_setup::child_that_trusts_the_authority",
        dir,
        &[("SSL_CERT_FILE", trusted)],
    );
    let ended = tokio::task::spawn_blocking(|| child.wait_with_output());
    ended.await.expect("no panic").expect("an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_server_is_reached_by_the_certificates_of_the_system() {
    let server = QdrantServer::start_encrypted(KEY).await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let authority = dir.path().join("authority.crt");
    std::fs::write(&authority, AUTHORITY).expect("written");

    let output = reach(&server, dir.path(), &authority).await;

    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.state.points_by_shard().values().sum::<usize>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_nobody_vouches_for_is_told_nothing() {
    let server = QdrantServer::start_encrypted(KEY).await;

    let error = QdrantIndex::open(options(server.url())).await.err();

    let error = error.expect("it is not trusted");
    assert!(matches!(error, IndexError::Unavailable { .. }), "{error:?}");
    assert!(
        error.to_string().contains("certificate") && error.to_string().contains(&server.url()),
        "{error}"
    );
    let asked =
        ["collection_exists", "get_collection", "create_collection"].map(|method| server.state.calls(method));
    assert_eq!(asked, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_copies_is_asked_for_and_what_they_find_is_compared_in_full() {
    for (quantisation, copies) in [
        (Quantisation::None, None),
        (Quantisation::Scalar, Some("scalar")),
        (Quantisation::Binary, Some("binary")),
    ] {
        let server = QdrantServer::start_with_key(Some(KEY)).await;
        let mut options = options(server.url());
        options.tuning.quantisation = quantisation;
        options.tuning.oversampling = 3.0;
        let index = QdrantIndex::open(options).await.expect("a usable server");
        index
            .upsert(tenant(1), vec![point(7, "any text")])
            .await
            .expect("stored");

        assert_eq!(found(&index, tenant(1), by_vector(vector(7))).await, [chunk(7)]);

        let made_with = server.state.made_with().quantization_config;
        let made = made_with
            .and_then(|config| config.quantization)
            .map(|made| match made {
                Quantization::Scalar(scalar) => {
                    assert_eq!(scalar.r#type(), QuantizationType::Int8);
                    ("scalar", scalar.memory())
                }
                Quantization::Binary(binary) => ("binary", binary.memory()),
                other => panic!("{other:?} is no setting of ours"),
            });
        assert_eq!(made, copies.map(|copies| (copies, Memory::Pinned)));
        let asked_with = server.state.asked_with();
        let asked = asked_with.expect("vectors were asked for").quantization;
        let asked = asked.map(|asked| (asked.rescore, asked.oversampling));
        assert_eq!(asked, copies.map(|_| (Some(true), Some(3.0))), "{quantisation:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_of_copies_orders_and_graphs_reaches_the_server() {
    let server = QdrantServer::start_with_key(Some(KEY)).await;
    let mut options = options(server.url());
    options.tuning = QdrantTuning {
        replication_factor: 3,
        write_consistency_factor: 2,
        read_consistency: ReadConsistency::Majority,
        write_ordering: WriteOrdering::Strong,
        vectors_on_disk: true,
        search_width: Some(77),
        ..options.tuning
    };
    let index = QdrantIndex::open(options).await.expect("a usable server");
    let mine = tenant(1);

    index
        .upsert(mine, vec![point(7, "any text"), point(8, "other text")])
        .await
        .expect("stored");
    let said = vec![(document(0), Facets::default())];
    index.set_facets(mine, said).await.expect("said");
    index.delete_chunks(mine, vec![chunk(8)]).await.expect("deleted");
    assert_eq!(found(&index, mine, by_vector(vector(7))).await, [chunk(7)]);
    assert_eq!(index.count(mine).await.expect("a count"), 1);
    assert_eq!(index.list(mine, None, 10).await.expect("a page").len(), 1);

    let expected = [
        ("count", "Majority"),
        ("delete", "Strong"),
        ("query_batch", "Majority"),
        ("scroll", "Majority"),
        ("update_batch", "Strong"),
        ("upsert", "Strong"),
    ];
    assert_eq!(server.state.guarantees(), expected.into());
    let made_with = server.state.made_with();
    assert_eq!(
        (made_with.replication_factor, made_with.write_consistency_factor),
        (Some(3), Some(2))
    );
    // No graph over all tenants, one for each.
    let graphs = made_with.hnsw_config.expect("how graphs are built");
    assert_eq!((graphs.m, graphs.payload_m), (Some(0), Some(16)));
    let Some(Config::ParamsMap(vectors)) = made_with.vectors_config.and_then(|config| config.config) else {
        panic!("vectors have names");
    };
    let memory: Vec<Memory> = vectors.map.values().map(VectorParams::memory).collect();
    assert_eq!(memory, [Memory::Cold]);
    let asked_with = server.state.asked_with().expect("vectors were asked for");
    assert_eq!(asked_with.hnsw_ef, Some(77));
    let Some(IndexParams::KeywordIndexParams(of_tenants)) = server.state.field_index("tenant") else {
        panic!("tenants are told apart by an index");
    };
    assert_eq!(of_tenants.is_tenant, Some(true));
}
