//! Connecting a Google account: whose consent it is, what it is good for, and how it ends.

use chrono::TimeDelta;
use frontdesk::db::Scope;
use frontdesk::on;
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use crate::drive::desk::{Desk, options_for};
use crate::harness::app::{Reply, Tenant, TestApp};
use crate::harness::drive::{Consent, EMAIL, FakeDrive};

const CONNECTION: &str = "/api/integrations/google";

/// What a browser holds after somebody began to connect an account in it.
struct Begun {
    url: Url,
    cookie: String,
}

impl Begun {
    fn parameter(&self, name: &str) -> String {
        let found = self.url.query_pairs().find(|(key, _)| key == name);
        found
            .unwrap_or_else(|| panic!("{name} is in {}", self.url))
            .1
            .into_owned()
    }
}

async fn begin(service: &TestApp, credential: &str) -> Begun {
    let reply = service
        .send(
            Method::GET,
            &format!("{CONNECTION}/connect"),
            Some(credential),
            None,
        )
        .await
        .expect(200);
    let cookie = reply.headers["set-cookie"].to_str().expect("text");
    for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    Begun {
        url: reply.json()["authorization_url"]
            .as_str()
            .expect("an address")
            .parse()
            .expect("a URL"),
        cookie: cookie.split(';').next().expect("a pair").to_owned(),
    }
}

/// Google sends the browser back.
async fn come_back(service: &TestApp, state: &str, code: &str, cookie: Option<&str>) -> Reply {
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("state", state),
            ("code", code),
            ("scope", "drive"),
            ("authuser", "0"),
            ("prompt", "consent"),
        ])
        .finish();
    let mut request = service.request(Method::GET, &format!("{CONNECTION}/callback?{query}"), None);
    if let Some(cookie) = cookie {
        request = request.header("cookie", format!("theme=dark; {cookie}"));
    }
    Reply::read(request.send().await.expect("the service answers")).await
}

async fn connection(tenant: &Tenant<'_>) -> Value {
    tenant.get(CONNECTION).await.expect(200).json()
}

/// Connects the account of `fake`.
async fn connect(service: &TestApp, fake: &FakeDrive, credential: &str) {
    let begun = begin(service, credential).await;
    let code = fake.agree(&begun.url);
    come_back(service, &begun.parameter("state"), &code, Some(&begun.cookie))
        .await
        .expect(200);
}

#[tokio::test]
async fn an_owner_connects_an_account_and_a_source_reads_with_it() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let acme = service.tenant("acme").await;
    let root = fake.folder("Root", &[]);
    fake.text("a.txt", &[&root], "Words.");
    assert_eq!(connection(&acme).await["state"], "none");

    connect(&service, &fake, &acme.key).await;

    let shown = connection(&acme).await;
    assert_eq!(
        (&shown["state"], &shown["account"]),
        (&json!("connected"), &json!(EMAIL))
    );
    let log = acme.get("/api/audit").await.expect(200);
    assert_eq!(log.json()["items"][0]["action"], "connection.create");
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    let sealed: String =
        on!(conn, c => sqlx::query_scalar("select sealed from connection").fetch_one(c).await)
            .expect("a row");
    drop(conn);
    for text in [shown.to_string(), log.text, sealed] {
        assert!(!text.contains("refresh-") && !text.contains("access-"), "{text}");
    }
    let (desk, run) = Desk::of(acme, json!({ "folder_id": root })).await;
    assert_eq!(run.state(), "done", "{}", run.0);
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));
}

#[tokio::test]
async fn a_consent_is_asked_for_with_a_fixed_redirect_and_a_challenge() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let acme = service.tenant("acme").await;

    let reply = service
        .request(Method::GET, &format!("{CONNECTION}/connect"), Some(&acme.key))
        .header("host", "evil.example")
        .header("x-forwarded-host", "evil.example")
        .send()
        .await
        .expect("the service answers");
    let body = Reply::read(reply).await.expect(200).json();
    let url: Url = body["authorization_url"]
        .as_str()
        .expect("an address")
        .parse()
        .expect("a URL");

    assert!(url.as_str().starts_with(&fake.auth_url()));
    let begun = Begun {
        url,
        cookie: String::new(),
    };
    assert_eq!(
        begun.parameter("redirect_uri"),
        "https://desk.example.com/api/integrations/google/callback"
    );
    assert_eq!(begun.parameter("code_challenge_method"), "S256");
    assert!(begun.parameter("state").len() > 70);
    assert!(!begun.url.as_str().contains("secret"));
}

