//! Rate limits per key, member, tenant and address: counted exactly, told in headers, and over when `Retry-After` says.

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::json;

use crate::harness::app::{Reply, TestApp, TestOptions};

async fn me(service: &TestApp, credential: Option<&str>, forwarded_for: Option<&str>) -> Reply {
    let mut request = service.request(Method::GET, "/api/me", credential);
    if let Some(address) = forwarded_for {
        request = request.header("x-forwarded-for", address);
    }
    Reply::read(request.send().await.expect("an answer")).await
}

fn header(reply: &Reply, name: &str) -> String {
    reply
        .headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

fn retry_after(reply: &Reply) -> i64 {
    header(reply, "retry-after")
        .parse()
        .expect("429 says when to come back")
}

#[tokio::test]
async fn a_key_has_its_requests_per_minute_and_the_headers_count_down() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_key", 3)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    for left in [2, 1, 0] {
        let reply = me(&service, Some(&acme.key), None).await.expect(200);
        assert_eq!(header(&reply, "ratelimit-policy"), "\"key\";q=3;w=60");
        assert!(
            header(&reply, "ratelimit").starts_with(&format!("\"key\";r={left};t=")),
            "{}",
            header(&reply, "ratelimit")
        );
    }

    let refused = me(&service, Some(&acme.key), None).await;

    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (429, "rate_limited")
    );
    let wait = retry_after(&refused);
    assert!(
        (1..=20).contains(&wait),
        "a third of a minute gives back one of three: {wait}"
    );
    assert_eq!(header(&refused, "ratelimit-policy"), "\"key\";q=3;w=60");
    assert_eq!(
        header(&refused, "ratelimit"),
        format!("\"key\";r=0;t={wait}"),
        "a refusal says so too"
    );
    service.clock.advance(TimeDelta::seconds(wait));
    me(&service, Some(&acme.key), None).await.expect(200);
    assert_eq!(me(&service, Some(&acme.key), None).await.status, 429);
    service.clock.advance(TimeDelta::seconds(60));
    for _ in 0..3 {
        me(&service, Some(&acme.key), None).await.expect(200);
    }
}

#[tokio::test]
async fn one_keys_requests_hold_up_no_other_key() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_key", 2)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let globex = service.tenant("globex").await;
    let second = acme
        .make_key(json!({ "name": "second", "scopes": ["chat"] }))
        .await;
    acme.get("/api/me").await.expect(200);
    assert_eq!(acme.get("/api/me").await.status, 429);

    me(&service, Some(&globex.key), None).await.expect(200);
    me(&service, Some(&second), None).await.expect(200);
}

#[tokio::test]
async fn all_keys_of_a_tenant_have_one_allowance_and_other_tenants_their_own() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_tenant", 4)
        .set("limits.requests_per_minute_per_key", 3)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let globex = service.tenant("globex").await;
    let second = acme
        .make_key(json!({ "name": "second", "scopes": ["chat"] }))
        .await;
    service.clock.advance(TimeDelta::seconds(60));
    for key in [&acme.key, &second, &second, &second] {
        let reply = me(&service, Some(key), None).await.expect(200);
        assert_eq!(header(&reply, "ratelimit-policy"), "\"key\";q=3;w=60");
    }

    let refused = me(&service, Some(&acme.key), None).await;

    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (429, "rate_limited")
    );
    assert_eq!(header(&refused, "ratelimit-policy"), "\"tenant\";q=4;w=60");
    me(&service, Some(&globex.key), None).await.expect(200);
    service.clock.advance(TimeDelta::seconds(retry_after(&refused)));
    me(&service, Some(&acme.key), None).await.expect(200);
}

#[tokio::test]
async fn what_a_key_is_refused_takes_nothing_from_its_tenant() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_tenant", 4)
        .set("limits.requests_per_minute_per_key", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let second = acme
        .make_key(json!({ "name": "second", "scopes": ["chat"] }))
        .await;
    service.clock.advance(TimeDelta::seconds(60));
    me(&service, Some(&acme.key), None).await.expect(200);
    for _ in 0..5 {
        assert_eq!(me(&service, Some(&acme.key), None).await.status, 429);
    }

    me(&service, Some(&second), None).await.expect(200);
}

#[tokio::test]
async fn a_member_has_one_allowance_in_all_sessions() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_member", 4)
        .start()
        .await;
    let ada = service.sign_up("ada@example.com", "Engines").await;
    let login = service
        .log_in("ada@example.com", crate::harness::people::PASSWORD)
        .await
        .expect(200)
        .json();
    let other_session = login["access_token"].as_str().expect("a token");

    for token in [&ada.access_token, other_session, &ada.access_token, other_session] {
        let reply = me(&service, Some(token), None).await.expect(200);
        assert_eq!(header(&reply, "ratelimit-policy"), "\"member\";q=4;w=60");
    }

    assert_eq!(
        me(&service, Some(other_session), None).await.code(),
        "rate_limited"
    );
    assert_eq!(
        me(&service, Some(&ada.access_token), None).await.code(),
        "rate_limited"
    );
}

