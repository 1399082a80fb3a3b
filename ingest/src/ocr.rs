//! Text recognition for scanned pages and pictures, through a program on this machine that reads an image from its input
//! and writes text to its output, as `tesseract stdin stdout` does.
//!
//! The images of pages were unpacked by an extractor process; the program gets them through a pipe, with limits on its
//! time, memory and output. A page that it cannot read stays a scanned page: recognition never makes a paged document
//! fail. What was recognised is remembered for a while, so that a document whose indexing is interrupted goes on where
//! it was, and its time is counted once.

pub(crate) mod progress;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use self::progress::{Attempt, Memory};
use crate::document::DocumentBuilder;
use crate::extract::Scans;
use crate::{BlockKind, ExtractError, ExtractedDocument, Limits};

/// Pages of one document that are recognised; the rest stay scanned pages.
const MAX_PAGES: usize = 500;

/// Text of one image. A page of print has six thousand characters.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Address space of the program, which holds its language models and the unpacked image.
const MEMORY_BYTES: u64 = 2 << 30;

/// Pixels of a picture: 4,096 by 4,096, in any shape.
const MAX_PIXELS: usize = 4_096 * 4_096;

/// Where the program is looked for if its name has no folder.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How scanned pages and pictures are read.
#[derive(Debug, Clone)]
pub struct OcrOptions {
    /// `tesseract`, or another program that takes its arguments.
    pub program: PathBuf,
    /// Names of its language models, such as `eng` or `deu`.
    pub languages: Vec<String>,
    /// For one image.
    pub timeout: Duration,
    /// For all scanned pages of one document; those beyond stay scanned pages.
    pub document_timeout: Duration,
}

/// The configured program, and what it has read lately.
#[derive(Debug)]
pub(crate) struct Ocr {
    options: OcrOptions,
    memory: Memory,
}

impl Ocr {
    pub(crate) fn new(options: OcrOptions) -> Self {
        Self {
            options,
            memory: Memory::default(),
        }
    }

    /// Adds the text of scanned pages to what was read of the document `key`. `scans` gives the next of them after a
    /// page.
    pub(crate) async fn complete<F, S>(
        &self,
        key: String,
        reply: Result<ExtractedDocument, ExtractError>,
        limits: &Limits,
        scans: F,
    ) -> Result<ExtractedDocument, ExtractError>
    where
        F: Fn(u32) -> S,
        S: Future<Output = Result<Scans, ExtractError>>,
    {
        let is_scanned = match &reply {
            Ok(document) => !document.scanned_pages.is_empty(),
            Err(error) => matches!(error, ExtractError::NoText { scanned: true }),
        };
        if !is_scanned {
            return reply;
        }
        let mut attempt = Attempt::resume(&self.memory, key);
        let left = self
            .options
            .document_timeout
            .saturating_sub(attempt.progress.spent);
        if !left.is_zero() {
            // What was read by then counts.
            let _ = timeout(left, self.read_pages(&mut attempt, scans)).await;
        }
        let progress = &attempt.progress;
        if progress.pages.values().all(Option::is_none) {
            return reply;
        }
        let document = reply.unwrap_or_else(|_| ExtractedDocument {
            page_count: Some(progress.page_count),
            scanned_pages: progress.unread_pages(),
            ..ExtractedDocument::default()
        });
        with_texts(document, &progress.texts(), limits)
    }

