//! API keys: shown once, stored as hashes, ended by revocation or the clock.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use frontdesk::clock::Clock as _;
use frontdesk::db::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Reply, Tenant, TestApp};

async fn me(service: &TestApp, key: &str) -> Reply {
    service.send(Method::GET, "/api/me", Some(key), None).await
}

/// The tenant's key of this name, as its list shows it.
async fn shown(tenant: &Tenant<'_>, name: &str) -> Value {
    let page = tenant.get("/api/keys").await.expect(200).json();
    page["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|key| key["name"] == name)
        .cloned()
        .unwrap_or_default()
}

#[tokio::test]
async fn a_key_tells_who_it_is_and_what_it_may() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let created = acme
        .post(
            "/api/keys",
            json!({ "name": "robot", "scopes": ["ingest", "chat", "chat"], "chatbot_id": desk.id }),
        )
        .await
        .expect(201)
        .json();

    let answer = me(&service, created["secret"].as_str().expect("a secret"))
        .await
        .expect(200)
        .json();

    assert_eq!(answer["tenant_id"], json!(acme.id.to_string()));
    assert_eq!(answer["actor"], json!({ "kind": "api_key", "id": created["id"] }));
    assert_eq!(answer["scopes"], json!(["chat", "ingest"]));
    assert_eq!(answer["chatbot_id"], json!(desk.id));
    assert_eq!(answer["permissions"], json!(["chat", "knowledge:read", "ingest"]));
}

#[tokio::test]
async fn a_secret_is_shown_once_and_stored_nowhere() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let created = acme
        .post("/api/keys", json!({ "name": "robot", "scopes": ["chat"] }))
        .await
        .expect(201)
        .json();
    let secret = created["secret"].as_str().expect("a secret").to_owned();
    let random = secret
        .strip_prefix("fdk_")
        .expect("keys have a prefix that scanners know");
    me(&service, &secret).await.expect(200);

    assert!(random.len() >= 43, "256 bits in base64");
    for path in ["/api/keys", "/api/audit", "/metrics"] {
        assert!(
            !acme.get(path).await.expect(200).text.contains(random),
            "{path} shows the secret"
        );
    }
    assert_eq!(
        shown(&acme, "robot").await["hint"],
        json!(secret[secret.len() - 4..])
    );
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    let stored: Vec<String> =
        frontdesk::on!(conn, c => sqlx::query_scalar("select secret_hash from api_key").fetch_all(c).await)
            .expect("keys");
    assert!(
        stored.len() == 2
            && stored
                .iter()
                .all(|hash| hash.len() == 64 && !hash.contains(random)),
        "{stored:?}"
    );
    for entry in std::fs::read_dir(service.data_dir())
        .expect("the data folder")
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_file())
    {
        let bytes = std::fs::read(entry.path()).expect("a readable file");
        assert!(
            !bytes
                .windows(random.len())
                .any(|window| window == random.as_bytes()),
            "{:?} holds the secret",
            entry.path()
        );
    }
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_from_the_next_request_on() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let created = acme
        .post("/api/keys", json!({ "name": "robot", "scopes": ["admin"] }))
        .await
        .expect(201)
        .json();
    let secret = created["secret"].as_str().expect("a secret");
    let path = format!("/api/keys/{}", created["id"].as_str().expect("an id"));
    me(&service, secret).await.expect(200);

    acme.delete(&path).await.expect(204);

    let refused = me(&service, secret).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (401, "credential_invalid")
    );
    let revoked_at = shown(&acme, "robot").await["revoked_at"].clone();
    assert!(revoked_at.is_string());
    acme.delete(&path).await.expect(204);
    assert_eq!(
        shown(&acme, "robot").await["revoked_at"],
        revoked_at,
        "the second time changes nothing"
    );
}

#[tokio::test]
async fn a_key_ends_by_the_clock() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let expires_at = service.clock.now() + TimeDelta::hours(1);
    let secret = acme
        .make_key(json!({ "name": "short", "scopes": ["chat"], "expires_at": expires_at }))
        .await;

    service.clock.advance(TimeDelta::minutes(59));
    me(&service, &secret).await.expect(200);
    service.clock.advance(TimeDelta::minutes(1));

    assert_eq!(
        me(&service, &secret).await.expect(401).code(),
        "credential_invalid"
    );
}

