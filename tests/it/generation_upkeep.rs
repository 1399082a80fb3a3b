//! What keeps indexes true over the years: late writers, edits in between, removals that take long, comparisons that are
//! interrupted, and texts that differ where the counts agree.

use std::sync::Arc;

use chrono::TimeDelta;
use frontdesk::db::Scope;
use frontdesk::generations::operator;
use frontdesk::id::{ChunkId, DocumentId, TenantId};
use frontdesk::jobs::{self, Job};
use frontdesk::knowledge::jobs::PutBackChunks;
use frontdesk::knowledge::labels::WeighAnew;
use frontdesk::knowledge::verify;
use frontdesk::on;
use retrieval::embed::Embedder;
use retrieval::index::{Facets, Point};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;
use uuid::Uuid;

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::generations::{
    GENERATIONS, Held, NEW, OLD, begin, listed, new_embedder, points, search, states, text_of, with_new_model,
};
use crate::harness::openai::ScriptedModel;
use crate::harness::stored::{assert_nothing_staged, count_rows, waiting_chunks};
use crate::harness::work::{kill, spawn_worker};

/// Changes rows past the API.
async fn change(service: &TestApp, statement: &str) {
    let statement = AssertSqlSafe(statement.to_owned());
    let mut write = service.app.db.write(Scope::Operator).await.expect("a writer");
    on!(write, c => sqlx::query(statement).execute(c).await.map(drop)).expect("changed");
    write.commit().await.expect("committed");
}

/// Puts a point of the tenant into a space, past the rows.
async fn put_point(service: &TestApp, held: &Held, space: &str, id: Uuid, text: &str) {
    let space = service.app.space(space).await.expect("a space");
    let tenant = retrieval::TenantId(held.tenant.0);
    let like = space.index.list(tenant, None, 1).await.expect("points");
    let other = Uuid::now_v7();
    let point = Point {
        chunk_id: retrieval::ChunkId(id),
        document_id: like
            .first()
            .map_or(retrieval::DocumentId(other), |like| like.document_id),
        source_id: like
            .first()
            .map_or(retrieval::SourceId(other), |like| like.source_id),
        text: text.to_owned(),
        vector: Some(vec![0.0625; space.dimension.expect("a length")]),
        facets: Facets::default(),
    };
    space.index.upsert(tenant, vec![point]).await.expect("stored");
}

async fn activate(acme: &Tenant<'_>, id: &str) {
    acme.post(&format!("{GENERATIONS}/{id}/activate"), json!({}))
        .await
        .expect(200);
}

/// The old generation is given up and its room given back.
async fn reclaim(service: &TestApp) {
    service.clock.advance(TimeDelta::hours(25));
    operator::take_up(&service.app).await.expect("upkeep");
    service.drain_jobs().await;
}

#[tokio::test]
async fn what_a_late_writer_puts_into_a_generation_that_was_given_up_does_not_stay() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let embedder = new_embedder();
    let service = with_new_model(service, &embedder, "wait").await;
    begin(&held.tenant(&service)).await;
    embedder.hold();

    let meanwhile = async {
        embedder.wait_held(1).await;
        change(
            &service,
            "update generation set state = 'retired' where state = 'building'",
        )
        .await;
        embedder.let_one_go();
    };
    tokio::join!(service.drain_jobs(), meanwhile);

    assert_eq!(embedder.take_documents().len(), 2, "it had begun");
    assert_eq!(points(&service, held.tenant, NEW).await, 0);
    assert_eq!(points(&service, held.tenant, OLD).await, 2);
}

#[tokio::test]
async fn points_that_no_generation_uses_are_found_within_the_hour_and_removed() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let service = with_new_model(service, &new_embedder(), "wait").await;
    let acme = held.tenant(&service);
    let id = begin(&acme).await;
    service.drain_jobs().await;
    activate(&acme, &id).await;
    reclaim(&service).await;
    put_point(&service, &held, OLD, Uuid::now_v7(), "Late.").await;
    assert_eq!(points(&service, held.tenant, OLD).await, 1);

    operator::sweep_left(&service.app).await.expect("swept");
    service.drain_jobs().await;

    assert_eq!(points(&service, held.tenant, OLD).await, 0);
    assert_eq!(points(&service, held.tenant, NEW).await, 2);
    let not_reclaimed = "select count(*) from generation where state = 'retired' and reclaimed_at is null";
    assert_eq!(
        number(&service, not_reclaimed).await,
        1,
        "somebody may still come"
    );
    service.clock.advance(TimeDelta::hours(25));
    operator::sweep_left(&service.app).await.expect("swept");
    assert_eq!(number(&service, not_reclaimed).await, 0);
}

async fn number(service: &TestApp, query: &'static str) -> i64 {
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar(query).fetch_one(c).await).expect("a number")
}

