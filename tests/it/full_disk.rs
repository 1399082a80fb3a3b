//! A disk that fills up: nothing is taken in long before the last byte, the work waits, and removing makes room again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use frontdesk::app::FreeBytes;
use serde_json::{Value, json};

use crate::cuts::{cuts, small, uploads};
use crate::harness::app::{TestApp, TestOptions};

const MIB: u64 = 1024 * 1024;

/// Room of which the test says how much is left.
fn room(bytes: u64) -> (Arc<AtomicU64>, FreeBytes) {
    let left = Arc::new(AtomicU64::new(bytes));
    let measured = left.clone();
    (left, Arc::new(move |_| Ok(measured.load(Ordering::Relaxed))))
}

async fn start() -> (Arc<AtomicU64>, TestApp) {
    let (left, free_bytes) = room(1000 * MIB);
    // One shard: 100 and 64 have to be left.
    let options = TestOptions::default().set("limits.free_disk_mb", 100);
    (left, options.free_bytes(free_bytes).start().await)
}

#[tokio::test]
async fn below_the_floor_what_grows_the_knowledge_is_507_and_everything_else_goes_on() {
    let (left, service) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.txt", "Goods may be returned within 30 days.")
        .await;

    left.store(163 * MIB, Ordering::Relaxed);

    let refused = desk.upload(&[("a.txt", b"Words.")]).await.expect(507);
    assert_eq!(refused.code(), "storage_full");
    acme.post("/api/chatbots", json!({ "name": "Another" }))
        .await
        .expect(507);
    let sources = format!("/api/chatbots/{}/sources", desk.id);
    acme.post(&sources, json!({ "kind": "push", "name": "p" }))
        .await
        .expect(507);
    desk.ask("Within how many days may goods be returned?")
        .await
        .expect(200);

    left.store(164 * MIB, Ordering::Relaxed);
    desk.upload(&[("a.txt", b"Words.")]).await.expect(202);
}

#[tokio::test]
async fn a_service_without_room_says_so_and_stays_ready_to_answer() {
    let (left, service) = start().await;
    let ready = async || {
        let reply = service.send(reqwest::Method::GET, "/ready", None, None).await;
        reply.expect(200).json()
    };
    left.store(163 * MIB, Ordering::Relaxed);

    let full = ready().await;

    assert_eq!([&full["status"], &full["files"]], ["degraded", "full"]);
    let shortage = full["shortage"].as_str().expect("a sentence");
    assert!(
        shortage.contains("163 MB of room, and 164 MB") && shortage.contains("limits.free_disk_mb"),
        "{shortage}"
    );
    left.store(164 * MIB, Ordering::Relaxed);
    let again = ready().await;
    assert_eq!([&again["status"], &again["files"]], ["ok", "ok"]);
    assert!(again["shortage"].is_null());
}

#[tokio::test]
async fn nothing_is_built_beside_what_answers_where_there_is_no_room_for_it() {
    let (left, service) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.txt", "Goods may be returned within 30 days.")
        .await;
    let source = uploads(&acme).await;
    left.store(163 * MIB, Ordering::Relaxed);

    let wish = json!({ "source_id": source, "chunking": small() });
    let begun = acme
        .post("/api/index/generations", wish.clone())
        .await
        .expect(507);
    assert_eq!(begun.code(), "storage_full");
    acme.patch(&format!("/api/sources/{source}"), json!({ "chunking": small() }))
        .await
        .expect(507);
    left.store(100 * MIB, Ordering::Relaxed);
    assert_eq!(cuts(&acme).await, Vec::<Value>::new());

    left.store(1000 * MIB, Ordering::Relaxed);
    acme.post("/api/index/generations", wish).await.expect(202);
    service.drain_jobs().await;
}

#[tokio::test]
async fn indexing_waits_for_room_and_removing_goes_on() {
    let (left, service) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let old = desk.publish("old.txt", "Old words about ladders.").await;
    let taken = desk
        .upload(&[("new.txt", b"New words about chairs.")])
        .await
        .expect(202)
        .json();
    let new = taken["items"][0]["id"].as_str().expect("an id").to_owned();
    left.store(100 * MIB, Ordering::Relaxed);
    acme.delete(&format!("/api/documents/{old}")).await.expect(204);

    service.drain_jobs().await;

    assert_ne!(
        desk.document(&new).await["state"],
        "failed",
        "the disk is not its fault"
    );
    assert_ne!(desk.document(&new).await["state"], "indexed");
    let job = acme.get("/api/jobs").await.expect(200).text;
    assert!(job.contains("the disk is full"), "{job}");

    left.store(1000 * MIB, Ordering::Relaxed);
    service.clock.advance(chrono::TimeDelta::minutes(5));
    service.drain_jobs().await;
    assert_eq!(desk.document(&new).await["state"], "indexed");
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn nothing_starts_where_opening_the_index_could_be_the_end() {
    let (left, service) = start().await;
    left.store(10 * MIB, Ordering::Relaxed);

    let refusal = service.try_restart().await.expect_err("there is no room");

    let told = refusal.to_string();
    assert!(
        told.contains("has 10 MB of room, and 164 MB have to be left")
            && told.contains("limits.free_disk_mb"),
        "{told}"
    );
}
