//! What listening costs: who is asked before a recording is sent, and what the server says it took.

use std::future::Future;
use std::pin::Pin;

use serde::Deserialize;
use serde_json::Value;

use crate::ExtractError;

/// Bytes of a second of speech that is packed as tightly as programs do by default: 32 kbit/s. What is packed less
/// tightly is shorter than it is taken for.
const BYTES_PER_SECOND: u64 = 4_000;

/// A week. Whoever says that a recording is longer is wrong.
const MAX_SECONDS: f64 = 604_800.0;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who pays for the transcription of a document's recordings. They are sent one after the other.
pub trait Account: Send + Sync {
    /// Sets aside what listening to a recording of about `seconds` may cost. After an error, which becomes that of the
    /// document, it is not sent.
    fn reserve<'a>(&'a self, model: &'a str, seconds: u64) -> BoxFuture<'a, Result<(), ExtractError>>;

    /// Pays for what was heard, and gives the rest of what was set aside back; all of it where nothing was heard.
    fn settle<'a>(&'a self, model: &'a str, heard: Option<Heard>) -> BoxFuture<'a, Result<(), ExtractError>>;
}

/// For recordings that nobody has to pay for.
#[derive(Debug, Clone, Copy)]
pub struct FreeOfCharge;

impl Account for FreeOfCharge {
    fn reserve<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<(), ExtractError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn settle<'a>(&'a self, _: &'a str, _: Option<Heard>) -> BoxFuture<'a, Result<(), ExtractError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What the server took for one recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Length of the recording in seconds, rounded up.
    pub seconds: u64,
    /// Tokens read and written, where the server counts them.
    pub tokens: Option<(u64, u64)>,
    /// Whether the server said so; otherwise it is told from the size.
    pub reported: bool,
}

impl Heard {
    /// By what the server said, where it said something.
    pub(super) fn of(bytes: u64, said: &Said) -> Self {
        let tokens = said.usage.input_tokens.zip(said.usage.output_tokens);
        let last_word = said.segments_end;
        let seconds = [said.usage.seconds, read_seconds(&said.duration), last_word]
            .into_iter()
            .flatten()
            .find(|seconds| seconds.is_finite() && *seconds > 0.0);
        Self {
            seconds: seconds.map_or_else(
                || estimate_seconds(bytes),
                |seconds| seconds.min(MAX_SECONDS).ceil() as u64,
            ),
            tokens,
            reported: tokens.is_some() || seconds.is_some(),
        }
    }
}

/// What a server says of a call besides the text. Versions of the API differ in all of it.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) usage: ServerUsage,
    pub(super) duration: Value,
    /// When the last segment ends.
    pub(super) segments_end: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServerUsage {
    seconds: Option<f64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

impl ServerUsage {
    /// Of a form that we do not know, nothing is said.
    pub(super) fn read(value: Value) -> Self {
        serde_json::from_value(value).unwrap_or_default()
    }
}

/// How long a recording of so many bytes lasts at most, for all that is usual.
pub(super) fn estimate_seconds(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_SECOND)
}

/// A number, or as some servers have it, the text of one.
fn read_seconds(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn heard(usage: Value, duration: Value, segments_end: Option<f64>) -> Heard {
        let said = Said {
            usage: ServerUsage::read(usage),
            duration,
            segments_end,
        };
        Heard::of(9_000, &said)
    }

    #[test]
    fn the_servers_own_count_goes_before_ours() {
        for (usage, duration, end, seconds, reported) in [
            (
                json!({"type": "duration", "seconds": 12}),
                json!(30.0),
                None,
                12,
                true,
            ),
            (Value::Null, json!(30.2), Some(29.0), 31, true),
            (Value::Null, json!("30.2"), None, 31, true),
            (Value::Null, Value::Null, Some(29.0), 29, true),
            (Value::Null, Value::Null, None, 3, false),
            (json!("?"), json!(-4), None, 3, false),
            (json!({"seconds": 1e300}), Value::Null, None, 604_800, true),
        ] {
            let heard = heard(usage.clone(), duration, end);
            assert_eq!((heard.seconds, heard.reported), (seconds, reported), "{usage}");
            assert_eq!(heard.tokens, None);
        }
    }

    #[test]
    fn tokens_count_where_the_server_counts_them() {
        let heard = heard(
            json!({"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}),
            Value::Null,
            None,
        );

        assert_eq!(heard.tokens, Some((14, 45)));
        assert!(heard.reported);
    }
}