#[tokio::test]
async fn a_generation_that_is_begun_again_is_not_filled_while_what_it_left_is_being_removed() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let service = with_new_model(service, &new_embedder(), "wait").await;
    let acme = held.tenant(&service);
    begin(&acme).await;
    service.drain_jobs().await;
    change(
        &service,
        "update generation set state = 'retired' where state = 'ready'",
    )
    .await;
    let until = service.app.clock.now() + TimeDelta::minutes(10);
    set_reclaiming(&service, until).await;

    begin(&acme).await;
    service.drain_jobs().await;

    assert_eq!(states(&acme).await, ["building", "retired", "live"]);
    assert_eq!(listed(&acme).await[0]["done"], 0);
    service.clock.advance(TimeDelta::minutes(11));
    service.drain_jobs().await;
    assert_eq!(states(&acme).await, ["ready", "retired", "live"]);
    assert_eq!(points(&service, held.tenant, NEW).await, 2);
}

async fn set_reclaiming(service: &TestApp, until: chrono::DateTime<chrono::Utc>) {
    let mut write = service.app.db.write(Scope::Operator).await.expect("a writer");
    on!(write, c => sqlx::query("update generation set reclaiming_until = $1 where state = 'retired'").bind(until).execute(c).await.map(drop))
        .expect("changed");
    write.commit().await.expect("committed");
}

#[tokio::test]
async fn a_chunk_that_is_edited_while_its_index_is_mended_is_mended_as_edited() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .set("embedding.cache_mb", 0)
        .start()
        .await;
    let held = Held::with_documents(&service, 1).await;
    let space = service.app.spaces.wanted().clone();
    let tenant = retrieval::TenantId(held.tenant.0);
    let lost = space.index.list(tenant, None, 1).await.expect("a point")[0].chunk_id;
    space
        .index
        .delete_chunks(tenant, vec![lost])
        .await
        .expect("deleted");
    embedder.hold();

    let mending = verify::compare(&service.app, held.tenant, &space, true);
    let edit = async {
        embedder.wait_held(1).await;
        change(&service, "update chunk set text = 'Table0 is waxed.'").await;
        embedder.let_one_go();
    };
    let (mended, ()) = tokio::join!(mending, edit);

    assert_eq!(mended.expect("mended").missing, 1);
    let left = verify::compare(&service.app, held.tenant, &space, false)
        .await
        .expect("compared");
    assert!(left.agree(), "{left:?}");
}

#[tokio::test]
async fn texts_that_differ_where_the_counts_agree_are_found_in_turn_and_mended() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 3).await;
    let space = service.app.spaces.wanted().clone();
    let tenant = retrieval::TenantId(held.tenant.0);
    let stored = space.index.list(tenant, None, 10).await.expect("points");
    assert!(
        operator::verify_some(&service.app)
            .await
            .expect("compared")
            .is_empty()
    );
    put_point(
        &service,
        &held,
        &space.name,
        stored[1].chunk_id.0,
        "Another text.",
    )
    .await;
    assert!(
        operator::check_counts(&service.app)
            .await
            .expect("counted")
            .is_empty()
    );

    assert_eq!(
        operator::verify_some(&service.app).await.expect("compared"),
        [held.tenant]
    );
    service.drain_jobs().await;

    assert!(
        operator::verify_some(&service.app)
            .await
            .expect("compared")
            .is_empty()
    );
    for number in 0..3 {
        let query = format!("How often is Table{number} oiled?");
        let found = search(&held.tenant(&service), &held.chatbot, &query).await;
        assert_eq!(found["items"][0]["text"], text_of(number), "{found}");
    }
}

/// Takes a chunk out of the index.
async fn lose_one(service: &TestApp, tenant_id: TenantId) -> ChunkId {
    let index = service.app.spaces.wanted().index.clone();
    let tenant = retrieval::TenantId(tenant_id.0);
    let lost = index.list(tenant, None, 1).await.expect("a point")[0].chunk_id;
    index.delete_chunks(tenant, vec![lost]).await.expect("deleted");
    ChunkId(lost.0)
}

async fn queue<J: Job>(service: &TestApp, tenant_id: TenantId, job: &J) {
    let mut write = service.app.db.write(tenant_id).await.expect("a transaction");
    jobs::enqueue(&service.app, &mut write, tenant_id, job)
        .await
        .expect("queued");
    write.commit().await.expect("committed");
}

