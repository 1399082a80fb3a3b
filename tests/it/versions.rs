//! New versions of a document: they replace old ones whole, in whatever order uploads, workers and cleaning come.

use frontdesk::jobs::{self, Job as _};
use frontdesk::knowledge::jobs::RemoveDocuments;
use serde_json::{Value, json};

use crate::harness::app::{TestApp, TestOptions, index_backend};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{count_rows, ids, page_about};
use crate::harness::work::spawn_worker;

#[tokio::test]
async fn a_changed_file_embeds_only_what_changed_and_stays_the_same_document() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk
        .publish("manual.md", &page_about(&["Oak", "Teak", "Rope", "Paint"]))
        .await;
    assert_eq!(embedder.take_documents().len(), 4);
    let before = desk.document(&id).await;

    let changed = desk
        .publish("manual.md", &page_about(&["Oak", "Brass", "Rope", "Paint"]))
        .await;

    let embedded = embedder.take_documents();
    assert_eq!(changed, id);
    assert_eq!(embedded.len(), 1, "{embedded:?}");
    assert!(embedded[0].contains("Brass"));
    let after = desk.document(&id).await;
    let chunk_ids = |document: &Value| {
        document["chunk_list"]
            .as_array()
            .expect("chunks")
            .iter()
            .map(|chunk| chunk["id"].clone())
            .collect::<Vec<_>>()
    };
    let (old, new) = (chunk_ids(&before), chunk_ids(&after));
    assert_eq!((&new[0], &new[2..]), (&old[0], &old[2..]));
    assert_ne!(new[1], old[1]);
    assert!(
        after["text"]
            .as_str()
            .is_some_and(|text| text.contains("Brass") && !text.contains("Teak"))
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn the_old_version_answers_until_the_new_one_is_whole() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("hours.md", "The showroom opens at ten o'clock.")
        .await;
    embedder.hold();
    desk.upload(&[("hours.md", b"The showroom opens at eleven o'clock.")])
        .await
        .expect(202);
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;

    let meanwhile = desk.search("When does the showroom open?").await;
    assert!(
        meanwhile[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("ten o'clock")),
        "{meanwhile:?}"
    );

    embedder.let_one_go();
    worker.await.expect("the worker lives");
    let after = desk.search("When does the showroom open?").await;
    assert_eq!(after.len(), 1);
    assert!(
        after[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("eleven o'clock")),
        "{after:?}"
    );
}

#[tokio::test]
async fn a_half_indexed_new_version_does_not_push_the_old_one_out_of_answers() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    // More chunks than are embedded at once, and all of them about the same.
    let version = |year: u32| -> String {
        (0..300)
            .map(|number| {
                format!(
                    "## Oak table {number}\n\n{}\n\n",
                    format!("Oak table {number} is oiled in {year}. ").repeat(20)
                )
            })
            .collect()
    };
    desk.publish("tables.md", &version(2025)).await;
    embedder.hold();
    desk.upload(&[("tables.md", version(2026).as_bytes())])
        .await
        .expect(202);
    let worker = spawn_worker(&service.app);
    embedder.let_first_pass().await;
    assert!(
        acme.indexed_chunks().await > 300,
        "a part of the new version is in the index"
    );

    let found = desk.search("When are oak tables oiled in 2026?").await;

    embedder.let_one_go();
    worker.await.expect("the worker lives");
    assert_eq!(found.len(), 10);
    assert!(
        found
            .iter()
            .all(|passage| passage["text"].as_str().is_some_and(|text| text.contains("2025"))),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_newer_version_wins_over_an_older_one_that_is_still_being_indexed() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    embedder.hold();
    desk.upload(&[("manual.md", page_about(&["Oak", "Rope", "Paint"]).as_bytes())])
        .await
        .expect(202);
    let slow = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    desk.upload(&[("manual.md", page_about(&["Oak", "Rope", "Brass"]).as_bytes())])
        .await
        .expect(202);
    // Both versions are embedding now; the older one is let go first, and ends first.
    let fast = spawn_worker(&service.app);
    embedder.wait_held(2).await;
    embedder.let_one_go();
    embedder.let_one_go();
    slow.await.expect("the worker lives");
    fast.await.expect("the worker lives");
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    let text = document["text"].as_str().expect("text");
    assert_eq!(
        (&document["state"], &document["chunks"]),
        (&json!("indexed"), &json!(3))
    );
    assert!(text.contains("Brass") && !text.contains("Paint") && !text.contains("Teak"));
    acme.check_stores_agree().await;
    assert_eq!(desk.search("Rope").await[0]["heading"], "About Rope");
}

#[tokio::test]
async fn going_back_to_an_earlier_version_loses_nothing_to_late_cleaning() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (first, second) = (page_about(&["Oak", "Teak"]), page_about(&["Oak", "Rope"]));

    for _ in 0..3 {
        // Each upload is indexed while the removal that the one before called for still waits.
        for text in [&first, &second, &first] {
            desk.upload(&[("manual.md", text.as_bytes())]).await.expect(202);
        }
        service.drain_jobs().await;
        desk.publish("manual.md", &second).await;
        desk.publish("manual.md", &first).await;
    }

    acme.check_stores_agree().await;
    assert_eq!(count_rows(&service, "chunk").await, 2);
    assert_eq!(desk.search("Teak").await[0]["heading"], "About Teak");
}

#[tokio::test]
async fn a_given_up_job_of_an_old_version_does_not_fail_the_new_one() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .set("jobs.max_attempts", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.hold();
    embedder.refuse(1);
    let id = ids(&desk
        .upload(&[("a.md", b"The old words.")])
        .await
        .expect(202)
        .json())[0]
        .clone();
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;

    desk.upload(&[("a.md", b"The new words.")]).await.expect(202);
    embedder.let_one_go();
    worker.await.expect("the worker lives");

    let failed = acme.get("/api/jobs?state=failed").await.expect(200).json();
    assert_eq!(
        failed["items"].as_array().map(Vec::len),
        Some(1),
        "the old version's job: {failed}"
    );
    let document = desk.document(&id).await;
    assert_eq!(
        (&document["state"], &document["text"]),
        (&json!("indexed"), &json!("The new words."))
    );
}

#[tokio::test]
async fn a_removal_that_is_repeated_late_takes_nothing_that_came_back_since() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (first, second) = (page_about(&["Oak", "Teak"]), page_about(&["Oak", "Rope"]));
    desk.publish("manual.md", &first).await;
    desk.publish("manual.md", &second).await;
    let jobs = acme.get("/api/jobs?state=done").await.expect(200).json();
    let removal = jobs["items"]
        .as_array()
        .and_then(|jobs| jobs.iter().find(|job| job["kind"] == RemoveDocuments::KIND));
    if index_backend() == "pgvector" {
        assert_eq!(
            removal, None,
            "what only the first version had went with its rows"
        );
        return;
    }
    let removal = removal.expect("what only the first version had was removed");
    let removal: RemoveDocuments = serde_json::from_value(removal["payload"].clone()).expect("its payload");
    assert_eq!(removal.chunk_ids.len(), 1);
    desk.publish("manual.md", &first).await;

    // The worker died before it could say that it was done.
    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    jobs::enqueue(&service.app, &mut write, acme.id, &removal)
        .await
        .expect("queued");
    write.commit().await.expect("stored");
    service.drain_jobs().await;

    acme.check_stores_agree().await;
    assert_eq!(desk.search("Teak").await[0]["heading"], "About Teak");
}
