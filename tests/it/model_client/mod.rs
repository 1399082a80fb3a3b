//! The chat-completions client against a server that does everything servers do, good and bad.

mod answers;
mod faults;

use frontdesk::config::Config;
use frontdesk::llm::openai::OpenAiModel;
use frontdesk::llm::{
    ChatModel, ChatRequest, FinishReason, ModelEvent, PromptMessage, PromptRole, ProviderError, TokenUsage,
};
use futures::StreamExt as _;

use crate::harness::openai::ScriptedModel;

/// A client of `server` with short limits, and `flags` on top.
pub(super) fn client(server: &ScriptedModel, flags: &[(&str, &str)]) -> OpenAiModel {
    client_at(&server.base_url(), flags)
}

pub(super) fn client_at(base_url: &str, flags: &[(&str, &str)]) -> OpenAiModel {
    let defaults = [
        ("llm.base_url", base_url),
        ("llm.model", "scripted"),
        ("llm.api_key", "sk-very-secret"),
        ("llm.first_token_timeout_s", "1"),
        ("llm.idle_timeout_s", "1"),
        ("llm.total_timeout_s", "10"),
    ];
    let flags: Vec<(String, String)> = defaults
        .iter()
        .chain(flags)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let config = Config::load(None, [], &flags).expect("a valid configuration");
    OpenAiModel::new(&config.llm).expect("a client")
}

pub(super) fn question() -> ChatRequest {
    ChatRequest {
        model: "scripted".to_owned(),
        messages: vec![
            PromptMessage {
                role: PromptRole::System,
                content: "Answer briefly.".to_owned(),
            },
            PromptMessage {
                role: PromptRole::User,
                content: "When do you open?".to_owned(),
            },
        ],
        temperature: Some(0.5),
        max_answer_tokens: 64,
    }
}

/// What a streamed answer was.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) text: String,
    pub(super) deltas: usize,
    pub(super) usage: Option<TokenUsage>,
    pub(super) finish: Option<FinishReason>,
    pub(super) error: Option<ProviderError>,
}

impl Heard {
    pub(super) fn error_code(&self) -> Option<&'static str> {
        self.error.as_ref().map(ProviderError::code)
    }
}

pub(super) async fn listen(model: &OpenAiModel) -> Heard {
    let mut heard = Heard::default();
    let mut stream = match model.stream(question()).await {
        Ok(stream) => stream,
        Err(error) => {
            return Heard {
                error: Some(error),
                ..heard
            };
        }
    };
    while let Some(event) = stream.next().await {
        assert!(
            heard.finish.is_none() && heard.error.is_none(),
            "nothing follows the end"
        );
        match event {
            Ok(ModelEvent::Delta(text)) => {
                assert!(!text.is_empty());
                heard.text.push_str(&text);
                heard.deltas += 1;
            }
            Ok(ModelEvent::Usage(usage)) => assert!(heard.usage.replace(usage).is_none(), "usage comes once"),
            Ok(ModelEvent::Finished(finish)) => heard.finish = Some(finish),
            Err(error) => heard.error = Some(error),
        }
    }
    assert!(
        heard.finish.is_some() != heard.error.is_some(),
        "a stream ends well or with an error: {heard:?}"
    );
    heard
}
