//! Keys that another issuer publishes: which tokens they open, how they rotate, and what holds while the issuer is down.

use serde_json::{Value, json};

use crate::foreign_tokens::{assert_refused, changed, claims, me, options};
use crate::harness::app::{Reply, Tenant, TestApp};
use crate::harness::issuer::{Issuer, Signer, encode};

/// A service that takes tokens which the issuer's published keys verify.
async fn trusting(issuer: &Issuer, algorithm: &str) -> TestApp {
    options()
        .set("auth.jwt.algorithm", algorithm)
        .set("auth.jwt.jwks_url", issuer.url())
        .start()
        .await
}

/// Claims of a token that outlives every move of the clock.
fn lasting(service: &TestApp, tenant: &Tenant<'_>) -> Value {
    changed(&claims(service, tenant), |claims| claims["exp"] = json!(i64::MAX))
}

fn assert_unavailable(reply: &Reply, why: &str) {
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (503, "issuer_unavailable"),
        "{why}"
    );
}

#[tokio::test]
async fn tokens_signed_by_a_key_of_the_published_set_open_and_others_do_not() {
    for algorithm in ["RS256", "ES256"] {
        let signer = Signer::generate(algorithm, "one");
        let issuer = Issuer::start(&[&signer]).await;
        let service = trusting(&issuer, algorithm).await;
        let acme = service.tenant("acme").await;
        let good = claims(&service, &acme);

        assert_eq!(
            me(&service, &encode(&signer, &good)).await.expect(200).json()["role"],
            "admin",
            "{algorithm}"
        );

        let other = if algorithm == "RS256" { "ES256" } else { "RS256" };
        for (signer, why) in [
            (Signer::generate(algorithm, "one"), "another key under a known id"),
            (Signer::generate(algorithm, "two"), "an unknown key id"),
            (signer.without_key_id(), "no key id"),
            (Signer::generate(other, "one"), "another algorithm"),
            (Signer::none("none"), "no algorithm"),
        ] {
            assert_refused(&me(&service, &encode(&signer, &good)).await, why);
        }
    }
}

#[tokio::test]
async fn a_published_key_is_no_shared_secret() {
    let signer = Signer::generate("RS256", "one");
    let issuer = Issuer::start(&[&signer]).await;
    let service = trusting(&issuer, "RS256").await;
    let acme = service.tenant("acme").await;
    let good = claims(&service, &acme);
    me(&service, &encode(&signer, &good)).await.expect(200);

    for published in signer.published_forms() {
        assert_refused(
            &me(
                &service,
                &encode(&Signer::hs256_bytes(&published, Some("one")), &good),
            )
            .await,
            "HS256 with the public key",
        );
    }
}

#[tokio::test]
async fn keys_rotate_and_unknown_ids_do_not_hammer_the_issuer() {
    let (first, second) = (
        Signer::generate("ES256", "first"),
        Signer::generate("ES256", "second"),
    );
    let issuer = Issuer::start(&[&first]).await;
    let service = trusting(&issuer, "ES256").await;
    let acme = service.tenant("acme").await;
    let good = lasting(&service, &acme);
    let (with_first, with_second) = (encode(&first, &good), encode(&second, &good));
    me(&service, &with_first).await.expect(200);

    for _ in 0..20 {
        assert_refused(&me(&service, &with_second).await, "not published yet");
    }
    assert_eq!(
        issuer.fetches(),
        1,
        "unknown key ids ask the issuer again and again"
    );

    issuer.publish(&[&first, &second]);
    service.clock.advance(chrono::TimeDelta::seconds(31));
    me(&service, &with_second).await.expect(200);
    me(&service, &with_first).await.expect(200);

    issuer.publish(&[&second]);
    service.clock.advance(chrono::TimeDelta::minutes(11));
    assert_refused(&me(&service, &with_first).await, "withdrawn");
    me(&service, &with_second).await.expect(200);
    assert!(issuer.fetches() <= 4, "{}", issuer.fetches());
}

#[tokio::test]
async fn an_issuer_that_is_down_locks_nobody_out_at_once_and_is_told_from_a_wrong_token() {
    let signer = Signer::generate("ES256", "one");
    let issuer = Issuer::start(&[&signer]).await;
    let service = trusting(&issuer, "ES256").await;
    let acme = service.tenant("acme").await;
    let token = encode(&signer, &lasting(&service, &acme));

    issuer.break_down();
    for _ in 0..2 {
        let reply = me(&service, &token).await;
        assert_unavailable(&reply, "down");
        assert!(reply.headers.contains_key("retry-after"));
    }

    issuer.publish(&[&signer]);
    service.clock.advance(chrono::TimeDelta::seconds(31));
    me(&service, &token).await.expect(200);

    issuer.break_down();
    service.clock.advance(chrono::TimeDelta::minutes(30));
    me(&service, &token).await.expect(200);
    service.clock.advance(chrono::TimeDelta::minutes(40));
    assert_unavailable(
        &me(&service, &token).await,
        "keys of a silent issuer hold for ever",
    );
}

#[tokio::test]
async fn an_absurd_key_set_is_no_key_set() {
    let signer = Signer::generate("ES256", "one");
    let issuer = Issuer::start(&[&signer]).await;
    let service = trusting(&issuer, "ES256").await;
    let acme = service.tenant("acme").await;
    let token = encode(&signer, &claims(&service, &acme));

    for answer in [
        "",
        "[]",
        "{\"keys\": 7}",
        &format!("{{\"keys\": [], \"padding\": \"{}\"}}", "x".repeat(300 * 1024)),
    ] {
        issuer.answer(answer.to_owned());
        let reply = me(&service, &token).await;
        assert_unavailable(&reply, &format!("{answer:.20}"));
        service.clock.advance(chrono::TimeDelta::seconds(31));
    }
}

#[tokio::test]
async fn a_known_key_opens_while_the_issuer_keeps_another_caller_waiting() {
    let signer = Signer::generate("ES256", "one");
    let issuer = Issuer::start(&[&signer]).await;
    let service = trusting(&issuer, "ES256").await;
    let acme = service.tenant("acme").await;
    let good = lasting(&service, &acme);
    let known = encode(&signer, &good);
    let unknown = encode(&Signer::generate("ES256", "two"), &good);
    me(&service, &known).await.expect(200);

    for age in [chrono::TimeDelta::seconds(31), chrono::TimeDelta::minutes(11)] {
        service.clock.advance(age);
        let fetches = issuer.fetches();
        let held_up = issuer.hold_up().await;
        let waiting = me(&service, &unknown);
        let answered_meanwhile = async {
            while issuer.fetches() == fetches {
                tokio::task::yield_now().await;
            }
            me(&service, &known).await.expect(200);
            drop(held_up);
        };
        let (refused, ()) = tokio::join!(waiting, answered_meanwhile);
        assert_refused(&refused, "not published");
    }
}
