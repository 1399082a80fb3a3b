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
