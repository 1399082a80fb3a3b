//! Who may be answered from what: access groups of documents and of visitors, and the tags and dates that searches ask for.

use reqwest::Method;
use serde_json::{Value, json};

use crate::foreign_tokens::{changed, claims, options};
use crate::harness::app::{Chatbot, Reply, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::issuer::{SECRET, Signer, encode};

const OPEN: &str = "Oak tables are oiled twice a year.";
const RESTRICTED: &str = "Oak tables are bought for ninety euros.";
const QUESTION: &str = "For how much are oak tables bought?";

async fn key(tenant: &Tenant<'_>, scope: &str) -> String {
    tenant.make_key(json!({ "name": scope, "scopes": [scope] })).await
}

/// What a caller hears who asks with these groups.
async fn ask(desk: &Chatbot<'_, '_>, credential: &str, more: Value) -> Reply {
    let mut body = json!({ "chatbot_id": desk.id, "message": QUESTION });
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    let service = desk.tenant.service;
    service
        .send(Method::POST, "/api/chat/message", Some(credential), Some(body))
        .await
}

async fn search_as(desk: &Chatbot<'_, '_>, credential: &str, more: Value) -> Reply {
    let mut body = json!({ "query": QUESTION });
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    let path = format!("/api/chatbots/{}/search", desk.id);
    let service = desk.tenant.service;
    service
        .send(Method::POST, &path, Some(credential), Some(body))
        .await
}

fn texts(reply: Reply) -> Vec<String> {
    let mut texts: Vec<String> = reply.expect(200).json()["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["text"].as_str().expect("a text").to_owned())
        .collect();
    texts.sort_unstable();
    texts
}

fn knows_the_price(reply: Reply) -> bool {
    reply.expect(200).json().to_string().contains("ninety")
}

/// A desk with an open document and one that only staff may read; the latter's id.
async fn with_restricted(desk: &Chatbot<'_, '_>) -> String {
    desk.publish("open.md", OPEN).await;
    let id = desk.publish("prices.md", RESTRICTED).await;
    let path = format!("/api/documents/{id}");
    let tenant = desk.tenant;
    tenant
        .patch(&path, json!({ "access_groups": ["staff"] }))
        .await
        .expect(200);
    id
}

#[tokio::test]
async fn a_restricted_document_answers_only_whom_its_groups_name() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (visitor, server) = (key(&acme, "chat").await, key(&acme, "chat:groups").await);
    let id = with_restricted(&desk).await;

    // At once, before a worker has told the index, and afterwards.
    for _ in 0..2 {
        assert!(!knows_the_price(ask(&desk, &visitor, json!({})).await));
        assert!(!knows_the_price(ask(&desk, &server, json!({})).await));
        assert!(!knows_the_price(
            ask(&desk, &server, json!({ "groups": ["sales"] })).await
        ));
        assert!(
            !knows_the_price(ask(&desk, &acme.key, json!({})).await),
            "a turn is a visitor's"
        );
        assert!(knows_the_price(
            ask(&desk, &server, json!({ "groups": ["sales", "staff"] })).await
        ));
        let restricted = [RESTRICTED.to_owned(), OPEN.to_owned()];
        assert_eq!(texts(search_as(&desk, &server, json!({})).await), [OPEN]);
        assert_eq!(texts(search_as(&desk, &acme.key, json!({})).await), restricted);
        assert_eq!(
            texts(search_as(&desk, &acme.key, json!({ "groups": [] })).await),
            [OPEN]
        );
        assert_eq!(
            texts(search_as(&desk, &acme.key, json!({ "groups": ["staff"] })).await),
            restricted
        );
        service.drain_jobs().await;
    }
    let document = desk.document(&id).await;
    assert_eq!(document["access_groups"], json!(["staff"]));
    for path in [
        format!("/api/documents/{id}"),
        format!("/api/documents/{id}/file"),
    ] {
        for credential in [&visitor, &server] {
            service
                .send(Method::GET, &path, Some(credential), None)
                .await
                .expect(403);
        }
    }
}

#[tokio::test]
async fn a_key_that_browsers_see_cannot_name_groups() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let visitor = key(&acme, "chat").await;
    with_restricted(&desk).await;

    for groups in [json!(["staff"]), json!([])] {
        let refused = ask(&desk, &visitor, json!({ "groups": groups }))
            .await
            .expect(403);
        assert_eq!(refused.code(), "groups_not_allowed");
    }
    let inline = json!({
        "chatbot_id": desk.id, "groups": ["staff"], "messages": [{ "role": "user", "content": QUESTION }],
    });
    let refused = service
        .send(
            Method::POST,
            "/api/chat/inline",
            Some(&visitor),
            Some(inline.clone()),
        )
        .await
        .expect(403);
    assert_eq!(refused.code(), "groups_not_allowed");
    assert!(knows_the_price(acme.post("/api/chat/inline", inline).await));
    let odd = ask(&desk, &acme.key, json!({ "groups": ["a,b"] }))
        .await
        .expect(422);
    assert_eq!(odd.code(), "invalid_names");
}

