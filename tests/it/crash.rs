//! `kill -9` of the real server: what was answered with success is there, and what was begun is finished, once.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::engine;
use crate::harness::mortal::Mortal;
use crate::harness::openai::{EmbeddingFault, Script, ScriptedModel};
use crate::harness::work::until;

/// Documents of one import.
const DOCUMENTS: usize = 60;

fn page(number: usize) -> (String, String) {
    let sections: String = (0..6)
        .map(|section| {
            format!(
                "## Shelf {number}x{section}\n\n{}\n\n",
                format!("Item{number}x{section} lies here. ").repeat(50)
            )
        })
        .collect();
    (format!("shelf-{number:02}.md"), sections)
}

#[tokio::test]
async fn an_import_that_is_killed_again_and_again_ends_with_every_document_indexed_once() {
    let mut server = Mortal::start().await;
    let chatbot = server.chatbot().await;

    for batch in 0..DOCUMENTS / 20 {
        let taken = server
            .upload(&chatbot, (batch * 20..(batch + 1) * 20).map(page).collect())
            .await;
        assert_eq!(taken["items"].as_array().map(Vec::len), Some(20));
        server.die_and_rise().await;
        // Some more are done, then it dies again, in the middle of others.
        let done = server.count(&chatbot, "indexed").await;
        until("the import goes on", async || {
            server.count(&chatbot, "indexed").await > done
        })
        .await;
        server.die_and_rise().await;
    }
    until("everything is indexed", async || {
        server.count(&chatbot, "indexed").await == DOCUMENTS
    })
    .await;
    until("no job is left", async || {
        server.get("/api/jobs?state=running").await["items"] == json!([])
            && server.get("/api/jobs?state=queued").await["items"] == json!([])
    })
    .await;

    let documents = server.documents(&chatbot).await;
    let mut names: Vec<&str> = documents
        .iter()
        .filter_map(|document| document["file_name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        (0..DOCUMENTS).map(|number| page(number).0).collect::<Vec<_>>()
    );
    for number in [0, 31, 59] {
        let found = server
            .post(
                &format!("/api/chatbots/{chatbot}/search"),
                json!({ "query": format!("Item{number}x3") }),
            )
            .await
            .expect(200)
            .json();
        assert!(
            found["items"][0]["text"]
                .as_str()
                .is_some_and(|text| text.contains(&format!("Item{number}x3 "))),
            "{found}"
        );
    }
    let original = server
        .request(
            Method::GET,
            &format!(
                "/api/documents/{}/file",
                documents[0]["id"].as_str().expect("an id")
            ),
        )
        .send()
        .await
        .expect("an answer");
    assert_eq!(original.text().await.expect("text"), page(DOCUMENTS - 1).1);

    server.die().await;
    let chunks = documents
        .iter()
        .map(|document| document["chunks"].as_i64().expect("a count"))
        .sum();
    server.check_stores(chunks).await;
}

fn embedding(model: &ScriptedModel, name: &str) -> Vec<String> {
    vec![
        "embedding.backend=openai".to_owned(),
        format!("embedding.base_url={}", model.base_url()),
        format!("embedding.model={name}"),
        format!("embedding.dimension={}", model.dimension()),
    ]
}

#[tokio::test]
async fn a_generation_that_is_killed_again_and_again_goes_live_complete() {
    let (old, new) = (ScriptedModel::start().await, ScriptedModel::start().await);
    new.set_dimension(old.dimension() / 2);
    let mut server = Mortal::start_with(embedding(&old, "old-words")).await;
    let chatbot = server.chatbot().await;
    for batch in 0..DOCUMENTS / 20 {
        let pages = (batch * 20..(batch + 1) * 20).map(page).collect();
        server.upload(&chatbot, pages).await;
    }
    until("everything is indexed", async || {
        server.count(&chatbot, "indexed").await == DOCUMENTS
    })
    .await;
    let latest = async |server: &Mortal| server.get("/api/index/generations").await["items"][0].clone();
    for _ in 0..4 {
        new.push_fault(EmbeddingFault::Late(Duration::from_millis(300)));
    }

    server.rise_with(embedding(&new, "new-words")).await;
    for _ in 0..3 {
        let asked = new.requests().len();
        until("the new model is asked", async || {
            new.requests().len() > asked || latest(&server).await["state"] == "live"
        })
        .await;
        server.die_and_rise().await;
    }
    until("the new generation is live", async || {
        let latest = latest(&server).await;
        let embedding = latest["embedding"].as_str().unwrap_or_default();
        latest["state"] == "live" && embedding.starts_with("new-words@")
    })
    .await;

    for number in [0, 31, 59] {
        let query = json!({ "query": format!("Item{number}x3") });
        let path = format!("/api/chatbots/{chatbot}/search");
        let found = server.post(&path, query).await.expect(200).json();
        assert!(found["degraded"].is_null(), "{found}");
        assert!(
            found["items"][0]["text"]
                .as_str()
                .is_some_and(|text| text.contains(&format!("Item{number}x3 "))),
            "{found}"
        );
    }
    server.die().await;
    let compared = server.command(&["index", "verify"]).await;
    let told = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(
        compared.status.success() && told.contains("2 compared, 0 differing"),
        "{told}"
    );
}

#[tokio::test]
async fn another_cut_that_is_killed_again_and_again_goes_live_complete() {
    let model = ScriptedModel::start().await;
    let mut server = Mortal::start_with(embedding(&model, "words")).await;
    let chatbot = server.chatbot().await;
    for batch in 0..DOCUMENTS / 20 {
        let pages = (batch * 20..(batch + 1) * 20).map(page).collect();
        server.upload(&chatbot, pages).await;
    }
    until("everything is indexed", async || {
        server.count(&chatbot, "indexed").await == DOCUMENTS
    })
    .await;
    let sources = server.get(&format!("/api/chatbots/{chatbot}/sources")).await;
    let source = &sources["items"][0]["id"];
    let latest = async |server: &Mortal| {
        let all = server.get("/api/index/generations").await;
        let all = all["items"].as_array().expect("items").clone();
        let cut = |one: &Value| one["kind"] == "chunking" && one["chunking"]["max_tokens"] == 40;
        all.into_iter().find(cut).unwrap_or_default()
    };
    for _ in 0..4 {
        model.push_fault(EmbeddingFault::Late(Duration::from_millis(300)));
    }

    let wanted = json!({ "source_id": source, "chunking": { "max_tokens": 40, "overlap_tokens": 0 } });
    server
        .post("/api/index/generations?activate=true", wanted)
        .await
        .expect(202);
    for _ in 0..3 {
        let asked = model.requests().len();
        until("the model is asked", async || {
            model.requests().len() > asked || latest(&server).await["state"] == "live"
        })
        .await;
        server.die_and_rise().await;
    }
    until("the new cut is live", async || {
        latest(&server).await["state"] == "live"
    })
    .await;

    for number in [0, 31, 59] {
        let query = json!({ "query": format!("Item{number}x3") });
        let path = format!("/api/chatbots/{chatbot}/search");
        let found = server.post(&path, query).await.expect(200).json();
        let best = found["items"][0]["text"].as_str().unwrap_or_default();
        assert!(
            best.contains(&format!("Item{number}x3 ")) && best.len() < 600,
            "{found}"
        );
    }
    server.die().await;
    let compared = server.command(&["index", "verify"]).await;
    let told = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(
        compared.status.success() && told.contains("1 compared, 0 differing"),
        "{told}"
    );
}

#[tokio::test]
async fn what_was_answered_with_success_survives_a_kill_right_after() {
    let mut server = Mortal::start().await;
    let chatbot = server.chatbot().await;
    server.die_and_rise().await;

    let taken = server
        .upload(
            &chatbot,
            vec![(
                "oak.md".to_owned(),
                "Oak tables are oiled twice a year.".to_owned(),
            )],
        )
        .await;
    server.die_and_rise().await;
    let id = taken["items"][0]["id"].as_str().expect("an id");
    until("it is indexed", async || {
        server.get(&format!("/api/documents/{id}")).await["state"] == "indexed"
    })
    .await;
    server.die_and_rise().await;

    let answer = server
        .post(
            "/api/chat/message",
            json!({ "chatbot_id": chatbot, "message": "When are oak tables oiled?" }),
        )
        .await
        .expect(200)
        .json();
    server.die_and_rise().await;
    assert!(
        answer["answer"]
            .as_str()
            .is_some_and(|text| text.contains("twice a year")),
        "{answer}"
    );
    let conversation = server
        .get(&format!(
            "/api/conversations/{}",
            answer["conversation_id"].as_str().expect("an id")
        ))
        .await;
    assert_eq!(
        conversation["messages"][0]["content"],
        "When are oak tables oiled?"
    );
    assert_eq!(conversation["messages"][1]["content"], answer["answer"]);
    assert_eq!(conversation["messages"][1]["state"], "complete");
    assert_eq!(conversation["messages"][1]["citations"], answer["citations"]);

    let deleted = server
        .request(Method::DELETE, &format!("/api/documents/{id}"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(deleted.status().as_u16(), 204);
    server.die_and_rise().await;
    let found = server
        .post(
            &format!("/api/chatbots/{chatbot}/search"),
            json!({ "query": "oak tables" }),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(found["items"], json!([]));
}

#[tokio::test]
async fn an_answer_that_a_kill_cut_off_is_kept_and_told_apart_from_a_whole_one() {
    let model = ScriptedModel::start().await;
    let mut server = Mortal::start_with(vec![
        format!("llm.base_url={}", model.base_url()),
        "llm.model=scripted".to_owned(),
    ])
    .await;
    let chatbot = server.chatbot().await;
    let oak = (
        "oak.md".to_owned(),
        "Oak tables are oiled twice a year.".to_owned(),
    );
    let taken = server.upload(&chatbot, vec![oak]).await;
    let id = taken["items"][0]["id"].as_str().expect("an id");
    until("it is indexed", async || {
        server.get(&format!("/api/documents/{id}")).await["state"] == "indexed"
    })
    .await;
    model.push(Script::HangAfter("Twice a"));
    let question = json!({ "chatbot_id": chatbot, "message": "When are oak tables oiled?", "stream": true });
    let mut response = server
        .request(Method::POST, "/api/chat/message")
        .json(&question)
        .send()
        .await
        .expect("an answer");
    response.chunk().await.expect("the stream begins");

    server.die_and_rise().await;

    let listed = server.get("/api/conversations").await["items"][0].clone();
    assert_eq!(listed["message_count"], 2);
    let path = format!("/api/conversations/{}", listed["id"].as_str().expect("an id"));
    let answer = server.get(&path).await["messages"][1].clone();
    // Several processes may share a PostgreSQL database, so that only time tells there who is dead.
    let expected = if engine() == "postgres" {
        (json!("writing"), Value::Null)
    } else {
        (json!("failed"), json!("interrupted"))
    };
    assert_eq!((answer["state"].clone(), answer["error_code"].clone()), expected);
    // The model was asked, and will be paid: the call is booked as it was reserved, as soon as its turn is known to be dead.
    let total = server.get("/api/usage").await["total"].clone();
    let estimated = if engine() == "postgres" { 0 } else { 1 };
    assert_eq!(total["estimated_calls"], estimated, "{total}");
}

#[tokio::test]
async fn a_question_that_a_kill_cut_off_while_it_was_embedded_is_booked_once_without_any_limit_set() {
    let model = ScriptedModel::start().await;
    let mut server = Mortal::start_with(vec![
        "embedding.backend=openai".to_owned(),
        format!("embedding.base_url={}", model.base_url()),
        "embedding.model=scripted-embedding".to_owned(),
        format!("embedding.dimension={}", model.dimension()),
        // The same question is bought again.
        "embedding.cache_mb=0".to_owned(),
    ])
    .await;
    let chatbot = server.chatbot().await;
    let oak = (
        "oak.md".to_owned(),
        "Oak tables are oiled twice a year.".to_owned(),
    );
    let taken = server.upload(&chatbot, vec![oak]).await;
    let id = taken["items"][0]["id"].as_str().expect("an id");
    until("it is indexed", async || {
        server.get(&format!("/api/documents/{id}")).await["state"] == "indexed"
    })
    .await;
    let question = json!({ "chatbot_id": chatbot, "message": "When are oak tables oiled?" });
    server
        .post("/api/chat/message", question.clone())
        .await
        .expect(200);
    let before = server.get("/api/usage").await["total"].clone();
    let asked = model.requests().len();
    model.push_fault(EmbeddingFault::Late(Duration::from_secs(3600)));
    let cut_off = server
        .request(Method::POST, "/api/chat/message")
        .json(&question)
        .send();
    let cut_off = tokio::spawn(cut_off);
    until("the embedding is asked for", async || {
        model.requests().len() > asked
    })
    .await;

    server.die_and_rise().await;
    server.die_and_rise().await;

    assert!(cut_off.await.expect("no panic").is_err());
    let total = server.get("/api/usage").await["total"].clone();
    let of = |total: &Value, what: &str| total[what].as_i64().expect("a number");
    assert_eq!(of(&before, "estimated_calls"), 0, "{before}");
    assert_eq!(of(&total, "estimated_calls"), 1, "{total}");
    assert_eq!(of(&total, "calls"), of(&before, "calls") + 1, "{total}");
    assert!(
        of(&total, "embedding_tokens") > of(&before, "embedding_tokens"),
        "{total}"
    );
}
