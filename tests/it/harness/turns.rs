//! What tests of turns share: waiting for something to become true, reading a stream up to a point, and comparing
//! whole answers whose ids and times differ from run to run.

use std::time::Duration;

use serde_json::{Value, json};

use super::app::{Tenant, TestApp};
use super::openai::Script;

/// Fields whose values differ from run to run.
const FLEETING: &[&str] = &[
    "id",
    "conversation_id",
    "message_id",
    "document_id",
    "chunk_id",
    "chatbot_id",
    "url",
    "score",
    "request_id",
    "prompt_tokens",
    "created_at",
    "updated_at",
];

/// Waits until `holds`; fails the test when that takes longer than 10 seconds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}

/// Reads a running response until its text holds `part`; the text so far.
pub async fn read_until(response: &mut reqwest::Response, part: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&bytes).contains(part) {
            match response.chunk().await.expect("the stream goes on") {
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => panic!(
                    "the stream ended before {part:?}: {}",
                    String::from_utf8_lossy(&bytes)
                ),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {part:?}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `value` with every fleeting field replaced by its name.
pub fn redacted(mut value: Value) -> Value {
    redact(&mut value);
    value
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if FLEETING.contains(&name.as_str()) && !value.is_null() {
                    *value = json!(format!("[{name}]"));
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// The model's stream says `text` one character at a time, and nothing about tokens.
pub fn letter_by_letter(text: &str) -> Script {
    let events = text
        .chars()
        .map(|letter| json!({ "choices": [{ "index": 0, "delta": { "content": letter } }] }));
    let end = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
    let done = b"data: [DONE]\n\n".to_vec();
    Script::Raw(
        events
            .chain([end])
            .map(|event| format!("data: {event}\n\n").into_bytes())
            .chain([done])
            .collect(),
    )
}

impl Tenant<'_> {
    /// The tenant's conversations, newest first.
    pub async fn conversations(&self) -> Vec<Value> {
        self.get("/api/conversations").await.expect(200).json()["items"]
            .as_array()
            .expect("items")
            .clone()
    }

    /// The messages of a conversation, in order.
    pub async fn messages(&self, conversation_id: &str) -> Vec<Value> {
        let conversation = self
            .get(&format!("/api/conversations/{conversation_id}"))
            .await
            .expect(200)
            .json();
        conversation["messages"].as_array().expect("messages").clone()
    }

    /// The last message of the newest conversation, once it is an answer that is not being written any more.
    pub async fn last_answer(&self) -> Value {
        let mut answer = Value::Null;
        until("the answer is saved", async || {
            let Some(id) = self
                .conversations()
                .await
                .first()
                .and_then(|conversation| conversation["id"].as_str().map(str::to_owned))
            else {
                return false;
            };
            answer = self.messages(&id).await.pop().unwrap_or_default();
            answer["role"] == "assistant" && answer["state"] != "writing"
        })
        .await;
        answer
    }

    /// What the ledger sums up to.
    pub async fn usage(&self) -> Value {
        self.get("/api/usage").await.expect(200).json()["total"].clone()
    }

    /// The tenant's budget of the running month.
    pub async fn budget(&self) -> Value {
        self.get("/api/usage/budget").await.expect(200).json()["tenant"].clone()
    }

    /// The lines of the ledger, by the names of their columns.
    pub async fn ledger(&self) -> Vec<std::collections::HashMap<String, String>> {
        let text = self.get("/api/usage/export").await.expect(200).text;
        csv::Reader::from_reader(text.as_bytes())
            .deserialize()
            .collect::<Result<_, _>>()
            .expect("the export is CSV")
    }
}

impl TestApp {
    /// Waits until no turn runs any more.
    pub async fn wait_idle(&self) {
        until("no turn runs", async || self.app.turns.taken() == 0).await;
    }
}
