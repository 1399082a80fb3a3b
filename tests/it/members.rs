//! Members and invitations: no one grants more than they hold, the last owner stays, an invitation works once.

use chrono::TimeDelta;
use serde_json::json;

use crate::harness::app::{Reply, TestApp, TestOptions};
use crate::harness::people::{PASSWORD, Person};

async fn start() -> TestApp {
    TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await
}

fn told(reply: &Reply) -> (u16, String) {
    (reply.status.as_u16(), reply.code())
}

async fn owners(person: &Person<'_>) -> usize {
    let page = person.get("/api/members").await.expect(200).json();
    page["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter(|member| member["role"] == "owner")
        .count()
}

#[tokio::test]
async fn an_invitation_makes_its_addressee_a_member_with_the_named_role() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;

    let bob = owner.bring("Bob@example.com", "editor").await;

    let me = bob.get("/api/me").await.expect(200).json();
    assert_eq!(
        (me["tenant_id"].as_str(), me["role"].as_str()),
        (Some(owner.tenant_id.as_str()), Some("editor"))
    );
    let members = owner.get("/api/members").await.expect(200).json();
    assert_eq!(members["items"][0]["email"], "bob@example.com");
    service.log_in("bob@example.com", PASSWORD).await.expect(200);
}

#[tokio::test]
async fn an_invitation_works_once_for_a_limited_time_and_an_absent_one_is_a_wrong_one() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let used = owner.invite("bob@example.com", "viewer").await;
    service.accept_invite(&used, PASSWORD).await.expect(200);
    let late = owner.invite("carol@example.com", "viewer").await;

    assert_eq!(
        told(&service.accept_invite(&used, PASSWORD).await),
        (401, "credential_invalid".to_owned())
    );
    service.clock.advance(TimeDelta::days(7));
    for token in [late.as_str(), "fdi_unknown", "", "x"] {
        assert_eq!(
            told(&service.accept_invite(token, PASSWORD).await),
            (401, "credential_invalid".to_owned()),
            "{token}"
        );
    }
    assert_eq!(
        service.log_in("carol@example.com", PASSWORD).await.status,
        401,
        "a late invitation made an account"
    );
}

#[tokio::test]
async fn of_many_acceptances_at_once_one_counts() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let token = owner.invite("bob@example.com", "viewer").await;

    let replies = futures::future::join_all((0..5).map(|_| service.accept_invite(&token, PASSWORD))).await;

    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    assert!(
        replies
            .iter()
            .all(|reply| [200, 401].contains(&reply.status.as_u16())),
        "{replies:?}"
    );
    assert_eq!(
        owner.get("/api/members").await.expect(200).json()["items"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[tokio::test]
async fn someone_with_an_account_joins_with_their_own_password_only() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let ada = service.sign_up("ada@example.com", "Her own").await;
    let token = owner.invite("ada@example.com", "viewer").await;

    assert_eq!(
        told(&service.accept_invite(&token, "not her password").await),
        (401, "credential_invalid".to_owned())
    );
    let login = service.accept_invite(&token, PASSWORD).await.expect(200).json();

    assert_eq!(login["tenant_id"], json!(owner.tenant_id));
    assert_eq!(login["tenants"].as_array().map(Vec::len), Some(2));
    assert!(ada.is_let_in().await, "joining elsewhere ended a session");
    let again = owner.invite("ada@example.com", "viewer").await;
    assert_eq!(
        told(&service.accept_invite(&again, PASSWORD).await),
        (409, "already_member".to_owned())
    );
}

#[tokio::test]
async fn no_one_grants_takes_or_changes_a_role_above_their_own() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let admin = owner.bring("admin@example.com", "admin").await;
    let second_owner = owner.bring("second@example.com", "owner").await;
    let refused = (403, "grants_too_much".to_owned());

    assert_eq!(
        told(
            &admin
                .post(
                    "/api/members",
                    json!({ "email": "x@example.com", "role": "owner" })
                )
                .await
        ),
        refused
    );
    assert_eq!(told(&admin.change_role(&admin.member_id, "owner").await), refused);
    assert_eq!(
        told(&admin.change_role(&second_owner.member_id, "viewer").await),
        refused
    );
    assert_eq!(told(&admin.remove(&second_owner.member_id).await), refused);
    assert_eq!(owners(&owner).await, 2);

    admin.bring("peer@example.com", "admin").await;
    owner
        .change_role(&second_owner.member_id, "admin")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_key_of_scope_admin_counts_as_an_admin() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let second = owner.bring("second@example.com", "owner").await;
    let key = owner
        .post("/api/keys", json!({ "name": "k", "scopes": ["admin"] }))
        .await
        .expect(201)
        .json()["secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    let send = async |method, path: String, body| told(&service.send(method, &path, Some(&key), body).await);
    let refused = (403, "grants_too_much".to_owned());

    assert_eq!(
        send(
            reqwest::Method::POST,
            "/api/members".to_owned(),
            Some(json!({ "email": "x@example.com", "role": "owner" }))
        )
        .await,
        refused
    );
    assert_eq!(
        send(
            reqwest::Method::DELETE,
            format!("/api/members/{}", second.member_id),
            None
        )
        .await,
        refused
    );
    assert_eq!(
        send(
            reqwest::Method::POST,
            "/api/members".to_owned(),
            Some(json!({ "email": "x@example.com", "role": "admin" }))
        )
        .await
        .0,
        201
    );
}

#[tokio::test]
async fn the_last_owner_stays() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let refused = (409, "last_owner".to_owned());

    assert_eq!(told(&owner.change_role(&owner.member_id, "admin").await), refused);
    assert_eq!(told(&owner.remove(&owner.member_id).await), refused);
    owner.change_role(&owner.member_id, "owner").await.expect(200);

    let second = owner.bring("second@example.com", "owner").await;
    owner.remove(&owner.member_id).await.expect(204);
    assert_eq!(owners(&second).await, 1);
    assert_eq!(told(&second.remove(&second.member_id).await), refused);
}

#[tokio::test]
async fn two_owners_who_leave_at_the_same_moment_leave_one_behind() {
    let service = start().await;
    for round in 0..5 {
        let first = service
            .sign_up(&format!("first{round}@example.com"), "Engines")
            .await;
        let second = first.bring(&format!("second{round}@example.com"), "owner").await;

        let (one, other) = tokio::join!(
            first.remove(&first.member_id),
            second.change_role(&second.member_id, "viewer")
        );

        let statuses = [one.status.as_u16(), other.status.as_u16()];
        assert!(statuses == [204, 409] || statuses == [409, 200], "{statuses:?}");
    }
}

#[tokio::test]
async fn odd_invitations_are_refused() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;

    for (body, code) in [
        (json!({ "email": "nobody", "role": "viewer" }), "invalid_email"),
        (
            json!({ "email": "a@example.com\r\nBcc: b@example.com", "role": "viewer" }),
            "invalid_email",
        ),
        (
            json!({ "email": "a@example.com", "role": "emperor" }),
            "invalid_body",
        ),
        (json!({ "email": "a@example.com" }), "invalid_body"),
        (
            json!({ "email": "a@example.com", "role": "viewer", "tenant_id": owner.tenant_id }),
            "invalid_body",
        ),
    ] {
        assert_eq!(
            told(&owner.post("/api/members", body.clone()).await),
            (422, code.to_owned()),
            "{body}"
        );
    }
    let token = owner.invite("bob@example.com", "viewer").await;
    assert_eq!(
        told(&service.accept_invite(&token, "short").await),
        (422, "invalid_password".to_owned())
    );
    service.accept_invite(&token, PASSWORD).await.expect(200);
}
