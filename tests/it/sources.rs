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
async fn what_cannot_be_read_is_refused_when_it_is_set() {
    let service = TestOptions::default()
        .set("crawl.max_pages", 100)
        .set("outbound.allow", "127.0.0.1:8099")
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let website = |rest: Value| {
        let mut settings = json!({ "url": "https://shop.example/" });
        settings
            .as_object_mut()
            .expect("an object")
            .extend(rest.as_object().expect("an object").clone());
        json!({ "kind": "website", "website": settings })
    };
    let many_headers: serde_json::Map<String, Value> = (0..21)
        .map(|number| (format!("x-{number}"), json!("y")))
        .collect();

    for (body, code, field) in [
        (
            website(json!({ "url": "not an address" })),
            "invalid_url",
            "website.url",
        ),
        (
            website(json!({ "url": "ftp://shop.example/" })),
            "invalid_url",
            "website.url",
        ),
        (
            website(json!({ "url": "https://me:secret@shop.example/" })),
            "invalid_url",
            "website.url",
        ),
        (
            website(json!({ "url": format!("https://shop.example/{}", "a".repeat(2000)) })),
            "invalid_url",
            "website.url",
        ),
        (
            website(json!({ "url": "http://127.0.0.1/" })),
            "url_not_public",
            "website.url",
        ),
        (
            website(json!({ "url": "http://127.0.0.1:8098/" })),
            "url_not_public",
            "website.url",
        ),
        (
            website(json!({ "url": "http://2130706433/" })),
            "url_not_public",
            "website.url",
        ),
        (
            website(json!({ "url": "http://169.254.169.254/latest" })),
            "url_not_public",
            "website.url",
        ),
        (
            website(json!({ "url": "http://[::ffff:10.0.0.1]/" })),
            "url_not_public",
            "website.url",
        ),
        (
            website(json!({ "url": "http://localhost/" })),
            "url_not_public",
            "website.url",
        ),
        (
            website(json!({ "max_pages": 0 })),
            "out_of_range",
            "website.max_pages",
        ),
        (
            website(json!({ "max_pages": 101 })),
            "out_of_range",
            "website.max_pages",
        ),
        (
            website(json!({ "max_depth": 11 })),
            "out_of_range",
            "website.max_depth",
        ),
        (
            website(json!({ "delay_ms": 60_001 })),
            "out_of_range",
            "website.delay_ms",
        ),
        (
            website(json!({ "shrink_limit_percent": 101 })),
            "out_of_range",
            "website.shrink_limit_percent",
        ),
        (
            website(json!({ "include": ["  "] })),
            "invalid_pattern",
            "website.include[0]",
        ),
        (
            website(json!({ "exclude": vec!["/a"; 101] })),
            "invalid_pattern",
            "website.exclude",
        ),
        (
            website(json!({ "render": true })),
            "rendering_unavailable",
            "website.render",
        ),
        (
            website(json!({ "headers": { "Host": "other.example" } })),
            "invalid_headers",
            "website.headers",
        ),
        (
            website(json!({ "headers": { "content-length": "3" } })),
            "invalid_headers",
            "website.headers",
        ),
        (
            website(json!({ "headers": { "Proxy-Authorization": "x" } })),
            "invalid_headers",
            "website.headers",
        ),
        (
            website(json!({ "headers": { "a b": "x" } })),
            "invalid_headers",
            "website.headers",
        ),
        (
            website(json!({ "headers": { "x-a": "x\r\nx-b: y" } })),
            "invalid_headers",
            "website.headers",
        ),
        (
            website(json!({ "headers": many_headers })),
            "invalid_headers",
            "website.headers",
        ),
        (
            website(json!({ "basic_auth": { "user": "a:b", "password": "c" } })),
            "invalid_basic_auth",
            "website.basic_auth",
        ),
        (
            website(
                json!({ "basic_auth": { "user": "a", "password": "c" }, "headers": { "Authorization": "Bearer x" } }),
            ),
            "invalid_basic_auth",
            "website.basic_auth",
        ),
        (json!({ "kind": "website" }), "settings_missing", "website"),
        (
            json!({ "kind": "website", "website": {} }),
            "url_missing",
            "website.url",
        ),
        (
            json!({ "kind": "push", "website": { "url": "https://shop.example/" } }),
            "settings_of_another_kind",
            "website",
        ),
        (
            json!({ "kind": "push", "schedule": { "every_minutes": 60 } }),
            "invalid_schedule",
            "schedule",
        ),
        (
            json!({ "kind": "pages", "pages": { "urls": [] } }),
            "invalid_urls",
            "pages.urls",
        ),
        (
            json!({ "kind": "pages", "pages": { "urls": ["https://shop.example/", "http://10.0.0.1/"] } }),
            "url_not_public",
            "pages.urls[1]",
        ),
        (
            json!({ "kind": "drive", "drive": {} }),
            "drive_scope_missing",
            "drive",
        ),
        (
            json!({ "kind": "drive", "drive": { "folder_id": "../x" } }),
            "invalid_drive_id",
            "drive",
        ),
        (
            json!({ "kind": "drive", "drive": { "folder_id": "a", "credentials": { "type": "none" } } }),
            "invalid_credentials",
            "drive.credentials",
        ),
        (json!({ "kind": "push", "name": "" }), "invalid_name", "name"),
    ] {
        let reply = make(&desk, body.clone()).await.expect(422);

        assert_eq!(
            (reply.code().as_str(), reply.json()["field"].as_str()),
            (code, Some(field)),
            "{body}: {}",
            reply.text
        );
    }
    for body in [
        website(json!({ "max_pags": 3 })),
        website(json!({ "max_pages": -1 })),
        json!({ "kind": "upload" }),
        json!({ "kind": "ftp" }),
        json!({ "kind": "push", "id": "0190b5a0-0000-7000-8000-000000000000" }),
    ] {
        assert_eq!(make(&desk, body).await.expect(422).code(), "invalid_body");
    }
    assert_eq!(count_rows(&service, "source").await, 1, "the chatbot's uploads");
    assert_eq!(count_rows(&service, "sync_run").await, 0);
    make(&desk, website(json!({ "url": "http://127.0.0.1:8099/" })))
        .await
        .expect(202);
}

