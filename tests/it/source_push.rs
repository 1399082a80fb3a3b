//! Documents that programs put into a source, by names of their own.

use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Reply, TestApp, TestOptions};
use crate::harness::stored::{count_rows, fixture, stored_files};

/// A source of this chatbot that programs put documents into.
async fn push_source(desk: &Chatbot<'_, '_>) -> String {
    desk.tenant
        .post(
            &format!("/api/chatbots/{}/sources", desk.id),
            json!({ "kind": "push" }),
        )
        .await
        .expect(202)
        .id()
}

fn path(source: &str, name: &str) -> String {
    format!("/api/sources/{source}/documents/{name}")
}

async fn put(desk: &Chatbot<'_, '_>, source: &str, name: &str, body: Value) -> Reply {
    desk.tenant
        .service
        .send(
            Method::PUT,
            &path(source, name),
            Some(&desk.tenant.key),
            Some(body),
        )
        .await
}

async fn put_raw(
    desk: &Chatbot<'_, '_>,
    source: &str,
    name: &str,
    content_type: &str,
    bytes: impl Into<reqwest::Body>,
) -> Reply {
    let request = desk
        .tenant
        .service
        .request(Method::PUT, &path(source, name), Some(&desk.tenant.key))
        .header(header::CONTENT_TYPE, content_type)
        .body(bytes);
    Reply::read(request.send().await.expect("the service answers")).await
}

#[tokio::test]
async fn a_document_is_put_once_however_often_it_is_sent() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;
    let body = json!({
        "title": "Returning goods", "markdown": "# Returns\n\nGoods may be returned within 30 days.",
        "url": "https://shop.example/returns", "language": "en",
    });

    let made = put(&desk, &source, "returns", body.clone())
        .await
        .expect(201)
        .json();
    service.drain_jobs().await;
    let again = put(&desk, &source, "returns", body.clone())
        .await
        .expect(200)
        .json();

    assert_eq!(service.drain_jobs().await, 0, "nothing to do");
    assert_eq!(made["id"], again["id"]);
    assert_eq!(
        (
            &again["state"],
            &again["external_id"],
            &again["title"],
            &again["url"],
            &again["source_id"]
        ),
        (
            &json!("indexed"),
            &json!("returns"),
            &json!("Returning goods"),
            &json!("https://shop.example/returns"),
            &json!(source)
        ),
        "the title that was given wins over the one in the text"
    );
    assert_eq!(
        desk.search("returned within days").await[0]["title"],
        "Returning goods"
    );
    assert_eq!(stored_files(&service.data_dir()).len(), 1);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_new_version_takes_the_place_of_the_old_one() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;
    let made = put(
        &desk,
        &source,
        "returns",
        json!({ "text": "Goods may be returned within 30 days." }),
    )
    .await
    .expect(201)
    .json();
    service.drain_jobs().await;

    let changed = put(
        &desk,
        &source,
        "returns",
        json!({ "text": "Goods may be returned within 45 days." }),
    )
    .await
    .expect(202)
    .json();
    service.drain_jobs().await;

    assert_eq!(changed["id"], made["id"]);
    let found = desk.search("returned within days").await;
    assert_eq!(found.len(), 1);
    assert!(
        found[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("45 days"))
    );
    let renamed = put(
        &desk,
        &source,
        "returns",
        json!({ "title": "Sending back", "text": "Goods may be returned within 45 days." }),
    )
    .await
    .expect(202)
    .json();
    service.drain_jobs().await;
    assert_eq!(renamed["id"], made["id"]);
    assert_eq!(
        desk.search("returned within days").await[0]["title"],
        "Sending back"
    );
    assert_eq!(count_rows(&service, "document").await, 1);
    assert_eq!(stored_files(&service.data_dir()).len(), 1);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn equal_texts_under_two_names_are_two_documents() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;
    let body = json!({ "text": "Goods may be returned within 30 days." });

    let one = put(&desk, &source, "one", body.clone()).await.expect(201).id();
    let two = put(&desk, &source, "two", body).await.expect(201).id();

    assert_ne!(one, two);
}

