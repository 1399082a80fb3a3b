//! Recordings as text, by any server that speaks OpenAI's API: `POST {base_url}/audio/transcriptions`.

mod account;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

pub use self::account::{Account, FreeOfCharge, Heard};
use self::account::{Said, ServerUsage, estimate_seconds};
use crate::document::DocumentBuilder;
use crate::{BlockKind, ExtractError, ExtractedDocument, Limits};

/// What a server may answer. A day of speech has about a megabyte of words, and segments come with many numbers.
const MAX_REPLY_BYTES: usize = 32 << 20;

/// Seconds of speech that stand under one heading.
const SECTION_S: f64 = 60.0;

/// Which server, which model, and its limits.
#[derive(Clone)]
pub struct TranscriptionOptions {
    /// Up to and including the version, e.g. `https://api.openai.com/v1`.
    pub base_url: Url,
    pub api_key: Option<String>,
    pub model: String,
    /// For one recording.
    pub timeout: Duration,
    /// Of one recording.
    pub max_bytes: u64,
}

impl std::fmt::Debug for TranscriptionOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TranscriptionOptions")
            .field("base_url", &self.base_url.as_str())
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// A remote model that listens.
#[derive(Debug)]
pub struct Transcriber {
    client: reqwest::Client,
    endpoint: Url,
    headers: HeaderMap,
    options: TranscriptionOptions,
}

/// What is said, and where the server tells it, when.
#[derive(Debug, Deserialize)]
struct Transcript {
    text: String,
    #[serde(default)]
    segments: Vec<Segment>,
    /// Seconds, in one form or another.
    #[serde(default)]
    duration: Value,
    #[serde(default)]
    usage: Value,
}

#[derive(Debug, Deserialize)]
struct Segment {
    /// Seconds from the beginning.
    start: f64,
    #[serde(default)]
    end: Option<f64>,
    text: String,
}

impl Transcriber {
    /// Takes the client for addresses that the operator configured; it must follow no redirect, because a key goes to
    /// the server it was configured for and to no other. No request is sent yet.
    pub fn new(client: reqwest::Client, options: TranscriptionOptions) -> Result<Self, String> {
        let mut base_url = options.base_url.clone();
        if base_url.cannot_be_a_base() {
            return Err(format!("{base_url} is no address of a server"));
        }
        if !base_url.path().ends_with('/') {
            base_url.set_path(&format!("{}/", base_url.path()));
        }
        let endpoint = base_url
            .join("audio/transcriptions")
            .map_err(|error| error.to_string())?;
        let mut headers = HeaderMap::new();
        if let Some(api_key) = &options.api_key {
            let mut bearer = HeaderValue::try_from(format!("Bearer {api_key}"))
                .map_err(|_| "the API key has characters that no header may hold".to_owned())?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(Self {
            client,
            endpoint,
            headers,
            options,
        })
    }

    /// Bytes of one recording at most.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// The text of a recording, under headings of its minutes where the server tells times. `account` pays.
    pub(crate) async fn transcribe(
        &self,
        recording: &[u8],
        limits: &Limits,
        account: &dyn Account,
    ) -> Result<ExtractedDocument, ExtractError> {
        let bytes = recording.len() as u64;
        if bytes > self.options.max_bytes {
            return Err(self.too_large());
        }
        let model = self.options.model.as_str();
        account.reserve(model, estimate_seconds(bytes)).await?;
        let transcript = timeout(self.options.timeout, self.ask(recording)).await;
        let transcript = transcript.unwrap_or(Err(ExtractError::TimedOut {
            seconds: self.options.timeout.as_secs().max(1),
        }));
        let mut transcript = match transcript {
            Ok(transcript) => transcript,
            Err(error) => {
                account.settle(model, None).await?;
                return Err(error);
            }
        };
        let heard = Heard::of(bytes, &transcript.take_said());
        account.settle(model, Some(heard)).await?;
        let mut builder = DocumentBuilder::new(limits);
        // The first minute is no title.
        builder.title = Some(String::new());
        write(&transcript, &mut builder);
        builder.finish()
    }

    pub(crate) fn too_large(&self) -> ExtractError {
        let megabytes = self.options.max_bytes >> 20;
        ExtractError::too_large(format!("a recording of more than {megabytes} MB"))
    }

    async fn ask(&self, recording: &[u8]) -> Result<Transcript, ExtractError> {
        let mut reply = self.send(recording, "verbose_json").await?;
        if reply.status() == StatusCode::BAD_REQUEST {
            // Models without times know the plain form only.
            reply = self.send(recording, "json").await?;
        }
        judge(reply.status())?;
        let body = read_capped(reply).await?;
        serde_json::from_slice(&body).map_err(|error| {
            tracing::warn!(%error, "the transcription server gave a reply that cannot be read");
            ExtractError::Unavailable
        })
    }

    async fn send(&self, recording: &[u8], response_format: &str) -> Result<Response, ExtractError> {
        let form = Form::new(&self.options.model, response_format, recording);
        self.client
            .post(self.endpoint.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, form.content_type)
            .body(form.body)
            .send()
            .await
            .map_err(|error| {
                tracing::warn!(error = %error.without_url(), "the transcription server does not answer");
                ExtractError::Unavailable
            })
    }
}

impl Transcript {
    /// What the server says besides the text.
    fn take_said(&mut self) -> Said {
        Said {
            usage: ServerUsage::read(std::mem::take(&mut self.usage)),
            duration: std::mem::take(&mut self.duration),
            segments_end: self.segments.last().and_then(|segment| segment.end),
        }
    }
}

/// What a status says of the recording, or of the server.
fn judge(status: StatusCode) -> Result<(), ExtractError> {
    if status.is_success() {
        return Ok(());
    }
    Err(match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ExtractError::too_large("a recording larger than the transcription server takes")
        }
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::UNPROCESSABLE_ENTITY => {
            ExtractError::damaged("the recording cannot be played, or is of an unusual kind")
        }
        status => {
            tracing::warn!(%status, "the transcription server refuses");
            ExtractError::Unavailable
        }
    })
}

