//! A website of thousands of pages on this machine: how fast it is read, cut and searchable, what it costs, and what a
//! second look at it costs.
//!
//! The server has all cores here, and shares them with the site.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fixture_site::{Options, Site};
use serde_json::{Value, json};

use crate::Scale;
use crate::client::{Client, json_request, request};
use crate::load::millis;
use crate::model::ScriptedModel;
use crate::report::{Report, Target};
use crate::setup::{Embedding, Installation, Service};

/// Between two looks at the run.
const LOOK: Duration = Duration::from_millis(100);

/// The kernel walks all pages of a process to say how much memory it has: that is asked for with every so many looks only,
/// since the server shares its cores with us.
const LOOKS_PER_MEMORY: usize = 5;

/// Longest wait for a run.
const LIMIT: Duration = Duration::from_secs(900);

/// Requests to the site at once. It is our own, and does not mind.
const AT_ONCE: usize = 32;

/// Pages of the crawl whose chunks are embedded, in share of the other one's.
const EMBEDDED_SHARE: usize = 5;

/// What a run came to.
struct Crawl {
    run: Value,
    took: Duration,
    /// Until everything was read, and only indexing was left.
    read_in: Duration,
    cpu: Duration,
    /// Most memory of the server and its children, in MiB.
    memory: f64,
    peak_requests: usize,
    requests: usize,
    not_modified: usize,
}

/// The crawl without and with embeddings, and the second look.
pub async fn measure(scale: &Scale, model: &ScriptedModel, report: &mut Report) -> anyhow::Result<()> {
    let site = site(scale.crawled).await?;
    let service = service(Embedding::Off, &site, model).await?;
    let (source, first) = crawl(&service, &site).await?;
    let pages = first.count("new")?;
    report.figure("pages of the crawl", pages, "", None);
    report.figure(
        "pages crawled, extracted and chunked, searchable by words",
        pages / first.took.as_secs_f64(),
        "/s",
        Some(Target::AtLeast(500.0)),
    );
    report.figure(
        "pages fetched, extracted and stored, indexing aside",
        pages / first.read_in.as_secs_f64(),
        "/s",
        None,
    );
    report.figure("CPU per page crawled", millis(first.cpu) / pages, "ms", None);
    report.figure("memory, most, during the crawl", first.memory, "MiB", None);
    report.figure("requests at once, most", first.peak_requests as f64, "", None);

    let again = crawl_again(&service, &site, &source).await?;
    ensure!(
        again.count("unchanged")? == pages,
        "an unchanged site changed: {}",
        again.run
    );
    report.figure(
        "second crawl, of its first one's time",
        100.0 * again.took.as_secs_f64() / first.took.as_secs_f64(),
        "%",
        Some(Target::AtMost(25.0)),
    );
    report.figure(
        "second crawl, fetches that end 304",
        100.0 * again.not_modified as f64 / again.requests as f64,
        "%",
        Some(Target::AtLeast(95.0)),
    );
    report.figure(
        "second crawl, CPU per page",
        millis(again.cpu) / pages,
        "ms",
        None,
    );
    service.stop().await?;
    with_embeddings(scale, model, report).await
}

/// The embedding endpoint is scripted: what is measured is all of the way there and back.
async fn with_embeddings(scale: &Scale, model: &ScriptedModel, report: &mut Report) -> anyhow::Result<()> {
    let site = site(scale.crawled / EMBEDDED_SHARE).await?;
    let service = service(Embedding::Remote, &site, model).await?;
    let (source, crawl) = crawl(&service, &site).await?;
    let pages = crawl.count("new")?;
    let sample = service.chunks_of_newest().await? as f64 / 100.0;
    report.figure("chunks of a page", sample, "", None);
    report.figure(
        "chunks of crawled pages embedded remotely and indexed",
        sample * pages / crawl.took.as_secs_f64(),
        "/s",
        None,
    );
    report.figure(
        "embedding calls of the crawl",
        crawl.count("embedding_calls")?,
        "",
        None,
    );
    let again = crawl_again(&service, &site, &source).await?;
    report.figure(
        "embedding calls of the second crawl",
        again.count("embedding_calls")?,
        "",
        Some(Target::AtMost(0.0)),
    );
    service.stop().await
}