#[tokio::test]
async fn odd_keys_are_not_made() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let past = service.clock.now() - TimeDelta::seconds(1);
    let desk = acme.chatbot("Desk").await;

    for (body, code) in [
        (json!({ "name": "", "scopes": ["chat"] }), "invalid_name"),
        (
            json!({ "name": "x".repeat(201), "scopes": ["chat"] }),
            "invalid_name",
        ),
        (
            json!({ "name": "line\nbreak", "scopes": ["chat"] }),
            "invalid_name",
        ),
        (json!({ "name": "k", "scopes": [] }), "invalid_scopes"),
        (json!({ "name": "k", "scopes": ["owner"] }), "invalid_body"),
        (
            json!({ "name": "k", "scopes": ["admin"], "chatbot_id": desk.id }),
            "invalid_scopes",
        ),
        (
            json!({ "name": "k", "scopes": ["chat"], "expires_at": past }),
            "invalid_expiry",
        ),
        (
            json!({ "name": "k", "scopes": ["chat"], "expires_at": "+12026-01-01T00:00:00Z" }),
            "invalid_expiry",
        ),
        (
            json!({ "name": "k", "scopes": ["chat"], "expires_at": "tomorrow" }),
            "invalid_body",
        ),
        (
            json!({ "name": "k", "scopes": ["chat"], "id": desk.id }),
            "invalid_body",
        ),
        (
            json!({ "name": "k", "scopes": ["chat"], "tenant_id": desk.id }),
            "invalid_body",
        ),
        (
            json!({ "name": "k", "scopes": ["chat"], "secret": "fdk_mine" }),
            "invalid_body",
        ),
    ] {
        let reply = acme.post("/api/keys", body.clone()).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (422, code),
            "{body}"
        );
    }
    assert_eq!(
        acme.get("/api/keys").await.expect(200).json()["items"]
            .as_array()
            .map(Vec::len),
        Some(1),
        "a refused key was made"
    );
}

#[tokio::test]
async fn a_key_notes_when_it_was_last_used_exact_to_a_minute() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let secret = acme
        .make_key(json!({ "name": "robot", "scopes": ["chat"] }))
        .await;
    assert_eq!(shown(&acme, "robot").await["last_used_at"], Value::Null);

    for _ in 0..2 {
        service.clock.advance(TimeDelta::minutes(2));
        let used_at = service.clock.now();
        me(&service, &secret).await.expect(200);

        // It is written beside the request, not before its answer.
        let noted = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let last = shown(&acme, "robot").await["last_used_at"].clone();
                if let Some(last) = last
                    .as_str()
                    .and_then(|last| last.parse::<DateTime<Utc>>().ok())
                    .filter(|last| *last >= used_at)
                {
                    return last;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(noted.await.expect("the use is noted") - used_at < TimeDelta::minutes(1));
    }
}

#[tokio::test]
async fn keys_that_are_no_keys_are_all_the_same_refusal() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let mut changed = acme.key.clone();
    changed.replace_range(10..11, if &changed[10..11] == "A" { "B" } else { "A" });
    let refusal = |reply: &Reply| {
        let mut body = reply.json();
        body.as_object_mut().map(|body| body.remove("request_id"));
        (reply.status.as_u16(), body)
    };

    let unknown = me(&service, "fdk_unknown").await;

    assert_eq!(
        (unknown.status.as_u16(), unknown.code().as_str()),
        (401, "credential_invalid")
    );
    let (longer, upper, huge) = (
        format!("{}A", acme.key),
        acme.key.to_uppercase(),
        format!("fdk_{}", "A".repeat(9000)),
    );
    let shorter = &acme.key[..acme.key.len() - 1];
    for key in [
        "fdk_",
        "fdk",
        "x",
        "a.b.c",
        "fdk_' or 1=1 --",
        "fdk_%00",
        &changed,
        &longer,
        shorter,
        &upper,
        &huge,
    ] {
        assert_eq!(refusal(&me(&service, key).await), refusal(&unknown), "{key:.40}");
    }
}

#[tokio::test]
async fn a_credential_comes_in_one_bearer_header_and_nowhere_else() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let key = &acme.key;
    let send = async |headers: Vec<(&str, Vec<u8>)>, query: String| {
        let mut request = service.request(Method::GET, &format!("/api/tenant{query}"), None);
        for (name, value) in headers {
            request = request.header(
                name,
                reqwest::header::HeaderValue::from_bytes(&value).expect("a header"),
            );
        }
        let reply = Reply::read(request.send().await.expect("an answer")).await;
        (reply.status.as_u16(), reply.code())
    };
    let invalid = (401, "credential_invalid".to_owned());
    let missing = (401, "credential_missing".to_owned());

    let bearer = |text: String| vec![("authorization", text.into_bytes())];
    assert_eq!(
        send(bearer(format!("bearer {key}")), String::new()).await.0,
        200,
        "the scheme's case does not matter"
    );
    for text in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        key.clone(),
        format!("Basic {key}"),
        format!("Bearer {key} {key}"),
        format!("Bearer{key}"),
        format!("Bearer {key},"),
    ] {
        assert_eq!(
            send(bearer(text.clone()), String::new()).await,
            invalid,
            "{text:.20}"
        );
    }
    assert_eq!(
        send(
            vec![("authorization", vec![b'B', b'e', 0xff, 0xfe])],
            String::new()
        )
        .await,
        invalid
    );
    let twice = vec![
        ("authorization", format!("Bearer {key}").into_bytes()),
        ("authorization", format!("Bearer {key}").into_bytes()),
    ];
    assert_eq!(send(twice, String::new()).await, invalid);
    for query in [
        format!("?api_key={key}"),
        format!("?access_token={key}"),
        format!("?token={key}"),
        format!("?authorization=Bearer%20{key}"),
    ] {
        assert_eq!(send(Vec::new(), query).await, missing);
    }
    let tenant_id = acme.id.to_string();
    for name in [
        "x-tenant-id",
        "x-user-id",
        "x-forwarded-user",
        "x-api-key",
        "cookie",
    ] {
        assert_eq!(
            send(vec![(name, tenant_id.clone().into_bytes())], String::new()).await,
            missing,
            "{name}"
        );
    }
}
