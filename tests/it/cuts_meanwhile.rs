//! Two things happen to a source at a time: it is cut otherwise, and its documents are indexed, or somebody thinks again.

use chrono::TimeDelta;
use serde_json::json;

use crate::cuts::{begin, chunk_count, order, small, states, uploads};
use crate::harness::app::{TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::generations::GENERATIONS;
use crate::harness::stored::{assert_nothing_staged, count_rows, ids, page_about, waiting_chunks};
use crate::harness::work::{kill, spawn_worker};

#[tokio::test]
async fn what_was_staged_for_one_cut_is_not_brought_in_as_another() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("embedding.cache_mb", 0).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak"])).await;
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    order(&acme, &cut, "activate", 200).await;
    service.drain_jobs().await;
    embedder.hold();
    let woods = many_sections("Wood");
    let taken = desk.upload(&[("woods.md", woods.as_bytes())]).await.expect(202);
    let id = ids(&taken.json())[0].clone();
    let worker = spawn_worker(&service.app);
    // More than it has chunks in the other cut.
    embedder
        .let_pass_until(async || waiting_chunks(&service).await > 320)
        .await;
    kill(worker).await;

    order(&acme, &cut, "rollback", 200).await;
    embedder.let_one_go();
    service.clock.advance(TimeDelta::minutes(10));
    service.drain_jobs().await;

    assert_eq!(chunk_count(&desk, &id).await, 320);
    let live = count_rows(&service, "chunk where cut_id is null").await;
    assert_eq!(live, 321, "nothing of the other cut is in this one");
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}

/// A page whose chunks are more than one group in any cut.
fn many_sections(wood: &str) -> String {
    let sections: Vec<String> = (0..320).map(|number| format!("{wood}{number}")).collect();
    let sections: Vec<&str> = sections.iter().map(String::as_str).collect();
    page_about(&sections)
}

#[tokio::test]
async fn a_death_while_a_kept_cut_takes_a_new_version_over_leaves_no_point_of_the_old_one() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("embedding.cache_mb", 0).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("woods.md", &many_sections("Oak")).await;
    begin(&acme, small()).await;
    service.drain_jobs().await;
    assert_eq!(states(&acme).await, ["ready", "live"]);
    embedder.hold();
    desk.upload(&[("woods.md", many_sections("Larch").as_bytes())])
        .await
        .expect(202);
    let worker = spawn_worker(&service.app);
    embedder
        .let_pass_until(async || {
            count_rows(&service, "chunk where cut_id is not null and text like '%Larch%'").await > 0
        })
        .await;
    kill(worker).await;
    let replaced = count_rows(&service, "chunk where cut_id is not null and text like '%Oak%'").await;
    assert!(replaced > 0, "it died half way");

    embedder.let_one_go();
    service.clock.advance(TimeDelta::minutes(10));
    service.drain_jobs().await;

    assert_eq!(states(&acme).await, ["ready", "live"]);
    assert_eq!(count_rows(&service, "chunk where text like '%Oak%'").await, 0);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_document_on_its_way_is_indexed_where_a_cut_goes_live_and_back_within_one_group() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("embedding.cache_mb", 0).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak"])).await;
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    embedder.hold();
    let woods = many_sections("Wood");
    let taken = desk.upload(&[("woods.md", woods.as_bytes())]).await.expect(202);
    let id = ids(&taken.json())[0].clone();
    let worker = spawn_worker(&service.app);
    embedder.let_first_pass().await;
    assert!(waiting_chunks(&service).await > 0);

    order(&acme, &cut, "activate", 200).await;
    order(&acme, &cut, "rollback", 200).await;
    embedder.let_one_go();
    worker.await.expect("the worker lives");
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    assert_eq!(document["state"], "indexed", "{}", document["error"]);
    assert_eq!(chunk_count(&desk, &id).await, 320);
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_copy_of_what_answered_does_not_take_the_place_of_what_answers_now() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("embedding.cache_mb", 0).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    desk.upload(&[("manual.md", page_about(&["Ash", "Elm"]).as_bytes())])
        .await
        .expect(202);
    let cut = begin(&acme, small()).await;
    embedder.hold();
    let indexing = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    let copying = spawn_worker(&service.app);
    embedder.wait_held(2).await;

    embedder.let_one_go();
    indexing.await.expect("the worker lives");
    embedder.let_one_go();
    copying.await.expect("the worker lives");
    service.clock.advance(TimeDelta::minutes(1));
    service.drain_jobs().await;

    for gone in ["Oak", "Teak"] {
        let rows = count_rows(&service, &format!("chunk where text like '%{gone}%'")).await;
        assert_eq!(rows, 0, "{gone}");
    }
    order(&acme, &cut, "activate", 200).await;
    let found = desk.search("Elm").await;
    assert!(found[0]["text"].to_string().contains("Elm matters"), "{found:?}");
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_cut_that_was_wanted_back_does_not_go_live_once_the_wish_is_taken_back() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak"])).await;
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    order(&acme, &cut, "activate", 200).await;
    order(&acme, &cut, "rollback", 200).await;
    service.drain_jobs().await;
    let source = format!("/api/sources/{}", uploads(&acme).await);

    for chunking in [small(), json!(null)] {
        let body = json!({ "chunking": chunking });
        acme.patch(&source, body).await.expect(200);
    }
    service.drain_jobs().await;

    assert_eq!(states(&acme).await, ["ready", "live"]);
}

#[tokio::test]
async fn a_source_that_is_cut_otherwise_again_and_again_within_an_hour_keeps_three_copies_at_most() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    let chunking = |tokens: u32| json!({ "max_tokens": tokens, "overlap_tokens": 0 });
    for tokens in [100, 120, 140] {
        let cut = begin(&acme, chunking(tokens)).await;
        service.drain_jobs().await;
        order(&acme, &cut, "activate", 200).await;
    }
    let once_more = json!({ "source_id": uploads(&acme).await, "chunking": chunking(160) });

    let refused = acme.post(GENERATIONS, once_more.clone()).await;

    assert_eq!(refused.expect(409).code(), "too_many_generations");
    service.clock.advance(TimeDelta::minutes(61));
    acme.post(GENERATIONS, once_more).await.expect(202);
    service.drain_jobs().await;
    assert_eq!(states(&acme).await[..3], ["ready", "live", "standby"]);
}
