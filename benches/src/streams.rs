//! Five hundred live streams at once, each at 50 tokens a second: whether all come to their end, and how late the
//! tokens are. Each token is the time at which the model sent it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, json_request};
use crate::corpus;
use crate::load::{millis, percentile};
use crate::model::ScriptedModel;
use crate::report::{Report, Target};
use crate::setup::Service;

const STREAMS: usize = 500;

/// 50 tokens a second.
const PAUSE: Duration = Duration::from_millis(20);

/// The streams begin spread over this time, as visitors come.
const ARRIVALS: Duration = Duration::from_secs(1);

pub async fn measure(
    service: &Service,
    tokens: usize,
    model: &ScriptedModel,
    report: &mut Report,
) -> anyhow::Result<()> {
    model.pause(PAUSE, tokens);
    let before = service.server.cpu();
    let started = Instant::now();
    let complete = Arc::new(AtomicUsize::new(0));
    let watchers: Vec<_> = (0..STREAMS)
        .map(|number| {
            tokio::spawn(watch(
                number,
                tokens,
                service.server.address,
                request(service, number),
                model.clone(),
                complete.clone(),
            ))
        })
        .collect();
    let mut lags_ms = Vec::with_capacity(STREAMS * tokens);
    for watcher in watchers {
        // One that broke is missing among the complete ones.
        lags_ms.extend(watcher.await?.unwrap_or_default());
    }
    let (wall, cpu) = (started.elapsed(), service.server.cpu() - before);
    model.unpause();
    lags_ms.sort_by(f64::total_cmp);
    report.figure(
        "live streams at 50 tokens/s that came to their end",
        complete.load(Ordering::Relaxed) as f64,
        "of 500",
        Some(Target::AtLeast(500.0)),
    );
    report.figure(
        "lag of a token in 500 live streams, p50",
        percentile(&lags_ms, 0.5),
        "ms",
        None,
    );
    report.figure(
        "lag of a token in 500 live streams, p99",
        percentile(&lags_ms, 0.99),
        "ms",
        None,
    );
    report.figure(
        "lag of a token in 500 live streams, most",
        percentile(&lags_ms, 1.0),
        "ms",
        None,
    );
    report.figure(
        "share of the server's core in 500 live streams",
        100.0 * cpu.as_secs_f64() / wall.as_secs_f64(),
        "%",
        None,
    );
    Ok(())
}

fn request(service: &Service, number: usize) -> Vec<u8> {
    let message = corpus::question(number % service.documents);
    json_request(
        "/api/chat/message",
        &service.api_key,
        &json!({ "chatbot_id": service.chatbot_id, "message": message, "stream": true }),
    )
}

/// Reads one stream; returns by how many milliseconds each of its tokens was late.
async fn watch(
    number: usize,
    tokens: usize,
    address: std::net::SocketAddr,
    request: Vec<u8>,
    model: ScriptedModel,
    complete: Arc<AtomicUsize>,
) -> anyhow::Result<Vec<f64>> {
    tokio::time::sleep(ARRIVALS.mul_f64(number as f64 / STREAMS as f64)).await;
    let mut client = Client::connect(address).await?;
    let mut lags_ms = Vec::with_capacity(tokens);
    let mut has_ended = false;
    client
        .send_streaming(&request, |part, _| {
            let now = model.clock_us();
            let text = String::from_utf8_lossy(part);
            for event in text.split("\n\n") {
                if let Some(sent) = event
                    .strip_prefix("event: delta\ndata: {\"text\":\"")
                    .and_then(sent_at)
                {
                    lags_ms.push(millis(Duration::from_micros(now.saturating_sub(sent))));
                }
                has_ended |= event.starts_with("event: message.end");
            }
        })
        .await?;
    if has_ended && lags_ms.len() >= tokens {
        complete.fetch_add(1, Ordering::Relaxed);
    }
    Ok(lags_ms)
}

/// The time that a token names, in microseconds of the model's clock.
fn sent_at(text: &str) -> Option<u64> {
    text.split(|character: char| !character.is_ascii_digit())
        .find(|digits| !digits.is_empty())?
        .parse()
        .ok()
}