async fn read_capped(mut reply: Response) -> Result<Vec<u8>, ExtractError> {
    let mut body = Vec::new();
    loop {
        match reply.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_REPLY_BYTES => body.extend_from_slice(&chunk),
            Ok(Some(_)) => return Err(ExtractError::too_large("too much text")),
            Ok(None) => return Ok(body),
            Err(error) => {
                tracing::warn!(error = %error.without_url(), "the transcription server broke off");
                return Err(ExtractError::Unavailable);
            }
        }
    }
}

/// The fields of a request as `multipart/form-data` (RFC 7578).
struct Form {
    content_type: String,
    body: Vec<u8>,
}

impl Form {
    fn new(model: &str, response_format: &str, recording: &[u8]) -> Self {
        // Nobody who made the recording knows it.
        let boundary = format!("{:032x}", rand::random::<u128>());
        let kind = infer::get(recording);
        let media_type = kind.map_or("application/octet-stream", |kind| kind.mime_type());
        let ending = kind.map_or("bin", |kind| kind.extension());
        let mut body = Vec::with_capacity(recording.len() + 1_024);
        for (name, value) in [("model", model), ("response_format", response_format)] {
            let part =
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            body.extend_from_slice(part.as_bytes());
        }
        // Servers go by the ending of the name; the recording's own name concerns nobody.
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"recording.{ending}\"\r\n\
             Content-Type: {media_type}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(recording);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        Self {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            body,
        }
    }
}

fn write(transcript: &Transcript, builder: &mut DocumentBuilder) {
    if transcript.segments.is_empty() {
        for paragraph in transcript.text.split("\n\n") {
            builder.push(BlockKind::Paragraph, paragraph, None);
        }
        return;
    }
    let mut section = String::new();
    let mut began = f64::NEG_INFINITY;
    for segment in &transcript.segments {
        if segment.start - began >= SECTION_S {
            builder.push(BlockKind::Paragraph, &section, None);
            section.clear();
            began = segment.start;
            builder.push(BlockKind::Heading { level: 2 }, &clock_time(began), None);
        }
        section.push_str(segment.text.trim());
        section.push(' ');
    }
    builder.push(BlockKind::Paragraph, &section, None);
}

/// `1:02:03`, or `2:03` within the first hour.
fn clock_time(seconds: f64) -> String {
    // Negative and absurd times become the ends of the range.
    let seconds = seconds as u64;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: &str) -> ExtractedDocument {
        let transcript: Transcript = serde_json::from_str(reply).expect("a transcript");
        let mut builder = DocumentBuilder::new(&Limits::default());
        write(&transcript, &mut builder);
        builder.finish().expect("it has text")
    }

    #[test]
    fn times_become_headings_about_a_minute_apart() {
        let document = read(
            r#"{"text": "", "segments": [
                {"start": 0.4, "text": " Welcome."}, {"start": 30, "text": " Goods go back"},
                {"start": 61.5, "text": " within thirty days."}, {"start": 3725, "text": " Goodbye."}]}"#,
        );

        assert_eq!(
            document.text,
            "0:00\n\nWelcome. Goods go back\n\n1:01\n\nwithin thirty days.\n\n1:02:05\n\nGoodbye."
        );
        assert_eq!(document.blocks[3].heading_path, ["1:01"]);
    }

    #[test]
    fn without_times_it_is_the_text_alone() {
        assert_eq!(read(r#"{"text": "One.\n\nTwo."}"#).text, "One.\n\nTwo.");
    }

    #[test]
    fn absurd_times_are_harmless() {
        let document = read(
            r#"{"text": "", "segments": [{"start": -5, "text": "A"}, {"start": 1e300, "text": "B"}, {"start": 0, "text": "C"}]}"#,
        );

        assert!(document.text.starts_with("0:00\n\nA\n\n"), "{}", document.text);
        assert!(document.text.ends_with("B C"), "{}", document.text);
    }
}
