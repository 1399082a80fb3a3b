//! A model is more than its name: other weights in the same folder, another server under the same model's name, or another
//! process that has no such model, never answer with vectors that they did not make.

use std::path::Path;
use std::sync::Arc;

use chrono::TimeDelta;
use frontdesk::config::Config;
use frontdesk::db::Scope;
use frontdesk::jobs::runner::{self, JobKinds};
use frontdesk::on;
use retrieval::embed::Embedder;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::app::{TestApp, TestOptions};
use crate::harness::databases::{create_postgres_database, postgres_server};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::generations::{Held, NEW, listed, search, states, text_of};
use crate::harness::openai::ScriptedModel;
use crate::harness::work::until;

const QUESTION: &str = "How often is Table1 oiled?";

/// Weights of a model called `words`.
fn weights(fingerprint: Option<&str>) -> Arc<WatchedEmbedder> {
    WatchedEmbedder::with_fingerprint("words", 256, fingerprint)
}

async fn with_model(service: TestApp, embedder: &Arc<WatchedEmbedder>) -> TestApp {
    let embedder = embedder.clone() as Arc<dyn Embedder>;
    let settings = [("index.on_model_change", "activate")];
    service
        .restart_remembering(Some(embedder), Vec::new(), &settings)
        .await
}

/// The embedding of the newest generation.
async fn embedding(held: &Held, service: &TestApp) -> String {
    let all = listed(&held.tenant(service)).await;
    all[0]["embedding"].as_str().expect("a name").to_owned()
}

fn has_vector(found: &Value) -> bool {
    found["items"][0]["similarity"].is_number() && found["degraded"].is_null()
}

#[tokio::test]
async fn other_weights_under_the_same_name_embed_everything_again_and_meet_no_vector_of_the_former() {
    let former = weights(Some("aaaaaaaaaaaaaaaaaaaaaaaa"));
    let service = TestOptions::default().embedder(former.clone()).start().await;
    let held = Held::with_documents(&service, 3).await;
    assert_eq!(embedding(&held, &service).await, "words@aaaaaaaaaaaa/256");

    let latter = weights(Some("bbbbbbbbbbbbbbbbbbbbbbbb"));
    let service = with_model(service, &latter).await;

    let acme = held.tenant(&service);
    let found = search(&acme, &held.chatbot, QUESTION).await;
    assert_eq!(found["degraded"][0]["code"], "embedding_unavailable", "{found}");
    assert!(latter.take_questions().is_empty(), "it asks no vectors of others");
    service.drain_jobs().await;
    assert_eq!(embedding(&held, &service).await, "words@bbbbbbbbbbbb/256");
    assert_eq!(latter.take_documents().len(), 3);
    let found = search(&acme, &held.chatbot, QUESTION).await;
    assert!(has_vector(&found), "{found}");
}

#[tokio::test]
async fn the_same_weights_are_the_same_model_after_any_number_of_starts() {
    let model = weights(Some("aaaaaaaaaaaaaaaaaaaaaaaa"));
    let service = TestOptions::default().embedder(model.clone()).start().await;
    let held = Held::with_documents(&service, 3).await;
    assert_eq!(model.take_documents().len(), 3);

    let service = with_model(with_model(service, &model).await, &model).await;

    assert_eq!(service.drain_jobs().await, 0);
    assert!(model.take_documents().is_empty());
    let found = search(&held.tenant(&service), &held.chatbot, QUESTION).await;
    assert!(has_vector(&found), "{found}");
}

#[tokio::test]
async fn what_was_embedded_before_fingerprints_were_kept_belongs_to_the_first_model_of_that_name() {
    let service = TestOptions::default().embedder(weights(None)).start().await;
    let held = Held::with_documents(&service, 3).await;

    let present = weights(Some("aaaaaaaaaaaaaaaaaaaaaaaa"));
    let service = with_model(service, &present).await;
    assert_eq!(service.drain_jobs().await, 0, "nothing is embedded again");
    let found = search(&held.tenant(&service), &held.chatbot, QUESTION).await;
    assert!(has_vector(&found), "{found}");

    let service = with_model(service, &weights(Some("bbbbbbbbbbbbbbbbbbbbbbbb"))).await;
    service.drain_jobs().await;
    assert_eq!(embedding(&held, &service).await, "words@bbbbbbbbbbbb/256");
    assert_eq!(
        states(&held.tenant(&service)).await,
        ["live", "standby"],
        "the former keeps what it made"
    );
}

