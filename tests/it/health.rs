//! What probes and scrapers see: whether the process lives, whether it can work, and nothing of any tenant.

use std::time::Duration;

use frontdesk::db::Scope;
use frontdesk::error::Error;
use frontdesk::http::problem::Problem;
use frontdesk::on;
use reqwest::Method;
use serde_json::json;

use crate::harness::app::{Reply, TestApp, TestOptions, engine};
use crate::harness::embedders::WatchedEmbedder;

async fn get(service: &TestApp, path: &str) -> Reply {
    service.send(Method::GET, path, None, None).await
}

#[tokio::test]
async fn a_service_that_can_work_says_so_part_by_part() {
    let service = TestApp::start().await;

    assert_eq!(
        get(&service, "/health").await.expect(200).json(),
        json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })
    );
    assert_eq!(
        get(&service, "/ready").await.expect(200).json(),
        json!({ "status": "ok", "database": "ok", "index": "ok", "files": "ok", "model": "ok" })
    );
}

#[tokio::test]
async fn a_model_that_does_not_answer_is_told_and_the_service_is_ready_all_the_same() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;

    for (is_down, status, model) in [
        (false, "ok", "ok"),
        (true, "degraded", "failing"),
        (false, "ok", "ok"),
    ] {
        embedder.set_down(is_down);
        desk.search("When are oak tables oiled?").await;
        let ready = get(&service, "/ready").await.expect(200).json();
        assert_eq!(
            (&ready["status"], &ready["model"]),
            (&json!(status), &json!(model))
        );
    }
}

#[tokio::test]
async fn without_an_embedding_model_the_service_is_ready_and_says_so() {
    let service = TestOptions::default().without_embedder().start().await;

    let ready = get(&service, "/ready").await.expect(200).json();

    assert_eq!(
        (ready["status"].as_str(), ready["model"].as_str()),
        (Some("ok"), Some("off"))
    );
}

#[tokio::test]
async fn with_the_database_gone_the_process_lives_and_is_not_ready() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;

    service.app.db.close().await;

    get(&service, "/health").await.expect(200);
    let ready = get(&service, "/ready").await.expect(503).json();
    assert_eq!(
        (ready["status"].as_str(), ready["database"].as_str()),
        (Some("failing"), Some("failing"))
    );
    let refused = acme.get("/api/me").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (503, "database_unavailable")
    );
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn while_nobody_gets_to_write_the_service_is_not_ready() {
    if engine() == "postgres" {
        return;
    }
    let service = TestApp::start().await;
    let held = service.app.db.write(Scope::Operator).await.expect("the writer");

    let jammed = get(&service, "/ready").await.expect(503).json();
    get(&service, "/health").await.expect(200);
    drop(held);
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert_eq!(jammed["database"], "failing", "{jammed}");
    get(&service, "/ready").await.expect(200);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_a_503_that_says_so_and_holds_nobody_up() {
    let service = TestOptions::default()
        .set("database.statement_timeout_s", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    const ENDLESS: &str = "with recursive counted (n) as (select 1 union all select n + 1 from counted) select count(*) from counted";

    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    let cut_off = on!(write, c => sqlx::query_scalar::<_, i64>(ENDLESS).fetch_one(c).await);
    drop(write);

    let problem = Problem::from(Error::from(cut_off.expect_err("it is endless")));
    assert_eq!((problem.status, problem.code), (503, "statement_timed_out"));
    acme.chatbot("Desk").await;
}

#[tokio::test]
async fn a_service_that_stops_is_not_ready() {
    let service = TestApp::start().await;

    service.app.stopping.cancel();

    assert_eq!(
        get(&service, "/ready").await.expect(503).json()["status"],
        "failing"
    );
    get(&service, "/health").await.expect(200);
}

#[tokio::test]
async fn metrics_count_requests_and_hold_nothing_of_any_tenant() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme-of-the-metrics").await;
    let desk = acme.chatbot("Desk of the metrics").await;
    desk.publish(
        "returns.md",
        "# Returns\n\nGoods may be returned within 30 days.\n",
    )
    .await;
    desk.ask("Within how many days may goods be returned?")
        .await
        .expect(200);
    acme.get(&format!("/api/chatbots/{}", desk.id)).await.expect(200);

    let metrics = get(&service, "/metrics").await.expect(200).text;

    assert!(
        metrics.contains(
            "frontdesk_http_requests_total{method=\"GET\",route=\"/api/chatbots/{id}\",status=\"200\"}"
        ),
        "{metrics}"
    );
    for private in [
        desk.id.as_str(),
        &acme.id.to_string(),
        &acme.key,
        "of-the-metrics",
        "of the metrics",
        "returns",
    ] {
        assert!(!metrics.contains(private), "{private} is in the metrics");
    }
}

#[tokio::test]
async fn a_made_up_address_makes_no_series_of_its_own() {
    let service = TestApp::start().await;
    get(&service, "/api/made-up-address-of-this-test")
        .await
        .expect(404);

    assert!(
        !get(&service, "/metrics")
            .await
            .expect(200)
            .text
            .contains("made-up-address-of-this-test")
    );
}

#[tokio::test]
async fn made_up_methods_share_one_series() {
    let service = TestApp::start().await;
    for number in 0..50 {
        let method = Method::from_bytes(format!("ODD{number}").as_bytes()).expect("a token");
        service.send(method, "/api/me", None, None).await.expect(405);
    }

    let metrics = get(&service, "/metrics").await.expect(200).text;

    let odd: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("frontdesk_http_requests_total{"))
        .filter(|line| line.contains("route=\"/api/me\"") && line.contains("status=\"405\""))
        .collect();
    assert_eq!(odd.len(), 1, "{odd:?}");
    assert!(odd[0].contains("method=\"OTHER\""), "{odd:?}");
    assert!(!metrics.contains("ODD"));
}