async fn site(pages: usize) -> anyhow::Result<Site> {
    let options = Options {
        pages,
        slow: Duration::ZERO,
        ..Options::default()
    };
    Ok(Site::start(options).await?)
}

async fn service(embedding: Embedding, site: &Site, model: &ScriptedModel) -> anyhow::Result<Service> {
    let installation = Installation::new(&embedding, model)?.on_all_cores().set([
        // The endpoint of the model is the operator's and needs no leave.
        format!("outbound.allow={}", site.address),
        format!("crawl.per_host_concurrency={AT_ONCE}"),
        "crawl.max_pages=100000".to_owned(),
    ]);
    Service::on(installation).await
}

/// Crawls the site for the first time; the id of the source, and how it went.
async fn crawl(service: &Service, site: &Site) -> anyhow::Result<(String, Crawl)> {
    let body = json!({ "chatbot_id": service.chatbot_id, "url": site.url("/"), "max_pages": 100_000 });
    let (begun, crawl) = follow(service, site, "/api/chatbots/crawl", &body).await?;
    let source = begun["source"]["id"].as_str().context("no source was made")?;
    Ok((source.to_owned(), crawl))
}

async fn crawl_again(service: &Service, site: &Site, source: &str) -> anyhow::Result<Crawl> {
    let path = format!("/api/sources/{source}/sync");
    Ok(follow(service, site, &path, &json!({})).await?.1)
}

/// Starts a run and watches it to its end.
async fn follow(service: &Service, site: &Site, path: &str, body: &Value) -> anyhow::Result<(Value, Crawl)> {
    site.take_counts();
    let mut client = Client::connect(service.server.address).await?;
    let (started, before) = (Instant::now(), service.server.cpu());
    let answer = client.send(&json_request(path, &service.api_key, body)).await?;
    let begun: Value = serde_json::from_slice(&answer.body)?;
    ensure!(answer.status == 202, "the run did not begin: {begun}");
    let run = if begun["run"].is_object() {
        &begun["run"]
    } else {
        &begun
    };
    let (source, id) = (
        run["source_id"].as_str().context("a run has a source")?,
        run["id"].as_str().context("a run has an id")?,
    );
    let path = format!("/api/sources/{source}/runs/{id}");
    let (mut memory, mut read_in) = (0.0_f64, None);
    for look in 1.. {
        tokio::time::sleep(LOOK).await;
        let answer = client
            .send(&request("GET", &path, &service.api_key, "application/json", b""))
            .await?;
        let run: Value = serde_json::from_slice(&answer.body)?;
        let took = started.elapsed();
        if look % LOOKS_PER_MEMORY == 0 {
            memory = memory.max(service.memory().resident);
        }
        let is_reading = matches!(run["phase"].as_str(), Some("listing" | "reading"));
        if !is_reading && read_in.is_none() {
            read_in = Some(took);
        }
        if run["state"] != "running" {
            let counts = site.take_counts();
            let crawl = Crawl {
                took,
                read_in: read_in.unwrap_or(took),
                cpu: service.server.cpu() - before,
                memory,
                peak_requests: counts.at_once,
                requests: counts.requests,
                not_modified: counts.not_modified,
                run,
            };
            return Ok((begun, crawl));
        }
        ensure!(took < LIMIT, "the run does not end: {run}");
    }
    unreachable!("the looks have no end")
}

impl Crawl {
    fn count(&self, name: &str) -> anyhow::Result<f64> {
        self.run[name]
            .as_f64()
            .with_context(|| format!("a run has no {name}: {}", self.run))
    }
}
