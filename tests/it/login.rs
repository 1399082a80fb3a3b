//! Signing up, logging in, and how sessions end: refresh, reuse, logout, password change, expiry, removal.

use chrono::TimeDelta;
use frontdesk::db::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Reply, TestApp, TestOptions};
use crate::harness::people::{PASSWORD, Person};

async fn start() -> TestApp {
    TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await
}

/// The problem without what differs from request to request.
fn refusal(reply: &Reply) -> (u16, Value) {
    let mut body = reply.json();
    body.as_object_mut().map(|body| body.remove("request_id"));
    (reply.status.as_u16(), body)
}

async fn suspend_all_tenants(service: &TestApp) {
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    frontdesk::on!(write, c => sqlx::query("update tenant set state = 'suspended'").execute(c).await.map(drop)).expect("suspended");
    write.commit().await.expect("committed");
}

#[tokio::test]
async fn signing_up_opens_a_tenant_and_logs_its_owner_in() {
    let service = start().await;

    let body =
        json!({ "email": " Ada@Example.COM ", "password": PASSWORD, "tenant_name": "Analytical Engines" });
    let login = service
        .send(Method::POST, "/api/auth/signup", None, Some(body))
        .await
        .expect(201)
        .json();

    assert_eq!(
        (
            login["role"].as_str(),
            login["token_type"].as_str(),
            login["expires_in"].as_u64()
        ),
        (Some("owner"), Some("Bearer"), Some(900))
    );
    assert_eq!(
        login["tenants"],
        json!([{ "id": login["tenant_id"], "name": "Analytical Engines", "role": "owner" }])
    );
    let ada = Person::of(&service, "ada@example.com", &login);
    let me = ada.get("/api/me").await.expect(200).json();
    assert_eq!(
        (&me["tenant_id"], &me["actor"]),
        (
            &login["tenant_id"],
            &json!({ "kind": "member", "id": ada.member_id })
        )
    );
    assert_eq!(
        ada.get("/api/members").await.expect(200).json()["items"][0]["email"],
        "ada@example.com"
    );
    service.log_in("ada@example.com", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn an_address_has_one_account_and_odd_addresses_and_passwords_are_refused() {
    let service = start().await;
    service.sign_up("ada@example.com", "Engines").await;
    let sign_up = async |email: &str, password: &str, name: &str| {
        let body = json!({ "email": email, "password": password, "tenant_name": name });
        let reply = service
            .send(Method::POST, "/api/auth/signup", None, Some(body))
            .await;
        (reply.status.as_u16(), reply.code())
    };

    assert_eq!(
        sign_up("ADA@example.com", PASSWORD, "Other").await,
        (409, "email_taken".to_owned())
    );
    for email in [
        "",
        "ada",
        "ada@",
        "@example.com",
        "ada@example",
        "a b@example.com",
        "ada@exam\nple.com",
        "ada@example..com",
        "ada@.example.com",
        "ada@example.com.",
        "ada@example.com\u{200b}",
        "a\u{ad}da@example.com",
    ] {
        assert_eq!(
            sign_up(email, PASSWORD, "Other").await,
            (422, "invalid_email".to_owned()),
            "{email:?}"
        );
    }
    for password in [
        "",
        "short",
        &"x".repeat(201),
        "            ",
        &"\u{200b}".repeat(12),
    ] {
        assert_eq!(
            sign_up("bob@example.com", password, "Other").await,
            (422, "invalid_password".to_owned()),
            "{}",
            password.len()
        );
    }
    for name in ["  ", "\u{200b} \u{3164}"] {
        assert_eq!(
            sign_up("bob@example.com", PASSWORD, name).await,
            (422, "invalid_name".to_owned()),
            "{name:?}"
        );
    }
    assert_eq!(
        service.log_in("bob@example.com", PASSWORD).await.status,
        401,
        "a refused sign-up leaves an account"
    );
}

#[tokio::test]
async fn signing_up_can_be_closed() {
    let service = TestOptions::default().set("auth.signup", false).start().await;

    let body = json!({ "email": "ada@example.com", "password": PASSWORD, "tenant_name": "Engines" });
    let reply = service
        .send(Method::POST, "/api/auth/signup", None, Some(body))
        .await;

    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (403, "signup_closed")
    );
}

#[tokio::test]
async fn a_refused_login_does_not_tell_whether_the_account_exists() {
    let service = start().await;
    service.sign_up("ada@example.com", "Engines").await;

    let wrong_password = service.log_in("ada@example.com", "not the password").await;
    let unknown = service.log_in("nobody@example.com", PASSWORD).await;
    let malformed = service.log_in("no address at all", PASSWORD).await;
    let elsewhere =
        json!({ "email": "ada@example.com", "password": PASSWORD, "tenant_id": uuid::Uuid::now_v7() });
    let foreign_tenant = service
        .send(Method::POST, "/api/auth/login", None, Some(elsewhere))
        .await;

    assert_eq!(
        (wrong_password.status.as_u16(), wrong_password.code().as_str()),
        (401, "login_failed")
    );
    for reply in [unknown, malformed, foreign_tenant] {
        assert_eq!(refusal(&reply), refusal(&wrong_password));
    }
}

#[tokio::test]
async fn a_refresh_token_works_once_and_gives_the_next_one() {
    let service = start().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;

    let reply = service.refresh(&ada.refresh_token).await.expect(200).json();
    let next = Person::of(&service, "ada@example.com", &reply);

    assert_ne!(next.refresh_token, ada.refresh_token);
    assert!(next.is_let_in().await);
    assert_eq!(
        (next.tenant_id.clone(), next.member_id.clone()),
        (ada.tenant_id, ada.member_id)
    );
    assert!(next.can_refresh().await);
}

#[tokio::test]
async fn using_a_spent_refresh_token_ends_the_session_with_its_newest_tokens() {
    let service = start().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;
    let other_device = service
        .log_in("ada@example.com", PASSWORD)
        .await
        .expect(200)
        .json();
    let other_device = Person::of(&service, "ada@example.com", &other_device);
    let next = service.refresh(&ada.refresh_token).await.expect(200).json();
    let next = Person::of(&service, "ada@example.com", &next);

    let reused = service.refresh(&ada.refresh_token).await;

    assert_eq!(
        (reused.status.as_u16(), reused.code().as_str()),
        (401, "credential_invalid")
    );
    assert!(
        !next.is_let_in().await,
        "the thief's or the owner's access token lives on"
    );
    assert!(!next.can_refresh().await, "the newest refresh token lives on");
    assert!(!ada.is_let_in().await);
    assert!(
        other_device.is_let_in().await,
        "another session of the person ended too"
    );
}

#[tokio::test]
async fn of_two_refreshes_with_one_token_at_once_at_most_one_wins() {
    let service = start().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;

    let replies = futures::future::join_all((0..6).map(|_| service.refresh(&ada.refresh_token))).await;

    assert!(replies.iter().filter(|reply| reply.status == 200).count() <= 1);
    assert!(
        replies
            .iter()
            .all(|reply| [200, 401].contains(&reply.status.as_u16()))
    );
    assert!(!ada.is_let_in().await, "reuse ends the session");
}

#[tokio::test]
async fn unknown_and_malformed_refresh_tokens_are_one_and_the_same_refusal() {
    let service = start().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;

    let unknown = service.refresh("fdr_unknown").await;

    assert_eq!(
        (unknown.status.as_u16(), unknown.code().as_str()),
        (401, "credential_invalid")
    );
    for token in ["", " ", "fdk_x", ada.access_token.as_str(), &"x".repeat(20_000)] {
        assert_eq!(
            refusal(&service.refresh(token).await),
            refusal(&unknown),
            "{}",
            token.len()
        );
    }
    assert!(ada.is_let_in().await);
}

#[tokio::test]
async fn a_token_of_one_purpose_opens_nothing_else() {
    let service = start().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;
    let invite = ada.invite("bob@example.com", "viewer").await;

    for token in [&ada.refresh_token, &invite] {
        let reply = service.send(Method::GET, "/api/me", Some(token), None).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (401, "credential_invalid")
        );
    }
    for token in [&ada.refresh_token, &ada.access_token] {
        assert_eq!(service.accept_invite(token, PASSWORD).await.status, 401);
    }
    assert_eq!(service.refresh(&invite).await.status, 401);
    service.accept_invite(&invite, PASSWORD).await.expect(200);
}

