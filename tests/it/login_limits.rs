//! Guessing passwords is slowed, per account and per address, whether or not the account exists.

use std::net::Ipv4Addr;

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::json;

use crate::harness::app::{Reply, TestApp, TestOptions};
use crate::harness::people::PASSWORD;

/// Logs in from an address, as the trusted proxy on loopback tells it.
async fn log_in_from(service: &TestApp, address: Ipv4Addr, email: &str, password: &str) -> Reply {
    let request = service
        .request(Method::POST, "/api/auth/login", None)
        .header("x-forwarded-for", address.to_string());
    Reply::read(
        request
            .json(&json!({ "email": email, "password": password }))
            .send()
            .await
            .expect("an answer"),
    )
    .await
}

#[tokio::test]
async fn guessing_one_accounts_password_is_slowed_from_wherever_it_comes() {
    let service = TestOptions::default()
        .set("server.trusted_proxies", "127.0.0.1")
        .start()
        .await;
    service.sign_up("ada@example.com", "Engines").await;
    for host in 0..10 {
        assert_eq!(
            log_in_from(
                &service,
                Ipv4Addr::new(203, 0, 113, host),
                "ada@example.com",
                "a wrong guess"
            )
            .await
            .status,
            401
        );
    }

    let known = log_in_from(
        &service,
        Ipv4Addr::new(203, 0, 113, 99),
        "Ada@example.com",
        PASSWORD,
    )
    .await;
    let retry_after: i64 = known.headers["retry-after"]
        .to_str()
        .expect("a number")
        .parse()
        .expect("seconds");

    assert_eq!(
        (known.status.as_u16(), known.code().as_str()),
        (429, "rate_limited")
    );
    assert!((1..=900).contains(&retry_after), "{retry_after}");
    service.clock.advance(TimeDelta::seconds(retry_after));
    log_in_from(
        &service,
        Ipv4Addr::new(203, 0, 113, 99),
        "ada@example.com",
        PASSWORD,
    )
    .await
    .expect(200);
}

#[tokio::test]
async fn guessing_is_slowed_alike_whether_or_not_the_account_exists() {
    let service = TestOptions::default()
        .set("server.trusted_proxies", "127.0.0.1")
        .start()
        .await;
    service.sign_up("ada@example.com", "Engines").await;
    let mut answers = Vec::new();
    for email in ["ada@example.com", "nobody@example.com"] {
        let mut statuses = Vec::new();
        for host in 0..12 {
            let reply = log_in_from(
                &service,
                Ipv4Addr::new(198, 51, 100, host),
                email,
                "a wrong guess",
            )
            .await;
            statuses.push((reply.status.as_u16(), reply.code()));
        }
        answers.push(statuses);
        service.clock.advance(TimeDelta::hours(1));
    }

    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][11].0, 429);
}

#[tokio::test]
async fn one_address_tries_only_so_many_accounts_and_others_are_not_held_up() {
    let service = TestOptions::default()
        .set("server.trusted_proxies", "127.0.0.1")
        .start()
        .await;
    service.sign_up("ada@example.com", "Engines").await;
    let attacker = Ipv4Addr::new(203, 0, 113, 7);
    for number in 0..10 {
        assert_eq!(
            log_in_from(
                &service,
                attacker,
                &format!("user{number}@example.com"),
                "a wrong guess"
            )
            .await
            .status,
            401
        );
    }

    assert_eq!(
        log_in_from(&service, attacker, "ada@example.com", PASSWORD)
            .await
            .status,
        429
    );

    log_in_from(
        &service,
        Ipv4Addr::new(203, 0, 113, 8),
        "ada@example.com",
        PASSWORD,
    )
    .await
    .expect(200);
}

#[tokio::test]
async fn a_stolen_session_cannot_guess_the_password_without_end() {
    let service = TestOptions::default().start().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;
    let guess = async || {
        ada.send(
            Method::PUT,
            "/api/auth/password",
            Some(json!({ "current_password": "a wrong guess", "new_password": "a brand new password" })),
        )
        .await
    };

    for _ in 0..10 {
        assert_eq!(guess().await.code(), "wrong_password");
    }

    let reply = guess().await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (429, "rate_limited")
    );
    assert!(reply.headers.contains_key("retry-after"));
}

/// Accepts an invitation from an address, as the trusted proxy on loopback tells it.
async fn accept_from(service: &TestApp, host: u8, token: &str, password: &str) -> Reply {
    let request = service
        .request(Method::POST, "/api/auth/accept-invite", None)
        .header("x-forwarded-for", Ipv4Addr::new(192, 0, 2, host).to_string());
    Reply::read(
        request
            .json(&json!({ "token": token, "password": password }))
            .send()
            .await
            .expect("an answer"),
    )
    .await
}

#[tokio::test]
async fn an_invitation_is_no_way_to_guess_the_password_of_whoever_it_names() {
    let service = TestOptions::default()
        .set("server.trusted_proxies", "127.0.0.1")
        .start()
        .await;
    service.sign_up("victim@example.com", "Engines").await;
    let attacker = service.sign_up("mallory@example.com", "Traps").await;

    let first = attacker.invite("victim@example.com", "viewer").await;
    for host in 0..5 {
        assert_eq!(
            accept_from(&service, host, &first, "a wrong guess").await.status,
            401
        );
    }
    assert_eq!(
        accept_from(&service, 5, &first, PASSWORD).await.status,
        401,
        "after five wrong ones the invitation is spent"
    );
    let second = attacker.invite("victim@example.com", "viewer").await;
    for host in 10..15 {
        assert_eq!(
            accept_from(&service, host, &second, "a wrong guess").await.status,
            401
        );
    }
    let third = attacker.invite("victim@example.com", "viewer").await;

    let reply = accept_from(&service, 99, &third, PASSWORD).await;

    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (429, "rate_limited"),
        "these were attempts at the account, from wherever they came"
    );
    assert_eq!(
        log_in_from(
            &service,
            Ipv4Addr::new(192, 0, 2, 200),
            "victim@example.com",
            PASSWORD
        )
        .await
        .status,
        429,
        "and logins count together with them"
    );
}
