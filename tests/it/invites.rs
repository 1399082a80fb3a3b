//! Invitations that are open: seen by admins, withdrawn by them, and gone with whoever made them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{TestApp, TestOptions};
use crate::harness::people::{PASSWORD, Person};

async fn start() -> TestApp {
    TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await
}

async fn open(person: &Person<'_>) -> Vec<Value> {
    let page = person.get("/api/invites").await.expect(200).json();
    page["items"].as_array().expect("items").clone()
}

async fn withdraw(person: &Person<'_>, id: &str) -> u16 {
    let path = format!("/api/invites/{id}");
    person.send(Method::DELETE, &path, None).await.status.as_u16()
}

#[tokio::test]
async fn admins_see_what_is_open_and_by_whom_and_withdraw_it() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let token = owner.invite("bob@example.com", "viewer").await;
    let accepted = owner.invite("carol@example.com", "viewer").await;
    service.accept_invite(&accepted, PASSWORD).await.expect(200);

    let seen = open(&owner).await;

    assert_eq!(seen.len(), 1, "an accepted one is not open: {seen:?}");
    assert_eq!(
        (&seen[0]["email"], &seen[0]["role"], &seen[0]["created_by"]),
        (
            &json!("bob@example.com"),
            &json!("viewer"),
            &json!(format!("member:{}", owner.member_id))
        )
    );
    assert_eq!(seen[0].get("token"), None);
    let id = seen[0]["id"].as_str().expect("an id");
    assert_eq!(withdraw(&owner, id).await, 204);
    assert_eq!(service.accept_invite(&token, PASSWORD).await.status, 401);
    assert_eq!(withdraw(&owner, id).await, 404);
    assert_eq!(open(&owner).await, Vec::<Value>::new());
    let audit = owner.get("/api/audit").await.expect(200).text;
    assert!(audit.contains("member.withdraw_invite"), "{audit}");
}

#[tokio::test]
async fn a_refusal_is_the_same_for_an_account_s_wrong_password_as_for_a_token_that_opens_nothing() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    service.sign_up("ada@example.com", "Her own").await;

    let made: Vec<Value> =
        futures::future::join_all(["ada@example.com", "new@example.com"].map(async |email| {
            let body = json!({ "email": email, "role": "viewer" });
            let mut invite = owner.post("/api/members", body).await.expect(201).json();
            for own in ["id", "email", "token", "expires_at"] {
                assert!(invite[own].is_string(), "{own} is missing in {invite}");
                invite[own] = json!(null);
            }
            invite
        }))
        .await;
    assert_eq!(made[0], made[1], "inviting tells who has an account");

    let token = owner.invite("ada@example.com", "viewer").await;
    let mut refusals = Vec::new();
    for token in [token.as_str(), "fdi_unknown"] {
        let reply = service.accept_invite(token, "not her password").await;
        assert_eq!(reply.status, 401);
        let mut told = reply.json();
        told["request_id"] = json!(null);
        refusals.push(told);
    }
    assert_eq!(refusals[0], refusals[1]);
}

#[tokio::test]
async fn an_invitation_opens_nothing_once_its_maker_is_removed_or_may_less() {
    let service = start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let removed = owner.bring("adam@example.com", "admin").await;
    let demoted = owner.bring("dora@example.com", "admin").await;
    let stays = owner.bring("sam@example.com", "admin").await;
    let by_removed = removed.invite("back@example.com", "admin").await;
    let by_demoted = demoted.invite("friend@example.com", "admin").await;
    let by_stays = stays.invite("new@example.com", "viewer").await;

    owner.remove(&removed.member_id).await.expect(204);
    owner.change_role(&demoted.member_id, "viewer").await.expect(200);

    assert_eq!(service.accept_invite(&by_removed, PASSWORD).await.status, 401);
    assert_eq!(service.accept_invite(&by_demoted, PASSWORD).await.status, 401);
    service.accept_invite(&by_stays, PASSWORD).await.expect(200);
}

#[tokio::test]
async fn an_invitation_that_was_made_with_a_key_goes_when_the_key_is_revoked() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let key = acme.make_key(json!({ "name": "hr", "scopes": ["admin"] })).await;
    let keys = acme.get("/api/keys").await.expect(200).json();
    assert!(
        keys["items"][0]["created_by"]
            .as_str()
            .is_some_and(|by| by.starts_with("api_key:")),
        "{keys}"
    );
    let id = keys["items"][0]["id"].as_str().expect("an id").to_owned();
    let body = json!({ "email": "bob@example.com", "role": "viewer" });
    let invite = service
        .send(Method::POST, "/api/members", Some(&key), Some(body))
        .await
        .expect(201)
        .json();

    acme.delete(&format!("/api/keys/{id}")).await.expect(204);

    let token = invite["token"].as_str().expect("a token");
    assert_eq!(service.accept_invite(token, PASSWORD).await.status, 401);
}
