//! The index is gone while the rows are there: it is filled again by itself, and the log says so.

use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use serde_json::json;

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::generations::{Held, points};
use crate::harness::work::until;

#[tokio::test]
async fn an_index_that_was_lost_is_filled_again_from_the_rows_and_answers_say_so_until_then() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", "# Returns\n\nGoods may be returned within 30 days.")
        .await;
    desk.publish("oak.md", "# Oak\n\nOak is oiled twice a year.")
        .await;
    let (id, key, chatbot) = (acme.id, acme.key.clone(), desk.id.clone());

    let service = service
        .restart_after(|data| std::fs::remove_dir_all(data.join("index")).expect("removed"))
        .await;

    let acme = Tenant {
        service: &service,
        id,
        key,
    };
    let desk = Chatbot {
        tenant: &acme,
        id: chatbot,
    };
    let path = format!("/api/chatbots/{}/search", desk.id);
    let lost = acme
        .post(&path, json!({ "query": "returned goods" }))
        .await
        .expect(200)
        .json();
    assert!(
        lost["items"].as_array().is_some_and(Vec::is_empty),
        "it is lost: {lost}"
    );
    assert_eq!(lost["degraded"][0]["code"], "index_incomplete", "{lost}");
    let answer = desk
        .ask("Within how many days may goods be returned?")
        .await
        .expect(503);
    assert_eq!(answer.code(), "search_degraded");
    assert!(service.drain_jobs().await > 0, "nothing was queued");
    let found = desk.search("Within how many days may goods be returned?").await;
    assert!(
        found[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("30 days")),
        "{found:?}"
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn the_old_version_of_a_document_whose_new_one_failed_answers_again_too() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .set("jobs.max_attempts", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let document = desk
        .publish("returns.md", "Goods may be returned within 30 days.")
        .await;
    embedder.refuse(1);
    desk.upload(&[("returns.md", b"Goods may be returned within 60 days.")])
        .await
        .expect(202);
    service.drain_jobs().await;
    assert_eq!(desk.document(&document).await["state"], "failed");
    let (id, key, chatbot) = (acme.id, acme.key.clone(), desk.id.clone());

    let service = service
        .restart_after(|data| std::fs::remove_dir_all(data.join("index")).expect("removed"))
        .await;
    service.drain_jobs().await;

    let acme = Tenant {
        service: &service,
        id,
        key,
    };
    let desk = Chatbot {
        tenant: &acme,
        id: chatbot,
    };
    assert_eq!(desk.document(&document).await["state"], "failed");
    let found = desk.search("Within how many days may goods be returned?").await;
    assert!(
        found[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("30 days")),
        "{found:?}"
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_part_of_the_index_that_is_gone_is_filled_again_and_answers_say_so_until_then() {
    let mut service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", "Goods may be returned within 30 days.")
        .await;
    let (id, key, chatbot) = (acme.id, acme.key.clone(), desk.id.clone());

    for part in [
        "shard-0",
        "shard-0/vectors",
        "shard-0/keywords",
        "shard-0/redo.log",
    ] {
        service = service
            .restart_after(|data| {
                let collections = std::fs::read_dir(data.join("index")).expect("the index");
                for collection in collections.flatten() {
                    let lost = collection.path().join(part);
                    match lost.is_dir() {
                        true => std::fs::remove_dir_all(lost).expect("removed"),
                        false => std::fs::remove_file(lost).expect("removed"),
                    }
                }
            })
            .await;

        let acme = Tenant {
            service: &service,
            id,
            key: key.clone(),
        };
        let desk = Chatbot {
            tenant: &acme,
            id: chatbot.clone(),
        };
        let path = format!("/api/chatbots/{}/search", desk.id);
        let question = json!({ "query": "Within how many days may goods be returned?", "explain": true });
        let lost = acme.post(&path, question.clone()).await.expect(200).json();
        assert_eq!(lost["degraded"][0]["code"], "index_incomplete", "{part}: {lost}");
        assert!(service.drain_jobs().await > 0, "{part}: nothing was queued");
        let found = acme.post(&path, question).await.expect(200).json();
        assert!(found["degraded"].is_null(), "{part}: {found}");
        let stages = found["explain"]["stages"].as_array().expect("stages");
        let asked = stages
            .iter()
            .find(|stage| stage["name"] == "index")
            .expect("the index");
        let scores = &asked["items"][0]["scores"];
        assert!(
            scores["similarity"].is_number() && scores["keyword_score"].is_number(),
            "{part}: {found}"
        );
        acme.check_stores_agree().await;
    }
}

#[tokio::test]
async fn an_index_that_is_there_is_not_filled_again() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    acme.chatbot("Desk").await.publish("a.txt", "Words.").await;

    let service = service.restart_after(|_| ()).await.restart_after(|_| ()).await;

    assert_eq!(service.drain_jobs().await, 0);
}

/// The manifests of the indexes of all embedding models.
fn manifests(data: &Path) -> Vec<PathBuf> {
    let collections = std::fs::read_dir(data.join("index")).expect("the index");
    let collections = collections.flatten().map(|entry| entry.path());
    collections
        .map(|collection| collection.join("manifest.json"))
        .collect()
}

#[tokio::test]
async fn an_index_beside_the_configured_one_that_does_not_open_is_done_without_until_it_does() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let old = manifests(&service.data_dir()).remove(0);
    let whole = std::fs::read(&old).expect("a manifest");
    let another = WatchedEmbedder::named("longer-words", 384);
    let settings = [("index.on_model_change", "wait")];
    let service = service.restart_with(Some(another), &settings).await;
    let of_another_version = r#"{ "layout": 99 }"#;
    let service = service
        .restart_after(|_| std::fs::write(&old, of_another_version).expect("written"))
        .await;
    let acme = held.tenant(&service);
    let path = format!("/api/chatbots/{}/search", held.chatbot);
    let codes = async || -> Vec<String> {
        let question = json!({ "query": "How often is Table1 oiled?" });
        let found = acme.post(&path, question).await.expect(200).json();
        let text = found["items"][0]["text"].as_str().unwrap_or_default();
        assert!(text.contains("Table1 "), "{found}");
        let degraded = found["degraded"].as_array().expect("a list").clone();
        degraded
            .iter()
            .map(|one| one["code"].as_str().expect("a code").to_owned())
            .collect()
    };

    assert!(codes().await.contains(&"index_unavailable".to_owned()));
    acme.get("/ready").await.expect(200);
    std::fs::write(&old, whole).expect("written");
    service.clock.advance(TimeDelta::seconds(11));

    until("it is opened", async || {
        !codes().await.contains(&"index_unavailable".to_owned())
    })
    .await;
}

/// A service whose index is an older copy: it has two of the three documents.
async fn with_an_older_index() -> (TestApp, Held) {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let service = service
        .restart_after(|data| copy(&data.join("index"), &data.join("older")))
        .await;
    let tenant = held.tenant(&service);
    let desk = Chatbot {
        tenant: &tenant,
        id: held.chatbot.clone(),
    };
    desk.publish("late.md", "Oak is oiled twice a year.").await;
    let service = service
        .restart_after(|data| {
            std::fs::remove_dir_all(data.join("index")).expect("removed");
            std::fs::rename(data.join("older"), data.join("index")).expect("put back");
        })
        .await;
    (service, held)
}

#[tokio::test]
async fn answers_from_an_older_copy_of_the_index_say_so_until_it_is_mended() {
    let (service, held) = with_an_older_index().await;
    let tenant = held.tenant(&service);

    let space = service.app.spaces.wanted().name.clone();
    assert_eq!(points(&service, held.tenant, &space).await, 2);
    let path = format!("/api/chatbots/{}/search", held.chatbot);
    let query = json!({ "query": "How often is oak oiled?" });
    let found = tenant.post(&path, query.clone()).await.expect(200).json();
    assert_eq!(found["degraded"][0]["code"], "index_incomplete", "{found}");
    service.drain_jobs().await;
    let found = tenant.post(&path, query).await.expect(200).json();
    assert_eq!(found["items"][0]["text"], "Oak is oiled twice a year.", "{found}");
    assert!(found["degraded"].is_null(), "{found}");
    tenant.check_stores_agree().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("copied")),
        }
    }
}
