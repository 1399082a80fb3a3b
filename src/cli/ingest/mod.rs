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
            Some(url) => websites.push(url?),
            None => paths.push(target.into()),
        }
    }
    let narrows_websites = args.max_pages.is_some()
        || args.max_depth.is_some()
        || !args.include.is_empty()
        || !args.exclude.is_empty();
    if websites.is_empty() && narrows_websites {
        return Err(Failure::Usage(
            "--max-pages, --max-depth, --include and --exclude are about websites, and none is named"
                .to_owned(),
        ));
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
        print_line(&format!("skipped  {}", visible(line)));
    }
    for line in &report.failed {
        print_line(&format!("failed   {}", visible(line)));
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

/// The address that a target is; none when it is a path.
fn read_url(target: &str) -> Option<Result<Url, Failure>> {
    let url = Url::parse(target).ok()?;
    if matches!(url.scheme(), "http" | "https") {
        return Some(Ok(url));
    }
    let refusal = || {
        Failure::Usage(format!(
            "{}: only http and https addresses are read",
            visible(target)
        ))
    };
    target.contains("://").then(|| Err(refusal()))
}

/// Text from a folder or a website, which must not order a terminal about.
fn visible(text: &str) -> String {
    let shown = |character: char| {
        if character.is_control() {
            character.escape_default().collect::<String>()
        } else {
            character.to_string()
        }
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_a_path_or_a_mistake() {
        assert!(matches!(read_url("https://example.com/"), Some(Ok(_))));
        assert!(read_url("guides/a.md").is_none());
        assert!(read_url("C:").is_none());
        assert!(matches!(
            read_url("ftp://example.com/"),
            Some(Err(Failure::Usage(_)))
        ));
    }

    #[test]
    fn what_is_shown_orders_no_terminal_about() {
        assert_eq!(visible("a\u{1b}[2J\nb \u{e4}"), "a\\u{1b}[2J\\nb \u{e4}");
    }
}
