//! The scripted model: an OpenAI-compatible server that costs next to nothing, so that what is measured is the server
//! that asks it. Answers have 64 tokens; a stream sends each in a write of its own, as models do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Length of the embeddings, that of all-MiniLM-L6-v2.
pub const DIMENSION: usize = 384;

/// Tokens of an answer without delay.
pub const ANSWER_TOKENS: usize = 64;

/// Coordinates that one word stands for.
const COORDINATES_PER_WORD: usize = 6;

/// The sentence that answers repeat. It cites the first passage.
const SENTENCE: &str = "It takes a few working days and the fee is as the document says [1] . ";

/// The running server.
#[derive(Clone)]
pub struct ScriptedModel {
    pub address: SocketAddr,
    script: Arc<Script>,
}

struct Script {
    /// The whole response to a request that is not streamed.
    whole: Vec<u8>,
    /// Events of a stream without delay, each as a chunk of the body.
    events: Vec<Vec<u8>>,
    /// Pause before each token in microseconds; 0: the usual answer. Tokens then are the time at which they were sent.
    pause_us: AtomicU64,
    paused_tokens: AtomicUsize,
    epoch: Instant,
}

impl ScriptedModel {
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let words: Vec<&str> = SENTENCE
            .split_inclusive(' ')
            .cycle()
            .take(ANSWER_TOKENS)
            .collect();
        let answer = words.concat();
        let whole = json!({
            "id": "chatcmpl-bench", "object": "chat.completion", "created": 1_700_000_000, "model": "bench",
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": answer }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 420, "completion_tokens": ANSWER_TOKENS, "total_tokens": 420 + ANSWER_TOKENS },
        });
        let mut events: Vec<Vec<u8>> = words.iter().map(|word| body_chunk(&delta(word))).collect();
        events.push(stream_end(ANSWER_TOKENS));
        let script = Script {
            whole: response(whole.to_string().as_bytes()),
            events,
            pause_us: AtomicU64::new(0),
            paused_tokens: AtomicUsize::new(0),
            epoch: Instant::now(),
        };
        let model = Self {
            address: listener.local_addr()?,
            script: Arc::new(script),
        };
        let script = model.script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = script.clone();
                tokio::spawn(async move {
                    // A connection that breaks is the other side's business.
                    let _ = serve(stream, &script).await;
                });
            }
        });
        Ok(model)
    }

    /// Where clients find it.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// From now on streams have `tokens` tokens with a pause before each, and each token is the time it was sent at.
    pub fn pause(&self, pause: Duration, tokens: usize) {
        self.script.paused_tokens.store(tokens, Ordering::Relaxed);
        self.script
            .pause_us
            .store(pause.as_micros() as u64, Ordering::Relaxed);
    }

    /// Back to streams without delay.
    pub fn unpause(&self) {
        self.script.pause_us.store(0, Ordering::Relaxed);
    }

    /// Microseconds since the server started: the clock of timed tokens.
    pub fn clock_us(&self) -> u64 {
        self.script.epoch.elapsed().as_micros() as u64
    }
}

async fn serve(mut stream: TcpStream, script: &Script) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received: Vec<u8> = Vec::with_capacity(16 * 1024);
    loop {
        let Some(head_end) = read_until_head(&mut stream, &mut received).await? else {
            return Ok(());
        };
        let length = content_length(&received[..head_end]);
        while received.len() < head_end + length {
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        }
        let is_embedding = contains(&received[..head_end.min(64)], b"/embeddings");
        let body = &received[head_end..head_end + length];
        if is_embedding {
            stream.write_all(&embeddings(body)).await?;
        } else if contains(body, b"\"stream\":true") {
            answer_stream(&mut stream, script).await?;
        } else {
            stream.write_all(&script.whole).await?;
        }
        received.drain(..head_end + length);
    }
}

async fn answer_stream(stream: &mut TcpStream, script: &Script) -> io::Result<()> {
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await?;
    let pause = Duration::from_micros(script.pause_us.load(Ordering::Relaxed));
    if pause.is_zero() {
        for event in &script.events {
            stream.write_all(event).await?;
        }
        return Ok(());
    }
    let tokens = script.paused_tokens.load(Ordering::Relaxed);
    let mut ticks = tokio::time::interval(pause);
    for _ in 0..tokens {
        ticks.tick().await;
        let token = format!("{} ", script.epoch.elapsed().as_micros());
        stream.write_all(&body_chunk(&delta(&token))).await?;
    }
    stream.write_all(&stream_end(tokens)).await
}

fn delta(text: &str) -> Vec<u8> {
    let event = json!({
        "id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "bench",
        "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }],
    });
    format!("data: {event}\n\n").into_bytes()
}

/// Finish, usage, `[DONE]` and the end of the body, in one piece.
fn stream_end(tokens: usize) -> Vec<u8> {
    let finish = json!({
        "id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "bench",
        "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }],
    });
    let usage = json!({
        "id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "bench", "choices": [],
        "usage": { "prompt_tokens": 420, "completion_tokens": tokens, "total_tokens": 420 + tokens },
    });
    let mut end = body_chunk(format!("data: {finish}\n\ndata: {usage}\n\ndata: [DONE]\n\n").as_bytes());
    end.extend_from_slice(b"0\r\n\r\n");
    end
}

fn body_chunk(payload: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", payload.len()).into_bytes();
    chunk.extend_from_slice(payload);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

fn response(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut response = head.into_bytes();
    response.extend_from_slice(body);
    response
}

#[derive(Deserialize)]
struct EmbeddingRequest {
    input: Vec<String>,
}

fn embeddings(body: &[u8]) -> Vec<u8> {
    let request: EmbeddingRequest =
        serde_json::from_slice(body).unwrap_or(EmbeddingRequest { input: Vec::new() });
    let mut tokens = 0;
    let mut answer = String::from("{\"object\":\"list\",\"model\":\"bench-embedding\",\"data\":[");
    for (index, text) in request.input.iter().enumerate() {
        tokens += text.len() / 4 + 1;
        let comma = if index == 0 { "" } else { "," };
        let values = serde_json::to_string(&embed(text)).unwrap_or_default();
        answer.push_str(&format!(
            "{comma}{{\"object\":\"embedding\",\"index\":{index},\"embedding\":{values}}}"
        ));
    }
    answer.push_str(&format!(
        "],\"usage\":{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}}}}"
    ));
    response(answer.as_bytes())
}

/// A vector that follows from the words alone: texts that share words are near each other.
pub fn embed(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0_f32; DIMENSION];
    for word in text
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| word.len() > 3)
    {
        // FNV-1a, then a shift register for the further coordinates.
        let mut state = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
        });
        for _ in 0..COORDINATES_PER_WORD {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            vector[(state >> 33) as usize % DIMENSION] += if state & 1 == 0 { 1.0 } else { -1.0 };
        }
    }
    // Nothing is without direction, and no value is so round that it is shorter in JSON than a model's would be.
    for (place, value) in vector.iter_mut().enumerate() {
        *value += 0.001 + place as f32 * 1e-5;
    }
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|value| *value /= length);
    vector
}

async fn read_until_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let length = head
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or_default()
}

fn contains(text: &[u8], mark: &[u8]) -> bool {
    text.windows(mark.len()).any(|window| window == mark)
}
