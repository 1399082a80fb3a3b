//! Generations as tests see them: by the API, and by what the indexes hold.

use std::sync::Arc;

use retrieval::embed::Embedder;
use serde_json::{Value, json};

use super::app::{Tenant, TestApp};
use super::embedders::WatchedEmbedder;

pub const GENERATIONS: &str = "/api/index/generations";

/// The spaces of the embedder that tests begin with and of the one that comes then.
pub const OLD: &str = "counted-words/256";
pub const NEW: &str = "longer-words/384";

/// A tenant and its chatbot by their names, so that they outlive a restart.
pub struct Held {
    pub tenant: frontdesk::id::TenantId,
    pub key: String,
    pub chatbot: String,
}

impl Held {
    /// One with so many documents, each about a table of its own.
    pub async fn with_documents(service: &TestApp, count: usize) -> Self {
        let acme = service.tenant("acme").await;
        let desk = acme.chatbot("Desk").await;
        for number in 0..count {
            desk.publish(&format!("{number}.md"), &text_of(number)).await;
        }
        Self {
            tenant: acme.id,
            key: acme.key.clone(),
            chatbot: desk.id.clone(),
        }
    }

    pub fn tenant<'a>(&self, service: &'a TestApp) -> Tenant<'a> {
        Tenant {
            service,
            id: self.tenant,
            key: self.key.clone(),
        }
    }
}

/// The model of [`NEW`].
pub fn new_embedder() -> Arc<WatchedEmbedder> {
    WatchedEmbedder::named("longer-words", 384)
}

/// Restarts with this model configured; `mode` says what that begins.
pub async fn with_new_model(service: TestApp, embedder: &Arc<WatchedEmbedder>, mode: &str) -> TestApp {
    let embedder = embedder.clone() as Arc<dyn Embedder>;
    let settings = [("index.on_model_change", mode)];
    service.restart_with(Some(embedder), &settings).await
}

/// What the document of this number says.
pub fn text_of(number: usize) -> String {
    format!("Table{number} is oiled {number} times a year.")
}

/// All generations, newest first.
pub async fn listed(acme: &Tenant<'_>) -> Vec<Value> {
    let reply = acme.get(GENERATIONS).await.expect(200).json();
    reply["items"].as_array().expect("items").clone()
}

/// The states of all generations, newest first.
pub async fn states(acme: &Tenant<'_>) -> Vec<String> {
    let all = listed(acme).await;
    all.iter()
        .map(|one| one["state"].as_str().expect("a state").to_owned())
        .collect()
}

/// Begins one with the configured model; its id.
pub async fn begin(acme: &Tenant<'_>) -> String {
    acme.post(GENERATIONS, json!({})).await.expect(202).id()
}

/// How many points of the tenant a space holds.
pub async fn points(service: &TestApp, tenant: frontdesk::id::TenantId, space: &str) -> u64 {
    let space = service.app.space(space).await.expect("a space");
    space
        .index
        .count(retrieval::TenantId(tenant.0))
        .await
        .expect("a count")
}

/// What a search answers.
pub async fn search(acme: &Tenant<'_>, chatbot: &str, query: &str) -> Value {
    let path = format!("/api/chatbots/{chatbot}/search");
    acme.post(&path, json!({ "query": query }))
        .await
        .expect(200)
        .json()
}
