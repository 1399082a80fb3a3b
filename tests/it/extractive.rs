//! Answers without a model, on the demo company's own papers: whole sentences in the order in which they were written.

use serde_json::Value;

use crate::harness::app::{Chatbot, TestApp};

/// Publishes the demo folder.
async fn publish_demo(desk: &Chatbot<'_, '_>) {
    desk.upload(&[
        ("company.md", include_bytes!("../../fixtures/demo/company.md")),
        (
            "delivery-and-returns.html",
            include_bytes!("../../fixtures/demo/delivery-and-returns.html"),
        ),
        ("faq.csv", include_bytes!("../../fixtures/demo/faq.csv")),
        (
            "product-guide.pdf",
            include_bytes!("../../fixtures/demo/product-guide.pdf"),
        ),
        (
            "warranty-terms.docx",
            include_bytes!("../../fixtures/demo/warranty-terms.docx"),
        ),
    ])
    .await
    .expect(202);
    desk.tenant.service.drain_jobs().await;
}

/// The sentences of an extract, without the lead.
fn sentences(answer: &Value) -> Vec<&str> {
    answer["answer"]
        .as_str()
        .expect("a text")
        .split("\n\n")
        .skip(1)
        .collect()
}

#[tokio::test]
async fn the_demo_questions_are_answered_by_whole_sentences_in_their_order() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    publish_demo(&desk).await;

    for (question, first) in [
        (
            "How long can I return something?",
            "45 days from delivery, for anything that was in stock and is unused.",
        ),
        (
            "What does delivery cost?",
            "Standard delivery costs £39 and is free for orders from £600.",
        ),
        (
            "How long is the warranty?",
            "10 years on oak and teak frames, 7 years on aluminium and steel, 5 years on rope and fittings",
        ),
        (
            "Do you offer gift cards?",
            "Yes, from £25 to £1,000, by e-mail or on paper.",
        ),
    ] {
        let answer = desk.ask(question).await.expect(200).json();
        let found = sentences(&answer);
        assert!(found[0].starts_with(first), "{question} {found:#?}");
        assert!(
            found.len() <= 3 && found.iter().all(|sentence| sentence.contains(" [")),
            "{found:#?}"
        );
        assert!(
            found
                .iter()
                .all(|sentence| !sentence.contains("question:") && !sentence.contains('?')),
            "a question is no answer: {found:#?}"
        );
    }
}

#[tokio::test]
async fn sentences_of_one_passage_keep_their_order() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let text = "# Returns\n\nReturns are easy. First write to us about the goods. Then we collect the returned goods within two days. \
                At the end the money for returned goods comes back.\n";
    desk.publish("returns.md", text).await;

    let answer = desk
        .ask("What happens with returned goods?")
        .await
        .expect(200)
        .json();

    let found = sentences(&answer);
    let places: Vec<usize> = found
        .iter()
        .map(|sentence| {
            text.find(sentence.split(" [").next().unwrap_or_default())
                .expect("word for word")
        })
        .collect();
    assert!(found.len() >= 2 && places.is_sorted(), "{found:#?}");
}

#[tokio::test]
async fn a_product_of_a_table_is_told_with_its_price() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let table = "name,description,price,stock\n\
                 Sony WH-1000XM4,Wireless headphones. They fold.,249 €,9\n\
                 Sony WH-1000XM5,Wireless headphones. They do not fold.,349 €,4\n\
                 Case,A case for headphones of any make.,19 €,120\n";
    desk.upload(&[("products.csv", table.as_bytes())])
        .await
        .expect(202);
    service.drain_jobs().await;

    let answer = desk.ask("how much is the WH-1000XM5?").await.expect(200).json();

    let row =
        "name: Sony WH-1000XM5\ndescription: Wireless headphones. They do not fold.\nprice: 349 €\nstock: 4";
    assert_eq!(sentences(&answer), [format!("{row} [1]")], "{answer}");
    assert_eq!(answer["citations"][0]["quote"], row);
}
