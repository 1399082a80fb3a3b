//! A run tells what answered it, and two runs side by side where that differs.

use std::sync::Arc;

use frontdesk::db::Scope;
use frontdesk::on;
use retrieval::embed::Embedder;
use serde_json::{Value, json};

use crate::cuts::{begin, order, small, uploads};
use crate::evals::{evals, furnish, make, run};
use crate::harness::app::{Chatbot, DIMENSION, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::work::spawn_worker;

/// The same model by its name, with weights of its own.
fn weights(fingerprint: &str) -> Arc<WatchedEmbedder> {
    WatchedEmbedder::with_fingerprint("words", DIMENSION, Some(fingerprint))
}

async fn furnished(desk: &Chatbot<'_, '_>) -> String {
    let (returns, _) = furnish(desk).await;
    let questions =
        json!([{ "question": "Within how many days may goods be returned?", "document_ids": [returns] }]);
    make(desk, questions).await.expect(201).id()
}

async fn compared(desk: &Chatbot<'_, '_>, set: &str, before: &Value, after: &Value) -> Value {
    let id = |run: &Value| run["id"].as_str().expect("an id").to_owned();
    let path = format!("{}/{set}/runs/{}/compare/{}", evals(desk), id(before), id(after));
    desk.tenant.get(&path).await.expect(200).json()
}

#[tokio::test]
async fn runs_are_told_apart_by_the_weights_of_their_model_and_by_how_sources_were_cut() {
    let service = TestOptions::default().embedder(weights("f32")).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let set = furnished(&desk).await;
    let first = run(&desk, &set, false).await;
    let (tenant, key, chatbot) = (acme.id, acme.key.clone(), desk.id.clone());

    let int8 = weights("int8") as Arc<dyn Embedder>;
    let service = service.restart_with(Some(int8), &[]).await;
    service.drain_jobs().await;
    let acme = Tenant {
        service: &service,
        id: tenant,
        key,
    };
    let desk = Chatbot {
        tenant: &acme,
        id: chatbot,
    };
    let second = run(&desk, &set, false).await;
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    order(&acme, &cut, "activate", 200).await;
    service.drain_jobs().await;
    let third = run(&desk, &set, false).await;

    assert_eq!(first["embedding_model"], second["embedding_model"]);
    assert_ne!(first["setup"]["embedding"], second["setup"]["embedding"]);
    let source = uploads(&acme).await;
    assert_eq!(
        (&second["setup"]["cuts"], &third["setup"]["cuts"]),
        (
            &json!([{ "source_id": source, "chunking": {} }]),
            &json!([{ "source_id": source, "chunking": small() }])
        )
    );
    assert_eq!(
        compared(&desk, &set, &first, &second).await["setup_difference"],
        json!({ "embedding": true, "cuts": [], "settings": [] })
    );
    assert_eq!(
        compared(&desk, &set, &second, &third).await["setup_difference"],
        json!({ "embedding": false, "cuts": [{ "source_id": source, "before": {}, "after": small() }], "settings": [] })
    );
}

#[tokio::test]
async fn runs_are_told_apart_by_the_settings_that_decide_answers() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let set = furnished(&desk).await;
    let source = uploads(&acme).await.to_string();
    let change = async |change: Value| {
        let path = format!("/api/chatbots/{}", desk.id);
        acme.patch(&path, change).await.expect(200);
        run(&desk, &set, false).await
    };
    let before = run(&desk, &set, false).await;
    let renamed = change(json!({ "name": "Front desk", "no_answer_text": "Ask us." })).await;
    let search = json!({ "source_boosts": { source.as_str(): 2.0 }, "rerank": false });
    let after = change(json!({ "min_similarity": 0.9, "search": search, "prompt": "Be brief." })).await;

    assert_eq!(before["setup"]["settings"]["min_similarity"], 0.4);
    assert_eq!(
        compared(&desk, &set, &before, &renamed).await["setup_difference"],
        json!({ "embedding": false, "cuts": [], "settings": [] })
    );
    let settings = compared(&desk, &set, &renamed, &after).await["setup_difference"]["settings"].clone();
    let named: Vec<&str> = settings
        .as_array()
        .expect("differences")
        .iter()
        .map(|setting| setting["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        named,
        [
            "min_similarity",
            "prompt_hash",
            "search.rerank",
            "search.source_boosts"
        ]
    );
    assert_eq!(
        (&settings[0]["before"], &settings[0]["after"]),
        (&json!(0.4), &json!(0.9))
    );
    assert_eq!(settings[3]["after"], json!({ source.as_str(): 2.0 }));
}

#[tokio::test]
async fn a_run_that_is_overtaken_by_another_cut_says_so() {
    let embedder = weights("f32");
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let set = furnished(&desk).await;
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;

    embedder.hold_questions();
    let runs = format!("{}/{set}/runs", evals(&desk));
    let id = acme.post(&runs, json!({})).await.expect(202).id();
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    order(&acme, &cut, "activate", 200).await;
    embedder.let_one_go();
    worker.await.expect("no panic");
    service.drain_jobs().await;

    let overtaken = acme.get(&format!("{runs}/{id}")).await.expect(200).json();
    assert_eq!(
        (&overtaken["state"], &overtaken["setup"]["changed_meanwhile"]),
        (&json!("done"), &json!(true)),
        "{overtaken}"
    );
    let after = run(&desk, &set, false).await;
    assert_eq!(after["setup"]["changed_meanwhile"], false);
}

#[tokio::test]
async fn runs_of_earlier_versions_are_read_and_compared_as_far_as_they_tell() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let set = furnished(&desk).await;
    let before = run(&desk, &set, false).await;
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query("update eval_run set setup = null").execute(c).await.map(drop))
        .expect("written");
    write.commit().await.expect("stored");
    let after = run(&desk, &set, false).await;

    let compared = compared(&desk, &set, &before, &after).await;

    assert_eq!(
        (&compared["before"]["setup"], &compared["setup_difference"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(compared["questions"][0]["change"], "same");
}