#[tokio::test]
async fn a_conversation_goes_on_with_the_groups_that_it_began_with() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    with_restricted(&desk).await;
    let begin = async |groups: Value| -> String {
        let begun = ask(&desk, &acme.key, json!({ "groups": groups }))
            .await
            .expect(200)
            .json();
        begun["conversation_id"].as_str().expect("an id").to_owned()
    };
    let go_on = async |id: &str, groups: Value| {
        ask(
            &desk,
            &acme.key,
            json!({ "conversation_id": id, "groups": groups }),
        )
        .await
    };
    let (of_staff, of_all) = (begin(json!(["staff"])).await, begin(json!([])).await);

    for lacking in [json!([]), json!(["sales"])] {
        assert_eq!(go_on(&of_staff, lacking).await.expect(404).code(), "not_found");
    }
    assert!(knows_the_price(go_on(&of_staff, json!(["staff", "sales"])).await));
    assert!(
        !knows_the_price(go_on(&of_all, json!(["staff"])).await),
        "who reads the conversation later may have no groups"
    );
}

#[tokio::test]
async fn a_token_vouches_for_the_groups_of_its_person() {
    let service = options()
        .set("auth.jwt.algorithm", "HS256")
        .set("auth.jwt.hs256_secret", SECRET)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    with_restricted(&desk).await;
    let token = |groups: Value| {
        let claims = changed(&claims(&service, &acme), |claims| {
            claims["app_metadata"]["groups"] = groups;
        });
        encode(&Signer::hs256(SECRET), &claims)
    };

    assert!(knows_the_price(
        ask(&desk, &token(json!(["staff"])), json!({})).await
    ));
    assert!(!knows_the_price(
        ask(&desk, &token(json!(["sales"])), json!({})).await
    ));
    assert!(!knows_the_price(
        ask(
            &desk,
            &encode(&Signer::hs256(SECRET), &claims(&service, &acme)),
            json!({})
        )
        .await
    ));
    for wrong in [json!("staff"), json!([7]), Value::Null] {
        ask(&desk, &token(wrong), json!({})).await.expect(401);
    }
    let with_key = async |groups: Value| {
        service
            .request(Method::POST, "/api/chat/message", Some(&token(groups)))
            .header("Idempotency-Key", "one question")
            .json(&json!({ "chatbot_id": desk.id, "message": QUESTION }))
            .send()
            .await
            .expect("the service answers")
            .status()
    };
    assert_eq!(with_key(json!(["staff"])).await, 200);
    assert_eq!(with_key(json!(["staff"])).await, 200);
    assert_eq!(
        with_key(json!([])).await,
        422,
        "the kept answer was for somebody with the group"
    );
}

#[tokio::test]
async fn what_a_document_does_not_say_its_source_says() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let sources = format!("/api/chatbots/{}/sources", desk.id);
    let source = acme
        .post(
            &sources,
            json!({ "kind": "push", "access_groups": ["staff"], "tags": ["internal"] }),
        )
        .await
        .expect(202)
        .id();
    let put = async |name: &str, body: Value| {
        let path = format!("/api/sources/{source}/documents/{name}");
        service
            .send(Method::PUT, &path, Some(&acme.key), Some(body))
            .await
    };
    put("prices", json!({ "text": RESTRICTED })).await.expect(201);
    put("care", json!({ "text": OPEN, "access_groups": [] }))
        .await
        .expect(201);
    service.drain_jobs().await;
    let found = async |more: Value| texts(search_as(&desk, &acme.key, more).await);

    assert_eq!(found(json!({ "groups": [] })).await, [OPEN]);
    assert_eq!(found(json!({ "groups": ["staff"] })).await, [RESTRICTED, OPEN]);
    assert_eq!(
        found(json!({ "filter": { "tags": ["internal"] } })).await,
        [RESTRICTED, OPEN]
    );

    let path = format!("/api/sources/{source}");
    let change = json!({ "access_groups": ["sales"], "tags": null });
    let shown = acme.patch(&path, change).await.expect(200).json();
    assert_eq!(
        (&shown["access_groups"], &shown["tags"]),
        (&json!(["sales"]), &Value::Null)
    );
    assert_eq!(found(json!({ "groups": ["staff"] })).await, [OPEN], "at once");
    service.drain_jobs().await;
    assert_eq!(found(json!({ "groups": ["sales"] })).await, [RESTRICTED, OPEN]);
    assert_eq!(
        found(json!({ "filter": { "tags": ["internal"] } })).await,
        Vec::<String>::new()
    );
    put("prices", json!({ "text": RESTRICTED, "access_groups": [] }))
        .await
        .expect(202);
    service.drain_jobs().await;
    assert_eq!(
        found(json!({ "groups": [] })).await,
        [RESTRICTED, OPEN],
        "opened by its own word"
    );
}

