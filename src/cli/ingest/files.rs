//! Files: sent in batches, then followed until the chatbot knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ingest::{ExtractError, Format};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::Value;

use super::Report;
use super::desk::{Desk, Refusal};
use super::progress::Progress;
use super::walk::FoundFile;
use crate::cli::Failure;
use crate::cli::args::IngestArgs;

/// Files in one request, and their bytes together: a larger file goes alone.
const FILES_AT_ONCE: usize = 20;
const BYTES_AT_ONCE: u64 = 16 * 1024 * 1024;

/// How often the server is asked how far it is.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A file whose type the server can read.
struct Readable {
    name: String,
    bytes: Vec<u8>,
    /// See [`FoundFile::is_named`].
    is_named: bool,
}

/// Sends all files and waits until they are indexed, or failed.
pub(super) async fn upload(
    desk: &Desk,
    args: &IngestArgs,
    files: Vec<FoundFile>,
    progress: &Progress,
) -> Result<Report, Failure> {
    let mut report = Report::default();
    // By id, as the server shows them.
    let mut sent: BTreeMap<String, Value> = BTreeMap::new();
    {
        let step = progress.step("sending", Some(files.len()));
        let mut done = 0;
        let mut batch: Vec<Readable> = Vec::new();
        for file in files {
            let is_full = batch.len() >= FILES_AT_ONCE
                || batch.iter().map(|file| file.bytes.len() as u64).sum::<u64>() + file.size_bytes
                    > BYTES_AT_ONCE;
            if is_full {
                done += batch.len();
                send(desk, args, std::mem::take(&mut batch), &mut sent, &mut report).await?;
            }
            step.show(done, &file.name);
            match read(&file).await {
                Ok((bytes, format)) => {
                    let readable = Readable {
                        name: file.name,
                        bytes,
                        is_named: file.is_named,
                    };
                    if format.is_some_and(Format::is_media) {
                        // Only the server knows whether somebody reads these for it.
                        done += 1;
                        send_alone(desk, args, readable, &mut sent, &mut report).await?;
                    } else {
                        batch.push(readable);
                    }
                }
                Err(Unread::Unsupported(reason)) if !file.is_named => {
                    done += 1;
                    report.skipped.push(format!("{}: {reason}", file.path.display()));
                }
                Err(Unread::Unsupported(reason) | Unread::Broken(reason)) => {
                    done += 1;
                    report.failed.push(format!("{}: {reason}", file.path.display()));
                }
            }
        }
        send(desk, args, batch, &mut sent, &mut report).await?;
    }
    if args.no_wait {
        report.known += sent.len();
        return Ok(report);
    }
    follow(desk, sent, progress, &mut report).await?;
    Ok(report)
}

/// Why a file is not sent.
enum Unread {
    /// Nobody can read it: an image, an archive, an empty file.
    Unsupported(String),
    Broken(String),
}

/// The file's bytes, and what they are, if that can be told here.
async fn read(file: &FoundFile) -> Result<(Vec<u8>, Option<Format>), Unread> {
    let bytes = tokio::fs::read(&file.path)
        .await
        .map_err(|error| Unread::Broken(error.to_string()))?;
    match Format::detect(&bytes, &file.name) {
        Err(error @ (ExtractError::UnsupportedType { .. } | ExtractError::EmptyFile)) => {
            Err(Unread::Unsupported(error.to_string()))
        }
        // What else is wrong with it, the server tells.
        format => Ok((bytes, format.ok())),
    }
}

/// Sends one batch. Where the server refuses it, each file goes alone, so that one does not hold up the others.
async fn send(
    desk: &Desk,
    args: &IngestArgs,
    batch: Vec<Readable>,
    sent: &mut BTreeMap<String, Value>,
    report: &mut Report,
) -> Result<(), Failure> {
    if batch.is_empty() {
        return Ok(());
    }
    match post(desk, args, &batch).await {
        Ok(documents) => {
            sent.extend(documents);
            return Ok(());
        }
        Err(refusal) if !concerns_a_file(&refusal) => return Err(refusal.into()),
        Err(_) => {}
    }
    for file in batch {
        send_alone(desk, args, file, sent, report).await?;
    }
    Ok(())
}

async fn send_alone(
    desk: &Desk,
    args: &IngestArgs,
    file: Readable,
    sent: &mut BTreeMap<String, Value>,
    report: &mut Report,
) -> Result<(), Failure> {
    let (name, is_named) = (file.name.clone(), file.is_named);
    match post(desk, args, &[file]).await {
        Ok(documents) => sent.extend(documents),
        Err(refusal) if is_unsupported(&refusal) && !is_named => {
            report.skipped.push(format!("{name}: {}", Failure::from(refusal)));
        }
        Err(refusal) if concerns_a_file(&refusal) => {
            report.failed.push(format!("{name}: {}", Failure::from(refusal)));
        }
        Err(refusal) => return Err(refusal.into()),
    }
    Ok(())
}

/// Whether another file may fare better.
fn concerns_a_file(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Refused { status, .. } if matches!(status.as_u16(), 400 | 413 | 415 | 422))
}

fn is_unsupported(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Refused { status, .. } if status.as_u16() == 415)
}

async fn post(
    desk: &Desk,
    args: &IngestArgs,
    batch: &[Readable],
) -> Result<BTreeMap<String, Value>, Refusal> {
    let mut form = Form::new();
    for file in batch {
        form = form.part(
            "file",
            Part::bytes(file.bytes.clone()).file_name(file.name.clone()),
        );
    }
    let path = format!("api/chatbots/{}/documents", args.chatbot);
    let mut answer = desk
        .json(desk.request(Method::POST, &path).multipart(form))
        .await?;
    let documents = answer["items"]
        .as_array_mut()
        .map(std::mem::take)
        .unwrap_or_default();
    Ok(documents
        .into_iter()
        .filter_map(|document| Some((document["id"].as_str()?.to_owned(), document)))
        .collect())
}

/// Waits until nothing that was sent is queued or processed any more.
async fn follow(
    desk: &Desk,
    sent: BTreeMap<String, Value>,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), Failure> {
    let Some(source) = sent
        .values()
        .find_map(|document| document["source_id"].as_str().map(str::to_owned))
    else {
        return Ok(());
    };
    let step = progress.step("indexing", Some(sent.len()));
    loop {
        let mut waiting = BTreeSet::new();
        for state in ["queued", "processing"] {
            waiting.extend(list(desk, &source, state).await?.into_keys());
        }
        let waiting = sent.keys().filter(|id| waiting.contains(*id)).count();
        step.show(sent.len() - waiting, "");
        if waiting == 0 {
            break;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    drop(step);
    let failed = list(desk, &source, "failed").await?;
    for (id, document) in sent {
        match failed.get(&id) {
            Some(failed) => report.failed.push(format!(
                "{}: {}",
                document["file_name"].as_str().unwrap_or_default(),
                failed["error"]["message"]
                    .as_str()
                    .unwrap_or("it could not be read")
            )),
            None => report.known += 1,
        }
    }
    Ok(())
}

/// All documents of a source in one state, by id.
async fn list(desk: &Desk, source: &str, state: &str) -> Result<BTreeMap<String, Value>, Failure> {
    let mut documents = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let path = format!("api/sources/{source}/documents?state={state}&limit=100{cursor}");
        let mut page = desk.json(desk.request(Method::GET, &path)).await?;
        let items = page["items"]
            .as_array_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        documents.extend(
            items
                .into_iter()
                .filter_map(|document| Some((document["id"].as_str()?.to_owned(), document))),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(documents),
        }
    }
}