#[tokio::test]
async fn another_server_under_the_same_models_name_is_another_model() {
    let (one, other) = (ScriptedModel::start().await, ScriptedModel::start().await);
    let settings = |model: &ScriptedModel| {
        [
            ("embedding.backend", "openai".to_owned()),
            ("embedding.base_url", model.base_url()),
            ("embedding.model", "scripted-embedding".to_owned()),
            ("embedding.dimension", model.dimension().to_string()),
        ]
    };
    let options = settings(&one).iter().fold(
        TestOptions::default().without_embedder(),
        |options, (path, value)| options.set(path, value),
    );
    let service = options.start().await;
    let held = Held::with_documents(&service, 2).await;
    let before = embedding(&held, &service).await;

    let changed = settings(&other);
    let changed: Vec<(&str, &str)> = changed
        .iter()
        .map(|(path, value)| (*path, value.as_str()))
        .collect();
    let service = service.restart_remembering(None, Vec::new(), &changed).await;
    service.drain_jobs().await;

    let after = embedding(&held, &service).await;
    assert!(
        before.starts_with("scripted-embedding@") && before != after,
        "{before} {after}"
    );
    assert!(!other.requests().is_empty(), "it embedded the documents");
    let found = search(&held.tenant(&service), &held.chatbot, QUESTION).await;
    assert!(has_vector(&found), "{found}");
}

#[tokio::test]
async fn a_model_that_could_not_be_loaded_is_tried_again_without_a_restart() {
    let folder = TempDir::new().expect("a folder");
    let (there, away) = (folder.path().join("tiny-bert"), folder.path().join("away"));
    copy_model(&there);
    let service = TestOptions::default()
        .without_embedder()
        .set("embedding.model_dir", there.display())
        .start()
        .await;
    let held = Held::with_documents(&service, 2).await;
    let mut at_work = service;
    std::fs::rename(&there, &away).expect("moved");
    let settings = [("index.on_model_change", "wait")];
    let another: Arc<dyn Embedder> = WatchedEmbedder::new();
    at_work = at_work
        .restart_remembering(Some(another), Vec::new(), &settings)
        .await;
    let acme = held.tenant(&at_work);
    let found = search(&acme, &held.chatbot, QUESTION).await;
    assert_eq!(found["degraded"][0]["code"], "embedding_unavailable", "{found}");

    std::fs::rename(&away, &there).expect("moved back");
    let found = search(&acme, &held.chatbot, QUESTION).await;
    assert!(!has_vector(&found), "not with every question: {found}");
    at_work.clock.advance(TimeDelta::seconds(61));

    let found = search(&acme, &held.chatbot, QUESTION).await;
    assert!(has_vector(&found), "{found}");
}

fn copy_model(to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("retrieval/fixtures/tiny-bert");
    std::fs::create_dir_all(to.join("1_Pooling")).expect("a folder");
    for file in [
        "1_Pooling/config.json",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
    ] {
        std::fs::copy(from.join(file), to.join(file)).expect("copied");
    }
}

/// Two processes that share rows and index, and differ in their configuration: one is not restarted yet.
#[tokio::test]
async fn while_processes_of_two_configurations_run_nothing_is_mixed_and_no_attempt_is_burnt() {
    let Some(server) = postgres_server() else {
        eprintln!("LEFT OUT: there is no PostgreSQL; scripts/with-postgres starts one");
        return;
    };
    let service = TestOptions::default()
        .set("database.url", create_postgres_database(&server).await)
        .set("database.max_connections", 8)
        .set("index.backend", "pgvector")
        .set("index.pgvector.max_connections", 4)
        .start()
        .await;
    let held = Held::with_documents(&service, 4).await;
    let embedder = WatchedEmbedder::named("longer-words", 384);
    let config = Config {
        ..service.app.config.clone()
    };
    let replica = service
        .replica_of(config, embedder.clone(), JobKinds::default())
        .await;
    let acme = held.tenant(&service);
    assert_eq!(states(&acme).await, ["building", "live"]);

    // The old process takes the work more than once, and gives it back.
    for _ in 0..20 {
        runner::drain(&service.app).await.expect("the queue works");
        service.clock.advance(TimeDelta::seconds(30));
    }
    assert_eq!(states(&acme).await, ["building", "live"]);
    let found = search(&acme, &held.chatbot, QUESTION).await;
    assert!(has_vector(&found), "the old model answers: {found}");
    until("the new process makes it", async || {
        service.clock.advance(TimeDelta::seconds(30));
        runner::drain(&replica).await.expect("the queue works");
        states(&acme).await == ["live", "standby"]
    })
    .await;

    let mut conn = replica.db.read(Scope::Operator).await.expect("a connection");
    let attempts: i64 = on!(conn, c => sqlx::query_scalar("select max(attempt) from job where kind = 'fill_generation'").fetch_one(c).await)
        .expect("attempts");
    assert!(attempts <= 1, "{attempts}");
    drop(conn);
    assert_eq!(listed(&acme).await[0]["embedding"], NEW);
    let found = search(&acme, &held.chatbot, QUESTION).await;
    assert_eq!(found["items"][0]["text"], text_of(1), "{found}");
    assert_eq!(
        found["degraded"][0]["code"], "embedding_unavailable",
        "the old process compares no vectors: {found}"
    );
    assert!(found["items"][0]["similarity"].is_null(), "{found}");
    replica.close().await;
}
