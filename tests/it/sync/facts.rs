//! What a page says of itself besides its text is shown with its document, and kept fresh.

use serde_json::{Value, json};

use super::desk::{Desk, service_for};
use super::site::{Answer, Site};

fn page(description: &str, published: &str) -> Answer {
    let head = format!(
        "<meta name=\"description\" content=\"{description}\">\
         <meta property=\"article:published_time\" content=\"{published}\">\
         <script type=\"application/ld+json\">{{\"@context\":\"https://schema.org\",\"@type\":\"BreadcrumbList\",\"itemListElement\":[\
         {{\"@type\":\"ListItem\",\"position\":1,\"name\":\"Help\"}},{{\"@type\":\"ListItem\",\"position\":2,\"name\":\"Shops\"}}]}}</script>"
    );
    let mut answer = Answer::html("Hours", &head, "The showroom opens at ten.", &[]);
    answer.body = answer.body.replacen("<html>", "<html lang=\"en-GB\">", 1);
    answer
}

#[tokio::test]
async fn a_page_is_shown_with_what_it_says_of_itself_also_when_only_that_changes() {
    let site = Site::start(&[("/", page("When we are there.", "2024-05-01"))]).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let documents = format!("/api/sources/{}/documents", desk.source_id);
    let facts = async || -> Vec<Value> {
        let reply = service
            .send(reqwest::Method::GET, &documents, Some(&desk.key), None)
            .await;
        let document = reply.expect(200).json()["items"][0].clone();
        ["language", "description", "published_at", "breadcrumbs"]
            .map(|name| document[name].clone())
            .to_vec()
    };
    let trail = json!(["Help", "Shops"]);
    let first = [
        json!("en-GB"),
        json!("When we are there."),
        json!("2024-05-01T00:00:00Z"),
        trail.clone(),
    ];
    assert_eq!(facts().await, first);

    site.put("/", page("Our opening hours.", "2025-06-02"));
    let run = desk.sync().await;

    assert_eq!((run.unchanged_count, run.embedding_calls), (1, 0));
    let second = [
        json!("en-GB"),
        json!("Our opening hours."),
        json!("2025-06-02T00:00:00Z"),
        trail,
    ];
    assert_eq!(facts().await, second);
}