#[tokio::test]
async fn an_access_token_ends_by_the_clock_and_so_does_the_session() {
    let service = start().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;

    service.clock.advance(TimeDelta::seconds(898));
    assert!(ada.is_let_in().await);
    service.clock.advance(TimeDelta::seconds(3));
    assert!(!ada.is_let_in().await);

    let next = service.refresh(&ada.refresh_token).await.expect(200).json();
    service.clock.advance(TimeDelta::days(30));
    assert_eq!(
        service
            .refresh(next["refresh_token"].as_str().expect("a token"))
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn logging_out_ends_this_session_and_logging_out_everywhere_ends_all() {
    let service = start().await;
    let first = service.sign_up("ada@example.com", "Engines").await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let login = service
            .log_in("ada@example.com", PASSWORD)
            .await
            .expect(200)
            .json();
        others.push(Person::of(&service, "ada@example.com", &login));
    }

    first
        .send(Method::POST, "/api/auth/logout", None)
        .await
        .expect(204);
    assert!(!first.is_let_in().await);
    assert!(!first.can_refresh().await);
    assert!(others[0].is_let_in().await && others[1].is_let_in().await);

    others[0]
        .post("/api/auth/logout", json!({ "everywhere": true }))
        .await
        .expect(204);
    for session in &others {
        assert!(!session.is_let_in().await);
        assert!(!session.can_refresh().await);
    }
    service.log_in("ada@example.com", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn changing_the_password_ends_every_session_and_the_old_password() {
    let service = start().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;
    let login = service
        .log_in("ada@example.com", PASSWORD)
        .await
        .expect(200)
        .json();
    let other = Person::of(&service, "ada@example.com", &login);
    let change = async |current: &str, new: &str| {
        ada.send(
            Method::PUT,
            "/api/auth/password",
            Some(json!({ "current_password": current, "new_password": new })),
        )
        .await
    };

    let refused = change("not the password", "a brand new password").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (403, "wrong_password")
    );
    assert_eq!(change(PASSWORD, "short").await.code(), "invalid_password");
    assert!(other.is_let_in().await, "a refused change ended a session");

    change(PASSWORD, "a brand new password").await.expect(204);
    for session in [&ada, &other] {
        assert!(!session.is_let_in().await);
        assert!(!session.can_refresh().await);
    }
    assert_eq!(service.log_in("ada@example.com", PASSWORD).await.status, 401);
    service
        .log_in("ada@example.com", "a brand new password")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_removed_members_tokens_open_nothing_at_once() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let bob = owner.bring("bob@example.com", "editor").await;
    assert!(bob.is_let_in().await);

    owner.remove(&bob.member_id).await.expect(204);

    assert!(!bob.is_let_in().await);
    assert!(!bob.can_refresh().await);
    assert_eq!(
        service.log_in("bob@example.com", PASSWORD).await.code(),
        "login_failed"
    );
}

#[tokio::test]
async fn a_changed_role_holds_from_the_next_request_on() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let bob = owner.bring("bob@example.com", "viewer").await;
    assert_eq!(bob.get("/api/keys").await.code(), "permission_missing");

    owner.change_role(&bob.member_id, "admin").await.expect(200);
    bob.get("/api/keys").await.expect(200);

    owner.change_role(&bob.member_id, "viewer").await.expect(200);
    assert_eq!(bob.get("/api/keys").await.code(), "permission_missing");
}

#[tokio::test]
async fn a_suspended_tenants_credentials_open_nothing() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let invite = owner.invite("bob@example.com", "viewer").await;
    let key = owner
        .post("/api/keys", json!({ "name": "k", "scopes": ["admin"] }))
        .await
        .expect(201)
        .json()["secret"]
        .as_str()
        .expect("a secret")
        .to_owned();

    suspend_all_tenants(&service).await;

    assert!(!owner.is_let_in().await);
    assert!(!owner.can_refresh().await);
    assert_eq!(
        service
            .send(Method::GET, "/api/me", Some(&key), None)
            .await
            .code(),
        "credential_invalid"
    );
    assert_eq!(
        service.log_in("owner@example.com", PASSWORD).await.code(),
        "login_failed"
    );
    assert_eq!(service.accept_invite(&invite, PASSWORD).await.status, 401);
}

#[tokio::test]
async fn passwords_and_tokens_are_stored_as_hashes_only() {
    let service = start().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;
    let invite = ada.invite("bob@example.com", "viewer").await;

    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    let hash: String =
        frontdesk::on!(conn, c => sqlx::query_scalar("select password_hash from account").fetch_one(c).await)
            .expect("an account");
    let refresh: String = frontdesk::on!(conn, c => sqlx::query_scalar("select token_hash from refresh_token").fetch_one(c).await).expect("a token");
    let invited: String =
        frontdesk::on!(conn, c => sqlx::query_scalar("select token_hash from invite").fetch_one(c).await)
            .expect("an invite");

    assert!(hash.starts_with("$argon2id$"), "{hash}");
    assert!(!hash.contains(PASSWORD));
    for (stored, token) in [(refresh, &ada.refresh_token), (invited, &invite)] {
        assert!(token.len() >= 4 + 43, "a token has 256 random bits");
        assert!(!stored.contains(&token[4..]) && stored.len() == 64, "{stored}");
    }
}
