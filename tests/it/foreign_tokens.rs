//! Tokens of another issuer: what opens, and that everything else is one and the same 401.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Reply, Tenant, TestApp, TestOptions};
use crate::harness::issuer::{AUDIENCE, ISSUER, SECRET, Signer, encode, encode_with};

/// Claims as Supabase writes them, for an admin of the tenant.
pub fn claims(service: &TestApp, tenant: &Tenant<'_>) -> Value {
    use frontdesk::clock::Clock as _;
    let now = service.clock.now().timestamp();
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "8f14e45f", "email": "ada@example.com", "role": "authenticated",
        "iat": now, "exp": now + 3600, "app_metadata": { "tenant_id": tenant.id, "role": "admin" },
    })
}

/// `claims` with `change` made to it.
pub fn changed(claims: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = claims.clone();
    change(&mut claims);
    claims
}

fn without(claims: &Value, name: &str) -> Value {
    changed(claims, |claims| {
        drop(claims.as_object_mut().expect("an object").remove(name))
    })
}

pub fn options() -> TestOptions {
    TestOptions::default()
        .set("auth.jwt.issuer", ISSUER)
        .set("auth.jwt.audience", AUDIENCE)
}

async fn start_hs256() -> TestApp {
    options()
        .set("auth.jwt.algorithm", "HS256")
        .set("auth.jwt.hs256_secret", SECRET)
        .start()
        .await
}

pub async fn me(service: &TestApp, token: &str) -> Reply {
    service.send(Method::GET, "/api/me", Some(token), None).await
}

/// Fails the test unless the answer is the one that every wrong credential gets.
#[track_caller]
pub fn assert_refused(reply: &Reply, what: &str) {
    let mut body = reply.json();
    body.as_object_mut().map(|body| body.remove("request_id"));
    let expected = json!({
        "type": "about:blank", "title": "Unauthorized", "status": 401, "code": "credential_invalid",
        "detail": "this credential is wrong, expired or revoked: log in again or use another key",
    });
    assert_eq!(body, expected, "{what}");
}

#[tokio::test]
async fn a_token_of_the_configured_issuer_names_a_person_a_tenant_and_a_role() {
    let service = start_hs256().await;
    let acme = service.tenant("acme").await;
    let token = encode(&Signer::hs256(SECRET), &claims(&service, &acme));

    let answer = me(&service, &token).await.expect(200).json();

    assert_eq!(answer["tenant_id"], json!(acme.id));
    assert_eq!(
        (&answer["actor"], answer["role"].as_str()),
        (&json!({ "kind": "external", "id": "8f14e45f" }), Some("admin"))
    );
    service
        .send(
            Method::PATCH,
            "/api/tenant",
            Some(&token),
            Some(json!({ "name": "Acme" })),
        )
        .await
        .expect(200);
    let event = acme.get("/api/audit").await.expect(200).json()["items"][0].clone();
    assert_eq!(
        (event["action"].as_str(), &event["actor"]),
        (
            Some("tenant.update"),
            &json!({ "kind": "external", "id": "8f14e45f" })
        )
    );
}

#[tokio::test]
async fn without_a_role_of_ours_the_configured_one_holds() {
    let service = start_hs256().await;
    let acme = service.tenant("acme").await;
    let token = encode(
        &Signer::hs256(SECRET),
        &changed(&claims(&service, &acme), |claims| {
            claims["app_metadata"]["role"] = json!("emperor")
        }),
    );

    assert_eq!(me(&service, &token).await.expect(200).json()["role"], "viewer");
    assert_eq!(
        service
            .send(Method::GET, "/api/keys", Some(&token), None)
            .await
            .expect(403)
            .code(),
        "permission_missing"
    );
}

#[tokio::test]
async fn wrong_claims_are_one_and_the_same_401() {
    let service = start_hs256().await;
    let acme = service.tenant("acme").await;
    let signer = Signer::hs256(SECRET);
    let good = claims(&service, &acme);
    let now = good["iat"].as_i64().expect("seconds");

    let wrong: Vec<(&str, Value)> = vec![
        (
            "expired",
            changed(&good, |claims| claims["exp"] = json!(now - 31)),
        ),
        (
            "expired long ago",
            changed(&good, |claims| claims["exp"] = json!(i64::MIN)),
        ),
        ("no exp", without(&good, "exp")),
        (
            "exp as a string",
            changed(&good, |claims| claims["exp"] = json!((now + 3600).to_string())),
        ),
        (
            "exp as null",
            changed(&good, |claims| claims["exp"] = Value::Null),
        ),
        (
            "exp beyond all numbers",
            changed(&good, |claims| claims["exp"] = json!(1e300)),
        ),
        (
            "not yet valid",
            changed(&good, |claims| claims["nbf"] = json!(now + 3600)),
        ),
        (
            "never valid",
            changed(&good, |claims| claims["nbf"] = json!(i64::MAX)),
        ),
        (
            "nbf as a string",
            changed(&good, |claims| claims["nbf"] = json!("soon")),
        ),
        (
            "another audience",
            changed(&good, |claims| claims["aud"] = json!("anon")),
        ),
        ("no audience", without(&good, "aud")),
        (
            "audience as a number",
            changed(&good, |claims| claims["aud"] = json!(7)),
        ),
        (
            "another issuer",
            changed(&good, |claims| claims["iss"] = json!("https://evil.example")),
        ),
        ("no issuer", without(&good, "iss")),
        (
            "several issuers",
            changed(&good, |claims| {
                claims["iss"] = json!([ISSUER, "https://evil.example"])
            }),
        ),
        (
            "our own issuer",
            changed(&good, |claims| claims["iss"] = json!("frontdesk")),
        ),
        ("no subject", without(&good, "sub")),
        (
            "subject as a number",
            changed(&good, |claims| claims["sub"] = json!(7)),
        ),
        (
            "empty subject",
            changed(&good, |claims| claims["sub"] = json!("")),
        ),
        (
            "subject with U+0000",
            changed(&good, |claims| claims["sub"] = json!("a\u{0}b")),
        ),
        (
            "overlong subject",
            changed(&good, |claims| claims["sub"] = json!("x".repeat(300))),
        ),
        ("no tenant", without(&good, "app_metadata")),
        (
            "no tenant in it",
            changed(&good, |claims| claims["app_metadata"] = json!({})),
        ),
        (
            "unknown tenant",
            changed(&good, |claims| {
                claims["app_metadata"]["tenant_id"] = json!(uuid::Uuid::now_v7())
            }),
        ),
        (
            "tenant that is no id",
            changed(&good, |claims| {
                claims["app_metadata"]["tenant_id"] = json!("acme")
            }),
        ),
        (
            "tenant that the person chose",
            changed(&without(&good, "app_metadata"), |claims| {
                claims["user_metadata"] = json!({ "tenant_id": acme.id })
            }),
        ),
        ("no object", json!("claims")),
    ];
    for (what, claims) in wrong {
        assert_refused(&me(&service, &encode(&signer, &claims)).await, what);
    }
}

