//! The OpenAI chat-completions format: requests are the types of `async-openai`; answers are small structs of ours that
//! ignore what they do not know and forgive what other servers do differently.

use std::fmt;

use async_openai::types::chat::{
    ChatCompletionRequestAssistantMessage, ChatCompletionRequestMessage, ChatCompletionRequestSystemMessage,
    ChatCompletionRequestUserMessage, ChatCompletionStreamOptions, CreateChatCompletionRequest,
};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use super::{ChatRequest, FinishReason, PromptRole, TokenUsage};

/// Reported counts above this are the server's mistake; believing them would ruin a ledger for good.
const MAX_REPORTED_TOKENS: u64 = 100_000_000;

/// The field that tells a server where to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenLimitField {
    MaxCompletionTokens,
    MaxTokens,
}

/// The body of a request. No field that was not asked for is sent: servers refuse what they do not know.
pub(super) fn body(
    request: ChatRequest,
    limit_field: TokenLimitField,
    stream: bool,
) -> CreateChatCompletionRequest {
    let limit = u32::try_from(request.max_answer_tokens).ok();
    let messages = request
        .messages
        .into_iter()
        .map(|message| -> ChatCompletionRequestMessage {
            match message.role {
                PromptRole::System => ChatCompletionRequestSystemMessage::from(message.content).into(),
                PromptRole::User => ChatCompletionRequestUserMessage::from(message.content).into(),
                PromptRole::Assistant => ChatCompletionRequestAssistantMessage::from(message.content).into(),
            }
        });
    let mut body = CreateChatCompletionRequest {
        model: request.model,
        messages: messages.collect(),
        // From f64 by way of f32: 0.7 stays 0.7 when written.
        temperature: request.temperature.map(|temperature| temperature as f32),
        ..CreateChatCompletionRequest::default()
    };
    match limit_field {
        TokenLimitField::MaxCompletionTokens => body.max_completion_tokens = limit,
        TokenLimitField::MaxTokens => {
            #[expect(deprecated, reason = "older and most compatible servers know this field only")]
            {
                body.max_tokens = limit;
            }
        }
    }
    if stream {
        body.stream = Some(true);
        body.stream_options = Some(ChatCompletionStreamOptions {
            include_usage: Some(true),
            include_obfuscation: None,
        });
    }
    body
}

/// A whole answer, or one event of a streamed one.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Answer {
    /// The one choice that we ask for.
    #[serde(default, rename = "choices", deserialize_with = "first_choice")]
    pub(super) choice: Choice,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
    #[serde(default)]
    pub(super) error: Option<Value>,
}

/// A choice; all absent when there is none.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Choice {
    /// What is new, in a stream.
    #[serde(default)]
    delta: Option<Message>,
    /// The whole of it, otherwise.
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(skip)]
    present: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    refusal: Option<String>,
    /// The thoughts of reasoning models: not shown, but a sign of life.
    #[serde(default)]
    reasoning_content: Option<IgnoredAny>,
    #[serde(default)]
    reasoning: Option<IgnoredAny>,
    #[serde(default)]
    tool_calls: Option<IgnoredAny>,
}

impl Choice {
    /// Whether the server gave any choice at all.
    pub(super) fn is_present(&self) -> bool {
        self.present
    }

    /// The text, whether an answer or a refusal. Empty when there is none. NUL is left out: no database of ours
    /// and no reader takes it as text.
    pub(super) fn take_text(&mut self) -> String {
        let Some(message) = self.delta.as_mut().or(self.message.as_mut()) else {
            return String::new();
        };
        let mut text = match message.content.take() {
            Some(Content(text)) if !text.is_empty() => text,
            _ => message.refusal.take().unwrap_or_default(),
        };
        if text.contains('\0') {
            text.retain(|character| character != '\0');
        }
        text
    }

    /// Whether the model works on something that is no text for the visitor.
    pub(super) fn shows_life(&self) -> bool {
        self.delta.as_ref().is_some_and(|delta| {
            delta.reasoning_content.is_some() || delta.reasoning.is_some() || delta.tool_calls.is_some()
        })
    }

    /// Why the answer ends, if it does here.
    pub(super) fn finish(&self) -> Option<FinishReason> {
        let reason = match self.finish_reason.as_deref()? {
            "" => return None,
            "stop" | "eos" | "end_turn" | "stop_sequence" => FinishReason::Stop,
            "length" | "max_tokens" => FinishReason::Length,
            "tool_calls" | "function_call" => FinishReason::ToolCalls,
            "content_filter" => FinishReason::ContentFilter,
            _ => FinishReason::Other,
        };
        Some(reason)
    }
}

