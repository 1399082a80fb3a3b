//! Websites: read by the server, and followed until the run over them has ended.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use super::Report;
use super::desk::{Desk, Refusal};
use super::progress::{Progress, Step};
use crate::cli::Failure;
use crate::cli::args::IngestArgs;
use crate::cli::events::EventReader;

/// A stream that broke off is opened again, at most this often in a row without news.
const MAX_REOPENED: u32 = 20;
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Has the server read a website and waits for the end of the run.
pub(super) async fn crawl(
    desk: &Desk,
    args: &IngestArgs,
    url: &Url,
    progress: &Progress,
) -> Result<Report, Failure> {
    let mut body = json!({ "chatbot_id": args.chatbot, "url": url.as_str() });
    for (field, value) in [
        ("max_pages", args.max_pages.map(|value| json!(value))),
        ("max_depth", args.max_depth.map(|value| json!(value))),
        ("include", (!args.include.is_empty()).then(|| json!(args.include))),
        ("exclude", (!args.exclude.is_empty()).then(|| json!(args.exclude))),
    ] {
        if let Some(value) = value {
            body[field] = value;
        }
    }
    let asked = desk
        .json(desk.request(Method::POST, "api/chatbots/crawl").json(&body))
        .await;
    let begun = match asked {
        Ok(begun) => begun,
        Err(Refusal::Refused { status, detail }) if status.as_u16() == 422 => {
            let mut report = Report::default();
            report.failed.push(format!("{url}: {detail}"));
            return Ok(report);
        }
        Err(refusal) => return Err(refusal.into()),
    };
    if args.no_wait {
        return Ok(Report::default());
    }
    let (Some(source), Some(run)) = (begun["source"]["id"].as_str(), begun["run"]["id"].as_str()) else {
        return Err(Failure::Failed("the server's answer cannot be read".to_owned()));
    };
    let step = progress.step(url.as_str(), None);
    let ended = follow(desk, source, run, &step).await?;
    drop(step);
    Ok(report_of(url, &ended))
}

/// Follows a run's events to its end; the run as it ended.
async fn follow(desk: &Desk, source: &str, run: &str, step: &Step<'_>) -> Result<Value, Failure> {
    let path = format!("api/sources/{source}/events");
    let mut reopened = 0;
    loop {
        let opened = desk.send(desk.request(Method::GET, &path)).await;
        let mut pieces = match opened {
            Ok(response) => response.bytes_stream().boxed(),
            Err(refusal @ Refusal::Refused { .. }) => return Err(refusal.into()),
            Err(Refusal::Broken(failure)) if reopened >= MAX_REOPENED => return Err(failure),
            Err(Refusal::Broken(_)) => futures::stream::empty().boxed(),
        };
        let mut reader = EventReader::default();
        while let Some(Ok(piece)) = pieces.next().await {
            for (name, data) in reader.feed(&piece) {
                let data: Value = serde_json::from_str(&data).unwrap_or_default();
                match name.as_str() {
                    "run" if data["id"] == run => {
                        reopened = 0;
                        if !data["ended_at"].is_null() {
                            return Ok(data);
                        }
                        show(step, &data);
                    }
                    "run" => {
                        // A later one: ours has ended.
                        let path = format!("api/sources/{source}/runs/{run}");
                        return Ok(desk.json(desk.request(Method::GET, &path)).await?);
                    }
                    "error" => {
                        return Err(Failure::Failed(
                            data["detail"]
                                .as_str()
                                .unwrap_or("the server ended the stream")
                                .to_owned(),
                        ));
                    }
                    _ => {}
                }
            }
        }
        reopened += 1;
        if reopened > MAX_REOPENED {
            return Err(Failure::Failed(
                "the server's stream of events breaks off again and again; the run goes on".to_owned(),
            ));
        }
        tokio::time::sleep(REOPEN_AFTER).await;
    }
}

fn count(run: &Value, name: &str) -> usize {
    run[name]
        .as_u64()
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or_default()
}

fn show(step: &Step<'_>, run: &Value) {
    let counts = ["new", "changed", "unchanged", "failed"].map(|name| count(run, name));
    let [new, changed, unchanged, failed] = counts;
    let phase = run["phase"].as_str().unwrap_or_default();
    step.show(
        counts.iter().sum(),
        &format!("{phase}: {new} new, {changed} changed, {unchanged} unchanged, {failed} failed"),
    );
}

fn report_of(url: &Url, run: &Value) -> Report {
    let mut report = Report {
        known: count(run, "new") + count(run, "changed") + count(run, "unchanged"),
        ..Report::default()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for failure in run["failures"].as_array().into_iter().flatten() {
        report.failed.push(format!(
            "{}: {}",
            text(&failure["url"]),
            text(&failure["message"])
        ));
    }
    for note in run["notes"].as_array().into_iter().flatten() {
        report.skipped.push(format!("{url}: {}", text(&note["message"])));
    }
    let more = count(run, "failed").saturating_sub(report.failed.len());
    if more > 0 {
        report
            .failed
            .push(format!("{url}: {more} more, which the run's failures list"));
    }
    match run["state"].as_str() {
        Some("failed") => report
            .failed
            .push(format!("{url}: {}", text(&run["error"]["message"]))),
        Some("aborted") => report.failed.push(format!("{url}: the run was cancelled")),
        _ => {}
    }
    report
}
