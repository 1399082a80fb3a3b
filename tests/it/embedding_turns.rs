//! Tenants share an embedding model by turns: it is told for whom it embeds.

use retrieval::TenantId;
use retrieval::embed::Asker;

use crate::harness::app::{Tenant, TestOptions};
use crate::harness::embedders::WatchedEmbedder;

fn turn_of(tenant: &Tenant<'_>) -> Asker {
    Asker::Tenant(TenantId(tenant.id.0))
}

#[tokio::test]
async fn what_a_tenant_brings_and_asks_is_embedded_in_its_own_turn() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    for name in ["acme", "globex"] {
        let tenant = service.tenant(name).await;
        let chatbot = tenant.chatbot("Helper").await;
        embedder.take_askers();

        chatbot
            .publish("returns.md", "Goods may be returned within 30 days.")
            .await;
        assert_eq!(embedder.take_askers(), [turn_of(&tenant)], "a document of {name}");

        chatbot.search("May goods be returned?").await;
        assert_eq!(embedder.take_askers(), [turn_of(&tenant)], "a question of {name}");
    }
}
