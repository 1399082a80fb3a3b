//! What the index is told of documents: in the end it says what their rows say, in whatever order it is told.

use frontdesk::knowledge::verify::{self, Findings};
use retrieval::index::Facets;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::indexes::{IndexSwitch, Moment};
use crate::harness::work::spawn_worker;

const CARE: &str = "Oak tables are oiled twice a year.";

/// What somebody without groups finds.
async fn found_by_all(desk: &Chatbot<'_, '_>) -> Vec<String> {
    let path = format!("/api/chatbots/{}/search", desk.id);
    let body = json!({ "query": "How often are oak tables oiled?", "groups": [] });
    let found = desk.tenant.post(&path, body).await.expect(200).json();
    let items = found["items"].as_array().expect("items").iter();
    items
        .map(|item| item["text"].as_str().expect("a text").to_owned())
        .collect()
}

async fn compare(tenant: &Tenant<'_>, heals: bool) -> Findings {
    let app = &tenant.service.app;
    let space = app.spaces.wanted().clone();
    let compared = verify::compare(app, tenant.id, &space, heals).await;
    compared.expect("compared")
}

/// Makes a change that the index is told late, by the job that is returned; until then it knows nothing of it, or it does and the
/// job has not heard so.
async fn change_late(
    tenant: &Tenant<'_>,
    switch: &IndexSwitch,
    moment: Moment,
    (path, change): (&str, Value),
) -> JoinHandle<usize> {
    tenant.patch(path, change).await.expect(200);
    switch.hold_next_telling(moment);
    let late = spawn_worker(&tenant.service.app);
    switch.wait_for_telling().await;
    late
}

/// Has what is at `path` made staff's and opened again at once, where the index hears of the former last; with and without a
/// look at the index in between. What is in the documents below it is open to all in the end.
async fn open_again(desk: &Chatbot<'_, '_>, switch: &IndexSwitch, path: &str) {
    let (tenant, service) = (desk.tenant, desk.tenant.service);
    for moment in [Moment::Before, Moment::After] {
        let staff = (path, json!({ "access_groups": ["staff"] }));
        let late = change_late(tenant, switch, moment, staff).await;
        tenant
            .patch(path, json!({ "access_groups": [] }))
            .await
            .expect(200);
        service.drain_jobs().await;
        assert!(compare(tenant, false).await.agree(), "it is on its way");

        switch.let_telling_go();
        late.await.expect("the worker lives");
        service.drain_jobs().await;

        assert_eq!(found_by_all(desk).await, [CARE], "{moment:?}");
        assert!(compare(tenant, false).await.agree(), "{moment:?}");
    }
}

#[tokio::test]
async fn a_document_that_is_closed_and_opened_again_at_once_is_open() {
    let switch = IndexSwitch::default();
    let service = TestOptions::default().index(&switch).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let care = desk.publish("care.md", CARE).await;

    open_again(&desk, &switch, &format!("/api/documents/{care}")).await;
}

#[tokio::test]
async fn a_source_that_is_closed_and_opened_again_at_once_is_open() {
    let switch = IndexSwitch::default();
    let service = TestOptions::default().index(&switch).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let sources = format!("/api/chatbots/{}/sources", desk.id);
    let source = acme
        .post(&sources, json!({ "kind": "push" }))
        .await
        .expect(202)
        .id();
    let path = format!("/api/sources/{source}/documents/care");
    let put = service.send(
        reqwest::Method::PUT,
        &path,
        Some(&acme.key),
        Some(json!({ "text": CARE })),
    );
    put.await.expect(201);
    service.drain_jobs().await;

    open_again(&desk, &switch, &format!("/api/sources/{source}")).await;
}

#[tokio::test]
async fn what_the_index_was_told_otherwise_and_nobody_is_telling_is_found_and_mended() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let care = desk.publish("care.md", CARE).await;
    let path = format!("/api/documents/{care}");
    acme.patch(&path, json!({ "access_groups": [] }))
        .await
        .expect(200);
    assert!(compare(&acme, false).await.agree(), "it is on its way");
    service.drain_jobs().await;
    let staffs = Facets {
        groups: vec!["staff".to_owned()],
        ..Facets::default()
    };
    let told = vec![(retrieval::DocumentId(care.parse().expect("an id")), staffs)];
    let index = &service.app.spaces.wanted().index;
    index
        .set_facets(retrieval::TenantId(acme.id.0), told)
        .await
        .expect("told");
    assert_eq!(found_by_all(&desk).await, Vec::<String>::new());

    let wrong = compare(&acme, false).await;

    assert_eq!((wrong.missing, wrong.different, wrong.stray), (0, 1, 0));
    assert_eq!(compare(&acme, true).await, wrong);
    assert!(compare(&acme, false).await.agree());
    assert_eq!(found_by_all(&desk).await, [CARE]);
}

/// Indexes what was uploaded up to where its passages are embedded, and nothing then; others do not wait.
async fn begin_indexing(service: &TestApp, embedder: &WatchedEmbedder) -> JoinHandle<usize> {
    let late = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    embedder.let_others_pass();
    late
}

/// A version that only staff may read is overtaken, while it is embedded, by one that all may read; it comes to its end last.
async fn overtake(late_text: &str) {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let care = desk.publish("care.md", "Oak tables need care.").await;
    let path = format!("/api/documents/{care}");
    let (staff, all) = (
        json!({ "access_groups": ["staff"] }),
        json!({ "access_groups": [] }),
    );
    acme.patch(&path, staff).await.expect(200);
    service.drain_jobs().await;
    embedder.hold();
    let upload = async |text: &str| desk.upload(&[("care.md", text.as_bytes())]).await.expect(202);
    upload(late_text).await;
    let late = begin_indexing(&service, &embedder).await;
    acme.patch(&path, all).await.expect(200);
    upload(CARE).await;
    service.drain_jobs().await;
    assert_eq!(found_by_all(&desk).await, [CARE]);

    embedder.let_one_go();
    late.await.expect("the worker lives");
    service.drain_jobs().await;

    assert_eq!(found_by_all(&desk).await, [CARE]);
    assert!(compare(&acme, false).await.agree());
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_version_that_was_overtaken_leaves_nobody_without_the_one_that_answers() {
    overtake("Oak tables are waxed every spring.").await;
}

#[tokio::test]
async fn a_large_version_that_was_overtaken_leaves_nobody_without_the_one_that_answers() {
    overtake(&large_text()).await;
}

/// More passages than are embedded at once.
fn large_text() -> String {
    let sections = (0..300).map(|number| format!("# Table {number}\n\n{}\n\n", "waxed ".repeat(150)));
    sections.collect()
}

#[tokio::test]
async fn an_edit_that_was_overtaken_leaves_the_words_of_the_later_one() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let care = desk.publish("care.md", CARE).await;
    let path = format!("/api/documents/{care}/chunks/{}", desk.first_chunk(&care).await);
    embedder.hold();
    let early = json!({ "text": "Oak tables are oiled by zebras." });
    acme.patch(&path, early).await.expect(200);
    let late = begin_indexing(&service, &embedder).await;
    let later = "Oak tables are oiled by giraffes.";
    acme.patch(&path, json!({ "text": later })).await.expect(200);
    service.drain_jobs().await;
    assert!(compare(&acme, false).await.agree());

    embedder.let_one_go();
    late.await.expect("the worker lives");
    service.drain_jobs().await;

    assert!(compare(&acme, false).await.agree());
    assert_eq!(found_by_all(&desk).await, [later]);
    acme.check_stores_agree().await;
}
