//! What the scripted server can be told to say, and the bytes and pauses that this becomes.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Asked, Scripted, lock};

/// What is sent before a connection is cut must have left the buffers.
const FLUSH: Duration = Duration::from_millis(20);

/// An answer that goes well.
#[derive(Clone, Debug)]
pub struct Reply {
    text: String,
    words_per_delta: usize,
    delay: Duration,
    usage: bool,
    cached: u64,
    done: bool,
    finish: Option<&'static str>,
}

impl Reply {
    /// The text, a word in each delta, without delay, with usage.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            words_per_delta: 1,
            delay: Duration::ZERO,
            usage: true,
            cached: 0,
            done: true,
            finish: Some("stop"),
        }
    }

    pub fn words_per_delta(mut self, words: usize) -> Self {
        self.words_per_delta = words.max(1);
        self
    }

    /// Waits so long before each delta.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Says nothing of tokens.
    pub fn without_usage(mut self) -> Self {
        self.usage = false;
        self
    }

    /// Says that so many prompt tokens were cached.
    pub fn cached(mut self, tokens: u64) -> Self {
        self.cached = tokens;
        self
    }

    /// Leaves `[DONE]` out.
    pub fn without_done(mut self) -> Self {
        self.done = false;
        self
    }

    /// Ends for this reason; none leaves it out.
    pub fn finish(mut self, finish: Option<&'static str>) -> Self {
        self.finish = finish;
        self
    }

    fn deltas(&self) -> Vec<String> {
        let words: Vec<&str> = self.text.split_inclusive(' ').collect();
        words
            .chunks(self.words_per_delta)
            .map(|words| words.concat())
            .collect()
    }
}