#[tokio::test]
async fn a_text_shows_its_language_where_nobody_said_it() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let text =
        "Die Tische aus Eiche werden zweimal im Jahr geölt und danach mit einem weichen Tuch abgerieben.";
    let id = desk.publish("pflege.txt", text).await;
    let document = acme.get(&format!("/api/documents/{id}")).await.expect(200).json();
    assert_eq!(document["language"], "de");

    for (language, expected) in [("de", vec![text]), ("en", vec![])] {
        let path = format!("/api/chatbots/{}/search", desk.id);
        let asked = json!({ "query": "Tische aus Eiche", "filter": { "languages": [language] } });
        let found = acme.post(&path, asked).await;
        assert_eq!(texts(found), expected, "{language}");
    }
}

#[tokio::test]
async fn a_search_asks_for_tags_languages_and_dates() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = acme
        .post(
            &format!("/api/chatbots/{}/sources", desk.id),
            json!({ "kind": "push" }),
        )
        .await
        .expect(202)
        .id();
    for (name, body) in [
        (
            "care",
            json!({ "text": OPEN, "language": "en-GB", "tags": ["care", "oak"] }),
        ),
        (
            "prices",
            json!({
                "html": format!(
                    "<html><head><meta property=\"article:published_time\" content=\"2024-05-01\"></head><body><main><p>{RESTRICTED}</p></main></body></html>"
                ),
                "tags": ["oak"],
            }),
        ),
    ] {
        let path = format!("/api/sources/{source}/documents/{name}");
        service
            .send(Method::PUT, &path, Some(&acme.key), Some(body))
            .await
            .expect(201);
    }
    service.drain_jobs().await;
    let found = async |filter: Value| texts(search_as(&desk, &acme.key, json!({ "filter": filter })).await);

    assert_eq!(found(json!({ "tags": ["care"] })).await, [OPEN]);
    assert_eq!(found(json!({ "tags": ["oak", "elm"] })).await, [RESTRICTED, OPEN]);
    assert_eq!(found(json!({ "tags": [] })).await, Vec::<String>::new());
    assert_eq!(found(json!({ "languages": ["EN"] })).await, [RESTRICTED, OPEN]);
    assert_eq!(found(json!({ "languages": ["de"] })).await, Vec::<String>::new());
    assert_eq!(
        found(json!({ "until": "2024-06-01T00:00:00Z" })).await,
        [RESTRICTED]
    );
    assert_eq!(
        found(json!({ "since": "2024-06-01T00:00:00Z" })).await,
        [OPEN],
        "it came later"
    );
    let both = json!({ "since": "2024-05-01T00:00:00Z", "until": "2024-05-01T00:00:01Z", "tags": ["oak"] });
    assert_eq!(found(both).await, [RESTRICTED]);
}

#[tokio::test]
async fn a_change_of_groups_embeds_nothing_and_survives_a_new_version() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let visitor = key(&acme, "chat").await;
    with_restricted(&desk).await;
    embedder.take_documents();

    service.drain_jobs().await;
    assert_eq!(embedder.take_documents(), Vec::<String>::new());
    assert_eq!(service.drain_jobs().await, 0);

    let new = format!("{RESTRICTED} Elm tables are cheaper.");
    desk.publish("prices.md", &new).await;
    assert!(!knows_the_price(ask(&desk, &visitor, json!({})).await));
    assert_eq!(
        texts(search_as(&desk, &acme.key, json!({ "groups": ["staff"] })).await).len(),
        2
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn an_upload_says_who_may_read_it() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let visitor = key(&acme, "chat").await;
    let upload = async |query: &str| {
        let part = reqwest::multipart::Part::bytes(RESTRICTED.as_bytes()).file_name("prices.md");
        let path = format!("/api/chatbots/{}/documents{query}", desk.id);
        let request = service
            .request(Method::POST, &path, Some(&acme.key))
            .multipart(reqwest::multipart::Form::new().part("file", part));
        Reply::read(request.send().await.expect("the service answers")).await
    };

    let taken = upload("?access_groups=staff,%20sales&tags=prices")
        .await
        .expect(202)
        .json();
    assert_eq!(service.drain_jobs().await, 1, "the index is told with the chunks");
    assert_eq!(taken["items"][0]["access_groups"], json!(["sales", "staff"]));
    assert!(!knows_the_price(ask(&desk, &visitor, json!({})).await));

    let again = upload("").await.expect(202).json();
    assert_eq!(
        again["items"][0]["access_groups"],
        json!(["sales", "staff"]),
        "nothing new was said"
    );
    assert_eq!(service.drain_jobs().await, 0);
    upload("?access_groups=").await.expect(202);
    service.drain_jobs().await;
    assert!(knows_the_price(ask(&desk, &visitor, json!({})).await));
    assert_eq!(
        upload("?access_groups=a%00b").await.expect(422).code(),
        "invalid_names"
    );
}
