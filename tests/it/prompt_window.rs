//! The prompt and the model's window: it always fits, and where the window is smaller than configured, less is sent.

use frontdesk::llm::tokens;
use serde_json::json;

use crate::harness::app::TestOptions;
use crate::harness::openai::{Reply, Script, ScriptedModel};

const RETURNS: &str =
    "# Returns\n\nGoods may be returned within 30 days of delivery. Engraved goods cannot be returned.\n";
const REFUNDS: &str = "# Refunds\n\nWhen goods are returned, the money comes within 5 days. Delivery of returned goods costs 4 pounds.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

#[tokio::test]
async fn the_prompt_fits_the_window_however_much_there_is_to_say() {
    let model = ScriptedModel::start().await;
    let (window, answer) = (2048, 512);
    let options = TestOptions::default()
        .model(&model)
        .set("llm.context_tokens", window)
        .set("llm.max_answer_tokens", answer);
    let service = options
        .set("chat.passage_tokens", 5000)
        .set("chat.history_tokens", 5000)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    acme.patch(
        &format!("/api/chatbots/{}", desk.id),
        json!({ "max_passages": 20 }),
    )
    .await
    .expect(200);
    for number in 0..8 {
        let text = format!(
            "# Returns {number}\n\n{}",
            format!("Goods of kind {number} may be returned within {number} days of delivery, unopened. ")
                .repeat(12)
        );
        desk.publish(&format!("returns-{number}.md"), &text).await;
    }
    model.reply_with(|_| Script::Reply(Reply::new("Thirty days, if unopened. ".repeat(40))));

    let mut conversation_id: Option<String> = None;
    for _ in 0..5 {
        let question = QUESTION.repeat(3);
        let reply = match &conversation_id {
            None => desk.ask(&question).await,
            Some(id) => desk.ask_in(id, &question).await,
        };
        conversation_id = reply.expect(200).json()["conversation_id"]
            .as_str()
            .map(str::to_owned);
    }

    let requests = model.chat_requests();
    assert_eq!(requests.len(), 5);
    for request in &requests {
        let contents = request.body["messages"]
            .as_array()
            .expect("messages")
            .iter()
            .filter_map(|message| message["content"].as_str());
        let prompt: usize = contents
            .map(|content| tokens::count(content) + tokens::MESSAGE_OVERHEAD)
            .sum();
        assert!(
            prompt + answer <= window,
            "{prompt} tokens of prompt and {answer} of answer in a window of {window}"
        );
    }
    assert!(
        requests[0].last_message().contains("<passage number=\"2\""),
        "there is room for several passages"
    );
}

#[tokio::test]
async fn a_prompt_too_long_for_the_model_is_shortened_and_sent_once_more() {
    for streamed in [true, false] {
        let model = ScriptedModel::start().await;
        let service = TestOptions::default().model(&model).start().await;
        let acme = service.tenant("acme").await;
        let desk = acme.chatbot("Desk").await;
        desk.publish("returns.md", RETURNS).await;
        desk.publish("refunds.md", REFUNDS).await;
        let thread = desk.ask(QUESTION).await.expect(200).json();
        model.push(Script::context_too_long());
        model.push(Script::Reply(Reply::new("Thirty [1]. Five [2].")));

        let body = json!({ "chatbot_id": desk.id, "conversation_id": thread["conversation_id"], "message": QUESTION, "stream": streamed });
        let answer = acme.post("/api/chat/message", body).await.expect(200);

        let requests = model.chat_requests();
        assert_eq!(requests.len(), 3);
        let (long, short) = (&requests[1], &requests[2]);
        assert_eq!(
            (
                long.body["messages"].as_array().map(Vec::len),
                short.body["messages"].as_array().map(Vec::len)
            ),
            (Some(4), Some(2))
        );
        assert!(
            long.last_message().contains("<passage number=\"2\"")
                && !short.last_message().contains("<passage number=\"2\"")
        );
        assert!(short.last_message().ends_with(&format!("Question: {QUESTION}")));
        // Only passages that were sent the second time can be cited.
        assert!(
            answer.text.contains("Thirty [1]. Five.") || answer.text.contains("Five"),
            "{}",
            answer.text
        );
        let saved = acme.last_answer().await;
        assert_eq!(
            (&saved["state"], &saved["content"]),
            (&json!("complete"), &json!("Thirty [1]. Five."))
        );
    }
}