    /// Reads scanned pages after the last one that was tried.
    async fn read_pages<F, S>(&self, attempt: &mut Attempt<'_>, scans: F)
    where
        F: Fn(u32) -> S,
        S: Future<Output = Result<Scans, ExtractError>>,
    {
        let progress = &mut attempt.progress;
        while progress.pages.len() < MAX_PAGES && !progress.is_complete {
            let after = progress.pages.keys().last().copied().unwrap_or(0);
            let Ok(batch) = scans(after).await else { return };
            progress.is_complete = batch.pages.is_empty();
            progress.page_count = batch.page_count.max(progress.page_count);
            for scan in batch.pages.into_iter().take(MAX_PAGES - progress.pages.len()) {
                let text = self.read_page(&scan.images).await;
                progress.pages.insert(scan.page, text);
            }
        }
    }

    /// The text of a picture.
    pub(crate) async fn read_picture(
        &self,
        picture: &[u8],
        limits: &Limits,
    ) -> Result<ExtractedDocument, ExtractError> {
        let size = imagesize::blob_size(picture)
            .map_err(|_| ExtractError::damaged("the size of the picture cannot be told"))?;
        if size.width.saturating_mul(size.height) > MAX_PIXELS {
            return Err(ExtractError::too_large("a picture of more than 16 megapixels"));
        }
        let text = self.read_image(picture).await.map_err(|error| {
            tracing::warn!(%error, "text recognition failed on a picture");
            match error.kind() {
                io::ErrorKind::TimedOut => ExtractError::TimedOut {
                    seconds: self.options.timeout.as_secs().max(1),
                },
                io::ErrorKind::InvalidData => ExtractError::damaged("the picture cannot be opened"),
                _ => ExtractError::Unavailable,
            }
        })?;
        let mut builder = DocumentBuilder::new(limits);
        push_page(&mut builder, None, &text);
        builder.finish()
    }

    /// The text of a page's images, if there is any.
    async fn read_page(&self, images: &[Vec<u8>]) -> Option<String> {
        let mut page = String::new();
        for image in images {
            match self.read_image(image).await {
                Ok(text) => {
                    page.push_str(text.trim());
                    page.push_str("\n\n");
                }
                Err(error) => tracing::warn!(%error, "text recognition failed on an image"),
            }
        }
        page.chars().any(char::is_alphanumeric).then_some(page)
    }

    async fn read_image(&self, image: &[u8]) -> io::Result<String> {
        let mut command = Command::new(&self.options.program);
        command.args(["stdin", "stdout"]);
        if !self.options.languages.is_empty() {
            command.args(["-l", &self.options.languages.join("+")]);
        }
        let mut child = command
            .env_clear()
            .env("PATH", PATH)
            // Pages are read side by side already.
            .env("OMP_THREAD_LIMIT", "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let lacks = || io::Error::other("the program has no pipes");
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        self.limit(pid.ok_or_else(lacks)?)?;
        let mut input = child.stdin.take().ok_or_else(lacks)?;
        let output = child.stdout.take().ok_or_else(lacks)?;
        let write = async move {
            // A program that has seen enough closes the pipe; its text still counts.
            let _ = input.write_all(image).await;
        };
        let read = async move {
            let mut text = Vec::new();
            output.take(MAX_TEXT_BYTES).read_to_end(&mut text).await?;
            io::Result::Ok(text)
        };
        let exchange = async {
            let ((), text) = tokio::join!(write, read);
            let status = child.wait().await?;
            io::Result::Ok((text?, status))
        };
        let (text, status): (Vec<u8>, ExitStatus) = timeout(self.options.timeout, exchange)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if !status.success() {
            let reason = format!("the program ended with {status}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn limit(&self, pid: Pid) -> io::Result<()> {
        let both = |value: u64| Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        prlimit(Some(pid), Resource::As, both(MEMORY_BYTES))?;
        prlimit(Some(pid), Resource::Cpu, both(self.options.timeout.as_secs() + 2))?;
        prlimit(Some(pid), Resource::Core, both(0))?;
        Ok(())
    }
}

/// The document with the recognised text of pages at their places.
fn with_texts(
    document: ExtractedDocument,
    texts: &BTreeMap<u32, &str>,
    limits: &Limits,
) -> Result<ExtractedDocument, ExtractError> {
    let mut builder = DocumentBuilder::new(limits);
    let mut waiting = texts.iter().peekable();
    let mut chars = document.text.chars();
    let mut at = 0;
    for block in document.blocks {
        while let Some((page, text)) = waiting.next_if(|(page, _)| block.page.is_some_and(|of| of > **page)) {
            push_page(&mut builder, Some(*page), text);
        }
        let text: String = chars
            .by_ref()
            .skip(block.start - at)
            .take(block.end - block.start)
            .collect();
        at = block.end;
        builder.push(block.kind, &text, block.page);
    }
    for (page, text) in waiting {
        push_page(&mut builder, Some(*page), text);
    }
    builder.title = document.title;
    builder.page_count = document.page_count;
    builder.metadata = document.metadata;
    builder.scanned_pages = document.scanned_pages;
    builder.scanned_pages.retain(|page| !texts.contains_key(page));
    builder.finish()
}

/// Paragraphs are parted by empty lines, words at line ends by hyphens.
fn push_page(builder: &mut DocumentBuilder, page: Option<u32>, text: &str) {
    let mut paragraph = String::new();
    for line in text.lines().map(str::trim).chain([""]) {
        if line.is_empty() {
            builder.push(BlockKind::Paragraph, &paragraph, page);
            paragraph.clear();
            continue;
        }
        let is_parted = line.starts_with(char::is_lowercase)
            && paragraph
                .strip_suffix('-')
                .is_some_and(|stem| stem.ends_with(char::is_alphabetic));
        if is_parted {
            paragraph.pop();
        } else if !paragraph.is_empty() {
            paragraph.push(' ');
        }
        paragraph.push_str(line);
    }
}
