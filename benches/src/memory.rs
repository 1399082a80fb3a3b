//! Memory at rest, after many chunks and for tenants that nobody asks, and the time from start to ready.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::Scale;
use crate::client::{Client, upload_request};
use crate::corpus;
use crate::load::{millis, percentile};
use crate::model::ScriptedModel;
use crate::report::{Report, Target};
use crate::setup::{Embedding, Installation, Service, create_chatbot};

/// After a start, until memory is looked at.
const REST: Duration = Duration::from_secs(2);

/// Chunks of one document of the memory measurement.
const LONG_CHUNKS: usize = 50;

/// Tenants that are made at once.
const MADE_AT_ONCE: usize = 4;

/// Time to ready and memory at rest, without a model, with remote embeddings and with the local model.
pub async fn at_start(
    scale: &Scale,
    model: &ScriptedModel,
    local_model: Option<&Path>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut cases = vec![
        ("without a model", Embedding::Off, 40.0),
        ("with remote embeddings", Embedding::Remote, 40.0),
    ];
    cases.extend(
        local_model.map(|folder| ("with the local model", Embedding::Local(folder.to_owned()), 200.0)),
    );
    for (name, embedding, most) in cases {
        let installation = Installation::new(&embedding, model)?;
        installation.create_tenant("bench").await?;
        let mut starts_ms = Vec::with_capacity(scale.starts);
        for start in 1..=scale.starts {
            let server = installation.start().await?;
            starts_ms.push(millis(server.started_in));
            if start == scale.starts {
                tokio::time::sleep(REST).await;
                let memory = server.memory();
                report.figure(
                    &format!("memory at rest, {name}"),
                    memory.resident,
                    "MiB",
                    Some(Target::AtMost(most)),
                );
                report.figure(
                    &format!("memory at rest, {name}, proportional"),
                    memory.proportional,
                    "MiB",
                    None,
                );
            }
            server.stop().await?;
        }
        starts_ms.sort_by(f64::total_cmp);
        report.figure(
            &format!("start to ready, {name}, p50"),
            percentile(&starts_ms, 0.5),
            "ms",
            Some(Target::AtMost(300.0)),
        );
    }
    Ok(())
}

/// Memory after many chunks were indexed, at once and after a start on them.
pub async fn after_chunks(scale: &Scale, model: &ScriptedModel, report: &mut Report) -> anyhow::Result<()> {
    let service = Service::empty(Embedding::Remote, model).await?;
    let files: Vec<(String, String)> = (0..scale.chunks / LONG_CHUNKS)
        .map(|number| corpus::long_document(number, LONG_CHUNKS))
        .collect();
    service.upload(&files).await?;
    service.wait_until_indexed().await?;
    let sample = service.chunks_of_newest().await? as f64 / files.len().min(100) as f64;
    report.figure(
        "chunks of the memory measurement",
        sample * files.len() as f64,
        "",
        None,
    );
    tokio::time::sleep(REST).await;
    let memory = service.memory();
    report.figure("memory after indexing these chunks", memory.resident, "MiB", None);
    report.figure(
        "memory after indexing these chunks, proportional",
        memory.proportional,
        "MiB",
        None,
    );
    let service = service.restart().await?;
    tokio::time::sleep(REST).await;
    report.figure(
        "memory after a start on these chunks",
        service.memory().resident,
        "MiB",
        None,
    );
    service.stop().await
}

/// Memory for each tenant that has a chatbot and a document, and that nobody asks.
pub async fn cold_tenants(scale: &Scale, model: &ScriptedModel, report: &mut Report) -> anyhow::Result<()> {
    // The first tenant's document makes the index, which others share.
    let service = Service::fed(Embedding::Remote, model, 1).await?.restart().await?;
    tokio::time::sleep(REST).await;
    let alone = service.memory();

    let installation = &service.installation;
    let keys: Vec<String> = stream::iter(0..scale.tenants)
        .map(|number| async move { installation.create_tenant(&format!("cold {number}")).await })
        .buffer_unordered(MADE_AT_ONCE)
        .try_collect()
        .await?;
    let mut client = Client::connect(service.server.address).await?;
    for (number, key) in keys.iter().enumerate() {
        let chatbot_id = create_chatbot(&mut client, key).await?;
        let answer = client
            .send(&upload_request(
                &chatbot_id,
                key,
                &[corpus::short_document(number)],
            ))
            .await?;
        ensure!(
            answer.status == 202,
            "an upload was refused: {}",
            String::from_utf8_lossy(&answer.body)
        );
    }
    drop(client);
    // The queue is seen through one tenant's eyes only, so the others' last jobs get a moment.
    service.wait_until_indexed().await?;
    tokio::time::sleep(REST).await;
    let service = service.restart().await?;
    tokio::time::sleep(REST).await;
    let each = (service.memory().resident - alone.resident) / scale.tenants as f64;
    report.figure("memory per cold tenant", each, "MiB", Some(Target::AtMost(0.1)));
    service.stop().await
}
