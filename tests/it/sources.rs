//! Sources as their owners make, see, change and delete them. Reading them is another matter: see `sync`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Reply, TestApp, TestOptions};
use crate::harness::stored::count_rows;

/// Makes a source of this chatbot.
async fn make(desk: &Chatbot<'_, '_>, body: Value) -> Reply {
    desk.tenant
        .post(&format!("/api/chatbots/{}/sources", desk.id), body)
        .await
}

async fn make_website(desk: &Chatbot<'_, '_>, url: &str) -> String {
    make(desk, json!({ "kind": "website", "website": { "url": url } }))
        .await
        .expect(202)
        .id()
}

/// The fields of a JSON object, in alphabetical order.
fn fields(value: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    fields
}

#[tokio::test]
async fn a_new_website_is_queued_with_the_installations_limits() {
    let service = TestOptions::default()
        .set("crawl.max_pages", 70)
        .set("crawl.max_depth", 3)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let source = make(
        &desk,
        json!({ "kind": "website", "website": { "url": "HTTPS://Shop.Example/help#top" } }),
    )
    .await
    .expect(202)
    .json();

    assert_eq!(source["state"], "queued");
    assert_eq!(source["name"], "shop.example");
    assert_eq!(
        source["website"],
        json!({
            "url": "https://shop.example/help", "max_pages": 70, "max_depth": 3, "include": [], "exclude": [],
            "subdomains": false, "keep_query": true, "header_names": [], "render": false, "delay_ms": null,
            "shrink_limit_percent": 50,
        })
    );
    let run = &source["last_run"];
    assert_eq!(
        (&run["state"], &run["cause"]),
        (&json!("running"), &json!("created"))
    );
    assert_eq!(
        fields(run),
        [
            "bytes",
            "cause",
            "changed",
            "duration_ms",
            "embedding_calls",
            "ended_at",
            "failed",
            "failures",
            "full",
            "held",
            "id",
            "new",
            "notes",
            "phase",
            "removed",
            "source_id",
            "started_at",
            "state",
            "unchanged",
        ]
    );
    assert_eq!(
        acme.get(&format!("/api/sources/{}", source["id"].as_str().expect("an id")))
            .await
            .expect(200)
            .json(),
        source
    );
}