#[tokio::test]
async fn a_state_works_once_and_a_code_only_with_its_own_challenge() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let acme = service.tenant("acme").await;
    let begun = begin(&service, &acme.key).await;
    let (state, code) = (begun.parameter("state"), fake.agree(&begun.url));
    come_back(&service, &state, &code, Some(&begun.cookie))
        .await
        .expect(200);

    let second = fake.agree(&begun.url);
    let reply = come_back(&service, &state, &second, Some(&begun.cookie)).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (409, "consent_stale")
    );

    // A code that somebody else asked for is put under a good state.
    let begun = begin(&service, &acme.key).await;
    let foreign = fake.agree_to(Consent {
        redirect_uri: begun.parameter("redirect_uri"),
        code_challenge: "of somebody else".to_owned(),
        scope: begun.parameter("scope"),
    });
    let reply = come_back(&service, &begun.parameter("state"), &foreign, Some(&begun.cookie)).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (409, "consent_stale")
    );

    for nonsense in ["", "x", "x.y", &format!("{}.unknown", acme.id)] {
        let reply = come_back(&service, nonsense, "code", Some(&begun.cookie)).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (409, "consent_stale"),
            "{nonsense:?}"
        );
    }
}

#[tokio::test]
async fn a_consent_comes_back_in_the_browser_that_began_or_with_its_credential() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let acme = service.tenant("acme").await;
    let globex = service.tenant("globex").await;
    let mine = begin(&service, &acme.key).await;
    let other = begin(&service, &globex.key).await;

    // Somebody is sent to a stranger's authorisation address: their browser knows nothing of it, or of another one.
    for cookie in [
        None,
        Some(other.cookie.as_str()),
        Some("__Host-frontdesk_connect="),
    ] {
        let begun = begin(&service, &acme.key).await;
        let code = fake.agree(&begun.url);
        let reply = come_back(&service, &begun.parameter("state"), &code, cookie).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (403, "consent_of_another"),
            "{cookie:?}"
        );
        // Refused once, it is over: nobody tries a second time.
        let reply = come_back(&service, &begun.parameter("state"), &code, Some(&begun.cookie)).await;
        assert_eq!(reply.code(), "consent_stale");
    }
    assert_eq!(connection(&acme).await["state"], "none");

    let code = fake.agree(&mine.url);
    let path = format!(
        "{CONNECTION}/callback?state={}&code={}",
        mine.parameter("state"),
        code.replace('/', "%2F")
    );
    let reply = service
        .send(Method::GET, &path, Some(&acme.key), None)
        .await
        .expect(200);
    assert_eq!(reply.json()["account"], EMAIL);
    let code = fake.agree(&other.url);
    let path = format!(
        "{CONNECTION}/callback?state={}&code={}",
        other.parameter("state"),
        code.replace('/', "%2F")
    );
    let reply = service.send(Method::GET, &path, Some(&acme.key), None).await;
    assert_eq!(reply.code(), "consent_of_another");
    assert_eq!(connection(&globex).await["state"], "none");
}

#[tokio::test]
async fn a_consent_ends_with_its_time_and_with_the_session_that_asked() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let owner = service.sign_up("owner@acme.example", "acme").await;

    let late = begin(&service, &owner.access_token).await;
    let code = fake.agree(&late.url);
    service.clock.advance(TimeDelta::minutes(11));
    let reply = come_back(&service, &late.parameter("state"), &code, Some(&late.cookie)).await;
    assert_eq!(reply.code(), "consent_stale");

    let begun = begin(&service, &owner.access_token).await;
    let code = fake.agree(&begun.url);
    service
        .send(Method::POST, "/api/auth/logout", Some(&owner.access_token), None)
        .await
        .expect(204);
    let reply = come_back(&service, &begun.parameter("state"), &code, Some(&begun.cookie)).await;
    assert_eq!(reply.code(), "consent_stale");
    assert_eq!(fake.open_consents(), 0, "the code was not even traded");
}

#[tokio::test]
async fn a_person_who_says_no_or_allows_less_reads_why_nothing_was_connected() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let acme = service.tenant("acme").await;

    let begun = begin(&service, &acme.key).await;
    let path = format!(
        "{CONNECTION}/callback?error=access_denied&state={}",
        begun.parameter("state")
    );
    let page = service
        .request(Method::GET, &path, None)
        .header("cookie", &begun.cookie)
        .header("accept", "text/html,application/xhtml+xml")
        .send()
        .await
        .expect("the service answers");
    let page = Reply::read(page).await.expect(409);
    assert!(
        page.headers["content-type"]
            .to_str()
            .is_ok_and(|kind| kind.starts_with("text/html"))
    );
    assert!(
        page.text.contains("consent_refused") && page.text.contains("begin again"),
        "{}",
        page.text
    );

    let begun = begin(&service, &acme.key).await;
    let code = fake.agree_to(Consent {
        redirect_uri: begun.parameter("redirect_uri"),
        code_challenge: begun.parameter("code_challenge"),
        scope: "openid".to_owned(),
    });
    let reply = come_back(&service, &begun.parameter("state"), &code, Some(&begun.cookie)).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (409, "drive_not_allowed")
    );
    assert_eq!(connection(&acme).await["state"], "none");
}

