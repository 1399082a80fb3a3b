//! Where money is limited, a model without a price is not used: its calls would count nothing.

use serde_json::json;

use crate::harness::app::{DIMENSION, TestApp, TestOptions};

const RETURNS: &str = "# Returns\n\nGoods may be returned within 30 days of delivery.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

#[tokio::test]
async fn a_cost_limit_refuses_a_model_that_has_no_price_before_anyone_is_asked() {
    for of_tenant in [true, false] {
        let (service, model) = TestApp::with_model().await;
        let acme = service.tenant("acme").await;
        let desk = acme.chatbot("Desk").await;
        desk.publish("returns.md", RETURNS).await;
        let path = if of_tenant {
            "/api/tenant".to_owned()
        } else {
            format!("/api/chatbots/{}", desk.id)
        };

        // Tokens can be limited without prices.
        acme.patch(&path, json!({ "monthly_token_limit": 100_000 }))
            .await
            .expect(200);
        desk.ask(QUESTION).await.expect(200);
        acme.patch(&path, json!({ "monthly_cost_limit_micro_usd": 100_000 }))
            .await
            .expect(200);

        let refused = desk.ask(QUESTION).await.expect(402);

        assert_eq!(refused.code(), "model_not_priced");
        assert_eq!(model.chat_requests().len(), 1);
        assert_eq!(acme.conversations().await.len(), 1);
    }
}

#[tokio::test]
async fn a_cost_limit_refuses_remote_embeddings_that_have_no_price() {
    let service = TestOptions::default()
        .set("embedding.backend", "openai")
        .set("embedding.base_url", "http://127.0.0.1:9/v1")
        .set("embedding.model", "unpriced")
        .set("embedding.dimension", DIMENSION)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let indexed = desk.publish("returns.md", RETURNS).await;
    assert_eq!(desk.document(&indexed).await["state"], "indexed");
    acme.patch("/api/tenant", json!({ "monthly_cost_limit_micro_usd": 100_000 }))
        .await
        .expect(200);

    let search = acme
        .post(
            &format!("/api/chatbots/{}/search", desk.id),
            json!({ "query": "returns" }),
        )
        .await
        .expect(402);
    let later = desk.publish("delivery.md", "Delivery takes three days.").await;

    assert_eq!(search.code(), "model_not_priced");
    assert_eq!(desk.ask(QUESTION).await.expect(402).code(), "model_not_priced");
    let failed = desk.document(&later).await;
    assert_eq!(
        (&failed["state"], &failed["error"]["code"]),
        (&json!("failed"), &json!("model_not_priced"))
    );
}