#[tokio::test]
async fn every_kind_of_source_is_made_and_listed_newest_first() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    for body in [
        json!({ "kind": "website", "name": "Shop", "website": { "url": "https://shop.example/" } }),
        json!({ "kind": "sitemap", "sitemap": { "url": "https://shop.example/sitemap.xml", "exclude": ["/old/**"] } }),
        json!({ "kind": "pages", "pages": { "urls": ["https://shop.example/a", "https://shop.example/b", "https://shop.example/a#x"] } }),
        json!({ "kind": "drive", "drive": { "folder_id": "1A_b-2" } }),
        json!({ "kind": "push" }),
    ] {
        make(&desk, body).await.expect(202);
    }

    let listed = acme
        .get(&format!("/api/chatbots/{}/sources", desk.id))
        .await
        .expect(200)
        .json();
    let told: Vec<(&str, &str, &str)> = listed["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| {
            let text = |name: &str| item[name].as_str().expect("text");
            (text("kind"), text("name"), text("state"))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("push", "Pushed documents", "idle"),
            ("drive", "Google Drive", "queued"),
            ("pages", "2 pages", "queued"),
            ("sitemap", "Sitemap of shop.example", "queued"),
            ("website", "Shop", "queued"),
            ("upload", "Uploaded files", "idle"),
        ]
    );
    let first = acme
        .get(&format!("/api/chatbots/{}/sources?limit=4", desk.id))
        .await
        .expect(200)
        .json();
    let cursor = first["next_cursor"].as_str().expect("there is more");
    let rest = acme
        .get(&format!(
            "/api/chatbots/{}/sources?limit=4&cursor={cursor}",
            desk.id
        ))
        .await
        .expect(200)
        .json();
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(rest["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_source_is_synced_once_at_a_time() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (source, first) = desk.aborted_source("https://shop.example/").await;
    let path = format!("/api/sources/{source}");

    let run = acme
        .post(&format!("{path}/sync"), json!({ "full": true }))
        .await
        .expect(202)
        .json();

    assert_eq!(
        (&run["state"], &run["cause"], &run["full"]),
        (&json!("running"), &json!("request"), &json!(true))
    );
    let again = acme.post(&format!("{path}/sync"), json!({})).await.expect(409);
    assert_eq!(again.code(), "sync_running");
    let runs = acme.get(&format!("{path}/runs")).await.expect(200).json();
    let ids: Vec<&str> = runs["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|run| run["id"].as_str().expect("an id"))
        .collect();
    assert_eq!(ids, [run["id"].as_str().expect("an id"), &first]);
    let detail = acme.get(&format!("{path}/runs/{first}")).await.expect(200).json();
    assert_eq!(
        (&detail["state"], &detail["failures"], &detail["next_cursor"]),
        (&json!("aborted"), &json!([]), &Value::Null)
    );
    let elsewhere = make_website(&desk, "https://other.example/").await;
    acme.get(&format!("/api/sources/{elsewhere}/runs/{first}"))
        .await
        .expect(404);
}

#[tokio::test]
async fn a_sync_needs_no_body() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (source, _) = desk.aborted_source("https://shop.example/").await;

    let reply = service
        .send(
            Method::POST,
            &format!("/api/sources/{source}/sync"),
            Some(&acme.key),
            None,
        )
        .await;

    assert_eq!(reply.expect(202).json()["full"], false);
}

#[tokio::test]
async fn a_paused_source_starts_nothing_until_it_is_resumed() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = make_website(&desk, "https://shop.example/").await;
    let path = format!("/api/sources/{source}");
    let order = |name: &str| format!("{path}/{name}");

    let paused = acme.post(&order("pause"), json!({})).await.expect(200).json();

    assert_eq!(
        (&paused["state"], &paused["last_run"]["state"]),
        (&json!("paused"), &json!("running")),
        "the run keeps its place"
    );
    assert_eq!(
        acme.post(&order("sync"), json!({})).await.expect(409).code(),
        "source_paused"
    );
    acme.post(&order("pause"), json!({})).await.expect(200);
    let resumed = acme.post(&order("resume"), json!({})).await.expect(200).json();
    assert_eq!(resumed["state"], "queued");
    assert_eq!(
        resumed["last_run"]["id"], paused["last_run"]["id"],
        "the same run goes on"
    );
    acme.post(&order("resume"), json!({})).await.expect(200);
    let cancelled = acme.post(&order("cancel"), json!({})).await.expect(200).json();
    assert_eq!(
        (&cancelled["state"], &cancelled["last_run"]["state"]),
        (&json!("idle"), &json!("aborted"))
    );
    acme.post(&order("cancel"), json!({})).await.expect(200);
    acme.post(&order("sync"), json!({})).await.expect(202);

    acme.post(&order("pause"), json!({})).await.expect(200);
    let cancelled = acme.post(&order("cancel"), json!({})).await.expect(200).json();
    assert_eq!(
        (&cancelled["state"], &cancelled["last_run"]["state"]),
        (&json!("paused"), &json!("aborted")),
        "what is paused stays so"
    );
}

#[tokio::test]
async fn what_is_not_read_by_runs_is_not_synced() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let push = make(&desk, json!({ "kind": "push" })).await.expect(202).json();
    assert_eq!(push["last_run"], Value::Null);

    for order in ["sync", "pause", "resume", "cancel"] {
        let path = format!("/api/sources/{}/{order}", push["id"].as_str().expect("an id"));
        assert_eq!(
            acme.post(&path, json!({})).await.expect(409).code(),
            "source_not_synced",
            "{order}"
        );
    }
}

