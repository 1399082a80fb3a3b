//! What an owner keeps out of answers stays out when the page's words change a little, and the owner is told when it
//! cannot.

use frontdesk::knowledge::sync::{Note, RunState};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::sync::desk::{Desk, service_for};
use crate::sync::site::{Answer, Site};

const OFFER: &str = "Every oak table costs only 300 euros until the end of March and no longer.";

/// A page with a passage of its own for each heading.
fn page(offer: &str) -> Answer {
    let body = format!(
        "<!doctype html><html><head><title>Shop</title></head><body><main><h1>Shop</h1><h2>Offers</h2><p>{offer}</p>\
         <h2>Hours</h2><p>The shop opens at ten.</p></main></body></html>"
    );
    Answer::of("text/html; charset=utf-8", body)
}

async fn get(service: &TestApp, desk: &Desk<'_>, path: &str) -> Value {
    let reply = service.send(Method::GET, path, Some(&desk.key), None).await;
    reply.expect(200).json()
}

/// Everything that a search finds.
async fn found(service: &TestApp, desk: &Desk<'_>) -> String {
    let path = format!("/api/chatbots/{}/search", desk.chatbot_id);
    let body = json!({ "query": "oak table euros shop" });
    let reply = service
        .send(Method::POST, &path, Some(&desk.key), Some(body))
        .await;
    reply.expect(200).text
}

#[tokio::test]
async fn a_passage_that_was_switched_off_stays_off_when_the_site_corrects_a_word_of_it() {
    let site = Site::start(&[("/", page(OFFER))]).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let documents = format!("/api/sources/{}/documents", desk.source_id);
    let document = get(&service, &desk, &documents).await["items"][0]["id"].clone();
    let chunks = format!("/api/documents/{}/chunks", document.as_str().expect("an id"));
    let list = get(&service, &desk, &chunks).await;
    let offer = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|chunk| {
            chunk["text"]
                .as_str()
                .is_some_and(|text| text.contains("300 euros"))
        })
        .expect("the offer");
    let path = format!("{chunks}/{}", offer["id"].as_str().expect("an id"));
    let off = Some(json!({ "enabled": false }));
    service
        .send(Method::PATCH, &path, Some(&desk.key), off)
        .await
        .expect(200);

    for month in ["April", "May"] {
        site.put("/", page(&OFFER.replace("March", month)));
        let run = desk.sync().await;

        assert_eq!((run.state, run.changed_count), (RunState::Done, 1));
        assert_eq!(run.notes, []);
        let shown = found(&service, &desk).await;
        assert!(
            shown.contains("opens at ten") && !shown.contains("300 euros"),
            "{shown}"
        );
        let list = get(&service, &desk, &chunks).await;
        assert_eq!(list["stale_changes"], json!([]), "{list}");
        assert!(list.to_string().contains(month), "{list}");
    }

    site.put("/", page("Oak tables are sold out, and new ones cost 400 euros."));
    let run = desk.sync().await;

    assert_eq!(
        (run.state, run.notes.as_slice()),
        (RunState::Done, [Note::ChangesRest].as_slice())
    );
    assert!(found(&service, &desk).await.contains("400 euros"));
    assert_eq!(
        get(&service, &desk, &documents).await["items"][0]["stale_changes"],
        1
    );
    let list = get(&service, &desk, &chunks).await;
    assert!(
        list["stale_changes"][0]["original"].to_string().contains("May"),
        "{list}"
    );
    let behind = format!(
        "{chunks}?after_stale={}",
        list["stale_changes"][0]["id"].as_str().expect("an id")
    );
    assert_eq!(get(&service, &desk, &behind).await["stale_changes"], json!([]));

    site.put("/", page(&OFFER.replace("March", "May")));
    let run = desk.sync().await;
    assert_eq!(run.notes, []);
    assert!(!found(&service, &desk).await.contains("300 euros"));
}

#[tokio::test]
async fn a_neighbour_that_reads_alike_is_not_switched_off_in_place_of_what_has_gone() {
    let berlin = "The showroom in Berlin opens at ten and closes at six on every day but Sunday.";
    let bremen = berlin.replace("Berlin", "Bremen");
    let both = format!(
        "{berlin}</p><p>{}</p><p>{bremen}",
        "Between them lies much land. ".repeat(80)
    );
    let site = Site::start(&[("/", page(&both))]).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let documents = format!("/api/sources/{}/documents", desk.source_id);
    let document = get(&service, &desk, &documents).await["items"][0]["id"].clone();
    let chunks = format!("/api/documents/{}/chunks", document.as_str().expect("an id"));
    let list = get(&service, &desk, &chunks).await;
    let items = list["items"].as_array().expect("items");
    let of = |town: &str| {
        let text = |chunk: &&Value| chunk["text"].as_str().is_some_and(|text| text.contains(town));
        items.iter().find(text).expect("the passage")["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    assert_ne!(of("Berlin"), of("Bremen"), "they are passages of their own");
    let path = format!("{chunks}/{}", of("Berlin"));
    let off = Some(json!({ "enabled": false }));
    service
        .send(Method::PATCH, &path, Some(&desk.key), off)
        .await
        .expect(200);

    site.put(
        "/",
        page(&format!(
            "{}</p><p>{bremen}",
            "Between them lies much land. ".repeat(80)
        )),
    );
    desk.sync().await;

    let list = get(&service, &desk, &chunks).await;
    assert!(
        list["items"]
            .as_array()
            .expect("items")
            .iter()
            .all(|chunk| chunk["enabled"] == true),
        "{list}"
    );
    assert_eq!(list["stale_changes"].as_array().map(Vec::len), Some(1), "{list}");
}
