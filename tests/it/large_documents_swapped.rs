//! A new version of many chunks takes the place of the one that answers: whole and in one moment, whatever ends what leads there
//! and what comes after.

use chrono::TimeDelta;
use frontdesk::db::DatabaseUrl;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, TestApp, TestOptions, index_backend};
use crate::harness::databases::run_as_owner;
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{assert_nothing_staged, count_rows, waiting_chunks};
use crate::large_documents::{all_chunks, text_of};

/// The moment in which the new version takes over.
const SHOWING: (&str, &str) = ("update on document_version", "new.state = 'shown'");

/// Half-way through what the old version leaves.
const DROPPING: (&str, &str) = ("delete on chunk", "old.version = 1 and old.position = 1500");

/// A table with a chunk for each row.
fn items(numbers: std::ops::Range<usize>) -> String {
    let rows = numbers.map(|number| format!("item{number} {},{number}\n", "oak ".repeat(150)));
    "Name,Number\n".to_owned() + &rows.collect::<String>()
}

/// From now on this does not happen: an event of a table, and when.
async fn veto(service: &TestApp, (event, when): (&str, &str)) {
    let (url, veto) = match service.app.config.database.url.as_str() {
        "" => (
            DatabaseUrl::Sqlite(service.data_dir().join("frontdesk.db")),
            format!("create trigger veto before {event} when {when} begin select raise(abort, 'vetoed'); end"),
        ),
        url => (
            DatabaseUrl::Postgres(url.to_owned()),
            format!(
                "create function veto() returns trigger language plpgsql as $$ begin raise exception 'vetoed'; end $$;
                 create trigger veto before {event} for each row when ({when}) execute function veto()"
            ),
        ),
    };
    run_as_owner(&url, &veto).await;
}

async fn lift_veto(service: &TestApp, (event, _): (&str, &str)) {
    let (url, lifting) = match service.app.config.database.url.as_str() {
        "" => (
            DatabaseUrl::Sqlite(service.data_dir().join("frontdesk.db")),
            "drop trigger veto".to_owned(),
        ),
        url => {
            let table = event.rsplit(' ').next().expect("a table");
            let lifting = format!("drop trigger veto on {table}; drop function veto()");
            (DatabaseUrl::Postgres(url.to_owned()), lifting)
        }
    };
    run_as_owner(&url, &lifting).await;
}

/// What failed is tried again, and what is left to do is done.
async fn go_on(service: &TestApp) {
    service.clock.advance(TimeDelta::hours(1));
    service.drain_jobs().await;
}

/// Fails unless everything that is told of the document is of the version with these items: its chunks, where they stand in its
/// text, what is found, and what stands around that.
async fn assert_answers(desk: &Chatbot<'_, '_>, id: &str, items: std::ops::Range<usize>, other: usize) {
    let (text, _) = text_of(desk, id).await;
    let text: Vec<char> = text.chars().collect();
    let chunks = all_chunks(desk, id).await;
    assert_eq!(chunks.len(), items.len());
    for (position, (chunk, item)) in chunks.iter().zip(items.clone()).enumerate() {
        assert_eq!(chunk["position"].as_u64(), Some(position as u64));
        assert!(
            chunk["text"].to_string().contains(&format!("item{item} ")),
            "{chunk} is not {item}"
        );
        assert_eq!(span(&text, chunk), chunk["text"], "what stands at {position}");
    }
    let asked = items.start + items.len() / 2;
    let found = desk.search(&format!("item{asked}")).await;
    assert!(
        found[0]["text"].to_string().contains(&format!("item{asked} ")),
        "{found:?}"
    );
    for passage in &found {
        assert_eq!(span(&text, passage), passage["text"], "{passage}");
    }
    let found = desk.search(&format!("item{other}")).await;
    let is_of_other = |passage: &Value| passage["text"].to_string().contains(&format!("item{other} "));
    assert!(!found.iter().any(is_of_other), "{found:?}");
}

fn span(text: &[char], passage: &Value) -> String {
    let offset = |name: &str| usize::try_from(passage[name].as_u64().expect("an offset")).expect("small");
    text[offset("start")..offset("end")].iter().collect()
}

