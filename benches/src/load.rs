//! A number of clients that ask one after the other, each on its own connection, until enough was asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::client::Client;

/// What a run of requests took.
pub struct Load {
    /// In milliseconds, sorted.
    pub latencies_ms: Vec<f64>,
    /// Until the first token of each stream, in milliseconds, sorted; empty where nothing is streamed.
    pub first_tokens_ms: Vec<f64>,
    pub wall: Duration,
}

impl Load {
    pub fn per_second(&self) -> f64 {
        self.latencies_ms.len() as f64 / self.wall.as_secs_f64()
    }
}

/// What is sent and what counts as its success.
#[derive(Clone)]
pub struct Ask {
    /// Makes the request of this number.
    pub request: Arc<dyn Fn(usize) -> Vec<u8> + Send + Sync>,
    /// A text that every good answer holds.
    pub expected: &'static str,
    /// The first part that holds this is the first token.
    pub first_token: Option<&'static str>,
}

/// Sends `total` requests from `clients` connections at once.
pub async fn run(address: SocketAddr, clients: usize, total: usize, ask: &Ask) -> anyhow::Result<Load> {
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let workers: Vec<_> = (0..clients)
        .map(|_| tokio::spawn(work(address, next.clone(), total, ask.clone())))
        .collect();
    let mut load = Load {
        latencies_ms: Vec::with_capacity(total),
        first_tokens_ms: Vec::new(),
        wall: Duration::ZERO,
    };
    for worker in workers {
        let (latencies, first_tokens) = worker.await??;
        load.latencies_ms.extend(latencies);
        load.first_tokens_ms.extend(first_tokens);
    }
    load.wall = started.elapsed();
    load.latencies_ms.sort_by(f64::total_cmp);
    load.first_tokens_ms.sort_by(f64::total_cmp);
    Ok(load)
}

async fn work(
    address: SocketAddr,
    next: Arc<AtomicUsize>,
    total: usize,
    ask: Ask,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let mut client = Client::connect(address).await?;
    let (mut latencies, mut first_tokens) = (Vec::new(), Vec::new());
    let mut body = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= total {
            return Ok((latencies, first_tokens));
        }
        let request = (ask.request)(number);
        body.clear();
        let mut first_token = None;
        let started = Instant::now();
        let status = client
            .send_streaming(&request, |part, at| {
                body.extend_from_slice(part);
                if let (None, Some(mark)) = (first_token, ask.first_token)
                    && contains(&body, mark)
                {
                    first_token = Some(at);
                }
            })
            .await?;
        latencies.push(millis(started.elapsed()));
        first_tokens.extend(first_token.map(|at| millis(at - started)));
        if !(200..300).contains(&status) || !contains(&body, ask.expected) {
            bail!(
                "an answer with status {status} that is not as expected: {}",
                String::from_utf8_lossy(&body)
            );
        }
    }
}

fn contains(body: &[u8], mark: &str) -> bool {
    body.windows(mark.len()).any(|window| window == mark.as_bytes())
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// The value below which this share of the sorted values lies; 0 of none.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or_default()
}