#[tokio::test]
async fn the_short_way_in_makes_one_source_of_one_website() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let crawl = |body: Value| acme.post("/api/chatbots/crawl", body);

    let first = crawl(json!({ "chatbot_id": desk.id, "url": "https://shop.example/help", "max_pages": 5 }))
        .await
        .expect(202)
        .json();
    let running = crawl(json!({ "chatbot_id": desk.id, "url": "https://SHOP.example/help#top" }))
        .await
        .expect(202)
        .json();

    assert_eq!(running["source"]["id"], first["source"]["id"]);
    assert_eq!(
        running["run"]["id"], first["run"]["id"],
        "the run that is under way"
    );
    assert_eq!(
        running["source"]["website"]["max_pages"], 5,
        "what is left out stays"
    );
    let source = first["source"]["id"].as_str().expect("an id");
    acme.post(&format!("/api/sources/{source}/cancel"), json!({}))
        .await
        .expect(200);
    let again = crawl(json!({ "chatbot_id": desk.id, "url": "https://shop.example/help", "max_pages": 6 }))
        .await
        .expect(202)
        .json();
    assert_eq!(again["source"]["id"], first["source"]["id"]);
    assert_ne!(again["run"]["id"], first["run"]["id"]);
    assert_eq!(again["source"]["website"]["max_pages"], 6);
    let other = crawl(json!({ "chatbot_id": desk.id, "url": "https://shop.example/" }))
        .await
        .expect(202)
        .json();
    assert_ne!(other["source"]["id"], first["source"]["id"]);
    for (body, code) in [
        (
            json!({ "chatbot_id": desk.id, "url": "http://192.168.1.1/" }),
            "url_not_public",
        ),
        (
            json!({ "chatbot_id": desk.id, "url": "https://shop.example/", "max_depth": 99 }),
            "out_of_range",
        ),
        (json!({ "chatbot_id": desk.id }), "invalid_body"),
    ] {
        assert_eq!(crawl(body).await.expect(422).code(), code);
    }
}

#[tokio::test]
async fn a_chatbot_has_a_limited_number_of_sources() {
    let service = TestOptions::default()
        .set("limits.sources_per_chatbot", 3)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    make(&desk, json!({ "kind": "push" })).await.expect(202);
    make(&desk, json!({ "kind": "push" })).await.expect(202);

    let reply = make(&desk, json!({ "kind": "push" })).await.expect(409);

    assert_eq!(reply.code(), "too_many_sources");
    acme.chatbot("Second desk").await;
}

#[tokio::test]
async fn a_deleted_source_takes_its_runs_with_it_and_the_uploads_stay() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = make_website(&desk, "https://shop.example/").await;
    desk.publish("returns.md", "# Returns\n\nWithin 30 days.").await;

    acme.delete(&format!("/api/sources/{source}")).await.expect(204);

    acme.get(&format!("/api/sources/{source}")).await.expect(404);
    service.drain_jobs().await;
    assert_eq!(count_rows(&service, "sync_run").await, 0);
    let left = acme
        .get(&format!("/api/chatbots/{}/sources", desk.id))
        .await
        .expect(200)
        .json();
    let uploads = left["items"][0]["id"].as_str().expect("the uploads");
    let refused = acme.delete(&format!("/api/sources/{uploads}")).await.expect(409);
    assert_eq!(refused.code(), "upload_source_stays");
    assert!(!desk.search("returns").await.is_empty());
}

#[tokio::test]
async fn each_change_of_a_source_is_in_the_audit_log() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = make_website(&desk, "https://shop.example/").await;
    let path = format!("/api/sources/{source}");
    for order in ["pause", "resume", "cancel", "sync"] {
        acme.post(&format!("{path}/{order}"), json!({})).await;
    }
    acme.patch(&path, json!({ "name": "Store" })).await.expect(200);
    acme.patch(&path, json!({ "name": "Store" })).await.expect(200);
    acme.delete(&path).await.expect(204);

    let lines = acme.get("/api/audit").await.expect(200).json();

    let actions: Vec<&str> = lines["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter(|line| line["object"]["id"] == json!(source))
        .map(|line| line["action"].as_str().expect("an action"))
        .collect();
    assert_eq!(
        actions,
        [
            "source.delete",
            "source.update",
            "source.sync",
            "source.cancel",
            "source.resume",
            "source.pause",
            "source.create"
        ]
    );
}
