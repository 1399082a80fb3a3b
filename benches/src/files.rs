//! Large files: how fast PDF pages are read, and what the longest PDF and the largest table cost in memory, the process
//! that reads them included.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fixture_site::{Dice, paragraph, pdf};
use serde_json::Value;

use crate::Scale;
use crate::client::{Client, request, upload_request};
use crate::load::millis;
use crate::model::ScriptedModel;
use crate::report::{Report, say};
use crate::setup::{Embedding, Installation, Service};

/// Pages of each of the PDFs that are read side by side.
const SHORT_PAGES: usize = 25;

/// Between two looks at memory and at the document.
const LOOK: Duration = Duration::from_millis(50);

/// Longest wait for one document; what it came to until then is told.
const LIMIT: Duration = Duration::from_secs(300);

pub async fn measure(scale: &Scale, model: &ScriptedModel, report: &mut Report) -> anyhow::Result<()> {
    many_pdfs(scale, model, report).await?;
    let long = pdf_of(0, scale.pdf_pages)?;
    let name = format!("PDF of {} pages", scale.pdf_pages);
    one_file(&name, ("long.pdf".to_owned(), long), model, report).await?;
    let name = format!("CSV of {} MB", scale.csv_mb);
    one_file(
        &name,
        ("large.csv".to_owned(), table(scale.csv_mb)),
        model,
        report,
    )
    .await
}

/// PDFs of a few pages each, as many pages together as the long one has.
async fn many_pdfs(scale: &Scale, model: &ScriptedModel, report: &mut Report) -> anyhow::Result<()> {
    let service = service(model).await?;
    let count = (scale.pdf_pages / SHORT_PAGES).max(1);
    let files = (0..count)
        .map(|number| Ok((format!("sheet-{number}.pdf"), pdf_of(number + 1, SHORT_PAGES)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (started, before) = (Instant::now(), service.server.cpu());
    service.upload(&files).await?;
    service.wait_until_indexed().await?;
    let (took, cpu) = (started.elapsed(), service.server.cpu() - before);
    ensure!(service.chunks_of_newest().await? > 0, "no PDF was read");
    let pages = (count * SHORT_PAGES) as f64;
    report.figure(
        "PDF pages read, chunked and indexed, embedding off",
        pages / took.as_secs_f64(),
        "/s",
        None,
    );
    report.figure("CPU per PDF page", millis(cpu) / pages, "ms", None);
    service.stop().await
}

/// Uploads one file and watches memory until it is indexed or refused.
async fn one_file(
    name: &str,
    file: (String, String),
    model: &ScriptedModel,
    report: &mut Report,
) -> anyhow::Result<()> {
    let service = service(model).await?;
    let mut client = Client::connect(service.server.address).await?;
    let upload = upload_request(&service.chatbot_id, &service.api_key, &[file]);
    let before = service.memory().resident;
    let started = Instant::now();
    let sending = client.send(&upload);
    tokio::pin!(sending);
    let (mut while_sent, mut while_read) = (before, before);
    let answer = loop {
        tokio::select! {
            answer = &mut sending => break answer?,
            () = tokio::time::sleep(LOOK) => while_sent = service.memory().resident.max(while_sent),
        }
    };
    ensure!(
        answer.status == 202,
        "the upload was refused: {}",
        String::from_utf8_lossy(&answer.body)
    );
    let taken: Value = serde_json::from_slice(&answer.body)?;
    let id = taken["items"][0]["id"].as_str().context("no document")?;
    let path = format!("/api/documents/{id}");
    let mut looks = Client::connect(service.server.address).await?;
    let document = loop {
        while_read = service.memory().resident.max(while_read);
        let answer = looks
            .send(&request("GET", &path, &service.api_key, "application/json", b""))
            .await?;
        let document: Value = serde_json::from_slice(&answer.body)?;
        let is_under_way = matches!(document["state"].as_str(), Some("queued" | "processing"));
        if !is_under_way || started.elapsed() > LIMIT {
            break document;
        }
        tokio::time::sleep(LOOK).await;
    };
    report.figure(&format!("{name}: memory before"), before, "MiB", None);
    report.figure(
        &format!("{name}: memory, most, while it is received"),
        while_sent,
        "MiB",
        None,
    );
    report.figure(
        &format!("{name}: memory, most, while it is read, with the reading process"),
        while_read,
        "MiB",
        None,
    );
    report.figure(
        &format!("{name}: time until it is searchable, refused or given up"),
        started.elapsed().as_secs_f64(),
        "s",
        None,
    );
    report.figure(
        &format!("{name}: chunks"),
        document["chunks"].as_f64().unwrap_or_default(),
        "",
        None,
    );
    if document["state"] != "indexed" {
        say(&format!("  {name} was not indexed: {document}"));
    }
    service.stop().await
}

async fn service(model: &ScriptedModel) -> anyhow::Result<Service> {
    let installation = Installation::new(&Embedding::Off, model)?
        .on_all_cores()
        .set(["server.upload_limit_bytes=1000000000"]);
    Service::on(installation).await
}

fn pdf_of(number: usize, pages: usize) -> anyhow::Result<String> {
    let pages = (0..pages).map(|page| {
        let mut dice = Dice::new(&[number as u64, page as u64]);
        let heading = format!("Sheet {number}, page {page}");
        [
            heading,
            paragraph(&mut dice, 8),
            paragraph(&mut dice, 8),
            paragraph(&mut dice, 8),
        ]
    });
    // Its text is ASCII.
    Ok(String::from_utf8(pdf(pages))?)
}

/// A table of so many million bytes, and not more.
fn table(megabytes: usize) -> String {
    let size = megabytes * 1_000_000;
    let mut table = String::with_capacity(size);
    table.push_str("article,description,price,stock\n");
    let mut dice = Dice::new(&[5]);
    for number in 0.. {
        let row = format!(
            "HA-{number:07},\"{}\",{},{}\n",
            paragraph(&mut dice, 1),
            dice.below(90_000),
            dice.below(400)
        );
        if table.len() + row.len() > size {
            break;
        }
        table.push_str(&row);
    }
    table
}