#[tokio::test]
async fn a_name_is_any_text_and_never_a_path() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;
    let long = "x".repeat(500);

    for (sent, name) in [
        ("a%2Fb%2Fc", "a/b/c"),
        ("..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
        (
            "https%3A%2F%2Fshop.example%2F%3Fa%3Db%23c",
            "https://shop.example/?a=b#c",
        ),
        ("100%25", "100%"),
        ("a%2520b", "a%20b"),
        ("caf%C3%A9%20%E2%98%95", "café ☕"),
        ("line%0Abreak", "line\nbreak"),
        (long.as_str(), long.as_str()),
    ] {
        let made = put(
            &desk,
            &source,
            sent,
            json!({ "text": format!("The text of {sent}.") }),
        )
        .await
        .expect(201)
        .json();
        assert_eq!(made["external_id"], json!(name), "decoded once: {sent}");
        let file_name = made["file_name"].as_str().expect("a name");
        assert!(!file_name.contains(['/', '\n']), "{file_name:?}");
    }
    service.drain_jobs().await;
    let root = service.data_dir().join("files").join(acme.id.to_string());
    for file in stored_files(&service.data_dir()) {
        assert_eq!(file.parent(), Some(root.as_path()));
    }
    let too_long = put(&desk, &source, &"x".repeat(501), json!({ "text": "x" }))
        .await
        .expect(422);
    assert_eq!(too_long.code(), "invalid_external_id");
    let with_nul = put(&desk, &source, "a%00b", json!({ "text": "x" }))
        .await
        .expect(422);
    assert_eq!(with_nul.code(), "invalid_external_id");
}

#[tokio::test]
async fn a_file_is_put_as_it_is_and_its_content_tells_its_type() {
    let service = TestOptions::default()
        .set("server.body_limit_bytes", 1000)
        .set("server.upload_limit_bytes", 100_000)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;

    let page = "<html><body><h1>Returns</h1><p>Within 30 days.</p></body></html>";
    let html = put_raw(&desk, &source, "page", "text/html; charset=utf-8", page)
        .await
        .expect(201)
        .json();
    assert_eq!(html["format"], "html");
    let markdown = format!("# Ladders\n\n{}", "All about ladders. ".repeat(1000));
    let large = put_raw(
        &desk,
        &source,
        "ladders?title=On%20ladders&url=https://shop.example/ladders&language=en",
        "text/markdown",
        markdown,
    )
    .await
    .expect(201)
    .json();
    assert_eq!(
        (&large["format"], &large["title"], &large["url"]),
        (
            &json!("markdown"),
            &json!("On ladders"),
            &json!("https://shop.example/ladders")
        ),
        "larger than a JSON body may be"
    );
    let csv = put_raw(&desk, &source, "prices", "text/csv", "item,price\nladder,30\n")
        .await
        .expect(201)
        .json();
    assert_eq!(csv["format"], "csv");
    let disguised = put_raw(&desk, &source, "disguised", "text/plain", page)
        .await
        .expect(201)
        .json();
    assert_eq!(disguised["format"], "html", "the content decides");

    let image = put_raw(
        &desk,
        &source,
        "image",
        "image/png",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(),
    )
    .await;
    assert_eq!(image.expect(415).code(), "unsupported_type");
    let empty = put_raw(&desk, &source, "empty", "text/plain", "  \n").await;
    assert_eq!(empty.expect(422).code(), "empty_file");
    let huge = put_raw(&desk, &source, "huge", "text/plain", "x".repeat(100_001)).await;
    assert_eq!(huge.expect(413).code(), "file_too_large");
    let json = put(&desk, &source, "json", json!({ "text": "x".repeat(1000) })).await;
    assert_eq!(json.expect(413).code(), "body_too_large");
    assert_eq!(count_rows(&service, "document").await, 4);
    assert_eq!(
        stored_files(&service.data_dir()).len(),
        4,
        "refused bodies leave nothing"
    );
}

#[tokio::test]
async fn a_pdf_is_read_like_an_uploaded_one() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;

    let bytes = fixture("broken/editing-restricted.pdf");
    let made = put_raw(&desk, &source, "contract", "application/pdf", bytes)
        .await
        .expect(201)
        .json();
    service.drain_jobs().await;

    assert_eq!(made["format"], "pdf");
    let document = desk.document(made["id"].as_str().expect("an id")).await;
    assert_eq!(document["state"], "indexed", "{document}");
}

