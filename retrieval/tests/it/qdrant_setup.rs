//! How a server is reached, and what its collections are made with.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use qdrant_client::qdrant::quantization_config::Quantization;
use qdrant_client::qdrant::{Memory, QuantizationType};
use retrieval::index::{Index, IndexError, QdrantIndex, QdrantOptions, QdrantTuning, Quantisation};

use crate::child::{run_child, start_child_in};
use crate::qdrant_server::{AUTHORITY, QdrantServer};
use crate::samples::{DIMENSION, by_vector, by_words, chunk, found, point, tenant, vector};

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

        let (made_with, asked_with) = server.state.quantised();
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
        let asked = asked_with.expect("vectors were asked for").quantization;
        let asked = asked.map(|asked| (asked.rescore, asked.oversampling));
        assert_eq!(asked, copies.map(|_| (Some(true), Some(3.0))), "{quantisation:?}");
    }
}
