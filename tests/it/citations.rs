//! Citations: markers in an answer that lead to words in a document.

use serde_json::{Value, json};

use crate::harness::app::{Event, TestApp};
use crate::harness::turns::letter_by_letter;

const RETURNS: &str = "# Rückgabe & returns 📦\n\nGoods may be returned within 30 days of delivery. Engraved goods – “gifts” – cannot be returned.\n";
const REFUNDS: &str = "# Refunds\n\nWhen goods are returned, the money comes within 5 days. Delivery of returned goods costs 4 €.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

/// The numbers of all markers in `text`, in their order.
fn markers(text: &str) -> Vec<usize> {
    text.split('[')
        .skip(1)
        .filter_map(|rest| rest.split_once(']')?.0.parse().ok())
        .collect()
}

/// Fails unless every marker of the answer has its citation, and the citation's words stand where it says.
async fn check_citations(desk: &crate::harness::app::Chatbot<'_, '_>, answer: &Value) {
    let citations = answer["citations"].as_array().expect("citations");
    let numbers = markers(answer["answer"].as_str().expect("a text"));
    assert!(
        numbers
            .iter()
            .all(|number| (1..=citations.len()).contains(number)),
        "{answer}"
    );
    for (index, citation) in citations.iter().enumerate() {
        assert_eq!(citation["marker"], index + 1);
        assert!(
            numbers.contains(&(index + 1)),
            "each citation is named in the text: {answer}"
        );
        let document = desk
            .document(citation["document_id"].as_str().expect("an id"))
            .await;
        let (start, end) = (
            citation["start"].as_u64().expect("an offset") as usize,
            citation["end"].as_u64().expect("an offset") as usize,
        );
        let text: String = document["text"]
            .as_str()
            .expect("the text")
            .chars()
            .skip(start)
            .take(end - start)
            .collect();
        assert_eq!(citation["quote"], json!(text));
        assert!(!text.trim().is_empty());
        assert_eq!(citation["title"], document["title"]);
        let original = desk
            .tenant
            .get(citation["url"].as_str().expect("an address"))
            .await
            .expect(200);
        assert!(!original.text.is_empty());
    }
}

#[tokio::test]
async fn markers_that_name_no_passage_never_reach_the_client_however_the_stream_is_cut() {
    let (service, model) = TestApp::with_model().await;
    model.push(letter_by_letter(
        "Goods go back [2]. Nobody knows more [9]. Money [2, 1, 17] comes [0] too [ 1 ][12]. See [a] and [].",
    ));
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    desk.publish("refunds.md", REFUNDS).await;

    let events = desk.stream(QUESTION).await;

    let text: String = events
        .iter()
        .filter(|event| event.name == "delta")
        .filter_map(|event| event.data["text"].as_str())
        .collect();
    assert_eq!(
        text,
        "Goods go back [1]. Nobody knows more. Money [1][2] comes too [2]. See [a] and []."
    );
    let end = &events.last().expect("an end").data;
    assert_eq!(end["answer"], json!(text));
    check_citations(&desk, end).await;
}

#[tokio::test]
async fn a_citation_comes_before_the_text_that_holds_its_marker_and_once() {
    let (service, model) = TestApp::with_model().await;
    model.push(letter_by_letter("Back [2]. Money [1]. Again [2][1]."));
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    desk.publish("refunds.md", REFUNDS).await;

    let events = desk.stream(QUESTION).await;

    let mut announced = Vec::new();
    for event in &events {
        match event.name.as_str() {
            "citation" => announced.push(event.data.clone()),
            "delta" => assert!(
                markers(event.data["text"].as_str().unwrap_or_default())
                    .iter()
                    .all(|number| *number <= announced.len()),
                "{event:?}"
            ),
            _ => {}
        }
    }
    assert_eq!(json!(announced), events.last().expect("an end").data["citations"]);
    assert_eq!(announced.len(), 2);
}

#[tokio::test]
async fn a_quote_stands_in_the_document_where_its_citation_says() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    desk.publish("refunds.md", REFUNDS).await;

    for answer in [
        "Engraved gifts cannot be returned [1]. The money comes within 5 days [2].",
        "Delivery costs 4 € [2][1]",
        "[1][2]",
        "Yes.",
    ] {
        model.reply(answer);
        let answer = desk.ask(QUESTION).await.expect(200).json();
        check_citations(&desk, &answer).await;
    }

    model.reply("Engraved gifts cannot be sent back [1].");
    let passages = desk.search(QUESTION).await;
    let answer = desk.ask(QUESTION).await.expect(200).json();
    assert_eq!(
        answer["citations"][0]["chunk_id"], passages[0]["chunk_id"],
        "number 1 is the best passage"
    );
}

#[tokio::test]
async fn an_extract_cites_where_each_of_its_sentences_stands() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    desk.publish("refunds.md", REFUNDS).await;

    let answer = desk.ask(QUESTION).await.expect(200).json();

    check_citations(&desk, &answer).await;
    assert!(!markers(answer["answer"].as_str().expect("a text")).is_empty());
}

#[tokio::test]
async fn a_citation_from_a_pdf_names_its_page_and_heading() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.upload(&[(
        "product-guide.pdf",
        include_bytes!("../../fixtures/demo/product-guide.pdf"),
    )])
    .await
    .expect(202);
    service.drain_jobs().await;

    let answer = desk
        .ask("When is oak washed and rubbed in with Oak Shield, our hardwax oil?")
        .await
        .expect(200)
        .json();

    let citation = &answer["citations"][0];
    assert!(
        citation["page"].as_i64().is_some_and(|page| page >= 1),
        "{answer}"
    );
    assert!(
        citation["heading"]
            .as_str()
            .is_some_and(|heading| heading.contains("Oak")),
        "{answer}"
    );
    check_citations(&desk, &answer).await;
}

#[tokio::test]
async fn the_same_citations_come_back_from_the_conversation() {
    let (service, model) = TestApp::with_model().await;
    model.reply("Goods go back within 30 days [1], money within 5 [2].");
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    desk.publish("refunds.md", REFUNDS).await;

    let whole = desk.ask(QUESTION).await.expect(200).json();
    let events: Vec<Event> = desk.stream(QUESTION).await;

    let streamed = &events.last().expect("an end").data;
    assert_eq!(
        streamed["citations"], whole["citations"],
        "a stream cites what a whole answer cites"
    );
    for answer in [&whole, streamed] {
        let saved = acme
            .messages(answer["conversation_id"].as_str().expect("an id"))
            .await;
        assert_eq!(saved[1]["citations"], answer["citations"]);
        assert_eq!(saved[1]["citations"].as_array().map(Vec::len), Some(2));
    }
}

#[tokio::test]
async fn an_answer_from_a_page_leads_to_the_page_itself() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let sources = format!("/api/chatbots/{}/sources", desk.id);
    let source = acme
        .post(&sources, json!({ "kind": "push" }))
        .await
        .expect(202)
        .id();
    let address = "https://shop.example/returns";
    let body = json!({ "markdown": "# Returns\n\nGoods may be returned within 30 days.", "url": address });
    let path = format!("/api/sources/{source}/documents/returns");
    let put = service.send(reqwest::Method::PUT, &path, Some(&acme.key), Some(body));
    put.await.expect(201);
    service.drain_jobs().await;

    let answer = desk.ask("When may goods be returned?").await.expect(200).json();

    assert_eq!(answer["citations"][0]["url"], address);
    assert_eq!(desk.search("returned goods").await[0]["url"], address);
}