#[tokio::test]
async fn times_are_judged_with_the_configured_leeway_and_far_ones_hold() {
    let service = start_hs256().await;
    let acme = service.tenant("acme").await;
    let signer = Signer::hs256(SECRET);
    let good = claims(&service, &acme);
    let now = good["iat"].as_i64().expect("seconds");

    for claims in [
        changed(&good, |claims| claims["exp"] = json!(now - 20)),
        changed(&good, |claims| claims["nbf"] = json!(now + 20)),
        changed(&good, |claims| claims["nbf"] = json!(i64::MIN)),
        changed(&good, |claims| claims["exp"] = json!(i64::MAX)),
        changed(&good, |claims| claims["aud"] = json!(["somebody", AUDIENCE])),
    ] {
        assert_eq!(
            me(&service, &encode(&signer, &claims)).await.status,
            200,
            "{claims}"
        );
    }
}

#[tokio::test]
async fn wrong_signatures_and_broken_tokens_are_one_and_the_same_401() {
    let service = start_hs256().await;
    let acme = service.tenant("acme").await;
    let good = claims(&service, &acme);
    let token = encode(&Signer::hs256(SECRET), &good);
    let parts: Vec<&str> = token.split('.').collect();
    let other_claims = encode(
        &Signer::none("none"),
        &changed(&good, |claims| claims["sub"] = json!("someone else")),
    );
    let other_claims = other_claims.split('.').nth(1).expect("claims");

    assert_refused(
        &me(
            &service,
            &encode(&Signer::hs256("another secret of at least 32 characters"), &good),
        )
        .await,
        "another secret",
    );
    for algorithm in ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256"] {
        assert_refused(
            &me(&service, &encode(&Signer::none(algorithm), &good)).await,
            algorithm,
        );
    }
    for broken in [
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{other_claims}.{}", parts[0], parts[2]),
        format!("{token}.{token}"),
        format!("{token}="),
        format!(".{}.{}", parts[1], parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{}.{}.{}", parts[0], "A".repeat(9000), parts[2]),
    ] {
        assert_refused(&me(&service, &broken).await, &broken);
    }
}

#[tokio::test]
async fn our_own_tokens_are_not_made_with_the_issuers_secret() {
    let service = start_hs256().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;
    let own: Value = {
        use base64::Engine as _;
        let claims = ada.access_token.split('.').nth(1).expect("claims");
        serde_json::from_slice(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(claims)
                .expect("base64"),
        )
        .expect("JSON")
    };
    assert!(ada.is_let_in().await);

    assert_refused(
        &me(&service, &encode(&Signer::hs256(SECRET), &own)).await,
        "our claims under the issuer's secret",
    );
    for algorithm in ["none", "HS256"] {
        assert_refused(
            &me(&service, &encode(&Signer::none(algorithm), &own)).await,
            "our claims without a signature",
        );
    }
}

#[tokio::test]
async fn without_a_configured_issuer_no_foreign_token_opens_anything() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let good = claims(&service, &acme);

    for claims in [good.clone(), changed(&good, |claims| claims["iss"] = json!(""))] {
        assert_refused(
            &me(&service, &encode(&Signer::hs256(SECRET), &claims)).await,
            "no issuer is configured",
        );
        assert_refused(
            &me(&service, &encode(&Signer::hs256(""), &claims)).await,
            "an empty secret",
        );
    }
}

#[tokio::test]
async fn a_token_with_a_critical_extension_is_refused() {
    let service = start_hs256().await;
    let acme = service.tenant("acme").await;
    let good = claims(&service, &acme);
    let signer = Signer::hs256(SECRET);
    me(&service, &encode_with(&signer, &json!({ "extra": 1 }), &good))
        .await
        .expect(200);

    for critical in [json!(["exp"]), json!(["extra"]), json!([])] {
        let token = encode_with(&signer, &json!({ "crit": critical, "extra": 1 }), &good);
        assert_refused(&me(&service, &token).await, &critical.to_string());
    }
}
