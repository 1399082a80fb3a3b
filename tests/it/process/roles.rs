//! API and workers in processes of their own, which share rows and index in one PostgreSQL and a data folder.

use super::*;
use crate::harness::databases::{create_postgres_database, postgres_server};

#[tokio::test]
async fn api_and_workers_apart_are_one_service() {
    let Some(server) = postgres_server() else {
        eprintln!("LEFT OUT: there is no PostgreSQL; scripts/with-postgres starts one");
        return;
    };
    let (_folder, data) = data_dir();
    let database = format!("database.url={}", create_postgres_database(&server).await);
    let shared = ["--set", &database, "--set", "index.backend=pgvector"];
    let role = |role| [&["--role", role][..], &shared].concat();
    let api = Server::start(&data, &role("api")).await;
    let key = api.first_key.clone().expect("the first key");
    let made = api
        .post("/api/chatbots", &key, "application/json", r#"{"name":"Desk"}"#)
        .await;
    let chatbot = body_of(&made)["id"].as_str().expect("an id").to_owned();
    let upload = "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"returns.md\"\r\n\r\n# Returns\n\nGoods may be returned within 30 days.\r\n--x--\r\n";
    let documents = format!("/api/chatbots/{chatbot}/documents");
    let taken = api
        .post(&documents, &key, "multipart/form-data; boundary=x", upload)
        .await;
    assert!(taken.starts_with("HTTP/1.1 202"), "{taken}");
    assert!(
        api.get(&documents, &key).await.contains("\"queued\""),
        "nobody works yet"
    );

    let worker = Server::start(&data, &role("worker")).await;
    let indexed = async {
        while !api.get(&documents, &key).await.contains("\"indexed\"") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, indexed).await.expect("the worker indexes it");

    let found = api
        .post(
            &format!("/api/chatbots/{chatbot}/search"),
            &key,
            "application/json",
            r#"{"query":"returned goods"}"#,
        )
        .await;
    assert!(found.contains("within 30 days"), "{found}");
    worker.stop().await;
    api.stop().await;
}

#[tokio::test]
async fn a_process_with_another_data_folder_is_told_so_unless_that_one_is_adopted() {
    let Some(server) = postgres_server() else {
        eprintln!("LEFT OUT: there is no PostgreSQL; scripts/with-postgres starts one");
        return;
    };
    let (_folder, data) = data_dir();
    let (_other_folder, other) = data_dir();
    let database = format!("database.url={}", create_postgres_database(&server).await);
    let shared = ["--set", &database, "--set", "index.backend=pgvector"];
    Server::start(&data, &shared).await.stop().await;
    let first = Server::start(&data, &shared).await;
    let start_apart = [&["serve", "--listen", "127.0.0.1:0"][..], &shared].concat();

    let apart = run(&other, &start_apart).await;

    assert_eq!(apart.status.code(), Some(3), "{}", told(&apart));
    for part in ["data_dir", "the same data folder", "migrate --adopt-data-dir"] {
        assert!(
            told(&apart).contains(part),
            "{part:?} is missing in {}",
            told(&apart)
        );
    }
    let beside = Server::start(&data, &[&["--role", "worker"][..], &shared].concat()).await;
    beside.stop().await;
    first.stop().await;

    let adopted = run_well(&other, &[&["migrate", "--adopt-data-dir"][..], &shared].concat()).await;
    assert!(adopted.contains("from now on"), "{adopted}");
    Server::start(&other, &shared).await.stop().await;
    let old = run(&data, &start_apart).await;
    assert_eq!(old.status.code(), Some(3), "{}", told(&old));
}

#[tokio::test]
async fn with_sqlite_there_is_no_folder_to_adopt() {
    let (_folder, data) = data_dir();

    let output = run(&data, &["migrate", "--adopt-data-dir"]).await;

    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("PostgreSQL"), "{}", told(&output));
}

#[tokio::test]
async fn a_process_that_shares_nothing_keeps_out_of_a_folder_that_others_share() {
    let Some(server) = postgres_server() else {
        eprintln!("LEFT OUT: there is no PostgreSQL; scripts/with-postgres starts one");
        return;
    };
    let (_folder, data) = data_dir();
    let database = format!("database.url={}", create_postgres_database(&server).await);
    let sharing = Server::start(&data, &["--set", &database, "--set", "index.backend=pgvector"]).await;

    let alone = run(&data, &["serve", "--listen", "127.0.0.1:0"]).await;

    assert_eq!(alone.status.code(), Some(5), "{}", told(&alone));
    sharing.stop().await;
}

fn body_of(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    serde_json::from_str(body).expect("one JSON document")
}