#[tokio::test]
async fn wrong_credentials_are_counted_by_address() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_address", 5)
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(me(&service, Some("fdk_wrong"), None).await.status, 401);
    }

    let refused = me(&service, Some("fdk_wrong"), None).await;

    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (429, "rate_limited")
    );
    service.clock.advance(TimeDelta::seconds(retry_after(&refused)));
    assert_eq!(me(&service, None, None).await.status, 401);
}

#[tokio::test]
async fn good_credentials_use_nothing_of_their_addresss_allowance() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_address", 2)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    for _ in 0..10 {
        acme.get("/api/me").await.expect(200);
    }

    assert_eq!(me(&service, None, None).await.status, 401);
}

#[tokio::test]
async fn a_forwarded_address_counts_only_from_a_configured_proxy() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_address", 3)
        .start()
        .await;
    for host in 1..=3 {
        assert_eq!(
            me(&service, None, Some(&format!("203.0.113.{host}")))
                .await
                .status,
            401
        );
    }
    assert_eq!(
        me(&service, None, Some("203.0.113.4")).await.status,
        429,
        "a header that anyone can write makes a new address"
    );

    let behind_proxy = TestOptions::default()
        .set("limits.requests_per_minute_per_address", 2)
        .set("server.trusted_proxies", "127.0.0.1")
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(me(&behind_proxy, None, Some("203.0.113.1")).await.status, 401);
    }
    assert_eq!(me(&behind_proxy, None, Some("203.0.113.1")).await.status, 429);
    assert_eq!(
        me(&behind_proxy, None, Some("198.51.100.77, 203.0.113.1"))
            .await
            .status,
        429,
        "what stands before the last hop is made up"
    );
    assert_eq!(
        me(&behind_proxy, None, Some("203.0.113.1, 203.0.113.2"))
            .await
            .status,
        401
    );
    assert_eq!(
        me(&behind_proxy, None, Some("198.51.100.78, 203.0.113.1:4711"))
            .await
            .status,
        429,
        "an address with its port is the same address"
    );
    for forged in 1..=2 {
        let hops = format!("198.51.100.{forged}, not an address");
        assert_eq!(me(&behind_proxy, None, Some(&hops)).await.status, 401);
    }
    assert_eq!(
        me(&behind_proxy, None, Some("198.51.100.3, not an address"))
            .await
            .status,
        429,
        "what cannot be read hides what stands before it"
    );
}

#[tokio::test]
async fn an_ipv6_network_of_one_customer_is_one_address() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_address", 2)
        .set("server.trusted_proxies", "127.0.0.1")
        .start()
        .await;
    for address in ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"] {
        assert_eq!(me(&service, None, Some(address)).await.status, 401);
    }

    assert_eq!(me(&service, None, Some("2001:db8:0:1:1:2:3:4")).await.status, 429);
    assert_eq!(me(&service, None, Some("2001:db8:0:2::1")).await.status, 401);
}

#[tokio::test]
async fn logins_are_counted_by_address_before_any_work_and_tell_their_policy() {
    let service = TestOptions::default()
        .set("limits.login_attempts", 2)
        .start()
        .await;
    let first = service.log_in("nobody@example.com", "a wrong guess").await;
    assert_eq!(header(&first, "ratelimit-policy"), "\"login\";q=2;w=900");
    service.log_in("somebody@example.com", "a wrong guess").await;

    for path in ["/api/auth/login", "/api/auth/signup", "/api/auth/accept-invite"] {
        let body = match path {
            "/api/auth/login" => json!({ "email": "third@example.com", "password": "a wrong guess" }),
            "/api/auth/signup" => {
                json!({ "email": "third@example.com", "password": "a long password", "tenant_name": "Third" })
            }
            _ => json!({ "token": "fdi_guess", "password": "a long password" }),
        };
        let reply = service.send(Method::POST, path, None, Some(body)).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (429, "rate_limited"),
            "{path}"
        );
        assert!((1..=900).contains(&retry_after(&reply)), "{path}");
        assert_eq!(
            header(&reply, "ratelimit-policy"),
            "\"login\";q=2;w=900",
            "{path}"
        );
        assert!(
            header(&reply, "ratelimit").starts_with("\"login\";r=0;t="),
            "{path}: {}",
            header(&reply, "ratelimit")
        );
    }
}

#[tokio::test]
async fn a_request_with_an_idempotency_key_counts_once() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_key", 10)
        .start()
        .await;
    let acme = service.tenant("acme").await;

    let request = service
        .request(Method::POST, "/api/chatbots", Some(&acme.key))
        .header("idempotency-key", "one");
    let reply = Reply::read(
        request
            .json(&json!({ "name": "Desk" }))
            .send()
            .await
            .expect("an answer"),
    )
    .await
    .expect(201);

    assert!(
        header(&reply, "ratelimit").starts_with("\"key\";r=9;"),
        "{}",
        header(&reply, "ratelimit")
    );
}

#[tokio::test]
async fn probes_are_never_refused() {
    let service = TestOptions::default()
        .set("limits.requests_per_minute_per_address", 1)
        .start()
        .await;
    for _ in 0..5 {
        for path in ["/health", "/ready", "/metrics"] {
            service.send(Method::GET, path, None, None).await.expect(200);
        }
    }
}