#[tokio::test]
async fn what_is_said_of_a_document_has_to_hold() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;

    for (body, code) in [
        (json!({}), "content_missing"),
        (json!({ "title": "Nothing" }), "content_missing"),
        (json!({ "text": "a", "html": "b" }), "content_missing"),
        (json!({ "text": " \n" }), "empty_file"),
        (json!({ "text": "a", "title": " " }), "invalid_title"),
        (json!({ "text": "a", "title": "x".repeat(501) }), "invalid_title"),
        (
            json!({ "text": "a", "url": "javascript:alert(1)" }),
            "invalid_url",
        ),
        (json!({ "text": "a", "url": "/returns" }), "invalid_url"),
        (
            json!({ "text": "a", "language": "English, please" }),
            "invalid_language",
        ),
        (json!({ "text": "a", "file": "/etc/passwd" }), "invalid_body"),
        (json!({ "text": "a\u{0}b" }), "nul_character"),
    ] {
        assert_eq!(
            put(&desk, &source, "x", body.clone()).await.expect(422).code(),
            code,
            "{body}"
        );
    }
    let untyped = service
        .request(Method::PUT, &path(&source, "x"), Some(&acme.key))
        .body("text");
    let untyped = Reply::read(untyped.send().await.expect("the service answers")).await;
    assert_eq!(untyped.expect(415).code(), "unsupported_media_type");
    assert_eq!(count_rows(&service, "document").await, 0);
    assert_eq!(stored_files(&service.data_dir()).len(), 0);
}

#[tokio::test]
async fn a_removed_document_is_out_of_answers_at_once() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;
    put(
        &desk,
        &source,
        "a%2Fb",
        json!({ "text": "Goods may be returned within 30 days." }),
    )
    .await
    .expect(201);
    service.drain_jobs().await;
    assert_eq!(desk.search("returned within days").await.len(), 1);

    acme.delete(&path(&source, "a%2Fb")).await.expect(204);

    assert!(desk.search("returned within days").await.is_empty());
    acme.delete(&path(&source, "a%2Fb")).await.expect(404);
    service.drain_jobs().await;
    assert_eq!(stored_files(&service.data_dir()).len(), 0);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_deleted_source_takes_its_documents_out_of_answers_at_once() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;
    for number in 0..3 {
        put(
            &desk,
            &source,
            &number.to_string(),
            json!({ "text": format!("Goods may be returned within {number} days.") }),
        )
        .await
        .expect(201);
    }
    service.drain_jobs().await;
    assert_eq!(desk.search("returned within days").await.len(), 3);

    acme.delete(&format!("/api/sources/{source}")).await.expect(204);

    assert!(desk.search("returned within days").await.is_empty());
    service.drain_jobs().await;
    assert_eq!(stored_files(&service.data_dir()).len(), 0);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn only_sources_of_that_kind_take_documents() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (website, _) = desk.aborted_source("https://shop.example/").await;

    let refused = put(&desk, &website, "x", json!({ "text": "a" }))
        .await
        .expect(409);

    assert_eq!(refused.code(), "source_not_pushed");
    assert_eq!(
        acme.delete(&path(&website, "x")).await.expect(409).code(),
        "source_not_pushed"
    );
}

#[tokio::test]
async fn a_sources_documents_are_listed_by_state_newest_first() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;
    put(&desk, &source, "a", json!({ "text": "The first text." }))
        .await
        .expect(201);
    put(&desk, &source, "b", json!({ "text": "The second text." }))
        .await
        .expect(201);
    service.drain_jobs().await;
    put(&desk, &source, "c", json!({ "text": "The third text." }))
        .await
        .expect(201);
    desk.publish("returns.md", "# Returns\n\nOf another source.")
        .await;
    put(&desk, &source, "d", json!({ "text": "The fourth text." }))
        .await
        .expect(201);

    let list = async |query: &str| {
        let listed = acme
            .get(&format!("/api/sources/{source}/documents{query}"))
            .await
            .expect(200)
            .json();
        let names: Vec<String> = listed["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|item| item["external_id"].as_str().expect("a name").to_owned())
            .collect();
        names.join("")
    };

    assert_eq!(list("").await, "dcba");
    assert_eq!(list("?state=queued").await, "d");
    assert_eq!(list("?state=indexed").await, "cba");
    assert_eq!(list("?state=indexed&limit=2").await, "cb");
    assert_eq!(list("?state=failed").await, "");
    let refused = acme
        .get(&format!("/api/sources/{source}/documents?state=lost"))
        .await
        .expect(422);
    assert_eq!(refused.code(), "invalid_state");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_first_versions_at_once_make_one_document() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;

    let puts = (0..8).map(|number| {
        put(
            &desk,
            &source,
            "one",
            json!({ "text": format!("Version {number}.") }),
        )
    });
    for reply in futures::future::join_all(puts).await {
        assert!([201, 202].contains(&reply.status.as_u16()), "{}", reply.text);
    }

    service.drain_jobs().await;
    assert_eq!(count_rows(&service, "document").await, 1);
    assert_eq!(stored_files(&service.data_dir()).len(), 1);
    acme.check_stores_agree().await;
}