#[tokio::test]
async fn chunks_that_a_job_puts_in_once_more_are_no_difference_until_it_is_done() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let wrong = async || operator::check_counts(&service.app).await.expect("counted");

    let lost = lose_one(&service, held.tenant).await;
    let chunk_ids = vec![lost];
    queue(&service, held.tenant, &PutBackChunks { chunk_ids }).await;
    assert_eq!(wrong().await, []);
    service.drain_jobs().await;
    assert_eq!(wrong().await, [], "it is back");

    lose_one(&service, held.tenant).await;
    let weighing = WeighAnew {
        document_id: DocumentId::new(),
        language: String::new(),
        from_position: 0,
    };
    queue(&service, held.tenant, &weighing).await;
    assert_eq!(wrong().await, []);
    service.drain_jobs().await;
    assert_eq!(wrong().await, [held.tenant], "that was another document");
}

#[tokio::test]
async fn an_index_that_does_not_answer_keeps_no_other_from_being_checked() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let service = with_new_model(service, &new_embedder(), "wait").await;
    let acme = held.tenant(&service);
    let id = begin(&acme).await;
    service.drain_jobs().await;
    activate(&acme, &id).await;
    let new = service.app.space(NEW).await.expect("a space");
    let tenant = retrieval::TenantId(held.tenant.0);
    let lost = new.index.list(tenant, None, 1).await.expect("a point")[0].chunk_id;
    new.index
        .delete_chunks(tenant, vec![lost])
        .await
        .expect("deleted");
    let old = service.app.space(OLD).await.expect("a space");
    old.index.close().await.expect("closed");

    let wrong = operator::check_counts(&service.app).await.expect("counted");

    assert_eq!(wrong, [held.tenant]);
}

/// Asks for a test set of so many questions.
async fn make_test_set(held: &Held, service: &TestApp, count: usize) {
    let questions: Vec<Value> = (0..count)
        .map(|number| {
            json!({
                "question": format!("How often, in each and every single year, is Table{number} oiled by whoever does that?"),
                "answer": format!("oiled {number} times"),
            })
        })
        .collect();
    let acme = held.tenant(service);
    acme.post(
        &format!("/api/chatbots/{}/evals", held.chatbot),
        json!({ "name": "Tables", "questions": questions }),
    )
    .await
    .expect(201);
}

#[tokio::test]
async fn a_comparison_goes_on_where_it_was_and_asks_no_question_twice() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 4).await;
    make_test_set(&held, &service, 4).await;
    let embedder = new_embedder();
    embedder.answer_questions(2);
    let service = with_new_model(service, &embedder, "wait").await;
    begin(&held.tenant(&service)).await;
    service.drain_jobs().await;
    assert_eq!(states(&held.tenant(&service)).await, ["building", "live"]);
    assert_eq!(count_rows(&service, "generation_answer").await, 2);

    // Its process may end whenever it likes.
    let service = with_new_model(service, &embedder, "wait").await;
    embedder.answer_questions(usize::MAX);
    service.clock.advance(TimeDelta::minutes(5));
    service.drain_jobs().await;

    let acme = held.tenant(&service);
    assert_eq!(states(&acme).await, ["ready", "live"]);
    let comparison = listed(&acme).await[0]["comparison"].clone();
    assert_eq!(
        (
            &comparison["questions"],
            &comparison["judged"],
            &comparison["unfinished"]
        ),
        (&json!(4), &json!(4), &Value::Null),
        "{comparison}"
    );
    let mut asked = embedder.take_questions();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 4);
    assert_eq!(count_rows(&service, "generation_answer").await, 0);
}

#[tokio::test]
async fn a_comparison_that_cannot_be_paid_says_so_and_the_generation_is_ready() {
    let model = ScriptedModel::start().await;
    let folder = TempDir::new().expect("a folder");
    let prices = folder.path().join("prices.toml");
    std::fs::write(
        &prices,
        "version = \"test\"\n[[model]]\nname = \"scripted-embedding\"\nembedding = 20000\n",
    )
    .expect("written");
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    make_test_set(&held, &service, 30).await;
    let (prices, base_url, dimension) = (
        prices.display().to_string(),
        model.base_url(),
        model.dimension().to_string(),
    );
    let old = service.embedder().into_iter().collect();
    let service = service
        .restart_remembering(
            None,
            old,
            &[
                ("embedding.backend", "openai"),
                ("embedding.base_url", &base_url),
                ("embedding.model", "scripted-embedding"),
                ("embedding.dimension", &dimension),
                ("llm.price_book", &prices),
                ("index.on_model_change", "wait"),
            ],
        )
        .await;
    let acme = held.tenant(&service);
    acme.patch("/api/tenant", json!({ "monthly_token_limit": 200 }))
        .await
        .expect(200);

    begin(&acme).await;
    service.drain_jobs().await;

    let latest = listed(&acme).await[0].clone();
    let comparison = &latest["comparison"];
    assert_eq!(latest["state"], "ready", "{latest}");
    assert_eq!(comparison["unfinished"], "budget_exceeded", "{latest}");
    let (asked, left) = (
        comparison["questions"].as_i64().expect("a number"),
        comparison["not_asked"].as_i64().expect("a number"),
    );
    assert!(asked > 0 && left > 0 && asked + left == 30, "{comparison}");
}