#[tokio::test]
async fn a_document_that_never_answered_is_brought_in_by_short_transactions_and_hidden_until_all_is_there() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let last_group = ("insert on chunk", "new.position = 1500");
    veto(&service, last_group).await;

    let id = desk.publish("items.csv", &items(0..2_000)).await;

    assert_eq!(desk.document(&id).await["state"], "processing");
    let there = count_rows(&service, "chunk").await;
    assert!((1_000..1_500).contains(&there), "{there}");
    assert_eq!(waiting_chunks(&service).await, there);
    assert!(desk.search("item7").await.is_empty());
    assert!(all_chunks(&desk, &id).await.is_empty());

    lift_veto(&service, last_group).await;
    embedder.take_documents();
    go_on(&service).await;

    assert_eq!(desk.document(&id).await["state"], "indexed");
    assert_answers(&desk, &id, 0..2_000, 2_000).await;
    let embedded = i64::try_from(embedder.take_documents().len()).expect("a small number");
    // Where rows go in together with their points, the group that was refused is embedded, and remembered.
    let remembered = if index_backend() == "pgvector" { 256 } else { 0 };
    assert_eq!(embedded, 2_000 - there - remembered);
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_new_version_of_many_chunks_takes_the_old_ones_place_in_one_moment_and_is_never_mixed_with_it() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("items.csv", &items(0..2_500)).await;
    embedder.take_documents();

    // All items but the first one stay, each a place further up.
    veto(&service, SHOWING).await;
    desk.publish("items.csv", &items(1..2_600)).await;

    assert_eq!(desk.document(&id).await["state"], "processing");
    assert_eq!(count_rows(&service, "chunk").await, 2_500 + 2_599);
    assert_answers(&desk, &id, 0..2_500, 2_550).await;

    lift_veto(&service, SHOWING).await;
    veto(&service, DROPPING).await;
    go_on(&service).await;

    assert_eq!(desk.document(&id).await["state"], "indexed");
    assert_eq!(
        count_rows(&service, "chunk").await,
        1_500 + 2_599,
        "a slice of the old rows is gone"
    );
    assert_answers(&desk, &id, 1..2_600, 0).await;

    lift_veto(&service, DROPPING).await;
    go_on(&service).await;

    assert_answers(&desk, &id, 1..2_600, 0).await;
    assert_eq!(
        embedder.take_documents().len(),
        100,
        "only what is new is embedded"
    );
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_new_version_that_is_superseded_before_it_is_shown_is_never_seen() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("items.csv", &items(0..1_900)).await;
    veto(&service, SHOWING).await;
    desk.publish("items.csv", &items(1..2_200)).await;

    // The version after it cannot be read.
    desk.publish("items.csv", ",\n,\n").await;

    let document = desk.document(&id).await;
    assert_eq!(
        (&document["state"], &document["error"]["code"]),
        (&json!("failed"), &json!("no_text"))
    );
    assert_answers(&desk, &id, 0..1_900, 2_150).await;
    go_on(&service).await;
    assert_answers(&desk, &id, 0..1_900, 2_150).await;
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;

    // And another one is waiting when a small one comes.
    desk.publish("items.csv", &items(2..2_300)).await;
    desk.publish("items.csv", &items(4_000..4_003)).await;

    assert_answers(&desk, &id, 4_000..4_003, 7).await;
    lift_veto(&service, SHOWING).await;
    go_on(&service).await;

    assert_answers(&desk, &id, 4_000..4_003, 7).await;
    assert_nothing_staged(&service).await;
    assert_eq!(count_rows(&service, "chunk").await, 3);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn what_an_owner_adds_and_changes_is_of_the_version_that_answers() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("items.csv", &items(0..300)).await;

    let path = format!("/api/documents/{id}/chunks");
    acme.post(&path, json!({ "text": "Walnut is sold out." }))
        .await
        .expect(201);
    let first = all_chunks(&desk, &id).await[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    acme.patch(
        &format!("{path}/{first}"),
        json!({ "text": "Teak is sold out, too." }),
    )
    .await
    .expect(200);

    assert_eq!(all_chunks(&desk, &id).await.len(), 301);
    service.drain_jobs().await;
    let chunks = all_chunks(&desk, &id).await;
    assert_eq!(
        (chunks.len(), &chunks[0]["text"]),
        (301, &json!("Teak is sold out, too."))
    );
    assert_eq!(chunks[300]["text"], "Walnut is sold out.");
    assert_eq!(desk.search("walnut").await[0]["text"], "Walnut is sold out.");
    assert_nothing_staged(&service).await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn what_stands_around_a_passage_is_of_its_own_version() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let settings = json!({ "max_passages": 1, "search": { "context_tokens": 1000 } });
    acme.patch(&format!("/api/chatbots/{}", desk.id), settings)
        .await
        .expect(200);
    desk.publish("items.csv", &items(0..2_100)).await;
    veto(&service, SHOWING).await;
    // Another one stands at each place.
    desk.publish("items.csv", &items(5..2_105)).await;
    model.reply("There are many. [1]");

    desk.ask("item700").await.expect(200);

    let prompt = model.chat_requests()[0].last_message().to_owned();
    let around = [699, 700, 701].map(|item| prompt.contains(&format!("item{item} ")));
    assert_eq!(around, [true; 3], "{prompt}");
}
