//! What owners set for a source: what is refused, and what a change touches.

use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Reply, TestApp, TestOptions};
use crate::harness::stored::count_rows;

/// Makes a source of this chatbot.
async fn make(desk: &Chatbot<'_, '_>, body: Value) -> Reply {
    desk.tenant
        .post(&format!("/api/chatbots/{}/sources", desk.id), body)
        .await
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
            json!({ "kind": "pages", "pages": {} }),
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
async fn how_a_sources_documents_are_cut_is_set_with_the_source_and_changed_for_those_that_are_there() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = make(
        &desk,
        json!({ "kind": "push", "chunking": { "max_tokens": 200, "overlap_tokens": 0 } }),
    )
    .await
    .expect(202)
    .json();
    assert_eq!(
        source["chunking"],
        json!({ "max_tokens": 200, "overlap_tokens": 0 })
    );
    let path = format!("/api/sources/{}", source["id"].as_str().expect("an id"));
    let text: String = (0..20)
        .map(|number| format!("Paragraph {number} tells of ladders, tables and chairs.\n\n"))
        .collect();
    let document = service
        .send(
            reqwest::Method::PUT,
            &format!("{path}/documents/long"),
            Some(&acme.key),
            Some(json!({ "text": text })),
        )
        .await
        .expect(201)
        .id();
    service.drain_jobs().await;
    let before = desk.document(&document).await["chunks"]
        .as_i64()
        .expect("a count");

    let changed = acme
        .patch(
            &path,
            json!({ "chunking": { "max_tokens": 20, "overlap_tokens": 0 } }),
        )
        .await
        .expect(200)
        .json();
    service.drain_jobs().await;

    assert_eq!(changed["chunking"]["max_tokens"], 20);
    let after = desk.document(&document).await["chunks"]
        .as_i64()
        .expect("a count");
    assert!(after > before, "{before} chunks became {after}");
    let reset = acme
        .patch(&path, json!({ "chunking": null }))
        .await
        .expect(200)
        .json();
    assert_eq!(reset["chunking"], Value::Null);
    let refused = acme
        .patch(&path, json!({ "chunking": { "max_tokens": 3 } }))
        .await
        .expect(422);
    assert_eq!(refused.code(), "invalid_chunking");
}