#[tokio::test]
async fn the_way_back_is_closed_while_the_index_behind_it_is_filled_again() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let service = with_new_model(service, &new_embedder(), "wait").await;
    let acme = held.tenant(&service);
    let id = begin(&acme).await;
    service.drain_jobs().await;
    activate(&acme, &id).await;
    let lost = match service.app.db {
        frontdesk::db::Db::Sqlite { .. } => "update generation set is_filled = 0 where state = 'standby'",
        frontdesk::db::Db::Postgres(_) => "update generation set is_filled = false where state = 'standby'",
    };
    change(&service, lost).await;

    let early = acme
        .post(&format!("{GENERATIONS}/{id}/rollback"), json!({}))
        .await
        .expect(409);

    assert_eq!(early.code(), "generation_not_ready");
    operator::take_up(&service.app).await.expect("upkeep");
    service.drain_jobs().await;
    acme.post(&format!("{GENERATIONS}/{id}/rollback"), json!({}))
        .await
        .expect(200);
}

#[tokio::test]
async fn without_a_way_back_the_old_generation_stays_as_long_as_a_question_may_need_it() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let embedder = new_embedder();
    let settings = [
        ("index.on_model_change", "wait"),
        ("index.keep_previous_hours", "0"),
    ];
    let service = service
        .restart_with(Some(embedder as Arc<dyn Embedder>), &settings)
        .await;
    let acme = held.tenant(&service);
    let id = begin(&acme).await;
    service.drain_jobs().await;
    activate(&acme, &id).await;

    for (minutes, expected) in [(0, "standby"), (59, "standby"), (2, "retired")] {
        service.clock.advance(TimeDelta::minutes(minutes));
        operator::take_up(&service.app).await.expect("upkeep");
        service.drain_jobs().await;
        assert_eq!(states(&acme).await, ["live", expected]);
    }
}

#[tokio::test]
async fn swaps_at_once_beside_new_documents_leave_one_that_is_live_and_nothing_missing() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 2).await;
    let service = with_new_model(service, &new_embedder(), "wait").await;
    let acme = held.tenant(&service);
    let desk = Chatbot {
        tenant: &acme,
        id: held.chatbot.clone(),
    };
    let id = begin(&acme).await;
    service.drain_jobs().await;

    let (activation, way_back) = (
        format!("{GENERATIONS}/{id}/activate"),
        format!("{GENERATIONS}/{id}/rollback"),
    );
    let swaps = async {
        for _ in 0..6 {
            let both = [&activation, &way_back, &activation, &way_back];
            let replies = both.map(|path| acme.post(path, json!({})));
            for reply in futures::future::join_all(replies).await {
                assert!([200, 409].contains(&reply.status.as_u16()), "{}", reply.text);
            }
            let live = states(&acme).await;
            let live = live.iter().filter(|state| *state == "live").count();
            assert_eq!(live, 1);
        }
    };
    let publishing = async {
        for number in 2..10 {
            desk.publish(&format!("{number}.md"), &text_of(number)).await;
        }
    };
    tokio::join!(swaps, publishing);
    service.drain_jobs().await;

    for space in [OLD, NEW] {
        assert_eq!(points(&service, held.tenant, space).await, 10, "{space}");
    }
    assert_eq!(count_rows(&service, "generation_gap").await, 0);
}

#[tokio::test]
async fn a_large_document_that_was_begun_for_the_former_generation_is_whole_in_the_one_that_took_over() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let held = Held::with_documents(&service, 1).await;
    embedder.hold();
    {
        let acme = held.tenant(&service);
        let desk = Chatbot {
            tenant: &acme,
            id: held.chatbot.clone(),
        };
        let log: String = (0..60_000)
            .map(|number| format!("request{number} answered\n"))
            .collect();
        desk.upload(&[("requests.txt", log.as_bytes())]).await.expect(202);
    }
    let worker = spawn_worker(&service.app);
    embedder.let_first_pass().await;
    kill(worker).await;
    embedder.let_one_go();
    assert!(waiting_chunks(&service).await > 0);

    // While nobody works on it, another model takes over, and what the former had is removed.
    let service = with_new_model(service, &new_embedder(), "wait").await;
    let acme = held.tenant(&service);
    let id = begin(&acme).await;
    service.drain_jobs().await;
    activate(&acme, &id).await;
    reclaim(&service).await;

    assert_eq!(states(&acme).await, ["live", "retired"]);
    assert_nothing_staged(&service).await;
    let chunks = count_rows(&service, "chunk").await;
    assert!(chunks > 512, "{chunks}");
    assert_eq!(points(&service, held.tenant, NEW).await, chunks as u64);
}
