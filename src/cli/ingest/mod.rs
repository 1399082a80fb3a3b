//! `frontdesk ingest`: gives a chatbot websites, folders and files, and follows them until they are known.
//!
//! It talks to the running server through the routes that everyone uses; where none runs, it starts one in this process
//! for as long as it takes.

mod desk;
mod files;
mod progress;
mod walk;
mod websites;

use url::Url;

use self::desk::Desk;
use self::progress::Progress;
use super::args::IngestArgs;
use super::{Failure, print_line};
use crate::config::Config;

/// What went in, and what did not.
#[derive(Debug, Default)]
struct Report {
    /// Documents that are known now, or were before.
    known: usize,
    /// What was left out on purpose, each with the reason.
    skipped: Vec<String>,
    /// What went wrong, each with the reason.
    failed: Vec<String>,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.known += other.known;
        self.skipped.extend(other.skipped);
        self.failed.extend(other.failed);
    }
}

/// Reads all targets; fails when any of them could not be read.
pub(super) async fn ingest(config: Config, args: IngestArgs) -> Result<(), Failure> {
    let mut websites = Vec::new();
    let mut paths = Vec::new();
    for target in &args.targets {
        match read_url(target) {
            Some(url) => websites.push(url),
            None => paths.push(target.into()),
        }
    }
    // Before anything is sent: a mistyped path stops all of it.
    let found = walk::find_files(&paths)?;
    let desk = Desk::open(&config, &args).await?;
    let outcome = tokio::select! {
        outcome = ingest_all(&desk, &args, websites, found) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::Failed(
            "interrupted: what was sent stays, and the server goes on reading it".to_owned(),
        )),
    };
    desk.close().await;
    let report = outcome?;
    for line in &report.skipped {
        print_line(&format!("skipped  {line}"));
    }
    for line in &report.failed {
        print_line(&format!("failed   {line}"));
    }
    print_line(&format!(
        "{} known, {} skipped, {} failed",
        report.known,
        report.skipped.len(),
        report.failed.len()
    ));
    if report.failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::Failed(format!(
            "{} could not be read",
            report.failed.len()
        )))
    }
}

async fn ingest_all(
    desk: &Desk,
    args: &IngestArgs,
    websites: Vec<Url>,
    found: walk::Found,
) -> Result<Report, Failure> {
    let progress = Progress::start();
    let mut report = Report {
        skipped: found.skipped,
        ..Report::default()
    };
    if !found.files.is_empty() {
        report.add(files::upload(desk, args, found.files, &progress).await?);
    }
    for url in websites {
        report.add(websites::crawl(desk, args, &url, &progress).await?);
    }
    Ok(report)
}

fn read_url(target: &str) -> Option<Url> {
    let url = Url::parse(target).ok()?;
    matches!(url.scheme(), "http" | "https").then_some(url)
}