#[tokio::test]
async fn an_account_is_given_back_and_sources_that_read_with_it_keep_what_they_have() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let acme = service.tenant("acme").await;
    connect(&service, &fake, &acme.key).await;
    let root = fake.folder("Root", &[]);
    fake.text("a.txt", &[&root], "Words.");
    let (desk, _) = Desk::of(acme, json!({ "folder_id": root })).await;

    fake.withdraw_access(true);
    fake.end_access_tokens();
    let run = desk.sync().await;
    assert_eq!(run.0["error"]["code"], "access_withdrawn", "{}", run.0);
    assert_eq!(connection(&desk.tenant).await["state"], "withdrawn");

    fake.withdraw_access(false);
    connect(&service, &fake, &desk.tenant.key).await;
    assert_eq!(connection(&desk.tenant).await["state"], "connected");
    assert_eq!(desk.sync().await.state(), "done");

    let key = desk.tenant.key.clone();
    let reply = service
        .send(Method::DELETE, CONNECTION, Some(&key), None)
        .await
        .expect(200);
    assert_eq!(reply.json()["revoked"], true);
    let log = desk.tenant.get("/api/audit").await.expect(200).json();
    assert_eq!(log["items"][0]["action"], "connection.delete");
    let run = desk.sync().await;
    assert_eq!(run.0["error"]["code"], "not_connected", "{}", run.0);
    assert_eq!(desk.knowledge().await.len(), 1);
    let reply = service.send(Method::DELETE, CONNECTION, Some(&key), None).await;
    assert_eq!(reply.status.as_u16(), 404);
}

#[tokio::test]
async fn without_a_client_at_google_nobody_is_sent_there() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;

    let reply = acme.get(&format!("{CONNECTION}/connect")).await;

    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (409, "google_not_configured")
    );
    assert_eq!(connection(&acme).await["can_connect"], false);
}

#[tokio::test]
async fn what_is_read_with_the_connected_account_is_an_admins_choice() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let acme = service.tenant("acme").await;
    connect(&service, &fake, &acme.key).await;
    let root = fake.folder("Root", &[]);
    fake.text("a.txt", &[&root], "Words.");
    let (desk, _) = Desk::of(acme, json!({ "folder_id": root })).await;
    let ingest = desk
        .tenant
        .make_key(json!({ "name": "loader", "scopes": ["ingest"] }))
        .await;
    let sources = format!("/api/chatbots/{}/sources", desk.chatbot_id);
    let own = format!("/api/sources/{}", desk.source_id);
    let send = async |method: Method, path: &str, body: Value| {
        let reply = service.send(method, path, Some(&ingest), Some(body)).await;
        (reply.status.as_u16(), reply.code())
    };
    let refused = (403, "connection_needs_admin".to_owned());

    let anything = json!({ "kind": "drive", "drive": { "folder_id": "root" } });
    assert_eq!(send(Method::POST, &sources, anything).await, refused);
    for drive in [
        json!({ "folder_id": "root" }),
        json!({ "file_ids": ["1"] }),
        json!({ "shared_drive_id": "1" }),
    ] {
        let reply = send(Method::PATCH, &own, json!({ "drive": drive })).await;
        assert_eq!(reply, refused, "{drive}");
    }

    let with_own = json!({ "folder_id": root, "credentials": fake.service_account() });
    let created = service
        .send(
            Method::POST,
            &sources,
            Some(&ingest),
            Some(json!({ "kind": "drive", "drive": with_own })),
        )
        .await
        .expect(202);
    let path = format!("/api/sources/{}", created.id());
    let without = json!({ "drive": { "credentials": null } });
    assert_eq!(send(Method::PATCH, &path, without).await, refused);
    let kept = json!({ "name": "Handbook", "drive": { "folder_id": root, "shrink_limit_percent": 20 } });
    assert_eq!(send(Method::PATCH, &own, kept).await.0, 200);
    assert_eq!(send(Method::POST, &format!("{own}/sync"), json!({})).await.0, 202);
    service.drain_jobs().await;
}