/// Tokens as servers report them.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Default, Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Count,
}

impl Usage {
    /// The figures, or nothing when the server only filled the field in.
    pub(super) fn reported(&self) -> Option<TokenUsage> {
        let (prompt, completion) = (self.prompt_tokens.0, self.completion_tokens.0);
        if prompt == 0 && completion == 0 {
            return None;
        }
        let cached = self
            .prompt_tokens_details
            .as_ref()
            .map_or(0, |details| details.cached_tokens.0);
        Some(TokenUsage {
            prompt,
            completion,
            cached: cached.min(prompt),
            reported: true,
        })
    }
}

/// The words by which servers say what went wrong. They are compared, never shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The status that the error names itself, as gateways do.
    pub(super) status: Option<u16>,
    words: String,
}

impl Complaint {
    /// Reads an `error` value: an object, or only a sentence.
    pub(super) fn from_error(error: &Value) -> Self {
        let mut complaint = Self::default();
        let fields: &[Option<&Value>] = match error {
            Value::Object(fields) => &[
                fields.get("code"),
                fields.get("type"),
                fields.get("message"),
                fields.get("status"),
            ],
            other => &[Some(other)],
        };
        for field in fields.iter().flatten() {
            match field {
                Value::String(text) => {
                    complaint.words.push_str(&text.to_lowercase());
                    complaint.words.push('\n');
                }
                Value::Number(number) => {
                    complaint.status = number
                        .as_u64()
                        .and_then(|status| u16::try_from(status).ok())
                        .filter(|status| (400..600).contains(status))
                }
                _ => {}
            }
        }
        complaint
    }

    /// Reads the body of an error response, whatever it is.
    pub(super) fn from_body(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(Value::Object(fields)) => {
                let error = ["error", "detail", "message"]
                    .iter()
                    .find_map(|name| fields.get(*name));
                error.map(Self::from_error).unwrap_or_default()
            }
            Ok(other) => Self::from_error(&other),
            Err(_) => Self {
                status: None,
                words: String::from_utf8_lossy(body).to_lowercase(),
            },
        }
    }

    /// Whether any of `phrases` occurs.
    pub(super) fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.words.contains(phrase))
    }
}

/// A number of tokens: never negative, never absurd; null and fractions are forgiven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl<'de> Visitor<'de> for CountVisitor {
            type Value = Count;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number of tokens")
            }

            fn visit_u64<E>(self, value: u64) -> Result<Count, E> {
                Ok(Count(value.min(MAX_REPORTED_TOKENS)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Count, E> {
                Ok(Count(
                    u64::try_from(value).unwrap_or_default().min(MAX_REPORTED_TOKENS),
                ))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Count, E> {
                // A float-to-integer cast saturates, and is zero for what is no number.
                Ok(Count((value.ceil() as u64).min(MAX_REPORTED_TOKENS)))
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

/// Text, given as a string or as a list of parts of which some are text.
#[derive(Debug)]
struct Content(String);

#[derive(Deserialize)]
struct Part {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    text: Option<String>,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;
        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("text or parts of text")
            }

            fn visit_str<E>(self, value: &str) -> Result<Content, E> {
                Ok(Content(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Content, E> {
                Ok(Content(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
                let mut text = String::new();
                while let Some(part) = parts.next_element::<Part>()? {
                    if part.kind.is_none_or(|kind| kind == "text") {
                        text.push_str(&part.text.unwrap_or_default());
                    }
                }
                Ok(Content(text))
            }
        }
        deserializer.deserialize_any(ContentVisitor)
    }
}

/// Reads `choices` without a list on the heap: choice 0 counts, others were never asked for, null is none.
fn first_choice<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Choice, D::Error> {
    struct ChoicesVisitor;
    impl<'de> Visitor<'de> for ChoicesVisitor {
        type Value = Choice;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of choices")
        }

        fn visit_unit<E>(self) -> Result<Choice, E> {
            Ok(Choice::default())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut choices: A) -> Result<Choice, A::Error> {
            let mut first = choices.next_element::<Choice>()?.unwrap_or_default();
            first.present = first.delta.is_some() || first.message.is_some() || first.finish_reason.is_some();
            while choices.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }
    deserializer.deserialize_any(ChoicesVisitor)
}

#[cfg(test)]
mod tests;