/// What the server does with one chat request.
#[derive(Clone, Debug)]
pub enum Script {
    Reply(Reply),
    /// The model asks for a tool, although none was offered.
    ToolCall {
        name: &'static str,
        arguments: &'static str,
    },
    /// An error response.
    Status {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// Takes the request and says nothing.
    HangBeforeHeaders,
    /// Says this and then nothing more.
    HangAfter(&'static str),
    /// Sends comments for ever, and no token.
    Drip(Duration),
    /// Says this, then drops the connection.
    CutAfter(&'static str),
    /// Says this, then drops the connection in the middle of a character of the next event.
    CutInsideCharacter(&'static str),
    /// Says this, then sends something that is no JSON.
    MalformedAfter(&'static str),
    /// Says this, then sends an `error` object.
    ErrorAfter(&'static str, Value),
    /// Never stops.
    Endless,
    /// Exactly these reads, one by one.
    Raw(Vec<Vec<u8>>),
    /// A JSON answer, although a stream was asked for.
    NoStream(Reply),
}

impl Script {
    /// 429 that names when to come back.
    pub fn rate_limited(retry_after: &str) -> Self {
        Self::error(429, "requests", "rate_limit_exceeded").with_header("retry-after", retry_after)
    }

    /// 429 that will not pass.
    pub fn quota_exhausted() -> Self {
        Self::error(429, "insufficient_quota", "insufficient_quota")
    }

    /// 400: the prompt is too long.
    pub fn context_too_long() -> Self {
        Self::error(400, "invalid_request_error", "context_length_exceeded")
    }

    /// An error response of the usual shape.
    pub fn error(status: u16, kind: &str, code: &str) -> Self {
        let body = json!({ "error": { "message": "upstream words that no visitor may see", "type": kind, "param": null, "code": code } });
        Self::Status {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string(),
        }
    }

    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Status { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }
}

/// One thing that a response body does.
pub(super) enum Step {
    Send(Bytes),
    Wait(Duration),
    Hang,
    Cut,
}

/// What a whole or streamed answer of this script does, step by step.
pub(super) fn steps(
    script: Script,
    asked: &Asked,
    streamed: bool,
    with_usage: bool,
    state: &Scripted,
) -> Box<dyn Iterator<Item = Step> + Send> {
    let said = |text: &'static str| {
        if streamed {
            delta_steps(&Reply::new(text))
        } else if text.is_empty() {
            Vec::new()
        } else {
            vec![Step::Send(Bytes::from_static(b"{\"choices\": ["))]
        }
    };
    let then = |text: &'static str, rest: Vec<Step>| said(text).into_iter().chain(rest);
    let event = |value: &Value| {
        Step::Send(if streamed {
            sse(value)
        } else {
            Bytes::from(value.to_string())
        })
    };
    match script {
        Script::Reply(reply) | Script::NoStream(reply) => {
            Box::new(reply_steps(&reply, asked, streamed, with_usage, state).into_iter())
        }
        Script::ToolCall { name, arguments } => {
            let call = json!([{ "index": 0, "id": "call_1", "type": "function", "function": { "name": name, "arguments": arguments } }]);
            let part = json!({ "role": "assistant", "content": null, "tool_calls": call });
            let answer = if streamed {
                chunk(part, Some("tool_calls"))
            } else {
                completion(part, Some("tool_calls"), None)
            };
            let done = streamed.then(|| Step::Send(Bytes::from_static(b"data: [DONE]\n\n")));
            Box::new([event(&answer)].into_iter().chain(done))
        }
        Script::HangAfter(text) => Box::new(then(text, vec![Step::Hang])),
        Script::Drip(pause) => Box::new(
            std::iter::repeat_with(move || {
                [Step::Wait(pause), Step::Send(Bytes::from_static(b": ping\n\n"))]
            })
            .flatten(),
        ),
        Script::CutAfter(text) => Box::new(then(text, vec![Step::Wait(FLUSH), Step::Cut])),
        Script::CutInsideCharacter(text) => {
            let whole = sse(&chunk(json!({ "content": "\u{20AC}" }), None));
            let middle = whole
                .iter()
                .position(|byte| *byte == 0xE2)
                .expect("the euro sign")
                + 2;
            Box::new(then(
                text,
                vec![Step::Send(whole.slice(..middle)), Step::Wait(FLUSH), Step::Cut],
            ))
        }
        Script::MalformedAfter(text) => Box::new(then(
            text,
            vec![Step::Send(Bytes::from_static(
                b"data: {\"choices\": [{\"delta\n\n",
            ))],
        )),
        Script::ErrorAfter(text, error) if streamed => {
            Box::new(then(text, vec![event(&json!({ "error": error }))]))
        }
        Script::ErrorAfter(_, error) => Box::new([event(&json!({ "error": error }))].into_iter()),
        Script::Endless => {
            let piece = if streamed {
                sse(&chunk(
                    json!({ "content": "and so on and so on and so on " }),
                    None,
                ))
            } else {
                Bytes::from(vec![b' '; 64 * 1024])
            };
            Box::new(std::iter::repeat_with(move || Step::Send(piece.clone())))
        }
        Script::Raw(reads) => Box::new(reads.into_iter().flat_map(|read| {
            [
                Step::Send(Bytes::from(read)),
                Step::Wait(Duration::from_millis(2)),
            ]
        })),
        Script::Status { .. } | Script::HangBeforeHeaders => unreachable!("answered before there is a body"),
    }
}

fn reply_steps(
    reply: &Reply,
    asked: &Asked,
    streamed: bool,
    with_usage: bool,
    state: &Scripted,
) -> Vec<Step> {
    let usage = (reply.usage && with_usage).then(|| {
        let prompt = asked.body["messages"].as_array().into_iter().flatten().filter_map(|message| message["content"].as_str()).map(words).sum::<u64>();
        let completion = words(&reply.text);
        let mut served = lock(&state.served);
        served.prompt += prompt;
        served.completion += completion;
        served.cached += reply.cached;
        json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, "prompt_tokens_details": { "cached_tokens": reply.cached } })
    });
    if !streamed {
        let answer = completion(
            json!({ "role": "assistant", "content": reply.text, "refusal": null }),
            reply.finish,
            usage,
        );
        return vec![
            Step::Wait(reply.delay),
            Step::Send(Bytes::from(answer.to_string())),
        ];
    }
    let mut steps = delta_steps(reply);
    if let Some(finish) = reply.finish {
        steps.push(Step::Send(sse(&chunk(json!({}), Some(finish)))));
    }
    if let Some(usage) = usage {
        let mut last = chunk(json!({}), None);
        last["choices"] = json!([]);
        last["usage"] = usage;
        steps.push(Step::Send(sse(&last)));
    }
    if reply.done {
        steps.push(Step::Send(Bytes::from_static(b"data: [DONE]\n\n")));
    }
    steps
}

fn delta_steps(reply: &Reply) -> Vec<Step> {
    let mut steps = vec![Step::Send(sse(&chunk(
        json!({ "role": "assistant", "content": "", "refusal": null }),
        None,
    )))];
    for delta in reply.deltas() {
        if !reply.delay.is_zero() {
            steps.push(Step::Wait(reply.delay));
        }
        steps.push(Step::Send(sse(&chunk(json!({ "content": delta }), None))));
    }
    steps
}

fn chunk(delta: Value, finish: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-S1", "object": "chat.completion.chunk", "created": 1_767_607_200, "model": "scripted", "system_fingerprint": "fp_s",
        "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }],
    })
}

fn completion(message: Value, finish: Option<&str>, usage: Option<Value>) -> Value {
    let mut answer = json!({
        "id": "chatcmpl-S1", "object": "chat.completion", "created": 1_767_607_200, "model": "scripted",
        "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": finish }],
    });
    if let Some(usage) = usage {
        answer["usage"] = usage;
    }
    answer
}

fn sse(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

pub(super) fn words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}
