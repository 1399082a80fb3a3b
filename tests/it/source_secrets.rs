//! Secrets of sources: kept sealed, used for their own hosts, and shown to nobody.

use frontdesk::db::Scope;
use frontdesk::on;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Reply, TestApp};

const SECRET: &str = "open-sesame-4711";

async fn make(desk: &Chatbot<'_, '_>, settings: Value) -> Reply {
    desk.tenant
        .post(
            &format!("/api/chatbots/{}/sources", desk.id),
            json!({ "kind": "website", "website": settings }),
        )
        .await
}

/// A source with a secret header and a password.
async fn make_secret(desk: &Chatbot<'_, '_>) -> Value {
    make(
        desk,
        json!({
            "url": "https://shop.example/", "headers": { "X-Token": SECRET },
            "basic_auth": { "user": "reader", "password": SECRET },
        }),
    )
    .await
    .expect(202)
    .json()
}

/// The sealed text of a source, as it is stored.
async fn sealed(service: &TestApp, source: &str) -> Option<String> {
    let id: uuid::Uuid = source.parse().expect("an id");
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar("select sealed from source where id = $1").bind(id).fetch_one(c).await)
        .expect("a source")
}

/// What the source's own reading gets to see.
async fn opened(service: &TestApp, source: &str) -> (Option<String>, Option<String>) {
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    let id = source.parse().expect("an id");
    let tenant_id: frontdesk::id::TenantId = on!(conn, c => sqlx::query_scalar("select tenant_id from source where id = $1").bind(id_of(source)).fetch_one(c).await)
        .expect("a source");
    let reach = frontdesk::http::access::Reach::whole(tenant_id);
    let source = frontdesk::knowledge::sources::store::find(&mut conn, reach, id)
        .await
        .expect("readable")
        .expect("a source");
    let secrets = source.secrets(&service.app).expect("opened");
    (secrets.headers.get("x-token").cloned(), secrets.password)
}

fn id_of(source: &str) -> uuid::Uuid {
    source.parse().expect("an id")
}

#[tokio::test]
async fn secrets_are_sealed_and_never_shown_again() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let made = make_secret(&desk).await;

    let source = made["id"].as_str().expect("an id");
    assert_eq!(made["website"]["header_names"], json!(["x-token"]));
    assert_eq!(made["website"]["basic_auth_user"], "reader");
    let stored = sealed(&service, source).await.expect("something is sealed");
    assert!(!stored.contains(SECRET), "{stored}");
    assert_eq!(
        opened(&service, source).await,
        (Some(SECRET.to_owned()), Some(SECRET.to_owned()))
    );
    acme.patch(
        &format!("/api/sources/{source}"),
        json!({ "website": { "max_pages": 3 } }),
    )
    .await
    .expect(200);
    for path in [
        format!("/api/sources/{source}"),
        format!("/api/sources/{source}/runs"),
        format!("/api/chatbots/{}/sources", desk.id),
        "/api/audit".to_owned(),
        "/api/jobs".to_owned(),
    ] {
        let shown = acme.get(&path).await.expect(200);
        assert!(!shown.text.contains(SECRET), "{path}: {}", shown.text);
        assert!(!shown.text.contains(&stored), "{path} shows the sealed text");
    }
    let refused = make(
        &desk,
        json!({ "url": "https://shop.example/", "headers": { "x-token": format!("{SECRET}\n") } }),
    )
    .await
    .expect(422);
    assert!(!refused.text.contains(SECRET), "{}", refused.text);
}

#[tokio::test]
async fn a_change_keeps_the_secrets_that_it_does_not_name_and_null_removes_them() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let made = make_secret(&desk).await;
    let source = made["id"].as_str().expect("an id");
    let path = format!("/api/sources/{source}");
    let change = |settings: Value| acme.patch(&path, json!({ "website": settings }));

    change(json!({ "max_pages": 3 })).await.expect(200);
    assert_eq!(
        opened(&service, source).await,
        (Some(SECRET.to_owned()), Some(SECRET.to_owned()))
    );
    let changed = change(json!({ "basic_auth": null })).await.expect(200).json();
    assert_eq!(changed["website"]["basic_auth_user"], Value::Null);
    assert_eq!(opened(&service, source).await, (Some(SECRET.to_owned()), None));
    change(json!({ "headers": { "x-token": "new" } }))
        .await
        .expect(200);
    assert_eq!(opened(&service, source).await, (Some("new".to_owned()), None));
    let changed = change(json!({ "headers": null })).await.expect(200).json();
    assert_eq!(changed["website"]["header_names"], json!([]));
    assert_eq!(sealed(&service, source).await, None);
}

#[tokio::test]
async fn secrets_stay_with_the_hosts_that_they_were_given_for() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let made = make_secret(&desk).await;
    let path = format!("/api/sources/{}", made["id"].as_str().expect("an id"));
    let change = |settings: Value| acme.patch(&path, json!({ "website": settings }));

    for settings in [
        json!({ "url": "https://collector.example/" }),
        json!({ "url": "http://shop.example/" }),
        json!({ "url": "https://shop.example:8443/" }),
        json!({ "url": "https://collector.example/", "headers": null }),
        json!({ "url": "https://collector.example/", "basic_auth": null }),
    ] {
        assert_eq!(
            change(settings.clone()).await.expect(422).code(),
            "secrets_of_another_host",
            "{settings}"
        );
    }
    change(json!({ "url": "https://shop.example/help" }))
        .await
        .expect(200);
    change(json!({ "url": "https://new.example/", "headers": null, "basic_auth": { "user": "a", "password": "b" } }))
        .await
        .expect(200);
}

#[tokio::test]
async fn the_short_way_in_cannot_carry_secrets_elsewhere() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let made = make_secret(&desk).await;

    let reply = acme
        .post(
            "/api/chatbots/crawl",
            json!({ "chatbot_id": desk.id, "url": "https://collector.example/" }),
        )
        .await
        .expect(202)
        .json();

    assert_ne!(reply["source"]["id"], made["id"]);
    assert_eq!(reply["source"]["website"]["header_names"], json!([]));
}

#[tokio::test]
async fn a_sealed_text_that_is_moved_to_another_source_does_not_open() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let first = make_secret(&desk).await;
    let second = make(&desk, json!({ "url": "https://collector.example/" }))
        .await
        .expect(202)
        .json();
    let moved = sealed(&service, first["id"].as_str().expect("an id")).await;
    let target = id_of(second["id"].as_str().expect("an id"));
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query("update source set sealed = $2 where id = $1").bind(target).bind(moved).execute(c).await.map(drop))
        .expect("updated");
    write.commit().await.expect("committed");

    let mut conn = service.app.db.read(acme.id).await.expect("a connection");
    let reach = frontdesk::http::access::Reach::whole(acme.id);
    let source = frontdesk::knowledge::sources::store::find(
        &mut conn,
        reach,
        second["id"].as_str().expect("an id").parse().expect("an id"),
    )
    .await
    .expect("readable")
    .expect("a source");

    assert!(source.secrets(&service.app).is_err());
}