#[tokio::test]
async fn a_change_touches_what_it_names_and_nothing_else() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let made = make(
        &desk,
        json!({ "kind": "website", "name": "Shop", "schedule": { "every_minutes": 60 },
                "website": { "url": "https://shop.example/", "max_pages": 7, "include": ["/help/**"], "delay_ms": 100 } }),
    )
    .await
    .expect(202)
    .json();
    let path = format!("/api/sources/{}", made["id"].as_str().expect("an id"));

    let changed = acme
        .patch(&path, json!({ "website": { "max_pages": 8, "delay_ms": null } }))
        .await
        .expect(200)
        .json();

    let mut expected = made["website"].clone();
    expected["max_pages"] = json!(8);
    expected["delay_ms"] = Value::Null;
    assert_eq!(changed["website"], expected);
    for field in ["name", "schedule", "next_run_at", "kind", "created_at"] {
        assert_eq!(changed[field], made[field], "{field}");
    }
    let unscheduled = acme
        .patch(&path, json!({ "schedule": null, "name": "Store" }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (
            &unscheduled["schedule"],
            &unscheduled["next_run_at"],
            &unscheduled["name"]
        ),
        (&Value::Null, &Value::Null, &json!("Store"))
    );
    assert_eq!(unscheduled["website"], expected);
    for (body, code) in [
        (
            json!({ "website": { "url": "http://10.0.0.1/" } }),
            "url_not_public",
        ),
        (json!({ "website": { "max_pages": 1_000_000 } }), "out_of_range"),
        (
            json!({ "pages": { "urls": ["https://shop.example/"] } }),
            "settings_of_another_kind",
        ),
        (
            json!({ "schedule": { "cron": "0 3 * * *", "time_zone": "Mars" } }),
            "invalid_schedule",
        ),
        (json!({ "name": null }), "invalid_body"),
        (json!({ "state": "idle" }), "invalid_body"),
    ] {
        assert_eq!(
            acme.patch(&path, body.clone()).await.expect(422).code(),
            code,
            "{body}"
        );
    }
    assert_eq!(acme.get(&path).await.expect(200).json()["website"], expected);
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
