//! Taking documents in: how many are durably accepted in a second, one by one and in batches, how many are found by a
//! search after that, and how fast the local model embeds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Scale;
use crate::client::upload_request;
use crate::corpus;
use crate::load::{self, Ask, percentile};
use crate::model::ScriptedModel;
use crate::report::{Report, Target};
use crate::setup::{Embedding, Service};

/// Clients that upload at once.
const CLIENTS: usize = 16;

/// Files of one batch.
const BATCH: usize = 100;

/// Chunks of a document that the local model embeds.
const LONG_CHUNKS: usize = 10;

/// Short documents with remote embeddings. They are accepted once their rows, files and jobs are committed.
pub async fn measure(scale: &Scale, model: &ScriptedModel, report: &mut Report) -> anyhow::Result<()> {
    for (files, target) in [(1, 500.0), (BATCH, 2_500.0)] {
        let manner = if files == 1 {
            "one by one"
        } else {
            "in batches of 100"
        };
        let service = Service::empty(Embedding::Remote, model).await?;
        let requests = scale.ingested / files;
        let (api_key, chatbot_id) = (service.api_key.clone(), service.chatbot_id.clone());
        let request = move |number: usize| {
            let files: Vec<(String, String)> = (number * files..(number + 1) * files)
                .map(corpus::short_document)
                .collect();
            upload_request(&chatbot_id, &api_key, &files)
        };
        let ask = Ask {
            request: Arc::new(request),
            expected: "\"queued\"",
            first_token: None,
        };
        let before = service.server.cpu();
        let started = Instant::now();
        let load = load::run(service.server.address, CLIENTS.min(requests), requests, &ask).await?;
        let documents = requests * files;
        report.figure(
            &format!("short documents accepted, {manner}"),
            load.per_second() * files as f64,
            "/s",
            Some(Target::AtLeast(target)),
        );
        report.figure(
            &format!("an upload, {manner}, p99"),
            percentile(&load.latencies_ms, 0.99),
            "ms",
            None,
        );
        service.wait_until_indexed().await?;
        let (indexed_in, cpu) = (started.elapsed(), service.server.cpu() - before);
        report.figure(
            &format!("short documents indexed, {manner}"),
            documents as f64 / indexed_in.as_secs_f64(),
            "/s",
            None,
        );
        report.figure(
            &format!("CPU per document, accepted and indexed, {manner}"),
            load::millis(cpu) / documents as f64,
            "ms",
            None,
        );
        service.stop().await?;
    }
    Ok(())
}

/// Chunks of longer documents a second through the local model, all of ingest included.
pub async fn embedding_speed(service: &Service, documents: usize, report: &mut Report) -> anyhow::Result<()> {
    let files: Vec<(String, String)> = (0..documents / LONG_CHUNKS)
        .map(|number| corpus::long_document(number, LONG_CHUNKS))
        .collect();
    let before = service.server.cpu();
    let started = Instant::now();
    service.upload(&files).await?;
    service.wait_until_indexed().await?;
    let took: Duration = started.elapsed();
    let cpu = service.server.cpu() - before;
    let chunks = service.chunks_of_newest().await? as f64;
    report.figure(
        "chunks embedded and indexed by the local model",
        chunks / took.as_secs_f64(),
        "/s",
        None,
    );
    report.figure(
        "CPU per chunk embedded by the local model",
        load::millis(cpu) / chunks,
        "ms",
        None,
    );
    Ok(())
}
