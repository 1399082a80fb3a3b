//! Retrieval alone: `POST /api/chatbots/{id}/search`.

use std::sync::Arc;

use serde_json::json;

use crate::client::json_request;
use crate::corpus;
use crate::load::{self, Ask};
use crate::report::{Report, Turns};
use crate::setup::Service;

const CLIENTS: [usize; 2] = [1, 16];

pub async fn measure(
    service: &Service,
    embeddings: &'static str,
    searches: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (api_key, path, documents) = (
        service.api_key.clone(),
        format!("/api/chatbots/{}/search", service.chatbot_id),
        service.documents,
    );
    let request = move |number: usize| {
        json_request(
            &path,
            &api_key,
            &json!({ "query": corpus::question((number * 7_919) % documents), "limit": 5 }),
        )
    };
    let ask = Ask {
        request: Arc::new(request),
        expected: "\"chunk_id\"",
        first_token: None,
    };
    for clients in CLIENTS {
        let total = if clients == 1 { searches / 4 } else { searches };
        load::run(service.server.address, clients, clients * 4, &ask).await?;
        let before = service.server.cpu();
        let load = load::run(service.server.address, clients, total, &ask).await?;
        report.turns(Turns::of(
            embeddings,
            "search",
            clients,
            &load,
            service.server.cpu() - before,
        ));
    }
    Ok(())
}
